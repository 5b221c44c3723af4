"""Contractions on tensor cores: stages, tiles and ways in which factors lie, in the evaluator."""

from dataclasses import replace

import numpy as np
import pytest
from graph_runs import Net, assert_close, for_all, inputs_of
from hypothesis import strategies as st

import aotc.lower.gpu.tensor_contract
from aotc.fuse.groups import fuse
from aotc.graph import ops
from aotc.graph.eval import evaluate
from aotc.loop.eval import run_program
from aotc.loop.ir_async import AsyncCopy, LoadMatrix
from aotc.loop.mma import KINDS
from aotc.loop.verify import verify_program
from aotc.lower.gpu.pipeline import Cut, Layout
from aotc.lower.gpu.tensor_contract import pack_chunks
from aotc.lower.program import lower
from aotc.passes.explicit_pad import explicit_pad
from aotc.schedule.gpu import GpuTile
from aotc.schedule.gpu_tensor import LINE_BYTES, TENSOR_TILES, TensorChoice
from aotc.target import cuda_target

TOLERANCE = {"tf32": 1e-3, "f16": 1e-3, "bf16": 1e-2}


def statements(body):
    """All statements of a kernel."""
    for stmt in body:
        yield stmt
        yield from statements(getattr(stmt, "body", ()))


def use(monkeypatch, shape, line=128, stages=3, flat=False, splits=1):
    """Makes every contraction take this tile."""

    def choose(sizes):
        chunk = line // KINDS[sizes.kind].dtype.size_bytes
        is_flat = flat and len(sizes.depth) > 1
        cut = Cut(sizes.depth, chunk, is_flat)
        each = cut.chunks // splits
        count = min(max(2, stages), each) if each > 1 else 1
        return TensorChoice(GpuTile(*shape, chunk, sizes.kind, splits, count), is_flat)

    monkeypatch.setattr(aotc.lower.gpu.tensor_contract, "choose_tensor_tile", choose)


def run(graph, precision, tolerance=None):
    """The kernels of products; all results have been compared with those of the graph."""
    target = replace(cuda_target("sm_80"), precision=precision)
    program = lower(fuse(explicit_pad(graph)), target, "net")
    verify_program(program)
    inputs = inputs_of(graph)
    found, wanted = run_program(program, inputs), evaluate(graph, inputs)
    for name, array in wanted.items():
        assert_close(found[name], array, tolerance or TOLERANCE[precision])
    return [kernel for kernel in program.kernels() if "block" in kernel.recipe]


def factor(net, lies, *shape):
    """An input, a result (of 16 bits where the precision has them), or one seen transposed."""
    *batch, rows, columns = shape
    if lies == "input":
        return net.x(*shape)
    if lies == "result":
        return net.b.unary("abs", net.x(*shape))
    if lies == "constant":
        return net.c(*shape)
    turned = net.b.unary("abs", net.x(*batch, columns, rows))
    rank = len(shape)
    return net.b.transpose(turned, (*range(rank - 2), rank - 1, rank - 2))


def product(m, k, n, left="result", right="constant", tail=False, batch=()):
    net = Net()
    x, w = factor(net, left, *batch, m, k), factor(net, right, *batch, k, n)
    y = net.b.apply(ops.Dot(), x, w)
    if tail:
        y = net.b.binary("add", net.b.binary("add", y, net.c(n)), net.x(*batch, m, n))
        y = net.b.unary("abs", y)
    return net.graph(y)


SHAPES = [pytest.param(shape, marks=pytest.mark.slow) for shape in TENSOR_TILES]
SHAPES[-1] = (16, 64, 1, 2)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_tile(shape, monkeypatch):
    assert shape in TENSOR_TILES
    rows, columns, *_ = shape
    for line in LINE_BYTES:
        use(monkeypatch, shape, line, 2)
        for precision in ("f16",) if line == 64 else ("tf32",):
            graph = product(rows + 3, 128, columns + 8, tail=True)
            (kernel,) = run(graph, precision, 5 * TOLERANCE[precision])
            found = list(statements(kernel.body))
            assert any(isinstance(stmt, LoadMatrix) for stmt in found)
            assert any(isinstance(stmt, AsyncCopy) and stmt.valid is None for stmt in found)


@pytest.mark.parametrize(("stages", "chunks"), [(2, 3), (4, 7), (1, 1)])
def test_any_number_of_stages_and_chunks(stages, chunks, monkeypatch):
    use(monkeypatch, (16, 64, 1, 2), 64, stages)
    run(product(20, 32 * chunks, 70), "f16")


WAYS = [("input", "constant"), ("across", "across"), ("result", "result"), ("across", "input")]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["tf32", "f16"])
@pytest.mark.parametrize(("left", "right"), WAYS)
def test_factors_lie_in_any_way(left, right, precision, monkeypatch):
    use(monkeypatch, (64, 64, 2, 2), 64, 2)
    for tail in (False, True):
        run(product(72, 64, 40, left, right, tail, batch=(2,)), precision)


