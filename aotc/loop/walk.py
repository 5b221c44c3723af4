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
    Space,
    Stmt,
    Store,
    Widened,
)
from aotc.loop.ir_async import (
    MATRIX_ROW_BYTES,
    AsyncCommit,
    AsyncCopy,
    AsyncWait,
    LoadMatrix,
    ProxyFence,
    SignalExpect,
    SignalInit,
    SignalWait,
    TileCopy,
    Wgmma,
    WgmmaCommit,
    WgmmaFence,
    WgmmaWait,
)
from aotc.loop.mma import KINDS, RESULT_ELEMS
from aotc.loop.tiles import TileStmt, tile_accesses
from aotc.loop.wgmma import result_elems

#: Statements in which the order of the threads, or what they do together, matters.
_TOGETHER = (
    *(Barrier, Mma, AsyncCopy, AsyncCommit, AsyncWait, LoadMatrix),
    *(SignalInit, SignalExpect, SignalWait, TileCopy, ProxyFence),
    *(Wgmma, WgmmaFence, WgmmaCommit, WgmmaWait),
)
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


def all_statements(body: Sequence[Stmt]) -> Iterator[Stmt]:
    """Every statement of ``body``, each before those inside it."""
    for stmt in body:
        yield stmt
        yield from all_statements(getattr(stmt, "body", ()))


def has_barrier(body: Sequence[Stmt]) -> bool:
    """Whether threads meet, or work together, anywhere in ``body``."""
    for stmt in body:
        if isinstance(stmt, _TOGETHER) or has_barrier(getattr(stmt, "body", ())):
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


def loaded_words(stmt: LoadMatrix) -> int:
    """Elements of its register buffer that a LoadMatrix sets in one thread."""
    return stmt.count * 4 // stmt.to.dtype.size_bytes


def copy_accesses(stmt: AsyncCopy | LoadMatrix) -> Iterator[tuple[Buffer, Expr, bool]]:
    """(buffer, index, is a store) of what a thread asks for."""
    if isinstance(stmt, AsyncCopy):
        for expr in post_order((stmt.at, stmt.source_at, *((stmt.valid,) if stmt.valid else ()))):
            yield from ((*read, False) for read in elements_read(expr))
        for buffer, at in _neighbours(stmt.source, stmt.source_at, stmt.elems):
            yield buffer, at, False
        for buffer, at in _neighbours(stmt.buffer, stmt.at, stmt.elems):
            yield buffer, at, True
        return
    row = MATRIX_ROW_BYTES // stmt.source.dtype.size_bytes
    for buffer, at in _neighbours(stmt.source, stmt.at, row):
        yield buffer, at, False
    for buffer, at in _neighbours(stmt.to, stmt.to_at, loaded_words(stmt)):
        yield buffer, at, True


def box_start(stmt: TileCopy) -> Expr:
    """The index of the first element of the box in the buffer of the map."""
    at: Expr = Lit(stmt.map.offset)
    for first, stride in zip(stmt.position, stmt.map.strides, strict=True):
        at = Bin("add", at, Bin("mul", first, Lit(stride)))
    return at


def product_registers(stmt: Wgmma) -> tuple[tuple[Buffer, Expr, int], ...]:
    """The registers that a thread gives to a product, the result first: buffer, first element,
    number of elements."""
    sums = (stmt.d, stmt.d_at, result_elems(stmt.columns))
    left = (stmt.a, stmt.a_at, KINDS[stmt.kind].left_elems)
    return (sums, left) if stmt.a.space is Space.REGISTER else (sums,)


def warpgroup_accesses(stmt: TileCopy | Wgmma) -> Iterator[tuple[Buffer, Expr, bool]]:
    """(buffer, index, is a store) of what a thread asks for: of boxes and tiles the first element,
    of registers all."""
    if isinstance(stmt, TileCopy):
        for expr in post_order((*stmt.position, stmt.at, stmt.signal_at)):
            yield from ((*read, False) for read in elements_read(expr))
        yield stmt.map.buffer, box_start(stmt), False
        yield stmt.buffer, stmt.at, True
        return
    yield stmt.b, stmt.b_at, False
    if stmt.a.space is Space.SHARED:
        yield stmt.a, stmt.a_at, False
    for number, (buffer, first, count) in enumerate(product_registers(stmt)):
        for _, at in _neighbours(buffer, first, count):
            yield buffer, at, False
            if number == 0:
                yield buffer, at, True


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
            case AsyncCopy() | LoadMatrix():
                yield from copy_accesses(stmt)
            case TileCopy() | Wgmma():
                yield from warpgroup_accesses(stmt)
            case Mma():
                for number, (buffer, first, count) in enumerate(fragments(stmt)):
                    for t in range(count):
                        at = Bin("add", first, Lit(t)) if t else first
                        yield buffer, at, False
                        if number == 0:
                            yield buffer, at, True
            case Alloc(buffer=local, body=inner):
                yield from (found for found in accesses(inner) if found[0] is not local)
