"""Division by constants or row values becomes multiplication, but not before a rounding."""

import numpy as np
import pytest

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.types import DType, TensorType
from aotc.passes.reciprocal import reciprocal

X = TensorType(DType.F32, (4, 8))


def divisions(graph):
    return sum(node.op == ops.Binary("div") for node in graph.nodes())


def graph_of(finish):
    builder = Builder()
    x = builder.parameter("x", X)
    return builder.finish("g", [("y", finish(builder, x))])


def by_constant(builder, x):
    return builder.binary("div", x, builder.constant(6.0, DType.F32))


def by_row(builder, x):
    return builder.binary("div", x, builder.reduce("sum", x, [1], keep=True))


@pytest.mark.parametrize("finish", [by_constant, by_row])
def test_quotients_become_products_within_two_ulp(finish):
    before = graph_of(finish)
    after = reciprocal(before)
    assert divisions(before) == 1 and divisions(after) == 0
    x = np.random.default_rng(0).uniform(0.5, 2, X.dims).astype(np.float32)
    wanted, found = evaluate(before, {"x": x})["y"], evaluate(after, {"x": x})["y"]
    np.testing.assert_array_max_ulp(wanted, found, 2)


@pytest.mark.parametrize(
    "last",
    [
        lambda b, q: b.unary("round", q),
        lambda b, q: b.cast(b.binary("add", q, b.constant(0.5, DType.F32)), DType.I32),
        lambda b, q: b.compare("lt", b.reshape(q, (32,)), b.constant(1.0, DType.F32)),
        lambda b, q: b.apply(ops.ArgReduce("max", 1, False), q),
        lambda b, q: b.binary("mod", q, b.constant(1.0, DType.F32)),
    ],
)
def test_a_quotient_that_decides_something_stays(last):
    graph = graph_of(lambda b, x: last(b, by_constant(b, x)))
    assert divisions(reciprocal(graph)) == 1


@pytest.mark.parametrize("divisor", [0.0, 1e-39, np.inf, np.nan])
def test_reciprocals_that_are_not_normal_numbers_stay(divisor):
    graph = graph_of(lambda b, x: b.binary("div", x, b.constant([[divisor]], DType.F32)))
    assert divisions(reciprocal(graph)) == 1


def test_integers_and_full_divisors_stay():
    assert divisions(reciprocal(graph_of(lambda b, x: b.binary("div", x, b.unary("exp", x))))) == 1
    builder = Builder()
    n = builder.parameter("n", TensorType(DType.I32, (4,)))
    quotient = builder.binary("div", n, builder.constant(3, DType.I32))
    assert divisions(reciprocal(builder.finish("g", [("y", quotient)]))) == 1
