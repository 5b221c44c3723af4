"""Borders of padded tensors on a GPU are stored by the kernels that store the inside."""

import pytest
from graph_runs import Net, check, for_all
from hypothesis import strategies as st

from aotc.codegen.ptx import ptx_module
from aotc.graph import ops
from aotc.graph.types import DType
from aotc.loop.program import Call
from aotc.target import cuda_target

GPU = cuda_target("sm_80")
ONCE = (1, 1)


def pad(net, x, edge, value=0.0):
    edges = (0, edge, edge, 0)
    return net.b.apply(ops.Pad(edges, edges, value), x)


def conv(net, x, channels, size):
    taps = net.c(channels, x.shape[-1], size, size)
    return net.b.apply(ops.Conv(ONCE, (0, 0), (0, 0), ONCE, 1, True), x, taps)


def names(program):
    return [step.kernel.name for step in program.steps if isinstance(step, Call)]


@pytest.mark.slow
def test_borders_are_no_launches_of_their_own():
    net = Net()
    x = pad(net, net.x(1, 6, 7, 4), 1)
    y = pad(net, net.b.unary("abs", conv(net, x, 8, 3)), 1)
    program = check(net.graph(conv(net, y, 4, 3)), native=False, targets=(GPU,))
    copy, first, second = names(program)
    assert copy.endswith("_in_border") and first.endswith("_in_border")
    assert not second.endswith("_in_border")
    assert ptx_module(program.kernels(), "sm_80").count(".entry") == 3


def test_a_border_of_more_elements_than_the_kernel_has_threads():
    net = Net()
    y = pad(net, net.b.unary("abs", conv(net, net.x(1, 1, 1, 4), 4, 1)), 9)
    program = check(net.graph(conv(net, y, 4, 3)), native=False, targets=(GPU,))
    assert [name.endswith("_in_border") for name in names(program)] == [True, False]


def test_what_lies_in_an_output_is_filled_by_itself():
    net = Net()
    y = pad(net, net.b.unary("abs", net.x(1, 3, 3, 4)), 1)
    program = check(net.graph(y), native=False, targets=(GPU,))
    assert len(names(program)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("axis", [1, 3])
def test_several_kernels_store_the_inside(axis):
    net = Net()
    parts = [conv(net, net.x(1, 4, 4, 4), 4, 1) for _ in range(2)]
    y = pad(net, net.b.apply(ops.Concat(axis), *parts), 1)
    program = check(net.graph(conv(net, y, 4, 3)), native=False, targets=(GPU,))
    assert sum(name.endswith("_in_border") for name in names(program)) == 1
    assert len(names(program)) == 3


@for_all(st.data(), quick=3, slow=25)
def test_chains_of_any_shape(data):
    draw, net = data.draw, Net(data.draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from([DType.F32, DType.F32, DType.F64]))
    rows, columns = draw(st.integers(2, 6)), draw(st.integers(2, 6))
    x = net.x(draw(st.integers(1, 2)), rows, columns, 4, dtype=dtype)
    for _ in range(draw(st.integers(1, 3))):
        y = pad(net, x, draw(st.integers(0, 2)), draw(st.sampled_from([0.0, 1.5])))
        if dtype is DType.F32 and draw(st.booleans()):
            y = conv(net, pad(net, y, 1), draw(st.integers(1, 6)), 3)
        x = net.b.unary("abs", y)
        if draw(st.booleans()):
            net.out(y)
    check(net.graph(x), native=False, targets=(GPU,))
