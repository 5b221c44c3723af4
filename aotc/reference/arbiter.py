"""A graph and inputs in, its outputs in double precision out: who is right when two engines
differ."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace

import numpy as np

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.ir import Graph, Node, Parameter
from aotc.graph.types import DType, TensorType

_WIDENED = (DType.BF16, DType.F16, DType.F32)
"""Shorter floats than these quantise: their roundings belong to the model."""


def evaluate_double(graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The outputs of ``graph`` with every tensor of bfloat16, float16 and float32 kept in float64
    instead."""
    wide_inputs = {
        name: array.astype(np.float64) if DType.of(array) in _WIDENED else array
        for name, array in inputs.items()
    }
    return evaluate(_widen(graph), wide_inputs)


def _widen(graph: Graph) -> Graph:
    builder = Builder()
    wide: dict[Node, Node] = {}
    for node in graph.nodes():
        widened = node.type.dtype in _WIDENED
        op = node.op
        if isinstance(op, Parameter):
            dtype = DType.F64 if widened else node.type.dtype
            wide[node] = builder.parameter(op.name, TensorType(dtype, node.type.shape))
        elif node.data is not None:
            values = node.data.astype(np.float64) if widened else node.data
            wide[node] = builder.constant(values)
        else:
            wide[node] = _widen_node(builder, node, [wide[operand] for operand in node.inputs])
    return builder.finish(graph.name, ((name, wide[node]) for name, node in graph.outputs))


def _widen_node(builder: Builder, node: Node, operands: list[Node]) -> Node:
    op = node.op
    if isinstance(op, ops.Bitcast):
        # bits are those of the declared types
        narrow = builder.cast(operands[0], node.inputs[0].type.dtype)
        result = builder.apply(op, narrow, origin=node.origin)
        return builder.cast(result, DType.F64) if op.dtype in _WIDENED else result
    if isinstance(op, (ops.Cast, ops.Iota)) and op.dtype in _WIDENED:
        op = replace(op, dtype=DType.F64)
    changed = {
        entry.name: _widen(value)
        for entry in fields(op)
        if isinstance(value := getattr(op, entry.name), Graph)
    }
    return builder.apply(replace(op, **changed), *operands, origin=node.origin)
