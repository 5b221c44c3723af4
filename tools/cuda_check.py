"""A machine with a GPU goes in, one table of what was checked and timed on it comes out:
`make cuda-check`. On a machine without one it says so and checks nothing (exit status 2).

First single operations (tools/cuda_kernels.py), next to PyTorch where that has CUDA and to the
speed at which the device copies; then every benchmark model in several precisions, compared with
ONNX Runtime, from small to large until the time is spent; the start of a C program; the tests for
devices (pytest -m cuda), and those again under compute-sanitizer where it is installed. Times are
medians between events. Exit status 1 when anything is wrong.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

import aotc
from aotc.commands.console import print_table
from aotc.cuda.compiled import CudaModel
from aotc.cuda.driver import Driver, device_name, native_arch, open_driver
from aotc.errors import AotcError
from aotc.pool import runtime_sources
from aotc.reference.against import run_reference
from aotc.reference.compare import compare_outputs
from bench.models import MODELS, Model, Unavailable, get_model
from tools.cuda_kernels import Case, cases, first_rows, time_in_torch

#: The largest error that passes, relative to the largest magnitude of an output.
TOLERANCES = {"f32": 1e-4, "tf32": 2e-3, "f16": 1e-2, "bf16": 2e-2}
MODEL_PRECISIONS = ("f32", "tf32", "f16")
DEFAULT_SECONDS = 420.0
ROUNDS = 50
COPIED_BYTES = 1 << 28
SANITIZERS = ("memcheck", "racecheck")
TESTS = "tests/cuda/test_on_device.py"
STARTED = "resnet50"

HEADINGS = ("what", "launches", "device ms", "call ms", "rate", "torch/ours", "error", "")


@dataclass(frozen=True)
class Row:
    """One line of the table, in the order of the headings; ``wrong`` if it makes the check fail."""

    what: str
    verdict: str = ""
    launches: str = ""
    device: str = ""
    call: str = ""
    rate: str = ""
    peer: str = ""
    error: str = ""

    @property
    def wrong(self) -> bool:
        return self.verdict not in ("ok", "skipped")

    def cells(self) -> tuple[str, ...]:
        what, verdict, *others = astuple(self)
        return (what, *others, verdict)


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table; the exit status as above."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--seconds", type=float, default=DEFAULT_SECONDS, help="for operations and models"
    )
    parser.add_argument("--models", help="only these and no operations, with commas between them")
    args = parser.parse_args(arguments)
    try:
        driver = open_driver()
        title = describe(driver)
    except AotcError as error:
        print(f"cuda-check: nothing was checked: {error}", file=sys.stderr)
        return 2
    end = time.monotonic() + args.seconds
    rows = [] if args.models is not None else list(check_cases(end))
    for model in MODELS:
        if args.models is None or model.name in args.models.split(","):
            rows += [check_model(model, precision, end) for precision in MODEL_PRECISIONS]
    rows += [time_start(), run_tests(), *(sanitize(tool) for tool in SANITIZERS)]
    print(title)
    print_table(HEADINGS, [row.cells() for row in rows], right=1)
    return int(any(row.wrong for row in rows))


def check_cases(end: float) -> Iterator[Row]:
    """The single operations, behind the speed of a copy."""
    bandwidth = 0.0
    for case in cases():
        for precision in case.precisions:
            what = f"{case.name} {precision}"
            if time.monotonic() >= end:
                yield skipped(what, "no time left")
                continue
            try:
                compiled = compile_case(case, precision)
                if not bandwidth:
                    bandwidth = compiled.copy_bandwidth(COPIED_BYTES, ROUNDS)
                    yield Row("copy", "ok", rate=f"{bandwidth / 1e9:.0f} GB/s")
                yield check_case(case, compiled, precision, bandwidth)
            except AotcError as error:
                yield Row(what, str(error).splitlines()[0])


def compile_case(case: Case, precision: str) -> CudaModel:
    """One operation for the device at hand."""
    graph = aotc.trace(case.function, *[aotc.spec(shape, "float32") for shape in case.shapes])
    compiled = aotc.compile(
        graph, target="cuda", cpu="native", precision=precision, name="operation"
    )
    assert isinstance(compiled, CudaModel)
    return compiled


def check_case(case: Case, compiled: CudaModel, precision: str, bandwidth: float) -> Row:
    """The first rows of the result, and the times."""
    inputs = case.inputs()
    (found,) = compiled.bind(*inputs)()
    expected = case.check(inputs)
    error = float(np.abs(first_rows(found) - expected).max() / np.abs(expected).max())
    names = [param.name for param in compiled.signature.inputs]
    named = dict(zip(names, inputs, strict=True))
    seconds = statistics.median(compiled.time_on_device(named, ROUNDS))
    compiled.release()
    peer = time_in_torch(case, precision, inputs, ROUNDS)
    rate = f"{case.flops / seconds / 1e12:.1f} TFLOP/s"
    if case.moved:
        rate = f"{case.moved / seconds / bandwidth:.2f} of copy"
    return Row(
        f"{case.name} {precision}",
        "ok" if error <= TOLERANCES[precision] else "DIFFERS",
        launches=str(len(compiled.device_model.launches)),
        device=f"{seconds * 1e3:.3f}",
        rate=rate,
        peer=f"{peer / seconds:.2f}" if peer else "",
        error=f"{error:.1e}",
    )


def describe(driver: Driver) -> str:
    """The date, the card, and the versions of driver and aotc."""
    version = driver.number("cuDriverGetVersion")
    name, arch = device_name(driver, 0), native_arch(driver)
    today = time.strftime("%Y-%m-%d")
    return (
        f"{today}: {name}, code for {arch}, driver {version // 1000}.{version % 1000 // 10}, "
        f"aotc {aotc.__version__}; medians of {ROUNDS} runs"
    )


def check_model(model: Model, precision: str, end: float) -> Row:
    """Compiles, compares and times one model, if that begins before ``end``."""
    what = f"{model.name} {precision}"
    if time.monotonic() >= end:
        return skipped(what, "no time left")
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
        on_device = statistics.median(compiled.time_on_device(reference.inputs, ROUNDS))
        call = time_calls(compiled, reference.inputs)
    except Unavailable as error:
        return skipped(what, str(error))
    except AotcError as error:
        return Row(what, str(error).splitlines()[0])
    compiled.release()
    differences = compare_outputs(found, reference.outputs, TOLERANCES[precision])
    worst = max((difference.error for difference in differences), default=0.0)
    return Row(
        what,
        "ok" if all(difference.passed for difference in differences) else "DIFFERS",
        launches=str(len(compiled.device_model.launches)),
        device=f"{on_device * 1e3:.3f}",
        call=f"{call * 1e3:.3f}",
        error=f"{worst:.1e}",
    )


def time_calls(compiled: CudaModel, inputs: Mapping[str, np.ndarray]) -> float:
    """The median seconds of a call with host arrays, copies and all."""
    run = compiled.bind(**inputs)
    found = []
    for _ in range(ROUNDS):
        begun = time.perf_counter()
        run()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def time_start() -> Row:
    """A C program with one model: from the start of the process to its first result."""
    what, compiler = f"start of {STARTED} in C", shutil.which("cc")
    if compiler is None:
        return skipped(what, "no C compiler")
    with tempfile.TemporaryDirectory() as folder:
        compiled = aotc.compile(
            get_model(STARTED), target="cuda", cpu="native", name="net"
        )
        compiled.save(folder, "net")
        signature = compiled.signature
        params = (*signature.inputs, *signature.outputs)
        arrays = "\n".join(f"static {p.c_type} a{i}[{p.type.elems}];" for i, p in enumerate(params))
        given = "".join(f"a{i}, " for i in range(len(params)))
        text = f'#include "net.h"\n{arrays}\nint main(void) {{ return net_run({given}0); }}\n'
        (Path(folder) / "main.c").write_text(text)
        loader = str(runtime_sources() / "aotc_cuda.c")
        command = [compiler, "-std=c11", "main.c", "net.o", loader, "-o", "main", "-ldl"]
        built = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        if built.returncode:
            return Row(what, built.stderr.strip().splitlines()[-1])
        beside = os.path.getsize(Path(folder) / "main") - compiled.manifest["weights"]["bytes"]
        seconds, status = [], 0
        for _ in range(5):
            begun = time.perf_counter()
            status |= subprocess.run([Path(folder) / "main"], check=False).returncode
            seconds.append(time.perf_counter() - begun)
    return Row(
        what,
        "ok" if status == 0 else f"status {status}",
        call=f"{statistics.median(seconds) * 1e3:.0f}",
        rate=f"{beside} bytes beside weights",
    )


def skipped(what: str, reason: str) -> Row:
    """A line for what was not done."""
    return Row(what, "skipped", error=reason)


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
    return Row(what, "ok" if done.returncode == 0 else "FAILED", error=lines[-1])


if __name__ == "__main__":
    sys.exit(main())
