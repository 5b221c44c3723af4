"""Contractions by warpgroups: tiles that tensor maps bring give the graph's results, in every type
and shape of tile; what no tensor map brings is left to others."""

from dataclasses import replace

import pytest
from graph_runs import Net, assert_close, for_all, inputs_of, lowered
from hypothesis import strategies as st
from warpgroup_graphs import convolution, factor, product

from aotc.graph import ops
from aotc.graph.eval import evaluate
from aotc.graph.types import DType
from aotc.loop.eval import run_program
from aotc.loop.launch import launch_of
from aotc.passes.explicit_pad import explicit_pad
from aotc.schedule import gpu_warpgroup
from aotc.target import SHARED_BYTES, cuda_target

GPU = cuda_target("sm_90a")
TOLERANCE = {"tf32": 1e-3, "f16": 2e-3, "bf16": 1e-2}
TILES = gpu_warpgroup._TILES


def run(graph, precision, expected="warpgroups"):
    """The program, whose first contraction is done by ``expected``, gives the graph's results."""
    program = lowered(explicit_pad(graph), replace(GPU, precision=precision))
    inputs = inputs_of(graph)
    found, wanted = run_program(program, inputs), evaluate(graph, inputs)
    for name, array in wanted.items():
        assert_close(found[name], array, TOLERANCE[precision])
    recipes = [kernel.recipe for kernel in program.kernels() if kernel.recipe]
    assert not expected or expected in recipes[0], recipes
    return program


@pytest.fixture
def conversions(monkeypatch):
    """Conversions of operands to 16 bits cost nothing."""
    monkeypatch.setattr(gpu_warpgroup, "_LAUNCH_SECONDS", 0)
    monkeypatch.setattr(gpu_warpgroup, "_PLAIN_RATE", 1e9)


@pytest.mark.parametrize(("kind", "dtype"), [("f16", DType.F16), ("tf32", DType.F32)])
def test_products_with_weights(kind, dtype):
    (kernel,) = run(product(70, 136, 40, dtype), kind).kernels()
    assert len(kernel.maps) == 2 and launch_of(kernel).block[0] % 128 == 0


def test_products_of_bfloat16(conversions):
    convert, kernel = run(product(70, 136, 40), "bf16").kernels()
    assert not convert.maps and "bf16" in kernel.recipe


QUICK = [(128, 64, 2), (64, 32, 1)]


@pytest.mark.parametrize(
    "tile", [t if t in QUICK else pytest.param(t, marks=pytest.mark.slow) for t in TILES]
)
def test_every_tile(tile, monkeypatch):
    rows, columns, _ = tile
    monkeypatch.setattr(gpu_warpgroup, "_TILES", (tile,))
    monkeypatch.setattr(gpu_warpgroup, "_MOST_STAGES", 3)
    monkeypatch.setattr(gpu_warpgroup, "_MOST_SPLITS", 1)
    graph = product(rows + 40, 64 * 5 + 8, columns + 24, DType.F16, tail=True)
    (kernel,) = run(graph, "f16").kernels()
    assert f"{rows}x{columns} " in kernel.recipe
    assert launch_of(kernel).shared_bytes <= SHARED_BYTES["sm_90a"]


@pytest.mark.parametrize("right", ["across", "along"])
def test_right_hand_sides_made_at_run_time(right):
    run(product(70, 24, 72, DType.F16, right, batch=(2,)), "f16")
    run(product(64, 136, 136, DType.F16, right), "f16")


def test_right_hand_sides_of_float32():
    run(product(40, 40, 40, right="along", batch=(2, 1)), "tf32")
    few_columns = lowered(product(40, 40, 40, right="across"), replace(GPU, precision="tf32"))
    assert not any(kernel.maps for kernel in few_columns.kernels())


@pytest.mark.parametrize("depth", [40, pytest.param(32 * 9, marks=pytest.mark.slow)])
def test_factors_of_float32_are_exchanged(depth, monkeypatch):
    monkeypatch.setattr(gpu_warpgroup, "_MOST_STAGES", 3)
    run(product(40, depth, 72, right="across"), "tf32")


@pytest.mark.slow
def test_exchanged_factors_of_every_shape(monkeypatch):
    run(product(70, 32 * 24, 72, right="across", tail=True), "tf32")
    run(product(33, 96, 67, right="across", batch=(2,)), "tf32", expected="block")
    for tile in [(128, 128, 2), (64, 64, 1)]:
        monkeypatch.setattr(gpu_warpgroup, "_TILES", (tile,))
        monkeypatch.setattr(gpu_warpgroup, "_MOST_SPLITS", 1)
        rows, columns, _ = tile
        run(product(columns + 40, 32 * 5 + 4, rows + 20, right="across", tail=True), "tf32")


CONVOLUTIONS = {
    "3x3": {"channels": 32, "outputs": 40, "size": 9, "window": 3},
    "3x3 of float16": {
        "channels": 64, "outputs": 24, "size": 8, "window": 3, "dtype": DType.F16
    },
    "stride": {"channels": 32, "outputs": 24, "size": 12, "window": 3, "stride": 2},
    "stride over an odd size": {
        "channels": 32, "outputs": 24, "size": 13, "window": 3, "stride": 2
    },
    "dilation": {"channels": 16, "outputs": 24, "size": 9, "window": 3, "dilation": 2},
    "groups": {"channels": 64, "outputs": 48, "size": 7, "window": 3, "groups": 2},
    "one by one": {"channels": 32, "outputs": 40, "size": 7, "window": 1},
    "many images": {"channels": 32, "outputs": 16, "size": 3, "window": 3, "images": 19},
}
FIRST = ("3x3 of float16", "stride")


