"""Quantised models on emulated machines: the same bytes as on x86_64, without help from libraries.
"""

from dataclasses import replace

import numpy as np
import onnx
import pytest
from node_runs import run_in_node
from onnx.reference import ReferenceEvaluator
from quantized_nets import image_net
from quantized_operators import EXACT, quantized_operators

import aotc
from aotc.reference.inputs import make_inputs
from aotc.target import resolve_target
from bench.boards import BOARDS, missing, run_on_board
from bench.eight_bits import count_one
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


def check_x86(case, cpu):
    path, inputs, expected = case
    if cpu == "x86-64-v4" and resolve_target("x86_64", "native").vector_bits < 512:
        pytest.skip("this processor has no AVX-512")
    assert_same(aotc.compile(path, cpu=cpu).run_dict(inputs), expected)


def check_machine(case, name, folder):
    path, inputs, expected = case
    machine = MACHINES[name]
    if machine.missing:
        pytest.skip(machine.missing)
    there = aotc.compile(path, target=machine.target, cpu=machine.cpu)
    assert_same(run_emulated(there, inputs, machine, folder), expected)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["x86-64-v4", "native"])
def test_every_x86_gives_the_same_bytes(model, cpu):
    check_x86(model, cpu)


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
def test_emulated_machines_give_the_same_bytes(model, name, tmp_path):
    check_machine(model, name, tmp_path)


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
@pytest.mark.parametrize("name, limit", [("tiny_vww_mbv1", 1.4), ("tiny_ad_ae", 1.7)])
def test_a_multiply_add_on_a_cortex_m4_takes_few_instructions(name, limit):
    """Below the cycles of the best published results on that core."""
    pytest.importorskip("onnxruntime")
    if missing():
        pytest.skip(missing())
    found, _ = count_one(name, "cortex-m4")
    assert 0.5 < found < limit


@pytest.mark.slow
def test_codes_are_what_lies_in_memory(model):
    path, _, _ = model
    plan = aotc.compile(path, target="cortex-m4").plan
    pixels = 9 * 11
    assert plan.arena_bytes < 3 * 24 * (9 + 2) * (11 + 2) + pixels * 8


@pytest.fixture(scope="module")
def operators(tmp_path_factory):
    """A model of many quantised operators, inputs, and what this machine makes of them."""
    path = tmp_path_factory.mktemp("quantized") / "operators.onnx"
    model, inputs, kinds = quantized_operators(0)
    onnx.save(model, path)
    found = aotc.compile(path).run_dict(inputs)
    assert_as_reference(model, inputs, kinds, found)
    return path, inputs, found


def assert_as_reference(model, inputs, kinds, found):
    """Integer arithmetic gives the very numbers of the reference, the rest is a code off at most.
    """
    expected = ReferenceEvaluator(model).run(list(kinds), inputs)
    for (name, kind), array in zip(kinds.items(), expected, strict=True):
        assert found[name].dtype == array.dtype
        apart = np.abs(found[name].astype(np.int64) - array.astype(np.int64))
        assert apart.max() <= (0 if kind == EXACT else 1), name


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_operators_agree_with_the_reference(seed, tmp_path):
    model, inputs, kinds = quantized_operators(seed)
    onnx.save(model, tmp_path / "operators.onnx")
    found = aotc.compile(tmp_path / "operators.onnx").run_dict(inputs)
    assert_as_reference(model, inputs, kinds, found)


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["x86-64-v4", "native"])
def test_operators_give_the_same_bytes_on_every_x86(operators, cpu):
    check_x86(operators, cpu)


@pytest.mark.slow
@pytest.mark.parametrize("name", MACHINES)
def test_operators_give_the_same_bytes_on_emulated_machines(operators, name, tmp_path):
    check_machine(operators, name, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("board", ["cortex-m4", "cortex-m55"])
def test_operators_give_the_same_bytes_on_boards(operators, board, tmp_path):
    if missing():
        pytest.skip(missing())
    path, inputs, expected = operators
    assert_same(run_on_board(aotc.compile(path, target=board), inputs, tmp_path), expected)


@pytest.mark.slow
def test_operators_give_the_same_bytes_in_wasm(operators, tmp_path):
    path, inputs, expected = operators
    assert_same(run_in_node(aotc.compile(path, target="wasm32"), inputs, tmp_path), expected)
