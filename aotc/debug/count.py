"""Kernels in, what they compute and touch out: arithmetic and bytes, counted by walking the loops.
"""

from __future__ import annotations

from collections.abc import Sequence

from aotc.loop.ir import Alloc, Bin, Bind, Expr, Fma, For, Kernel, Mma, Space, Stmt, Store, Un
from aotc.loop.ir_async import WARPGROUP, Wgmma
from aotc.loop.mma import COLUMNS, KINDS, ROWS
from aotc.loop.traffic import count_accesses
from aotc.loop.walk import post_order
from aotc.loop.wgmma import ROWS as WARPGROUP_ROWS


def count_flop(kernel: Kernel) -> int:
    """Floating-point operations of one call: an Fma is two, other arithmetic on floats one, in
    every active lane; comparisons, choices and conversions are none."""
    return _flop(kernel.body)


def count_bytes(kernel: Kernel) -> int:
    """Bytes of memory that one call touches: what it reads and what it writes of each parameter,
    at most the whole parameter each, however often it comes back to an element."""
    return sum(
        min(times, buffer.elems) * buffer.dtype.size_bytes
        for counter in count_accesses(kernel)
        for buffer, times in counter.items()
        if buffer.space is Space.GLOBAL
    )


def _flop(stmts: Sequence[Stmt]) -> int:
    total = 0
    for stmt in stmts:
        match stmt:
            case Store(index=index, value=value):
                total += sum(_flop_of(expr) for expr in post_order((index, value)))
            case Mma(kind=kind):
                # what a warp does, shared by its threads
                total += 2 * ROWS * COLUMNS * KINDS[kind].depth // 32
            case Wgmma(kind=kind, columns=columns):
                total += 2 * WARPGROUP_ROWS * columns * KINDS[kind].depth // WARPGROUP
            case For(extent=extent, body=body):
                total += extent * _flop(body)
            case Alloc(body=body) | Bind(body=body):
                total += _flop(body)
    return total


def _flop_of(expr: Expr) -> int:
    if not isinstance(expr, (Fma, Bin, Un)) or not expr.dtype.is_float:
        return 0
    return 2 if isinstance(expr, Fma) else 1
