"""Attention on a GPU: scores, softmax and weighted sum in one kernel, on tensor cores.

A block has some rows of queries. Keys and values pass by in tiles of shared memory, the next one
loaded while this one is computed on. The softmax is taken as it goes: each row keeps its largest
score and the sum of its powers, and what has been summed up is scaled when a larger score comes
(Milakov and Gimelshein, "Online normalizer calculation for softmax"; Dao et al., "FlashAttention").
So scores never go to memory. The products of scores stay in the registers in which tensor cores
leave them: the layout of a result is that of a left factor, up to the order of keys, in which the
values are then read too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop import index, mathlib
from aotc.loop.ir import (
    Alloc,
    Barrier,
    Bin,
    Buffer,
    Cmp,
    Expr,
    For,
    Kind,
    Lit,
    Load,
    Mma,
    Sel,
    Shuffle,
    Space,
    Stmt,
    Store,
    Var,
)
from aotc.loop.launch import WARP
from aotc.loop.mma import COLUMNS, KINDS, RESULT_ELEMS, ROWS
from aotc.lower.context import Context
from aotc.lower.gpu.attention_match import Attention
from aotc.lower.gpu.binding import bind, digits, held_below
from aotc.lower.gpu.products import MmaProduct, move
from aotc.lower.gpu.staging import Placed, Source, Staging, padded, rounded
from aotc.lower.pointwise import evaluate_nodes
from aotc.lower.scope import KernelScope, loop
from aotc.lower.views import View
from aotc.schedule.gpu import GpuTile
from aotc.target import SHARED_BYTES

#: Warps of a block, each with 16 rows, and keys of a tile: the first that fit shared memory, of
#: the larger ones where there are rows enough for all multiprocessors.
SIZES = ((8, 64), (4, 64), (8, 32), (4, 32), (4, 16))
MANY_ROWS = 512
#: Elements of keys and values that a thread holds while they are on their way.
MOST_AHEAD = 64
#: Shared memory that every architecture has for a block.
MOST_BYTES = min(SHARED_BYTES.values())


_Part = Callable[[Expr], list[Stmt]]
_Place = tuple[Expr, Expr, Expr]
"""Of a number of a result in fragments: its fragment, which of two rows, which of two columns."""


def lower_attention(context: Context, found: Attention) -> None:
    """Emits the kernel of one attention."""
    _Writer(context, found).emit()


def _swapped(view: View) -> View:
    """The view with its last two axes exchanged."""
    rank = len(view.shape)
    return view.transpose((*range(rank - 2), rank - 1, rank - 2))


def _number(place: _Place) -> Expr:
    """Where in a buffer of fragments the number at ``place`` is."""
    j, h, o = place
    return index.linear(0, ((j, RESULT_ELEMS), (h, 2), (o, 1)))


class _Writer:
    """Writes the kernel. Queries are [*batch, rows, width], keys [*batch, keys, width], values
    [*batch, width of values, keys]."""

    def __init__(self, context: Context, found: Attention) -> None:
        self.context, self.found = context, found
        self.kind = context.target.precision
        mma = KINDS[self.kind]
        q, k = context.view(found.queries), _swapped(context.view(found.keys))
        v, out = _swapped(context.view(found.values)), context.view(found.result)
        self.score_leaves = context.operands(found.score_nodes, [found.scores, *found.score_nodes])
        self.tail_leaves = context.operands(found.tail, [found.sums, *found.tail])
        views = [context.view(node) for node in (*self.score_leaves, *self.tail_leaves)]
        self.scope = KernelScope(aligned=True)
        self.scope.reserve(q, k, v, out, *views)
        self.batch, (self.rows, self.width) = q.shape[:-2], q.shape[-2:]
        self.keys, self.value_width = k.shape[-2], v.shape[-2]
        warps, at_once = self._sizes(mma.dtype)
        self.at_once = at_once
        self.tile = GpuTile(ROWS * warps, at_once, warps, 1, self.width, self.kind)
        common = (self.tile.threads, self.kind, mma.dtype)
        self.q = Staging("q", self._source(q), self.tile.rows, self.width, *common, halves=1)
        self.k = Staging("k", self._source(k), at_once, self.width, *common)
        self.v = Staging("v", self._source(v), self.value_width, at_once, *common)
        self.leaves = {
            node: self.scope.access(context.view(node))
            for node in (*self.score_leaves, *self.tail_leaves)
        }
        self.result = self.scope.access(out, write=True)
        self.product = MmaProduct(self.tile)
        across = self.value_width // COLUMNS
        self.sums = Buffer("sums", DType.F32, across * RESULT_ELEMS, Space.REGISTER)
        self.powers = Buffer("powers", mma.dtype, self.product.sums.elems, Space.REGISTER)
        self.values = Buffer("values", mma.dtype, mma.right_elems, Space.REGISTER)
        # of each of the thread's two rows: the largest score, the sum of powers, a factor
        self.largest, self.total, self.factor, self.highest = (
            Buffer(name, DType.F32, 2, Space.REGISTER)
            for name in ("largest", "total", "factor", "highest")
        )
        self.at: tuple[Expr, ...] = ()
        self.first_row: Expr = Lit(0)
        self.lane: Expr = Lit(0)

    def _sizes(self, dtype: DType) -> tuple[int, int]:
        """Warps, and keys of a tile."""
        wide = padded(self.width, dtype)
        for warps, keys in SIZES:
            ahead = keys * (self.width + self.value_width) // (WARP * warps)
            few = warps == SIZES[0][0] and self.rows < MANY_ROWS
            if few or ahead > MOST_AHEAD:
                continue
            elems = ROWS * warps * wide + 2 * (keys * wide + self.value_width * padded(keys, dtype))
            if elems * dtype.size_bytes <= MOST_BYTES:
                return warps, keys
        raise AssertionError(f"no tile of width {self.width} fits")

    def _source(self, view: View) -> Source:
        access = self.scope.access(view)
        steps = view.strides[-2], view.strides[-1]

        def at(row: Sequence[Expr], k: Sequence[Expr]) -> Expr:
            return access.index((*self.at, *row, *k))

        along_depth = steps[1] == 1 or steps[0] != 1
        return Source(
            access,
            at,
            view.shape[-2:-1],
            view.shape[-1:],
            along_depth,
            strided=1 not in steps,
            repeats_last=not along_depth,
        )

    def emit(self) -> None:
        """Emits the call."""
        tile = self.tile
        x, z, thread = Var("x"), Var("z"), Var("thread")
        nest: Stmt = For(thread, tile.threads, tuple(self._thread(x, z, thread)), Kind.THREAD)
        for buffer in (self.q.shared, self.k.shared, self.v.shared):
            nest = Alloc(buffer, (nest,))
        nest = For(x, -(-self.rows // tile.rows), (nest,), Kind.BLOCK)
        nest = For(z, math.prod(self.batch), (nest,), Kind.BLOCK)
        label = f"attention_{'x'.join(map(str, (*self.batch, self.rows, self.keys, self.width)))}"
        recipe = f"attention {tile.rows}x{self.at_once}x{self.width} {self.kind}"
        self.context.emit(self.scope.call(label, [nest], (), recipe))

    def _thread(self, x: Var, z: Var, thread: Var) -> list[Stmt]:
        self.first_row = index.mul(x, self.tile.rows)
        zero = index.lit(0)

        def with_batch(at: tuple[Expr, ...]) -> list[Stmt]:
            self.at = at
            return bind("lane", index.mod(thread, WARP), WARP, with_lane)

        def with_lane(lane: Expr) -> list[Stmt]:
            self.lane = lane
            return self.q.place(thread, self.first_row, with_queries)

        def with_queries(q: Placed) -> list[Stmt]:
            begin = [*q.load((zero,)), *q.store(zero)]
            rest = self.v.place(thread, zero, lambda v: self._with_values(thread, v))
            return [Alloc(self.q.registers, tuple(begin)), *rest]

        return digits("batch", z, self.batch, with_batch)

    def _with_values(self, thread: Expr, v: Placed) -> list[Stmt]:
        def load(tile: Expr) -> list[Stmt]:
            first = index.mul(tile, self.at_once)
            keys = self.k.place(thread, first, lambda k: k.load((index.lit(0),)))
            return [*keys, *v.load((tile,))]

        def store(half: Expr) -> list[Stmt]:
            keys = self.k.place(thread, index.lit(0), lambda k: k.store(half))
            return [*keys, *v.store(half)]

        body = self.product.place(thread, lambda: self._work(load, store))
        buffers = (self.k.registers, self.v.registers, self.product.sums, self.sums, self.powers)
        rows = (self.largest, self.total, self.factor, self.highest)
        for buffer in (*buffers, *rows):
            body = [Alloc(buffer, tuple(body))]
        return body

    def _work(self, load: _Part, store: _Part) -> list[Stmt]:
        """All tiles of keys, then the result."""
        tiles, tile, zero = -(-self.keys // self.at_once), Var("tile"), index.lit(0)

        def step(half: Expr) -> list[Stmt]:
            following = index.add(tile, 1)
            other = index.sub(index.lit(1), half)
            return [
                *bind("next", following, tiles, load),
                *self._tile(tile, half),
                *bind("next", following, tiles, lambda _: store(other)),
                Barrier(),
            ]

        return [
            *self._fill(self.sums, 0.0),
            *self._fill(self.total, 0.0),
            *self._fill(self.largest, -math.inf),
            *load(zero),
            *store(zero),
            Barrier(),
            For(tile, tiles, tuple(bind("half", index.mod(tile, 2), 2, step))),
            *self._finish(),
        ]

    def _fill(self, buffer: Buffer, value: float) -> list[Stmt]:
        number = Lit(value, DType.F32)
        return loop("i", buffer.elems, lambda i: [Store(buffer, i, number)], Kind.UNROLLED)

    def _tile(self, tile: Expr, half: Expr) -> list[Stmt]:
        """What one tile of keys adds."""
        product, zero = self.product, index.lit(0)
        scores = product.sums
        return [
            *self._fill(scores, 0.0),
            *product.multiply(self.q, self.k, half, zero),
            *self._scored(index.mul(tile, self.at_once)),
            *loop("h", 2, self._raise, Kind.UNROLLED),
            *self._each(self.sums, self._scaled),
            *self._each(scores, self._power),
            *self._weigh(half),
        ]

    def _each(self, buffer: Buffer, body: Callable[[_Place], list[Stmt]]) -> list[Stmt]:
        """``body`` of each number of a result in fragments."""
        kind = Kind.UNROLLED

        def fragment(j: Expr) -> list[Stmt]:
            return loop(
                "h", 2, lambda h: loop("o", 2, lambda o: body((j, h, o)), kind), kind
            )

        return loop("j", buffer.elems // RESULT_ELEMS, fragment, kind)

    def _scored(self, first_key: Expr) -> list[Stmt]:
        """The scores through the nodes between product and softmax; none beyond the last key."""
        nodes, scores = self.found.score_nodes, self.product.sums
        ragged = self.keys % self.at_once != 0
        if not nodes and not ragged:
            return []

        def one(number: Expr, row: Expr, key: Expr, real: Expr) -> list[Stmt]:
            values: dict[Node, Expr] = {
                node: self.leaves[node].load((*self.at, row, key)) for node in self.score_leaves
            }
            raw = Load(scores, number)
            found = evaluate_nodes(nodes, {**values, self.found.scores: raw})
            value = found[nodes[-1]] if nodes else raw
            if ragged:
                inside = Cmp("lt", real, index.lit(self.keys))
                value = Sel(inside, value, Lit(-math.inf, DType.F32))
            return [Store(scores, number, value)]

        def rows(share: Expr, local: Expr) -> list[Stmt]:
            at = index.add(self.first_row, local)

            def columns(row: Expr) -> list[Stmt]:
                def column(part: Expr, local: Expr) -> list[Stmt]:
                    real, number = index.add(first_key, local), index.add(share, part)
                    held = held_below(real, self.keys) if ragged else real
                    return bind("key", held, self.keys, lambda key: one(number, row, key, real))

                return self.product.each_column(Kind.UNROLLED, column)

            return bind("row", held_below(at, self.rows), self.rows, columns)

        return self.product.each_row(Kind.UNROLLED, rows)

    def _raise(self, h: Expr) -> list[Stmt]:
        """The largest score of a row with those of this tile, and the factor of what was summed
        under the old one."""
        scores = self.product.sums
        stmts: list[Stmt] = [Store(self.highest, h, Load(self.largest, h))]

        def more(j: Expr, o: Expr) -> list[Stmt]:
            score = Load(scores, _number((j, h, o)))
            return [Store(self.highest, h, Bin("max", Load(self.highest, h), score))]

        stmts += loop(
            "j",
            scores.elems // RESULT_ELEMS,
            lambda j: loop("o", 2, lambda o: more(j, o), Kind.UNROLLED),
            Kind.UNROLLED,
        )
        stmts += self._over_row("max", self.highest, h)
        highest = Load(self.highest, h)
        nothing = Cmp("eq", highest, Lit(-math.inf, DType.F32))
        # where all scores so far are -inf, so that their powers are 0, any number will do
        base = Sel(nothing, Lit(0.0, DType.F32), highest)
        factor = mathlib.unary("exp", Bin("sub", Load(self.largest, h), base))
        return [
            *stmts,
            Store(self.factor, h, factor),
            Store(self.largest, h, highest),
            Store(self.highest, h, base),
            Store(self.total, h, Bin("mul", Load(self.total, h), Load(self.factor, h))),
        ]

    def _over_row(self, fn: str, buffer: Buffer, h: Expr) -> list[Stmt]:
        """Joins what the four threads of a row have; all of them get the result."""
        stmts: list[Stmt] = []
        for mask in (1, 2):
            source = Bin("xor", self.lane, index.lit(mask))
            other = Shuffle(Load(buffer, h), source)
            stmts.append(Store(buffer, h, Bin(fn, Load(buffer, h), other)))
        return stmts

    def _scaled(self, place: _Place) -> list[Stmt]:
        at = _number(place)
        scaled = Bin("mul", Load(self.sums, at), Load(self.factor, place[1]))
        return [Store(self.sums, at, scaled)]

    def _power(self, place: _Place) -> list[Stmt]:
        """The power of one score: added to the total of its row, and an element of the left factor
        of the second product.

        With two elements to a register, fragments of results and of left factors agree. With one,
        a left factor has the rows next to each other, and its depths tig and tig + 4 stand for the
        keys 2 tig and 2 tig + 1.
        """
        j, h, o = place
        at, scores = _number(place), self.product.sums
        to = index.linear(0, ((j, RESULT_ELEMS), (o, 2), (h, 1))) if self.kind == "tf32" else at
        power = mathlib.unary("exp", Bin("sub", Load(scores, at), Load(self.highest, h)))
        held = Load(scores, at)
        return [
            Store(scores, at, power),
            Store(self.total, h, Bin("add", Load(self.total, h), held)),
            Store(self.powers, to, rounded(held, self.kind)),
        ]

    def _weigh(self, half: Expr) -> list[Stmt]:
        """Adds the values, weighted by the powers."""
        mma, product = KINDS[self.kind], self.product
        pair = mma.right_elems // 2

        def tile(t: Expr, n: Expr) -> list[Stmt]:
            row = index.linear(0, ((n, COLUMNS), (product.group, 1)))
            begin = index.mul(t, mma.depth)
            if self.kind == "tf32":  # both elements, by the order of keys that scores have
                first = index.add(begin, index.mul(product.inside, 2))
                moves = [move(self.v, half, row, first, self.values, index.lit(0), 2)]
            else:
                moves = [
                    move(
                        self.v,
                        half,
                        row,
                        index.linear(8 * word, ((begin, 1), (product.inside, pair))),
                        self.values,
                        index.lit(word * pair),
                        pair,
                    )
                    for word in range(2)
                ]
            left, sums = index.mul(t, mma.left_elems), index.mul(n, RESULT_ELEMS)
            zero = index.lit(0)
            return [*moves, Mma(self.kind, self.sums, sums, self.powers, left, self.values, zero)]

        body = loop(
            "t",
            self.at_once // mma.depth,
            lambda t: loop(
                "n", self.value_width // COLUMNS, lambda n: tile(t, n), Kind.UNROLLED
            ),
            Kind.UNROLLED,
        )
        return [Alloc(self.values, tuple(body))]

    def _finish(self) -> list[Stmt]:
        """Divides by the totals, and stores through the nodes after the second product."""
        tail, product = self.found.tail, self.product

        def one(n: Expr, h: Expr, o: Expr, row: Expr) -> list[Stmt]:
            number = _number((n, h, o))
            column = index.linear(0, ((n, COLUMNS), (product.inside, 2), (o, 1)))
            where = (*self.at, row, column)
            value: Expr = Bin("div", Load(self.sums, number), Load(self.total, h))
            values: dict[Node, Expr] = {
                node: self.leaves[node].load(where) for node in self.tail_leaves
            }
            if tail:
                found = evaluate_nodes(tail, {**values, self.found.sums: value})
                value = found[self.found.result]
            return [self.result.store(where, value)]

        def row(h: Expr) -> list[Stmt]:
            local = index.linear(0, ((product.row, 1), (h, 8), (product.group, 1)))
            at = index.add(self.first_row, local)
            count = self.value_width // COLUMNS
            return bind(
                "row",
                at,
                self.rows,
                lambda row: loop(
                    "n",
                    count,
                    lambda n: loop("o", 2, lambda o: one(n, h, o, row), Kind.UNROLLED),
                    Kind.UNROLLED,
                ),
            )

        totals = loop("h", 2, lambda h: self._over_row("add", self.total, h), Kind.UNROLLED)
        return [*totals, *loop("h", 2, row, Kind.UNROLLED)]
