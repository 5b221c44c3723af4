"""Stripes: which rows need which, what a stripe of a graph looks like, and that nothing changes."""

import numpy as np
import pytest
from graph_runs import Net, assert_same_bytes, for_all, inputs_of, lowered
from hypothesis import strategies as st
from pass_graphs import assert_same_values, shown
from wide_nets import wide_net

from aotc.graph import ops
from aotc.graph.types import DType
from aotc.loop.eval import run_program
from aotc.passes.stripes import (
    compute_by_stripes,
    find_region,
    multiply_adds,
    reaches,
    split_rows,
)


def plain_conv(net, x, outputs, window, strides=(1, 1), groups=1):
    op = ops.Conv(strides, (0, 0), (0, 0), (1, 1), groups, True)
    return net.b.apply(op, x, net.c(outputs, x.shape[-1] // groups, *window))


def none_is_fixed(node):
    return False


def regions(graph):
    """All parts of ``graph`` that have a convolution or window and can be cut."""
    for node in graph.nodes():
        for axis in range(node.type.rank):
            if node.inputs and node.shape[axis] > 1:
                region = find_region(graph, node, axis, none_is_fixed)
                if region is not None and any(map(multiply_adds, region.cuts)):
                    yield region


@for_all(
    st.tuples(st.integers(0, 10_000), st.integers(2, 5), st.randoms(use_true_random=False)),
    quick=4,
    slow=150,
)
def test_stripes_give_the_same_bytes(case):
    seed, count, chance = case
    graph = wide_net(seed, size=10, most_layers=5)
    found = list(regions(graph))
    if not found:
        return
    region = chance.choice(found)
    stripes = split_rows(region.rows, min(count, region.rows))
    if not all(len(rows) for one in stripes for rows in region.ranges(one).values()):
        return
    striped, joined = compute_by_stripes(graph, region, stripes)
    assert joined.type == region.result.type
    assert_same_values(graph, striped)
    values = inputs_of(graph)
    assert_same_bytes(
        run_program(lowered(striped), values), run_program(lowered(graph), values)
    )


def test_a_stripe_reads_the_rows_of_its_windows_and_pads_its_own_border():
    net = Net()
    x = net.x(1, 8, 4, 2)
    pad = net.b.apply(ops.Pad((0, 1, 1, 0), (0, 1, 1, 0), 0.0), x)
    y = net.b.unary("neg", plain_conv(net, pad, 3, (3, 3)))
    graph = net.graph(net.b.unary("exp", y))
    region = find_region(graph, y, 1, none_is_fixed)
    after, joined = compute_by_stripes(graph, region, split_rows(8, 3))
    assert after.outputs[0][1].inputs == (joined,)
    rows = [(0, 4, 1, 0), (2, 4, 0, 0), (4, 4, 0, 1)]
    stripes = [
        f"neg(conv(pad[0, {low}, 1, 0][0, {high}, 1, 0](slice[0, {start}, 0, 0][1, {count}, 4, 2]"
        "[1, 1, 1, 1](x1), 0), const[3, 2, 3, 3]))"
        for start, count, low, high in rows
    ]
    assert shown(after) == [f"exp(concat({', '.join(stripes)}))"]


def test_rows_of_a_chain_of_windows():
    net = Net()
    x = net.x(1, 21, 4, 1)
    first = plain_conv(net, x, 2, (3, 1), strides=(2, 1))
    second = plain_conv(net, first, 2, (3, 1))
    graph = net.graph(second)
    region = find_region(graph, second, 1, none_is_fixed)
    assert region.rows == 8
    assert region.ranges(range(2, 4)) == {second: range(2, 4), first: range(2, 6)}
    whole = region.work([region.ranges(range(8))])
    assert whole == multiply_adds(first) + multiply_adds(second) == 10 * 4 * 2 * 3 + 8 * 4 * 2 * 6
    halves = [region.ranges(rows) for rows in split_rows(8, 2)]
    assert region.work(halves) - whole == 2 * 4 * 2 * 3  # two rows of the first, twice


def test_what_is_also_read_elsewhere_stays_whole():
    net = Net()
    x = net.x(1, 8, 4, 2)
    first = plain_conv(net, x, 3, (3, 3))
    second = plain_conv(net, first, 3, (3, 1))
    graph = net.graph(second, net.b.reduce("max", first, (1, 2), False))
    assert list(find_region(graph, second, 1, none_is_fixed).cuts) == [second]
    assert find_region(graph, second, 1, lambda node: node is second) is None


def test_images_of_a_batch_are_stripes_that_share_nothing():
    net = Net()
    y = plain_conv(net, net.x(4, 8, 4, 2), 3, (3, 3))
    region = find_region(net.graph(y), y, 0, none_is_fixed)
    halves = [region.ranges(rows) for rows in split_rows(4, 2)]
    assert region.work(halves) == multiply_adds(y)


def test_channels_and_what_mixes_rows_cannot_be_cut():
    net = Net()
    x = net.x(1, 6, 4, 2)
    y = plain_conv(net, x, 3, (3, 3))
    assert reaches(y, 3) is None
    assert reaches(net.b.reshape(x, (1, 24, 2)), 1) is None
    assert reaches(net.b.apply(ops.Concat(1), x, x), 1) is None
    assert reaches(net.b.reduce("sum", x, (2,), False), 1) is None
    backwards = ops.Slice((0, 5, 0, 0), (1, 6, 4, 2), (1, -1, 1, 1))
    assert reaches(net.b.apply(backwards, x), 1) is None


def test_operands_of_one_row_are_read_as_a_whole():
    net = Net()
    x, scale = net.x(1, 6, 4, 2), net.x(1, 1, 4, 2)
    y = net.b.binary("mul", plain_conv(net, x, 2, (1, 1)), scale)
    graph = net.graph(net.b.cast(y, DType.F64))
    region = find_region(graph, graph.outputs[0][1], 1, none_is_fixed)
    after, _ = compute_by_stripes(graph, region, split_rows(6, 2))
    assert_same_values(graph, after)
    assert shown(after)[0].count("broadcast[1, 3, 4, 2](x2)") == 2


@pytest.mark.parametrize(("rows", "count"), [(7, 3), (8, 3), (6, 6), (5, 1), (11, 4)])
def test_splits_cover_all_rows_with_the_higher_stripes_at_the_ends(rows, count):
    stripes = split_rows(rows, count)
    assert [row for stripe in stripes for row in stripe] == list(range(rows))
    heights = np.array([len(stripe) for stripe in stripes])
    assert len(heights) == count and heights.max() - heights.min() <= 1
    assert heights[0] == heights.max()
