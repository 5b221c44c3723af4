"""Nothing in, rows about whole programs out: how long one takes to its first result and how large
it is, and the tests for devices, alone and under compute-sanitizer."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import aotc
from aotc.errors import AotcError
from aotc.pool import runtime_sources
from bench.models import Unavailable, get_model
from tools.gpu_check.cases import BYTES_GOAL, START_GOAL
from tools.gpu_check.contender import ROOT
from tools.gpu_check.rows import Row, ratio_to_fastest

STARTED = "resnet50"
STARTS = 5
#: What is run once more under compute-sanitizer: a test of each family of kernels.
SANITIZED = ("tests/cuda/test_on_device.py", "-k", "test_families or test_host_arrays")
SANITIZERS = ("memcheck", "racecheck")


def titled_rows() -> list[Row]:
    """The rows of `start_and_size` with nothing in them."""
    return [
        Row(f"start of {STARTED} to first result", goal=START_GOAL),
        Row(f"bytes beside the weights of {STARTED}", goal=BYTES_GOAL),
    ]


def start_and_size(
    peer_command: Sequence[str], peer_about: Mapping[str, Any] | str, seconds: float
) -> list[Row]:
    """A C program with resnet50 and its cubin: from the start of the process to its end behind the
    first result, beside ``peer_command``, which does the same; and its bytes without the weights,
    beside the libraries of the peer. ``peer_about`` says why there is no peer if it is a text."""
    end = time.monotonic() + seconds
    rows = titled_rows()
    compiler = shutil.which("cc")
    if seconds <= 0:
        return [replace(row, remarks="no time left") for row in rows]
    if compiler is None:
        return [replace(row, remarks="there is no C compiler") for row in rows]
    with tempfile.TemporaryDirectory() as folder:
        try:
            program, own_bytes = build_program(Path(folder), compiler)
            ours = time_command([program], STARTS, end)
        except (subprocess.TimeoutExpired, Unavailable) as error:
            return [replace(row, remarks=str(error).splitlines()[0]) for row in rows]
        except (AotcError, OSError, subprocess.SubprocessError) as error:
            return [replace(rows[0], problem=str(error).splitlines()[0]), rows[1]]
    if isinstance(peer_about, str):
        theirs: dict[str, float | str] = {"PyTorch": peer_about}
        libraries = 0
    else:
        libraries = peer_about["libraries_bytes"]
        try:
            time_command(peer_command, 1, end)  # fills its cache
            theirs = {peer_about["name"]: time_command(peer_command, STARTS, end)}
        except subprocess.SubprocessError as error:
            theirs = {peer_about["name"]: type(error).__name__}
    remarks = f"{own_bytes} bytes" + (f", theirs {libraries}" if libraries else "")
    return [
        replace(rows[0], ours=ours, peers=theirs, ratio=ratio_to_fastest(ours, theirs),
                remarks="a cubin in C; torch.compile with a warm cache in Python"),
        replace(rows[1], ratio=libraries / own_bytes if libraries else None, rate=remarks),
    ]  # fmt: skip


def build_program(folder: Path, compiler: str) -> tuple[Path, int]:
    """A program that runs the model once, and its bytes without the weights. OSError when the
    compiler refuses, errors of aotc.compile."""
    compiled = aotc.compile(get_model(STARTED), target="cuda", cpu="native", name="net")
    compiled.save(folder, "net")
    signature = compiled.signature
    params = (*signature.inputs, *signature.outputs)
    arrays = "\n".join(f"static {p.c_type} a{i}[{p.type.elems}];" for i, p in enumerate(params))
    given = "".join(f"a{i}, " for i in range(len(params)))
    text = f'#include "net.h"\n{arrays}\nint main(void) {{ return net_run({given}0); }}\n'
    (folder / "main.c").write_text(text)
    loader = str(runtime_sources() / "aotc_cuda.c")
    command = [compiler, "-std=c11", "-O2", "-s", "main.c", "net.o", loader, "-o", "main", "-ldl"]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if built.returncode:
        raise OSError(built.stderr.strip().splitlines()[-1])
    return folder / "main", os.path.getsize(folder / "main") - compiled.manifest["weights"]["bytes"]


def time_command(command: Sequence[str | Path], times: int, end: float) -> float:
    """The median seconds of a process; subprocess.SubprocessError when one fails or lasts beyond
    ``end``."""
    found = []
    for _ in range(times):
        begun = time.perf_counter()
        left = max(end - time.monotonic(), 0.1)
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=left)
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def start_command(python: str, case: Mapping[str, Any]) -> list[str]:
    """The peer's program: a compiled model in a Python process."""
    return [python, "-m", "tools.gpu_check.torch_worker", "--start", json.dumps(case)]


def run_tests(seconds: float) -> Row:
    """The tests that need a device."""
    return _run("pytest -m cuda", [*_pytest(), "tests/cuda"], seconds)


def sanitize(tool: str, seconds: float) -> Row:
    """The same tests with every access to memory watched by one tool of compute-sanitizer."""
    found = shutil.which("compute-sanitizer")
    if found is None:
        return Row(tool, remarks="compute-sanitizer is not installed")
    command = [found, "--tool", tool, "--error-exitcode", "1", *_pytest(), *SANITIZED]
    return _run(tool, command, seconds)


def _pytest() -> list[str]:
    return [sys.executable, "-m", "pytest", "-n0", "-q", "-m", "cuda"]


def _run(what: str, command: Sequence[str], seconds: float) -> Row:
    if seconds <= 0:
        return Row(what, remarks="no time left")
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=seconds
        )
    except subprocess.TimeoutExpired:
        return Row(what, remarks=f"not finished in {seconds:.0f} s")
    lines = (done.stdout + done.stderr).strip().splitlines() or ["it says nothing"]
    if done.returncode:
        print("\n".join(lines[-40:]), file=sys.stderr)
        return Row(what, problem=lines[-1])
    return Row(what, rate="passed", remarks=lines[-1])
