"""One-hot products: a graph goes in, products of one-hot rows with a table come out as gathers."""

from __future__ import annotations

import numpy as np

from aotc.graph import ops
from aotc.graph.ir import Graph, Node, Op
from aotc.passes.constants import stretched_value
from aotc.passes.rewrite import Rule, RuleBuilder, rewrite


def one_hot(graph: Graph) -> Graph:
    """``dot(cast(indices == 0..K-1), table)`` -> rows of the table picked by index, zeros outside
    0..K-1.

    Exactly equal: every other term of the sum is a product with zero, and tables that hold
    infinities or NaN are left alone. """
    return rewrite(graph, _RULES)


def _gather_rows(
    builder: RuleBuilder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    rows, table = operands
    indices = _indices(rows)
    if indices is None or table.data is None or rows.type.rank != 2:
        return None
    if not np.isfinite(table.data).all():
        return None
    count, width = table.shape
    # One more row, of zeros, for every index that matches no column of the one-hot rows.
    padded = builder.apply(ops.Pad((0, 0), (1, 0), 0.0), table, origin=origin)
    outside = builder.scalar_like(count, indices)
    inside = builder.binary(
        "and",
        builder.compare("ge", indices, builder.scalar_like(0, indices)),
        builder.compare("lt", indices, outside),
    )
    picked = builder.reshape(builder.select(inside, indices, outside), (rows.shape[0],), origin)
    return builder.apply(ops.Gather(0), padded, picked, origin=origin)


def _indices(rows: Node) -> Node | None:
    """The indices (of any shape, one per row) of which ``rows`` is the one-hot form, or None."""
    if isinstance(rows.op, ops.Reshape) and rows.shape[-1:] == rows.inputs[0].shape[-1:]:
        rows = rows.inputs[0]
    if not isinstance(rows.op, ops.Cast) or not rows.type.dtype.is_float:
        return None
    equal = rows.inputs[0]
    if equal.op != ops.Compare("eq"):
        return None
    for wide, numbers in (equal.inputs, equal.inputs[::-1]):
        if isinstance(wide.op, ops.Broadcast) and _counts_columns(numbers):
            indices = wide.inputs[0]
            if indices.type.dtype.is_int and indices.shape == (*wide.shape[:-1], 1):
                return indices
    return None


def _counts_columns(node: Node) -> bool:
    """Whether ``node`` is known to hold 0, 1, 2, ... along its last axis, the same for all rows."""
    values = stretched_value(node)
    if values is None or values.size != node.shape[-1]:
        return False
    return bool((values.reshape(-1) == np.arange(values.size)).all())


_RULES: dict[type[Op], tuple[Rule, ...]] = {ops.Dot: (_gather_rows,)}
