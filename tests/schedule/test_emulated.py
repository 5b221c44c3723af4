"""The warning about products of bytes where no instruction makes them."""

import warnings
from pathlib import Path

import onnx
import pytest
from quantized_nets import matrix_net

import aotc
from aotc.cli import main

DIGITS = Path(__file__).resolve().parents[2] / "examples" / "digits" / "digits.onnx"


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "matrix.onnx"
    onnx.save(matrix_net(), path)
    return path


def warned(path, **choices):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        aotc.compile(path, **choices)
    return [str(warning.message) for warning in caught]


@pytest.mark.slow
@pytest.mark.parametrize(
    "target, cpu, costs",
    [
        ("cortex-m0", None, "about 15 instructions there (of the float32 model about 150)"),
        ("riscv64", "rv64gc", "about 5 instructions there, 2.8 times that of the float32 model"),
        ("wasm32", "mvp", "with --cpu simd128 it takes about 0.8"),
    ],
)
def test_it_says_how_much(model, target, cpu, costs):
    (text,) = warned(model, target=target, cpu=cpu)
    assert "no instructions for products of bytes" in text and costs in text


@pytest.mark.slow
@pytest.mark.parametrize("target", ["cortex-m4", "cortex-m55", "x86_64", "aarch64", "riscv64"])
def test_others_are_quiet(model, target):
    assert warned(model, target=target) == []


def test_floats_are_quiet():
    assert warned(DIGITS, target="riscv64", cpu="rv64gc") == []


def test_the_command_line_says_it_once(model, tmp_path, capsys):
    flags = ["--target", "cortex-m3", "-o", str(tmp_path)]
    assert main(["compile", str(model), *flags]) == 0
    assert capsys.readouterr().err.count("aotc: warning: cortex-m3") == 1
