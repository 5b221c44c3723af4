#!/usr/bin/env python3
"""Nothing in, the project's figures out: what the compiler must reach and what it reaches here.

bench/table.py [MODEL ...] [--against onnxruntime,openvino] [--threads 2]

All models without names; markdown on stdout, progress on stderr. Every model is compiled for this
machine, compared with ONNX Runtime and timed against the engines, all on the same number of
threads, in one interleaved run in a process of its own. The object is checked with nm where that
is installed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from models import MODELS, Unavailable, find_model, get_model

CAPITAL = "resnet50"  # the model whose compilation is measured


def measure_model(name: str, seconds: float, against: list[str], threads: int) -> dict[str, Any]:
    """Speed, error, memory and symbols of one model; runs in its own process. ``ratio`` is the
    time of the fastest other engine over aotc's."""
    import aotc
    from aotc.reference.against import run_reference
    from aotc.reference.compare import compare_outputs
    from aotc.reference.engines import load_engine
    from aotc.reference.machine import describe_machine
    from aotc.reference.measure import measure

    path = get_model(name)
    shapes = find_model(name).shapes
    compiled = aotc.compile(path, cpu="native", input_shapes=shapes, threads=threads > 1)
    if threads > 1:
        compiled = compiled.with_threads(threads)
    reference = run_reference(path, compiled.signature, threads=threads)
    differences = compare_outputs(compiled.run_dict(reference.inputs), reference.outputs, 1e-4)
    functions = {"aotc": compiled.bind(**reference.inputs)}
    versions = {}
    for engine_name in against:
        engine = reference.engine
        if engine_name != "onnxruntime":
            outputs = [param.name for param in compiled.signature.outputs]
            dims = {param.name: param.type.dims for param in compiled.signature.inputs}
            engine = load_engine(engine_name, path, outputs, dims, threads)
        functions[engine_name] = engine.bind(reference.inputs)
        versions[engine_name] = engine.version
    result = measure(functions, budget_seconds=seconds, min_rounds=11)
    with tempfile.TemporaryDirectory() as folder:
        undefined = _undefined_symbols(compiled.save(folder)[0])
    return {
        "name": name,
        "ms": dict(result.ms),
        "ratio": min(result.ms[other] for other in against) / result.ms["aotc"],
        "error": max(difference.error for difference in differences),
        "passed": all(difference.passed for difference in differences),
        "gap": compiled.plan.gap,
        "arena_bytes": compiled.plan.arena_bytes,
        "code_bytes": compiled.manifest["code_bytes"],
        "undefined": undefined,
        "target": str(compiled.target),
        "engines": versions,
        "threads": threads,
        "machine": describe_machine(),
    }


def measure_compilation(name: str) -> dict[str, float]:
    """Wall seconds, and peak memory over the size of the model file, of ``aotc compile`` on one
    core."""
    path = get_model(name)
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "aotc.cli", "compile", str(path), "-o", folder]
        start = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
    os.sched_setaffinity(0, cores)
    if child.returncode:
        raise RuntimeError(f"compiling {name} failed")
    peak = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"seconds": seconds, "memory": peak / path.stat().st_size}


def _undefined_symbols(path: Path) -> int | None:
    """How many symbols `nm -u` lists; None without nm."""
    if shutil.which("nm") is None:
        return None
    listed = subprocess.run(["nm", "-u", str(path)], capture_output=True, text=True, check=True)
    return len(listed.stdout.split("\n")) - 1


