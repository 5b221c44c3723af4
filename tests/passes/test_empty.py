"""Tensors without elements: what is made of them is known, and nothing computes with them."""

import numpy as np
import pytest
from graph_runs import Net, check, inputs_of
from nested_nets import nested

from aotc.graph import ops
from aotc.graph.eval import evaluate
from aotc.graph.types import DType, TensorType
from aotc.passes.empty import drop_empty

CASES = [
    lambda net: net.b.reduce("sum", net.x(3, 0), [1], False),
    lambda net: net.b.reduce("prod", net.x(0, 3), [0], True),
    lambda net: net.b.reduce("and", net.x(2, 0, dtype=DType.BOOL), [1], False),
    lambda net: net.b.reduce("or", net.x(2, 0, dtype=DType.BOOL), [1], False),
    lambda net: net.b.reduce("max", net.x(0, 3), [1], False),
    lambda net: net.b.apply(ops.Dot(), net.x(3, 0), net.x(0, 4)),
    lambda net: net.b.apply(ops.Dot(), net.x(0, 3), net.x(3, 4)),
    lambda net: net.b.apply(ops.Pad((2, 0), (1, 1), 1.5), net.x(0, 3)),
    lambda net: net.b.apply(ops.Concat(0), net.x(0, 3), net.x(2, 3), net.x(0, 3)),
    lambda net: net.b.apply(ops.Concat(0), net.x(0), net.x(2), net.x(3)),
    lambda net: net.b.apply(ops.Slice((1,), (0,), (1,)), net.x(4)),
    lambda net: net.b.apply(ops.Gather(0), net.x(4, 3), net.x(0, dtype=DType.I64)),
    lambda net: net.b.apply(
        ops.ScatterElements(0, "add"), net.x(4), net.x(0, dtype=DType.I64), net.x(0)
    ),
    lambda net: net.b.apply(ops.ReduceWindow("sum", (2,), (1,), (1,), (1,), (1,)), net.x(0)),
    lambda net: net.b.apply(ops.ReduceWindow("max", (2,), (1,), (1,), (1,), (1,)), net.x(0)),
    lambda net: net.b.broadcast(net.x(1, 3), (0, 3)),
    lambda net: net.x(0, 2),
]


@pytest.mark.parametrize("make", CASES)
def test_what_is_made_of_nothing(make):
    net = Net()
    graph = net.graph(make(net))
    made = drop_empty(graph)
    assert not any(0 in operand.shape for node in made.nodes() for operand in node.inputs)
    inputs = inputs_of(graph)
    np.testing.assert_array_equal(evaluate(made, inputs)["y0"], evaluate(graph, inputs)["y0"])
    check(graph)


def test_graphs_without_such_tensors_are_left_alone():
    net = Net()
    graph = net.graph(net.b.unary("exp", net.x(3)))
    assert drop_empty(graph) is graph


@pytest.mark.parametrize("trips", [0, 2])
def test_loops_and_branches_carry_nothing(trips):
    net = Net()
    nothing = TensorType(DType.F32, (0, 3))
    count, row = TensorType(DType.I64, ()), TensorType(DType.F32, (3,))

    def body(b, i, empty, total, slice_, captured):
        sums = b.reduce("sum", b.binary("add", empty, captured), [0], False)
        total = b.binary("add", total, sums)
        total = b.binary("add", total, b.constant(1.0, DType.F32))
        return [b.constant(np.asarray(True)), b.unary("neg", empty), total, slice_, total]

    types = [count, nothing, row, TensorType(DType.F32, (0,)), nothing]
    op = ops.Repeat(nested("body", types, body), 2, 1, 4)
    operands = [net.x(0, 3), net.x(3), net.x(4, 0), net.x(0, 3)]
    start = net.b.constant(np.asarray(True))
    made = net.b.apply(op, net.x(dtype=DType.I64), start, *operands)
    items = [net.b.apply(ops.Item(index), made) for index in range(5)]
    way = nested("way", [nothing], lambda b, x: [b.unary("exp", x)])
    chosen = net.b.apply(ops.Branch(way, way), net.x(dtype=DType.BOOL), operands[0])
    graph = net.graph(*items, net.b.apply(ops.Item(0), chosen))
    inputs = inputs_of(graph)
    inputs |= {name: np.asarray(trips) for name, x in inputs.items() if x.dtype == np.int64}
    check(graph, inputs=inputs)
