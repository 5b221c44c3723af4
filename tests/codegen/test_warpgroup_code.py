"""Contractions by warpgroups as instructions: what ptxas says of every tile, and what the code
computes."""

from dataclasses import replace

import pytest
from gpu_code import Machine
from graph_runs import BASE, assert_same_bytes, inputs_of, lowered, runs_here
from test_gpu_warpgroup import assembled, expect_clean
from warpgroup_graphs import convolution, product

import aotc.loop.eval
from aotc.graph.types import DType
from aotc.loop.eval import run_program
from aotc.passes.explicit_pad import explicit_pad
from aotc.schedule import gpu_warpgroup
from aotc.target import cuda_target

GPU = cuda_target("sm_90a")
TILES = gpu_warpgroup._TILES
HALF = DType.F16
#: Graphs of each way in which operands come and results go, and their precision.
GRAPHS = {
    "f16": (lambda: product(512, 2048, 512, HALF, tail=True), "f16"),
    "tf32": (lambda: product(512, 2048, 512, tail=True), "tf32"),
    "across": (lambda: product(512, 2048, 512, HALF, "across"), "f16"),
    "exchanged": (lambda: product(512, 2048, 512, right="across", tail=True), "tf32"),
    "exchanged, even": (lambda: product(1024, 1024, 1024, right="across"), "tf32"),
    "exchanged, odd": (lambda: product(512, 160, 512, right="across"), "tf32"),
    "batch": (lambda: product(512, 640, 512, HALF, "along", batch=(2, 3)), "f16"),
    "3x3": (lambda: convolution(64, 512, 14, 3, images=8, dtype=HALF), "f16"),
    "stride": (lambda: convolution(64, 512, 56, 3, stride=2), "tf32"),
}


def contraction(graph, precision):
    """The one kernel of a graph that has tensor maps."""
    kernels = lowered(explicit_pad(graph), replace(GPU, precision=precision)).kernels()
    (found,) = (kernel for kernel in kernels if kernel.maps)
    return found


QUICK = [("f16", TILES[0])]


@pytest.mark.parametrize(
    ("name", "tile"),
    [
        (name, tile) if (name, tile) in QUICK else pytest.param(name, tile, marks=pytest.mark.slow)
        for name in GRAPHS
        for tile in (TILES if name == "f16" else TILES[:3] + TILES[-1:])
    ],
)
def test_assembler_leaves_every_tile_alone(name, tile, tmp_path, monkeypatch):
    if (name == "across" and tile[1] % 64) or ("exchanged" in name and tile != TILES[0]):
        pytest.skip("no tile for this")
    monkeypatch.setattr(gpu_warpgroup, "_TILES", (tile,))
    make, precision = GRAPHS[name]
    expect_clean(assembled(contraction(make(), precision), tmp_path))


CODE = {
    "wide": ((128, 256, 2), lambda: product(72, 272, 40, HALF, tail=True), "f16"),
    "high": ((256, 128, 2), lambda: product(72, 72, 72, HALF, "across"), "f16"),
    "exchanged": ((64, 128, 1), lambda: product(72, 168, 72, right="across"), "tf32"),
    "small": ((64, 32, 1), lambda: product(70, 100, 40, tail=True), "tf32"),
    "3x3": ((128, 64, 2), lambda: convolution(32, 24, 9, 3), "tf32"),
    "stride": ((64, 64, 1), lambda: convolution(64, 24, 10, 3, stride=2, dtype=HALF), "f16"),
}


@pytest.mark.requires_cc
@pytest.mark.skipif(not runs_here(BASE), reason="needs x86-64 with AVX2 and FMA")
@pytest.mark.parametrize(
    "name", [n if n == "small" else pytest.param(n, marks=pytest.mark.slow) for n in CODE]
)
def test_code_gives_the_bytes_of_the_evaluator(name, tmp_path, monkeypatch):
    tile, make, precision = CODE[name]
    monkeypatch.setattr(gpu_warpgroup, "_TILES", (tile,))
    monkeypatch.setattr(gpu_warpgroup, "_MOST_STAGES", 3)
    graph, target = explicit_pad(make()), replace(GPU, precision=precision)
    program, inputs = lowered(graph, target), inputs_of(graph)
    wanted = run_program(program, inputs)
    machine = Machine(program.kernels(), target, tmp_path)
    monkeypatch.setattr(aotc.loop.eval, "run_kernel", machine.run)
    assert_same_bytes(run_program(program, inputs), wanted)
    assert machine.launched == len(program.calls)
