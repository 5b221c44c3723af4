"""Reductions over any axes and whole rows with what surrounds them, against the reference."""

import re

import numpy as np
import pytest
from graph_runs import BASE, NEON, WIDE, Net, check, for_all, lowered
from hypothesis import strategies as st

from aotc.fuse.groups import GroupKind, fuse
from aotc.graph import ops
from aotc.graph.types import MACHINE_TYPES, DType
from aotc.loop.text import print_kernel
from aotc.target import resolve_target

NUMBERS = [dtype for dtype in MACHINE_TYPES if dtype is not DType.BOOL]
MANY_SIZES = st.integers(1, 6) | st.integers(1, 40)


def around(draw, net, x):
    """A pointwise chain on ``x`` with operands under views."""
    for step in draw(st.lists(st.sampled_from(["abs", "add", "channel", "scalar"]), max_size=2)):
        if step == "abs":
            x = net.b.unary("abs", x)
        elif step == "add":
            x = net.b.binary("add", x, net.viewed(draw, x.shape, x.type.dtype))
        elif step == "channel" and x.shape:
            x = net.b.binary("max", x, net.c(*x.shape[-1:], dtype=x.type.dtype))
        else:
            x = net.b.binary("min", x, net.b.constant(1, x.type.dtype))
    return x


@for_all(st.data(), quick=6, slow=300)
def test_reductions_over_any_axes(data):
    draw, net = data.draw, Net(data.draw(st.integers(0, 99)))
    shape = tuple(draw(st.lists(MANY_SIZES, max_size=4)))
    while np.prod(shape) > 3000:
        shape = shape[1:]
    axes = [axis for axis in range(len(shape)) if draw(st.booleans())]
    dtype = draw(st.sampled_from([DType.F32, DType.F32, DType.F64, DType.I32, DType.BOOL]))
    fn = draw(st.sampled_from(["and", "or"] if dtype is DType.BOOL else ["sum", "max", "min"]))
    x = net.viewed(draw, shape, dtype, made=draw(st.booleans()))
    if dtype is DType.BOOL:
        y = net.b.reduce(fn, net.b.unary("not", x), axes, draw(st.booleans()))
        y = net.b.unary("not", y)
    else:
        y = around(draw, net, net.b.reduce(fn, around(draw, net, x), axes, draw(st.booleans())))
    check(net.graph(y), passes=draw(st.booleans()))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", NUMBERS)
def test_every_function_on_every_type(dtype):
    net = Net()
    for shape, axes in (((2, 19), [1]), ((3, 9), [0]), ((2, 3, 3), [0, 2])):
        x = net.x(*shape, dtype=dtype)
        for fn in ("sum", "prod", "max", "min"):
            if fn != "prod" or not dtype.is_float:
                net.out(net.b.reduce(fn, x, axes, False))
    check(net.graph())


@pytest.mark.parametrize("fn", ["and", "or"])
def test_reductions_of_bool(fn):
    net = Net()
    x = net.x(6, 35, dtype=DType.BOOL)
    for axes in ([0], [1], [0, 1]):
        net.out(net.b.reduce(fn, x, axes, False))
    check(net.graph(), seed=3)


def test_products_of_floats():
    net = Net()
    x = net.b.binary("max", net.x(20, 3), net.b.constant(0.7, DType.F32))
    check(net.graph(net.b.reduce("prod", x, [0], False), net.b.reduce("prod", x, [1], False)))


@pytest.mark.parametrize("fn", ["max", "min", "sum"])
@pytest.mark.parametrize("axes", [[0], [1], [0, 1]])
def test_nan_and_infinity_reach_the_result(fn, axes):
    net = Net()
    graph = net.graph(net.b.reduce(fn, net.x(9, 20), axes, False))
    (name,) = (x.op.name for x in graph.inputs)
    values = np.arange(180, dtype=np.float32).reshape(9, 20)
    values[0, 0], values[3, 7], values[8, 19] = np.nan, np.inf, -np.inf
    check(graph, inputs={name: values})


def softmax(net, x, axes=(-1,)):
    powers = net.b.unary("exp", net.b.binary("sub", x, net.b.reduce("max", x, axes, True)))
    return net.b.binary("div", powers, net.b.reduce("sum", powers, axes, True))


def layer_norm(net, x, axes=(-1,)):
    b = net.b
    elems = b.constant(float(np.prod([x.shape[axis] for axis in axes])), x.type.dtype)
    centred = b.binary("sub", x, b.binary("div", b.reduce("sum", x, axes, True), elems))
    square = b.reduce("sum", b.binary("mul", centred, centred), axes, True)
    spread = b.binary("add", b.binary("div", square, elems), b.constant(1e-2, x.type.dtype))
    return b.binary("mul", b.binary("div", centred, b.unary("sqrt", spread)), net.c(x.shape[-1]))


