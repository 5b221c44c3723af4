"""Byte tables: costly functions from codes to codes become look-ups, and only those."""

import numpy as np
import pytest

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.types import DType, TensorType
from aotc.passes.byte_tables import byte_tables


def apply(b, fn, x, number):
    return b.binary(fn, x, b.constant(np.full((1, 1), number, np.float32)))


def number(b, codes, scale=0.05, zero=100):
    return apply(b, "mul", apply(b, "sub", b.cast(codes, DType.F32), zero), scale)


def code(b, x, scale=0.03, zero=50, kind=DType.U8):
    value = apply(b, "add", b.unary("round", apply(b, "div", x, scale)), zero)
    low, high = kind.int_range
    return b.cast(apply(b, "min", apply(b, "max", value, low), high), kind)


def graph_of(make, kind=DType.U8, shape=(16, 16)):
    b = Builder()
    return b.finish("g", [("y", make(b, b.parameter("x", TensorType(kind, shape))))])


def look_ups(graph):
    return [node for node in graph.nodes() if isinstance(node.op, ops.Gather)]


def gelu(b, x):
    """With a rounding to codes after each step."""
    real = number(b, x)
    e = number(b, code(b, b.unary("erf", apply(b, "div", real, 1.5)), kind=DType.I8, zero=0))
    return code(b, b.binary("mul", real, apply(b, "add", e, 1)))


@pytest.mark.parametrize("kind", [DType.U8, DType.I8])
def test_a_chain_of_one_tensor_is_one_look_up(kind):
    graph = graph_of(gelu, kind)
    after = byte_tables(graph)
    assert [type(n.op).__name__ for n in after.nodes()] == ["Parameter", "Constant", "Gather"]
    x = {"x": np.arange(256, dtype=np.uint8).view(kind.numpy).reshape(16, 16)}
    np.testing.assert_array_equal(evaluate(after, x)["y"], evaluate(graph, x)["y"])


def test_what_two_tensors_make_begins_a_new_chain():
    def make(b, x):
        other = b.parameter("z", TensorType(DType.U8, (16, 16)))
        both = code(b, b.binary("add", number(b, x), number(b, other)))
        return code(b, b.unary("tanh", number(b, both)))

    graph = graph_of(make)
    after = byte_tables(graph)
    (found,) = look_ups(after)
    assert found.inputs[1].op == ops.Cast(DType.U8)
    random = np.random.default_rng(0)
    x = {name: random.integers(0, 256, (16, 16)).astype(np.uint8) for name in "xz"}
    np.testing.assert_array_equal(evaluate(after, x)["y"], evaluate(graph, x)["y"])


@pytest.mark.parametrize(
    "make, shape",
    [
        (lambda b, x: code(b, number(b, x)), (16, 16)),
        (lambda b, x: b.unary("tanh", number(b, x)), (16, 16)),
        (gelu, (1, 8)),
    ],
    ids=["cheap", "to floats", "few"],
)
def test_other_chains_stay(make, shape):
    graph = graph_of(make, shape=shape)
    assert byte_tables(graph) is graph


def test_functions_that_depend_on_the_place_stay():
    def make(b, x):
        scales = b.constant(np.linspace(0.1, 1, 16, dtype=np.float32).reshape(1, 16))
        return code(b, b.unary("tanh", b.binary("mul", number(b, x), scales)))

    graph = graph_of(make)
    assert byte_tables(graph) is graph
