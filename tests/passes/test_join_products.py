"""Products of one matrix become one, whose columns are sliced."""

import numpy as np
import pytest
from graph_runs import Net, inputs_of

from aotc.graph import ops
from aotc.graph.eval import evaluate
from aotc.passes.join_products import join_products


def dots(graph):
    return [node for node in graph.nodes() if isinstance(node.op, ops.Dot)]


def same(graph):
    """The graph with joined products; its results are unchanged to the last bit."""
    joined = join_products(graph)
    given = inputs_of(graph)
    before, after = evaluate(graph, given), evaluate(joined, given)
    for name in before:
        np.testing.assert_array_equal(after[name], before[name])
    return joined


def turned(net, x):
    return net.b.transpose(x, (1, 0))


@pytest.mark.parametrize("with_vector", [False, True])
def test_one_product_for_all(with_vector):
    net = Net()
    x = net.x(5, 8)
    for columns in (6, 6, 3):
        y = net.b.apply(ops.Dot(), x, net.c(8, columns))
        if with_vector:
            y = net.b.binary("add", y, net.c(columns))
        net.out(turned(net, y))
    (dot,) = dots(same(net.graph()))
    assert dot.shape == (5, 15)


def test_arithmetic_stays_with_its_product():
    net = Net()
    x = net.x(5, 8)
    for fn in ("abs", "exp"):
        net.out(net.b.unary(fn, net.b.apply(ops.Dot(), x, net.c(8, 4))))
    assert len(dots(same(net.graph()))) == 2


def test_a_vector_to_some_only_an_output_and_other_operands_are_left():
    net = Net()
    x, z = net.x(5, 8), net.x(5, 8)
    plain = net.b.apply(ops.Dot(), x, net.c(8, 4))
    net.out(turned(net, plain))
    net.out(turned(net, net.b.binary("add", net.b.apply(ops.Dot(), x, net.c(8, 4)), net.c(4))))
    net.out(net.b.apply(ops.Dot(), x, net.c(8, 4)))
    net.out(turned(net, net.b.apply(ops.Dot(), z, net.c(8, 4))))
    net.out(turned(net, net.b.apply(ops.Dot(), x, turned(net, z))))
    assert len(dots(same(net.graph()))) == 5
