"""Gates on a GPU: a warp for each unit, and the values of the graph."""

from dataclasses import replace

import pytest
from graph_runs import BASE, Net, assert_close, check, inputs_of, lowered
from test_gates import lstm

from aotc.graph.eval import evaluate
from aotc.loop.eval import run_program
from aotc.loop.launch import launch_of
from aotc.target import cuda_target

GPU = cuda_target("sm_80")


@pytest.mark.parametrize(
    "rows, depth, units", [(2, 9, 5), pytest.param(4, 140, 8, marks=pytest.mark.slow)]
)
def test_a_step_is_one_kernel(rows, depth, units):
    net = Net()
    graph = net.graph(*lstm(net, net.x(rows, depth), net.x(rows, units), net.c(depth, 4 * units)))
    program, inputs = lowered(graph, replace(GPU, precision="tf32")), inputs_of(graph)
    (kernel,) = program.kernels()
    launch = launch_of(kernel)
    assert launch.grid[0] * launch.block[1] >= units and launch.block[0] == 32
    found, wanted = run_program(program, inputs), evaluate(graph, inputs)
    for name, array in wanted.items():
        assert_close(found[name], array, 1e-5)


@pytest.mark.slow
def test_in_float32_the_bytes_are_those_of_a_processor():
    net = Net()
    graph = net.graph(*lstm(net, net.x(2, 9), net.x(2, 5), net.c(9, 20)))
    check(graph, native=False, targets=(BASE, GPU))
