"""The tables of operators that ONNX itself does not define: a name goes in, its rule and what a
node of it may look like come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from aotc.frontend.contrib_ops import attention, dense, dynamic_lstm, quantized, skip_norm
from aotc.frontend.onnx_ops.call import Rule

CONTRIB_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **attention.RULES,
        **dense.RULES,
        **dynamic_lstm.RULES,
        **quantized.RULES,
        **skip_norm.RULES,
    }
)
"""The rules of the domain com.microsoft."""

MANY = 2**31 - 1


@dataclass(frozen=True)
class Definition:
    """How many inputs and outputs an operator has, and its attributes; the names are those of
    onnx.defs.OpSchema."""

    min_input: int
    max_input: int
    max_output: int = 1
    attributes: frozenset[str] = frozenset()
    min_output: int = 1
    since_version: int = 1
    has_function: bool = False
    has_context_dependent_function: bool = False


def _define(inputs: tuple[int, int], outputs: int = 1, attributes: str = "") -> Definition:
    return Definition(*inputs, outputs, frozenset(attributes.split()))


_CONV = "auto_pad dilations group kernel_shape pads strides"
_MATMUL = "alpha transA transB"
_LSTM = "activation_alpha activation_beta activations clip direction hidden_size input_forget"
_MICROSOFT = "com.microsoft"

DEFINITIONS: Mapping[tuple[str, str], Definition] = MappingProxyType(
    {
        ("", "LayerNormalization"): _define((2, 3), 3, "axis epsilon stash_type"),
        ("", "SimplifiedLayerNormalization"): _define((2, 2), 2, "axis epsilon stash_type"),
        **{
            (_MICROSOFT, name): definition
            for name, definition in {
                "Attention": _define(
                    (2, 7),
                    2,
                    "do_rotary mask_filter_value num_heads past_present_share_buffer "
                    "qkv_hidden_sizes rotary_embedding_dim scale unidirectional",
                ),
                "BiasGelu": _define((2, 2)),
                "DynamicQuantizeLSTM": _define((12, 12), 3, _LSTM),
                "DynamicQuantizeMatMul": _define((3, 5)),
                "EmbedLayerNormalization": _define((7, 9), 3, "epsilon mask_index_type"),
                "FastGelu": _define((1, 2)),
                "FusedConv": _define((2, 4), 1, f"{_CONV} activation activation_params"),
                "FusedGemm": _define(
                    (2, 3),
                    1,
                    f"{_MATMUL} beta activation activation_alpha activation_beta activation_gamma",
                ),
                "FusedMatMul": _define((2, 2), 1, f"{_MATMUL} transBatchA transBatchB"),
                "Gelu": _define((1, 1)),
                "GroupQueryAttention": _define(
                    (7, 16),
                    4,
                    "causal do_rotary k_quant_type kv_cache_bit_width kv_num_heads "
                    "local_window_size num_heads qk_norm_epsilon qk_output rotary_interleaved "
                    "scale sliding_window_cache smooth_softmax softcap v_quant_type",
                ),
                "MatMulIntegerToFloat": _define((4, 7)),
                "MatMulNBits": _define(
                    (3, 6), 1, "K N accuracy_level bits block_size weight_prepacked"
                ),
                "MultiHeadAttention": _define(
                    (1, 10), 4, "mask_filter_value num_heads scale unidirectional"
                ),
                "NhwcConv": _define((2, 3), 1, _CONV),
                "QGemm": _define((6, 9), 1, _MATMUL),
                "QLinearAdd": _define((7, 8)),
                "QLinearAveragePool": _define(
                    (4, 5),
                    1,
                    "auto_pad ceil_mode channels_last count_include_pad kernel_shape pads strides",
                ),
                "QLinearConcat": _define((3, MANY), 1, "axis"),
                "QLinearGlobalAveragePool": _define((5, 5), 1, "channels_last"),
                "QLinearLeakyRelu": _define((4, 5), 1, "alpha"),
                "QLinearMul": _define((7, 8)),
                "QLinearSigmoid": _define((4, 5)),
                "QLinearSoftmax": _define((5, 5), 1, "axis opset"),
                "QLinearWhere": _define((9, 9)),
                "QuickGelu": _define((1, 1), 1, "alpha"),
                "RotaryEmbedding": _define(
                    (4, 4), 1, "interleaved is_packed_batching num_heads rotary_embedding_dim scale"
                ),
                "SimplifiedLayerNormalization": _define((2, 2), 2, "axis epsilon stash_type"),
                "SkipLayerNormalization": _define((3, 5), 4, "epsilon"),
                "SkipSimplifiedLayerNormalization": _define((3, 4), 4, "epsilon"),
                "TransposeMatMul": _define((2, 2), 1, _MATMUL),
            }.items()
        },
    }
)
"""By domain and name; those of ONNX's own domain are what ONNX Runtime takes there as well."""
