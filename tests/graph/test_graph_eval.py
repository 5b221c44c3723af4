"""The reference evaluator: results by name, clear errors for wrong inputs, memory freed early."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from graph_cases import graphs, random_values
from hypothesis import given, settings
from hypothesis import strategies as st

from aotc.errors import UsageError, VerifyError
from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.ir import Graph, Parameter
from aotc.graph.types import DType, TensorType


def perceptron() -> Graph:
    builder = Builder()
    x = builder.parameter("x", TensorType(DType.F32, (2, 3)))
    w = builder.constant(np.arange(6, dtype=np.float32).reshape(3, 2))
    y = builder.binary("add", builder.apply(ops.Dot(), x, w), builder.constant(1.0, DType.F32))
    y = builder.binary("max", y, builder.scalar_like(0.0, y))
    return builder.finish("mlp", [("y", y), ("same", x)])


def test_results_by_name() -> None:
    x = np.array([[1, 0, 0], [-1, -1, -1]], np.float32)
    results = evaluate(perceptron(), {"x": x})
    assert list(results) == ["y", "same"]
    np.testing.assert_array_equal(results["y"], [[1, 2], [0, 0]])
    assert not np.shares_memory(results["same"], x)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(graphs(), st.integers(0, 99))
def test_drawn_graphs_give_their_types(graph: Graph, seed: int) -> None:
    inputs = {
        node.op.name: random_values(node.type, seed)
        for node in graph.inputs
        if isinstance(node.op, Parameter)
    }
    results = evaluate(graph, inputs)
    for name, node in graph.outputs:
        assert (DType.of(results[name]), results[name].shape) == (node.type.dtype, node.shape)
        assert results[name].flags.c_contiguous and results[name].flags.writeable


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({}, "input 'x' is missing"),
        ({"x": np.zeros((2, 3), np.float32), "z": np.zeros(1)}, "there is no input 'z'"),
        ({"x": np.zeros((2, 3))}, "is float64[2,3], the graph takes float32[2,3]"),
        ({"x": np.zeros((3, 3), np.float32)}, "is float32[3,3], the graph takes"),
        ({"x": np.zeros(6, np.float32)}, "is float32[6], the graph takes"),
    ],
)
def test_wrong_inputs(inputs: dict[str, np.ndarray], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        evaluate(perceptron(), inputs)
    assert sentence in str(caught.value)


def test_a_result_that_is_not_of_its_type_is_found() -> None:
    graph = perceptron()
    name, node = graph.outputs[0]
    doctored = replace(node, type=TensorType(DType.F32, (2, 9)))
    with pytest.raises(VerifyError, match=r"gave float32\(2, 2\) for float32\[2,9\]"):
        evaluate(Graph("g", graph.inputs, ((name, doctored),)), {"x": np.ones((2, 3), "f4")})


def test_a_deep_graph_needs_neither_recursion_nor_memory() -> None:
    builder = Builder()
    y = builder.parameter("x", TensorType(DType.F32, (100_000,)))
    x = np.ones(100_000, np.float32)
    for _ in range(2000):
        y = builder.unary("neg", y)
    graph = builder.finish("deep", [("y", y)])
    tracemalloc.start()
    result = evaluate(graph, {"x": x})["y"]
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(result, x)
    assert peak_bytes < 8 * x.nbytes
