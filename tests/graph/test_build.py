"""The builder interns equal nodes, checks what it applies, and broadcasts as numpy does."""

from __future__ import annotations

import numpy as np
import pytest
from graph_cases import graphs
from hypothesis import given, settings

from aotc.errors import ModelError
from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node
from aotc.graph.types import DType, TensorType


def rebuilt(graph: Graph) -> Graph:
    """The graph emitted again into a fresh builder."""
    builder = Builder()
    new: dict[Node, Node] = {}
    for node in graph.nodes():
        if isinstance(node.op, ops.Parameter):
            new[node] = builder.parameter(node.op.name, node.type)
        elif node.data is not None:
            new[node] = builder.constant(node.data)
        else:
            new[node] = builder.apply(node.op, *(new[operand] for operand in node.inputs))
    return builder.finish(graph.name, [(name, new[node]) for name, node in graph.outputs])


def test_equal_applications_are_one_node() -> None:
    builder = Builder()
    x = builder.parameter("x", TensorType(DType.F32, (2,)))
    assert builder.unary("exp", x) is builder.unary("exp", x)
    assert builder.unary("exp", x) is not builder.unary("log", x)
    assert builder.binary("add", x, builder.unary("exp", x)) is builder.binary(
        "add", x, builder.unary("exp", x), origin="another place"
    )


def test_equal_constants_are_one_node_and_types_keep_them_apart() -> None:
    builder = Builder()
    zero = builder.constant([0, 0], DType.I32)
    assert zero is builder.constant(np.zeros(2, np.int32))
    assert zero is not builder.constant([0, 0], DType.F32)
    assert zero is not builder.constant([[0, 0]], DType.I32)
    assert builder.constant(0.0, DType.F32) is not builder.constant(-0.0, DType.F32)


@settings(max_examples=25, deadline=None)
@given(graphs())
def test_emitting_again_changes_nothing(graph: Graph) -> None:
    again = rebuilt(graph)
    assert len(list(again.nodes())) == len(list(graph.nodes()))
    assert [node.type for node in again.nodes()] == [node.type for node in graph.nodes()]


def test_dead_nodes_are_not_in_the_graph() -> None:
    builder = Builder()
    x = builder.parameter("x", TensorType(DType.F32, (2,)))
    builder.unary("exp", x)
    unused = builder.parameter("unused", TensorType(DType.F32, ()))
    graph = builder.finish("g", [("y", builder.unary("neg", x))])
    assert [node.op.mnemonic for node in graph.nodes()] == ["parameter", "parameter", "unary"]
    assert graph.inputs == (x, unused)
    assert graph.users()[x] == [graph.outputs[0][1]]


def test_constants_are_read_only_contiguous_and_native() -> None:
    builder = Builder()
    node = builder.constant(np.arange(6, dtype=">f4").reshape(2, 3).T)
    assert node.data is not None
    assert not node.data.flags.writeable
    assert node.data.flags.c_contiguous and node.data.dtype.isnative
    assert node.data.tolist() == [[0, 3], [1, 4], [2, 5]]


def test_a_constant_can_take_another_shape_without_a_copy() -> None:
    first, second = Builder(), Builder()
    node = first.constant(np.arange(6, dtype=np.float32))
    moved = second.reuse_constant(node, (2, 3))
    assert moved.data is not None and node.data is not None
    assert np.shares_memory(moved.data, node.data)
    assert moved is second.constant(np.arange(6, dtype=np.float32).reshape(2, 3))


def test_elementwise_operands_broadcast_as_in_numpy() -> None:
    builder = Builder()
    a = builder.parameter("a", TensorType(DType.F32, (3, 1)))
    b = builder.parameter("b", TensorType(DType.F32, (2, 1, 4)))
    assert builder.binary("add", a, b).shape == (2, 3, 4)
    assert builder.compare("lt", a, b).type == TensorType(DType.BOOL, (2, 3, 4))
    assert builder.select(builder.compare("lt", a, a), a, b).shape == (2, 3, 4)


def test_nothing_is_applied_where_nothing_changes() -> None:
    builder = Builder()
    x = builder.parameter("x", TensorType(DType.F32, (2, 3)))
    assert builder.cast(x, DType.F32) is x
    assert builder.reshape(x, (2, 3)) is x
    assert builder.transpose(x, (0, 1)) is x
    assert builder.broadcast(x, (2, 3)) is x
    assert builder.reduce("sum", x, [], keep=True) is x


def test_reduce_counts_axes_from_the_end_and_keeps_them() -> None:
    builder = Builder()
    x = builder.parameter("x", TensorType(DType.F32, (2, 3, 4)))
    assert builder.reduce("sum", x, [-1, 0], keep=False).shape == (3,)
    assert builder.reduce("sum", x, [-1, 0], keep=True).shape == (1, 3, 1)


@pytest.mark.parametrize("axis", [3, -4])
def test_reduce_refuses_an_axis_beyond_the_rank(axis: int) -> None:
    builder = Builder()
    x = builder.parameter("x", TensorType(DType.F32, (2, 3, 4)))
    with pytest.raises(ModelError, match="outside a tensor of rank 3"):
        builder.reduce("sum", x, [axis], keep=False)


def test_errors_name_the_node() -> None:
    builder = Builder()
    x = builder.parameter("x", TensorType(DType.F32, (2,)))
    y = builder.parameter("y", TensorType(DType.F32, (3,)))
    with pytest.raises(ModelError, match=r"node 'fc1' \(binary\).*do not broadcast"):
        builder.binary("add", x, y, origin="fc1")
    with pytest.raises(ModelError, match="node 'fc2'.*takes 2 operands"):
        builder.apply(ops.Dot(), x, origin="fc2")


def test_an_input_of_impossible_size_is_refused() -> None:
    with pytest.raises(ModelError, match=f"input 'x'.*asks for {2**60} elements"):
        Builder().parameter("x", TensorType(DType.F32, (2**30, 2**30)))
    with pytest.raises(ModelError, match="negative size"):
        Builder().parameter("x", TensorType(DType.F32, (2, -1)))
