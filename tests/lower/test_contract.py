"""Products and convolutions of every form: reference, loop IR and machine code, any tiling."""

import itertools

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
    forced_recipe,
    inputs_of,
    lowered,
    runs_here,
)
from handmade import compile_program
from hypothesis import strategies as st

from aotc.graph import ops
from aotc.graph.types import MACHINE_TYPES, DType
from aotc.loop.eval import run_program
from aotc.schedule.cpu import choose_contract
from aotc.schedule.recipe import ContractRecipe, Segment, join_panels, split_evenly

NUMBERS = [dtype for dtype in MACHINE_TYPES if dtype is not DType.BOOL]


def epilogue(draw, net, y):
    """Pointwise operators after a product: bias, activation, residual, narrower result."""
    b = net.b
    steps = st.sampled_from(["bias", "relu", "swish", "rest", "pick"])
    for step in draw(st.lists(steps, max_size=3)):
        if step == "bias":
            y = b.binary("add", y, net.c(*y.shape[-1:], dtype=y.type.dtype))
        elif step == "relu":
            y = b.binary("max", y, b.constant(0, y.type.dtype))
        elif step == "swish" and y.type.dtype.is_float:
            y = b.binary("mul", y, b.unary("sigmoid", y))
        elif step == "rest":
            y = b.binary("sub", y, b.unary("neg", net.x(*y.shape, dtype=y.type.dtype)))
        elif step == "pick":
            y = b.select(net.x(*y.shape, dtype=DType.BOOL), y, net.x(*y.shape, dtype=y.type.dtype))
    return y


def operand(draw, net, shape, dtype):
    """A matrix, or a stack of them, as an input, a constant or a result, under a drawn view."""
    *batch, rows, columns = shape
    make = draw(st.sampled_from([net.x, net.c]))
    view = draw(st.sampled_from(["plain", "swapped", "stretched", "sliced", "computed"]))
    if view == "swapped":
        perm = (*range(len(batch)), len(batch) + 1, len(batch))
        return net.b.transpose(make(*batch, columns, rows, dtype=dtype), perm)
    if view == "stretched":
        return net.b.broadcast(make(*(1,) * len(batch), rows, columns, dtype=dtype), shape)
    if view == "sliced":
        whole = make(*batch, rows + 1, 2 * columns, dtype=dtype)
        last = 2 * columns - 1
        starts = (0,) * len(batch) + (1, last)
        steps = (1,) * len(batch) + (1, -2)
        return net.b.apply(ops.Slice(starts, tuple(shape), steps), whole)
    plain = make(*shape, dtype=dtype)
    return net.b.unary("abs", plain) if view == "computed" else plain


@for_all(st.data(), quick=4, slow=200)
def test_products(data):
    draw, net = data.draw, Net(data.draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from([DType.F32, DType.F32, DType.F64, DType.I32]))
    batch = draw(st.lists(st.integers(1, 3), max_size=2))
    rows, inner, columns = (draw(st.integers(1, 20)) for _ in range(3))
    lhs = operand(draw, net, (*batch, rows, inner), dtype)
    rhs = operand(draw, net, (*batch, inner, columns), dtype)
    y = epilogue(draw, net, net.b.apply(ops.Dot(), lhs, rhs))
    check(net.graph(y), passes=draw(st.booleans()))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", NUMBERS)
def test_products_of_every_type(dtype):
    net = Net()
    net.out(net.b.apply(ops.Dot(), net.x(3, 5, dtype=dtype), net.c(5, 9, dtype=dtype)))
    net.out(net.b.apply(ops.Dot(), net.x(2, 3, 4, dtype=dtype), net.x(2, 4, 5, dtype=dtype)))
    check(net.graph())


