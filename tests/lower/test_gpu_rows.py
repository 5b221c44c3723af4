"""Rows on a GPU: several threads for each row give the bytes of the CPU in float32, and read each
element once."""

import math
from collections import Counter
from dataclasses import replace

import pytest
from graph_runs import BASE, Net, assert_close, check, for_all, inputs_of, lowered
from hypothesis import strategies as st

from aotc.graph.eval import evaluate
from aotc.graph.types import DType
from aotc.loop.eval import run_program
from aotc.loop.ir import For, Kind, Load, Shuffle, Space, Store
from aotc.loop.launch import launch_of, nest_of
from aotc.loop.walk import post_order
from aotc.lower.gpu.row_threads import share_row
from aotc.passes.runner import run_passes
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
    launch = launch_of(kernel)
    assert launch.block[0] * launch.block[1] >= 32 and launch.shared_bytes == 0
    assert shuffles(nest_of(kernel).body) > 0


@pytest.mark.parametrize("make", [softmax, pytest.param(layer_norm, marks=pytest.mark.slow)])
def test_two_warps_share_long_rows(make):
    net = Net()
    program = check(net.graph(make(net, net.x(3, 2200))), native=False, targets=(BASE, GPU))
    launch = launch_of(program.kernels()[0])
    assert launch.block == (64, 1, 1) and launch.shared_bytes > 0


def test_many_rows_share_blocks():
    net = Net()
    program = check(net.graph(softmax(net, net.x(3, 700, 17))), native=False, targets=(BASE, GPU))
    assert launch_of(program.kernels()[0]).block == (16, 4, 1)
    assert launch_of(program.kernels()[0]).grid == (525, 1, 1)


def test_short_rows_and_wide_types_take_a_thread_each():
    for shape, dtype in (((40, 4), DType.F32), ((5, 40), DType.F64)):
        net = Net()
        y = net.b.reduce("sum", net.x(*shape, dtype=dtype), (1,), keep=False)
        program = check(net.graph(y), native=False, targets=(BASE, GPU))
        assert shuffles(nest_of(program.kernels()[0]).body) == 0


@pytest.mark.parametrize("ordered", [False, True])
def test_what_waits_fits_registers(ordered):
    for length in (5, 40, 384, 768, 4096, 8700, 30000, 60001):
        for count, widest, alive in ((1, 1, 1), (100, 4, 1), (8192, 4, 2), (8192, 8, 0)):
            share = share_row(length, count, widest, alive, ordered)
            registers = min(255, 65536 // (share.threads * share.rows))
            assert not share.kept or share.elems * alive < registers
            assert share.pieces * share.piece >= length
            assert share.threads * share.rows % 32 == 0 or share.rows == 1
            assert share.threads * share.rows <= 1024


@for_all(st.data(), quick=2, slow=60)
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


@pytest.mark.parametrize("length", [8, 200, pytest.param(1100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("make", [softmax, layer_norm])
def test_free_order(make, length):
    net = Net()
    graph = run_passes(net.graph(make(net, net.x(3, length))))
    program = lowered(graph, replace(GPU, precision="tf32"))
    inputs = inputs_of(graph)
    found, wanted = run_program(program, inputs), evaluate(graph, inputs)
    for name, array in wanted.items():
        assert_close(found[name], array, 1e-5)
    (kernel,) = program.kernels()
    assert vector_loops(kernel.body) == {4}
    loads = count_loads(nest_of(kernel).body)
    threads, rows = launch_of(kernel).block[:2]
    # no element of the operand is read twice
    assert loads["in0"] <= math.ceil(length / 4 / threads) * 4 and rows <= 32


def vector_loops(body):
    """The lanes of the vector loops in ``body``."""
    found = {s.lanes for s in body if isinstance(s, For) and s.kind is Kind.VECTOR}
    return found.union(*(vector_loops(getattr(stmt, "body", ())) for stmt in body))


def count_loads(body, times=1):
    """How many elements of each parameter a thread reads."""
    found = Counter()
    for stmt in body:
        if isinstance(stmt, Store):
            for expr in post_order((stmt.value,)):
                if isinstance(expr, Load) and expr.buffer.space is Space.GLOBAL:
                    found[expr.buffer.name] += times
        extent = stmt.extent if isinstance(stmt, For) else 1
        found += count_loads(getattr(stmt, "body", ()), times * extent)
    return found
