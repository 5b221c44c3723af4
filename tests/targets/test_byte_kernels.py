"""Products of bytes of many shapes on emulated processors: the same bytes as on x86_64, by the
instructions that each has for them."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from graph_runs import Net

import aotc
from aotc.graph import ops
from aotc.graph.types import DType
from bench.boards import missing, run_on_board
from bench.machines import MACHINES, run_emulated

#: Spatial size, input channels, output channels (0: one filter for each), window, stride, groups.
CONVOLUTIONS = [
    ((1, 1), 3, 6, (1, 1), 1, 1),
    ((3, 4), 8, 5, (1, 1), 1, 1),  # less than sixteen bytes of a pixel
    ((3, 2), 24, 9, (1, 1), 1, 1),  # the last step begins early
    ((6, 5), 16, 4, (3, 3), 1, 1),
    ((5, 6), 3, 17, (3, 3), 2, 1),  # short rows that are brought together
    ((9, 6), 1, 16, (7, 4), 1, 1),
    ((4, 4), 40, 6, (2, 2), 1, 2),
    ((5, 7), 12, 0, (3, 3), 1, 1),
    ((6, 7), 19, 0, (3, 3), 2, 1),
    ((7, 6), 4, 0, (5, 5), 1, 1),
    ((4, 9), 9, 0, (2, 6), 1, 1),
    ((5, 5), 3, 0, (3, 3), 1, 1),
]


@functools.cache
def products(least):
    """A graph of convolutions with one filter of ``least`` each, as codes and as sums, its inputs,
    and what this machine makes of them."""
    net = Net()
    b = net.b
    random = np.random.default_rng(7)
    for number, (size, inner, outer, window, stride, groups) in enumerate(CONVOLUTIONS):
        groups = groups if outer else inner
        shape = (outer or inner, 1 if not outer else inner // groups, *window)
        weights = random.integers(-127, 128, shape).astype(np.int32)
        weights[0] = least
        weights.flat[0] = -128
        op = ops.Conv((stride,) * 2, (0, 0), (0, 0), (1, 1), groups, True)
        data = b.cast(net.x(2, *size, inner, dtype=DType.U8), DType.I32)
        sums = b.apply(op, data, b.constant(weights))
        sums = b.binary("add", sums, net.c(shape[0], dtype=DType.I32))
        net.out(sums)
        scales = random.uniform(0.001, 0.02, shape[0]).astype(np.float32)
        value = b.unary("round", b.binary("mul", b.cast(sums, DType.F32), b.constant(scales)))
        low, high = [(0, 255), (20, 200)][number % 2]
        for fn, limit in (("add", 3), ("max", low), ("min", high)):
            value = b.binary(fn, value, b.scalar_like(float(limit), value))
        net.out(b.cast(value, DType.U8))
    graph = net.graph()
    inputs = {
        x.op.name: random.choice([0, 1, 127, 128, 254, 255], x.shape).astype(np.uint8)
        for x in graph.inputs
    }
    return graph, inputs, aotc.compile(graph).run_dict(inputs)


def assert_same_bytes(found, expected):
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, name)


@pytest.mark.slow
@pytest.mark.parametrize(
    "machine, cpu, instruction, least",
    [
        ("aarch64", None, "smull", -127),
        ("aarch64", None, "mla", -128),  # pairs of products would not fit
        ("aarch64", "neoverse-n1", "sdot", -128),
        ("aarch64", "neoverse-n2", "usdot", -128),
        ("arm", None, "vpadal.s16", -127),
        ("riscv64", None, "vwmacc.vx", -127),
    ],
)
def test_products_of_bytes_by_vectors(machine, cpu, instruction, least, tmp_path):
    there = replace(MACHINES[machine], cpu=cpu)
    if cpu:
        there = replace(there, emulator=(*there.emulator, "-cpu", "max"))
    if there.missing:
        pytest.skip(there.missing)
    graph, inputs, expected = products(least)
    model = aotc.compile(graph, target=machine, cpu=cpu)
    assert f"\t{instruction}" in model.as_text("asm")
    assert_same_bytes(run_emulated(model, inputs, there, tmp_path), expected)


@pytest.mark.slow
@pytest.mark.parametrize("opt", ["speed", "size"])
def test_products_of_bytes_by_mve(opt, tmp_path):
    if missing():
        pytest.skip(missing())
    graph, inputs, expected = products(-128)
    model = aotc.compile(graph, target="cortex-m55", opt=opt)
    text = model.as_text("asm")
    # sums of sixteen products, bytes brought into order, codes by saturation
    assert all(f"\t{name}" in text for name in ("vmlava.s8", "vstrb.16", "vqmovnb.s32"))
    assert_same_bytes(run_on_board(model, inputs, tmp_path), expected)
