"""Gather last: a graph goes in; what is computed from rows of a small constant table is
tabulated."""

from __future__ import annotations

import numpy as np

from aotc.graph import ops
from aotc.graph.ir import Graph, Node, Op
from aotc.passes.constants import stretched_value
from aotc.passes.rewrite import Rule, RuleBuilder, rewrite


def gather_last(graph: Graph) -> Graph:
    """``f(gather(table, i), c)`` -> ``gather(f(table, c), i)``, f(table, c) being computed here.

    For elementwise f, a constant table read along axis 0 that is no larger than what is gathered
    from it, and constants c that are the same for all indices. Several gathers may take part when
    they share their indices. """
    return rewrite(graph, _RULES)


def _tabulate(
    builder: RuleBuilder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    gathers = [x for x in operands if isinstance(x.op, ops.Gather)]
    if not gathers:
        return None
    first = gathers[0]
    indices = first.inputs[1]
    if any(x.op != ops.Gather(0) or x.inputs[1] is not indices for x in gathers):
        return None
    tables = [_table(operand, indices.type.rank) for operand in operands]
    values = [value for value in tables if value is not None]
    if len(values) != len(operands):
        return None
    shape = first.inputs[0].shape
    if first.inputs[0].type.elems > first.type.elems:
        return None
    wider = op.infer(*(x.type for x in operands)).dtype.size_bytes > first.type.dtype.size_bytes
    if wider and indices.type.dtype.size_bytes == 1:
        return None  # looking bytes up is quick, and so is making numbers of them
    with np.errstate(all="ignore"):
        result = op.evaluate(*(np.broadcast_to(value, shape) for value in values))
    return builder.apply(ops.Gather(0), builder.constant(result), indices, origin=origin)


def _table(operand: Node, index_rank: int) -> np.ndarray | None:
    """The values per table row of a gathered table, or of a constant that no index changes."""
    if isinstance(operand.op, ops.Gather):
        return operand.inputs[0].data
    value = stretched_value(operand)
    if value is None or any(dim != 1 for dim in value.shape[:index_rank]):
        return None
    return value.reshape(1, *value.shape[index_rank:])


_RULES: dict[type[Op], tuple[Rule, ...]] = {kind: (_tabulate,) for kind in ops.ELEMENTWISE}
