"""The arithmetic of a tile: which thread has which sums, and how it adds a chunk to them.

Both ways read tiles in which each row, of either operand, has its chunk of the depth side by side.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
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
    Mma,
    Space,
    Stmt,
    Store,
    Var,
)
from aotc.loop.launch import WARP
from aotc.loop.mma import COLUMNS, KINDS, RESULT_ELEMS, ROWS
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


class Product(ABC):
    """The sums of one thread, and its place among the others."""

    sums: Buffer

    @abstractmethod
    def place(self, thread: Expr, body: Callable[[], list[Stmt]]) -> list[Stmt]:
        """``body`` with the place of ``thread`` bound."""

    @abstractmethod
    def multiply(
        self, a: Staging, b: Staging, half: Expr, half_a: Expr | None = None
    ) -> list[Stmt]:
        """Adds the products of the chunk in one half of the shared tiles; ``half_a`` is that of
        ``a`` if it is another."""

    @abstractmethod
    def each_row(self, kind: Kind, body: Part) -> list[Stmt]:
        """``body`` for each row in which the thread has sums."""

    @abstractmethod
    def each_column(self, kind: Kind, body: Part) -> list[Stmt]:
        """``body`` for each column of any of those rows."""


class FmaProduct(Product):
    """One multiply-add for each term, in order. Neighbouring threads have neighbouring columns."""

    def __init__(self, tile: GpuTile, dtype: DType) -> None:
        self._tile = tile
        self._rows, self._columns = tile.rows // tile.down, tile.columns // tile.across
        self.sums = Buffer("acc", dtype, self._rows * self._columns, Space.REGISTER)
        self._down: Expr = Lit(0)
        self._across: Expr = Lit(0)

    def place(self, thread: Expr, body: Callable[[], list[Stmt]]) -> list[Stmt]:
        def placed(at: tuple[Expr, ...]) -> list[Stmt]:
            self._down, self._across = at
            return body()

        return digits("at", thread, (self._tile.down, self._tile.across), placed)

    def each_row(self, kind: Kind, body: Part) -> list[Stmt]:
        def one(i: Expr) -> list[Stmt]:
            local = index.add(index.mul(i, self._tile.down), self._down)
            return body(index.mul(i, self._columns), local)

        return loop("i", self._rows, one, kind)

    def each_column(self, kind: Kind, body: Part) -> list[Stmt]:
        def one(j: Expr) -> list[Stmt]:
            return body(j, index.add(index.mul(j, self._tile.across), self._across))

        return loop("j", self._columns, one, kind)

    def multiply(
        self, a: Staging, b: Staging, half: Expr, half_a: Expr | None = None
    ) -> list[Stmt]:
        half_a = half_a or half
        left = Buffer("a", self.sums.dtype, self._rows * TERMS, Space.REGISTER)
        right = Buffer("b", self.sums.dtype, TERMS, Space.REGISTER)

        def terms(k: Expr) -> list[Stmt]:
            first = index.mul(k, TERMS)

            def row(i: Expr) -> list[Stmt]:
                at = index.add(index.mul(i, self._tile.down), self._down)
                return [move(a, half_a, at, first, left, index.mul(i, TERMS))]

            def column(j: Expr, at: Expr) -> list[Stmt]:
                return [move(b, half, at, first, right, index.lit(0)), *products(j)]

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


class MmaProduct(Product):
    """Products of tensor cores: each warp has a rectangle of the tile."""

    def __init__(self, tile: GpuTile) -> None:
        self._tile = tile
        self._kind = KINDS[tile.kind]
        self._height, self._width = tile.rows // tile.down, tile.columns // tile.across
        self._down, self._across = self._height // ROWS, self._width // COLUMNS
        elems = self._down * self._across * RESULT_ELEMS
        self.sums = Buffer("acc", DType.F32, elems, Space.REGISTER)
        self.row: Expr = Lit(0)
        self._column: Expr = Lit(0)
        self.group: Expr = Lit(0)
        self.inside: Expr = Lit(0)

    def place(self, thread: Expr, body: Callable[[], list[Stmt]]) -> list[Stmt]:
        def placed(at: tuple[Expr, ...]) -> list[Stmt]:
            down, across, self.group, self.inside = at
            self.row = index.mul(down, self._height)
            self._column = index.mul(across, self._width)
            return body()

        dims = (self._tile.down, self._tile.across, WARP // 4, 4)
        return digits("at", thread, dims, placed)

    def each_row(self, kind: Kind, body: Part) -> list[Stmt]:
        def one(i: Expr, high: Expr) -> list[Stmt]:
            local = index.linear(0, ((self.row, 1), (i, ROWS), (high, 8), (self.group, 1)))
            return body(index.linear(0, ((i, self._across * RESULT_ELEMS), (high, 2))), local)

        return loop("i", self._down, lambda i: loop("h", 2, lambda h: one(i, h), kind), kind)

    def each_column(self, kind: Kind, body: Part) -> list[Stmt]:
        def one(j: Expr, odd: Expr) -> list[Stmt]:
            local = index.linear(0, ((self._column, 1), (j, COLUMNS), (self.inside, 2), (odd, 1)))
            return body(index.linear(0, ((j, RESULT_ELEMS), (odd, 1))), local)

        return loop("j", self._across, lambda j: loop("o", 2, lambda o: one(j, o), kind), kind)

    def multiply(
        self, a: Staging, b: Staging, half: Expr, half_a: Expr | None = None
    ) -> list[Stmt]:
        half_a = half_a or half
        kind = self._kind
        left = Buffer("a", kind.dtype, self._down * kind.left_elems, Space.REGISTER)
        right = Buffer("b", kind.dtype, self._across * kind.right_elems, Space.REGISTER)
        pair = 4 // kind.dtype.size_bytes

        def step(k: Expr) -> list[Stmt]:
            begin = index.add(index.mul(k, kind.depth), index.mul(self.inside, pair))

            def row(i: Expr) -> list[Stmt]:
                """The words of a left fragment: rows 8 apart, then the second half of the depth."""
                moves: list[Stmt] = []
                for word in range(4):
                    at = index.linear(8 * (word % 2), ((self.row, 1), (i, ROWS), (self.group, 1)))
                    term = index.add(begin, index.lit(4 * pair * (word // 2)))
                    to = index.add(index.mul(i, kind.left_elems), index.lit(word * pair))
                    moves.append(move(a, half_a, at, term, left, to, pair))
                return moves

            def column(j: Expr) -> list[Stmt]:
                moves: list[Stmt] = []
                at = index.linear(0, ((self._column, 1), (j, COLUMNS), (self.group, 1)))
                for word in range(2):
                    term = index.add(begin, index.lit(4 * pair * word))
                    to = index.add(index.mul(j, kind.right_elems), index.lit(word * pair))
                    moves.append(move(b, half, at, term, right, to, pair))
                return moves

            def product(i: Expr, j: Expr) -> Stmt:
                at = index.linear(0, ((i, self._across * RESULT_ELEMS), (j, RESULT_ELEMS)))
                from_a, from_b = index.mul(i, kind.left_elems), index.mul(j, kind.right_elems)
                return Mma(self._tile.kind, self.sums, at, left, from_a, right, from_b)

            return [
                *loop("i", self._down, row, Kind.UNROLLED),
                *loop("j", self._across, column, Kind.UNROLLED),
                *loop(
                    "i",
                    self._down,
                    lambda i: loop("j", self._across, lambda j: [product(i, j)], Kind.UNROLLED),
                    Kind.UNROLLED,
                ),
            ]

        steps = loop("k", self._tile.depth // kind.depth, step, Kind.UNROLLED)
        return [Alloc(left, (Alloc(right, tuple(steps)),))]


def move(
    source: Staging, half: Expr, row: Expr, term: Expr, to: Buffer, at: Expr, count: int = TERMS
) -> Stmt:
    """Loads ``count`` neighbouring terms of a row from shared memory to registers."""
    v = Var("v")
    place = index.linear(0, ((half, source.size), (row, source.stride), (term, 1), (v, 1)))
    store = Store(to, index.add(at, v), Load(source.shared, place))
    if count == 1:
        return For(v, 1, (store,), Kind.UNROLLED)
    return For(v, count, (store,), Kind.VECTOR, count)
