"""Canonical products: a graph goes in; products over no real batch come out as matrix products."""

from __future__ import annotations

import math

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node, Op
from aotc.passes.rewrite import Rule, rewrite


def canonical_dot(graph: Graph) -> Graph:
    """A product over a batch of one, or of a whole batch with one shared right operand, becomes
    [M,K] x [K,N]."""
    return rewrite(graph, _RULES)


def _collapse_batch(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    lhs, rhs = operands
    *batch, rows, inner = lhs.shape
    columns = rhs.shape[-1]
    if not batch or 0 in batch:
        return None
    shared = rhs
    if any(dim != 1 for dim in batch):
        if not isinstance(rhs.op, ops.Broadcast):
            return None
        shared = rhs.inputs[0]
        if shared.shape != (1,) * len(batch) + (inner, columns):
            return None
    left = builder.reshape(lhs, (math.prod(batch) * rows, inner), origin)
    right = builder.reshape(shared, (inner, columns), origin)
    product = builder.apply(op, left, right, origin=origin)
    return builder.reshape(product, (*batch, rows, columns), origin)


_RULES: dict[type[Op], tuple[Rule, ...]] = {ops.Dot: (_collapse_batch,)}
