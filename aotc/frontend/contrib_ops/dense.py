"""Products, convolutions and activations of com.microsoft: a `Call` goes in, the formula in
primitives comes out.

The formulas are those of ONNX Runtime's page of contributed operators (docs/ContribOperators.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.conv import conv
from aotc.frontend.onnx_ops.linalg import gemm, matrix_product
from aotc.graph.ir import Node


def _turned(call: Call, x: Node, side: str) -> Node:
    """An operand of FusedMatMul with its axes as the attributes say: the first axis behind the
    batch, then the last two exchanged."""
    rank = x.type.rank
    if call.attrs.flag(f"transBatch{side}") and rank > 2:
        x = call.transpose(x, (*range(1, rank - 1), 0, rank - 1))
    if call.attrs.flag(f"trans{side}") and rank > 1:
        x = call.transpose(x, (*range(rank - 2), rank - 1, rank - 2))
    return x


def fused_matmul(call: Call) -> Node:
    """``alpha A' B'`` with transposed operands."""
    y = matrix_product(call, _turned(call, call[0], "A"), _turned(call, call[1], "B"))
    alpha = call.attrs.real("alpha", 1.0)
    return y if alpha == 1.0 else call.binary("mul", y, alpha)


def gelu_of(call: Call, x: Node) -> Node:
    """``x/2 (1 + erf(x / sqrt 2))``."""
    inner = call.unary("erf", call.binary("mul", x, math.sqrt(0.5)))
    return call.binary("mul", call.binary("mul", x, 0.5), call.binary("add", inner, 1.0))


def bias_gelu(call: Call) -> Node:
    """Gelu of ``x + bias``."""
    return gelu_of(call, call.binary("add", call[0], call[1]))


def fast_gelu(call: Call) -> Node:
    """Gelu by tanh, of ``x`` or ``x + bias``."""
    x, bias = call[0], call.optional(1)
    x = x if bias is None else call.binary("add", x, bias)
    square = call.binary("mul", call.binary("mul", x, x), 0.044715 * math.sqrt(2 / math.pi))
    inner = call.binary("mul", x, call.binary("add", square, math.sqrt(2 / math.pi)))
    grown = call.binary("add", call.unary("tanh", inner), 1.0)
    return call.binary("mul", call.binary("mul", x, 0.5), grown)


def quick_gelu(call: Call) -> Node:
    """``x sigmoid(alpha x)``."""
    x = call[0]
    inner = call.binary("mul", x, call.attrs.real("alpha", 1.702))
    return call.binary("mul", x, call.unary("sigmoid", inner))


def _leaky(call: Call, x: Node, alpha: float = 0.01) -> Node:
    return call.select(call.compare("lt", x, 0.0), call.binary("mul", x, alpha), x)


def _clip(call: Call, x: Node, low: float = -math.inf, high: float = math.inf) -> Node:
    return call.binary("min", call.binary("max", x, low), high)


def _hard_sigmoid(call: Call, x: Node, alpha: float = 0.2, beta: float = 0.5) -> Node:
    return _clip(call, call.binary("add", call.binary("mul", x, alpha), beta), 0.0, 1.0)


_ACTIVATIONS: Mapping[str, Callable[..., Node]] = MappingProxyType(
    {
        "Clip": _clip,
        "HardSigmoid": _hard_sigmoid,
        "LeakyRelu": _leaky,
        "Relu": lambda call, x: call.binary("max", x, 0.0),
        "Sigmoid": lambda call, x: call.unary("sigmoid", x),
        "Tanh": lambda call, x: call.unary("tanh", x),
    }
)


def _activated(call: Call, y: Node, params: tuple[float, ...]) -> Node:
    """What the attribute ``activation`` makes of ``y``."""
    name = call.attrs.string("activation", "")
    if not name:
        return y
    if name not in _ACTIVATIONS:
        raise call.unsupported(f"activation '{name}' is not supported")
    if len(params) > 2:
        raise ModelError(f"activation '{name}' does not take {len(params)} parameters")
    return _ACTIVATIONS[name](call, y, *params)


def fused_conv(call: Call) -> Node:
    """``activation(conv(x, w) + bias + z)``."""
    y = conv(replace(call, inputs=call.inputs[:3]))
    rest = call.optional(3)
    y = y if rest is None else call.binary("add", y, rest)
    given = call.attrs.reals("activation_params") if "activation_params" in call.attrs else ()
    return _activated(call, y, given)


def fused_gemm(call: Call) -> Node:
    """``activation(alpha A B + beta C)``."""
    names = [name for name in ("activation_alpha", "activation_beta") if name in call.attrs]
    return _activated(call, gemm(call), tuple(call.attrs.real(name) for name in names))


def nhwc_conv(call: Call) -> Node:
    """The convolution of data with channels last; the filters lie as in Conv."""
    x = call[0]
    rank = x.type.rank
    if rank < 3:
        raise ModelError(f"needs data [N, ..., C], got {x.type}")
    first = call.transpose(x, (0, rank - 1, *range(1, rank - 1)))
    y = conv(replace(call, inputs=(first, *call.inputs[1:])))
    return call.transpose(y, (0, *range(2, rank), 1))


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "BiasGelu": bias_gelu,
        "FastGelu": fast_gelu,
        "FusedConv": fused_conv,
        "FusedGemm": fused_gemm,
        "FusedMatMul": fused_matmul,
        "Gelu": lambda call: gelu_of(call, call[0]),
        "NhwcConv": nhwc_conv,
        "QuickGelu": quick_gelu,
        "TransposeMatMul": fused_matmul,
    }
)
