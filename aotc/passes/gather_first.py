"""Gather first: a graph goes in; rows of a table that is stored in fewer bytes than it has numbers
are gathered as they are stored, and only those are computed."""

from __future__ import annotations

import math

import numpy as np

from aotc.graph import ops
from aotc.graph.ir import Graph, Node, Op
from aotc.passes.constants import stretch, stretched_value
from aotc.passes.rewrite import RuleBuilder, rewrite

_MOST_STEPS = 64


def gather_first(graph: Graph) -> Graph:
    """``gather(f(table, c), i)`` -> ``f(gather(table, i), gather(c, i))``.

    For elementwise f, a constant table with more elements than are gathered from it and fewer bytes
    than what f makes of it, and other constants c. So the codes of a quantised table stay codes,
    as do short floats; `gather_last` does the opposite for small tables. """
    return rewrite(graph, {ops.Gather: (_gather_codes,)})


def _gather_codes(
    builder: RuleBuilder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    assert isinstance(op, ops.Gather)
    table, indices = operands
    result = op.infer(table.type, indices.type)
    if not isinstance(table.op, ops.ELEMENTWISE) or table.type.elems <= result.elems:
        return None
    steps = _steps(table)
    if steps is None:
        return None
    leaves = {x for step in steps for x in step.inputs if not isinstance(x.op, ops.ELEMENTWISE)}
    values = {leaf: stretched_value(leaf) for leaf in leaves}
    stored = sum(value.nbytes for value in values.values() if value is not None)
    if stored >= table.type.size_bytes:
        return None
    made: dict[Node, Node] = {}
    for leaf, value in values.items():
        if value is None:
            return None
        made[leaf] = _gathered(builder, op, value, indices, result.dims, origin)
    for step in steps:
        made[step] = builder.apply(step.op, *(made[x] for x in step.inputs), origin=origin)
    return made[table]


def _steps(table: Node) -> list[Node] | None:
    """The elementwise nodes that ``table`` is made by, operands first; None if they are many."""
    order: dict[Node, None] = {}
    stack = [table]
    while stack:
        node = stack.pop()
        order.pop(node, None)
        order[node] = None
        stack.extend(x for x in node.inputs if isinstance(x.op, ops.ELEMENTWISE))
        if len(order) > _MOST_STEPS:
            return None
    return list(reversed(order))


def _gathered(
    builder: RuleBuilder,
    op: ops.Gather,
    values: np.ndarray,
    indices: Node,
    shape: tuple[int, ...],
    origin: str,
) -> Node:
    """What ``indices`` pick of a constant stretched to the table, in the shape of the result."""
    if values.shape[op.axis] == 1:
        before, behind = values.shape[: op.axis], values.shape[op.axis + 1 :]
        ones = (1,) * indices.type.rank
        return stretch(builder, values.reshape(*before, *ones, *behind), shape, origin)
    picked = builder.apply(op, builder.constant(values), indices, origin=origin)
    if math.prod(shape) == picked.type.elems:
        return picked
    return builder.apply(ops.Broadcast(shape), picked, origin=origin)
