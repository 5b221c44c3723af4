"""Running sums on a GPU: a warp for each line, and the values of the graph."""

from dataclasses import replace

import pytest
from graph_runs import BASE, Net, assert_close, check, inputs_of, lowered

from aotc.graph import ops
from aotc.graph.eval import evaluate
from aotc.graph.types import DType
from aotc.loop.eval import run_program
from aotc.loop.launch import launch_of
from aotc.target import cuda_target

GPU = cuda_target("sm_80")


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("shape", [(5, 33), pytest.param((2, 3, 300), marks=pytest.mark.slow)])
def test_floats_in_any_order(shape, reverse, exclusive):
    net = Net()
    op = ops.CumSum(len(shape) - 1, exclusive, reverse)
    graph = net.graph(net.b.apply(op, net.x(*shape)))
    program, inputs = lowered(graph, replace(GPU, precision="tf32")), inputs_of(graph)
    (kernel,) = program.kernels()
    assert launch_of(kernel).block == (32, 4, 1)
    found, wanted = run_program(program, inputs), evaluate(graph, inputs)
    for name, array in wanted.items():
        assert_close(found[name], array, 1e-5)


@pytest.mark.parametrize(("dtype", "block"), [(DType.I32, (32, 4, 1)), (DType.F32, (32, 1, 1))])
def test_integers_always_and_floats_never_where_order_matters(dtype, block):
    net = Net()
    graph = net.graph(net.b.apply(ops.CumSum(1, True, False), net.x(5, 150, dtype=dtype)))
    (kernel,) = check(graph, native=False, targets=(BASE, GPU)).kernels()
    assert launch_of(kernel).block == block
