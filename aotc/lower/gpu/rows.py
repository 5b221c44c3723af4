"""ROWS groups on a GPU: softmax, norms and their kin; a row is read once.

Threads take pieces of the row that are neighbours in memory, up to 16 bytes each, and keep them in
registers from pass to pass, so that memory is read once and written once; rows too long for that
are read again. Sums go from thread to thread of a warp by shuffles, from warp to warp by shared
memory (gpu/row_threads.py says who shares what, and in which order terms are added).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import cached_property

from aotc.fuse.groups import POINTWISE_OPS, Group
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import (
    Alloc,
    Barrier,
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
from aotc.loop.launch import MAX_THREADS, WARP
from aotc.lower.context import Context
from aotc.lower.gpu.binding import bind, digits, held_below
from aotc.lower.gpu.columns import lower_gpu_reduce
from aotc.lower.gpu.row_threads import BUSY_THREADS, RowThreads, share_row
from aotc.lower.gpu.vectors import neighbours
from aotc.lower.pointwise import weight_of
from aotc.lower.reduce import COMBINE, RowWriter, identity, lower_rows, row_length
from aotc.lower.scope import loop, overlapped, vector

#: Rows below which a thread alone is as good as several.
MIN_LENGTH = 5
#: Elements of a row from which several blocks share it.
LONG = 1 << 15
#: Pieces of a row that are read again whose loads overlap.
IN_LINE = 8


def lower_gpu_rows(context: Context, group: Group) -> None:
    """Emits the kernel of a ROWS group."""
    if _suits_blocks(context, group):
        lower_gpu_reduce(context, group)
        return
    sums = [node for node in group.nodes if isinstance(node.op, ops.Reduce)]
    # shuffles move 32 bits
    shared = row_length(group) >= MIN_LENGTH
    if shared and all(node.type.dtype.size_bytes == 4 for node in sums):
        GpuRowWriter(context, group).emit()
    else:
        lower_rows(context, group)


def _suits_blocks(context: Context, group: Group) -> bool:
    """Whether a group is a single sum of rows that are so long, and so few, that several blocks
    had better share one, and its terms may be added in any order."""
    anchor = group.anchor
    if context.target.precision == "f32" and anchor.type.dtype.is_float:
        return False
    alone = all(node is anchor or isinstance(node.op, POINTWISE_OPS) for node in group.nodes)
    few = math.prod(anchor.shape) * MAX_THREADS < BUSY_THREADS
    return alone and few and group.result.shape == anchor.shape and row_length(group) >= LONG


class GpuRowWriter(RowWriter):
    """Writes a kernel of several threads for each row."""

    def __init__(self, context: Context, group: Group) -> None:
        super().__init__(context, group)
        self._thread: Expr = Lit(0)
        self._row_in_block: Expr = Lit(0)
        self._number: Expr = Lit(0)
        self._cell: Expr = Lit(0)
        self._totals: dict[Node, Buffer] = {}
        self._registers = {
            node: Buffer(f"row{number}", node.type.dtype.machine, self.share.elems, Space.REGISTER)
            for number, node in enumerate(self._between if self.share.kept else ())
        }
        if math.prod(self.outer) % self.share.rows:
            self.reusable = []  # the last row is read by threads that have none

    @cached_property
    def share(self) -> RowThreads:
        """Who shares a row."""
        rows = [leaf for node, leaf in self.leaves.items() if self.is_full(node)]
        rows += [self.result] if self.is_full(self.group.result) else []
        widest = neighbours(rows, self.length)
        ordered = self.context.target.precision == "f32"
        count = math.prod(self.outer)
        return share_row(self.length, count, widest, self._most_alive(), ordered)

    @cached_property
    def _between(self) -> dict[Node, tuple[int, int]]:
        """The nodes of full rows that a pass computes or loads and a later one needs, with the
        numbers of the first such pass and of the last."""
        first: dict[Node, int] = {}
        found: dict[Node, tuple[int, int]] = {}
        known = {*self.group.nodes, *self.leaves}
        for number, root in enumerate(self._passes()):
            work = [root.inputs[0]] if isinstance(root.op, ops.Reduce) else [root]
            while work:
                node = work.pop()
                if node not in known or not self.is_full(node):
                    continue
                repeats = isinstance(node.op, ops.Broadcast) and node not in self.leaves
                if not repeats and first.setdefault(node, number) < number:
                    found[node] = (first[node], number)
                elif node not in self.leaves:
                    work.extend(node.inputs)
        return found

    def _most_alive(self) -> int:
        """Registers for what waits of one element between two passes, at most."""
        words = [(-(-x.type.dtype.size_bytes // 4), span) for x, span in self._between.items()]
        return max(
            (
                sum(size for size, (first, last) in words if first <= number < last)
                for number in range(len(self._passes()))
            ),
            default=0,
        )

    def _node_to_save(self) -> Node | None:
        return None if self.share.kept else super()._node_to_save()

    def _waits(self, node: Node) -> bool:
        return node in self._registers or super()._waits(node)

    def _save(self, at: tuple[Expr, ...], i: Expr, node: Node, value: Expr) -> Stmt:
        if node in self._registers:
            return Store(self._registers[node], self._cell, value)
        return super()._save(at, i, node, value)

    def _load_saved(self, at: tuple[Expr, ...], i: Expr, node: Node) -> Expr:
        if node in self._registers:
            return Load(self._registers[node], self._cell)
        return super()._load_saved(at, i, node)

    def _rows(self, at: tuple[Expr, ...], dims: Sequence[int]) -> list[Stmt]:
        total, share = math.prod(dims), self.share
        block, row, thread = Var("block"), Var("row"), Var("thread")
        self._thread, self._row_in_block = thread, row
        # who has no row computes the last one too, because all threads of a warp shuffle
        place: Expr = index.add(index.mul(block, share.rows), row)
        self._number = place
        blocks = -(-total // share.rows)
        if blocks * share.rows > total:
            place = held_below(place, total)
        body = bind("place", place, total, lambda p: digits("d", p, dims, self._row))
        for buffer in self._registers.values():
            body = [Alloc(buffer, tuple(body))]
        inner = For(thread, share.threads, tuple(body), Kind.THREAD)
        threads: Stmt = For(row, share.rows, (inner,), Kind.THREAD)
        for buffer in self._totals.values():
            threads = Alloc(buffer, (threads,))
        return [For(block, blocks, (threads,), Kind.BLOCK)]

    def _store_scalar(self, at: tuple[Expr, ...]) -> list[Stmt]:
        return self._own([Bind(Var("first"), self._thread, 1, tuple(super()._store_scalar(at)))])

    def _own(self, stmts: list[Stmt]) -> list[Stmt]:
        """``stmts`` in threads that have a row of their own."""
        total = math.prod(self.outer)
        if total % self.share.rows == 0:
            return stmts
        return [Bind(Var("own"), self._number, total, tuple(stmts))]

    def _each_element(
        self, heavy: bool, body: Callable[[Expr, Expr], list[Stmt]]
    ) -> list[Stmt]:
        """``body`` of each element of this thread and the number of its virtual lane among those of
        the thread, in the order of the row."""
        share, wide = self.share, self.share.wide
        start = index.mul(self._thread, wide)

        def piece(first: Expr, cell: Expr, number: Expr) -> Stmt:
            """The neighbours from ``first`` on, of the piece of this number in registers."""

            def one(v: Expr) -> list[Stmt]:
                self._cell = index.add(index.mul(number, wide), v)
                return body(index.add(first, v), index.add(index.mul(cell, wide), v))

            return vector("v", wide, wide, one)

        def whole(number: Expr, cell: Expr) -> list[Stmt]:
            return [piece(index.add(index.mul(number, share.piece), start), cell, number)]

        full = self.length // share.piece
        rounds, more = divmod(full, share.cells)

        def round_of(i: Expr) -> list[Stmt]:
            first = index.mul(i, share.cells)
            return loop(
                "c", share.cells, lambda c: whole(index.add(first, c), c), Kind.UNROLLED
            )

        if share.kept:
            stmts = loop("i", rounds, round_of, Kind.UNROLLED) if rounds else []
        else:
            stmts = overlapped(rounds, 1 if heavy else max(1, IN_LINE // share.cells), round_of)
        for cell in range(more):
            number = index.lit(rounds * share.cells + cell)
            stmts += whole(number, index.lit(cell))
        rest = self.length - full * share.piece
        if rest:
            last, number = index.lit(more), index.lit(full)

            def end(place: Expr) -> list[Stmt]:
                first = index.add(index.mul(place, wide), full * share.piece)
                return [piece(first, last, number)]

            stmts += bind("last", self._thread, rest // wide, end)
        return stmts

    def _reduction(self, at: tuple[Expr, ...], node: Node) -> list[Stmt]:
        op, dtype = node.op, node.type.dtype
        assert isinstance(op, ops.Reduce)
        combine = COMBINE[op.fn]
        if combine == "max" and dtype is DType.F32 and self.context.target.precision != "f32":
            combine = "maximum"  # one instruction, which of two zeros takes the positive one
        share = self.share
        acc = Buffer("acc", dtype, share.cells * share.wide, Space.REGISTER)

        def add(i: Expr, cell: Expr) -> list[Stmt]:
            stores, x = self._element(at, node.inputs[0], i)
            return [*stores, Store(acc, cell, Bin(combine, Load(acc, cell), x))]

        first = Lit(identity(op.fn, dtype), dtype)
        stmts = loop("j", acc.elems, lambda j: [Store(acc, j, first)], Kind.UNROLLED)
        stmts += self._each_element(self._is_heavy(node), add)
        stmts += self._tree(node, acc, combine)
        self.available |= self._kept_by(node)
        return [Alloc(acc, tuple(stmts))]

    def _kept_by(self, node: Node) -> set[Node]:
        """The nodes whose rows wait when the pass for ``node`` is over."""
        if not self.share.kept:
            return {x for x in self._needs(node) if x is self.saved}
        number = self._passes().index(node)
        return {x for x, (first, _) in self._between.items() if first == number}

    def _tree(self, node: Node, acc: Buffer, combine: str) -> list[Stmt]:
        """The tree over the virtual lanes, into the node's register in all threads."""
        share = self.share
        group = min(share.threads, WARP)
        ordered = self.context.target.precision == "f32"
        if ordered and share.warps > 1:
            return self._tree_of_warps(node, acc, combine)
        if ordered:
            stmts = self._halve(acc, combine, acc.elems, share.wide)
            stmts += self._shuffle(acc, combine, group, share.wide)
            stmts += self._halve(acc, combine, share.wide, 1)
        else:
            stmts = self._halve(acc, combine, share.wide, 1)
            stmts += self._shuffle(acc, combine, group, 1)
        zero, total = index.lit(0), self.scalars[node]
        if share.warps > 1:
            return [*stmts, *self._meet(node, acc, combine)]
        value: Expr = Load(acc, zero)
        if group > 1:
            value = Shuffle(value, self._lane(index.lit(0)))
        return [*stmts, Store(total, zero, value)]

    def _tree_of_warps(self, node: Node, acc: Buffer, combine: str) -> list[Stmt]:
        """The fixed tree where each of two warps has half of the virtual lanes, one a thread: the
        halves meet in shared memory, and the first warp goes on."""
        share, zero = self.share, index.lit(0)
        shared = Buffer(
            f"lanes{len(self._totals)}", acc.dtype, share.rows * share.threads, Space.SHARED
        )
        self._totals[node] = shared
        first = index.mul(self._row_in_block, share.threads)
        mine = index.add(first, self._thread)
        across = index.mod(index.add(self._thread, share.threads // 2), share.threads)
        other = Load(shared, index.add(first, across))
        last = Store(shared, first, Load(acc, zero))
        return [
            Store(shared, mine, Load(acc, zero)),
            Barrier(),
            Store(acc, zero, Bin(combine, Load(acc, zero), other)),
            *self._shuffle(acc, combine, WARP, 1),
            Barrier(),
            Bind(Var("first"), self._thread, 1, (last,)),
            Barrier(),
            Store(self.scalars[node], zero, Load(shared, first)),
        ]

    def _halve(self, acc: Buffer, combine: str, count: int, last: int) -> list[Stmt]:
        """Joins halves of the first ``count`` elements of a thread, until ``last`` are left."""
        stmts: list[Stmt] = []
        while count > last:
            count //= 2
            for j in range(count):
                joined = Bin(combine, Load(acc, index.lit(j)), Load(acc, index.lit(j + count)))
                stmts.append(Store(acc, index.lit(j), joined))
        return stmts

    def _shuffle(self, acc: Buffer, combine: str, group: int, count: int) -> list[Stmt]:
        """Joins the first ``count`` elements of ``group`` threads of a warp, half by half; the
        first thread has the result."""
        stmts: list[Stmt] = []
        half = group // 2
        while half:
            for j in range(count):
                mine = Load(acc, index.lit(j))
                other = Shuffle(mine, self._lane(index.add(self._thread, half)))
                stmts.append(Store(acc, index.lit(j), Bin(combine, mine, other)))
            half //= 2
        return stmts

    def _lane(self, thread: Expr) -> Expr:
        """The number in its warp of a thread of this row (modulo those in this warp)."""
        threads = self.share.threads
        if threads >= WARP:
            return index.mod(thread, WARP)
        first = index.mul(index.mod(self._row_in_block, WARP // threads), threads)
        return index.add(first, index.mod(thread, threads))

    def _meet(self, node: Node, acc: Buffer, combine: str) -> list[Stmt]:
        """Joins what the first thread of each warp has, by way of shared memory, one warp after
        the other."""
        warps = self.share.warps
        shared = Buffer(
            f"total{len(self._totals)}", acc.dtype, self.share.rows * warps, Space.SHARED
        )
        self._totals[node] = shared
        zero, first = index.lit(0), index.mul(self._row_in_block, warps)
        here = index.add(first, index.div(self._thread, WARP))
        store = Store(shared, here, Load(acc, zero))
        lane = index.mod(self._thread, WARP)
        joined: Expr = Load(shared, first)
        for warp in range(1, warps):
            joined = Bin(combine, joined, Load(shared, index.add(first, warp)))
        return [
            Bind(Var("first"), lane, 1, (store,)),
            Barrier(),
            Store(self.scalars[node], zero, joined),
        ]

    def _is_heavy(self, node: Node) -> bool:
        """Whether a pass for ``node`` computes expensive functions element by element."""
        return weight_of(tuple(self._needs(node))) > 0

    def _final(self, at: tuple[Expr, ...]) -> list[Stmt]:
        def one(i: Expr, cell: Expr) -> list[Stmt]:
            stores, value = self._element(at, self.group.result, i)
            return [*stores, self.result.store((*at, i), value)]

        return self._own(self._each_element(self._is_heavy(self.group.result), one))
