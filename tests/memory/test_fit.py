"""Limits of memory: what fits is left alone, what does not is computed by stripes, to the byte."""

import re

import pytest
from graph_runs import Net, assert_same_bytes, for_all
from hypothesis import strategies as st
from wide_nets import wide_net

import aotc
from aotc.errors import UsageError
from aotc.graph import ops
from aotc.lower.program import lower
from aotc.lower.winograd import convolution_tile
from aotc.memory.fit import fit, least_possible
from aotc.passes.runner import run_passes
from aotc.reference.inputs import make_inputs
from aotc.target import resolve_target

TARGET = resolve_target("x86_64")


def layer(net, x, outputs, strides=(1, 1), groups=1):
    """Pad, convolution with 3x3 filters, bias, relu."""
    pad = net.b.apply(ops.Pad((0, 1, 1, 0), (0, 1, 1, 0), 0.0), x)
    op = ops.Conv(strides, (0, 0), (0, 0), (1, 1), groups, True)
    made = net.b.apply(op, pad, net.c(outputs, x.shape[-1] // groups, 3, 3))
    return net.b.binary("max", net.b.binary("add", made, net.c(outputs)), net.b.constant(
        0.0, x.type.dtype))


def wide_first(outputs=8):
    """Three layers of which the first is widest."""
    net = Net()
    x = layer(net, net.x(1, 32, 32, 3), outputs)
    x = layer(net, x, outputs, strides=(2, 2), groups=outputs)
    return net.graph(net.b.reduce("sum", layer(net, x, outputs, strides=(2, 2)), (1, 2), False))


def outputs_of(model):
    return model.run_dict(make_inputs(model.signature.inputs, 0, {}))


def test_what_fits_is_left_alone():
    graph = wide_first()
    same, fitted = fit(graph, TARGET, 1 << 20)
    assert same is graph and str(fitted) == "fits without stripes"
    assert fitted.arena_bytes == fitted.plain_bytes > 32 * 32 * 8 * 4


@pytest.mark.slow
def test_half_of_the_memory_gives_the_same_bytes():
    graph = wide_first()
    plain = aotc.compile(graph)
    limit = plain.plan.arena_bytes // 2
    model = aotc.compile(graph, ram=limit)
    assert model.plan.arena_bytes <= limit
    stripes, end, extra = re.fullmatch(
        r"(\d+) stripes up to .*(\[[\d, ]+\]): .* bytes instead of .*, ([\d.]+)% more "
        r"multiply-adds\n", model.as_text("stripes")).groups()  # fmt: skip
    assert int(stripes) > 1 and end in ("[1, 16, 16, 8]", "[1, 8, 8, 8]") and float(extra) < 30
    assert_same_bytes(outputs_of(model), outputs_of(plain))


@pytest.mark.slow
def test_the_best_that_was_found_is_in_the_message():
    with pytest.raises(UsageError) as error:
        aotc.compile(wide_first(), ram=2000)
    found = re.search(r"needs (\d+) bytes at least, (\d+) more than the 2000 of --ram; best found: "
                      r"\d+ stripes", str(error.value))  # fmt: skip
    least, missing = map(int, found.groups())
    assert least - missing == 2000
    assert f"--ram {least}" in error.value.remedy
    assert aotc.compile(wide_first(), ram=least).plan.arena_bytes == least


@pytest.mark.slow
def test_what_is_hopeless_is_refused_without_a_search(monkeypatch):
    """Nearly the same figures, of no more programs than the plain one and one for each part: which
    of two candidates of one estimate needs less, only their plans say."""
    graph = run_passes(wide_first())
    lowered = []

    def counted(*args):
        lowered.append(args)
        return lower(*args)

    monkeypatch.setattr("aotc.memory.fit.lower", counted)
    assert least_possible(graph, TARGET) > 2 * 2000
    with pytest.raises(UsageError) as quick:
        fit(graph, TARGET, 2000)
    few = len(lowered)
    assert 2 <= few <= 3
    monkeypatch.setattr("aotc.memory.fit.least_possible", lambda *_: 0.0)
    with pytest.raises(UsageError) as thorough:
        fit(graph, TARGET, 2000)
    least = [
        int(re.search(r"needs (\d+) bytes", str(error.value))[1]) for error in (quick, thorough)
    ]
    assert least[1] <= least[0] <= 1.1 * least[1] and len(lowered) >= 2 * few


@pytest.mark.slow
def test_a_second_part_follows_where_the_first_is_not_enough():
    """Two wide places with a narrow one between them, where all rows meet."""
    net = Net()
    x = layer(net, layer(net, net.x(1, 32, 32, 3), 8), 8, strides=(2, 2))
    pixels = net.b.reshape(x, (1, 256, 8))
    mixed = net.b.apply(ops.Dot(), net.c(1, 256, 256), pixels)
    x = net.b.reshape(mixed, (1, 16, 16, 8))
    x = layer(net, layer(net, x, 24), 8, strides=(2, 2))
    graph = net.graph(net.b.reduce("sum", x, (1, 2), False))
    plain = aotc.compile(graph, opt="size")
    model = aotc.compile(graph, opt="size", ram=28_000)
    assert model.plan.arena_bytes <= 28_000 < plain.plan.arena_bytes
    assert ", then " in model.as_text("stripes")
    assert_same_bytes(outputs_of(model), outputs_of(plain))


def test_nothing_to_cut_is_said():
    net = Net()
    y = net.b.reduce("sum", net.b.apply(ops.Dot(), net.x(4, 64), net.c(64, 64)), (1,), False)
    with pytest.raises(UsageError, match="no part of the model needs less by stripes"):
        aotc.compile(net.graph(net.b.unary("exp", y)), ram=8)


@pytest.mark.slow
def test_transformed_convolutions_stay_whole():
    """Winograd's algorithm computes tiles of rows: cut elsewhere, or chosen for a stripe only, it
    would round in another way."""
    net = Net()
    x = layer(net, net.x(1, 32, 32, 3), 16)
    x = layer(net, layer(net, x, 16), 16, strides=(2, 2), groups=16)
    graph = run_passes(net.graph(net.b.reduce("sum", x, (1, 2), False)))
    plain = aotc.compile(graph)
    striped, fitted = fit(graph, TARGET, int(0.99 * plain.plan.arena_bytes))
    tiles = [[convolution_tile(node, TARGET) for node in g.nodes()] for g in (graph, striped)]
    assert sorted(filter(None, tiles[0])) == sorted(filter(None, tiles[1])) != []
    assert fitted.arena_bytes < fitted.plain_bytes
    assert_same_bytes(outputs_of(aotc.compile(striped)), outputs_of(plain))


@for_all(st.tuples(st.integers(0, 10_000), st.floats(0.3, 0.95)), quick=1, slow=60)
def test_random_networks_fit_or_say_by_how_much_not(case):
    seed, share = case
    graph = wide_net(seed, size=12)
    plain = aotc.compile(graph)
    limit = max(1, int(plain.plan.arena_bytes * share))
    try:
        model = aotc.compile(graph, ram=limit)
    except UsageError as error:
        assert f"more than the {limit} of --ram" in str(error)
        return
    assert model.plan.arena_bytes <= limit
    assert least_possible(run_passes(graph), TARGET) <= 1.1 * limit
    assert_same_bytes(outputs_of(model), outputs_of(plain))