def print_report(rows: list[dict[str, Any]], compilation: dict[str, float] | None) -> None:
    """The two tables, as markdown."""
    ratios = [row["ratio"] for row in rows]
    mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
    slowest = min(rows, key=lambda row: row["ratio"])
    widest = max(rows, key=lambda row: row["gap"])
    worst = max(rows, key=lambda row: row["error"])
    agreeing = sum(row["passed"] for row in rows)
    undefined = [row["undefined"] for row in rows if row["undefined"] is not None]
    first = rows[0]
    machine = first["machine"]
    others = list(first["engines"])
    engines = ", ".join(f"{name} {version}" for name, version in first["engines"].items())
    print(
        f"{machine['cpu']}, {machine['cores']} cores, {machine['system']}; "
        f"code for {first['target']}; {engines}; threads of each: {first['threads']}\n"
    )
    print("| what | must reach | reached |\n| --- | --- | --- |")
    print(
        f"| models that compile and agree with ONNX Runtime | {len(rows)} of {len(rows)} "
        f"| {agreeing} of {len(rows)}, largest error {worst['error']:.1e} ({worst['name']}) |"
    )
    print(
        f"| the fastest other engine's time over ours, the least | 0.6 "
        f"| {slowest['ratio']:.2f} ({slowest['name']}) |"
    )
    print(f"| the same, geometric mean | 0.9 | {mean:.2f} |")
    if compilation is not None:
        print(f"| compile {CAPITAL}, one core | 20 s | {compilation['seconds']:.1f} s |")
        print(f"| the same, peak memory over the model file | 4 | {compilation['memory']:.2f} |")
    for row in rows:
        if row["name"] == CAPITAL:
            print(f"| code beyond weights, {CAPITAL} | 300 KB | {row['code_bytes'] / 1e3:.0f} KB |")
    print(
        f"| arena over its lower bound, the most | 1.10 | {widest['gap']:.3f} ({widest['name']}) |"
    )
    print(f"| undefined symbols | none | {sum(undefined) if undefined else 'nm is missing'} |\n")
    titles = " | ".join(f"{name} ms" for name in others)
    print(f"| model | aotc ms | {titles} | ratio | error | arena KB | over bound | code KB |")
    print(f"| --- | ---: |{' ---: |' * len(others)} ---: | ---: | ---: | ---: | ---: |")
    for row in rows:
        times = " | ".join(_digits(row["ms"][name]) for name in ("aotc", *others))
        print(
            f"| {row['name']} | {times} "
            f"| {row['ratio']:.2f} | {row['error']:.1e} | {row['arena_bytes'] / 1e3:.0f} "
            f"| {row['gap']:.3f} | {row['code_bytes'] / 1e3:.0f} |"
        )


def _digits(ms: float) -> str:
    """Three significant digits without an exponent."""
    return f"{ms:.{max(0, 2 - math.floor(math.log10(ms)))}f}"


def _in_child(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """``measure_model`` in a fresh process on as many cores as threads, so that models do not
    disturb each other."""
    command = [sys.executable, __file__, "--one", name, "--seconds", str(args.seconds)]
    command += ["--against", args.against, "--threads", str(args.threads)]
    cores = sorted(os.sched_getaffinity(0))[: args.threads]
    done = subprocess.run(
        command,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="MODEL")
    parser.add_argument("--seconds", type=float, default=3.0, help="of timing per engine and model")
    parser.add_argument(
        "--against",
        default="onnxruntime",
        metavar="ENGINES",
        help="onnxruntime, openvino or both, separated by commas (default: onnxruntime)",
    )
    parser.add_argument("--threads", type=int, default=1, help="of every engine (default: 1)")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    names = args.names or [model.name for model in MODELS]
    if args.one:
        against = args.against.split(",")
        print(json.dumps(measure_model(names[0], args.seconds, against, args.threads)))
        return 0
    rows, missing = [], []
    for number, name in enumerate(names, 1):
        print(f"[{number}/{len(names)}] {name}", file=sys.stderr)
        try:
            get_model(name)
        except Unavailable as error:
            missing.append(f"{name}: {error}")
            continue
        rows.append(_in_child(name, args))
    compilation = measure_compilation(CAPITAL) if CAPITAL in names else None
    if rows:
        print_report(rows, compilation)
    for line in missing:
        print(f"left out: {line}", file=sys.stderr)
    return 1 if missing or not all(row["passed"] for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