@for_all(st.data(), quick=4, slow=200)
def test_rows(data):
    draw, net = data.draw, Net(data.draw(st.integers(0, 99)))
    length = draw(st.integers(1, 40) | st.integers(1, 300))
    kept = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    x = around(draw, net, net.viewed(draw, (*kept, length), made=draw(st.booleans())))
    make = draw(st.sampled_from([softmax, layer_norm]))
    y = make(net, x)
    kind = draw(st.sampled_from(["plain", "view", "home", "both", "again"]))
    if kind == "view":
        y = net.b.unary("abs", net.b.transpose(y, tuple(reversed(range(len(y.shape))))))
    elif kind == "home":
        axis = draw(st.integers(0, len(kept)))
        y = net.b.apply(ops.Concat(axis), net.b.unary("neg", x), y, x)
    elif kind == "both":
        net.out(y)
        y = net.b.reduce("max", y, [-1], False)
    elif kind == "again":
        y = make(net, net.b.binary("mul", y, y))
    check(net.graph(around(draw, net, y)), passes=draw(st.booleans()))


@pytest.mark.slow
@pytest.mark.parametrize("axes", [(-1,), (-2, -1), (0, 1, 2), (1,), (0, 2)])
@pytest.mark.parametrize("make", [softmax, layer_norm])
def test_norms_over_several_axes(make, axes):
    net = Net()
    check(net.graph(make(net, net.x(2, 3, 17), axes)))


@pytest.mark.slow
@pytest.mark.parametrize("length", [1, 16, 17, 145])
def test_rows_of_critical_lengths_are_the_same_on_every_target(length):
    net = Net()
    x = net.x(2, length)
    graph = net.graph(softmax(net, x), net.b.reduce("sum", x, [-1], False))
    check(graph, targets=(BASE, WIDE, NEON))


def test_columns_are_the_same_on_every_target():
    net = Net()
    x = net.x(5, 75)
    check(net.graph(net.b.reduce("sum", x, [0], False)), targets=(BASE, WIDE, NEON))


def test_rows_over_several_axes_in_a_home_or_under_a_view():
    net = Net()
    b = net.b
    x = net.x(4, 3, 5)
    y = layer_norm(net, b.transpose(x, (0, 2, 1)), (-2, -1))
    net.out(b.apply(ops.Concat(2), softmax(net, x, (-2, -1)), x))
    net.out(b.apply(ops.Pad((0, 1, 0), (0, 0, 2), 0.0), y))
    check(net.graph(b.transpose(y, (2, 0, 1))))


def test_a_reduction_of_a_stretched_constant():
    net = Net()
    wide = net.b.broadcast(net.c(1, 1), (70, 80))
    graph = net.graph(*(net.b.reduce("sum", wide, axes, False) for axes in ([0], [1], [0, 1])))
    check(graph)
    check(graph, passes=False)


def test_a_reduction_of_nothing_but_single_elements():
    for shape, axes in (((3, 1), (1,)), ((3, 4), ()), ((), ()), ((1, 1), (0, 1)), ((1, 5), (0,))):
        net = Net()
        x = net.x(*shape)
        y = net.b.unary("neg", net.b.apply(ops.Reduce("sum", axes), net.b.unary("abs", x)))
        check(net.graph(y), passes=False)


def test_an_expensive_operand_of_two_passes_is_computed_once():
    net = Net()
    graph = net.graph(softmax(net, net.x(3, 50)))
    assert [group.kind for group in fuse(graph).groups] == [GroupKind.ROWS]
    (kernel,) = lowered(graph).kernels()
    last = print_kernel(kernel).splitlines()[-1]
    assert re.fullmatch(r" *(out\S+\[[^]]*\]) = \1 / s\d+\[0\]", last)


def rounded_softmax(length):
    net = Net()
    steps = net.b.binary("mul", softmax(net, net.x(5, length)), net.b.constant(255, DType.F32))
    return net.graph(net.b.cast(net.b.unary("round", steps), DType.U8))


@pytest.mark.parametrize("length", [1, 37, 128])
def test_a_row_of_bytes_waits_as_numbers(length):
    check(rounded_softmax(length), targets=(BASE, WIDE, NEON, resolve_target("cortex-m4")))


def test_a_row_waits_on_the_stack_where_there_is_room():
    small = resolve_target("cortex-m4")
    for length, target, waits in ((64, BASE, True), (8192, BASE, False), (64, small, False)):
        (kernel,) = lowered(rounded_softmax(length), target).kernels()
        assert ("stack row" in print_kernel(kernel)) == waits
