"""Sinking reshapes: a graph goes in; elementwise work and reductions take the shape of what feeds
them."""

from __future__ import annotations

from aotc.graph import ops
from aotc.graph.ir import Graph, Node, Op
from aotc.passes.rewrite import Rule, RuleBuilder, rewrite
from aotc.passes.rules_movement import join_reshapes, sink_reshape_below_broadcast
from aotc.passes.shapes import reshape_groups

_CONTRACTIONS = (ops.Dot, ops.Conv)
_CARRIERS = (*_CONTRACTIONS, *ops.ELEMENTWISE, ops.Reduce, ops.ReduceWindow, ops.Gather)


def sink_reshapes(graph: Graph) -> Graph:
    """Move every reshape of a computed value below the elementwise operators and reductions after
    it.

    ``f(reshape(dot(a, b)), c)`` becomes ``reshape(f(dot(a, b), reshape(c)))``: the same elements in
    the same order, but now f has the shape of the product and one kernel computes both. So the
    rank-2 products of a batch of one carry their shape through the layers between them. """
    return rewrite(graph, _RULES)


def _sink_below_elementwise(
    builder: RuleBuilder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    carriers = [
        operand
        for operand in operands
        if isinstance(operand.op, ops.Reshape) and isinstance(operand.inputs[0].op, _CARRIERS)
    ]
    if not carriers:
        return None
    carrier = min(carriers, key=_preference)
    shape = carrier.inputs[0].shape
    # Another operand may have been computed in the present shape: only fewer axes are worth leaving
    # it.
    settled = any(isinstance(operand.op, _CARRIERS) for operand in operands)
    if settled and len(shape) >= carrier.type.rank:
        return None
    if not _keeps_rows(shape, carrier.shape) and (
        builder.is_shared(carrier) or builder.is_shared(carrier.inputs[0])
    ):
        return None
    moved = tuple(builder.reshape(operand, shape, origin) for operand in operands)
    if any(_stays_stretched(node) for node in moved):
        return None
    result = builder.apply(op, *moved, origin=origin)
    return builder.reshape(result, carrier.shape, origin)


def _preference(carrier: Node) -> tuple[int, bool]:
    source = carrier.inputs[0]
    return source.type.rank, not isinstance(source.op, _CONTRACTIONS)


def _keeps_rows(before: tuple[int, ...], after: tuple[int, ...]) -> bool:
    """Whether the innermost axes (but for size 1) are the same, so that reductions can follow."""
    return [dim for dim in before if dim != 1][-1:] == [dim for dim in after if dim != 1][-1:]


def _stays_stretched(node: Node) -> bool:
    """Whether ``node`` is a reshape that could not be moved below a broadcast: no strides express
    it."""
    return isinstance(node.op, ops.Reshape) and isinstance(node.inputs[0].op, ops.Broadcast)


def _sink_below_reduce(
    builder: RuleBuilder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    assert isinstance(op, ops.Reduce)
    (x,) = operands
    if not isinstance(x.op, ops.Reshape) or not isinstance(x.inputs[0].op, _CARRIERS):
        return None
    source = x.inputs[0]
    if 0 in x.shape:
        return None
    axes: list[int] = []
    for before, after in reshape_groups(source.shape, x.shape):
        reduced = [axis in op.axes for axis in after]
        if all(reduced):
            axes += before
        elif any(reduced):
            return None
    if not axes:
        return None
    kept = tuple(dim for axis, dim in enumerate(x.shape) if axis not in op.axes)
    result = builder.apply(ops.Reduce(op.fn, tuple(axes)), source, origin=origin)
    return builder.reshape(result, kept, origin)


_RULES: dict[type[Op], tuple[Rule, ...]] = {
    ops.Reshape: (join_reshapes, sink_reshape_below_broadcast),
    ops.Reduce: (_sink_below_reduce,),
    **{kind: (_sink_below_elementwise,) for kind in ops.ELEMENTWISE},
}
