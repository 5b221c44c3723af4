"""The arithmetic of a tile of plain multiply-adds: which thread has which sums, and how it adds a
chunk to them.

It reads tiles in which each row, of either operand, has its chunk of the depth side by side.
"""

from __future__ import annotations

from collections.abc import Callable

from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import (
    Alloc,
    Buffer,
    Expr,
    For,
    Kind,
    Lit,
    Load,
    Space,
    Stmt,
    Store,
    Var,
)
from aotc.lower.contract_kernel import multiply_add
from aotc.lower.gpu.binding import digits
from aotc.lower.gpu.staging import Staging
from aotc.lower.scope import loop
from aotc.schedule.gpu import GpuTile

#: Terms that a thread multiplies with one load of either operand.
TERMS = 4

Part = Callable[[Expr, Expr], list[Stmt]]
"""What is done with one row or column of a thread's sums: its share of the number of a sum, and its
position in the tile. The number of a sum is the row's share plus the column's."""


class FmaProduct:
    """One multiply-add for each term, in order. Neighbouring threads have neighbouring columns."""

    def __init__(self, tile: GpuTile, dtype: DType) -> None:
        self._tile = tile
        self._rows, self._columns = tile.rows // tile.down, tile.columns // tile.across
        self.sums = Buffer("acc", dtype, self._rows * self._columns, Space.REGISTER)
        self._down: Expr = Lit(0)
        self._across: Expr = Lit(0)

    def place(self, thread: Expr, body: Callable[[], list[Stmt]]) -> list[Stmt]:
        """``body`` with the place of ``thread`` bound."""

        def placed(at: tuple[Expr, ...]) -> list[Stmt]:
            self._down, self._across = at
            return body()

        return digits("at", thread, (self._tile.down, self._tile.across), placed)

    def each_row(self, kind: Kind, body: Part) -> list[Stmt]:
        """``body`` for each row in which the thread has sums."""

        def one(i: Expr) -> list[Stmt]:
            local = index.add(index.mul(i, self._tile.down), self._down)
            return body(index.mul(i, self._columns), local)

        return loop("i", self._rows, one, kind)

    def each_column(self, kind: Kind, body: Part) -> list[Stmt]:
        """``body`` for each column of any of those rows."""

        def one(j: Expr) -> list[Stmt]:
            return body(j, index.add(index.mul(j, self._tile.across), self._across))

        return loop("j", self._columns, one, kind)

    def multiply(self, a: Staging, b: Staging, half: Expr) -> list[Stmt]:
        """Adds the products of the chunk in one half of the shared tiles."""
        left = Buffer("a", self.sums.dtype, self._rows * TERMS, Space.REGISTER)
        right = Buffer("b", self.sums.dtype, TERMS, Space.REGISTER)

        def terms(k: Expr) -> list[Stmt]:
            first = index.mul(k, TERMS)

            def row(i: Expr) -> list[Stmt]:
                at = index.add(index.mul(i, self._tile.down), self._down)
                return [_move(a, half, at, first, left, index.mul(i, TERMS))]

            def column(j: Expr, at: Expr) -> list[Stmt]:
                return [_move(b, half, at, first, right, index.lit(0)), *products(j)]

            def products(j: Expr) -> list[Stmt]:
                def one(t: Expr, i: Expr) -> Stmt:
                    at = index.add(index.mul(i, self._columns), j)
                    x = Load(left, index.add(index.mul(i, TERMS), t))
                    total = multiply_add(x, Load(right, t), Load(self.sums, at))
                    return Store(self.sums, at, total)

                return loop(
                    "t",
                    TERMS,
                    lambda t: loop("i", self._rows, lambda i: [one(t, i)], Kind.UNROLLED),
                    Kind.UNROLLED,
                )

            rows = loop("i", self._rows, row, Kind.UNROLLED)
            return [*rows, *self.each_column(Kind.UNROLLED, column)]

        steps = loop("k", self._tile.depth // TERMS, terms)
        return [Alloc(left, (Alloc(right, tuple(steps)),))]


def _move(source: Staging, half: Expr, row: Expr, term: Expr, to: Buffer, at: Expr) -> Stmt:
    """Loads TERMS neighbouring terms of a row from shared memory to registers."""
    v = Var("v")
    place = index.linear(0, ((half, source.size), (row, source.stride), (term, 1), (v, 1)))
    store = Store(to, index.add(at, v), Load(source.shared, place))
    return For(v, TERMS, (store,), Kind.VECTOR, TERMS)
