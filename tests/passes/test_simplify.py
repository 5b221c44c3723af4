"""Algebraic simplification: each rule fires where it should, and leaves look-alikes alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from pass_graphs import assert_same_values, f32, graphs, shown

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.types import DType, TensorType
from aotc.passes.simplify import simplify


def simplified(make, *types):
    """The expression that ``make(builder, *inputs)`` simplifies to, values compared on the way."""
    b = Builder()
    named = zip("xyz", types or (f32(2, 3),), strict=False)
    xs = [b.parameter(name, type_) for name, type_ in named]
    graph = b.finish("g", [("out", make(b, *xs))])
    after = simplify(graph)
    assert_same_values(graph, after)
    return shown(after)[0]


def scalar(b, number, dtype=DType.F32):
    return b.constant(number, dtype)


ARITHMETIC = {
    "x*1": (lambda b, x: b.binary("mul", x, scalar(b, 1)), "x"),
    "1*x": (lambda b, x: b.binary("mul", scalar(b, 1), x), "x"),
    "x+0": (lambda b, x: b.binary("add", x, scalar(b, 0)), "x"),
    "x-0": (lambda b, x: b.binary("sub", x, scalar(b, 0)), "x"),
    "x/1": (lambda b, x: b.binary("div", x, scalar(b, 1)), "x"),
    "0-x stays": (lambda b, x: b.binary("sub", scalar(b, 0), x), "sub(0, x)"),
    "1/x stays": (lambda b, x: b.binary("div", scalar(b, 1), x), "div(1, x)"),
    "x*0 stays": (lambda b, x: b.binary("mul", x, scalar(b, 0)), "mul(x, 0)"),
    "x-3": (lambda b, x: b.binary("sub", x, scalar(b, 3)), "add(x, -3)"),
    "x/4": (lambda b, x: b.binary("div", x, scalar(b, 4)), "mul(x, 0.25)"),
    "x/3 stays": (lambda b, x: b.binary("div", x, scalar(b, 3)), "div(x, 3)"),
    "x/2^-149 stays": (lambda b, x: b.binary("div", x, scalar(b, 2.0**-149)), "div(x, 1.4013e-45)"),
    "max(x,x)": (lambda b, x: b.binary("max", x, x), "x"),
    "max(-inf,x)": (lambda b, x: b.binary("max", scalar(b, -np.inf), x), "x"),
    "min(x,inf)": (lambda b, x: b.binary("min", x, scalar(b, np.inf)), "x"),
    "min(x,-inf) stays": (lambda b, x: b.binary("min", x, scalar(b, -np.inf)), "min(x, -inf)"),
    "relu(relu)": (
        lambda b, x: b.binary("max", b.binary("max", x, scalar(b, 0)), scalar(b, 0)), "max(x, 0)",
    ),
    "x+x stays": (lambda b, x: b.binary("add", x, x), "add(x, x)"),
    "neg(neg)": (lambda b, x: b.unary("neg", b.unary("neg", x)), "x"),
    "exp(exp) stays": (lambda b, x: b.unary("exp", b.unary("exp", x)), "exp(exp(x))"),
    "x*-1": (lambda b, x: b.binary("mul", x, scalar(b, -1)), "neg(x)"),
    "x+(-y)": (
        lambda b, x: b.binary("add", x, b.unary("neg", b.unary("tanh", x))), "sub(x, tanh(x))",
    ),
    "x-(-y)": (
        lambda b, x: b.binary("sub", x, b.unary("neg", b.unary("tanh", x))), "add(x, tanh(x))",
    ),
    "x**2": (lambda b, x: b.binary("pow", x, scalar(b, 2)), "mul(x, x)"),
    "x**3": (lambda b, x: b.binary("pow", x, scalar(b, 3)), "mul(mul(x, x), x)"),
    "x**1": (lambda b, x: b.binary("pow", x, scalar(b, 1)), "x"),
    "|x|**0.5": (lambda b, x: b.binary("pow", b.unary("abs", x), scalar(b, 0.5)), "sqrt(abs(x))"),
    "x**4 stays": (lambda b, x: b.binary("pow", x, scalar(b, 4)), "pow(x, 4)"),
    "(x*3)*5": (
        lambda b, x: b.binary("mul", b.binary("mul", x, scalar(b, 3)), scalar(b, 5)), "mul(x, 15)",
    ),
    "(x/3)*6": (
        lambda b, x: b.binary("mul", b.binary("div", x, scalar(b, 3)), scalar(b, 6)), "mul(x, 2)",
    ),
    "(x*9)/3": (
        lambda b, x: b.binary("div", b.binary("mul", x, scalar(b, 9)), scalar(b, 3)), "mul(x, 3)",
    ),
    "(x/5)/2": (
        lambda b, x: b.binary("div", b.binary("div", x, scalar(b, 5)), scalar(b, 2)), "mul(x, 0.1)",
    ),
    "(x+3)-5": (
        lambda b, x: b.binary("sub", b.binary("add", x, scalar(b, 3)), scalar(b, 5)), "add(x, -2)",
    ),
    "(x*3)+5 stays": (
        lambda b, x: b.binary("add", b.binary("mul", x, scalar(b, 3)), scalar(b, 5)),
        "add(mul(x, 3), 5)",
    ),
    "1/(1+exp(-x))": (
        lambda b, x: b.binary(
            "div", scalar(b, 1), b.binary("add", scalar(b, 1), b.unary("exp", b.unary("neg", x)))
        ),
        "sigmoid(x)",
    ),
    "reciprocal(1+exp(-x))": (
        lambda b, x: b.unary(
            "reciprocal", b.binary("add", b.unary("exp", b.unary("neg", x)), scalar(b, 1))
        ),
        "sigmoid(x)",
    ),
    "1/(1+exp(x)) stays": (
        lambda b, x: b.binary(
            "div", scalar(b, 1), b.binary("add", b.unary("exp", x), scalar(b, 1))
        ),
        "div(1, add(exp(x), 1))",
    ),
    "select(true)": (
        lambda b, x: b.select(b.constant(True, DType.BOOL), x, b.unary("tanh", x)), "x",
    ),
    "select(c, a, a)": (lambda b, x: b.select(b.compare("lt", x, scalar(b, 0)), x, x), "x"),
    "select(not c)": (
        lambda b, x: b.select(
            b.unary("not", b.compare("lt", x, scalar(b, 0))), x, b.unary("tanh", x)
        ),
        "select(lt(x, 0), tanh(x), x)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ARITHMETIC)
def test_arithmetic(name):
    make, want = ARITHMETIC[name]
    assert simplified(make) == want


def test_constants_that_vary_along_different_axes_do_not_join():
    def outer(b, x):
        row = b.constant(np.array([[1, 2, 3]], np.float32))
        column = b.constant(np.array([[1], [2]], np.float32))
        return b.binary("add", b.binary("add", x, row), column)

    assert simplified(outer) == "add(add(x, const[1, 3]), const[2, 1])"


def test_a_sum_with_other_readers_is_not_taken_apart():
    def make(b, x):
        shifted = b.binary("add", x, scalar(b, 2))
        return b.binary("mul", shifted, b.binary("add", shifted, scalar(b, 3)))

    assert simplified(make) == "mul(add(x, 2), add(add(x, 2), 3))"


def test_integer_divisions_do_not_join():
    def chain(b, x):
        three = scalar(b, 3, DType.I32)
        return b.binary("mul", b.binary("div", x, three), three)

    assert simplified(chain, TensorType(DType.I32, (2,))) == "mul(div(x, 3), 3)"


def test_constants_do_not_join_into_infinity_or_nothing():
    def chain(first, second):
        return lambda b, x: b.binary("mul", b.binary("mul", x, scalar(b, first)), scalar(b, second))

    assert simplified(chain(1e30, 1e30)) == "mul(mul(x, 1e+30), 1e+30)"
    assert simplified(chain(1e-30, 1e-30)) == "mul(mul(x, 1e-30), 1e-30)"


def test_integers_wrap_when_joined():
    def chain(b, x):
        big = scalar(b, 2**31 - 1, DType.I32)
        return b.binary("add", b.binary("add", x, big), big)

    assert simplified(chain, TensorType(DType.I32, (2,))) == "add(x, -2)"


def test_elementwise_moves_below_broadcasts():
    def make(b, x, y):
        shape = (4, 3, 5)
        return b.binary("add", b.unary("tanh", b.broadcast(x, shape)), b.broadcast(y, shape))

    assert simplified(make, f32(1, 3, 1), f32(1, 3, 5)) == (
        "broadcast[4, 3, 5](add(broadcast[1, 3, 5](tanh(x)), y))"
    )


def test_outer_sum_stays():
    def make(b, x, y):
        return b.binary("add", x, y)

    assert simplified(make, f32(1, 3), f32(4, 1)) == "add(broadcast[4, 3](x), broadcast[4, 3](y))"


@pytest.mark.parametrize(
    ("source", "middle", "target", "want"),
    [
        ("F32", "F64", "F32", "x"),
        ("I8", "I32", "I16", "int16(x)"),
        ("I32", "F64", "F32", "float32(x)"),
        ("F32", "F16", "F32", "float32(float16(x))"),
        ("I32", "F32", "I32", "int32(float32(x))"),
        ("I32", "F64", "I8", "int8(float64(x))"),
        ("I16", "F32", "I32", "int32(x)"),
        ("BOOL", "F32", "I64", "int64(x)"),
        ("F32", "BOOL", "F32", "float32(bool(x))"),
        ("F32", "F32", "F32", "x"),
    ],
)
def test_cast_pairs(source, middle, target, want):
    b = Builder()
    x = b.parameter("x", TensorType(DType[source], (3,)))
    inner = b.apply(ops.Cast(DType[middle]), x)
    graph = b.finish("g", [("y", b.apply(ops.Cast(DType[target]), inner))])
    assert shown(simplify(graph)) == [want]


MOVEMENT = {
    "reshape twice": (lambda b, x: b.reshape(b.reshape(x, (4, 6)), (24,)), "reshape[24](x)"),
    "reshape and back": (lambda b, x: b.reshape(b.reshape(x, (24,)), (2, 3, 4)), "x"),
    "transpose twice": (
        lambda b, x: b.transpose(b.transpose(x, (1, 0, 2)), (2, 1, 0)), "transpose[2, 0, 1](x)",
    ),
    "transpose and back": (lambda b, x: b.transpose(b.transpose(x, (1, 2, 0)), (2, 0, 1)), "x"),
    "transpose of ones": (
        lambda b, x: b.transpose(b.reshape(x, (2, 1, 12)), (1, 0, 2)), "reshape[1, 2, 12](x)",
    ),
    "broadcast to itself": (lambda b, x: b.apply(ops.Broadcast((2, 3, 4)), x), "x"),
    "slice of all": (lambda b, x: b.apply(ops.Slice((0,) * 3, (2, 3, 4), (1,) * 3), x), "x"),
    "slice reversed stays": (
        lambda b, x: b.apply(ops.Slice((0, 0, 3), (2, 3, 4), (1, 1, -1)), x),
        "slice[0, 0, 3][2, 3, 4][1, 1, -1](x)",
    ),
    "slice of slice": (
        lambda b, x: b.apply(
            ops.Slice((0, 0, 1), (1, 1, 1), (1, 1, -1)),
            b.apply(ops.Slice((1, 1, 0), (1, 2, 2), (1, 1, 2)), x),
        ),
        "slice[1, 1, 2][1, 1, 1][1, 1, -2](x)",
    ),
    "slice of broadcast": (
        lambda b, x: b.apply(
            ops.Slice((1, 1, 1, 1), (2, 1, 1, 2), (1,) * 4), b.broadcast(x, (5, 2, 3, 4))
        ),
        "broadcast[2, 1, 1, 2](slice[0, 1, 1, 1][1, 1, 1, 2][1, 1, 1, 1](reshape[1, 2, 3, 4](x)))",
    ),
    "pad of nothing": (lambda b, x: b.apply(ops.Pad((0,) * 3, (0,) * 3, 1.0), x), "x"),
    "pad of pad": (
        lambda b, x: b.apply(
            ops.Pad((1, 0, 0), (0, 0, 2), 0.0), b.apply(ops.Pad((1, 1, 0), (0, 1, 0), 0.0), x)
        ),
        "pad[2, 1, 0][0, 1, 2](x, 0)",
    ),
    "pads of two values stay": (
        lambda b, x: b.apply(
            ops.Pad((1, 0, 0), (0,) * 3, 1.0), b.apply(ops.Pad((1, 0, 0), (0,) * 3, 0.0), x)
        ),
        "pad[1, 0, 0][0, 0, 0](pad[1, 0, 0][0, 0, 0](x, 0), 1)",
    ),
    "concat of one": (lambda b, x: b.apply(ops.Concat(1), x), "x"),
    "concat of halves": (
        lambda b, x: b.apply(
            ops.Concat(2),
            b.apply(ops.Slice((0, 0, 0), (2, 3, 1), (1,) * 3), x),
            b.apply(ops.Slice((0, 0, 1), (2, 3, 3), (1,) * 3), x),
        ),
        "x",
    ),
    "concat of swapped halves stays": (
        lambda b, x: b.apply(
            ops.Concat(2),
            b.apply(ops.Slice((0, 0, 2), (2, 3, 2), (1,) * 3), x),
            b.apply(ops.Slice((0, 0, 0), (2, 3, 2), (1,) * 3), x),
        ),
        "concat(slice[0, 0, 2][2, 3, 2][1, 1, 1](x), slice[0, 0, 0][2, 3, 2][1, 1, 1](x))",
    ),
    "gather of one": (
        lambda b, x: b.apply(ops.Gather(1), x, b.constant(-1, DType.I64)),
        "reshape[2, 4](slice[0, 2, 0][2, 1, 4][1, 1, 1](x))",
    ),
    "gather of a range": (
        lambda b, x: b.apply(ops.Gather(2), x, b.constant([3, 1], DType.I64)),
        "slice[0, 0, 3][2, 3, 2][1, 1, -2](x)",
    ),
    "gather of anything stays": (
        lambda b, x: b.apply(ops.Gather(2), x, b.constant([3, 1, 0], DType.I64)),
        "gather(x, const[3])",
    ),
    "reduce of ones": (
        lambda b, x: b.apply(ops.Reduce("sum", (1,)), b.reshape(x, (6, 1, 4))), "reshape[6, 4](x)",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MOVEMENT)
def test_movement(name):
    make, want = MOVEMENT[name]
    assert simplified(make, f32(2, 3, 4)) == want


def test_broadcasts_join_and_let_reshape_and_transpose_through():
    def make(b, x):
        wide = b.broadcast(b.apply(ops.Broadcast((1, 3, 5)), x), (2, 3, 5))
        return b.transpose(b.reshape(wide, (2, 1, 3, 5)), (0, 3, 2, 1))

    assert simplified(make, f32(1, 3, 1)) == "broadcast[2, 5, 3, 1](reshape[1, 1, 3, 1](x))"


def test_reshape_that_mixes_stretched_axes_stays():
    def make(b, x):
        return b.reshape(b.apply(ops.Broadcast((3, 2)), x), (6,))

    assert simplified(make, f32(3, 1)) == "reshape[6](broadcast[3, 2](x))"


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_values_stay_and_a_second_run_changes_nothing(graph):
    once = simplify(graph)
    assert_same_values(graph, once)
    assert shown(simplify(once)) == shown(once)
