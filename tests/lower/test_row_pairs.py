"""Depthwise convolutions by pairs of rows: which they are, their results, what stays in registers.
"""

import re
from dataclasses import replace

import numpy as np
import pytest
from graph_runs import Net, check, lowered

from aotc.graph import ops
from aotc.graph.types import DType
from aotc.loop.text import print_program
from aotc.target import resolve_target

M4 = resolve_target("cortex-m4")


def depthwise(window, strides=(1, 1), dilation=(1, 1), size=(9, 17), channels=5, bias=True):
    net = Net()
    random = np.random.default_rng(sum(window))
    data = net.b.cast(net.x(2, *size, channels, dtype=DType.U8), DType.I32)
    filters = random.integers(-128, 128, (channels, 1, *window)).astype(np.int32)
    op = ops.Conv(strides, (0, 0), (0, 0), dilation, channels, True)
    sums = net.b.apply(op, data, net.b.constant(filters))
    if bias:
        addend = net.b.constant(random.integers(-99, 99, channels).astype(np.int32))
        sums = net.b.binary("add", sums, net.b.broadcast(addend, sums.shape))
    scales = net.b.constant(random.uniform(0.001, 0.01, channels).astype(np.float32))
    x = net.b.binary("mul", net.b.cast(sums, DType.F32), net.b.broadcast(scales, sums.shape))
    return net.graph(x)


def text_of(graph, target=M4):
    return print_program(lowered(graph, target))


@pytest.mark.slow
@pytest.mark.parametrize(
    "window, strides, dilation",
    [
        ((3, 3), (1, 1), (1, 1)),
        ((3, 3), (2, 2), (1, 1)),
        ((1, 3), (1, 1), (1, 1)),
        ((2, 5), (1, 1), (2, 2)),
        ((4, 1), (3, 1), (1, 1)),
        ((3, 2), (1, 2), (1, 3)),
    ],
)
@pytest.mark.parametrize("bias", [False, True])
def test_results(window, strides, dilation, bias):
    graph = depthwise(window, strides, dilation, bias=bias)
    assert "short_products(" in text_of(graph)
    (x,) = graph.inputs
    random = np.random.default_rng(1)
    inputs = {x.op.name: random.integers(0, 256, x.shape).astype(np.uint8)}
    check(graph, targets=(M4,), inputs=inputs)


def test_others_go_another_way():
    for window, strides in (((1, 1), (1, 1)), ((5, 5), (1, 1)), ((3, 1), (1, 2))):
        assert "short_products(" not in text_of(depthwise(window, strides))


def test_small_code_has_one_window_in_line():
    compact, plain = (text_of(depthwise((3, 3)), replace(M4, compact=c)) for c in (True, False))
    # three columns of a window: of each the pairs, and the sums of the windows that it is in
    assert compact.count("short_products(") < plain.count("short_products(")
    assert "unrolled" not in compact and "for j in 0..8 unrolled" in plain


def test_what_belongs_to_a_channel_is_read_once():
    channel, _, rows = text_of(depthwise((3, 3))).partition("for c in")[2].partition("for y in")
    assert len(re.findall(r"kept[.\d]*\[0\] = in", channel)) == 2  # bias and scale
    assert re.search(r"sums\[0\] = kept[.\d]*\[0\]\n", rows)
