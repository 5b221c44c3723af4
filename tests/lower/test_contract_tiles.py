"""Contractions by tile registers: the bytes of the reference and of every other target, whatever
the shapes; when they are chosen; the code that they become."""

import re

import numpy as np
import pytest
from graph_runs import BASE, Net, check, for_all, forced_recipe, lowered, runs_here
from hypothesis import strategies as st
from test_bytes import ICE, codes, finished, inputs, weights

import aotc.lower.contract
from aotc.codegen.emit import emit_kernel
from aotc.codegen.machine import assembly
from aotc.graph import ops
from aotc.graph.types import DType
from aotc.loop.text import print_program
from aotc.lower.parallel import parallelize
from aotc.schedule.cpu import rank_contracts
from aotc.target import resolve_target

AMX = resolve_target("x86_64", "sapphirerapids")


@pytest.fixture(autouse=True, scope="module")
def wherever_possible():
    """Tile registers are used however little they gain."""
    patch = pytest.MonkeyPatch()
    patch.setattr(aotc.lower.contract, "tiles_pay", lambda *_: True)
    yield
    patch.undo()


@st.composite
def layers(draw):
    """A graph and which of the cost model's recipes its kernel is to have."""
    net = Net()
    inner = draw(st.sampled_from([3, 4, 5, 12, 21, 32, 64, 70, 130]))
    outputs = draw(st.sampled_from([1, 7, 16, 33, 50]))
    op = draw(st.sampled_from(["dot", "conv", "conv"]))
    if op == "dot":
        rows = draw(st.integers(1, 40))
        sums = net.b.apply(ops.Dot(), codes(net, rows, inner), weights(net, inner, outputs))
    else:
        window = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
        stride = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
        rows, columns = window[0] + draw(st.integers(0, 5)), window[1] + draw(st.integers(0, 40))
        data = codes(net, draw(st.integers(1, 2)), rows, columns, inner)
        conv = ops.Conv(stride, (0, 0), (0, 0), (1, 1), 1, True)
        sums = net.b.apply(conv, data, weights(net, outputs, inner, *window))
    return net.graph(finished(net, draw, sums)), draw(st.integers(0, 9))


def ranked(number):
    """Chooses the recipe of this number in the cost model's order."""

    def choose(sizes, target):
        found = rank_contracts(sizes, target, 10)
        return found[number % len(found)].recipe

    return choose


@for_all(layers(), quick=1, slow=40)
def test_the_bytes_of_every_target(drawn):
    graph, number = drawn
    with forced_recipe(ranked(number)):
        check(graph, targets=(BASE, ICE, AMX), inputs=inputs(graph))


def conv_program(rows=6, columns=40, inner=64, outputs=48, window=3, stride=1, target=AMX):
    net = Net()
    conv = ops.Conv((stride, stride), (0, 0), (0, 0), (1, 1), 1, True)
    data = codes(net, 1, rows, columns, inner)
    sums = net.b.apply(conv, data, weights(net, outputs, inner, window, window))
    return lowered(net.graph(sums), target)


def test_tiles_are_for_targets_that_have_them():
    assert "tile_dot4(" in print_program(conv_program())
    for target in (BASE, ICE, resolve_target("x86_64-pc-windows-msvc", "sapphirerapids")):
        assert "tile_dot4(" not in print_program(conv_program(target=target))


def test_nothing_beyond_the_operand_is_read():
    """21 bytes of depth are a step of 24 where there are three more, and else no tiles are used."""
    exact, roomy = (conv_program(9, columns, 3, 16, window=7, stride=2) for columns in (9, 10))
    assert "tile_dot4(" not in print_program(exact)
    assert "tile_dot4(" in print_program(roomy)


def test_what_is_computed_has_room_for_the_last_group():
    net = Net()
    padded = net.b.apply(ops.Pad((0, 0, 0, 0), (0, 1, 1, 0), 0), net.x(1, 8, 8, 3, dtype=DType.U8))
    conv = ops.Conv((2, 2), (0, 0), (0, 0), (1, 1), 1, True)
    sums = net.b.apply(conv, net.b.cast(padded, DType.I32), weights(net, 16, 3, 3, 3))
    graph = net.graph(sums)
    assert "tile_dot4(" in print_program(lowered(graph, AMX))
    check(graph, targets=(BASE, AMX), inputs=inputs(graph))


def loop_bodies(text):
    """The instructions of innermost loops in AT&T syntax."""
    return re.findall(r"^(\.LBB\d+_\d+):\n((?:\t.*\n)*?)\tj\w+\t\1\n", text, re.MULTILINE)


def test_the_main_loop_is_loads_and_products():
    (call,) = (call for call in conv_program().calls if "tiled" in call.kernel.recipe)
    text = assembly(emit_kernel(call.kernel, AMX, "kernel", private=False), AMX)
    bodies = [body for _, body in loop_bodies(text) if "tdpbusd" in body]
    assert bodies
    for body in bodies:
        names = [line.split()[0] for line in body.splitlines()]
        assert "tilestored" not in names and "tilezero" not in names
        others = [name for name in names if not name.startswith(("tileload", "tdp"))]
        assert len(others) <= 12 and not [n for n in others if n.startswith("v")], body
    assert text.count("ldtilecfg") == text.count("tilerelease") == 1


def test_kernels_of_tiles_are_shared_among_threads():
    program = conv_program(rows=30)
    patch = pytest.MonkeyPatch()
    patch.setattr(aotc.lower.parallel, "MIN_PROGRAM_WORK", 0)
    text = print_program(parallelize(program))
    patch.undo()
    kernel = text[text.index("\nkernel") :]
    assert re.search(r" parallel:\n(.*\n)*?.*tile_dot4", kernel)


@pytest.mark.slow
@pytest.mark.skipif(not runs_here(AMX), reason="the processor has no AMX, or lends none")
def test_a_layer_as_large_as_they_come():
    net = Net()
    conv = ops.Conv((1, 1), (0, 0), (0, 0), (1, 1), 1, True)
    data = codes(net, 1, 9, 16, 256)
    graph = net.graph(net.b.apply(conv, data, weights(net, 64, 256, 3, 3)))
    given = {name: np.full_like(x, 255) for name, x in inputs(graph).items()}
    check(graph, targets=(ICE, AMX), inputs=given)
