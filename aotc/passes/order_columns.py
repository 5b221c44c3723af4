"""Column order: a graph goes in; where product columns are shuffled, the weights come out
shuffled."""

from __future__ import annotations

from aotc.graph import ops
from aotc.graph.ir import Graph, Node, Op
from aotc.passes.rewrite import Rule, RuleBuilder, rewrite
from aotc.passes.shapes import reshape_groups


def order_columns(graph: Graph) -> Graph:
    """Permute constant weights so that a transpose of the result leaves the columns in their order.

    ``transpose(reshape(dot(x, W)))`` where the reshape splits the columns, say into [channel, row,
    column of a block] as a transposed convolution does, and the transpose puts the channel last:
    with the columns of W in that order the transpose moves whole runs of channels instead of single
    elements. Only for products that nothing else reads. """
    return rewrite(graph, _RULES)


def _order(builder: RuleBuilder, op: Op, operands: tuple[Node, ...], origin: str) -> Node | None:
    assert isinstance(op, ops.Transpose)
    (split,) = operands
    if not isinstance(split.op, ops.Reshape) or builder.is_shared(split):
        return None
    product = split.inputs[0]
    if not isinstance(product.op, ops.Dot) or builder.is_shared(product):
        return None
    rows, weights = product.inputs
    if product.type.rank != 2 or weights.data is None or 0 in product.shape:
        return None
    columns = _columns(product.shape, split.shape)
    order = tuple(axis for axis in op.perm if axis in columns)
    if order == columns:
        return None
    inner, width = weights.shape
    factors = builder.reshape(weights, (inner, *(split.shape[axis] for axis in columns)))
    moved = builder.transpose(factors, (0, *(1 + columns.index(axis) for axis in order)))
    dot = builder.apply(
        product.op, rows, builder.reshape(moved, (inner, width)), origin=product.origin
    )
    shape, place = list(split.shape), {}
    for axis, source in zip(columns, order, strict=True):
        shape[axis], place[source] = split.shape[source], axis
    perm = tuple(place.get(axis, axis) for axis in op.perm)
    return builder.transpose(builder.reshape(dot, tuple(shape), origin), perm, origin)


def _columns(before: tuple[int, ...], after: tuple[int, ...]) -> tuple[int, ...]:
    """The axes of ``after`` that a reshape from ``before`` (rank 2) makes of the columns alone."""
    for old, new in reshape_groups(before, after):
        if old == (1,):
            return new
    return ()


_RULES: dict[type[Op], tuple[Rule, ...]] = {ops.Transpose: (_order,)}
