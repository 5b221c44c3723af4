"""Constant folding: a graph goes in, the graph with known values computed (size-capped) comes
out."""

from __future__ import annotations

import math

import numpy as np

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node, Op
from aotc.graph.types import broadcast_dims
from aotc.passes.constants import stretch, stretched_value
from aotc.passes.rewrite import Rule, rewrite

RESULT_CAP_BYTES = 16 << 20
"""A folded result may be this large, or as large as its operands together; elementwise twice as
large."""

SMALL_BYTES = 16 << 10
"""Index vectors and stretched constants this small may become dense; larger ones stay `Iota` and
`Broadcast`."""


def fold(graph: Graph) -> Graph:
    """Replace every node whose operands are all constant by its value.

    A `Broadcast` of a constant counts as constant but stays a `Broadcast`: elementwise arithmetic
    on it is done before stretching, so scalars stay scalars. """
    return rewrite(graph, _RULES)


def _fold_dense(builder: Builder, op: Op, operands: tuple[Node, ...], origin: str) -> Node | None:
    values = []
    for operand in operands:
        value = stretched_value(operand)
        if value is None or (operand.data is None and operand.type.size_bytes > SMALL_BYTES):
            return None
        values.append(np.broadcast_to(value, operand.shape))
    result_bytes = op.infer(*(operand.type for operand in operands)).size_bytes
    operand_bytes = sum(value.nbytes for value in values)
    if result_bytes > max(RESULT_CAP_BYTES, operand_bytes):
        return None
    with np.errstate(all="ignore"):
        return builder.constant(op.evaluate(*values))


def _fold_elementwise(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    values = []
    for operand in operands:
        value = stretched_value(operand)
        if value is None:
            return None
        values.append(value)
    joint = broadcast_dims(*(value.shape for value in values))
    shape = operands[0].shape
    result_bytes = math.prod(joint) * op.infer(*(x.type for x in operands)).dtype.size_bytes
    # twice: weights of two bytes become float32, which the kernels can have packed
    if result_bytes > max(RESULT_CAP_BYTES, 2 * sum(value.nbytes for value in values)):
        return None
    with np.errstate(all="ignore"):
        result = op.evaluate(*(np.broadcast_to(value, joint) for value in values))
    return stretch(builder, result, shape, origin)


def _fold_reshape(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    assert isinstance(op, ops.Reshape)
    return builder.reuse_constant(operands[0], op.shape) if operands[0].data is not None else None


def _fold_iota(builder: Builder, op: Op, operands: tuple[Node, ...], origin: str) -> Node | None:
    if op.infer().size_bytes > SMALL_BYTES:
        return None
    return builder.constant(op.evaluate())


_DENSE = (
    ops.Transpose, ops.Slice, ops.Pad, ops.Concat, ops.Gather, ops.GatherElements, ops.GatherND,
    ops.ScatterND, ops.ScatterElements, ops.Reduce, ops.ArgReduce, ops.CumSum, ops.ReduceWindow,
    ops.Dot, ops.Conv, ops.TopK,
)  # fmt: skip

_RULES: dict[type[Op], tuple[Rule, ...]] = {
    ops.Reshape: (_fold_reshape,),
    ops.Iota: (_fold_iota,),
    **{kind: (_fold_elementwise,) for kind in ops.ELEMENTWISE},
    **{kind: (_fold_dense,) for kind in _DENSE},
}
