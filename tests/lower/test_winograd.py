"""Winograd convolutions: against direct sums in float64, and the same bytes for every target."""

import contextlib

import numpy as np
import pytest
from graph_runs import (
    BASE,
    NEON,
    WIDE,
    Net,
    assert_same_bytes,
    check,
    for_all,
    inputs_of,
    lowered,
    runs_here,
)
from handmade import compile_program
from hypothesis import strategies as st

from aotc.graph import ops
from aotc.graph.types import DType
from aotc.loop.eval import run_program
from aotc.lower import winograd
from aotc.schedule.winograd import LARGE, SMALL

CONV = ops.Conv((1, 1), (0, 0), (0, 0), (1, 1), 1, True)
#: Largest error allowed, relative to the largest result.
BOUND = {SMALL: 3e-6, LARGE: 6e-6}


@contextlib.contextmanager
def forced(tile, height=None):
    """Every eligible convolution uses ``tile``, and strips of at most ``height`` tile rows."""
    chosen = winograd.winograd_tile, winograd.strip_rows

    def rows(total, *_):
        return max(n for n in range(1, total + 1) if total % n == 0 and n <= (height or total))

    winograd.winograd_tile, winograd.strip_rows = (lambda *_: tile), rows
    try:
        yield
    finally:
        winograd.winograd_tile, winograd.strip_rows = chosen


def is_winograd_call(call):
    return "winograd" in call.kernel.recipe


def is_winograd(program):
    return any(map(is_winograd_call, program.calls))


