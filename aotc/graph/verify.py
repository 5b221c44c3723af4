"""The verifier: a graph in, nothing out, or a VerifyError that names the first broken invariant."""

from __future__ import annotations

from aotc.errors import VerifyError
from aotc.graph import ops
from aotc.graph.ir import Constant, Graph, Node, Parameter
from aotc.graph.rules import result_type
from aotc.graph.types import DType, TensorType


def verify_graph(graph: Graph) -> None:
    """Check every invariant that later stages rely on.

    Each node has the type that its own rule gives; there are no cycles; the inputs are exactly the
    parameters, once each, with unique names; constants hold read-only, C-contiguous values of their
    type; output names are unique. Values are not hashed, so this is cheap for any weights.
    """
    _check_names(graph)
    for sentence, node in graph.checks:
        if node.type != TensorType(DType.BOOL, ()):
            where = f"graph '{graph.name}'"
            raise VerifyError(f"the check '{sentence}' is {node.type}", where=where)
    inputs = set(graph.inputs)
    seen: set[Node] = set()
    for index, node in enumerate(graph.nodes()):
        try:
            _check_node(node, inputs, seen)
        except ValueError as error:
            origin = f" from '{node.origin}'" if node.origin else ""
            place = f"graph '{graph.name}', node {index} ({node.op.mnemonic}{origin})"
            raise VerifyError(str(error), where=place) from None
        seen.add(node)


def _check_names(graph: Graph) -> None:
    where = f"graph '{graph.name}'"
    names = []
    for node in graph.inputs:
        if not isinstance(node.op, Parameter):
            raise VerifyError(f"the input {node.op.mnemonic} is not a parameter", where=where)
        names.append(node.op.name)
    for kind, found in (("input", names), ("output", [name for name, _ in graph.outputs])):
        for name in found:
            if found.count(name) > 1:
                raise VerifyError(f"two {kind}s are named '{name}'", where=where)


def _check_node(node: Node, inputs: set[Node], seen: set[Node]) -> None:
    """ValueError when ``node`` breaks an invariant; ``seen`` holds the nodes before it."""
    for operand in node.inputs:
        if operand not in seen:  # nodes() yields operands first, except around a cycle
            raise ValueError(f"it takes part in a cycle through its operand {operand.op.mnemonic}")
    if isinstance(node.op, Constant):
        _check_constant(node)
    elif node.data is not None:
        raise ValueError("only a constant may carry values")
    elif isinstance(node.op, Parameter):
        if node not in inputs:
            raise ValueError(f"parameter '{node.op.name}' is not an input of the graph")
        if node.inputs:
            raise ValueError("a parameter takes no operands")
        result_type(node.type.dtype, node.type.shape)
    else:
        if not isinstance(node.op, ops.PRIMITIVES):
            raise ValueError(f"{type(node.op).__name__} is not a primitive")
        inferred = node.op.infer(*(operand.type for operand in node.inputs))
        for nested in ops.nested_graphs(node):
            verify_graph(nested)
        if inferred != node.type:
            raise ValueError(f"its type is {node.type}, its rule gives {inferred}")


def _check_constant(node: Node) -> None:
    data = node.data
    if data is None:
        raise ValueError("a constant has no values")
    if node.inputs:
        raise ValueError("a constant takes no operands")
    if DType.of(data) is not node.type.dtype or data.shape != node.type.shape:
        raise ValueError(f"its type is {node.type}, its values are {data.dtype}{data.shape}")
    if data.flags.writeable:
        raise ValueError("the values of a constant are writeable")
    if not (data.flags.c_contiguous and data.dtype.isnative):
        raise ValueError("the values of a constant are not native, C-contiguous memory")
