"""Products of tensor cores from stages of shared memory: two factors in, the statements by which
the warps of a block load fragments and multiply them out.

Each warp has a rectangle of the tile. Columns of the right factor go to the instruction in an order
in which the results of one thread are runs of neighbours (`Layout`), so that it stores 16 bytes at
once.
"""

from __future__ import annotations

from collections.abc import Callable

from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import Bin, Buffer, Expr, For, Kind, Lit, Load, Mma, Space, Stmt, Store, Un, Var
from aotc.loop.ir_async import MATRIX_ROWS, LoadMatrix
from aotc.loop.launch import WARP
from aotc.loop.mma import COLUMNS, KINDS, RESULT_ELEMS, ROWS
from aotc.lower.gpu.binding import bind, digits
from aotc.lower.gpu.pipeline import Factor
from aotc.lower.scope import loop
from aotc.schedule.gpu import GpuTile

#: Sets of fragments: one is multiplied while the next is loaded.
_SETS = 2


class WarpProduct:
    """The sums of one thread and its fragments of both factors. ``run`` neighbours of a row of
    results belong to one thread."""

    def __init__(self, tile: GpuTile, a: Factor, b: Factor, run: int) -> None:
        self.tile, self.a, self.b, self.run = tile, a, b, run
        self.kind = KINDS[tile.kind]
        self.height, self.width = tile.rows // tile.down, tile.columns // tile.across
        self.down, self.across = self.height // ROWS, self.width // COLUMNS
        self.steps = tile.depth // self.kind.depth
        elems = self.down * self.across * RESULT_ELEMS
        self.sums = Buffer("acc", DType.F32, elems, Space.REGISTER)
        self._left = self._fragments("a", self.down * self.kind.left_elems)
        self._right = self._fragments("b", self.across * self.kind.right_elems)
        self._terms: dict[tuple[str, int], Expr] = {}

    def _fragments(self, name: str, elems: int) -> Buffer:
        return Buffer(name, self.kind.dtype, _SETS * elems, Space.REGISTER)

    @property
    def registers(self) -> tuple[Buffer, ...]:
        """What the thread holds."""
        return self.sums, self._left, self._right

    def place(self, thread: Expr, body: Callable[[], list[Stmt]]) -> list[Stmt]:
        """``body`` with the place of ``thread`` bound."""

        def placed(at: tuple[Expr, ...]) -> list[Stmt]:
            down, across, self.group, self.inside = at
            self.row = index.mul(down, self.height)
            self.column = index.mul(across, self.width)
            return bind("lane", index.mod(thread, WARP), WARP, in_warp)

        def in_warp(lane: Expr) -> list[Stmt]:
            # the thread names one row, of one of four matrices
            return digits("from", lane, (2, 2, MATRIX_ROWS // 2, 2), in_matrix)

        def in_matrix(at: tuple[Expr, ...]) -> list[Stmt]:
            self._high, self._low, self._pair, self._odd = at
            self._matrix_row = index.linear(0, ((self._pair, 2), (self._odd, 1)))
            return body()

        dims = (self.tile.down, self.tile.across, WARP // 4, 4)
        return digits("at", thread, dims, placed)

    def clear(self) -> list[Stmt]:
        """Sets the sums to zero."""
        zero = Lit(0, DType.F32)
        return loop(
            "i", self.sums.elems, lambda i: [Store(self.sums, i, zero)], Kind.UNROLLED
        )

    def load(self, step: int, stage: Expr) -> list[Stmt]:
        """Loads the fragments of the part number ``step`` of a chunk."""
        return [*self._load_left(step, stage), *self._load_right(step, stage)]

    def multiply(self, step: int) -> list[Stmt]:
        """Adds the products of that part."""
        kind, part = self.kind, step % _SETS
        left = part * self.down * kind.left_elems
        right = part * self.across * kind.right_elems
        stmts: list[Stmt] = []
        for factor, buffer, first in ((self.a, self._left, left), (self.b, self._right, right)):
            if factor.needs_rounding:
                stmts += _round(buffer, first, buffer.elems // _SETS)
        for i in range(self.down):
            # back and forth, so that a fragment is used twice in a row
            for j in range(self.across) if i % 2 == 0 else reversed(range(self.across)):
                at = index.lit((i * self.across + j) * RESULT_ELEMS)
                a = index.lit(left + i * kind.left_elems)
                b = index.lit(right + j * kind.right_elems)
                stmts.append(Mma(self.tile.kind, self.sums, at, self._left, a, self._right, b))
        return stmts

    def results(self, body: Callable[[Expr, Expr, list[Expr]], list[Stmt]]) -> list[Stmt]:
        """``body`` for each run of results of the thread: its row, the number of the run in the
        row, both in the tile, and the sums."""
        stmts: list[Stmt] = []
        blocks = self.run // 2
        for i in range(self.down):
            for half in range(2):
                row = index.linear(ROWS * i + 8 * half, ((self.row, 1), (self.group, 1)))
                for q in range(self.across // blocks):
                    number = index.add(index.div(self.column, self.run), self.inside)
                    sums = [
                        index.lit(
                            (i * self.across + q * blocks + v // 2) * RESULT_ELEMS
                            + 2 * half
                            + v % 2
                        )
                        for v in range(self.run)
                    ]
                    loads: list[Expr] = [Load(self.sums, at) for at in sums]
                    stmts += body(row, index.add(number, 4 * q), loads)
        return stmts

    def _piece(self, factor: Factor, name: str, number: int, piece: Expr) -> Expr:
        """The offset of a piece of a line, exchanged as the line of the thread's row asks; one
        expression for each ``number``, so that it is computed once."""
        key = (name, number)
        if key not in self._terms:
            exchange = factor.layout.exchange_of_row(self._matrix_row)
            exchanged = Bin("xor", piece, exchange)
            self._terms[key] = Bin("mul", exchanged, index.lit(factor.layout.piece))
        return self._terms[key]

    def _load_left(self, step: int, stage: Expr) -> list[Stmt]:
        factor, kind, layout = self.a, self.kind, self.a.layout
        begin = index.mul(stage, layout.elems)
        first = step % _SETS * self.down * kind.left_elems
        stmts: list[Stmt] = []
        for i in range(self.down):
            to = first + i * kind.left_elems
            if layout.is_padded:
                stmts += self._load_words(factor, step, begin, self._left, to, self.row, 16 * i, 2)
                continue
            if factor.along_depth:
                piece = self._piece(factor, "a", step, index.add(self._high, 2 * step))
                row = index.linear(16 * i, ((self.row, 1), (self._low, 8), (self._matrix_row, 1)))
                place = index.linear(0, ((row, layout.stride), (begin, 1)))
            else:
                across = index.linear(2 * i, ((index.div(self.row, 8), 1), (self._low, 1)))
                piece = self._piece(factor, "a", i, across)
                term = index.linear(16 * step, ((self._high, 8), (self._matrix_row, 1)))
                place = index.linear(0, ((term, layout.stride), (begin, 1)))
            at = Bin("add", place, piece)
            stmts.append(
                LoadMatrix(self._left, index.lit(to), factor.shared, at, 4, not factor.along_depth)
            )
        return stmts

    def _load_right(self, step: int, stage: Expr) -> list[Stmt]:
        """Two blocks of eight columns at once."""
        factor, kind, layout = self.b, self.kind, self.b.layout
        begin = index.mul(stage, layout.elems)
        first = step % _SETS * self.across * kind.right_elems
        stmts: list[Stmt] = []
        for j in range(0, self.across, 2):
            to = first + j * kind.right_elems
            if layout.is_padded:
                for block in range(2):
                    at_block = to + block * kind.right_elems
                    columns = 8 * (j + block)
                    stmts += self._load_words(
                        factor, step, begin, self._right, at_block, self.column, columns, 1
                    )
                continue
            if factor.along_depth:
                piece = self._piece(factor, "b", step, index.add(self._low, 2 * step))
                place = index.linear(0, ((self._column(j), layout.stride), (begin, 1)))
            else:
                across = index.linear(j, ((index.div(self.column, 8), 1), (self._high, 1)))
                piece = self._piece(factor, "b", j, across)
                term = index.linear(16 * step, ((self._low, 8), (self._matrix_row, 1)))
                place = index.linear(0, ((term, layout.stride), (begin, 1)))
            at = Bin("add", place, piece)
            stmts.append(
                LoadMatrix(
                    self._right, index.lit(to), factor.shared, at, 4, not factor.along_depth
                )
            )
        return stmts

    def _column(self, j: int) -> Expr:
        """The line of the right factor whose row the thread names, for blocks j and j + 1."""
        blocks = self.run // 2
        const = j // blocks * 4 * self.run + j % blocks * 2
        next_block = 8 if blocks == 1 else 2
        return index.linear(
            const,
            ((self.column, 1), (self._pair, self.run), (self._odd, 1), (self._high, next_block)),
        )

    def _load_words(
        self,
        factor: Factor,
        step: int,
        begin: Expr,
        to: Buffer,
        to_at: int,
        first: Expr,
        offset: int,
        rows: int,
    ) -> list[Stmt]:
        """Single elements of float32, of which lines hold terms: of ``rows`` groups of eight rows,
        first those of the first four terms."""
        stmts: list[Stmt] = []
        for word in range(2 * rows):
            term = index.linear(8 * step + 4 * (word // rows), ((self.inside, 1),))
            row = index.linear(offset + 8 * (word % rows), ((first, 1), (self.group, 1)))
            at = index.linear(0, ((begin, 1), (term, factor.layout.stride), (row, 1)))
            stmts.append(Store(to, index.lit(to_at + word), Load(factor.shared, at)))
        return stmts


def _round(buffer: Buffer, first: int, count: int) -> list[Stmt]:
    """Rounds elements to what tensor cores multiply."""
    i = Var("i")
    at = index.add(i, first)
    return [For(i, count, (Store(buffer, at, Un("tf32", Load(buffer, at))),), Kind.UNROLLED)]
