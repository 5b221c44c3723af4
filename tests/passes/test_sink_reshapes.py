"""Sinking reshapes: layers between products take the products' shape, and it ends."""

import numpy as np
from hypothesis import given, settings
from pass_graphs import assert_same_values, f32, graphs, shown

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.types import DType
from aotc.passes.fold import fold
from aotc.passes.sink_reshapes import sink_reshapes


def sunk(make, *types):
    b = Builder()
    xs = [b.parameter(name, type_) for name, type_ in zip("xyz", types, strict=False)]
    graph = fold(b.finish("g", [("out", make(b, *xs))]))
    after = fold(sink_reshapes(graph))
    assert_same_values(graph, after)
    assert shown(sink_reshapes(after)) == shown(after)
    return shown(after)[0]


def product(b, x, y):
    """A [3,4] product under the shape [1,3,4]."""
    return b.reshape(b.apply(ops.Dot(), x, y), (1, 3, 4))


def test_bias_and_activation_take_the_shape_of_the_product():
    def make(b, x, y):
        bias = b.constant(np.arange(4, dtype=np.float32).reshape(1, 1, 4))
        return b.unary("tanh", b.binary("add", product(b, x, y), bias))

    want = "reshape[1, 3, 4](tanh(add(dot(x, y), const[1, 4])))"
    assert sunk(make, f32(3, 2), f32(2, 4)) == want


def test_a_residual_is_read_under_the_shape_of_the_product():
    def make(b, x, y, z):
        return b.binary("add", b.unary("exp", z), product(b, x, y))

    want = "reshape[1, 3, 4](add(reshape[3, 4](exp(z)), dot(x, y)))"
    assert sunk(make, f32(3, 2), f32(2, 4), f32(1, 3, 4)) == want


def test_softmax_follows():
    def make(b, x, y):
        z = product(b, x, y)
        e = b.unary("exp", b.binary("sub", z, b.reduce("max", z, [2], keep=True)))
        return b.binary("div", e, b.reduce("sum", e, [2], keep=True))

    text = sunk(make, f32(3, 2), f32(2, 4))
    assert text.startswith("reshape[1, 3, 4](div(exp(sub(dot(x, y), broadcast[3, 4](reshape[3, 1](")
    assert text.count("[1, ") == 1


def test_two_computed_operands_of_equal_rank_do_not_chase_each_other():
    def make(b, x, y):
        return b.binary("add", b.unary("exp", x), b.reshape(b.unary("exp", y), (6, 2)))

    assert sunk(make, f32(6, 2), f32(3, 4)) == "add(exp(x), reshape[6, 2](exp(y)))"


def test_a_stretched_operand_that_no_strides_express_keeps_the_reshape_where_it_is():
    def make(b, x, y):
        whole = b.reshape(b.unary("exp", x), (2, 3))
        return b.binary("add", whole, b.broadcast(y, (2, 3)))

    want = "add(reshape[2, 3](exp(x)), broadcast[2, 3](y))"
    assert sunk(make, f32(6), f32(2, 1)) == want


def test_a_reduction_of_a_part_of_a_merged_axis_stays():
    def make(b, x):
        return b.apply(ops.Reduce("sum", (1,)), b.reshape(b.unary("exp", x), (2, 3)))

    assert sunk(make, f32(6)) == "reduce(reshape[2, 3](exp(x)))"


def test_a_shared_value_whose_rows_change_keeps_its_new_shape():
    def make(b, x):
        rows = b.reshape(b.unary("exp", x), (3, 4))
        return b.binary("sub", b.reduce("sum", b.binary("mul", rows, rows), [0], True), rows)

    text = sunk(make, f32(6, 2))
    assert "mul(reshape[3, 4](exp(x)), reshape[3, 4](exp(x)))" in text


def test_reshapes_of_inputs_stay():
    def make(b, x):
        return b.binary("add", b.reshape(x, (3, 2)), b.constant(1.0, DType.F32))

    assert sunk(make, f32(6)) == "add(reshape[3, 2](x), 1)"


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_values_stay(graph):
    assert_same_values(graph, sink_reshapes(fold(graph)))