def conv_net(shape, epilogue="none", op=CONV, dtype=DType.F32, seed=0):
    """A convolution [N, H + 2, W + 2, I] -> [N, H, W, O] and what ``epilogue`` makes of it."""
    batch, rows, columns, inputs, outputs = shape
    net = Net(seed)
    x = net.x(batch, rows + 2, columns + 2, inputs, dtype=dtype)
    y = net.b.apply(op, x, net.c(outputs, inputs // op.groups, 3, 3, dtype=dtype))
    return net.graph(EPILOGUES[epilogue](net, y))


def bias_residual_relu(net, y):
    y = net.b.binary("add", net.b.binary("add", y, net.c(y.shape[-1])), net.x(*y.shape))
    return net.b.binary("max", y, net.b.constant(0, DType.F32))


def silu(net, y):
    return net.b.binary("mul", y, net.b.unary("sigmoid", y))


def narrow(net, y):
    return net.b.cast(y, DType.F16)


EPILOGUES = {
    "none": lambda net, y: y,
    "residual": bias_residual_relu,
    "silu": silu,
    "narrow": narrow,
}


def direct(x, weights):
    """The convolution as nine products, in float64."""
    x, weights = x.astype(np.float64), weights.astype(np.float64)
    _, height, width, _ = x.shape
    return sum(
        x[:, i : height - 2 + i, j : width - 2 + j] @ weights[:, :, i, j].T
        for i in range(3)
        for j in range(3)
    )


@pytest.mark.slow
@pytest.mark.parametrize("tile", [SMALL, LARGE])
@pytest.mark.parametrize("shape", [(1, 12, 12, 64, 32), (1, 7, 9, 200, 24), (2, 5, 6, 16, 19)])
def test_the_error_is_bounded(tile, shape):
    graph = conv_net(shape)
    (weights,) = (node.data for node in graph.nodes() if node.data is not None)
    batch, rows, columns, inputs, _ = shape
    x = np.random.default_rng(1).standard_normal((batch, rows + 2, columns + 2, inputs))
    inputs = {graph.inputs[0].op.name: x.astype(np.float32)}
    wanted = direct(*inputs.values(), weights)
    with forced(tile):
        program = lowered(graph)
    assert is_winograd(program)
    run = compile_program(program).run_dict if runs_here(BASE) else None
    found = run(inputs) if run else run_program(program, inputs)
    error = np.abs(found["y0"] - wanted).max()
    assert error <= BOUND[tile] * np.abs(wanted).max()


@pytest.mark.slow
@pytest.mark.parametrize("tile", [SMALL, LARGE])
@pytest.mark.parametrize("epilogue", ["residual", "silu"])
def test_epilogues_and_edges_give_the_same_bytes_everywhere(tile, epilogue):
    with forced(tile):
        program = check(
            conv_net((1, 6, 7, 20, 18), epilogue), passes=False, targets=(BASE, WIDE, NEON)
        )
    assert is_winograd(program)


SHAPES = st.tuples(
    st.integers(1, 2), st.integers(1, 11), st.integers(1, 11), st.integers(1, 9), st.integers(1, 9)
)


@for_all(st.tuples(st.sampled_from([SMALL, LARGE]), SHAPES, st.integers(1, 3)), quick=3, slow=60)
def test_any_shape_in_strips_of_any_height(drawn):
    tile, shape, height = drawn
    with forced(tile, height):
        program = check(conv_net(shape, "residual"), passes=False)
    assert is_winograd(program)


@pytest.mark.slow
@pytest.mark.skipif(not runs_here(BASE), reason="compares machine code")
@pytest.mark.parametrize("tile", [SMALL, LARGE])
def test_strips_do_not_change_a_byte(tile):
    graph = conv_net((2, 18, 8, 16, 16), "residual")
    x = inputs_of(graph)
    found = []
    for height in (1, 2, None):
        with forced(tile, height):
            found.append(compile_program(lowered(graph)).run_dict(x))
    assert_same_bytes(found[0], found[2])
    assert_same_bytes(found[1], found[2])


def test_the_result_may_take_over_the_residual():
    net = Net()
    x, rest = net.x(1, 10, 10, 16), net.b.unary("neg", net.x(1, 8, 8, 16))
    y = net.b.binary("add", net.b.apply(CONV, x, net.c(16, 16, 3, 3)), rest)
    graph = net.graph(net.b.reduce("max", y, (1, 2), False))
    with forced(LARGE):
        program = lowered(graph)
    (call,) = [call for call in program.calls if call.in_place and is_winograd_call(call)]
    ((written, read),) = call.in_place
    assert call.args[written].storage.size_bytes == call.args[read].storage.size_bytes


@pytest.mark.parametrize(
    ("op", "dtype", "epilogue"),
    [
        (ops.Conv((2, 1), (0, 0), (0, 0), (1, 1), 1, True), DType.F32, "none"),
        (ops.Conv((1, 1), (0, 0), (0, 0), (1, 2), 1, True), DType.F32, "none"),
        (ops.Conv((1, 1), (0, 0), (0, 0), (1, 1), 2, True), DType.F32, "none"),
        (CONV, DType.F16, "none"),
        (CONV, DType.F32, "narrow"),
    ],
)
def test_everything_else_is_convolved_directly(op, dtype, epilogue):
    with forced(LARGE):
        assert not is_winograd(lowered(conv_net((1, 8, 8, 16, 16), epilogue, op, dtype)))


def test_computed_weights_are_convolved_directly():
    net = Net()
    with forced(LARGE):
        y = net.b.apply(CONV, net.x(1, 8, 8, 16), net.x(16, 16, 3, 3))
        assert not is_winograd(lowered(net.graph(y)))


@pytest.mark.parametrize("tile", [SMALL, LARGE])
def test_filters_of_a_constant_image(tile):
    """With a single 1 as the filter's middle, the transformed filter is the outer product of the
    middle column of G."""
    weights = np.zeros((1, 1, 3, 3), np.float32)
    weights[0, 0, 1, 1] = 1
    middle = winograd.filter_matrix(tile)[:, 1]
    wanted = np.outer(middle, middle).astype(np.float32)
    found = winograd.transform_filters(weights, tile)
    np.testing.assert_array_equal(found.reshape(wanted.shape), wanted)
