"""Kernels and programs in, how often what they touch is read and written out, counted in the loops.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from aotc.loop.ir import Alloc, Bind, Buffer, For, Kernel, Stmt, Store
from aotc.loop.ir_async import AsyncCopy, TileCopy
from aotc.loop.program import Program, Storage, counted_calls
from aotc.loop.tiles import TileStmt, elements_moved
from aotc.loop.walk import elements_read, post_order


def count_accesses(kernel: Kernel) -> tuple[Counter[Buffer], Counter[Buffer]]:
    """Elements of each buffer that one call reads, and writes: one again and again counts each
    time, in every lane of a vector."""
    reads: Counter[Buffer] = Counter()
    writes: Counter[Buffer] = Counter()
    _count(kernel.body, 1, reads, writes)
    return reads, writes


def count_traffic(program: Program) -> Counter[Storage]:
    """Bytes that one run reads from and writes to each storage: both branches as if taken, loops as
    often as they are likely to run."""
    traffic: Counter[Storage] = Counter()
    known: dict[Kernel, tuple[Counter[Buffer], Counter[Buffer]]] = {}
    for call, times in counted_calls(program.steps):
        if call.kernel not in known:
            known[call.kernel] = count_accesses(call.kernel)
        reads, writes = known[call.kernel]
        for param, arg in zip(call.kernel.params, call.args, strict=True):
            elems = reads[param] + writes[param]
            traffic[arg.storage] += times * elems * param.dtype.size_bytes
    return traffic


def _count(
    stmts: Sequence[Stmt], times: int, reads: Counter[Buffer], writes: Counter[Buffer]
) -> None:
    for stmt in stmts:
        match stmt:
            case Store(buffer=buffer, index=index, value=value):
                writes[buffer] += times
                for expr in post_order((index, value)):
                    for source, _ in elements_read(expr):
                        reads[source] += times
            case AsyncCopy(buffer=buffer, source=source, elems=elems):
                writes[buffer] += times * elems
                reads[source] += times * elems
            case TileCopy(buffer=buffer, map=source_map):
                elems = math.prod(source_map.box)
                writes[buffer] += times * elems
                reads[source_map.buffer] += times * elems
            case TileStmt():
                moved = elements_moved(stmt)
                if moved is not None:
                    buffer, elems, is_store = moved
                    (writes if is_store else reads)[buffer] += times * elems
            case For(extent=extent, body=body):
                _count(body, times * extent, reads, writes)
            case Alloc(body=body) | Bind(body=body):
                _count(body, times, reads, writes)
