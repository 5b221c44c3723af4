"""Sweeps over views of every kind: pointwise operators, copies, and results over their operands."""

import numpy as np
import pytest
from graph_runs import BASE, NEON, WIDE, Net, check, for_all
from hypothesis import strategies as st

from aotc.graph import ops
from aotc.graph.types import MACHINE_TYPES, DType
from aotc.memory.arena import plan_memory

ARITHMETIC = ["add", "sub", "mul", "max", "min"]


def shapes(draw):
    shape = tuple(draw(st.lists(st.integers(1, 6) | st.integers(1, 80), max_size=4)))
    while np.prod(shape) > 4000:
        shape = shape[1:]
    return shape


@for_all(st.data(), quick=6, slow=300)
def test_operands_under_views(data):
    draw, net = data.draw, Net(data.draw(st.integers(0, 99)))
    shape = shapes(draw)
    dtype = draw(st.sampled_from([DType.F32, DType.F32, DType.F64, DType.F16, DType.I64, DType.U8]))
    y = net.viewed(draw, shape, dtype, made=draw(st.booleans()))
    for _ in range(draw(st.integers(1, 3))):
        other = net.viewed(draw, shape, dtype, made=draw(st.booleans()))
        y = net.b.binary(draw(st.sampled_from(ARITHMETIC)), y, other)
    if draw(st.booleans()):
        condition = net.b.compare(draw(st.sampled_from(["lt", "ge", "ne"])), y, other)
        y = net.b.select(condition, net.viewed(draw, shape, dtype), y)
    check(net.graph(y), passes=draw(st.booleans()))


@for_all(st.data(), quick=4, slow=200)
def test_mixed_types(data):
    draw, net = data.draw, Net(data.draw(st.integers(0, 99)))
    shape = shapes(draw)
    every = st.sampled_from(MACHINE_TYPES)
    y = net.viewed(draw, shape, draw(every))
    for _ in range(draw(st.integers(1, 3))):
        dtype = draw(every)
        y = net.b.cast(y, dtype)
        other = net.viewed(draw, shape, dtype)
        if dtype is DType.BOOL:
            y = net.b.binary(draw(st.sampled_from(["and", "or", "xor"])), y, other)
        else:
            y = net.b.select(net.viewed(draw, shape, DType.BOOL), y, other)
    check(net.graph(y, net.b.compare("eq", y, other)), passes=draw(st.booleans()))


@pytest.mark.parametrize("shape", [(3, 5), (33, 47), (64, 64), (2, 17, 40), (40, 3, 18)])
def test_transpositions(shape):
    net = Net()
    x = net.x(*shape)
    rank = len(shape)
    net.out(net.b.transpose(x, tuple(reversed(range(rank)))))
    net.out(net.b.binary("add", net.b.transpose(x, (1, 0, *range(2, rank))),
                         net.c(shape[1], shape[0], *shape[2:])))  # fmt: skip
    net.out(net.b.unary("neg", net.b.transpose(x, (rank - 1, *range(rank - 1)))))
    check(net.graph())


def test_sweeps_are_the_same_on_every_target():
    net = Net()
    x = net.x(5, 77)
    y = net.b.binary("mul", net.b.unary("sigmoid", x), net.b.transpose(net.x(77, 5), (1, 0)))
    check(net.graph(y, net.b.unary("exp", x)), targets=(BASE, WIDE, NEON))


def chain(net, mix):
    """A product, then a sweep over its result ``e`` and ``mix(e)``, then another product."""
    b = net.b
    e = b.apply(ops.Dot(), net.x(6, 6), net.c(6, 6))
    e = b.unary("exp", b.transpose(e, (1, 0)))
    s = b.binary("add", e, mix(e))
    return net.graph(b.apply(ops.Dot(), b.transpose(s, (1, 0)), net.c(6, 6)))


def test_a_sweep_takes_over_an_operand_that_it_reads_in_place():
    net = Net()
    b = net.b
    e = b.unary("exp", net.x(6, 8))
    scaled = b.binary("div", e, b.reduce("sum", e, [0], True))
    program = check(net.graph(b.apply(ops.Dot(), scaled, net.c(8, 3))), passes=False)
    (call,) = (call for call in program.calls if "div" in call.kernel.name)
    ((written, read),) = call.in_place
    plan = plan_memory(program)
    own, taken = (plan.offsets[call.args[index].storage] for index in (written, read))
    assert own == taken and call.kernel.may_alias


def test_no_sweep_takes_over_an_operand_that_it_also_reads_elsewhere():
    net = Net()
    check(chain(net, lambda e: net.b.transpose(e, (1, 0))))
    net = Net()
    check(chain(net, lambda e: net.b.apply(ops.Slice((5, 5), (6, 6), (-1, -1)), e)))
    net = Net()
    first = ops.Slice((0, 0), (1, 6), (1, 1))
    check(chain(net, lambda e: net.b.broadcast(net.b.apply(first, e), (6, 6))))


def test_no_product_takes_over_a_leaf_that_it_also_reads_elsewhere():
    for mix in (lambda b, e: b.transpose(e, (1, 0)), lambda b, e: e):
        net = Net()
        b = net.b
        x = net.x(6, 6)
        e = b.unary("abs", x)
        y = b.binary("add", b.apply(ops.Dot(), x, net.c(6, 6)), e)
        y = b.binary("add", y, mix(b, e))
        check(net.graph(b.apply(ops.Dot(), y, net.c(6, 6))))
