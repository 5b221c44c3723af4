"""Quantised models on emulated machines: the same bytes as on x86_64, without help from libraries.
"""

from dataclasses import replace

import onnx
import pytest
from quantized_nets import image_net

import aotc
from aotc.reference.inputs import make_inputs
from aotc.target import resolve_target
from bench.boards import BOARDS, missing, run_on_board
from bench.machines import MACHINES, run_emulated


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("quantized") / "image.onnx"
    onnx.save(image_net(), path)
    here = aotc.compile(path)
    inputs = make_inputs(here.signature.inputs, 0, {})
    return path, inputs, here.run_dict(inputs)


def assert_same(found, expected):
    for name, array in expected.items():
        assert array.tobytes() == found[name].tobytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["x86-64-v4", "native"])
def test_every_x86_gives_the_same_bytes(model, cpu):
    path, inputs, expected = model
    if cpu == "x86-64-v4" and resolve_target("x86_64", "native").vector_bits < 512:
        pytest.skip("this processor has no AVX-512")
    assert_same(aotc.compile(path, cpu=cpu).run_dict(inputs), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
def test_emulated_machines_give_the_same_bytes(model, name, tmp_path):
    path, inputs, expected = model
    machine = MACHINES[name]
    if machine.missing:
        pytest.skip(machine.missing)
    there = aotc.compile(path, target=machine.target, cpu=machine.cpu)
    assert_same(run_emulated(there, inputs, machine, tmp_path), expected)


@pytest.mark.slow
def test_usdot_gives_the_same_bytes(model, tmp_path):
    path, inputs, expected = model
    machine = replace(MACHINES["aarch64"], emulator=("qemu-aarch64", "-cpu", "max"))
    if machine.missing:
        pytest.skip(machine.missing)
    there = aotc.compile(path, target="aarch64", cpu="neoverse-n2")
    assert "usdot" in there.as_text("asm")
    assert_same(run_emulated(there, inputs, machine, tmp_path), expected)


@pytest.mark.slow
@pytest.mark.parametrize("board", BOARDS)
def test_boards_give_the_same_bytes(model, board, tmp_path):
    if missing():
        pytest.skip(missing())
    path, inputs, expected = model
    assert_same(run_on_board(aotc.compile(path, target=board), inputs, tmp_path), expected)


@pytest.mark.slow
def test_codes_are_what_lies_in_memory(model):
    path, _, _ = model
    plan = aotc.compile(path, target="cortex-m4").plan
    pixels = 9 * 11
    assert plan.arena_bytes < 3 * 24 * (9 + 2) * (11 + 2) + pixels * 8
