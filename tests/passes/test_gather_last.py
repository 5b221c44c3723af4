"""Gather last: arithmetic on gathered rows moves into small tables, and only there."""

import numpy as np
from pass_graphs import f32

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.types import DType, TensorType
from aotc.passes.fold import fold
from aotc.passes.gather_last import gather_last

INDICES = np.array([[0, 2, 1, 2, -1, 0]])


def before_and_after(make, rows=3):
    b = Builder()
    i = b.parameter("i", TensorType(DType.I64, INDICES.shape))
    table = b.constant(np.arange(rows * 2, dtype=np.float32).reshape(rows, 2))
    graph = fold(b.finish("g", [("y", make(b, b.apply(ops.Gather(0), table, i), i))]))
    after = gather_last(graph)
    want, have = evaluate(graph, {"i": INDICES})["y"], evaluate(after, {"i": INDICES})["y"]
    np.testing.assert_array_equal(have, want)
    return graph, after


def kinds(graph):
    return [type(node.op).__name__ for node in graph.nodes()]


def test_a_chain_moves_into_the_table():
    def make(b, x, i):
        bias = b.constant(np.array([1, 2], np.float32))
        y = b.unary("tanh", b.binary("add", x, bias))
        return b.binary("mul", b.binary("mul", y, b.constant(0.5, DType.F32)), y)

    _, after = before_and_after(make)
    assert kinds(after) == ["Parameter", "Constant", "Gather"]


def test_a_large_table_stays():
    graph, after = before_and_after(lambda b, x, i: b.unary("tanh", x), rows=50)
    assert kinds(after) == kinds(graph)


def test_constants_that_depend_on_the_position_stay():
    def make(b, x, i):
        return b.binary("add", x, b.constant(np.arange(6, dtype=np.float32).reshape(6, 1)))

    graph, after = before_and_after(make)
    assert kinds(after) == kinds(graph)


def test_other_indices_and_computed_operands_stay():
    def make(b, x, i):
        other = b.apply(ops.Gather(0), b.constant(np.ones((3, 2), np.float32)), b.unary("abs", i))
        return b.binary("sub", x, other)

    graph, after = before_and_after(make)
    assert kinds(after) == kinds(graph)

    b = Builder()
    i = b.parameter("i", TensorType(DType.I64, (4,)))
    picked = b.apply(ops.Gather(0), b.parameter("t", f32(3, 2)), i)
    graph = b.finish("g", [("y", b.unary("tanh", picked))])
    assert kinds(gather_last(graph)) == kinds(graph)
