"""Sums of products that the threads of a warp share along the depth: factors in, statements out.

Thread ``t`` takes the terms ``t * wide`` and those behind it up to ``wide``, then those
``32 * wide`` further on, and so on, in order; neighbours, then threads half by half, are joined.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import (
    Alloc,
    Bin,
    Bind,
    Buffer,
    Expr,
    For,
    Kind,
    Lit,
    Load,
    Shuffle,
    Space,
    Stmt,
    Store,
    Var,
)
from aotc.loop.launch import WARP
from aotc.lower.contract_kernel import multiply_add
from aotc.lower.gpu.binding import bind, held_below
from aotc.lower.scope import loop, overlapped, vector

#: Loads of one factor that overlap.
IN_LINE = 8

Factor = Callable[[int, Expr], Expr]
"""The term of a row, or of a column, by its number and the place on the depth."""


@dataclass(frozen=True)
class WarpSums:
    """``rows`` x ``columns`` sums in float32 over ``depth`` terms, each for its own in a warp.
    ``wide`` terms, a divisor of the depth, are loaded at once."""

    rows: int
    columns: int
    depth: int
    wide: int
    sums: Buffer

    @classmethod
    def of(cls, rows: int, columns: int, depth: int, wide: int) -> WarpSums:
        """With the registers that they need."""
        sums = Buffer("acc", DType.F32, rows * columns * wide, Space.REGISTER)
        return cls(rows, columns, depth, wide, sums)

    def cell(self, row: int, column: int) -> int:
        """The element of ``sums`` that has the sum in the first thread, when all are joined."""
        return (row * self.columns + column) * self.wide

    def total(self, row: int, column: int) -> Expr:
        """The sum, in the first thread, when all are joined."""
        return Load(self.sums, index.lit(self.cell(row, column)))

    def clear(self) -> list[Stmt]:
        """Before the first term."""
        zero = Lit(0.0, DType.F32)
        return loop("j", self.sums.elems, lambda j: [Store(self.sums, j, zero)], Kind.UNROLLED)

    def add(self, lane: Expr, left: Factor, right: Factor) -> list[Stmt]:
        """Adds the terms of the thread ``lane`` to its sums."""
        piece = self.wide * WARP

        def terms(first: Expr) -> list[Stmt]:
            def one(v: Expr) -> list[Stmt]:
                k = index.add(first, v)
                factors = [right(column, k) for column in range(self.columns)]
                stmts: list[Stmt] = []
                for row in range(self.rows):
                    x = left(row, k)
                    for column, factor in enumerate(factors):
                        at = index.add(index.lit(self.cell(row, column)), v)
                        total = multiply_add(x, factor, Load(self.sums, at))
                        stmts.append(Store(self.sums, at, total))
                return stmts

            return [vector("v", self.wide, self.wide, one)]

        def start(i: Expr, place: Expr) -> Expr:
            return index.add(index.mul(i, piece), index.mul(place, self.wide))

        full, rest = divmod(self.depth, piece)
        stmts = overlapped(full, IN_LINE, lambda i: terms(start(i, lane)))
        if rest:
            stmts += bind(
                "last", lane, rest // self.wide, lambda x: terms(start(index.lit(full), x))
            )
        return stmts

    def join(self, lane: Expr) -> list[Stmt]:
        """Joins the sums of all threads; all of them come here."""
        stmts: list[Stmt] = []
        for number in range(0, self.sums.elems, self.wide):
            first = index.lit(number)
            total: Expr = Load(self.sums, first)
            for v in range(1, self.wide):
                total = Bin("add", total, Load(self.sums, index.lit(number + v)))
            stmts.append(Store(self.sums, first, total))
            half = WARP // 2
            while half:
                mine = Load(self.sums, first)
                other = Shuffle(mine, index.mod(index.add(lane, half), WARP))
                stmts.append(Store(self.sums, first, Bin("add", mine, other)))
                half //= 2
        return stmts


def warp_nest(
    warps: int,
    count: int,
    sums: WarpSums,
    add: Callable[[Expr, Expr], list[Stmt]],
    finish: Callable[[Expr], list[Stmt]],
) -> Stmt:
    """Blocks of ``warps`` warps, one for each of ``count`` sets of ``sums``: ``add`` takes the
    number of the set and that of the thread, ``finish`` that of the set, in one thread."""
    block, warp, lane = Var("block"), Var("warp"), Var("lane")
    number = index.add(index.mul(block, warps), warp)
    blocks = -(-count // warps)
    # all threads of a warp shuffle, those beyond the last set too
    held = number if blocks * warps == count else held_below(number, count)
    body = [*sums.clear(), *bind("unit", held, count, lambda unit: add(unit, lane))]
    body += sums.join(lane)
    body.append(Bind(Var("first"), lane, 1, tuple(bind("unit", number, count, finish))))
    lanes = For(lane, WARP, (Alloc(sums.sums, tuple(body)),), Kind.THREAD)
    return For(block, blocks, (For(warp, warps, (lanes,), Kind.THREAD),), Kind.BLOCK)
