"""Products of bytes: reference, loop IR and machine code, with every dot-product instruction."""

import numpy as np
import pytest
from graph_runs import BASE, NEON, WIDE, Net, check, for_all, lowered
from hypothesis import strategies as st

from aotc.graph import ops
from aotc.graph.types import DType
from aotc.loop.text import print_program
from aotc.target import resolve_target

ICE = resolve_target("x86_64", "icelake-server")
M4 = resolve_target("cortex-m4")
WASM = resolve_target("wasm32")
SDOT, VMULL = resolve_target("aarch64", "neoverse-n1"), resolve_target("arm")
M55 = resolve_target("cortex-m55")
RVV = resolve_target("riscv64")
TARGETS = (BASE, WIDE, ICE, NEON, SDOT, VMULL, M4, WASM, M55, RVV)


def weights(net, *shape):
    values = np.random.default_rng(net._next()).integers(-128, 128, shape)
    return net.b.constant(values.astype(np.int32))


def finished(net, draw, sums):
    """What follows the sums of a quantised layer."""
    b = net.b
    if draw(st.booleans()):
        sums = b.binary("add", sums, net.c(*sums.shape[-1:], dtype=DType.I32))
    if not draw(st.booleans()):
        return sums
    x = b.binary("mul", b.cast(sums, DType.F32), b.constant(np.float32(0.003)))
    zero = draw(st.sampled_from([0.0, 128.0]))
    value = b.unary("round", x)
    for fn, number in (("add", zero), ("max", 0.0), ("min", 255.0)):
        value = b.binary(fn, value, b.scalar_like(number, value))
    return b.cast(value, DType.U8)


def codes(net, *shape):
    return net.b.cast(net.x(*shape, dtype=DType.U8), DType.I32)


def inputs(graph, seed=5):
    random = np.random.default_rng(seed)
    return {
        x.op.name: random.integers(0, 256, x.shape).astype(np.uint8).view(x.type.dtype.numpy)
        for x in graph.inputs
    }


@st.composite
def matrices(draw):
    net = Net()
    rows, depth, columns = (draw(st.integers(1, 20)) for _ in range(3))
    sums = net.b.apply(ops.Dot(), codes(net, rows, depth), weights(net, depth, columns))
    return net.graph(finished(net, draw, sums))


@st.composite
def products_of_two(draw):
    """Of bytes that are both known at run time only, with the sums that zero points take."""
    net = Net()
    rows, depth, columns = (draw(st.integers(1, most)) for most in (5, 13, 20))
    batch = draw(st.sampled_from([(), (2,), (3, 2)]))
    left = codes(net, *batch, rows, depth)
    turned = draw(st.booleans())
    shape = (columns, depth) if turned else (depth, columns)
    right = net.b.cast(net.x(*batch, *shape, dtype=DType.I8), DType.I32)
    if turned:
        right = net.b.transpose(right, (*range(len(batch)), len(batch) + 1, len(batch)))
    sums = net.b.apply(ops.Dot(), left, right)
    axis = len(batch)
    if draw(st.booleans()):
        total = net.b.apply(ops.Reduce("sum", (axis,)), right)
        sums = net.b.binary("add", sums, net.b.reshape(total, (*batch, 1, columns)))
    if draw(st.booleans()):
        total = net.b.apply(ops.Reduce("sum", (axis + 1,)), left)
        sums = net.b.binary("add", sums, net.b.reshape(total, (*batch, rows, 1)))
    return net.graph(finished(net, draw, sums))


@st.composite
def convolutions(draw):
    net = Net()
    outputs, inner = draw(st.integers(1, 20)), draw(st.integers(1, 9))
    groups = draw(st.sampled_from([1, 1, 2]))
    each = draw(st.booleans())  # one filter for each channel
    channels = outputs if each else inner * groups
    shape = (outputs, 1 if each else inner) if each else (outputs * groups, inner)
    window = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    stride, dilation = (tuple(draw(st.integers(1, 2)) for _ in range(2)) for _ in range(2))
    reach = ((w - 1) * d + 1 for w, d in zip(window, dilation, strict=True))
    size = [least + draw(st.integers(0, 4)) for least in reach]
    none = (0, 0)
    op = ops.Conv(stride, none, none, dilation, outputs if each else groups, True)
    data = codes(net, draw(st.integers(1, 2)), *size, channels)
    sums = net.b.apply(op, data, weights(net, *shape, *window))
    return net.graph(finished(net, draw, sums))


