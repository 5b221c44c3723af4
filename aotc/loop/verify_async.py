"""Rules for statements that begin work which ends later: a statement in, what is wrong with it out,
and the elements that it touches.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from aotc.loop.ir import Buffer, Expr, Space
from aotc.loop.ir_async import MATRIX_ROW_BYTES, AsyncCommit, AsyncCopy, AsyncWait, LoadMatrix
from aotc.loop.launch import SHARED_ALIGNMENT
from aotc.loop.walk import loaded_words

_COPIED_BYTES = (4, 8, 16)
_COUNTS = (1, 2, 4)


class Range(NamedTuple):
    """``elems`` neighbours of ``buffer``; where it is memory, at a multiple of their number, or of
    ``unit`` if that is not 0."""

    buffer: Buffer
    first: Expr
    elems: int
    unit: int = 0


def copy_problem(
    stmt: AsyncCopy | AsyncCommit | AsyncWait | LoadMatrix, writes: Collection[Buffer]
) -> str | None:
    """What is wrong with the buffers and numbers of a statement in a kernel that ``writes``."""
    match stmt:
        case AsyncCopy(buffer=buffer, source=source, elems=elems):
            size = elems * source.dtype.size_bytes
            if (buffer.space, source.space) != (Space.SHARED, Space.GLOBAL):
                return "a copy that is not from global to shared memory"
            if buffer.dtype is not source.dtype or size not in _COPIED_BYTES:
                return f"a copy of {size} bytes of {source.dtype.value} to {buffer.dtype.value}"
            if _alignment(buffer) % size or _alignment(source) % size:
                return f"a copy of {size} bytes from or to what is less aligned"
            # until the copy has ended nobody may store to what it reads
            return f"a copy of '{source.name}', which is stored to" if source in writes else None
        case AsyncWait(pending=pending):
            return f"a wait for all but {pending} copies" if pending < 0 else None
        case LoadMatrix(to=to, source=source, count=count, transposed=transposed):
            sizes = (2,) if transposed else (2, 4)
            if (to.space, source.space) != (Space.REGISTER, Space.SHARED):
                return "matrices not loaded from shared memory to registers"
            if to.dtype is not source.dtype or source.dtype.size_bytes not in sizes:
                return f"matrices of {source.dtype.value} loaded to {to.dtype.value}"
            return None if count in _COUNTS else f"{count} matrices"
    return None


def copy_ranges(stmt: AsyncCopy | AsyncCommit | AsyncWait | LoadMatrix) -> tuple[Range, ...]:
    """What a thread touches or names in a statement that `copy_problem` has let pass."""
    match stmt:
        case AsyncCopy():
            return (
                Range(stmt.buffer, stmt.at, stmt.elems),
                Range(stmt.source, stmt.source_at, stmt.elems),
            )
        case LoadMatrix():
            row = MATRIX_ROW_BYTES // stmt.source.dtype.size_bytes
            return (
                Range(stmt.to, stmt.to_at, loaded_words(stmt)),
                Range(stmt.source, stmt.at, row),
            )
    return ()


def _alignment(buffer: Buffer) -> int:
    if buffer.space is Space.SHARED:
        return SHARED_ALIGNMENT
    return buffer.alignment or buffer.dtype.size_bytes