@pytest.mark.parametrize(
    "name", [n if n in FIRST else pytest.param(n, marks=pytest.mark.slow) for n in CONVOLUTIONS]
)
def test_convolutions(name):
    sizes = CONVOLUTIONS[name]
    program = run(convolution(**sizes), "f16" if "dtype" in sizes else "tf32", expected="")
    assert any(kernel.maps for kernel in program.kernels())
    stored = name in ("groups", "stride over an odd size")
    assert (len(program.kernels()) > 1) == stored


@pytest.mark.slow
def test_a_border_is_stored_for_who_cannot_do_without():
    net = Net()
    x = net.b.apply(ops.Pad((0, 1, 1, 0), (0, 1, 1, 0), 0.0), net.x(1, 8, 8, 32))
    op = ops.Conv((1, 1), (0, 0), (0, 0), (1, 1), 1, channels_last=True)
    net.out(net.b.apply(op, x, net.c(24, 32, 3, 3)))
    alone = net.b.finish("net", net.outputs)
    assert len(run(alone, "tf32").kernels()) == 1
    net.out(net.b.apply(op, x, net.c(8, 32, 3, 3)))
    few_channels = net.b.finish("net", net.outputs)
    assert len(run(few_channels, "tf32", expected="").kernels()) > 2
    net.outputs.pop()
    net.out(net.b.unary("abs", x))
    other_reader = net.b.finish("net", net.outputs)
    assert len(run(other_reader, "tf32", expected="").kernels()) > 2


@pytest.mark.slow
def test_long_sums_of_few_results_are_split():
    graph = product(40, 64 * 24, 40, DType.F16, tail=True)
    program = run(graph, "f16")
    first, second = program.calls
    assert "split" in first.kernel.recipe and launch_of(first.kernel).grid[1] > 1
    assert "_join" in second.kernel.name


def test_results_of_16_bits_go_from_product_to_product():
    net = Net()
    x = factor(net, 64, 64, dtype=DType.F16)
    y = net.b.unary("abs", net.b.apply(ops.Dot(), x, net.c(64, 64)))
    z = net.b.apply(ops.Dot(), y, net.c(64, 64))
    program = run(net.graph(net.b.cast(z, DType.F16)), "f16")
    assert [len(kernel.maps) for kernel in program.kernels()] == [2, 2]


@pytest.mark.slow
def test_inputs_of_float32_are_converted(conversions):
    assert len(run(product(70, 72, 40, tail=True), "f16").calls) == 2
    assert len(run(product(70, 72, 64, right="across"), "f16").calls) == 3
    assert len(run(product(70, 72, 24, right="across", batch=(2,)), "f16").calls) == 4
    run(convolution(16, 32, 9, 3), "f16")


def test_right_hand_sides_are_copied_where_that_pays(conversions):
    copy, _ = run(product(40, 36, 40, right="across"), "tf32").calls
    assert "operand" in copy.kernel.name
    run(product(40, 36, 17, right="across", batch=(2,)), "tf32")


def test_conversions_of_little_work_do_not_pay():
    run(product(70, 72, 40), "f16", expected="block")


def test_what_is_left_to_others():
    few_rows, odd_depth = product(8, 64, 64, DType.F16), product(64, 61, 64, DType.F16)
    for graph in (few_rows, odd_depth, convolution(3, 32, 12, 3, dtype=DType.F16)):
        kernels = lowered(explicit_pad(graph), replace(GPU, precision="f16")).kernels()
        assert not any(kernel.maps for kernel in kernels)


def test_nothing_else_is_touched():
    graph = product(64, 64, 64)
    for target in (replace(GPU, precision="f32"), replace(cuda_target("sm_90"), precision="tf32")):
        assert not any(kernel.maps for kernel in lowered(graph, target).kernels())


@for_all(st.data(), 2, 20)
def test_any_convolution(data):
    draw = data.draw
    groups = draw(st.sampled_from([1, 1, 1, 2]))
    window, dilation = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2]))
    sizes = {
        "channels": groups * draw(st.sampled_from([8, 16, 24, 32, 64])),
        "outputs": groups * draw(st.sampled_from([16, 20, 40])),
        "size": draw(st.integers(dilation * (window - 1) + 3, 9)),
        "window": window,
        "stride": draw(st.sampled_from([1, 1, 2, 3])),
        "dilation": dilation,
        "groups": groups,
        "images": draw(st.integers(1, 5)),
    }
    half = draw(st.booleans())
    graph = convolution(**sizes, dtype=DType.F16 if half else DType.F32)
    run(graph, "f16" if half else "tf32", expected="")


@for_all(st.data(), 2, 20)
def test_any_product(data):
    draw = data.draw
    half = draw(st.booleans())
    right = draw(st.sampled_from(["weights", "across", "along"]))
    m, n = draw(st.integers(30, 150)), draw(st.integers(14, 140))
    batch = draw(st.sampled_from([(), (2,), (2, 2)]))
    dtype = DType.F16 if half else DType.F32
    graph = product(m, draw(st.integers(1, 12)) * 8, n, dtype, right, batch, draw(st.booleans()))
    run(graph, "f16" if half else "tf32", expected="")
