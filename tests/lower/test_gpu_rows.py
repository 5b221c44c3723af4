"""Rows on a GPU: a warp for each row gives the bytes of the CPU."""

import pytest
from graph_runs import BASE, Net, check, for_all
from hypothesis import strategies as st

from aotc.graph.types import DType
from aotc.loop.ir import Shuffle, Store
from aotc.loop.launch import launch_of, nest_of
from aotc.loop.walk import post_order
from aotc.target import cuda_target

GPU = cuda_target("sm_80")


def softmax(net, x):
    axis = (x.type.rank - 1,)
    largest = net.b.reduce("max", x, axis, keep=True)
    powers = net.b.unary("exp", net.b.binary("sub", x, largest))
    return net.b.binary("div", powers, net.b.reduce("sum", powers, axis, keep=True))


def layer_norm(net, x):
    axis, length = (x.type.rank - 1,), x.shape[-1]
    count = net.b.constant(float(length), DType.F32)
    mean = net.b.binary("div", net.b.reduce("sum", x, axis, keep=True), count)
    centred = net.b.binary("sub", x, mean)
    squares = net.b.reduce("sum", net.b.binary("mul", centred, centred), axis, keep=True)
    deviation = net.b.unary("sqrt", net.b.binary("div", squares, count))
    return net.b.binary("mul", net.b.binary("div", centred, deviation), net.c(length))


def shuffles(body):
    """How many shuffles the statements in ``body`` make."""
    found = 0
    for stmt in body:
        if isinstance(stmt, Store):
            found += sum(isinstance(expr, Shuffle) for expr in post_order((stmt.value,)))
        found += shuffles(getattr(stmt, "body", ()))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("length", [16, 33, 127, 128, 200])
@pytest.mark.parametrize("make", [softmax, layer_norm])
def test_rows(make, length):
    net = Net()
    program = check(net.graph(make(net, net.x(3, length))), native=False, targets=(BASE, GPU))
    (kernel,) = program.kernels()
    assert launch_of(kernel).block[:1] == (32,) and launch_of(kernel).shared_bytes == 0
    assert shuffles(nest_of(kernel).body) > 0


def test_many_rows_share_blocks():
    net = Net()
    program = check(net.graph(softmax(net, net.x(3, 700, 17))), native=False, targets=(BASE, GPU))
    assert launch_of(program.kernels()[0]).block == (32, 8, 1)
    assert launch_of(program.kernels()[0]).grid == (263, 1, 1)


def test_short_rows_and_wide_types_take_a_thread_each():
    for shape, dtype in (((40, 9), DType.F32), ((5, 40), DType.F64)):
        net = Net()
        y = net.b.reduce("sum", net.x(*shape, dtype=dtype), (1,), keep=False)
        program = check(net.graph(y), native=False, targets=(BASE, GPU))
        assert shuffles(nest_of(program.kernels()[0]).body) == 0


@for_all(st.data(), quick=3, slow=60)
def test_reductions_of_every_kind(data):
    draw, net = data.draw, Net(data.draw(st.integers(0, 99)))
    shape = tuple(draw(st.lists(st.integers(1, 5), max_size=2)))
    length = draw(st.sampled_from([16, 20, 31, 64, 130, 257]))
    dtype = draw(st.sampled_from([DType.F32, DType.F32, DType.I32]))
    x = net.viewed(draw, (*shape, length), dtype)
    if draw(st.booleans()):
        x = net.b.binary("mul", x, net.viewed(draw, (*shape, length), dtype))
    y = net.b.reduce(draw(st.sampled_from(["sum", "max", "min"])), x, (len(shape),), keep=True)
    if draw(st.booleans()):
        y = net.b.binary("sub", x, y)
    check(net.graph(y), native=False, targets=(BASE, GPU))
