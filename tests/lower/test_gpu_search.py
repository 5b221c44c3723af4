"""Searches of lines on a GPU: a warp for each, and the places that a processor finds."""

import numpy as np
import pytest
from graph_runs import BASE, Net, check

from aotc.graph import ops
from aotc.graph.types import DType
from aotc.loop.launch import launch_of
from aotc.target import cuda_target

GPU = cuda_target("sm_80")


def few_values(*shape):
    """Values with ties, infinities and NaN."""
    random = np.random.default_rng(3)
    choices = np.array([-np.inf, -2, 0, -0.0, 1, np.nan, np.inf], np.float32)
    return random.choice(choices, shape, p=[0.1, 0.2, 0.2, 0.2, 0.2, 0.02, 0.08])


def places(make, values):
    """The kernel that finds the places that a processor finds."""
    net = Net()
    graph = net.graph(make(net, net.x(*values.shape, dtype=DType.of(values))))
    inputs = {graph.inputs[0].op.name: values}
    return check(graph, native=False, targets=(BASE, GPU), inputs=inputs).kernels()[-1]


@pytest.mark.parametrize("last", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("fn", ["max", "min"])
def test_arg_reduce(fn, last):
    def make(net, x):
        return net.b.apply(ops.ArgReduce(fn, x.type.rank - 1, last), x)

    values = few_values(2, 3, 90)
    values[1] = -np.inf
    kernel = places(make, values)
    assert launch_of(kernel).block == (32, 4, 1) and launch_of(kernel).grid == (2, 1, 1)


@pytest.mark.parametrize("largest", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_top_k(largest):
    kernel = places(
        lambda net, x: net.b.apply(ops.TopK(5, 1, largest), x),
        few_values(5, 40),
    )
    assert launch_of(kernel).block == (32, 4, 1)


def test_few_strided_lines_have_warps_and_short_ones_none():
    def make(net, x):
        return net.b.apply(ops.ArgReduce("max", 0, False), x)

    assert launch_of(places(make, few_values(70, 3))).block == (32, 4, 1)
    assert launch_of(places(make, few_values(9, 30))).block != (32, 4, 1)
    assert launch_of(places(make, few_values(40, 3).astype(np.float64))).block != (32, 4, 1)