@for_all(matrices(), quick=1, slow=80)
def test_matrices_of_bytes(graph):
    check(graph, targets=TARGETS, inputs=inputs(graph))


@for_all(convolutions(), quick=1, slow=80)
def test_convolutions_of_bytes(graph):
    check(graph, targets=TARGETS, inputs=inputs(graph))


@for_all(products_of_two(), quick=1, slow=8)
def test_products_of_two_tensors_of_bytes(graph):
    check(graph, targets=TARGETS, inputs=inputs(graph))


@pytest.mark.parametrize("turned", [False, True])
def test_bytes_known_at_run_time_are_packed_in_groups(turned):
    net = Net()
    right = net.b.cast(net.x(*((24, 8) if turned else (8, 24)), dtype=DType.I8), DType.I32)
    right = net.b.transpose(right, (1, 0)) if turned else right
    text = print_program(lowered(net.graph(net.b.apply(ops.Dot(), codes(net, 3, 8), right)), ICE))
    assert "dot4(" in text and "panels" in text


def grouped(target, depth):
    net = Net()
    x = net.x(3, depth, dtype=DType.I8 if target.signed_codes else DType.U8)
    sums = net.b.apply(ops.Dot(), net.b.cast(x, DType.I32), weights(net, depth, 16))
    return print_program(lowered(net.graph(sums), target))


@pytest.mark.parametrize("target", [BASE, WIDE, ICE, SDOT, M4, WASM], ids=lambda t: t.cpu)
def test_bytes_are_multiplied_in_groups_of_four(target):
    product = "short_products(" if target is M4 else "dot4("
    assert product in grouped(target, 4) and product in grouped(target, 7)
    assert product not in grouped(target, 3)


def test_with_lanes_along_the_depth_bytes_are_multiplied_in_groups_of_sixteen():
    assert "dot16(" in grouped(M55, 16) and "dot7(" in grouped(M55, 7)
    assert "dot3(" not in grouped(M55, 3)  # lanes along the channels are better


@pytest.mark.parametrize("other, found", [(-128, False), (-127, True)])
def test_pairs_of_products_stay_within_sixteen_bits(other, found):
    net = Net()
    w = np.full((8, 16), -127, np.int32)
    w[4:6, 9] = -128, other
    x = net.b.cast(net.x(3, 8, dtype=DType.I8), DType.I32)
    graph = net.graph(net.b.apply(ops.Dot(), x, net.b.constant(w)))
    assert ("dot4(" in print_program(lowered(graph, NEON))) is found
    assert ("i32((i16(" in print_program(lowered(graph, RVV))) is found


def test_with_sixteen_lanes_along_the_channels_two_products_are_summed_in_sixteen_bits():
    net = Net()
    w = net.b.constant(np.full((7, 16), -127, np.int32))
    x = net.b.cast(net.x(3, 7, dtype=DType.I8), DType.I32)
    graph = net.graph(net.b.apply(ops.Dot(), x, w))
    text = print_program(lowered(graph, RVV))
    assert "vector(16)" in text and "i32((i16(" in text
    data = np.full((3, 7), -128, np.int8)
    check(graph, targets=(BASE, RVV), inputs={x.op.name: data for x in graph.inputs})


def test_a_depthwise_convolution_of_bytes_reads_sixteen_of_a_window():
    net = Net()
    x = net.b.cast(net.x(1, 5, 6, 8, dtype=DType.I8), DType.I32)
    op = ops.Conv((1, 1), (0, 0), (0, 0), (1, 1), 8, True)
    text = print_program(lowered(net.graph(net.b.apply(op, x, weights(net, 8, 1, 3, 3))), M55))
    assert "arena columns" in text and text.count("dot16(") == 8


def test_without_instructions_for_it_bytes_are_multiplied_one_by_one():
    assert "dot4(" not in grouped(resolve_target("cortex-m0"), 8)


def test_weights_beyond_a_byte_are_multiplied_as_they_are():
    net = Net()
    w = net.b.constant(np.full((8, 16), 300, np.int32))
    graph = net.graph(net.b.apply(ops.Dot(), codes(net, 3, 8), w))
    assert "dot4(" not in print_program(lowered(graph, ICE))
    check(graph, targets=(BASE, ICE), inputs=inputs(graph))


def test_a_widened_tensor_that_something_else_reads_is_made():
    net = Net()
    wide = codes(net, 3, 8)
    sums = net.b.apply(ops.Dot(), wide, weights(net, 8, 4))
    graph = net.graph(sums, net.b.unary("neg", wide))
    check(graph, targets=(BASE, ICE), inputs=inputs(graph))
