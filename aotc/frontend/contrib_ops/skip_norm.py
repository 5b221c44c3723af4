"""Normalisations of com.microsoft: a `Call` goes in, sums, means and their arithmetic come out.

The formulas are those of ONNX Runtime's page of contributed operators (docs/ContribOperators.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.norm import standardize
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType


def _layer_norm(call: Call, x: Node, gamma: Node, beta: Node | None, epsilon: float) -> list[Node]:
    """``x`` standardised over its last axis, times ``gamma``, plus ``beta``; the mean; the inverse
    deviation."""
    y, mean, inverse = standardize(call, x, (x.type.rank - 1,), epsilon)
    y = call.binary("mul", y, gamma)
    return [y if beta is None else call.binary("add", y, beta), mean, inverse]


def _rms_norm(call: Call, x: Node, gamma: Node, axes: Sequence[int], epsilon: float) -> list[Node]:
    """``x`` over the root of its mean square, times ``gamma``; the inverse of that root."""
    mean = call.mean(call.binary("mul", x, x), axes)
    inverse = call.unary("reciprocal", call.unary("sqrt", call.binary("add", mean, epsilon)))
    return [call.binary("mul", call.binary("mul", x, inverse), gamma), inverse]


def _expect_vector(call: Call, index: int, width: int) -> Node | None:
    """Input ``index``, which must have one number for each of ``width`` columns."""
    node = call.optional(index)
    if node is not None and node.shape != (width,):
        raise ModelError(f"input {index} is {node.type}, needs {width} numbers")
    return node


def _sum(call: Call, bias_at: int) -> Node:
    """Input plus skip plus bias; the skip may lack the batch."""
    x, skip = call[0], call[1]
    if skip.shape[-2:] != x.shape[-2:] or skip.type.rank > x.type.rank:
        raise ModelError(f"the skip {skip.type} does not fit {x.type}")
    bias = _expect_vector(call, bias_at, x.shape[-1])
    x = call.binary("add", x, skip)
    return x if bias is None else call.binary("add", x, bias)


def skip_layer_normalization(call: Call) -> Sequence[Node]:
    """The layer normalisation of ``x + skip + bias``; mean, inverse deviation and that sum."""
    total = _sum(call, 4)
    width = total.shape[-1]
    gamma, beta = _expect_vector(call, 2, width), _expect_vector(call, 3, width)
    assert gamma is not None
    epsilon = call.attrs.real("epsilon", 1e-12)
    return [*_layer_norm(call, total, gamma, beta, epsilon), total]


def skip_simplified(call: Call) -> Sequence[Node | None]:
    """The same without mean and beta."""
    total = _sum(call, 3)
    gamma = _expect_vector(call, 2, total.shape[-1])
    assert gamma is not None
    axes = (total.type.rank - 1,)
    y, inverse = _rms_norm(call, total, gamma, axes, call.attrs.real("epsilon", 1e-12))
    return [y, None, inverse, total]


def simplified(call: Call) -> Sequence[Node]:
    """``x / sqrt(mean(x^2) + epsilon) * scale`` over the axes from ``axis`` on."""
    x = call[0]
    axis = call.axis(call.attrs.integer("axis", -1), x.type.rank)
    wide = call.cast(x, DType.F32 if x.type.dtype is DType.F16 else x.type.dtype)
    scale = call.cast(call[1], wide.type.dtype)
    axes = tuple(range(axis, x.type.rank))
    y, inverse = _rms_norm(call, wide, scale, axes, call.attrs.real("epsilon", 1e-5))
    return [call.cast(y, x.type.dtype), inverse]


def embed_layer_normalization(call: Call) -> Sequence[Node]:
    """The layer normalisation of the sum of word, position and segment embeddings; how many words
    of each sentence count; and that sum."""
    words = call[0]
    if words.type.rank != 2:
        raise ModelError(f"needs words [batch, length], got {words.type}")
    batch, length = words.shape
    table = call[3]
    if table.type.rank != 2 or table.shape[0] < length:
        raise ModelError(f"positions {table.type} do not cover a length of {length}")
    places = call.optional(8)
    if places is None:
        position = call.slice_axis(table, 0, 0, length)
    else:
        position = call.apply(ops.Gather(0), table, places)
    total = call.binary("add", call.apply(ops.Gather(0), call[2], words), position)
    segments, segment_table = call.optional(1), call.optional(4)
    if segments is not None and segment_table is not None:
        total = call.binary("add", total, call.apply(ops.Gather(0), segment_table, segments))
    y = _layer_norm(call, total, call[5], call[6], call.attrs.real("epsilon", 1e-12))[0]
    return [y, _mask_index(call, call.optional(7), batch), total]


def _mask_index(call: Call, mask: Node | None, batch: int) -> Node:
    """How many ones the mask of each sentence has; zeros without a mask."""
    if mask is None:
        zero = call.constant(DType.I32.numpy.type(0))
        return call.broadcast(zero, (batch,))
    return call.reduce("sum", call.cast(call.compare("eq", mask, 1), DType.I32), (1,), False)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "EmbedLayerNormalization": embed_layer_normalization,
        "SimplifiedLayerNormalization": simplified,
        "SkipLayerNormalization": skip_layer_normalization,
        "SkipSimplifiedLayerNormalization": skip_simplified,
    }
)
