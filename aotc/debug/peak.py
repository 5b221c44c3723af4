"""A target in, the loop-IR kernels that show what one core of this machine can do out."""

from __future__ import annotations

from collections.abc import Callable

from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import (
    Alloc,
    Bin,
    Buffer,
    Expr,
    Fma,
    For,
    Kernel,
    Kind,
    Lit,
    Load,
    Space,
    Stmt,
    Store,
)
from aotc.lower.scope import loop, vector
from aotc.target import Target

FMA_STEPS = 20_000
SWEEP_BYTES = 1 << 27  # more than the caches of a core hold
_CHAINS = 12  # independent sums: more than latency times ports, fewer than any register file


def fma_kernel(target: Target) -> Kernel:
    """``_CHAINS`` vectors of float32 sums, each taking FMA_STEPS dependent FMAs from registers.
    The parameters are float32 [_CHAINS * lanes] in and out."""
    return _accumulating("peak_fma", target, FMA_STEPS, sweeps=False)


def sweep_kernel(target: Target, size_bytes: int = SWEEP_BYTES) -> Kernel:
    """Reads ``size_bytes`` of float32 once, in order, and adds them up lane by lane."""
    lanes = target.vector_bits // 32
    return _accumulating("peak_read", target, size_bytes // 4 // (_CHAINS * lanes), sweeps=True)


def _accumulating(name: str, target: Target, steps: int, *, sweeps: bool) -> Kernel:
    lanes = target.vector_bits // 32
    width = _CHAINS * lanes
    source = Buffer("in0", DType.F32, width * (steps if sweeps else 1))
    out = Buffer("out1", DType.F32, width)
    sums = Buffer("sums", DType.F32, width, Space.REGISTER)

    def each(body: Callable[[Expr], Store]) -> list[Stmt]:
        def chain(u: Expr) -> list[For]:
            first = index.mul(u, lanes)
            return [vector("v", lanes, lanes, lambda v: [body(index.add(first, v))])]

        return loop("u", _CHAINS, chain, Kind.UNROLLED)

    def step(t: Expr) -> list[Stmt]:
        def add(at: Expr) -> Store:
            if sweeps:
                value = Load(source, index.add(index.mul(t, width), at))
                return Store(sums, at, Bin("add", Load(sums, at), value))
            total = Load(sums, at)
            return Store(sums, at, Fma(total, Lit(0.5, DType.F32), Lit(1.0, DType.F32)))

        return each(add)

    body = [
        *each(lambda at: Store(sums, at, Load(source, at))),
        *loop("t", steps, step),
        *each(lambda at: Store(out, at, Load(sums, at))),
    ]
    return Kernel(name, (source, out), frozenset({out}), (Alloc(sums, tuple(body)),))
