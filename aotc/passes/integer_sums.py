"""Sums of products of codes: in go the codes of two tensors and their zero points, out comes the
int32 sum of the products of what is left when the zero points are taken off, made such that the
codes themselves are multiplied."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Node
from aotc.graph.types import DType

Zero = int | Node
"""A zero point: a number, or a node of one int32 that is known at run time only."""

#: Corrections that depend on the position may take this many bytes.
_MOST_BYTES = 4 << 20


def shifted(builder: Builder, zero: Zero, by: int) -> Zero:
    """``zero + by``."""
    return zero + by if isinstance(zero, int) else builder.binary("add", zero, _int(builder, by))


def times_constant(
    builder: Builder, node: Node, codes: Node, zero: Zero, weights: np.ndarray
) -> Node | None:
    """What ``node`` (a Dot or Conv) is of ``codes - zero`` and constant weights (int32): each
    channel of the sums of products of codes less ``zero`` times the sum of its weights. None where
    the corrections would be too many."""
    op, origin = node.op, node.origin
    if not isinstance(op, ops.Conv):
        wide = builder.cast(codes, DType.I32, origin)
        sums = builder.apply(op, wide, builder.constant(weights), origin=origin)
        return _corrected(builder, sums, weights.sum(axis=-2, keepdims=True), zero, origin)
    padded = any(op.low) or any(op.high)
    if padded and isinstance(zero, Node):
        # what pads is no code: each sum is corrected by those weights that meet codes
        totals = _totals_inside(node, weights)
        if totals is None:
            return None
    else:
        totals = weights.sum(axis=tuple(range(1, weights.ndim)))
        totals = totals.reshape(channel_shape(op, node.type.rank))
    if padded:
        low, high = (
            (0, *side, 0) if op.channels_last else (0, 0, *side) for side in (op.low, op.high)
        )
        value = float(zero) if isinstance(zero, int) else 0.0
        codes = builder.apply(ops.Pad(low, high, value), codes, origin=origin)
    none = (0,) * len(op.low)
    wide = builder.cast(codes, DType.I32, origin)
    plain = replace(op, low=none, high=none)
    sums = builder.apply(plain, wide, builder.constant(weights), origin=origin)
    return _corrected(builder, sums, totals, zero, origin)


def times_codes(builder: Builder, node: Node, a: Node, za: Zero, b: Node, zb: Zero) -> Node:
    """``sum((a - za) * (b - zb))`` for codes ``a`` and ``b`` of a Dot, as ``sum(a * b) - za *
    sum(b) - zb * sum(a) + za * zb * depth``."""
    origin, rank = node.origin, node.type.rank
    left, right = (builder.cast(codes, DType.I32, origin) for codes in (a, b))
    sums = builder.apply(ops.Dot(), left, right, origin=origin)
    both: Zero | None = _product(builder, _product(builder, za, zb), left.shape[-1])
    for codes, axis, zero in ((b, rank - 2, za), (a, rank - 1, zb)):
        if zero == 0:
            continue
        total, perm = _total(builder, codes, axis, origin)
        total = builder.binary("mul", total, _node(builder, _product(builder, zero, -1)), origin)
        if both is not None:
            total = builder.binary("add", total, _node(builder, both), origin)
        total = builder.transpose(total, perm, origin)
        kept = tuple(1 if i == axis else dim for i, dim in enumerate(codes.shape))
        sums = builder.binary("add", sums, builder.reshape(total, kept, origin), origin)
        both = None
    return sums


def _total(
    builder: Builder, codes: Node, axis: int, origin: str
) -> tuple[Node, tuple[int, ...]]:
    """The sums of ``codes`` along ``axis``, taken where they lie before they are transposed, and
    the permutation that is left to do."""
    perm: tuple[int, ...] = tuple(range(codes.type.rank))
    if isinstance(codes.op, ops.Transpose):
        perm, codes = codes.op.perm, codes.inputs[0]
    wide = builder.cast(codes, DType.I32, origin)
    total = builder.apply(ops.Reduce("sum", (perm[axis],)), wide, origin=origin)
    kept = [place - (place > perm[axis]) for i, place in enumerate(perm) if i != axis]
    return total, tuple(kept)


def channel_shape(op: ops.Conv, rank: int) -> tuple[int, ...]:
    """One value for each output channel, to broadcast over the result of ``op``."""
    ones = (1,) * (rank - 2)
    return (1, *ones, -1) if op.channels_last else (1, -1, *ones)


def _totals_inside(node: Node, weights: np.ndarray) -> np.ndarray | None:
    """The sums of those weights that meet no padding, for each position and channel of a Conv."""
    if math.prod(node.shape[1:]) * weights.itemsize > _MOST_BYTES:
        return None
    ones = np.ones((1, *node.inputs[0].shape[1:]), np.int32)
    return node.op.evaluate(ones, weights)


def _corrected(
    builder: Builder, sums: Node, totals: np.ndarray, zero: Zero, origin: str
) -> Node:
    """``sums - zero * totals``."""
    if not totals.any() or zero == 0:
        return sums
    if isinstance(zero, int):
        addend = builder.constant((-zero * totals).astype(np.int32))
    else:
        negated = builder.constant((-totals).astype(np.int32))
        addend = builder.binary("mul", negated, zero, origin)
    return builder.binary("add", sums, addend, origin)


def _int(builder: Builder, value: int) -> Node:
    return builder.constant(np.array(value, np.int64).astype(np.int32))


def _node(builder: Builder, value: Zero) -> Node:
    return _int(builder, value) if isinstance(value, int) else value


def _product(builder: Builder, a: Zero, b: Zero) -> Zero:
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    return builder.binary("mul", _node(builder, a), _node(builder, b))
