"""Facts about the buffers of a kernel: in go statements, out come elements read, stores, lanes.

A vector store with fewer active lanes than physical ones may write all lanes of a REGISTER buffer
when nobody reads the inactive ones; otherwise it must keep their old values.
"""

from __future__ import annotations

import itertools

from aotc.codegen.linear import IndexAnalysis
from aotc.loop.ir import Alloc, Bind, Buffer, Expr, For, Kernel, Kind, Load, Space, Stmt, Store, Var
from aotc.loop.walk import post_order


def read_elements(kernel: Kernel, analysis: IndexAnalysis) -> dict[Buffer, set[int] | None]:
    """Of each REGISTER buffer with a partial vector store, the elements ever read (None: all)."""
    reads: list[tuple[Load, dict[Var, For]]] = []
    partial: set[Buffer] = set()
    _walk(kernel.body, {}, reads, partial)
    result: dict[Buffer, set[int] | None] = {buffer: set() for buffer in partial}
    for load, loops in reads:
        known = result.get(load.buffer)
        if known is None:
            continue
        elements = _elements(load.index, loops, analysis)
        result[load.buffer] = None if elements is None else known | elements
    return result


def stores_in(body: tuple[Stmt, ...]) -> list[Store]:
    """All Store statements in ``body``, in order."""
    found: list[Store] = []
    for stmt in body:
        if isinstance(stmt, Store):
            found.append(stmt)
        elif isinstance(stmt, (For, Alloc, Bind)):
            found.extend(stores_in(stmt.body))
    return found


def most_lanes(body: tuple[Stmt, ...]) -> int:
    """The largest number of lanes of a vector loop in ``body``; 0 without one."""
    inner = [most_lanes(stmt.body) for stmt in body if isinstance(stmt, (For, Alloc, Bind))]
    own = [stmt.lanes for stmt in body if isinstance(stmt, For) and stmt.kind is Kind.VECTOR]
    return max(inner + own, default=0)


def _walk(
    body: tuple[Stmt, ...],
    loops: dict[Var, For],
    reads: list[tuple[Load, dict[Var, For]]],
    partial: set[Buffer],
) -> None:
    for stmt in body:
        if isinstance(stmt, For):
            _walk(stmt.body, {**loops, stmt.var: stmt}, reads, partial)
        elif isinstance(stmt, (Alloc, Bind)):
            _walk(stmt.body, loops, reads, partial)
        elif isinstance(stmt, Store):
            tails = [s for s in loops.values() if s.kind is Kind.VECTOR and s.extent < s.lanes]
            if stmt.buffer.space is Space.REGISTER and tails:
                partial.add(stmt.buffer)
            for expr in post_order((stmt.index, stmt.value)):
                if isinstance(expr, Load) and expr.buffer.space is Space.REGISTER:
                    reads.append((expr, loops))


def _elements(index: Expr, loops: dict[Var, For], analysis: IndexAnalysis) -> set[int] | None:
    form = analysis.linear(index)
    steps = []
    for term, coef in form.terms:
        loop = loops.get(term) if isinstance(term, Var) else None
        if loop is None or loop.kind not in (Kind.UNROLLED, Kind.VECTOR):
            return None
        steps.append([coef * value for value in range(loop.extent)])
    return {form.const + sum(offsets) for offsets in itertools.product(*steps)}
