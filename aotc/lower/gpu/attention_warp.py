"""What a warp does with its rows of queries in attention: places of tiles in shared memory go in,
the statements of products, softmax and weighted sum come out.

All numbers are in registers as tensor cores leave them. The fragments that the product of scores
leaves are those that the product with the values takes as its left factor, up to an order of keys
in which the values are then read too. Scores are relative to a base of their row, a score that was
the largest when it was chosen. It is chosen anew, and what has been summed up scaled, only when
some score would have a power beyond 2^HEADROOM: mostly in the first tile alone. Sums of powers are
one more product, with ones, so that they have the same roundings as the weighted sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from aotc.graph.types import DType
from aotc.loop import index, mathlib
from aotc.loop.ir import (
    Alloc,
    Bin,
    Bind,
    Bits,
    Buffer,
    Cmp,
    Conv,
    Expr,
    Kind,
    Lit,
    Load,
    Mma,
    Sel,
    Shuffle,
    Space,
    Stmt,
    Store,
    Un,
    Var,
)
from aotc.loop.ir_async import MATRIX_ROW_BYTES, MATRIX_ROWS, LoadMatrix
from aotc.loop.launch import WARP
from aotc.loop.mathlib_short import exp2
from aotc.loop.mma import COLUMNS, KINDS, RESULT_ELEMS, ROWS
from aotc.lower.gpu.binding import digits
from aotc.lower.scope import loop, vector
from aotc.schedule.attention import AttentionSizes, AttentionTile

#: The power of 2 that a weight may reach before its row gets a new base: far below the largest
#: float16, and the smallest weights keep their last places longer.
HEADROOM = 8.0
#: 1 and what a tf32 loses on average, in parts of it, when the places behind its own are cut off:
#: half its last place, numbers being as frequent in each octave.
CUT_OFF = 1 + 2.0**-11 / (2 * math.log(2))

_MINUS_INF = Lit(-math.inf, DType.F32)
_ZERO = Lit(0.0, DType.F32)
ScoreBody = Callable[[Expr, Expr, Expr], list[Stmt]]
"""Of a score: the fragment, the row of it, and the number in the buffer of scores."""


@dataclass(frozen=True)
class InShared:
    """A tile in shared memory: rows ``stride`` apart, from element ``first`` on."""

    buffer: Buffer
    first: Expr
    stride: int

    def at(self, row: Expr, column: Expr) -> Expr:
        return index.linear(0, ((self.first, 1), (row, self.stride), (column, 1)))


def unrolled(name: str, extent: int, body: Callable[[Expr], list[Stmt]]) -> list[Stmt]:
    """``body`` for every index below ``extent``, one after the other in the code."""
    return loop(name, extent, body, Kind.UNROLLED)


class AttentionWarp:
    """The registers of one thread, and statements on them. ``scale`` is positive; a weight is
    e^((score - base) * scale). If scores are ``relative``, products already begin with minus the
    base, which costs nothing; nodes between product and softmax need the scores themselves."""

    def __init__(
        self, tile: AttentionTile, sizes: AttentionSizes, scale: float, relative: bool
    ) -> None:
        self.tile, self.sizes, self.scale, self.relative = tile, sizes, scale, relative
        self.kind = KINDS[sizes.kind]
        self.fragments = tile.fragments
        self.groups = tile.keys // COLUMNS
        self.value_groups = sizes.value_width // COLUMNS
        self.cuts = sizes.kind == "tf32"
        dtype, registers = self.kind.dtype, Space.REGISTER

        def held(name: str, elems: int, of: DType = DType.F32) -> Buffer:
            return Buffer(name, of, elems, registers)

        steps = sizes.depth_steps if tile.keeps else 1
        self.queries = held("queries", self.fragments * steps * self.kind.left_elems, dtype)
        self.right = held("right", 2 * self.kind.right_elems, dtype)
        self.ones = held("ones", self.kind.right_elems, dtype)
        self.scores = held("scores", self.fragments * self.groups * RESULT_ELEMS)
        self.powers = held("powers", self.scores.elems, dtype)
        self.sums = held("sums", self.fragments * self.value_groups * RESULT_ELEMS)
        self.totals = held("totals", self.fragments * RESULT_ELEMS)
        # of each of the thread's rows: the largest score seen when the base was chosen, the base,
        # the largest of a tile, and what changes
        rows = 2 * self.fragments
        self.largest, self.base, self.highest, self.change, self.factor = (
            held(name, rows) for name in ("largest", "base", "highest", "change", "factor")
        )
        self.leaving = held("leaving", 1, DType.I32)
        self.lane: Expr = Lit(0)
        self.warp: Expr = Lit(0)
        self.part: Expr = Lit(0)
        self.group: Expr = Lit(0)
        self.inside: Expr = Lit(0)
        self._matrix: tuple[Expr, ...] = ()

    def buffers(self) -> tuple[Buffer, ...]:
        """All registers that live as long as the thread."""
        return (
            *(self.queries, self.ones, self.scores, self.powers, self.sums, self.totals),
            *(self.largest, self.base, self.highest, self.change, self.factor, self.leaving),
        )

    def place(self, thread: Expr, body: Callable[[], list[Stmt]]) -> list[Stmt]:
        """``body`` with the place of ``thread`` among the others known."""

        def with_matrix(at: tuple[Expr, ...]) -> list[Stmt]:
            self._matrix = at
            return body()

        def with_lane(at: tuple[Expr, ...]) -> list[Stmt]:
            self.group, self.inside = at
            return digits("matrix", self.lane, (2, 2, MATRIX_ROWS), with_matrix)

        def with_warp(at: tuple[Expr, ...]) -> list[Stmt]:
            self.part, self.warp, self.lane = at
            return digits("lane", self.lane, (WARP // 4, 4), with_lane)

        return digits("at", thread, (self.tile.parts, self.tile.warps, WARP), with_warp)

    def local_row(self, i: Expr, h: Expr) -> Expr:
        """The row in the block's tile of row ``h`` of fragment ``i``."""
        height = ROWS * self.fragments
        return index.linear(0, ((self.warp, height), (i, ROWS), (h, 8), (self.group, 1)))

    def clear(self) -> list[Stmt]:
        """Nothing summed up yet."""
        one = {DType.F16: Lit(1.0, DType.F16), DType.U16: Lit(0x3F80, DType.U16)}
        ones = one.get(self.kind.dtype, Lit(1.0, DType.F32))
        values = (
            *((buffer, _ZERO) for buffer in (self.sums, self.totals, self.base)),
            *((self.largest, _MINUS_INF), (self.ones, ones)),
        )
        return [stmt for buffer, value in values for stmt in _filled(buffer, value)]

    # products

    def _load(
        self, to: Buffer, at: Expr, tile: InShared, row: Expr, column: Expr, transposed: bool
    ) -> list[Stmt]:
        """Four matrices; this thread says where one of their rows begins."""
        words = 4 * (4 // self.kind.dtype.size_bytes)
        stmts: list[Stmt] = [
            LoadMatrix(to, at, tile.buffer, tile.at(row, column), 4, transposed)
        ]
        return [*stmts, *self._rounded(to, at, words)]

    def _rounded(self, buffer: Buffer, at: Expr, count: int) -> list[Stmt]:
        """Makes up in elements as they stand for what tensor cores cut off."""
        if not self.cuts:
            return []

        def one(e: Expr) -> list[Stmt]:
            place = index.add(at, e)
            return [Store(buffer, place, _made_up(Load(buffer, place)))]

        return unrolled("e", count, one)

    def _load_queries(self, tile: InShared, step: Expr, to: Expr) -> list[Stmt]:
        """The left fragments of one step along the width, from ``to`` on."""
        high, low, row = self._matrix
        width = MATRIX_ROW_BYTES // self.kind.dtype.size_bytes
        column = index.linear(0, ((step, self.kind.depth), (high, width)))

        def one(i: Expr) -> list[Stmt]:
            height = ROWS * self.fragments
            place = index.linear(0, ((self.warp, height), (i, ROWS), (low, 8), (row, 1)))
            at = index.add(to, index.mul(i, self.kind.left_elems))
            return self._load(self.queries, at, tile, place, column, False)

        return unrolled("i", self.fragments, one)

    def keep_queries(self, tile: InShared) -> list[Stmt]:
        """Loads all queries to registers, if they wait there."""
        if not self.tile.keeps:
            return []
        size = self.fragments * self.kind.left_elems
        steps = self.sizes.depth_steps
        return unrolled(
            "k", steps, lambda k: self._load_queries(tile, k, index.mul(k, size))
        )

    def score(self, queries: InShared, keys: InShared) -> list[Stmt]:
        """The products of queries and keys."""
        size = self.fragments * self.kind.left_elems
        high, low, row = self._matrix
        width = MATRIX_ROW_BYTES // self.kind.dtype.size_bytes

        def begin(i: Expr, h: Expr, number: Expr) -> list[Stmt]:
            base = Load(self.base, row_number(i, h))
            return [Store(self.scores, number, Un("neg", base) if self.relative else _ZERO)]

        def step(k: Expr) -> list[Stmt]:
            first = index.mul(k, size) if self.tile.keeps else index.lit(0)
            loads = [] if self.tile.keeps else self._load_queries(queries, k, first)
            column = index.linear(0, ((k, self.kind.depth), (low, width)))

            def pair(p: Expr) -> list[Stmt]:
                key = index.linear(0, ((p, 2 * COLUMNS), (high, COLUMNS), (row, 1)))
                return [
                    *self._load(self.right, index.lit(0), keys, key, column, False),
                    *self._products(self.scores, self.groups, self.queries, first, p),
                ]

            return [*loads, *unrolled("p", self.groups // 2, pair)]

        steps = unrolled("k", self.sizes.depth_steps, step)
        return [*self.each_score(begin), Alloc(self.right, tuple(steps))]

    def _products(
        self, sums: Buffer, groups: int, left: Buffer, first: Expr, pair: Expr, count: int = 2
    ) -> list[Stmt]:
        """Each left fragment from ``first`` on times the two right ones that are loaded, for the
        pair of this number of ``groups`` columns."""

        def one(g: Expr, i: Expr) -> list[Stmt]:
            group = index.linear(0, ((i, groups), (pair, 2), (g, 1)))
            at = index.mul(group, RESULT_ELEMS)
            a = index.add(first, index.mul(i, self.kind.left_elems))
            b = index.mul(g, self.kind.right_elems)
            return [Mma(self.sizes.kind, sums, at, left, a, self.right, b)]

        return unrolled(
            "g", count, lambda g: unrolled("i", self.fragments, lambda i: one(g, i))
        )

    def weigh(self, values: InShared) -> list[Stmt]:
        """Adds the values, weighted by the powers, and the powers."""
        kind, pairs = self.kind, -(-self.value_groups // 2)

        def step(t: Expr) -> list[Stmt]:
            first = index.mul(t, self.fragments * kind.left_elems)

            def total(i: Expr) -> list[Stmt]:
                at, a = index.mul(i, RESULT_ELEMS), index.add(first, index.mul(i, kind.left_elems))
                zero = index.lit(0)
                return [Mma(self.sizes.kind, self.totals, at, self.powers, a, self.ones, zero)]

            stmts = unrolled("i", self.fragments, total)
            for p in range(pairs):
                count = min(2, self.value_groups - 2 * p)
                pair = index.lit(p)
                stmts += self._load_values(values, t, pair, count)
                stmts += self._products(
                    self.sums, self.value_groups, self.powers, first, pair, count
                )
            return stmts

        steps = unrolled("t", self.tile.keys // kind.depth, step)
        return [Alloc(self.right, tuple(steps))]

    def _load_values(self, tile: InShared, step: Expr, pair: Expr, count: int) -> list[Stmt]:
        """The right fragments of ``count`` groups of columns. Of 32 bits each by itself, in the
        order of keys that scores have."""
        if self.kind.dtype.size_bytes == 2:
            high, low, row = self._matrix
            key = index.linear(0, ((step, self.kind.depth), (low, 8), (row, 1)))
            column = index.linear(0, ((pair, 2 * COLUMNS), (high, COLUMNS)))
            return self._load(self.right, index.lit(0), tile, key, column, True)

        def one(g: Expr, e: Expr) -> list[Stmt]:
            key = index.linear(0, ((step, self.kind.depth), (self.inside, 2), (e, 1)))
            column = index.linear(0, ((pair, 2 * COLUMNS), (g, COLUMNS), (self.group, 1)))
            to = index.linear(0, ((g, 2), (e, 1)))
            value = _made_up(Load(tile.buffer, tile.at(key, column)))
            return [Store(self.right, to, value)]

        return unrolled("g", count, lambda g: unrolled("e", 2, lambda e: one(g, e)))

    # softmax

    def each_score(self, body: ScoreBody) -> list[Stmt]:
        """``body`` of each score, row by row."""

        return self.each_row(
            lambda i, h: self.each_column(
                lambda _own, share, _key: body(i, h, self.score_number(i, h, share))
            )
        )

    def each_column(self, body: Callable[[Expr, Expr, Expr], list[Stmt]]) -> list[Stmt]:
        """``body`` of each key of the thread: its number among them, its share of the number of a
        score, and its number in the part's tile."""

        def one(j: Expr, o: Expr) -> list[Stmt]:
            own, share = index.linear(0, ((j, 2), (o, 1))), _of_column(j, o)
            return body(own, share, index.linear(0, ((j, COLUMNS), (self.inside, 2), (o, 1))))

        return unrolled(
            "j", self.groups, lambda j: unrolled("o", 2, lambda o: one(j, o))
        )

    def score_number(self, i: Expr, h: Expr, share: Expr) -> Expr:
        """The number of the score in a row of a key with this ``share`` of it."""
        return index.linear(0, ((i, self.groups * RESULT_ELEMS), (h, 2), (share, 1)))

    def each_row(self, body: Callable[[Expr, Expr], list[Stmt]]) -> list[Stmt]:
        """``body`` of fragment and row of it, of each row of the thread."""
        return unrolled(
            "i", self.fragments, lambda i: unrolled("h", 2, lambda h: body(i, h))
        )

    def soften(self) -> list[Stmt]:
        """Scores relative to their base become powers, after a new base where it is time."""
        return [*self._find_highest(), *self._choose_bases(), *self._raise_powers()]

    def _find_highest(self) -> list[Stmt]:
        """The largest relative score of each row in this tile, known to all four threads of it."""

        def more(i: Expr, h: Expr, number: Expr) -> list[Stmt]:
            at = row_number(i, h)
            highest = Bin("maximum", Load(self.highest, at), Load(self.scores, number))
            return [Store(self.highest, at, highest)]

        def over_threads(i: Expr, h: Expr) -> list[Stmt]:
            at = row_number(i, h)
            stmts: list[Stmt] = []
            for mask in (1, 2):
                here = Load(self.highest, at)
                other = Shuffle(here, Bin("xor", self.lane, index.lit(mask)))
                stmts.append(Store(self.highest, at, Bin("maximum", here, other)))
            return stmts

        return [
            *_filled(self.highest, _MINUS_INF),
            *self.each_score(more),
            *self.each_row(over_threads),
        ]

    def _choose_bases(self) -> list[Stmt]:
        """Where some row of the warp has left its headroom: new bases, and everything that is
        relative to the old ones scaled."""
        all_stay = self._stays(index.lit(0))
        for number in range(1, 2 * self.fragments):
            all_stay = Bin("and", all_stay, self._stays(index.lit(number)))

        def lowered(i: Expr, h: Expr, number: Expr) -> list[Stmt]:
            value = Bin("sub", Load(self.scores, number), Load(self.change, row_number(i, h)))
            return [Store(self.scores, number, value)]

        body = (
            *self.each_row(self._new_base),
            *(self.each_score(lowered) if self.relative else ()),
            *self.scale_sums(self.factor),
        )
        # all threads of the warp go one way: they have to be together for the next product
        zero, none = index.lit(0), Lit(0, DType.I32)
        stmts: list[Stmt] = [Store(self.leaving, zero, Sel(all_stay, none, Lit(1, DType.I32)))]
        leaving = Load(self.leaving, zero)
        for mask in (4, 8, 16):
            other = Shuffle(leaving, Bin("xor", self.lane, index.lit(mask)))
            stmts.append(Store(self.leaving, zero, Bin("or", leaving, other)))
        turn = Sel(Cmp("eq", leaving, none), index.lit(1), zero)
        return [*stmts, Bind(Var("leaving"), turn, 1, body)]

    def _stays(self, at: Expr) -> Expr:
        """Whether a row keeps its base; false for NaN, which becomes the base and stays."""
        room = HEADROOM / (self.scale * math.log2(math.e))
        limit = Bin("add", Load(self.largest, at), Lit(room, DType.F32))
        return Cmp("le", self._highest_score(at), limit)

    def _highest_score(self, at: Expr) -> Expr:
        highest = Load(self.highest, at)
        return Bin("add", highest, Load(self.base, at)) if self.relative else highest

    def _new_base(self, i: Expr, h: Expr) -> list[Stmt]:
        """The base of one row, what it has changed by, and the factor of sums for that."""
        at = row_number(i, h)
        highest, base = Load(self.highest, at), Load(self.base, at)
        above = highest if self.relative else Bin("sub", highest, base)
        change = Load(self.change, at)
        fall = Bin("mul", change, Lit(-self.scale, DType.F32))
        # what was summed up while all scores were minus infinity does not count
        first = Cmp("eq", Load(self.largest, at), _MINUS_INF)
        largest = Sel(self._stays(at), Load(self.largest, at), self._highest_score(at))
        raised = Bin("add", base, change)
        return [
            Store(self.change, at, Sel(self._stays(at), _ZERO, above)),
            Store(self.factor, at, Sel(first, _ZERO, mathlib.unary("exp", fall))),
            Store(self.highest, at, largest),
            Store(self.base, at, raised if self.relative else self._base_of(at)),
            Store(self.largest, at, highest),
        ]

    def _base_of(self, at: Expr) -> Expr:
        """A row's largest score; any number while that is minus infinity."""
        highest = Load(self.highest, at)
        return Sel(Cmp("eq", highest, _MINUS_INF), _ZERO, highest)

    def scale_sums(self, factor: Buffer) -> list[Stmt]:
        """Multiplies all sums of each row by its ``factor``."""

        def scaled(buffer: Buffer, i: Expr, h: Expr, at: Expr) -> list[Stmt]:
            by = Load(factor, row_number(i, h))
            return [Store(buffer, at, Bin("mul", Load(buffer, at), by))]

        return self.each_sum(scaled)

    def each_sum(
        self, body: Callable[[Buffer, Expr, Expr, Expr], list[Stmt]]
    ) -> list[Stmt]:
        """``body`` of the buffer, fragment, row of it and number of each sum, and of each total."""
        stmts: list[Stmt] = []
        for buffer, groups in ((self.sums, self.value_groups), (self.totals, 1)):

            def one(
                i: Expr, h: Expr, buffer: Buffer = buffer, groups: int = groups
            ) -> list[Stmt]:
                def at(n: Expr, o: Expr) -> list[Stmt]:
                    group = index.linear(0, ((i, groups), (n, 1)))
                    number = index.linear(0, ((group, RESULT_ELEMS), (h, 2), (o, 1)))
                    return body(buffer, i, h, number)

                return unrolled(
                    "n", groups, lambda n: unrolled("o", 2, lambda o: at(n, o))
                )

            stmts += self.each_row(one)
        return stmts

    def _raise_powers(self) -> list[Stmt]:
        """The powers of scores, as left fragments of the second product, ordered by its steps.

        With two elements to a register, fragments of results and of left factors agree. With one,
        a left factor has the rows next to each other, and its depths tig and tig + 4 stand for the
        keys 2 tig and 2 tig + 1.
        """
        factor = self.scale * math.log2(math.e)
        together = self.kind.depth // COLUMNS  # groups of keys in one step
        size = self.kind.left_elems

        def one(i: Expr, t: Expr, g: Expr, h: Expr, o: Expr) -> list[Stmt]:
            group = index.linear(0, ((i, self.groups), (t, together), (g, 1)))
            number = index.linear(0, ((group, RESULT_ELEMS), (h, 2), (o, 1)))
            place = ((o, 2), (h, 1)) if together == 1 else ((g, RESULT_ELEMS), (h, 2), (o, 1))
            to = index.linear(0, ((t, self.fragments * size), (i, size), *place))
            score: Expr = Load(self.scores, number)
            if not self.relative:
                score = Bin("sub", score, Load(self.base, row_number(i, h)))
            return [Store(self.powers, to, self._kept(exp2(score, factor)))]

        def pair(i: Expr, t: Expr, g: Expr, h: Expr) -> list[Stmt]:
            if together == 1:
                return unrolled("o", 2, lambda o: one(i, t, g, h, o))
            return [vector("o", 2, 2, lambda o: one(i, t, g, h, o))]

        def fragment(i: Expr, t: Expr) -> list[Stmt]:
            return unrolled(
                "g", together, lambda g: unrolled("h", 2, lambda h: pair(i, t, g, h))
            )

        return unrolled(
            "t",
            self.groups // together,
            lambda t: unrolled("i", self.fragments, lambda i: fragment(i, t)),
        )

    def _kept(self, power: Expr) -> Expr:
        """A power as tensor cores take it. Of tf32 the last bits are cut off there, in the totals
        as in the sums; a bfloat16 is rounded to nearest, halves up: powers are not negative."""
        match self.kind.dtype:
            case DType.F16:
                return Conv(power, DType.F16)
            case DType.U16:
                raised = Bin("add", Bits(power, DType.U32), Lit(0x8000, DType.U32))
                return Conv(Bin("shr", raised, Lit(16, DType.U32)), DType.U16)
        return power


def row_number(i: Expr, h: Expr) -> Expr:
    """Of row ``h`` of fragment ``i`` among the thread's rows."""
    return index.linear(0, ((i, 2), (h, 1)))


def _made_up(x: Expr) -> Expr:
    """A float32 that is as much too large as tensor cores make it too small, on average, when they
    cut off what a tf32 has no place for. What is a tf32 already stays what it is, and the error is
    about that of rounding, which would take four instructions."""
    return Bin("mul", x, Lit(CUT_OFF, DType.F32))


def _of_column(j: Expr, o: Expr) -> Expr:
    """The share that column ``o`` of group ``j`` has of the number of an element of a result."""
    return index.linear(0, ((j, RESULT_ELEMS), (o, 1)))


def _filled(buffer: Buffer, value: Expr) -> list[Stmt]:
    return unrolled("i", buffer.elems, lambda i: [Store(buffer, i, value)])
