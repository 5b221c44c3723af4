"""Weights in few bits on other machines: the same bytes as on x86_64."""

import pytest
from node_runs import run_in_node

import aotc
from aotc.config import WEIGHTS_DTYPES
from aotc.reference.inputs import make_inputs
from aotc.target import resolve_target
from bench.boards import missing, run_on_board
from bench.machines import MACHINES, run_emulated
from bench.models import get_model


def here(dtype, name="tiny_ad_ae"):
    """A model, its inputs and its outputs by AVX2."""
    path = get_model(name)
    model = aotc.compile(path, weights_dtype=dtype)
    inputs = make_inputs(model.signature.inputs, 0, {})
    return path, inputs, model.run_dict(inputs)


def assert_same(found, expected):
    for name, array in expected.items():
        assert array.tobytes() == found[name].tobytes(), name


@pytest.mark.slow
@pytest.mark.parametrize("dtype", WEIGHTS_DTYPES)
def test_wide_vectors_give_the_same_bytes(dtype):
    if resolve_target("x86_64", "native").vector_bits < 512:
        pytest.skip("this processor has no AVX-512")
    path, inputs, expected = here(dtype)
    assert_same(
        aotc.compile(path, cpu="native", weights_dtype=dtype).run_dict(inputs), expected
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "dtype"), [("aarch64", "i4"), ("arm", "i8"), ("riscv64", "f16"), ("riscv64", "bf16")]
)
def test_emulated_machines_give_the_same_bytes(name, dtype, tmp_path):
    machine = MACHINES[name]
    if machine.missing:
        pytest.skip(machine.missing)
    path, inputs, expected = here(dtype, "tiny_ic_resnet8")
    there = aotc.compile(path, target=machine.target, cpu=machine.cpu, weights_dtype=dtype)
    assert_same(run_emulated(there, inputs, machine, tmp_path), expected)


@pytest.mark.slow
def test_wasm_gives_the_same_bytes(tmp_path, dtype="f16"):
    path, inputs, expected = here(dtype)
    # wasm has no fused multiply-add
    expected = aotc.compile(path, weights_dtype=dtype, numerics="no-fma").run_dict(inputs)
    there = aotc.compile(path, target="wasm32", weights_dtype=dtype)
    assert_same(run_in_node(there, inputs, tmp_path), expected)


@pytest.mark.slow
@pytest.mark.parametrize(("board", "dtype"), [("cortex-m4", "i4"), ("cortex-m55", "i8")])
def test_boards_give_the_same_bytes(board, dtype, tmp_path):
    if missing():
        pytest.skip(missing())
    path, inputs, expected = here(dtype)
    there = aotc.compile(path, target=board, weights_dtype=dtype)
    assert_same(run_on_board(there, inputs, tmp_path), expected)
