"""Sliding windows: pooling of any rank and type and depthwise convolution, against numpy."""

import numpy as np
import pytest
from graph_runs import BASE, NEON, WIDE, Net, check, for_all
from hypothesis import strategies as st

from aotc.fuse.groups import GroupKind, fuse
from aotc.graph import ops
from aotc.graph.types import MACHINE_TYPES, DType

NUMBERS = [dtype for dtype in MACHINE_TYPES if dtype is not DType.BOOL]


@for_all(st.data(), quick=5, slow=150)
def test_windows(data):
    draw, net = data.draw, Net(data.draw(st.integers(0, 99)))
    rank = draw(st.integers(1, 5))
    shape = tuple(draw(st.integers(1, 60 if rank < 3 else 7)) for _ in range(rank))
    each = [
        (draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 2)))
        for _ in range(rank)
    ]
    window, strides, dilation = (tuple(field) for field in zip(*each, strict=True))
    low, high = [0] * rank, [0] * rank
    for axis, (size, _, gap) in enumerate(each):
        missing = max((size - 1) * gap + 1 - shape[axis], 0)
        low[axis] = draw(st.integers(0, 1))
        high[axis] = max(missing - low[axis], 0) + draw(st.integers(0, 1))
    fn = draw(st.sampled_from(["sum", "max"]))
    dtype = draw(st.sampled_from([DType.F32, DType.F32, DType.F64, DType.I8, DType.U32]))
    op = ops.ReduceWindow(fn, window, strides, tuple(low), tuple(high), dilation)
    y = net.b.apply(op, net.viewed(draw, shape, dtype, made=draw(st.booleans())))
    if draw(st.booleans()):
        y = net.b.binary("mul", y, net.viewed(draw, y.shape, dtype))
    check(net.graph(y), passes=draw(st.booleans()))


def pool(fn, window, strides=(1, 2, 2, 1), pads=(0, 0, 0, 0)):
    return ops.ReduceWindow(fn, window, strides, pads, pads, (1, 1, 1, 1))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", NUMBERS)
def test_windows_of_every_type(dtype):
    net = Net()
    x = net.x(1, 4, 5, 9, dtype=dtype)
    for fn in ("sum", "max"):
        net.out(net.b.apply(pool(fn, (1, 3, 3, 1), pads=(0, 1, 1, 0)), x))
    check(net.graph())


@pytest.mark.parametrize("window", [(1, 7, 7, 1), (1, 9, 9, 1), (1, 1, 12, 1), (1, 3, 3, 5)])
def test_large_windows(window):
    net = Net()
    check(net.graph(net.b.apply(pool("sum", window), net.x(1, 12, 13, 9))))


def test_nan_and_infinity_reach_the_maximum():
    net = Net()
    graph = net.graph(net.b.apply(pool("max", (1, 2, 2, 1)), net.x(1, 4, 4, 3)))
    values = np.arange(48, dtype=np.float32).reshape(1, 4, 4, 3)
    values[0, 0, 0, 0], values[0, 2, 2, 1], values[0, 3, 0] = np.nan, np.inf, -np.inf
    check(graph, inputs={graph.inputs[0].op.name: values})


def depthwise(net, x, window=(3, 3), weights=None, strides=(1, 1)):
    channels = x.shape[-1]
    op = ops.Conv(strides, (1, 1), (1, 1), (1, 1), channels, True)
    filters = net.c(channels, 1, *window) if weights is None else weights
    return net.b.apply(op, x, filters)


def test_depthwise_is_the_same_on_every_target():
    net = Net()
    y = depthwise(net, net.x(2, 4, 5, 21))
    y = net.b.binary("mul", net.b.binary("add", y, net.c(21)), net.x(*y.shape))
    graph = net.graph(y)
    check(graph, targets=(BASE, WIDE, NEON))
    assert GroupKind.DEPTHWISE in {group.kind for group in fuse(graph).groups}


@pytest.mark.parametrize("window", [(1, 1), (5, 5), (7, 7), (8, 8)])
def test_depthwise_windows(window):
    net = Net()
    check(net.graph(depthwise(net, net.x(1, 9, 8, 5), window, strides=(2, 1))))


def test_depthwise_filters_that_are_computed():
    net = Net()
    weights = net.b.unary("abs", net.x(12, 1, 3, 3))
    check(net.graph(depthwise(net, net.x(1, 5, 5, 12), weights=weights)))
    net = Net()
    turned = net.b.transpose(net.x(3, 3, 1, 12), (3, 2, 0, 1))
    check(net.graph(depthwise(net, net.x(1, 5, 5, 12), weights=turned)))


@pytest.mark.parametrize("dtype", [DType.F16, DType.F64, DType.I32, DType.U8])
def test_depthwise_of_other_types(dtype):
    net = Net()
    weights = net.c(9, 1, 3, 3, dtype=dtype)
    check(net.graph(depthwise(net, net.x(1, 4, 5, 9, dtype=dtype), weights=weights)))