def drawn():
    size = st.integers(1, 70)
    lies = st.sampled_from(["input", "result", "across", "constant"])
    shapes = st.sampled_from([(16, 64, 1, 2), (32, 64, 2, 2), (64, 32, 4, 1)])
    pick = st.tuples(shapes, st.sampled_from(LINE_BYTES), st.integers(1, 4))
    kinds = st.sampled_from(sorted(TOLERANCE))
    return st.tuples(size, st.integers(1, 150), size, lies, lies, st.booleans(), kinds, pick)


@for_all(drawn(), 1, 25)
def test_products_of_drawn_shapes(case):
    m, k, n, left, right, tail, precision, (shape, line, stages) = case
    left = "input" if left == "constant" else left
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(monkeypatch, shape, line, stages)
        run(product(m, k, n, left, right, tail), precision)


@for_all(st.data(), 1, 25)
def test_products_of_drawn_views(data):
    """Of factors that are cut out, stretched, transposed or read backwards."""
    batch = data.draw(st.sampled_from([(), (2,), (2, 3)]))
    m, n = (data.draw(st.sampled_from([1, 7, 32, 64])) for _ in range(2))
    k = data.draw(st.sampled_from([5, 36, 64]))
    precision, made = data.draw(st.sampled_from(sorted(TOLERANCE))), data.draw(st.booleans())
    net = Net()
    x, w = (net.viewed(data.draw, shape, made=made) for shape in ((*batch, m, k), (*batch, k, n)))
    graph = net.graph(net.b.apply(ops.Dot(), x, w))
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(monkeypatch, (32, 64, 2, 2), 64, 2)
        run(graph, precision, 5 * TOLERANCE[precision])


def convolution(images, channels, outputs, size, window, stride=1, pad=0, groups=1):
    """A convolution over a result, which lies in 16 bits where the precision has them."""
    net = Net()
    x = net.b.unary("abs", net.x(images, size, size, channels))
    w = net.c(outputs, channels // groups, window, window)
    op = ops.Conv((stride, stride), (pad, pad), (pad, pad), (1, 1), groups, channels_last=True)
    y = net.b.binary("add", net.b.apply(op, x, w), net.c(outputs))
    return net.graph(net.b.binary("max", y, net.b.constant(np.float32(0.0))))


def drawn_convolutions():
    return st.tuples(
        st.integers(1, 3),
        st.integers(1, 40),
        st.integers(1, 40),
        st.integers(3, 7),
        st.integers(1, 3),
        st.integers(1, 2),
        st.integers(0, 1),
        st.sampled_from(sorted(TOLERANCE)),
        st.booleans(),
    )


@for_all(drawn_convolutions(), 1, 20)
def test_convolutions_of_drawn_shapes(case):
    *sizes, precision, flat = case
    with pytest.MonkeyPatch.context() as monkeypatch:
        use(monkeypatch, (32, 64, 2, 2), 64, 3, flat)
        # few results, which may all be small sums of large terms
        run(convolution(*sizes), precision, 5 * TOLERANCE[precision])


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["tf32", "f16", "bf16"])
def test_the_depth_is_shared_by_blocks(precision, monkeypatch):
    use(monkeypatch, (16, 64, 1, 2), 128, 3, splits=3)
    (kernel,) = run(product(24, 64 * 9, 40, tail=True), precision)
    assert "split 3" in kernel.recipe
    use(monkeypatch, (16, 64, 1, 2), 64, 2, splits=3)
    run(convolution(1, 32, 24, 5, 3), precision)


LINES = [(64, 2, 8), (32, 4, 4), (32, 2, 8), (64, 2, 2)]


@pytest.mark.parametrize(("width", "size", "run_of"), LINES)
def test_lines_of_a_matrix_meet_all_banks(width, size, run_of):
    layout = Layout(64, width, size, run_of)

    def value(expr, line):
        """``expr`` of a line that is a literal."""
        return run_expression(expr, line)

    for block in range(run_of // 2):
        banks = set()
        for row in range(8):
            line = run_of * (row // 2) + 2 * block + row % 2
            piece = value(layout.exchange, line)
            assert piece == value(layout.exchange_of_row, row)
            banks.add((line * width * size + 16 * piece) % 128 // 16)
        assert len(banks) == 8


def run_expression(make, number):
    """What an index expression of one variable is."""
    from aotc.loop.interpret import Run
    from aotc.loop.ir import Kernel, Var

    var = Var("line")
    running = Run(Kernel("k", (), frozenset(), ()), {}, True)
    running._vars[var] = number
    return int(running._index(make(var), {}))


def test_weights_are_filled_up_with_zeros():
    weights = np.arange(2 * 18, dtype=np.float32).reshape(2, 18)
    found = pack_chunks(weights, Cut((2, 9), 16))
    assert found.shape == (2, 32)
    assert np.array_equal(found.reshape(2, 2, 16)[..., :9], weights.reshape(2, 2, 9))
    assert not found.reshape(2, 2, 16)[..., 9:].any()
    assert pack_chunks(weights, Cut((2, 9), 16, is_flat=True)).shape == (2, 32)
