"""Pad and Concat: written in place where producers allow, copied where not, however nested."""

import pytest
from graph_runs import Net, check, for_all, lowered
from hypothesis import strategies as st

from aotc.graph import ops
from aotc.graph.types import MACHINE_TYPES, DType


def part(draw, net, shape, dtype, depth):
    """Something to join: an input, constant, view, result, or another join."""
    kind = draw(st.sampled_from(["viewed", "result", "product", "pad", "concat", "rows"]))
    if kind == "pad" and depth:
        low, high = (tuple(draw(st.integers(0, dim - 1)) for dim in shape) for _ in range(2))
        low = tuple(min(a, dim - 1 - b) if dim - 1 - b > 0 else 0
                    for a, b, dim in zip(low, high, shape, strict=True))  # fmt: skip
        inner = tuple(d - a - b for d, a, b in zip(shape, low, high, strict=True))
        return net.b.apply(ops.Pad(low, high, 1.0), part(draw, net, inner, dtype, depth - 1))
    if kind == "concat" and depth:
        axis = draw(st.integers(0, len(shape) - 1))
        sizes, left = [], shape[axis]
        while left:
            sizes.append(draw(st.integers(1, left)))
            left -= sizes[-1]
        parts = [
            part(draw, net, (*shape[:axis], size, *shape[axis + 1 :]), dtype, depth - 1)
            for size in sizes
        ]
        return net.b.apply(ops.Concat(axis), *parts)
    if kind == "product" and len(shape) == 2 and dtype is not DType.BOOL:
        inner = draw(st.integers(1, 5))
        factors = net.x(shape[0], inner, dtype=dtype), net.c(inner, shape[1], dtype=dtype)
        return net.b.apply(ops.Dot(), *factors)
    if kind == "rows" and dtype.is_float:
        x = net.x(*shape, dtype=dtype)
        return net.b.binary("sub", x, net.b.reduce("max", x, [-1], True))
    return net.viewed(draw, shape, dtype, made=kind == "result")


@for_all(st.data(), quick=8, slow=300)
def test_nested_joins(data):
    draw, net = data.draw, Net(data.draw(st.integers(0, 99)))
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    dtype = draw(st.sampled_from([DType.F32, DType.F32, DType.F64, DType.I16, DType.BOOL]))
    axis = draw(st.integers(0, len(shape) - 1))
    pieces = [part(draw, net, shape, dtype, 2) for _ in range(draw(st.integers(1, 2)))]
    whole = net.b.apply(ops.Concat(axis), *pieces, draw(st.sampled_from(pieces)))
    if draw(st.booleans()):
        rank = len(shape)
        whole = net.b.apply(ops.Pad((1,) * rank, (0,) * rank, 0.0), whole)
    kind = draw(st.sampled_from(["out", "both", "reused", "view"]))
    if kind == "both":
        net.out(pieces[0])
    elif kind == "view":
        whole = net.b.transpose(whole, tuple(reversed(range(len(shape)))))
    elif kind == "reused" and dtype is not DType.BOOL:
        net.out(net.b.binary("add", pieces[0], pieces[-1]))
    check(net.graph(whole), passes=draw(st.booleans()))


def kernels(graph):
    return [call.kernel.name.split("_", 1)[1] for call in lowered(graph).calls]


def test_producers_write_into_the_joined_tensor():
    net = Net()
    b = net.b
    x = net.x(4, 8)
    parts = b.unary("exp", x), b.apply(ops.Dot(), x, net.c(8, 3))
    y = b.apply(ops.Pad((1, 1), (1, 1), 0.0), b.apply(ops.Concat(1), *parts))
    names = kernels(net.graph(y))
    assert not any(name.startswith("copy") for name in names)
    assert names.count("fill") == 4


def test_what_has_no_producer_or_two_homes_is_copied():
    net = Net()
    x = net.b.unary("exp", net.x(2, 3))
    y = net.b.apply(ops.Concat(0), x, net.c(2, 3), x)
    assert kernels(net.graph(y)).count("copy") == 2
    net = Net()
    x = net.b.unary("exp", net.x(2, 3))
    graph = net.graph(x, net.b.apply(ops.Concat(0), x, x))
    assert kernels(graph).count("copy") == 2
    check(graph)


@pytest.mark.parametrize("dtype", MACHINE_TYPES)
def test_borders_of_every_type(dtype):
    net = Net()
    x = net.x(3, 4, dtype=dtype)
    value = 1.0 if dtype is DType.BOOL else 7.0
    y = net.b.apply(ops.Pad((0, 2), (1, 3), value), x)
    check(net.graph(y, net.b.apply(ops.Pad((2, 0), (0, 0), 0.0), x)))


def test_infinite_borders():
    net = Net()
    op = ops.Pad((1, 1), (1, 1), float("-inf"))
    check(net.graph(net.b.apply(op, net.b.unary("abs", net.x(3, 17)))))


def test_a_padded_operand_that_is_an_output_too():
    net = Net()
    x = net.out(net.b.unary("tanh", net.x(3, 5)))
    y = net.out(net.b.apply(ops.Pad((1, 0), (0, 2), 0.5), x))
    check(net.graph(net.b.apply(ops.Concat(1), y, y), y))


def test_a_join_in_the_home_of_a_join_is_read_by_others():
    net = Net()
    b = net.b
    inner = b.apply(ops.Concat(1), b.unary("exp", net.x(3, 4)), b.unary("neg", net.x(3, 5)))
    outer = b.apply(ops.Concat(0), inner, net.x(2, 9))
    tail = b.apply(ops.Dot(), b.transpose(inner, (1, 0)), net.c(3, 6))
    net.out(b.apply(ops.Pad((1, 1), (0, 0), 0.0), outer))
    check(net.graph(b.reduce("sum", inner, [1], False), tail))


@pytest.mark.parametrize("channels", [3, 20])
def test_what_is_transposed_into_a_border_is_written_there_at_once(channels):
    net = Net()
    x = net.x(1, channels, 9, 10)
    codes = net.b.cast(net.b.unary("round", net.b.binary("mul", x, net.c(1))), DType.U8)
    moved = net.b.transpose(codes, (0, 2, 3, 1))
    graph = net.graph(net.b.apply(ops.Pad((0, 1, 1, 0), (0, 0, 0, 0), 7.0), moved))
    check(graph)
    names = [call.kernel.name for call in lowered(graph).calls]
    assert not any("copy" in name for name in names), names
