#!/usr/bin/env python3
"""Nothing in, what weights stored in few bits give out, as markdown tables: matrix-vector products
against the rate at which one core reads memory, and the sizes of objects.

bench/weights.py [--size 4096] [--layers 12] [--rounds 5] [--models gpt2_64,minilm_l6_128]

One row of input by a square matrix. The rate is the bytes of the stored weights (codes and scales)
over the least time of the kernel of many runs; beside it the rate at which aotc's own sweep
(aotc/debug/peak.py) reads more memory than the caches hold, the best of all rounds, and a buffer of
the size of the weights. `chain` is as many products one after the other as --layers says, with
matrices of their own, which together are too large for the caches of a core. Run it pinned to one
core: taskset -c 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.models import get_model

DTYPES = ("f32", "f16", "bf16", "i8", "i4")


@dataclass
class Best:
    """The least time seen and the most that memory gave, in seconds and bytes a second."""

    seconds: float = float("inf")
    memory: float = 0.0
    same_size: float = 0.0


def chain_of_products(dtype: str, size: int, layers: int):
    """A Graph: ``layers`` products of one row by matrices of their own, with weights that
    compilation stores as ``dtype``; i8 has a scale a column, i4 one for each 32 codes of it."""
    from aotc.graph import ops
    from aotc.graph.build import Builder
    from aotc.graph.types import DType, TensorType
    from aotc.passes.shrink import BLOCK, quantized, short

    stored = {"f16": DType.F16, "bf16": DType.BF16, "i8": DType.I8, "i4": DType.I4}.get(dtype)
    rng = np.random.default_rng(0)
    builder = Builder()
    y = builder.parameter("x", TensorType(DType.F32, (1, size)))
    for _ in range(layers):
        weights = rng.standard_normal((size, size), np.float32) / np.float32(size**0.5)
        if stored is None:
            parts = [weights]
        elif stored.is_float:
            parts = [short(weights, stored)]
        else:
            block = BLOCK if stored is DType.I4 else size
            parts = list(quantized(weights, stored, 0, block, (0, 1)))
        nodes = [builder.constant(part) for part in parts]
        if stored is not None:
            block = BLOCK if stored is DType.I4 else size
            nodes = [builder.apply(ops.Widen(stored, 0, block), *nodes)]
        y = builder.apply(ops.Dot(), y, nodes[0])
    return builder.finish(f"chain_{dtype}", [("y", y)])


def measure_products(size: int, layers: int, rounds: int) -> None:
    """Prints the table of matrix-vector products."""
    from aotc.config import Options
    from aotc.debug.profile import profile_program, read_bandwidth
    from aotc.driver import plan_stages
    from aotc.memory.constants import lay_out_constants

    builds = {}
    for dtype in DTYPES:
        builds[dtype] = plan_stages(chain_of_products(dtype, size, layers), Options(cpu="native"))
    x = np.random.default_rng(1).standard_normal((1, size), np.float32)
    best = {dtype: Best() for dtype in DTYPES}
    stored = {d: lay_out_constants(b.program).size_bytes for d, b in builds.items()}
    for _ in range(rounds):
        for dtype, build in builds.items():
            found = profile_program(
                build.program, build.plan, build.target, {"x": x}, budget_seconds=0.5
            )
            entry = best[dtype]
            entry.seconds = min(entry.seconds, sum(kernel.seconds for kernel in found.kernels))
            entry.memory = max(entry.memory, found.bandwidth)
            same = read_bandwidth(build.target, stored[dtype])
            entry.same_size = max(entry.same_size, same)
    memory = max(entry.memory for entry in best.values())
    print(f"{layers} x [1, {size}] x [{size}, {size}]; memory gives {memory / 1e9:.2f} GB/s\n")
    print("| weights | MB | us | GB/s | of memory | of a buffer of that size |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for dtype, entry in best.items():
        rate = stored[dtype] / entry.seconds
        print(
            f"| {dtype} | {stored[dtype] / 1e6:.2f} | {entry.seconds * 1e6:.0f} | "
            f"{rate / 1e9:.2f} | {rate / memory:.0%} | {rate / entry.same_size:.0%} |",
            flush=True,
        )
    print()


def measure_objects(names: list[str]) -> None:
    """Prints the table of sizes."""
    from aotc.config import Options
    from aotc.driver import plan_stages
    from aotc.memory.constants import lay_out_constants

    print("| model | " + " | ".join(f"{dtype}, MB" for dtype in DTYPES) + " |")
    print("| --- |" + " ---: |" * len(DTYPES))
    for name in names:
        sizes = []
        for dtype in DTYPES:
            chosen = None if dtype == "f32" else dtype
            build = plan_stages(get_model(name), Options(cpu="native", weights_dtype=chosen))
            sizes.append(lay_out_constants(build.program).size_bytes)
        shown = (f"{size / 1e6:.1f} ({size / sizes[0]:.3f})" for size in sizes)
        print(f"| {name} | " + " | ".join(shown) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Weights stored in few bits.")
    parser.add_argument("--size", type=int, default=4096, help="rows and columns of a matrix")
    parser.add_argument("--layers", type=int, default=1, help="products one after the other")
    parser.add_argument("--rounds", type=int, default=5, help="the best of so many")
    parser.add_argument("--models", default="", help="print the sizes of these models' constants")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if args.models:
        measure_objects(args.models.split(","))
    else:
        measure_products(args.size, args.layers, args.rounds)


if __name__ == "__main__":
    main()
