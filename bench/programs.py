#!/usr/bin/env python3
"""Nothing in, the times of numpy and other compilers over that of the compiled function out, one
thread each.

bench/programs.py [PROGRAM ...] [--against jax,numba] [--scale N] [--rounds N]

The programs are those of tests/tracing/programs.py; bench/program_peers.py has them as users of JAX
and numba write them. All run in this process in turns, on one core; the least time of the rounds
counts. The compiled function is called through Python as the others are, with its inputs bound
once; JAX gets arrays of its own and is waited for. Each result is compared with numpy's first.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # read when numpy is imported
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402

import aotc  # noqa: E402
from bench.program_peers import PEERS  # noqa: E402
from tests.tracing.programs import Program, programs  # noqa: E402


def seconds(function: Callable[[], Any], repeats: int) -> float:
    """The time of one call, of ``repeats`` in a row."""
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats


def with_jax(function: Callable[..., Any], program: Program) -> Callable[[], Any]:
    """A call of a jitted function whose results are there when it returns."""
    import jax

    inputs = [jax.device_put(x) for x in program.inputs]
    return lambda: jax.block_until_ready(function(*inputs))


def expect_same(name: str, program: Program, found: Any) -> None:
    """Ends the run when a peer computes something else."""
    expected = program.plain(*program.inputs)
    expected = expected if isinstance(expected, tuple) else (expected,)
    found = found if isinstance(found, tuple | list) else (found,)
    for wanted, got in zip(expected, found, strict=True):
        scale = 1e-3 * max(float(np.abs(wanted).max()), 1)
        # a border point of the Mandelbrot set may count one iteration more or less
        apart = np.abs(np.asarray(got, np.float64) - wanted) > scale
        if apart.mean() > (0.01 if program.name == "mandelbrot" else 0):
            sys.exit(f"{name} computes something else for {program.name}")


def measure(
    program: Program, peers: dict[str, dict[str, Callable[..., Any]]], rounds: int
) -> tuple[dict[str, float], float]:
    """Seconds of each by name, ours under "aotc"; and seconds of tracing and compiling."""
    start = time.perf_counter()
    graph = aotc.trace(program.traced, *program.inputs, name=program.name)
    compiled = aotc.compile(graph, cpu="native")
    made = time.perf_counter() - start
    calls: dict[str, Callable[[], Any]] = {
        "aotc": compiled.bind(*program.inputs),
        "numpy": lambda: program.plain(*program.inputs),
    }
    for name, functions in peers.items():
        function = functions[program.name]
        plain = lambda function=function: function(*program.inputs)  # noqa: E731
        calls[name] = with_jax(function, program) if name == "jax" else plain
    for name, call in calls.items():
        expect_same(name, program, call())
    repeats = {n: max(1, int(0.01 / max(seconds(call, 3), 1e-7))) for n, call in calls.items()}
    least = dict.fromkeys(calls, math.inf)
    for _ in range(rounds):
        for name, call in calls.items():
            least[name] = min(least[name], seconds(call, repeats[name]))
    return least, made


def mean(ratios: Sequence[float]) -> float:
    """The geometric mean."""
    return math.exp(statistics.fmean(map(math.log, ratios)))


def main() -> None:
    parser = argparse.ArgumentParser(description="numpy and others against compiled functions")
    parser.add_argument("programs", nargs="*")
    parser.add_argument("--against", default="", help=f"of {','.join(PEERS)}, those to time")
    parser.add_argument("--scale", type=int, default=4, help="how much larger than in the tests")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    peers = {name: PEERS[name]() for name in options.against.split(",") if name}
    over_numpy, over_peers = [], []
    names = ["numpy", *peers]
    print(f"| program | aotc | {' | '.join(names)} | numpy / aotc | best peer / aotc | made |")
    print("| --- |" + " ---: |" * (len(names) + 4))
    for program in programs(options.scale):
        if options.programs and program.name not in options.programs:
            continue
        least, made = measure(program, peers, options.rounds)
        over_numpy.append(least["numpy"] / least["aotc"])
        best = min((least[name] for name in peers), default=math.nan)
        over_peers.append(best / least["aotc"])
        shown = " | ".join(f"{least[name] * 1e6:.2f} us" for name in ("aotc", *names))
        print(f"| {program.name} | {shown} | {over_numpy[-1]:.2f} | {over_peers[-1]:.2f} |"
              f" {made:.2f} s |", flush=True)  # fmt: skip
    if over_numpy:
        print(f"\nnumpy over ours: least {min(over_numpy):.2f}, mean {mean(over_numpy):.2f}")
    if peers and over_peers:
        print(f"fastest peer over ours: least {min(over_peers):.2f}, mean {mean(over_peers):.2f}")


if __name__ == "__main__":
    main()