@for_all(st.data(), quick=4, slow=200)
def test_convolutions(data):
    draw, net = data.draw, Net(data.draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from([DType.F32, DType.F32, DType.F32, DType.F64, DType.I16]))
    spatial = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    inputs, outputs = (draw(st.integers(1, 40 // groups // spatial)) for _ in range(2))
    window = tuple(draw(st.integers(1, 3)) for _ in range(spatial))
    strides, dilation = (tuple(draw(st.integers(1, 2)) for _ in range(spatial)) for _ in range(2))
    low, high = (tuple(draw(st.integers(0, 2)) for _ in range(spatial)) for _ in range(2))
    extents = tuple(draw(st.integers(max((k - 1) * d + 1 - p - q, 1), 7))
                    for k, d, p, q in zip(window, dilation, low, high, strict=True))  # fmt: skip
    last = draw(st.booleans())
    channels = groups * inputs
    batch = draw(st.integers(1, 2))
    shape = (batch, *extents, channels) if last else (batch, channels, *extents)
    op = ops.Conv(strides, low, high, dilation, groups, last)
    make = draw(st.sampled_from([net.c, net.c, net.x]))
    weights = make(groups * outputs, inputs, *window, dtype=dtype)
    data_node = net.x(*shape, dtype=dtype)
    if draw(st.booleans()):
        data_node = net.b.unary("abs", data_node)
    y = epilogue(draw, net, net.b.apply(op, data_node, weights))
    check(net.graph(y), passes=draw(st.booleans()))


@for_all(st.data(), quick=4, slow=200)
def test_depthwise_convolutions(data):
    draw, net = data.draw, Net(data.draw(st.integers(0, 99)))
    spatial, multiplier = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2, 3]))
    channels = draw(st.integers(1, 40 // spatial))
    window = tuple(draw(st.integers(1, 3)) for _ in range(spatial))
    strides, dilation = (tuple(draw(st.integers(1, 2)) for _ in range(spatial)) for _ in range(2))
    pads = tuple(draw(st.integers(0, 1)) for _ in range(spatial))
    extents = tuple(draw(st.integers(5, 7)) for _ in range(spatial))
    last = draw(st.booleans())
    shape = (1, *extents, channels) if last else (1, channels, *extents)
    op = ops.Conv(strides, pads, pads, dilation, channels, last)
    make = draw(st.sampled_from([net.c, net.c, net.x]))
    y = net.b.apply(op, net.x(*shape), make(channels * multiplier, 1, *window))
    check(net.graph(epilogue(draw, net, y)), passes=draw(st.booleans()))


def mixed_layer():
    """A product and two convolutions with every kind of tail: odd rows, columns and channels."""
    net = Net(3)
    b = net.b
    y = b.apply(ops.Dot(), net.x(5, 7), net.c(7, 21))
    y = b.binary("add", y, net.c(21))
    net.out(b.binary("mul", y, b.unary("sigmoid", y)))
    op = ops.Conv((1, 1), (0, 0), (0, 0), (1, 1), 1, True)
    y = b.apply(op, net.x(1, 5, 6, 3), net.c(11, 3, 3, 2))
    net.out(b.binary("max", b.binary("add", y, net.x(1, 3, 5, 11)), b.constant(0.0, DType.F32)))
    op = ops.Conv((2, 1), (0, 0), (0, 0), (1, 2), 2, False)
    net.out(b.apply(op, net.x(1, 6, 5, 7), net.x(6, 3, 3, 2)))
    net.out(b.apply(ops.Dot(), net.x(2, 5, 3), net.x(2, 3, 9)))
    return net.graph()


def panels_of(channels, lanes, width):
    """Tiles of ``width`` vectors; the one that ends in a partial vector stands alone."""
    segments = list(split_evenly(-(-channels // lanes), width))
    last = segments.pop()
    if last.count > 1:
        segments.append(Segment(last.start, last.count - 1, last.size))
    return (*segments, Segment(last.stop - last.size, 1, last.size))


def tiling(rows, columns, width, lanes, unroll, outer, stored=0):
    """A chooser of one fixed tiling for every contraction; the weights lie in panels of ``stored``
    vectors if that is not 0."""

    def choose(sizes, target):
        length = min(lanes, target.vector_bits // 32)
        panels, packed = panels_of(sizes.channels, length, width), ()
        if stored:
            packed = panels_of(sizes.channels, length, stored)
            panels = join_panels(packed, width, True)
        return ContractRecipe(
            lanes=length,
            rows=split_evenly(sizes.rows, rows),
            columns=split_evenly(sizes.columns, columns),
            panels=panels,
            depth_unroll=unroll,
            panel_outer=outer,
            packed=packed,
        )

    return choose


TILINGS = [
    (1, 1, 1, 4, 1, False),
    (1, 6, 2, 8, 4, False),
    (2, 3, 1, 16, 8, True),
    (3, 2, 2, 4, 3, True),
    (1, 5, 3, 1, 2, False),
    (1, 2, 2, 2, 16, True),
    (1, 3, 3, 4, 2, False, 1),
    (2, 1, 4, 2, 1, True, 2),
]


@pytest.mark.slow
def test_every_tiling_gives_the_same_bytes():
    graph = mixed_layer()
    inputs = inputs_of(graph)
    wanted = run_program(lowered(graph), inputs)
    for options, target in zip(TILINGS, itertools.cycle((BASE, WIDE, WIDE)), strict=False):
        with forced_recipe(tiling(*options)):
            program = lowered(graph, target)
        assert_same_bytes(run_program(program, inputs), wanted)
        if runs_here(target):
            assert_same_bytes(compile_program(program, target=target).run_dict(inputs), wanted)


@pytest.mark.slow
def test_every_target_gives_the_same_bytes():
    check(mixed_layer(), targets=(BASE, WIDE, NEON))


def test_the_recipe_is_written_on_the_kernel():
    net = Net()
    program = lowered(net.graph(net.b.apply(ops.Dot(), net.x(4, 8), net.c(8, 16))))
    (kernel,) = program.kernels()
    assert kernel.recipe.startswith("contract 1x4x16 depth 8/8 lanes 8 bytes 4 streamed: rows 1x1 ")
    assert kernel.name == "k00_dot_4x16"


def test_constant_weights_are_packed_with_zeros_behind_the_last_channel():
    net = Net()
    weights = net.c(3, 5)
    program = lowered(net.graph(net.b.apply(ops.Dot(), net.x(2, 3), weights)))
    (storage,) = (arg.storage for arg in program.calls[0].args if arg.storage.name == "packed")
    packed = storage.data.reshape(3, -1)
    np.testing.assert_array_equal(packed[:, :5], weights.data)
    assert packed.shape[1] == 8 and not packed[:, 5:].any()


def test_weights_shared_by_a_batch_are_packed_once():
    net = Net()
    b = net.b
    shared = b.broadcast(net.c(4, 8), (3, 4, 8))
    y = b.apply(ops.Dot(), net.x(3, 2, 4), shared)
    program = check(net.graph(y), passes=False)
    (storage,) = (arg.storage for arg in program.calls[0].args if arg.storage.name == "packed")
    assert storage.size_bytes == 4 * 8 * 4


def test_the_choice_of_recipes_is_the_schedulers():
    seen = []

    def spy(sizes, target):
        seen.append((sizes.rows, sizes.columns, sizes.channels, sizes.depth))
        return choose_contract(sizes, target)

    net = Net()
    op = ops.Conv((1, 1), (0, 0), (0, 0), (1, 1), 1, True)
    graph = net.graph(net.b.apply(op, net.x(1, 8, 8, 3), net.c(4, 3, 3, 3)))
    with forced_recipe(spy):
        lowered(graph)
    assert seen == [(6, 6, 4, 27)]
