"""Products of bytes by pairs of int16: what is widened when, and the instructions of the tile."""

import re

import numpy as np
from graph_runs import Net, check, lowered

from aotc.codegen.emit import emit_kernel
from aotc.codegen.machine import assembly
from aotc.graph import ops
from aotc.graph.types import DType
from aotc.loop.text import print_program
from aotc.target import resolve_target

M4 = resolve_target("cortex-m4")


def product(rows, depth, columns, bias=None):
    """A matrix of codes times int8 weights, and a bias for each column."""
    net = Net()
    codes = net.b.cast(net.x(rows, depth, dtype=DType.U8), DType.I32)
    random = np.random.default_rng(rows)
    weights = net.b.constant(random.integers(-128, 128, (depth, columns)).astype(np.int32))
    sums = net.b.apply(ops.Dot(), codes, weights)
    if bias is not None:
        sums = net.b.binary("add", sums, net.b.broadcast(net.b.constant(bias), sums.shape))
    return net.graph(net.b.cast(net.b.unary("neg", sums), DType.F32))


def codes_for(graph):
    (x,) = graph.inputs
    random = np.random.default_rng(3)
    return {x.op.name: random.integers(0, 256, x.shape).astype(np.uint8)}


def instructions(graph):
    """How often each instruction stands in the kernel for a Cortex-M4."""
    (call,) = lowered(graph, M4).calls
    lines = assembly(emit_kernel(call.kernel, M4, "k", private=False), M4).splitlines()
    names = [match[1] for line in lines if (match := re.match(r"\t([a-z0-9]+)", line))]
    return {name: names.count(name) for name in names}


def test_a_tile_is_widened_once_for_all_panels():
    graph = product(12, 20, 7)
    text = print_program(lowered(graph, M4))
    before, *panels = text.split("for p in")
    assert "widened(in" in before and len(panels) == 1
    check(graph, targets=(M4,), inputs=codes_for(graph))


def test_the_tile_keeps_to_registers():
    found = instructions(product(6, 16, 24))
    # six pixels by one channel: four groups in line, weights widened once for all pixels
    assert found["smlad"] + found["smuad"] == 4 * 6 * 2 and found["smuad"] == 6
    assert found["sxtb16"] == 4 * 2 and found["ldrd"] >= 4 * 6


def test_sums_begin_with_the_bias():
    bias = np.arange(-3, 4, dtype=np.int32)
    graph = product(12, 20, 7, bias)
    stores = re.findall(r"acc\[[^]]*\] = (\w+)\[", print_program(lowered(graph, M4)))
    assert stores and all(name.startswith("in") for name in stores)
    check(graph, targets=(M4,), inputs=codes_for(graph))


def test_of_few_groups_a_pixel_is_finished_with_its_last():
    graph = product(12, 8, 5, np.arange(5, dtype=np.int32))
    text = print_program(lowered(graph, M4))
    *_, loop = re.findall(r"for i in 0..6 unrolled:\n((?: +.* = .*\n){2})", text)
    assert "acc[i]" in loop and "out" in loop
    check(graph, targets=(M4,), inputs=codes_for(graph))
    many = print_program(lowered(product(12, 40, 5), M4))
    assert not re.search(r"for i in 0..6 unrolled:\n +acc.*\n +out", many)


def test_a_single_row_and_few_columns():
    for rows, depth, columns in ((1, 9, 11), (1, 4, 1), (2, 5, 2)):
        graph = product(rows, depth, columns, np.full(columns, 5, np.int32))
        check(graph, targets=(M4,), inputs=codes_for(graph))
