"""Threads: a Program goes in, the same Program comes out with loops marked PARALLEL in each kernel
that is worth sharing.

Only loops whose iterations provably touch different results are marked, so the bytes do not depend
on the number of threads. Under threads every part runs the whole kernel with its share of each
PARALLEL loop; a statement that is no loop becomes a PARALLEL loop of one iteration.
"""

from __future__ import annotations

from dataclasses import replace

from aotc.loop.disjoint import iterations_disjoint
from aotc.loop.ir import Alloc, For, Kernel, Kind, Stmt, Var
from aotc.loop.program import Program, counted_calls, map_calls
from aotc.loop.tiles import TileStmt
from aotc.loop.walk import accesses

#: Vector statements of a kernel below which meeting at a barrier costs more than sharing saves.
MIN_WORK = 8000
#: Vector statements that take as long as one on a tile register.
TILE_WORK = 16
#: The same for a whole program: in half a millisecond on one core, fetching each other's results
#: from cache to cache costs more than half of the arithmetic (measured: 0.03 ms became 0.045 with
#: two threads, 0.30 became 0.45, but 4.9 became 3.3).
MIN_PROGRAM_WORK = 4_000_000
#: The numbers of threads for which the split should come out even.
LIKELY_PARTS = (2, 4, 8)
#: A split this even needs no deeper loop.
EVEN_ENOUGH = 0.9


def parallelize(program: Program) -> Program:
    """Marks loops of all kernels that are independent and large enough, if the program is."""
    work = {kernel: sum(map(_work, kernel.body)) for kernel in program.kernels()}
    counted = counted_calls(program.steps)
    if sum(times * work[call.kernel] for call, times in counted) < MIN_PROGRAM_WORK:
        return program
    marked: dict[Kernel, Kernel] = {}
    for kernel in program.kernels():
        marked[kernel] = kernel
        if kernel.independent and work[kernel] >= MIN_WORK:
            marked[kernel] = replace(kernel, body=tuple(_share(stmt) for stmt in kernel.body))
    steps = map_calls(program.steps, lambda call: replace(call, kernel=marked[call.kernel]))
    return replace(program, steps=steps)


def _work(stmt: Stmt) -> int:
    """How many scalar or vector statements ``stmt`` executes."""
    if isinstance(stmt, Alloc):
        return sum(map(_work, stmt.body))
    if isinstance(stmt, For):
        inner = sum(map(_work, stmt.body))
        return inner if stmt.kind is Kind.VECTOR else inner * stmt.extent
    return TILE_WORK if isinstance(stmt, TileStmt) else 1


def _evenness(extent: int) -> float:
    """The mean share of the threads' time that is used when ``extent`` iterations are split."""
    shares = [extent / (parts * -(-extent // parts)) for parts in LIKELY_PARTS]
    return sum(shares) / len(shares)


def _share(stmt: Stmt) -> Stmt:
    """``stmt`` with the best loop of its perfect nest marked, or as one iteration for one part."""
    candidates: list[For] = []
    at = stmt
    while isinstance(at, For) and at.kind is Kind.SERIAL:
        if iterations_disjoint(at):
            candidates.append(at)
        if len(at.body) != 1:
            break
        at = at.body[0]
    chosen = next((c for c in candidates if _evenness(c.extent) >= EVEN_ENOUGH), None)
    if chosen is None and candidates:
        chosen = max(candidates, key=lambda c: _evenness(c.extent))
        if at is candidates[-1] and _writes_once(at):
            # uneven, but inside it lie several loops that can each be shared
            inner = replace(at, body=tuple(_share(part) for part in at.body))
            if _evenness_of(inner.body) > _evenness(chosen.extent):
                return _replace(stmt, at, inner)
    if chosen is None:
        return For(Var("once"), 1, (stmt,), Kind.PARALLEL)
    return _replace(stmt, chosen, replace(chosen, kind=Kind.PARALLEL))


def _replace(stmt: Stmt, old: For, new: For) -> Stmt:
    """The perfect nest ``stmt`` with the loop ``old`` in it replaced."""
    if stmt is old:
        return new
    assert isinstance(stmt, For)
    return replace(stmt, body=(_replace(stmt.body[0], old, new),))


def _writes_once(loop: For) -> bool:
    """Whether the body never reads what it stores, so that its statements are independent too:
    every lowering stores each result once, unless it collects sums in it."""
    found = list(accesses(loop.body))
    stored = {id(buffer) for buffer, _, is_store in found if is_store}
    return not any(id(buffer) in stored for buffer, _, is_store in found if not is_store)


def _evenness_of(stmts: tuple[Stmt, ...]) -> float:
    """The mean evenness of the loops marked in ``stmts``, each weighted by its work."""
    total = sum(map(_work, stmts))
    return sum(_work(stmt) * _marked_evenness(stmt) for stmt in stmts) / total


def _marked_evenness(stmt: Stmt) -> float:
    while isinstance(stmt, For) and stmt.kind is not Kind.PARALLEL and len(stmt.body) == 1:
        stmt = stmt.body[0]
    return _evenness(stmt.extent) if isinstance(stmt, For) and stmt.kind is Kind.PARALLEL else 0.0
