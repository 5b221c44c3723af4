"""Every example: its Makefile compiles the model, links the C program and runs it."""

import json
import re
import runpy
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bench.boards import missing
from bench.models import Unavailable, get_model

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.requires_cc


def run_example(name, folder, *variables):
    """What `make` prints in a copy of the example, so that no build is left behind in the tree."""
    if shutil.which("make") is None:
        pytest.skip("no make on this machine")
    here = folder / "examples" / name
    shutil.copytree(
        ROOT / "examples" / name, here, ignore=shutil.ignore_patterns("build"), dirs_exist_ok=True
    )
    for other in ("bench", "models"):
        if not (folder / other).exists():
            (folder / other).symlink_to(ROOT / other)
    command = ["make", "--no-print-directory", "-C", str(here), f"PYTHON={sys.executable}"]
    command += [f"AOTC={sys.executable} -m aotc.cli", *variables]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "warning" not in done.stderr
    return done.stdout


def need(model):
    try:
        get_model(model)
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.mark.slow
def test_digits_are_recognised(tmp_path):
    printed = run_example("digits", tmp_path)
    assert "10 of 10 are right" in printed
    assert "@@" in printed


@pytest.mark.slow
def test_digits_are_recognised_in_eight_bits(tmp_path):
    pytest.importorskip("sklearn")
    shutil.copytree(ROOT / "examples" / "digits", tmp_path / "examples" / "digits")
    printed = run_example("digits_int8", tmp_path, "verify")
    assert "agrees: 0 of 360 decisions changed" in printed
    if missing():
        pytest.skip(missing())
    shutil.copytree(ROOT / "examples" / "cortex_m", tmp_path / "examples" / "cortex_m")
    printed = run_example("digits_int8", tmp_path, "firmware")
    found = re.search(r"(\d+) of 360 are right: .*arena: (\d+) bytes; .* run: (\d+)\n", printed)
    right, arena, instructions = map(int, found.groups())
    assert right >= 350 and arena < 6_000
    # 0.3 million multiply-adds
    assert 200_000 < instructions < 500_000


def test_the_digits_network_is_small_enough_to_keep():
    assert (ROOT / "examples" / "digits" / "digits.onnx").stat().st_size < 200_000


@pytest.mark.slow
def test_training_in_c_reads_as_well_as_training_in_numpy(tmp_path):
    pytest.importorskip("sklearn")
    printed = run_example("on_device_training", tmp_path, "EPOCHS=8")
    in_c = [float(text) / 100 for text in re.findall(r"\(([\d.]+) %\)", printed)]
    assert len(in_c) == 8 and in_c[-1] >= 0.975
    path = ROOT / "examples" / "on_device_training" / "training.py"
    in_numpy = runpy.run_path(str(path))["train"](3)
    # the same steps in the same order: they part by roundings alone
    np.testing.assert_allclose(in_c[:3], in_numpy, atol=0.015)


@pytest.mark.slow
def test_resnet50_times_itself(tmp_path):
    need("resnet50")
    printed = run_example("resnet50", tmp_path, "RUNS=2", "CPU=x86-64-v3")
    assert "2 runs: median" in printed


@pytest.mark.slow
def test_magika_knows_what_files_are(tmp_path):
    need("magika")
    loop = "def main():\n    for i in range(3):\n        print(os.getcwd(), i)\n\n\n"
    files = {
        "program.py": "import os\n\n\n" + loop * 5,
        "page.html": "<!DOCTYPE html>\n<html><head><title>t</title></head><body><p>a</p></body>\n",
        "data.json": json.dumps({"numbers": [1, 2, 3], "nested": {"key": "value"}}, indent=4),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    paths = " ".join(str(tmp_path / name) for name in files)
    printed = run_example("magika", tmp_path, f"FILE={paths}")
    for name, kind in {"program.py": "python", "page.html": "html", "data.json": "json"}.items():
        assert f"{name}: {kind} (" in printed


@pytest.mark.slow
@pytest.mark.parametrize("cpu", ["cortex-m4", "cortex-m55"])
def test_the_firmware_recognises_digits_on_an_emulated_board(cpu, tmp_path):
    if missing():
        pytest.skip(missing())
    shutil.copytree(ROOT / "examples" / "digits", tmp_path / "examples" / "digits")
    printed = run_example("cortex_m", tmp_path, f"CPU={cpu}")
    assert "10 of 10 are right" in printed
    assert "BROKEN" not in printed


@pytest.mark.slow
def test_the_firmware_uses_two_memories(tmp_path):
    if missing():
        pytest.skip(missing())
    shutil.copytree(ROOT / "examples" / "digits", tmp_path / "examples" / "digits")
    printed = run_example("cortex_m", tmp_path, "regions")
    assert "10 of 10 are right" in printed and "arena in psram: at most" in printed
    assert "BROKEN" not in printed


def with_digits(folder, *tools):
    """The digits example beside the one that is run, on a machine that has ``tools``."""
    for tool in tools:
        if shutil.which(tool) is None:
            pytest.skip(f"no {tool} on this machine")
    shutil.copytree(ROOT / "examples" / "digits", folder / "examples" / "digits")


@pytest.mark.slow
def test_the_crate_recognises_digits(tmp_path):
    with_digits(tmp_path, "cargo")
    printed = run_example("rust", tmp_path).partition("--release\n")[2]
    assert "10 of 10 are right" in printed
    assert printed == run_example("digits", tmp_path).partition("./build/main\n")[2]


@pytest.mark.slow
def test_the_arm_program_recognises_digits(tmp_path):
    with_digits(tmp_path, "aarch64-linux-gnu-gcc", "qemu-aarch64")
    printed = run_example("aarch64", tmp_path)
    assert "10 of 10 are right" in printed and "@@" in printed


@pytest.mark.slow
def test_the_page_recognises_digits_in_a_browser(tmp_path):
    if shutil.which("chromium") is None:
        pytest.skip("no chromium on this machine")
    shutil.copytree(ROOT / "examples" / "digits", tmp_path / "examples" / "digits")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    printed = run_example("web", tmp_path, "check", f"PORT={port}")
    assert "10 of 10 are right" in printed


def test_page_and_crate_show_the_digits_of_the_c_example():
    header = (ROOT / "examples" / "digits" / "test_digits.h").read_text()
    script = (ROOT / "examples" / "web" / "samples.mjs").read_text()
    in_c = re.findall(r"\d+", header[header.index("test_images") :].partition("{")[2])
    in_page = re.findall(r"\d+", script[script.index("images = ") :])
    assert in_c == in_page and len(in_c) == 640
    source = (ROOT / "examples" / "rust" / "src" / "samples.rs").read_text()
    assert re.findall(r"\d+", source.partition("IMAGES")[2].partition("=")[2]) == in_c
