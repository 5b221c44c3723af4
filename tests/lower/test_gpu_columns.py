"""Sums over other than the innermost axes on a GPU: the bytes of a processor in float32, and in any
order of terms otherwise."""

import math
from dataclasses import replace

import pytest
from graph_runs import BASE, Net, assert_close, check, for_all, inputs_of, lowered
from hypothesis import strategies as st

from aotc.graph.eval import evaluate
from aotc.graph.types import DType
from aotc.loop.eval import run_program
from aotc.loop.launch import launch_of
from aotc.lower.gpu.column_threads import BLOCKS, share_columns
from aotc.target import cuda_target

GPU = cuda_target("sm_80")
FREE = replace(GPU, precision="tf32")


def scaled_sum(net, x, axes=(0,)):
    y = net.b.reduce("sum", net.b.unary("abs", x), axes, keep=False)
    return net.b.binary("mul", y, net.c(*y.shape))


def run_free(graph, tolerance=1e-5):
    """The program of ``graph`` where sums may be in any order, proved to give its values."""
    program, inputs = lowered(graph, FREE), inputs_of(graph)
    found, wanted = run_program(program, inputs), evaluate(graph, inputs)
    for name, array in wanted.items():
        assert_close(found[name], array, tolerance)
    return program


def threads(kernel):
    launch = launch_of(kernel)
    return math.prod(launch.grid) * math.prod(launch.block)


def test_in_order_a_result_is_one_thread():
    net = Net()
    graph = net.graph(scaled_sum(net, net.x(37, 70)))
    (kernel,) = check(graph, native=False, targets=(BASE, GPU)).kernels()
    assert 70 <= threads(kernel) < 140


def test_integers_are_shared_in_any_case():
    net = Net()
    graph = net.graph(net.b.reduce("sum", net.x(64, 8, dtype=DType.I32), (0,), keep=False))
    (kernel,) = check(graph, native=False, targets=(BASE, GPU)).kernels()
    assert threads(kernel) >= 16 * 2


@pytest.mark.parametrize("shape", [(49, 24), (64, 40), (33, 7)])
def test_threads_of_a_block_share_the_terms(shape):
    net = Net()
    (kernel,) = run_free(net.graph(scaled_sum(net, net.x(*shape)))).kernels()
    assert threads(kernel) >= math.prod(shape) // 16
    assert launch_of(kernel).shared_bytes > 0


def test_blocks_share_long_sums():
    net = Net()
    first, second = run_free(net.graph(scaled_sum(net, net.x(3000, 32)))).kernels()
    assert launch_of(first).grid[1] > 1
    assert launch_of(second).grid[1] == 1


@pytest.mark.parametrize("rows", [1, 3])
def test_blocks_share_long_rows(rows):
    net = Net()
    first, second = run_free(net.graph(scaled_sum(net, net.x(rows, 40000), (1,)))).kernels()
    assert launch_of(first).grid[1] > 1
    assert launch_of(second).grid[1] == 1


@pytest.mark.parametrize("results", [4, 96, 2048, 1 << 20])
@pytest.mark.parametrize("terms", [2, 49, 25600, 1 << 20])
def test_no_thread_has_many_terms_while_others_are_idle(results, terms):
    share = share_columns(results, terms, 4, ordered=False)
    blocks = -(-results // 4 // share.across) * share.parts
    assert share.rounds <= 64 or blocks >= BLOCKS // 2
    assert share.share * share.parts >= terms
    assert share.across * share.down <= 256


@for_all(st.data(), quick=2, slow=60)
def test_reductions_of_every_kind(data):
    draw, net = data.draw, Net(data.draw(st.integers(0, 99)))
    rank = draw(st.integers(2, 4))
    shape = tuple(draw(st.sampled_from([1, 2, 3, 5, 8, 20])) for _ in range(rank))
    axes = tuple(sorted(draw(st.sets(st.integers(0, rank - 2), min_size=1))))
    dtype = draw(st.sampled_from([DType.F32, DType.F32, DType.F64, DType.I32]))
    x = net.viewed(draw, shape, dtype)
    if draw(st.booleans()):
        x = net.b.binary("mul", x, net.viewed(draw, shape, dtype))
    y = net.b.reduce(draw(st.sampled_from(["sum", "max", "min"])), x, axes, keep=False)
    if draw(st.booleans()):
        y = net.b.binary("add", y, net.viewed(draw, y.shape, dtype))
    graph = net.graph(y)
    check(graph, native=False, targets=(BASE, GPU))
    run_free(graph, 2e-5)
