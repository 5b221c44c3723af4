"""Rows of queries, keys and values on their way to shared memory: a view and the rows of a tile go
in, asynchronous copies of 16 bytes come out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import Bin, Buffer, Cmp, Expr, Kind, Space, Stmt
from aotc.loop.ir_async import MATRIX_ROW_BYTES, AsyncCopy
from aotc.lower.context import Context
from aotc.lower.gpu.binding import bind, digits, held_below
from aotc.lower.scope import STORAGE_ALIGNMENT, Access, loop
from aotc.lower.views import View

#: Copies of a thread that are laid out in line; the addresses of more would take its registers.
IN_LINE = 8


def as_copied(context: Context, view: View, dtype: DType) -> View:
    """``view`` [*batch, rows, width] if copies of 16 bytes can bring its rows to shared memory as
    ``dtype``; else a packed copy of it, for which a kernel is emitted."""
    unit = MATRIX_ROW_BYTES // dtype.size_bytes
    *outer, inner = view.strides
    steps = (*outer, *(step for _, step in view.moves))
    aligned = view.arg.alignment(STORAGE_ALIGNMENT) == STORAGE_ALIGNMENT
    whole = all(step >= 0 and step % unit == 0 for step in steps)
    if view.dtype is dtype and inner == 1 and view.shape[-1] % unit == 0 and aligned and whole:
        return view
    # batch axes along which it repeats are not copied again and again
    seen = replace(view, shape=_once(view), strides=view.strides)
    value = None if dtype is view.value_dtype else view.value_dtype
    packed = context.temporary(dtype, seen.shape, "copy", value)
    context.copy(seen, packed)
    return packed.broadcast(view.shape)


def _once(view: View) -> tuple[int, ...]:
    """The shape of ``view`` with each batch axis of stride 0 reduced to one."""
    batch = zip(view.shape[:-2], view.strides[:-2], strict=True)
    return (*(1 if step == 0 else dim for dim, step in batch), *view.shape[-2:])


@dataclass(frozen=True)
class RowCopies:
    """``rows`` rows at once, ``stages`` times, of the view that ``access`` reaches: of ``width``
    elements each, of which there are ``total``. In shared memory a row has ``filled`` elements,
    zeros behind its own, and the next one begins ``stride`` elements behind it."""

    name: str
    access: Access
    total: int
    width: int
    filled: int
    stride: int
    rows: int
    stages: int
    threads: int

    @property
    def unit(self) -> int:
        """Elements of one copy."""
        return MATRIX_ROW_BYTES // self.access.buffer.dtype.size_bytes

    @property
    def size(self) -> int:
        """Elements of one stage."""
        return self.rows * self.stride

    def buffer(self) -> Buffer:
        """A place in shared memory for all stages."""
        dtype = self.access.buffer.dtype
        return Buffer(self.name, dtype, self.stages * self.size, Space.SHARED)

    def begin(
        self,
        to: Buffer,
        thread: Expr,
        at: Sequence[Expr],
        first: Expr,
        stage: Expr,
        zeros: bool,
    ) -> list[Stmt]:
        """The copies of ``thread`` for the rows from ``first`` on, of the batch ``at``, to one
        ``stage`` of ``to``. Rows beyond the last are ``zeros``, or the last one again."""
        pieces = self.filled // self.unit
        across = min(1 << (pieces - 1).bit_length(), self.threads)
        down = self.threads // across

        def placed(position: tuple[Expr, ...]) -> list[Stmt]:
            line, piece = position

            def one(i: Expr, j: Expr) -> list[Stmt]:
                row = index.add(line, index.mul(i, down))
                column = index.add(piece, index.mul(j, across))

                def with_row(row: Expr) -> list[Stmt]:
                    return bind(
                        "piece",
                        column,
                        pieces,
                        lambda piece: self._one(to, at, first, row, piece, stage, zeros),
                    )

                return bind("line", row, self.rows, with_row)

            passes = -(-self.rows // down)
            kind = Kind.UNROLLED if passes <= IN_LINE else Kind.SERIAL
            return loop(
                "i",
                passes,
                lambda i: loop("j", -(-pieces // across), lambda j: one(i, j), Kind.UNROLLED),
                kind,
            )

        return digits("copy", thread, (down, across), placed)

    def _one(
        self,
        to: Buffer,
        at: Sequence[Expr],
        first: Expr,
        row: Expr,
        piece: Expr,
        stage: Expr,
        zeros: bool,
    ) -> list[Stmt]:
        """The copy of one piece of one row."""
        number = index.add(first, row)
        valid: Expr | None = None
        full = self.width // self.unit
        if zeros:
            valid = Cmp("lt", number, index.lit(self.total))
        if self.filled > self.width:
            real = Cmp("lt", piece, index.lit(full))
            valid = real if valid is None else Bin("and", valid, real)
        place = index.linear(0, ((stage, self.size), (row, self.stride), (piece, self.unit)))

        def copy(source_row: Expr, source_piece: Expr) -> list[Stmt]:
            column = index.mul(source_piece, self.unit)
            source_at = self.access.index((*at, source_row, column))
            source = self.access.buffer
            return [AsyncCopy(to, place, source, source_at, self.unit, valid)]

        def with_row(source_row: Expr) -> list[Stmt]:
            if self.filled == self.width:
                return copy(source_row, piece)
            held = held_below(piece, full)
            return bind("held", held, full, lambda source_piece: copy(source_row, source_piece))

        return bind("row", held_below(number, self.total), self.total, with_row)
