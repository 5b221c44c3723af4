"""Tiles of an operand of plain multiply-adds on their way to shared memory: which thread brings
which elements.

A chunk of an operand is ``rows`` x ``depth`` elements. Threads load vectors of it from global
memory to registers, and later store them to shared memory, where each row of the tile has its
chunk of the depth side by side, as the numbers that memory stands for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import (
    Buffer,
    Cmp,
    Expr,
    For,
    Kind,
    Lit,
    Load,
    Sel,
    Space,
    Stmt,
    Store,
    Var,
)
from aotc.lower.gpu.binding import bind, digits, held_below
from aotc.lower.scope import Access, loop

VECTOR_BYTES = 16
Chunk = tuple[Expr, ...]
"""The position of a chunk on the depth axes; the last counts chunks. Where chunks do not divide
the innermost axis, the number of the chunk alone."""


@dataclass(frozen=True)
class Source:
    """One operand: element (row, depth) is ``index(row position, depth position)`` of ``access``.
    ``dims`` are the axes of its rows, ``depth`` those of the depth; ``along_depth`` tells on which
    side the innermost axis is contiguous, ``strided`` that on neither."""

    access: Access
    index: Callable[[Sequence[Expr], Sequence[Expr]], Expr]
    dims: tuple[int, ...]
    depth: tuple[int, ...]
    along_depth: bool
    strided: bool = False

    @property
    def extent(self) -> int:
        return math.prod(self.dims)


def padded(depth: int, dtype: DType) -> int:
    """Elements from one row to the next in shared memory, so that reads of a warp meet all banks.
    """
    return depth + VECTOR_BYTES // dtype.size_bytes


class Staging:
    """The way of one operand in tiles of ``rows`` x ``depth``. ``dtype`` is what shared memory
    holds; it has two chunks."""

    def __init__(
        self,
        name: str,
        source: Source,
        rows: int,
        depth: int,
        threads: int,
        dtype: DType,
    ) -> None:
        self.source = source
        self.rows = rows
        self.depth = depth
        self.divides = source.depth[-1] % depth == 0
        self.vector = self._vector(threads)
        line = depth if self._along_depth else rows
        self._per_line = line // self.vector
        self._step = threads // self._per_line
        self.count = rows * depth // (self.vector * threads)
        self.stride = padded(depth, dtype)
        self.size = rows * self.stride
        self.registers = Buffer(
            f"{name}_ahead", source.access.buffer.dtype, self.count * self.vector, Space.REGISTER
        )
        self.shared = Buffer(f"{name}_tile", dtype, 2 * self.size, Space.SHARED, 128)

    @property
    def _along_depth(self) -> bool:
        return self.source.along_depth or not self.divides

    def _vector(self, threads: int) -> int:
        """Elements that a thread takes at once."""
        source = self.source
        if not self.divides or source.strided:
            return 1
        line = source.depth[-1] if source.along_depth else source.dims[-1]
        tile_line = self.depth if source.along_depth else self.rows
        width = VECTOR_BYTES // source.access.buffer.dtype.size_bytes
        while width > 1 and (line % width or tile_line % width):
            width //= 2
        while width > 1 and self.rows * self.depth < width * threads:
            width //= 2
        return width

    def place(self, thread: Expr, first: Expr, body: Callable[[Placed], list[Stmt]]) -> list[Stmt]:
        """``body`` with the part of ``thread`` bound; the tile's rows begin at ``first``."""

        def located(line: Expr, inside: Expr) -> list[Stmt]:
            within = index.mul(inside, self.vector)
            if not self._along_depth:
                number = index.add(index.div(first, self.vector), inside)
                return self._row(
                    number, self.vector, lambda at: body(Placed(self, line, within, (at,)))
                )
            found: list[tuple[Expr, ...]] = []

            def nest(i: int) -> list[Stmt]:
                if i == self.count:
                    return body(Placed(self, line, within, tuple(found)))
                local = index.add(line, index.lit(i * self._step))
                def with_row(at: tuple[Expr, ...]) -> list[Stmt]:
                    found.append(at)
                    return nest(i + 1)

                return self._row(index.add(first, local), 1, with_row)

            return nest(0)

        return bind(
            "line",
            index.div(thread, self._per_line),
            self._step,
            lambda line: bind(
                "inside",
                index.mod(thread, self._per_line),
                self._per_line,
                lambda inside: located(line, inside),
            ),
        )

    def _row(
        self, number: Expr, size: int, body: Callable[[tuple[Expr, ...]], list[Stmt]]
    ) -> list[Stmt]:
        """``body`` of the position of the first of ``size`` rows, of which ``number`` are before;
        beyond the last ones, the last."""
        *outer, inner = self.source.dims
        extent = self.source.extent // size

        def found(at: tuple[Expr, ...]) -> list[Stmt]:
            return body((*at[:-1], index.mul(at[-1], size)))

        return bind(
            "row",
            held_below(number, extent),
            extent,
            lambda row: digits("at", row, (*outer, inner // size), found),
        )

    def line_step(self, i: int) -> int:
        """Lines from a thread's first vector to its vector ``i``."""
        return i * self._step


@dataclass(frozen=True)
class Placed:
    """The part of one thread: its first line, the place within lines, and the positions of its rows
    (one, where vectors run along the rows)."""

    staging: Staging
    line: Expr
    within: Expr
    rows: tuple[tuple[Expr, ...], ...]

    def load(self, chunk: Chunk) -> list[Stmt]:
        """Brings the thread's part of a chunk to its registers."""
        staging = self.staging
        if not staging.divides:
            return self._load_ragged(chunk[0])
        stmts: list[Stmt] = []
        for i in range(staging.count):
            line = index.add(self.line, index.lit(staging.line_step(i)))
            offset = self.within if staging.source.along_depth else line
            term = index.add(index.mul(chunk[-1], staging.depth), offset)
            row = self.rows[i] if staging.source.along_depth else self.rows[0]

            def vector(term: Expr, i: int = i, row: tuple[Expr, ...] = row) -> list[Stmt]:
                return [self._load_vector(i, row, (*chunk[:-1], term))]

            total = staging.source.depth[-1]
            if total % staging.depth:
                stmts += bind("term", held_below(term, total), total, vector)
            else:
                stmts += vector(term)
        return stmts

    def _load_vector(self, i: int, row: tuple[Expr, ...], term: tuple[Expr, ...]) -> Stmt:
        """Vector ``i`` of the thread, which begins at this row and term."""
        staging, source = self.staging, self.staging.source

        def one(v: Expr) -> Stmt:
            if source.along_depth:
                at = source.index(row, (*term[:-1], index.add(term[-1], v)))
            else:
                at = source.index((*row[:-1], index.add(row[-1], v)), term)
            to = index.add(index.lit(i * staging.vector), v)
            return Store(staging.registers, to, Load(source.access.buffer, at))

        return self._vector(one)

    def _load_ragged(self, chunk: Expr) -> list[Stmt]:
        """Element by element, zero beyond the last term."""
        staging, source = self.staging, self.staging.source
        total = math.prod(source.depth)
        term = index.add(index.mul(chunk, staging.depth), self.within)
        inside = Cmp("lt", term, index.lit(total))

        def at(k: tuple[Expr, ...]) -> list[Stmt]:
            stmts: list[Stmt] = []
            for i, row in enumerate(self.rows):
                value = Load(source.access.buffer, source.index(row, k))
                zero = Lit(0, value.dtype)
                stmts.append(Store(staging.registers, index.lit(i), Sel(inside, value, zero)))
            return stmts

        held = held_below(term, total)
        return bind("term", held, total, lambda k: digits("k", k, source.depth, at))

    def store(self, half: Expr) -> list[Stmt]:
        """Puts what the registers hold into one half of the shared tile."""
        staging = self.staging
        begin = index.mul(half, staging.size)
        stmts: list[Stmt] = []
        for i in range(staging.count):
            line = index.add(self.line, index.lit(staging.line_step(i)))

            def one(v: Expr, i: int = i, line: Expr = line) -> Stmt:
                along = staging.source.along_depth or not staging.divides
                within = index.add(self.within, v)
                row, k = (line, within) if along else (within, line)
                at = index.add(begin, index.add(index.mul(row, staging.stride), k))
                held = Load(staging.registers, index.add(index.lit(i * staging.vector), v))
                return Store(staging.shared, at, staging.source.access.number(held))

            if staging.source.along_depth:
                stmts.append(self._vector(one))
            else:
                stmts += loop("v", staging.vector, lambda v: [one(v)], Kind.UNROLLED)
        return stmts

    def _vector(self, body: Callable[[Expr], Stmt]) -> Stmt:
        var, count = Var("v"), self.staging.vector
        if count == 1:
            return For(var, 1, (body(var),), Kind.UNROLLED)
        return For(var, count, (body(var),), Kind.VECTOR, count)
