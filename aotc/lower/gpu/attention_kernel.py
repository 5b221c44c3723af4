"""The kernel of an attention: what it computes and the tile of a block go in, the call comes out.

Here is the way of tiles through shared memory, what becomes of scores between product and softmax,
and of the results; gpu/attention_warp.py has the arithmetic of a warp.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop import index, mathlib
from aotc.loop.ir import (
    Alloc,
    Barrier,
    Bin,
    Bind,
    Buffer,
    Cmp,
    Expr,
    Fma,
    For,
    Kind,
    Lit,
    Load,
    Sel,
    Space,
    Stmt,
    Store,
    Un,
    Var,
)
from aotc.loop.ir_async import AsyncCommit, AsyncWait
from aotc.loop.launch import WARP
from aotc.loop.mma import COLUMNS, KINDS, RESULT_ELEMS
from aotc.lower.context import Context
from aotc.lower.gpu.attention_copies import RowCopies, as_copied
from aotc.lower.gpu.attention_match import Attention
from aotc.lower.gpu.attention_warp import AttentionWarp, InShared, row_number, unrolled
from aotc.lower.gpu.binding import bind, digits, held_below
from aotc.lower.pointwise import evaluate_nodes
from aotc.lower.scope import Access, KernelScope
from aotc.lower.views import View
from aotc.schedule.attention import handed_numbers

_ZERO = Lit(0.0, DType.F32)


@dataclass(frozen=True)
class Parts:
    """What blocks that share the keys leave behind, each in its place of the first axis: sums of
    weighted values, and for each row the sum of weights and the largest score, relative to which
    the weights are."""

    sums: View
    totals: View
    largest: View


class AttentionWriter:
    """Writes the kernel. Queries are [*batch, rows, width], keys [*batch, keys, width], values
    [*batch, keys, width of values]. With ``parts`` results stay unjoined."""

    def __init__(self, context: Context, found: Attention, parts: Parts | None) -> None:
        self.context, self.found, self.parts = context, found, parts
        self.tile, self.sizes = found.tile, found.sizes
        dtype = KINDS[self.sizes.kind].dtype
        q, k, v = (as_copied(context, view, dtype) for view in self._operands())
        out = [parts.sums, parts.totals, parts.largest] if parts else [context.view(found.result)]
        out = [self._part(view) if parts else self._apart(view) for view in out]
        nodes = found.scores.nodes
        self.score_leaves = context.operands(nodes, [found.product, *found.scores.members])
        self.tail = () if parts else found.tail
        self.tail_leaves = context.operands(self.tail, [found.sums, *self.tail])
        empty = found.empty.condition if found.empty and not parts else None
        self.condition = [empty] if empty else []
        nodes = (*self.score_leaves, *self.tail_leaves, *self.condition)
        leaves = {node: self._apart(context.view(node)) for node in nodes}
        self.scope = KernelScope(aligned=True)
        self.scope.reserve(q, k, v, *out, *leaves.values())
        self.batch, (self.rows, self.keys) = q.shape[:-2], (q.shape[-2], k.shape[-2])
        self.q = self._copies("q", q, self.tile.rows, 1, self.sizes.stride)
        self.k = self._copies("k", k, self.tile.step, self.tile.stages, self.sizes.stride)
        self.v = self._copies("v", v, self.tile.step, self.tile.stages, self.sizes.value_stride)
        self.v = replace(self.v, filled=self.v.width)
        self.leaves = {node: self.scope.access(view) for node, view in leaves.items()}
        self.out = [self.scope.access(view, write=True) for view in out]
        self.shared = {copies: copies.buffer() for copies in (self.q, self.k, self.v)}
        numbers = handed_numbers(self.tile, self.sizes.value_width) * WARP * self.tile.warps
        handed = (self.tile.parts - 1) * numbers
        self.handed = Buffer("handed", DType.F32, max(1, handed), Space.SHARED)
        self.warp = AttentionWarp(
            self.tile, self.sizes, found.scores.scale, relative=not found.scores.nodes
        )
        self.row_blocks = -(-self.rows // self.tile.rows)
        self.steps = self.tile.steps(self.keys)
        self.is_ragged = self.steps * self.tile.splits * self.tile.step > self.keys
        # what repeats along the rows waits in registers, of each key of the thread
        self.per_key = {
            node: Buffer(f"of_key{i}", DType.F32, 2 * self.warp.groups, Space.REGISTER)
            for i, node in enumerate(self.score_leaves)
            if leaves[node].strides[-2] == 0 and leaves[node].value_dtype is DType.F32
        }
        self.at: tuple[Expr, ...] = ()
        self.first_row: Expr = Lit(0)
        self.split: tuple[Expr, ...] = ()
        self.first_step: Expr = Lit(0)

    def _operands(self) -> tuple[View, View, View]:
        """Queries, keys and values, each with its rows before their width."""
        context, operands = self.context, self.found.operands
        q, heads = self._apart(context.view(operands.queries)), operands.heads
        if heads is None:
            return q, _swapped(context.view(operands.keys)), context.view(operands.values)
        k, v = (heads.shared(context.view(node)) for node in (heads.keys, heads.values))
        return q, k, v

    def _apart(self, view: View) -> View:
        """``view`` with the batch axes of the kernel."""
        heads = self.found.operands.heads
        return view if heads is None else heads.apart(self.context, view)

    def _part(self, view: View) -> View:
        """What the blocks that share keys leave, with the batch axes of the kernel."""
        first = replace(view, shape=view.shape[1:], strides=view.strides[1:])
        found = self._apart(first)
        shape, strides = (view.shape[0], *found.shape), (view.strides[0], *found.strides)
        return replace(found, shape=shape, strides=strides)

    def _copies(self, name: str, view: View, rows: int, stages: int, stride: int) -> RowCopies:
        access, width = self.scope.access(view), view.shape[-1]
        filled = self.sizes.depth_steps * KINDS[self.sizes.kind].depth
        total = view.shape[-2]
        threads = self.tile.threads
        return RowCopies(name, access, total, width, filled, stride, rows, stages, threads)

    def emit(self) -> None:
        """Emits the call."""
        x, z, thread = Var("x"), Var("z"), Var("thread")
        threads = tuple(self._thread(x, z, thread))
        nest: Stmt = For(thread, self.tile.threads, threads, Kind.THREAD)
        shared = [*self.shared.values(), *([self.handed] if self.tile.parts > 1 else [])]
        for buffer in shared:
            nest = Alloc(buffer, (nest,))
        nest = For(x, self.row_blocks, (nest,), Kind.BLOCK)
        nest = For(z, self.tile.splits * math.prod(self.batch), (nest,), Kind.BLOCK)
        recipe = f"attention {self.tile} {self.sizes.kind}"
        self.context.emit(self.scope.call(self.found.label, [nest], (), recipe))

    def _thread(self, x: Var, z: Var, thread: Var) -> list[Stmt]:
        # with a causal mask the last rows have most to do: they begin first
        last = index.lit(self.row_blocks - 1)
        block = x if self.found.scores.causal is None else index.sub(last, x)
        self.first_row = index.mul(block, self.tile.rows)
        splits = (self.tile.splits,) if self.tile.splits > 1 else ()

        def with_batch(at: tuple[Expr, ...]) -> list[Stmt]:
            self.split, self.at = at[: len(splits)], at[len(splits) :]
            self.first_step = index.mul(self.split[0], self.steps) if splits else index.lit(0)
            return self.warp.place(thread, lambda: self._work(thread))

        return digits("batch", z, (*splits, *self.batch), with_batch)

    def _work(self, thread: Expr) -> list[Stmt]:
        """All that one thread does, its place being known."""
        body = [
            *self.warp.clear(),
            *self._all_steps(thread),
            *self._hand_over(),
            *self._of_first_part(self._finish),
        ]
        for buffer in (*self.warp.buffers(), *self.per_key.values()):
            body = [Alloc(buffer, tuple(body))]
        return body

    def _all_steps(self, thread: Expr) -> list[Stmt]:
        """The loop over the keys: copies of later steps are on their way while one is computed."""
        tile, step, zero = self.tile, Var("step"), index.lit(0)
        ahead = max(1, tile.stages - 1)
        q = self.shared[self.q]
        stmts = self.q.begin(q, thread, self.at, self.first_row, zero, zeros=False)
        for number in range(ahead):
            if number < self.steps:
                stmts += self._bring(thread, index.lit(number), index.lit(number))
            stmts.append(AsyncCommit())
        here: list[Stmt] = [AsyncWait(ahead - 1), Barrier()]
        stmts += [*here, *self.warp.keep_queries(InShared(q, zero, self.q.stride))]

        def bring(later: Expr) -> list[Stmt]:
            stage = index.mod(later, tile.stages)
            return bind(
                "to", stage, tile.stages, lambda to: self._if_needed(thread, later, to)
            )

        following: list[Stmt] = []
        if self.steps > ahead:
            later = index.add(step, ahead)
            following = bind("later", later, self.steps, bring)
        if self.steps == 1:
            return [*stmts, *self._tile(zero, zero)]
        stage = index.mod(step, tile.stages)
        work = bind("stage", stage, tile.stages, lambda at: self._tile(step, at))
        # the wait counts groups, so there is one for each step, and empty ones in the end
        return [*stmts, For(step, self.steps, (*here, *following, AsyncCommit(), *work))]

    def _first_key(self, step: Expr) -> Expr:
        """The first key of a step of this block."""
        return index.mul(index.add(self.first_step, step), self.tile.step)

    def _bring(self, thread: Expr, step: Expr, stage: Expr) -> list[Stmt]:
        """Begins to copy keys and values of one step."""
        first = self._first_key(step)
        return [
            stmt
            for copies in (self.k, self.v)
            for stmt in copies.begin(
                self.shared[copies], thread, self.at, first, stage, self.is_ragged
            )
        ]

    def _if_needed(self, thread: Expr, step: Expr, stage: Expr) -> list[Stmt]:
        """The same where some row of the block sees a key of the step."""
        stmts = self._bring(thread, step, stage)
        last_row = index.add(self.first_row, self.tile.rows - 1)
        return self._where_seen(last_row, self._first_key(step), stmts)

    def _where_seen(self, row: Expr, key: Expr, stmts: list[Stmt]) -> list[Stmt]:
        """``stmts`` where ``row`` sees ``key`` or a later one."""
        causal = self.found.scores.causal
        if causal is None:
            return stmts
        beyond = index.sub(index.add(row, causal), key)
        return [Bind(Var("seen"), beyond, self._reach, tuple(stmts))]

    @property
    def _reach(self) -> int:
        """More than any difference of a row, or a key, and another."""
        causal = self.found.scores.causal or 0
        keys = self.steps * self.tile.splits * self.tile.step
        return self.row_blocks * self.tile.rows + keys + causal

    def _tile(self, step: Expr, stage: Expr) -> list[Stmt]:
        """What the keys of one step add."""
        warp, part = self.warp, self.warp.part
        mine = index.mul(part, self.tile.keys)
        first = index.add(self._first_key(step), mine)

        def tile(copies: RowCopies) -> InShared:
            place = index.linear(0, ((stage, copies.size), (mine, copies.stride)))
            return InShared(self.shared[copies], place, copies.stride)

        queries = InShared(self.shared[self.q], index.lit(0), self.q.stride)
        stmts = [
            *self._load_per_key(first),
            *warp.score(queries, tile(self.k)),
            *self._through_nodes(first),
            *self._hide(first),
            *warp.soften(),
            *warp.weigh(tile(self.v)),
        ]
        height = self.tile.rows // self.tile.warps
        last_row = index.linear(height - 1, ((self.first_row, 1), (warp.warp, height)))
        return self._where_seen(last_row, first, stmts)

    # scores

    def _with_key(
        self, first: Expr, local: Expr, body: Callable[[Expr], list[Stmt]]
    ) -> list[Stmt]:
        """``body`` of a key, beyond the last one of that."""
        key = index.add(first, local)
        held = held_below(key, self.keys) if self.is_ragged else key
        return bind("key", held, self.keys, body)

    def _load_per_key(self, first: Expr) -> list[Stmt]:
        """What repeats along the rows, of the thread's keys."""
        if not self.per_key:
            return []

        def loaded(own: Expr, key: Expr) -> list[Stmt]:
            where = (*self.at, index.lit(0), key)
            return [
                Store(buffer, own, self.leaves[node].load(where))
                for node, buffer in self.per_key.items()
            ]

        return self.warp.each_column(
            lambda own, _share, local: self._with_key(first, local, lambda key: loaded(own, key))
        )

    def _through_nodes(self, first: Expr) -> list[Stmt]:
        """The scores through the nodes between product and softmax."""
        scores, warp = self.found.scores, self.warp
        if not scores.nodes:
            return []
        others = [node for node in self.score_leaves if node not in self.per_key]

        def one(number: Expr, own: Expr, row: Expr, key: Expr) -> list[Stmt]:
            leaves: dict[Node, Expr] = {
                node: Load(buffer, own) for node, buffer in self.per_key.items()
            }
            leaves |= {node: self.leaves[node].load((*self.at, row, key)) for node in others}
            return [Store(warp.scores, number, scores.value(Load(warp.scores, number), leaves))]

        def columns(i: Expr, h: Expr, row: Expr) -> list[Stmt]:
            def column(own: Expr, share: Expr, local: Expr) -> list[Stmt]:
                number = warp.score_number(i, h, share)
                if not others:
                    return one(number, own, row, index.lit(0))
                return self._with_key(first, local, lambda key: one(number, own, row, key))

            return warp.each_column(column)

        def of_row(i: Expr, h: Expr) -> list[Stmt]:
            if not others:
                return columns(i, h, index.lit(0))
            at = index.add(self.first_row, warp.local_row(i, h))
            ragged = self.rows % self.tile.rows != 0
            held = held_below(at, self.rows) if ragged else at
            return bind("row", held, self.rows, lambda row: columns(i, h, row))

        return warp.each_row(of_row)

    def _hide(self, first: Expr) -> list[Stmt]:
        """Minus infinity for keys beyond the last one, and for those that a row does not see; in
        tiles that have some."""
        warp, causal = self.warp, self.found.scores.causal
        end = index.add(first, self.tile.keys - 1)
        stmts: list[Stmt] = []

        def hidden(visible: Callable[[Expr, Expr], Expr]) -> tuple[Stmt, ...]:
            def one(i: Expr, h: Expr, share: Expr, local: Expr) -> list[Stmt]:
                number, key = warp.score_number(i, h, share), index.add(first, local)
                row = index.add(self.first_row, warp.local_row(i, h))
                minus = Lit(-math.inf, DType.F32)
                kept = Sel(visible(row, key), Load(warp.scores, number), minus)
                return [Store(warp.scores, number, kept)]

            def of_row(i: Expr, h: Expr) -> list[Stmt]:
                return warp.each_column(lambda _own, share, local: one(i, h, share, local))

            return tuple(warp.each_row(of_row))

        if self.is_ragged:
            beyond = index.sub(end, self.keys)
            body = hidden(lambda _row, key: Cmp("lt", key, index.lit(self.keys)))
            stmts.append(Bind(Var("beyond"), beyond, self._reach, body))
        if causal is not None:
            height = self.tile.rows // self.tile.warps
            top = index.add(self.first_row, index.mul(warp.warp, height))
            unseen = index.sub(end, index.add(top, causal + 1))
            body = hidden(lambda row, key: Cmp("le", key, index.add(row, causal)))
            stmts.append(Bind(Var("unseen"), unseen, self._reach, body))
        return stmts

    # results

    def _of_first_part(self, body: Callable[[], list[Stmt]]) -> list[Stmt]:
        """``body`` in the warps that have everything of their rows."""
        if self.tile.parts == 1:
            return body()
        return [Bind(Var("first"), self.warp.part, 1, tuple(body()))]

    def _handed(self, part: Expr, number: Expr) -> Expr:
        """The place of a number that this thread's counterpart in ``part`` hands over."""
        warps, count = self.tile.warps, handed_numbers(self.tile, self.sizes.value_width)
        slot = index.linear(0, ((part, warps), (self.warp.warp, 1)))
        return index.linear(0, ((slot, count * WARP), (number, WARP), (self.warp.lane, 1)))

    def _hand_over(self) -> list[Stmt]:
        """The parts but the first give theirs to the first, which adds them in order."""
        parts, warp = self.tile.parts, self.warp
        if parts == 1:
            return []
        base = {warp.sums: 0, warp.totals: warp.sums.elems}
        after = warp.sums.elems + warp.totals.elems

        def give(part: Expr) -> list[Stmt]:
            def of_sum(buffer: Buffer, _i: Expr, _h: Expr, at: Expr) -> list[Stmt]:
                to = self._handed(part, index.add(at, base[buffer]))
                return [Store(self.handed, to, Load(buffer, at))]

            def of_row(i: Expr, h: Expr) -> list[Stmt]:
                at = row_number(i, h)
                to = self._handed(part, index.add(at, after))
                return [Store(self.handed, to, Load(warp.largest, at))]

            return [*warp.each_sum(of_sum), *warp.each_row(of_row)]

        def take(part: Expr) -> list[Stmt]:
            def of_row(i: Expr, h: Expr) -> list[Stmt]:
                at = row_number(i, h)
                other = Load(self.handed, self._handed(part, index.add(at, after)))
                return self._common_base(at, other)

            def of_sum(buffer: Buffer, i: Expr, h: Expr, at: Expr) -> list[Stmt]:
                other = Load(self.handed, self._handed(part, index.add(at, base[buffer])))
                own = Bin("mul", Load(buffer, at), Load(warp.factor, row_number(i, h)))
                return [Store(buffer, at, Fma(other, Load(warp.change, row_number(i, h)), own))]

            return [*warp.each_row(of_row), *warp.each_sum(of_sum)]

        giver = index.sub(warp.part, 1)
        return [
            Bind(giver_var := Var("giver"), giver, parts - 1, tuple(give(giver_var))),
            Barrier(),
            *self._of_first_part(lambda: unrolled("p", parts - 1, take)),
        ]

    def _common_base(self, at: Expr, other: Expr) -> list[Stmt]:
        """A base for what two parts have summed up, and the factors of both for it: of the own in
        ``factor``, of the other in ``change``."""
        warp = self.warp
        scale, minus = Lit(self.found.scores.scale, DType.F32), Lit(-math.inf, DType.F32)
        highest = Load(warp.highest, at)
        base = Sel(Cmp("eq", highest, minus), _ZERO, highest)

        def factor(largest: Expr) -> Expr:
            return mathlib.unary("exp", Bin("mul", Bin("sub", largest, base), scale))

        return [
            Store(warp.highest, at, Bin("max", Load(warp.largest, at), other)),
            Store(warp.factor, at, factor(Load(warp.largest, at))),
            Store(warp.change, at, factor(other)),
            Store(warp.largest, at, highest),
        ]

    def _finish(self) -> list[Stmt]:
        """Stores the results through the nodes after the second product, or as they are, for the
        kernel that joins them."""
        warp = self.warp

        def of_row(i: Expr, h: Expr) -> list[Stmt]:
            at = index.add(self.first_row, warp.local_row(i, h))
            return bind("row", at, self.rows, lambda row: self._finish_row(i, h, row))

        return warp.each_row(of_row)

    def _finish_row(self, i: Expr, h: Expr, row: Expr) -> list[Stmt]:
        warp, where = self.warp, (*self.split, *self.at, row)
        total = Load(warp.totals, index.linear(0, ((i, RESULT_ELEMS), (h, 2))))
        largest, at = Load(warp.largest, row_number(i, h)), row_number(i, h)
        stmts: list[Stmt] = []
        if self.parts:
            zero = index.lit(0)
            ends = ((self.out[1], total), (self.out[2], largest))
            stores = tuple(access.store((*where, zero), value) for access, value in ends)
            stmts.append(Bind(Var("only"), warp.inside, 1, stores))
        else:
            stmts.append(Store(warp.factor, at, self._inverse(where, total, largest)))

        def pair(n: Expr) -> list[Stmt]:
            group = index.linear(0, ((i, warp.value_groups), (n, 1)))
            first = index.linear(0, ((n, COLUMNS), (warp.inside, 2)))

            def one(o: Expr) -> Stmt:
                number = index.linear(0, ((group, RESULT_ELEMS), (h, 2), (o, 1)))
                return self._result((*where, index.add(first, o)), Load(warp.sums, number), at)

            o = Var("o")
            lanes = 2 if self._stores_pairs else 1
            if lanes == 2:
                return [For(o, 2, (one(o),), Kind.VECTOR, 2)]
            return unrolled("o", 2, lambda o: [one(o)])

        return [*stmts, *unrolled("n", warp.value_groups, pair)]

    def _inverse(self, where: Sequence[Expr], total: Expr, largest: Expr) -> Expr:
        """What the sums of the row at ``where`` are multiplied by; zero if it is empty."""
        # of rows with no key, a NaN or an infinite score the weights are no numbers
        finite = Cmp("lt", Un("abs", largest), Lit(math.inf, DType.F32))
        inverse, empty = Bin("div", Lit(1.0, DType.F32), total), self.found.empty
        if empty is not None and empty.condition is None:
            return Sel(finite, inverse, _ZERO)
        value = Sel(finite, inverse, Lit(math.nan, DType.F32))
        if empty is None or empty.condition is None:
            return value
        condition = self.leaves[empty.condition].load((*where, index.lit(0)))
        return Sel(condition, _ZERO, value) if empty.sense else Sel(condition, value, _ZERO)

    @property
    def _stores_pairs(self) -> bool:
        """Whether neighbouring columns of everything that `_result` touches are one access."""
        touched: list[Access] = [self.out[0], *(self.leaves[node] for node in self.tail_leaves)]
        return all(
            access.strides[-1] == 1
            and not any(step % 2 for step in (*access.strides[:-1], access.base))
            for access in touched
        )

    def _result(self, where: Sequence[Expr], value: Expr, row: Expr) -> Stmt:
        """Stores one result, of the sum that ``value`` is."""
        if self.parts:
            return self.out[0].store(where, value)
        factor = Load(self.warp.factor, row)
        value = Bin("mul", value, factor)
        if self.found.empty is not None:  # whatever has been summed up
            value = Sel(Cmp("eq", factor, _ZERO), _ZERO, value)
        leaves = {node: self.leaves[node].load(where) for node in self.tail_leaves}
        found = evaluate_nodes(self.tail, {**leaves, self.found.sums: value})
        return self.out[0].store(where, found[self.found.result])


def _swapped(view: View) -> View:
    """The view with its last two axes exchanged."""
    rank = len(view.shape)
    return view.transpose((*range(rank - 2), rank - 1, rank - 2))
