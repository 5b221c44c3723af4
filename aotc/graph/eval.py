"""The reference evaluator: a graph and input arrays in, the output arrays by name out (numpy)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np

from aotc.errors import UsageError, VerifyError
from aotc.graph.ir import Graph, Node, Parameter
from aotc.graph.types import Symbol, TensorType, TupleType


def evaluate(graph: Graph, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Run ``graph`` node by node with each primitive's numpy meaning.

    ``inputs`` has one array of the declared type for each graph input. The results are fresh,
    contiguous arrays in the order of the outputs. UsageError when an input is missing, unknown or
    of the wrong type, or a check of the graph fails; VerifyError when a primitive computes
    something other than its type. Values that nobody reads any more are freed, and no recursion
    depends on the depth of the graph.
    """
    _check_inputs(graph, inputs)
    nodes = list(graph.nodes())
    reads = Counter(operand for node in nodes for operand in node.inputs)
    reads.update(node for _, node in (*graph.outputs, *graph.checks))
    values: dict[Node, np.ndarray] = {}
    for node in nodes:
        value = _value_of(node, values, inputs)
        if not _fits(value, node.type):
            raise VerifyError(
                f"{node.op} gave {getattr(value, 'dtype', '')}{np.shape(value)} for {node.type}",
                where=f"graph '{graph.name}', node '{node.origin}'",
            )
        if reads[node]:
            values[node] = value
        for operand in node.inputs:
            reads[operand] -= 1
            if not reads[operand]:
                del values[operand]
    for sentence, node in graph.checks:
        if not values[node]:
            raise UsageError(sentence, where=f"graph '{graph.name}'")
    return {name: np.array(values[node], order="C") for name, node in graph.outputs}


def _value_of(
    node: Node, values: Mapping[Node, np.ndarray], inputs: Mapping[str, np.ndarray]
) -> np.ndarray:
    if node.data is not None:
        return node.data
    if isinstance(node.op, Parameter):
        return np.asarray(inputs[node.op.name])
    return node.op.evaluate(*(values[operand] for operand in node.inputs))


def _fits(value: np.ndarray, type_: TensorType) -> bool:
    """Whether ``value`` has the element type and shape; a symbol takes any size up to its bound."""
    if isinstance(type_, TupleType):
        return all(_fits(item, own) for item, own in zip(value, type_.items, strict=True))
    if value.dtype != type_.dtype.numpy or value.ndim != type_.rank:
        return False
    return all(
        dim.bound is None or size <= dim.bound if isinstance(dim, Symbol) else size == dim
        for size, dim in zip(value.shape, type_.shape, strict=True)
    )


def _check_inputs(graph: Graph, inputs: Mapping[str, np.ndarray]) -> None:
    where = f"graph '{graph.name}'"
    types = {node.op.name: node.type for node in graph.inputs if isinstance(node.op, Parameter)}
    for name in inputs:
        if name not in types:
            raise UsageError(
                f"there is no input '{name}'",
                where=where,
                remedy=f"the inputs are {', '.join(types) or 'none'}",
            )
    for name, type_ in types.items():
        if name not in inputs:
            raise UsageError(f"input '{name}' is missing", where=where, remedy=f"give a {type_}")
        array = np.asarray(inputs[name])
        if not _fits(array, type_):
            given = f"{array.dtype}[{','.join(map(str, array.shape))}]"
            raise UsageError(
                f"input '{name}' is {given}, the graph takes {type_}",
                where=where,
                remedy="give an array of that element type and shape",
            )
