"""A machine with a GPU goes in, one table of what was checked and timed on it comes out:
`make cuda-check`. On a machine without one it says so and checks nothing (exit status 2).

Every model is compiled for the device in several precisions, run, compared with ONNX Runtime and
timed with events, from small to large, until the time is spent; then the tests for devices (pytest
-m cuda), and those again under compute-sanitizer where it is installed. Exit status 1 when anything
is wrong.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import aotc
from aotc.commands.console import print_table
from aotc.cuda.compiled import CudaModel
from aotc.cuda.driver import Driver, device_name, native_arch, open_driver
from aotc.errors import AotcError
from aotc.reference.against import run_reference
from aotc.reference.compare import compare_outputs
from bench.models import MODELS, Model, Unavailable, get_model

#: The largest error that passes, relative to the largest magnitude of an output.
TOLERANCES = {"f32": 1e-4, "tf32": 2e-3, "f16": 1e-2}
DEFAULT_SECONDS = 540.0
ROUNDS = 50
SANITIZERS = ("memcheck", "racecheck")
TESTS = "tests/cuda/test_on_device.py"


@dataclass(frozen=True)
class Row:
    """One line of the table; ``wrong`` if it makes the whole check fail."""

    what: str
    size: str
    seconds: str
    call: str
    error: str
    verdict: str

    @property
    def wrong(self) -> bool:
        return self.verdict not in ("ok", "skipped")


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; the exit status as above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help="for the models")
    parser.add_argument("--models", help="only these, with commas between them")
    args = parser.parse_args(arguments)
    try:
        driver = open_driver()
        title = describe(driver)
    except AotcError as error:
        print(f"cuda-check: nothing was checked: {error}", file=sys.stderr)
        return 2
    chosen = [m for m in MODELS if args.models is None or m.name in args.models.split(",")]
    end = time.monotonic() + args.seconds
    rows = [
        check_model(model, precision)
        if time.monotonic() < end
        else skipped(f"{model.name} {precision}", "no time left")
        for model in chosen
        for precision in TOLERANCES
    ]
    rows += [run_tests(), *(sanitize(tool) for tool in SANITIZERS)]
    print(title)
    headings = ("what", "launches", "device ms", "call ms", "largest error", "")
    print_table(headings, [tuple(vars(row).values()) for row in rows], right=1)
    return int(any(row.wrong for row in rows))


def describe(driver: Driver) -> str:
    """The date, the card, and the versions of driver and aotc."""
    version = driver.number("cuDriverGetVersion")
    name, arch = device_name(driver, 0), native_arch(driver)
    today = time.strftime("%Y-%m-%d")
    return (
        f"{today}: {name}, code for {arch}, driver {version // 1000}.{version % 1000 // 10}, "
        f"aotc {aotc.__version__}; medians of {ROUNDS} runs"
    )


def check_model(model: Model, precision: str) -> Row:
    """Compiles, compares and times one model."""
    what = f"{model.name} {precision}"
    try:
        path = get_model(model.name)
        compiled = aotc.compile(
            path,
            target="cuda",
            cpu="native",
            precision=precision,
            input_shapes=model.shapes,
            name=model.name,
        )
        assert isinstance(compiled, CudaModel)
        reference = run_reference(path, compiled.signature)
        found = compiled.run_dict(reference.inputs)
    except Unavailable as error:
        return skipped(what, str(error))
    except AotcError as error:
        return Row(what, "", "", "", "", str(error).splitlines()[0])
    differences = compare_outputs(found, reference.outputs, TOLERANCES[precision])
    worst = max((difference.error for difference in differences), default=0.0)
    on_device = statistics.median(compiled.time_on_device(reference.inputs, ROUNDS))
    run = compiled.bind(**reference.inputs)
    calls = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        run()
        calls.append(time.perf_counter() - begun)
    del run
    compiled.release()
    right = all(difference.passed for difference in differences)
    return Row(
        what,
        str(len(compiled.device_model.launches)),
        f"{on_device * 1e3:.3f}",
        f"{statistics.median(calls) * 1e3:.3f}",
        f"{worst:.1e}",
        "ok" if right else "DIFFERS",
    )


def skipped(what: str, reason: str) -> Row:
    """A line for what was not done."""
    return Row(what, "", "", "", reason, "skipped")


def run_tests() -> Row:
    """The tests that need a device."""
    return _run("pytest -m cuda", [sys.executable, "-m", "pytest", "-n0", "-q", "-m", "cuda"])


def sanitize(tool: str) -> Row:
    """The same tests with every access to device memory watched."""
    found = shutil.which("compute-sanitizer")
    if found is None:
        return skipped(tool, "compute-sanitizer is not installed")
    command = [found, "--tool", tool, "--error-exitcode", "1"]
    return _run(tool, [*command, sys.executable, "-m", "pytest", "-n0", "-q", "-m", "cuda", TESTS])


def _run(what: str, command: Sequence[str]) -> Row:
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines() or ["it says nothing"]
    if done.returncode:
        print("\n".join(lines[-40:]), file=sys.stderr)
    return Row(what, "", "", "", lines[-1], "ok" if done.returncode == 0 else "FAILED")


if __name__ == "__main__":
    sys.exit(main())
