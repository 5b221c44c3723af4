"""Weights stored small: a graph of float32 weights goes in; in what comes out, products,
convolutions and look-ups in tables read weights that are stored as float16, bfloat16 or integers of
8 or 4 bits.

Rounding is to nearest even. float16 keeps 11 bits (an error of at most 2**-11 of a weight that is
not below 2**-14), bfloat16 8 (2**-8). Integers of 8 bits are -127 to 127 with one scale for each
result channel, or row of a table: the error is at most 1/254 of the largest weight of the channel.
Those of 4 bits are -7 to 7 with a scale for each 32 weights along the depth (for convolutions,
along the input channels of one tap), rounded up to bfloat16: at most 1/14 of the largest of these,
and 1/128 of that.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node
from aotc.graph.types import DType
from aotc.passes.bodies import map_nested
from aotc.passes.rewrite import reemit

#: Smaller weights stay as they are.
LEAST_ELEMS = 1024
#: Weights of four bits that share a scale.
BLOCK = 32


def shrink(graph: Graph, stored: DType) -> Graph:
    """``graph``, which is ready for fusion, with its float32 weights stored as ``stored`` (f16,
    bf16, i8 or i4).

    Weights are constants of at least LEAST_ELEMS elements on the right-hand side of products and of
    convolutions that are not depthwise, and tables whose rows are gathered. Those that ``stored``
    cannot hold (infinite, NaN, or beyond float16) stay.
    """

    def emit(builder: Builder, node: Node, new: Mapping[Node, Node]) -> Node | None:
        match node.op:
            case ops.Dot():
                rhs = node.inputs[1]
                small = _weights(builder, rhs, stored, rhs.type.rank - 2, rhs.type.rank - 1)
            case ops.Conv(groups=groups) if node.inputs[1].shape[1] > 1 or groups == 1:
                small = _weights(builder, node.inputs[1], stored, 1, 0)
            case ops.Gather(axis=0):
                return _gathered(builder, node, node.op, new[node.inputs[1]], stored)
            case _:
                return None
        if small is None:
            return None
        return builder.apply(node.op, new[node.inputs[0]], small, origin=node.origin)

    return reemit(map_nested(graph, lambda nested: shrink(nested, stored)), emit)


def _holds(node: Node, stored: DType) -> bool:
    """Whether ``node`` is weights that ``stored`` can hold."""
    if node.data is None or node.type.dtype is not DType.F32 or node.type.elems < LEAST_ELEMS:
        return False
    largest = float(np.abs(node.data).max())
    return math.isfinite(largest) and (stored is not DType.F16 or largest < 65520)


def _weights(
    builder: Builder, node: Node, stored: DType, depth: int, channel: int
) -> Node | None:
    """The `Widen` of weights that add up along the axis ``depth``; None where they stay."""
    if not _holds(node, stored):
        return None
    values = node.data
    assert values is not None
    if stored.is_float:
        codes = builder.constant(short(values, stored))
        return builder.apply(ops.Widen(stored), codes, origin=node.origin)
    extent, is_product = values.shape[depth], channel == depth + 1
    in_blocks = stored is DType.I4 and (is_product or extent % BLOCK == 0)
    # elsewhere one scale holds for all taps of a filter
    kept = tuple(range(values.ndim)) if is_product or in_blocks else (channel, depth)
    block = BLOCK if in_blocks else extent
    codes_, scale = quantized(values, stored, depth, block, kept)
    parts = (builder.constant(codes_), builder.constant(scale))
    return builder.apply(ops.Widen(stored, depth, block), *parts, origin=node.origin)


def short(values: np.ndarray, stored: DType) -> np.ndarray:
    """float32 as what a `Widen` of float16 or bfloat16 reads."""
    if stored is DType.F16:
        return values.astype(np.float16)
    return values.astype(ml_dtypes.bfloat16).view(np.uint16)


def quantized(
    values: np.ndarray, stored: DType, axis: int, block: int, kept: tuple[int, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """(int8 codes, float32 scales): a scale for each ``block`` along ``axis``, for each element of
    the other axes in ``kept``, and for all of those that are not."""
    most = (1 << (stored.size_bits - 1)) - 1
    firsts = range(0, values.shape[axis], block)
    largest = np.maximum.reduceat(np.abs(values), firsts, axis)
    others = tuple(a for a in range(values.ndim) if a not in kept)
    largest = largest.max(axis=others, keepdims=True)
    scale = largest / np.float32(most)
    if stored is DType.I4:
        # up to bfloat16: what has bits beyond its sixteen goes to the next one
        scale = ((scale.view(np.uint32) + np.uint32(0xFFFF)) & np.uint32(0xFFFF0000)).view(
            np.float32
        )
    scale = np.where(scale > np.finfo(np.float32).tiny, scale, np.float32(1))
    each = np.repeat(scale, block, axis).take(range(values.shape[axis]), axis)
    codes = np.clip(np.rint(values / each), -most, most).astype(np.int8)
    return codes, scale.astype(np.float32)


def _gathered(
    builder: Builder, node: Node, op: ops.Gather, indices: Node, stored: DType
) -> Node | None:
    """Rows of a table, gathered as they are stored; None where the table stays."""
    table = node.inputs[0]
    if not _holds(table, stored) or table.type.rank != 2:
        return None
    values, origin = table.data, node.origin
    assert values is not None
    if stored.is_float:
        codes = builder.apply(op, builder.constant(short(values, stored)), indices, origin=origin)
        if stored is DType.F16:
            return builder.cast(codes, DType.F32, origin)
        words = builder.cast(codes, DType.I32, origin)
        high = builder.binary("shl", words, builder.scalar_like(16, words), origin)
        return builder.apply(ops.Bitcast(DType.F32), high, origin=origin)
    width = values.shape[1]
    halves = stored is DType.I4 and width % (2 * BLOCK) == 0
    block = BLOCK if halves else width
    whole, scale = quantized(values, stored if halves else DType.I8, 1, block, (0, 1))
    factors = builder.apply(op, builder.constant(scale), indices, origin=origin)
    if halves:
        low, high_ = whole[:, : width // 2], whole[:, width // 2 :]
        pairs = builder.constant((low & 15) | (high_ << 4))
        both = builder.apply(op, pairs, indices, origin=origin)
        four = builder.scalar_like(4, both)
        left = builder.binary("shl", both, four, origin)
        parts = [builder.binary("shr", x, four, origin) for x in (left, both)]
        numbers = builder.concat(
            [builder.cast(part, DType.F32, origin) for part in parts], node.type.rank - 1, origin
        )
    else:
        codes = builder.apply(op, builder.constant(whole), indices, origin=origin)
        numbers = builder.cast(codes, DType.F32, origin)
    lead = node.shape[:-1]
    apart = builder.reshape(numbers, (*lead, width // block, block), origin)
    factors = builder.reshape(factors, (*lead, width // block, 1), origin)
    return builder.reshape(
        builder.binary("mul", apart, factors, origin), node.shape, origin
    )
