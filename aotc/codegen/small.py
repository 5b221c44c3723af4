"""A kernel in, whether its code belongs where it is called out.

A call with its addresses costs more than a few operations on numbers do, which loops of the model
(recurrent filters, searches) repeat in each iteration. LLVM then also sees that what one kernel
stores the next one loads.
"""

from __future__ import annotations

from collections.abc import Sequence

from aotc.loop.ir import For, Kernel, Kind, Stmt, Store
from aotc.loop.walk import post_order

MOST_OPERATIONS = 64
"""Expressions that a small kernel may have, with those of repeated statements."""


def is_small(kernel: Kernel) -> bool:
    """Whether a kernel is a few statements on numbers: no vectors, no loop that counts."""
    return _operations(kernel.body) <= MOST_OPERATIONS


def _operations(body: Sequence[Stmt]) -> int:
    total = 0
    for stmt in body:
        if isinstance(stmt, Store):
            total += len(post_order((stmt.index, stmt.value)))
            continue
        if not isinstance(stmt, For) or stmt.kind in (Kind.VECTOR, Kind.PARALLEL):
            return MOST_OPERATIONS + 1
        if stmt.extent > 1 and stmt.kind is Kind.SERIAL:
            return MOST_OPERATIONS + 1
        total += stmt.extent * _operations(stmt.body)
    return total
