"""Contractions on a GPU: tiles in shared memory give the bytes of the CPU, tensor cores what their
types allow."""

from dataclasses import replace

import pytest
from graph_runs import BASE, Net, assert_close, check, inputs_of, lowered

from aotc.graph import ops
from aotc.graph.eval import evaluate
from aotc.graph.types import DType
from aotc.loop.eval import run_program
from aotc.loop.launch import launch_of
from aotc.passes.explicit_pad import explicit_pad
from aotc.target import cuda_target

GPU = cuda_target("sm_80")
TOLERANCE = {"f32": 1e-5, "tf32": 1e-3, "f16": 1e-3, "bf16": 1e-2}


def run(graph, precision):
    target = replace(GPU, precision=precision)
    program = lowered(explicit_pad(graph), target)
    inputs = inputs_of(graph)
    found, wanted = run_program(program, inputs), evaluate(graph, inputs)
    for name, array in wanted.items():
        assert_close(found[name], array, TOLERANCE[precision])
    return program


def product(m, k, n, constant=True, batch=()):
    net = Net()
    x = net.x(*batch, m, k)
    w = (net.c if constant else net.x)(*batch, k, n)
    return net.graph(net.b.apply(ops.Dot(), x, w))


QUICK, *MORE = [(33, 48, 17), (5, 7, 3), (40, 32, 40), (70, 20, 130)]
SIZES = [QUICK, *(pytest.param(size, marks=pytest.mark.slow) for size in MORE)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("constant", [True, False])
def test_products_have_the_bytes_of_the_cpu(size, constant):
    graph = product(*size, constant)
    check(graph, native=False, passes=False, targets=(BASE, GPU))


@pytest.mark.parametrize("precision", ["tf32", "f16", "bf16"])
@pytest.mark.parametrize("size", SIZES)
def test_products_on_tensor_cores(size, precision):
    (kernel,) = run(product(*size), precision).kernels()
    assert precision in kernel.recipe
    assert launch_of(kernel).block[0] % 32 == 0


def convolution(channels, outputs, size, window, stride=1, groups=1, tail=False):
    """A convolution over channels-last data, with a bias and a residual behind it if ``tail``."""
    net = Net()
    x = net.x(2, size, size, channels)
    w = net.c(outputs, channels // groups, window, window)
    op = ops.Conv((stride, stride), (0, 0), (0, 0), (1, 1), groups, channels_last=True)
    y = net.b.apply(op, x, w)
    if tail:
        y = net.b.binary("add", net.b.binary("add", y, net.c(outputs)), net.x(*y.shape))
        y = net.b.binary("max", y, net.b.constant(0.0, DType.F32))
    return net.graph(y)


CONVOLUTIONS = {
    "chunks in one tap": lambda: convolution(16, 24, 7, 3, tail=True),
    "ragged depth": lambda: convolution(3, 20, 9, 3, stride=2),
    "groups": lambda: convolution(32, 24, 6, 2, groups=2),
    "one by one": lambda: convolution(32, 40, 5, 1, tail=True),
}
NAMES = [
    name if name == "ragged depth" else pytest.param(name, marks=pytest.mark.slow)
    for name in CONVOLUTIONS
]


@pytest.mark.parametrize("name", NAMES)
def test_convolutions_have_the_bytes_of_the_cpu(name):
    check(CONVOLUTIONS[name](), native=False, passes=False, targets=(BASE, GPU))


@pytest.mark.parametrize("name", NAMES)
def test_convolutions_on_tensor_cores(name):
    for precision in ("tf32", "f16"):
        run(CONVOLUTIONS[name](), precision)


def test_batches_and_right_hand_sides_that_lie_transposed():
    net = Net()
    q, k = net.x(3, 20, 16), net.x(3, 24, 16)
    scores = net.b.apply(ops.Dot(), q, net.b.transpose(k, (0, 2, 1)))
    graph = net.graph(net.b.unary("abs", scores))
    program = check(graph, native=False, passes=False, targets=(BASE, GPU))
    assert len(program.calls) == 1, "no copy of the transposed operand"
    assert launch_of(program.calls[0].kernel).grid[2] == 3
    run(graph, "tf32")


@pytest.mark.slow
def test_integers_and_doubles():
    for dtype in (DType.I32, DType.F64):
        net = Net()
        x, w = net.x(9, 12, dtype=dtype), net.c(12, 10, dtype=dtype)
        graph = net.graph(net.b.apply(ops.Dot(), x, w))
        check(graph, native=False, passes=False, targets=(BASE, replace(GPU, precision="tf32")))


def test_results_may_take_the_place_of_what_is_added():
    net = Net()
    x = net.b.unary("neg", net.x(20, 32))
    y = net.b.binary("add", net.b.apply(ops.Dot(), net.x(20, 16), net.c(16, 32)), x)
    program = check(net.graph(net.b.unary("abs", y)), native=False, targets=(BASE, GPU))
    assert program.kernels()


@pytest.mark.slow
def test_long_sums_of_few_results_are_split(monkeypatch):
    monkeypatch.setattr("aotc.schedule.gpu_tensor.FEWEST_CHUNKS", 2)
    net = Net()
    y = net.b.apply(ops.Dot(), net.x(2, 12, 768), net.x(2, 768, 20))
    y = net.b.binary("add", net.b.binary("add", y, net.c(20)), net.x(2, 12, 20))
    program = run(net.graph(net.b.unary("abs", y)), "tf32")
    first, second = program.calls
    assert "split" in first.kernel.recipe and launch_of(first.kernel).grid[1] > 2
    assert second.kernel.name.endswith("_join") or "_join" in second.kernel.name
    run(convolution(64, 24, 5, 3, tail=True), "f16")


def test_tiny_products_of_a_large_batch_take_threads():
    net = Net()
    y = net.b.apply(ops.Dot(), net.x(70_000, 1, 2), net.x(70_000, 2, 2))
    program = lowered(net.graph(y), GPU)
    assert all(launch_of(kernel).grid[1:] == (1, 1) for kernel in program.kernels())
