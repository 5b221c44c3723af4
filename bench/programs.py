#!/usr/bin/env python3
"""Nothing in, numpy's time over that of the compiled function out, one thread each.

bench/programs.py [PROGRAM ...] [--scale N] [--rounds N]

The programs are those of tests/tracing/programs.py.

Both run in this process in turns; the median of each counts. The compiled function is called
through Python as numpy is, with its inputs bound once.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import sys
import time
from pathlib import Path

for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"  # read when numpy is imported
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import aotc  # noqa: E402
from tests.tracing.programs import Program, programs  # noqa: E402


def seconds(function, repeats: int) -> float:
    """The time of one call, of ``repeats`` in a row."""
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats


def measure(program: Program, rounds: int) -> tuple[float, float, float]:
    """Seconds of numpy, of the compiled function, and of tracing and compiling."""
    start = time.perf_counter()
    graph = aotc.trace(program.traced, *program.inputs, name=program.name)
    compiled = aotc.compile(graph, cpu="native")
    made = time.perf_counter() - start
    ours = compiled.bind(*program.inputs)
    pair = (lambda: program.plain(*program.inputs), ours)
    repeats = [max(1, int(0.01 / max(seconds(each, 2), 1e-7))) for each in pair]
    times = [[seconds(*item) for item in zip(pair, repeats, strict=True)] for _ in range(rounds)]
    theirs, own = (statistics.median(column) for column in zip(*times, strict=True))
    return theirs, own, made


def main() -> None:
    parser = argparse.ArgumentParser(description="numpy against compiled functions")
    parser.add_argument("programs", nargs="*")
    parser.add_argument("--scale", type=int, default=4, help="how much larger than in the tests")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    ratios = []
    print("| program | numpy | compiled | ratio | trace and compile |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for program in programs(options.scale):
        if options.programs and program.name not in options.programs:
            continue
        theirs, own, made = measure(program, options.rounds)
        ratios.append(theirs / own)
        shown = f"{theirs * 1e3:.4f} ms | {own * 1e3:.4f} ms | {theirs / own:.2f} | {made:.2f} s"
        print(f"| {program.name} | {shown} |", flush=True)
    if ratios:
        print(f"\nleast {min(ratios):.2f}, geometric mean "
              f"{math.exp(statistics.fmean(map(math.log, ratios))):.2f}")  # fmt: skip


if __name__ == "__main__":
    main()
