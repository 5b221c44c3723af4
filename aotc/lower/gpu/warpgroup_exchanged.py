"""Products by warpgroups of which the right factor lies with its depth along rows, in float32: a
kernel of the transposed factors comes out.

Tensor cores take tf32 from shared memory only with the depth along rows of tiles. So what was the
right factor becomes the left one, which may be in registers: each thread loads its fragments from
the tile, while the products of the chunk before are under way.
"""

from __future__ import annotations

from collections.abc import Callable

from aotc.loop import index
from aotc.loop.ir import Alloc, Bin, Buffer, Expr, Lit, Load, Space, Stmt, Store
from aotc.loop.ir_async import ProxyFence, Wgmma, WgmmaCommit, WgmmaFence, WgmmaWait
from aotc.lower.gpu.binding import bind, digits
from aotc.lower.gpu.warpgroup_kernel import WarpgroupContract
from aotc.lower.scope import loop
from aotc.schedule.gpu_warpgroup import ROWS

#: Words of a fragment: rows 8 apart, then the second half of the depth of a step.
WORDS = 4
#: Terms of a step, elements of a piece of a row that is swizzled, and pieces of a row.
_TERMS, _PIECE, _PIECES = 8, 4, 8


class ExchangedContract(WarpgroupContract):
    """Writes the kernel of one such product; each warpgroup has 64 channels."""

    def _turns(
        self, group: Expr, inside: Expr, ask: Callable[[Expr, Expr], list[Stmt]]
    ) -> list[Stmt]:
        # fragments of two chunks in turn: while one's are loaded, the other's may be read
        elems = 2 * self.factors.left.steps * WORDS
        self._held = Buffer("held", self.kind.dtype, elems, Space.REGISTER)
        self._pieces: tuple[Expr, ...] = ()
        self._begin: Expr = Lit(0)

        def placed(at: tuple[Expr, ...]) -> list[Stmt]:
            box, low, high, row, pair = at
            area = self.full * self.full  # of a box of the right factor
            boxes = ROWS // self.full * area
            self._begin = index.linear(
                0, ((group, boxes), (box, area), (row, 1), (pair, self.full))
            )
            column = index.linear(0, ((low, 4), (high, 1)))
            return self._swizzled(column, pair, lambda: self._pairs(group, ask))

        return [Alloc(self._held, tuple(digits("at", inside, (2, 2, 2, 4, 4), placed)))]

    def _swizzled(
        self, column: Expr, pair: Expr, body: Callable[[], list[Stmt]]
    ) -> list[Stmt]:
        """``body`` with the pieces bound in which the words of a fragment lie: those of ``column``
        and two further on, of rows ``pair`` and four below."""

        def nest(found: tuple[Expr, ...]) -> list[Stmt]:
            word = len(found)
            if word == WORDS:
                self._pieces = found
                return body()
            place = index.add(column, 2 * (word % 2))
            row = index.add(pair, 4 * (word // 2))
            piece = Bin("and", Bin("xor", place, row), Lit(_PIECES - 1))
            return bind("piece", piece, _PIECES, lambda p: nest((*found, p)))

        return nest(())

    def _pairs(self, group: Expr, ask: Callable[[Expr, Expr], list[Stmt]]) -> list[Stmt]:
        """All chunks, two and two."""
        pairs, first = divmod(self.chunks, 2)

        def turn(chunk: Expr, half: int) -> list[Stmt]:
            self._half = half
            return self._turn(group, chunk, ask)

        def both(pair: Expr) -> list[Stmt]:
            begin = index.add(index.mul(pair, 2), first)
            return [*turn(begin, 0), *turn(index.add(begin, 1), 1)]

        stmts = turn(index.lit(0), 1) if first else []
        stmts += loop("pair", pairs, both) if pairs else []
        return [*stmts, WgmmaWait(0, (self.acc,))]

    def _multiply(self, group: Expr, stage: Expr) -> list[Stmt]:
        tile, steps = self.tile, self.factors.left.steps
        first = self._half * steps * WORDS
        begin = index.add(self._begin, index.mul(stage, self.b_elems))
        stmts: list[Stmt] = []
        for step in range(steps):
            for word in range(WORDS):
                row = step * _TERMS + 4 * (word // 2)
                at = index.linear(row * self.full, ((begin, 1), (self._pieces[word], _PIECE)))
                to = index.lit(first + step * WORDS + word)
                stmts.append(Store(self._held, to, Load(self.b, at)))
        # what has been read is copied to behind the next barrier; ptxas 12.9 does not survive this
        # fence behind the products, between their wait and the barrier
        stmts += [ProxyFence(), WgmmaFence()]
        for step in range(steps):
            rows_at = index.linear(step * _TERMS, ((stage, self.a_elems),))
            held_at = index.lit(first + step * WORDS)
            stmts.append(
                Wgmma(
                    tile.kind,
                    tile.columns,
                    self.acc,
                    index.lit(0),
                    self._held,
                    held_at,
                    self.a,
                    rows_at,
                )
            )
        # the registers that the products before have read are loaded next
        return [*stmts, WgmmaCommit(), WgmmaWait(1, (self.acc,))]
