"""A graph and inputs in, its outputs in double precision out: who is right when two engines
differ."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.ir import Graph, Node, Parameter
from aotc.graph.types import DType, TensorType

_NARROW = (DType.F16, DType.F32)


def evaluate_double(graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of ``graph`` with every float16 and float32 tensor kept in float64 instead."""
    wide_inputs = {
        name: array.astype(np.float64) if array.dtype.kind == "f" else array
        for name, array in inputs.items()
    }
    return evaluate(_widen(graph), wide_inputs)


def _widen(graph: Graph) -> Graph:
    builder = Builder()
    wide: dict[Node, Node] = {}
    for node in graph.nodes():
        narrow = node.type.dtype in _NARROW
        op = node.op
        if isinstance(op, Parameter):
            dtype = DType.F64 if narrow else node.type.dtype
            wide[node] = builder.parameter(op.name, TensorType(dtype, node.type.shape))
        elif node.data is not None:
            values = node.data.astype(np.float64) if narrow else node.data
            wide[node] = builder.constant(values)
        else:
            if isinstance(op, (ops.Cast, ops.Iota)) and op.dtype in _NARROW:
                op = (
                    ops.Cast(DType.F64)
                    if isinstance(op, ops.Cast)
                    else ops.Iota(op.shape, op.axis, DType.F64)
                )
            operands = (wide[operand] for operand in node.inputs)
            wide[node] = builder.apply(op, *operands, origin=node.origin)
    return builder.finish(graph.name, ((name, wide[node]) for name, node in graph.outputs))
