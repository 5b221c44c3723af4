"""Derivatives of reductions, running sums and matrix products."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from aotc.autodiff.emit import Emit, Maybe, is_float
from aotc.autodiff.rule import Rule, linear, same_op
from aotc.graph import ops
from aotc.graph.ir import Node


def _kept(node: Node, y: Node, e: Emit) -> Node:
    """A result of the reduction ``node`` with its axes back, as size 1."""
    assert isinstance(node.op, ops.Reduce)
    shape = node.inputs[0].shape
    kept = tuple(1 if at in node.op.axes else size for at, size in enumerate(shape))
    return e.builder.reshape(y, kept)


def _share(e: Emit, node: Node) -> Node:
    """Which elements reach the extreme; equal ones share it."""
    assert isinstance(node.op, ops.Reduce)
    (x,) = node.inputs
    best = e.builder.cast(e.compare("eq", x, _kept(node, node, e)), x.type.dtype)
    return e.binary("div", best, e.builder.reduce("sum", best, node.op.axes, keep=True))


def _reduce_jvp(e: Emit, node: Node, tangents: Sequence[Maybe]) -> Maybe:
    assert isinstance(node.op, ops.Reduce)
    (tangent,) = tangents
    if tangent is None:
        return None
    if node.op.fn != "sum":
        tangent = e.binary("mul", tangent, _share(e, node))
    return e.apply(ops.Reduce("sum", node.op.axes), tangent)


def _reduce_vjp(e: Emit, node: Node, outer: Node, wanted: Sequence[bool]) -> Sequence[Maybe]:
    assert isinstance(node.op, ops.Reduce)
    (x,) = node.inputs
    spread = e.builder.broadcast(_kept(node, outer, e), x.shape)
    return [spread if node.op.fn == "sum" else e.binary("mul", spread, _share(e, node))]


def expand_product(e: Emit, node: Node) -> Node | None:
    """A product over axes as a tree of multiplications, whose derivative is right where factors are
    zero; None for other reductions."""
    assert isinstance(node.op, ops.Reduce)
    if node.op.fn != "prod" or not is_float(node):
        return None
    (x,) = node.inputs
    axes = node.op.axes
    rest = tuple(axis for axis in range(x.type.rank) if axis not in axes)
    front = e.builder.transpose(x, (*axes, *rest))
    count = x.type.elems // max(node.type.elems, 1) if node.type.elems else 1
    if x.type.elems == 0:
        return None
    flat = e.builder.reshape(front, (count, *node.shape))
    while count > 1:
        half = (count + 1) // 2
        flat = e.pad_axis(flat, 0, 0, 2 * half - count, 1.0)
        low, high = e.slice_axis(flat, 0, 0, half), e.slice_axis(flat, 0, half, half)
        flat, count = e.binary("mul", low, high), half
    return e.builder.reshape(flat, node.shape)


def _cum_sum(e: Emit, node: Node, outer: Node) -> Node:
    assert isinstance(node.op, ops.CumSum)
    return e.apply(ops.CumSum(node.op.axis, node.op.exclusive, not node.op.reverse), outer)


def _swapped(e: Emit, x: Node) -> Node:
    rank = x.type.rank
    return e.builder.transpose(x, (*range(rank - 2), rank - 1, rank - 2))


def bilinear_jvp(e: Emit, node: Node, tangents: Sequence[Maybe]) -> Maybe:
    """The tangent of a product of two operands."""
    a, b = node.inputs
    first = e.apply(node.op, tangents[0], b) if tangents[0] is not None else None
    second = e.apply(node.op, a, tangents[1]) if tangents[1] is not None else None
    return e.add(first, second)


def _dot_vjp(e: Emit, node: Node, outer: Node, wanted: Sequence[bool]) -> Sequence[Maybe]:
    a, b = node.inputs
    return [
        e.apply(ops.Dot(), outer, _swapped(e, b)) if wanted[0] else None,
        e.apply(ops.Dot(), _swapped(e, a), outer) if wanted[1] else None,
    ]


RULES: Mapping[type[ops.Op], Rule] = MappingProxyType(
    {
        ops.Reduce: Rule(_reduce_jvp, _reduce_vjp),
        ops.CumSum: linear(same_op, _cum_sum),
        ops.Dot: Rule(bilinear_jvp, _dot_vjp),
    }
)
