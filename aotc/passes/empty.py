"""Tensors without elements: a graph goes in, one in which nothing is computed from or into them
comes out."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node
from aotc.graph.types import DType, TensorType
from aotc.passes.bodies import map_nested
from aotc.passes.rewrite import reemit


def drop_empty(graph: Graph) -> Graph:
    """``graph`` with every tensor without elements as a constant that only nested graphs and
    outputs read, also inside nested graphs.

    A sum, product or join over nothing is what its definition says: the identity, zeros, padding,
    or the other operands. A graph without such tensors is returned as it is.
    """
    graph = map_nested(graph, drop_empty)
    if not any(_is_empty(node.type) for node in graph.nodes()):
        return graph

    def emit(builder: Builder, node: Node, new: Mapping[Node, Node]) -> Node | None:
        if _is_empty(node.type):
            return _nothing(builder, node.type)
        if not any(_is_empty(operand.type) for operand in node.inputs):
            return None
        operands = [
            _nothing(builder, x.type) if _is_empty(x.type) else new[x] for x in node.inputs
        ]
        return _of_nothing(builder, node, operands)

    return reemit(graph, emit)


def _is_empty(type_: TensorType) -> bool:
    return 0 in type_.shape


def _nothing(builder: Builder, type_: TensorType) -> Node:
    return builder.constant(np.zeros(type_.dims, type_.dtype.numpy))


def _of_nothing(builder: Builder, node: Node, operands: list[Node]) -> Node:
    """``node``, which has elements although one of ``operands`` has none."""
    value: float | None = None
    match node.op:
        case ops.Concat(axis=axis):
            parts = [x for x in operands if not _is_empty(x.type)]
            return builder.concat(parts, axis, node.origin)
        case ops.ScatterElements() | ops.ScatterND():
            return operands[0]
        case ops.Reduce(fn=fn):
            value = {"sum": 0, "prod": 1, "and": 1, "or": 0}.get(fn)
        case ops.ReduceWindow(fn="max"):
            value = _lowest(node.type.dtype)
        case ops.Dot() | ops.Conv() | ops.ReduceWindow():
            value = 0
        case ops.Pad(value=padding):
            value = padding
    if value is None:
        return builder.apply(node.op, *operands, origin=node.origin)
    return builder.broadcast(builder.constant(value, node.type.dtype), node.shape)


def _lowest(dtype: DType) -> float:
    return -np.inf if dtype.is_float else int(np.iinfo(dtype.numpy).min)
