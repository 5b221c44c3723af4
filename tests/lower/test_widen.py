"""Weights that are expanded in registers: the numbers, and the bytes that float32 weights give."""

import numpy as np
import pytest
from graph_runs import BASE, NEON, WIDE, Net, assert_same_bytes, check, for_all, inputs_of, lowered
from hypothesis import strategies as st

from aotc.graph import ops
from aotc.graph.ops_weights import STORED
from aotc.graph.types import DType
from aotc.loop.eval import run_program
from aotc.loop.program import Role
from aotc.lower.widen import shortest
from aotc.passes.explicit_pad import explicit_pad
from aotc.target import resolve_target

RISCV = resolve_target("riscv64")  # which has no instruction for float16


def codes_of(stored, shape, seed=0):
    random = np.random.default_rng(seed)
    if stored.is_float:
        return random.uniform(-1.5, 1.5, shape).astype(stored.numpy).view(stored.machine.numpy)
    low, high = stored.int_range
    return random.integers(low, high + 1, shape).astype(stored.machine.numpy)


def widened(net, stored, shape, axis=0, block=1, zero=False, scale_shape=None, constant=False):
    """A `Widen` of random codes, or the constant that it stands for."""
    parts = [codes_of(stored, shape, net.seed)]
    if stored.is_int:
        scale_shape = list(scale_shape or shape)
        scale_shape[axis] = -(-shape[axis] // block)
        random = np.random.default_rng(net.seed)
        parts.append(random.uniform(0.1, 1, scale_shape).astype(np.float32))
        if zero:
            parts.append(random.integers(0, 15, scale_shape).astype(np.float32))
    op = ops.Widen(stored, axis, block)
    if constant:
        return net.b.constant(op.evaluate(*parts))
    return net.b.apply(op, *map(net.b.constant, parts))


@for_all(st.data(), quick=2, slow=60)
def test_products(data):
    draw = data.draw
    stored = draw(st.sampled_from(STORED))
    rows, inner, columns = (draw(st.integers(1, high)) for high in (5, 40, 40))
    block = draw(st.sampled_from([1, 4, 8, 16, inner, 64]))
    zero = draw(st.booleans())
    graphs = []
    for constant in (False, True):
        net = Net(7)
        w = widened(net, stored, (inner, columns), 0, block, zero, constant=constant)
        y = net.b.apply(ops.Dot(), net.x(rows, inner), w)
        graphs.append(net.graph(net.b.binary("add", y, net.c(columns))))
    small, plain = graphs
    other = draw(st.sampled_from([NEON, RISCV]))
    check(small, passes=draw(st.booleans()), targets=(BASE, WIDE, other))
    inputs = inputs_of(small)
    same = run_program(lowered(plain), inputs)
    assert_same_bytes(run_program(lowered(small), inputs), same)


@pytest.mark.slow
@pytest.mark.parametrize("channels_last", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("stored", "block", "scale"),
    [
        pytest.param(DType.F16, 1, None, marks=pytest.mark.slow),
        pytest.param(DType.I8, 48, (12, 1, 1, 1), marks=pytest.mark.slow),
        pytest.param(DType.I4, 48, (12, 1, 1, 1), marks=pytest.mark.slow),
        (DType.I4, 16, None),
        pytest.param(DType.U4, 5, None, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_convolutions(stored, block, scale, channels_last):
    graphs = []
    for constant in (False, True):
        net = Net(3)
        shape = (1, 5, 4, 48) if channels_last else (1, 48, 5, 4)
        w = widened(net, stored, (12, 48, 3, 2), 1, block, False, scale, constant)
        op = ops.Conv((1, 1), (1, 0), (1, 0), (1, 1), 1, channels_last)
        graphs.append(net.graph(net.b.apply(op, net.x(*shape), w)))
    check(graphs[0], passes=False, targets=(BASE, WIDE))
    inputs = inputs_of(graphs[0])
    small, plain = (run_program(lowered(explicit_pad(g)), inputs) for g in graphs)
    assert_same_bytes(small, plain)


@pytest.mark.slow
def test_groups_of_a_convolution():
    net = Net(3)
    w = widened(net, DType.I4, (8, 16, 3), 1, 16, False, (8, 1, 1))
    op = ops.Conv((2,), (1,), (1,), (1,), 2, False)
    check(net.graph(net.b.apply(op, net.x(2, 32, 9), w)), passes=False, targets=(BASE, WIDE))


@pytest.mark.parametrize(
    ("stored", "block", "bits"),
    [(DType.F16, 1, 16), (DType.BF16, 1, 16), (DType.I8, 128, 8.25), (DType.I4, 32, 5)],
    ids=str,
)
def test_constants_are_as_small_as_their_codes(stored, block, bits):
    net = Net(1)
    w = widened(net, stored, (128, 64), 0, block)
    program = lowered(net.graph(net.b.apply(ops.Dot(), net.x(1, 128), w)), BASE)
    stored_bytes = sum(s.size_bytes for s in program.storages(Role.CONST))
    assert stored_bytes == bits * 128 * 64 / 8


def test_a_scale_takes_the_shortest_type_that_holds_it():
    assert shortest(np.float32([1.5, 2.0**-100])).dtype == np.uint16  # bfloat16
    assert shortest(np.float32([1 + 2.0**-10])).dtype == np.float16
    assert shortest(np.float32([1 + 2.0**-20])).dtype == np.float32
