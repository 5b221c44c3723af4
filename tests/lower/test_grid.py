"""Programs for a GPU: every kernel is a nest of blocks and threads, without races, and gives the
bytes of the CPU targets."""

from dataclasses import replace

import numpy as np
import pytest
from graph_runs import BASE, Net, assert_close, check, for_all, inputs_of, lowered
from nested_nets import nested_inputs, nested_net
from random_nets import nets

from aotc.codegen.ptx import ptx_module
from aotc.graph import ops
from aotc.graph.eval import evaluate
from aotc.graph.types import DType
from aotc.loop.eval import run_program
from aotc.loop.ir import For, Kind
from aotc.loop.launch import is_gpu_kernel, launch_of
from aotc.loop.walk import accesses
from aotc.passes.runner import run_passes
from aotc.target import cuda_target

GPU = cuda_target("sm_80")


@for_all(nets(), quick=6, slow=80)
def test_random_graphs(graph):
    program = check(graph, native=False, targets=(BASE, GPU))
    assert all(is_gpu_kernel(kernel) for kernel in program.kernels())


@for_all(nets(), quick=1, slow=40)
def test_random_graphs_on_tensor_cores(graph):
    program = lowered(run_passes(graph), replace(GPU, precision="f16"))
    inputs = inputs_of(graph)
    found, wanted = run_program(program, inputs), evaluate(graph, inputs)
    for name, array in wanted.items():
        assert_close(found[name], array, 3e-2)


def test_each_element_has_a_thread_and_neighbours_are_neighbours():
    net = Net()
    x, bias = net.x(40, 60), net.c(60)
    graph = net.graph(net.b.unary("abs", net.b.binary("add", x, bias)))
    program = check(graph, native=False, targets=(GPU,))
    (kernel,) = program.kernels()
    launch = launch_of(kernel)
    assert launch.grid[0] * launch.block[0] >= 40 * 60 // 4
    assert launch.block[0] % 32 == 0


def vector_loops(body):
    """The lanes of the vector loops in ``body``."""
    found = set()
    for stmt in body:
        if isinstance(stmt, For) and stmt.kind is Kind.VECTOR:
            found.add(stmt.lanes)
        found |= vector_loops(getattr(stmt, "body", ()))
    return found


@pytest.mark.parametrize(
    ("dtype", "columns", "lanes"),
    [(DType.F32, 256, {4}), (DType.F16, 256, {8}), (DType.F32, 258, {2}), (DType.F32, 257, set())],
)
def test_threads_move_sixteen_bytes_where_they_can(dtype, columns, lanes):
    net = Net()
    y = net.b.binary("add", net.x(257, columns, dtype=dtype), net.c(columns, dtype=dtype))
    program = check(net.graph(y), native=False, passes=False, targets=(BASE, GPU))
    assert vector_loops(program.kernels()[0].body) == lanes
    text = ptx_module(program.kernels(), "sm_80")
    for lane in lanes:
        width = lane * dtype.size_bytes // 4
        assert f"ld.global.v{width}.b32" in text and f"st.global.v{width}.b32" in text


def test_parts_of_a_kernel_that_need_one_another_are_launched_in_order():
    net = Net()
    padded = net.b.apply(ops.Pad((0, 0, 1, 1), (0, 0, 1, 1), 0.0), net.x(3, 5, 4, 4))
    program = check(net.graph(net.b.unary("neg", padded)), native=False, targets=(BASE, GPU))
    for kernel in program.kernels():
        used = {id(buffer) for buffer, _, _ in accesses(kernel.body)}
        assert used == {id(buffer) for buffer in kernel.params}


def test_parts_that_touch_different_memory_are_one_launch():
    net = Net()
    padded = net.b.apply(ops.Pad((0, 1, 2, 0), (0, 3, 4, 0), 0.5), net.x(2, 5, 4, 8))
    program = check(net.graph(padded), native=False, targets=(BASE, GPU))
    _, border = program.kernels()
    assert launch_of(border).grid[0] == 19 and len(border.params) == 1


def test_what_only_fills_registers_stands_in_no_loops_way():
    net = Net()
    rows = net.b.constant(np.array([3, 0, 3, 1], np.int64))
    graph = net.graph(net.b.apply(ops.Gather(0), net.x(5, 64), rows))
    program = check(graph, native=False, targets=(BASE, GPU))
    (kernel,) = program.kernels()
    launch = launch_of(kernel)
    assert launch.grid[0] * launch.block[0] >= 4 * 64


def test_one_result_is_one_thread():
    net = Net()
    total = net.b.reduce("sum", net.x(4, dtype=DType.I32), (0,), keep=False)
    program = lowered(net.graph(total), GPU)
    (kernel,) = program.kernels()
    assert launch_of(kernel).grid == launch_of(kernel).block == (1, 1, 1)


@pytest.mark.parametrize("seed", [3, 8, pytest.param(21, marks=pytest.mark.slow)])
def test_branches_and_loops_stay_steps(seed):
    graph = nested_net(seed)
    inputs = nested_inputs(graph, seed)
    program = check(graph, native=False, targets=(BASE, GPU), inputs=inputs)
    assert all(is_gpu_kernel(kernel) for kernel in program.kernels())
