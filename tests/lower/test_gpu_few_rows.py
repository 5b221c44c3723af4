"""Products of a few rows on a GPU: a warp for each column, and the values of the graph."""

from dataclasses import replace

import pytest
from graph_runs import Net, assert_close, inputs_of, lowered

from aotc.graph import ops
from aotc.graph.eval import evaluate
from aotc.loop.eval import run_program
from aotc.loop.launch import launch_of
from aotc.passes.runner import run_passes
from aotc.target import cuda_target


def run(graph, precision):
    """The kernels of ``graph``, which give its values."""
    program = lowered(graph, replace(cuda_target("sm_80"), precision=precision))
    inputs = inputs_of(graph)
    found, wanted = run_program(program, inputs), evaluate(graph, inputs)
    for name, array in wanted.items():
        assert_close(found[name], array, 1e-5 if precision == "tf32" else 2e-2)
    return program.kernels()


@pytest.mark.parametrize(
    "precision", ["tf32", "bf16", pytest.param("f16", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("rows, depth, columns", [(1, 300, 18), (4, 33, 5)])
def test_a_column_is_a_warp(precision, rows, depth, columns):
    net = Net()
    y = net.b.apply(ops.Dot(), net.x(rows, depth), net.c(depth, columns))
    (kernel,) = run(net.graph(net.b.binary("add", y, net.c(columns))), precision)
    launch = launch_of(kernel)
    assert launch.block == (32, 4, 1) and launch.grid[0] == -(-columns // 4)


def test_a_convolution_of_one_pixel_is_one_too():
    net = Net()
    op = ops.Conv((1, 1), (0, 0), (0, 0), (1, 1), 1, channels_last=True)
    graph = net.graph(net.b.apply(op, net.x(1, 1, 1, 40), net.c(12, 40, 1, 1)))
    (kernel,) = run(run_passes(graph), "tf32")
    assert launch_of(kernel).block == (32, 4, 1)


def test_more_rows_are_tiles():
    net = Net()
    graph = net.graph(net.b.apply(ops.Dot(), net.x(16, 32), net.c(32, 64)))
    assert all("warps" not in kernel.recipe for kernel in run(graph, "f16"))
