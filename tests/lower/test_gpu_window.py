"""Sliding windows on a GPU: vectors of channels, strips of positions, and the bytes of a
processor."""

import pytest
from graph_runs import BASE, Net, check
from test_gpu_rows import vector_loops
from test_window import depthwise, pool

from aotc.graph.types import DType
from aotc.loop.launch import launch_of
from aotc.lower.gpu.vectors import choose_strip
from aotc.target import cuda_target

GPU = cuda_target("sm_80")


@pytest.mark.parametrize(
    ("dtype", "shape", "lanes"),
    [
        (DType.F32, (1, 12, 44, 84), {4}),
        (DType.F32, (1, 12, 22, 86), {2}),
        (DType.F32, (1, 5, 6, 8), set()),
    ],
)
def test_a_thread_has_neighbouring_channels(dtype, shape, lanes):
    net = Net()
    x = net.x(*shape, dtype=dtype)
    graph = net.graph(depthwise(net, x, strides=(2, 1)))
    *_, kernel = check(graph, native=False, targets=(BASE, GPU)).kernels()
    assert vector_loops(kernel.body) == lanes


def test_blocks_are_small_where_threads_are_few():
    net = Net()
    graph = net.graph(net.b.apply(pool("max", (1, 3, 3, 1)), net.x(1, 9, 25, 128)))
    (kernel,) = check(graph, native=False, targets=(BASE, GPU)).kernels()
    launch = launch_of(kernel)
    assert launch.block[0] == 64 and launch.grid[0] * 64 >= 4 * 12 * 32


def test_strips_leave_threads_enough():
    assert choose_strip(1 << 20, 4) == (4, 8)
    assert choose_strip(1 << 17, 4) == (4, 1)
    assert choose_strip(1 << 13, 4) == (2, 1)
    assert choose_strip(100, 8) == (1, 1)
