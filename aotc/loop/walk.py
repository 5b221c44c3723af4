"""Walks over loop IR: expressions or statements in, the nodes or memory accesses in them out.

All walks over expressions are iterative, because fused chains nest deep.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from aotc.loop.ir import (
    GROUP,
    Alloc,
    Barrier,
    Bin,
    Bind,
    Buffer,
    DotProduct,
    Expr,
    For,
    Kind,
    Lit,
    Load,
    Mma,
    Shuffle,
    Stmt,
    Store,
    Widened,
)
from aotc.loop.mma import KINDS, RESULT_ELEMS
from aotc.loop.tiles import TileStmt, tile_accesses

#: The fields of expressions that may be expressions themselves.
OPERAND_FIELDS = ("cond", "x", "i", "j", "a", "b", "c", "index")


def operands(expr: Expr) -> tuple[Expr, ...]:
    """The direct operands of an expression; the indices of what it reads are among them."""
    fields = (getattr(expr, name, None) for name in OPERAND_FIELDS)
    return tuple(field for field in fields if isinstance(field, Expr))


def post_order(
    roots: Sequence[Expr], into: Callable[[Expr], tuple[Expr, ...]] = operands
) -> list[Expr]:
    """Every expression reached from ``roots`` through ``into`` once, operands before users."""
    order: list[Expr] = []
    seen: set[int] = set()
    stack = [(root, False) for root in reversed(roots)]
    while stack:
        expr, ready = stack.pop()
        if ready:
            order.append(expr)
        elif id(expr) not in seen:
            seen.add(id(expr))
            stack.append((expr, True))
            stack.extend((operand, False) for operand in reversed(into(expr)))
    return order


def elements_read(expr: Expr) -> Iterator[tuple[Buffer, Expr]]:
    """Every element that ``expr`` itself reads, as buffer and index."""
    match expr:
        case Load(buffer=buffer, index=index):
            yield buffer, index
        case DotProduct():
            for buffer, first in expr.reads:
                yield from _neighbours(buffer, first, expr.terms)
        case Widened(buffer=buffer, index=index):
            yield from _neighbours(buffer, index, GROUP)


def _neighbours(buffer: Buffer, first: Expr, count: int) -> Iterator[tuple[Buffer, Expr]]:
    for t in range(count):
        yield buffer, Bin("add", first, Lit(t)) if t else first


def has_parallel_loops(body: Sequence[Stmt]) -> bool:
    """Whether a PARALLEL loop occurs anywhere in ``body``."""
    return any(
        isinstance(stmt, (For, Alloc))
        and (
            (isinstance(stmt, For) and stmt.kind is Kind.PARALLEL) or has_parallel_loops(stmt.body)
        )
        for stmt in body
    )


def has_barrier(body: Sequence[Stmt]) -> bool:
    """Whether threads meet, or work together, anywhere in ``body``."""
    for stmt in body:
        if isinstance(stmt, (Barrier, Mma)) or has_barrier(getattr(stmt, "body", ())):
            return True
        roots = (stmt.index, stmt.value) if isinstance(stmt, Store) else ()
        if any(isinstance(expr, Shuffle) for expr in post_order(roots)):
            return True
    return False


def fragments(mma: Mma) -> tuple[tuple[Buffer, Expr, int], ...]:
    """The result, left and right factor of a thread: buffer, first element, number of elements."""
    kind = KINDS[mma.kind]
    return (
        (mma.d, mma.d_at, RESULT_ELEMS),
        (mma.a, mma.a_at, kind.left_elems),
        (mma.b, mma.b_at, kind.right_elems),
    )


def accesses(body: Sequence[Stmt]) -> Iterator[tuple[Buffer, Expr, bool]]:
    """(buffer, index, is a store) of every access in ``body`` to buffers that it does not
    declare."""
    for stmt in body:
        match stmt:
            case Store(buffer=buffer, index=index, value=value):
                yield buffer, index, True
                for expr in post_order((index, value)):
                    yield from ((*read, False) for read in elements_read(expr))
            case For(body=inner):
                yield from accesses(inner)
            case Bind(value=value, body=inner):
                for expr in post_order((value,)):
                    yield from ((*read, False) for read in elements_read(expr))
                yield from accesses(inner)
            case TileStmt():
                yield from tile_accesses(stmt)
            case Mma():
                for number, (buffer, first, count) in enumerate(fragments(stmt)):
                    for t in range(count):
                        at = Bin("add", first, Lit(t)) if t else first
                        yield buffer, at, False
                        if number == 0:
                            yield buffer, at, True
            case Alloc(buffer=local, body=inner):
                yield from (found for found in accesses(inner) if found[0] is not local)
