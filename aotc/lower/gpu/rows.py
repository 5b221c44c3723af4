"""ROWS groups on a GPU: softmax, norms and their kin, one warp for each row.

Lanes take neighbouring elements, so a warp reads whole lines of memory. A row is added up in the
virtual lanes of lower/reduce.py, which the threads of the warp share, and the fixed tree goes by
shuffles: the bytes are those of the CPU, and no barrier is needed. What waits in the result
between two passes is read by the thread that stored it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from aotc.fuse.groups import Group
from aotc.graph import ops
from aotc.graph.ir import Node
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
from aotc.lower.context import Context
from aotc.lower.gpu.binding import bind, digits
from aotc.lower.pointwise import weight_of
from aotc.lower.reduce import (
    COMBINE,
    RowWriter,
    identity,
    lower_rows,
    row_length,
    virtual_lanes,
)
from aotc.lower.scope import loop

#: Rows below which a thread alone is as good as a warp.
MIN_LENGTH = 16
#: Warps of a block, if there are rows enough for all multiprocessors.
MOST_WARPS = 8
#: Blocks that keep a GPU busy.
BLOCKS = 256
#: Elements of one thread that are laid out in line, so that their loads overlap.
IN_LINE = 8


def lower_gpu_rows(context: Context, group: Group) -> None:
    """Emits the kernel of a ROWS group."""
    if _fits_a_warp(group):
        GpuRowWriter(context, group).emit()
    else:
        lower_rows(context, group)


def _fits_a_warp(group: Group) -> bool:
    """Whether rows are long enough, and sums are of types that shuffles move."""
    sums = [node for node in group.nodes if isinstance(node.op, ops.Reduce)]
    row = row_length(group)
    return row >= MIN_LENGTH and all(node.type.dtype.size_bytes == 4 for node in sums)


class GpuRowWriter(RowWriter):
    """Writes a kernel of a warp for each row."""

    def __init__(self, context: Context, group: Group) -> None:
        super().__init__(context, group)
        self._width = virtual_lanes(self.length)[1]
        self._lane: Expr = Lit(0)

    def _rows(self, at: tuple[Expr, ...], dims: Sequence[int]) -> list[Stmt]:
        total = math.prod(dims)
        warps = MOST_WARPS
        while warps > 1 and total < warps * BLOCKS:
            warps //= 2
        block, warp, lane = Var("block"), Var("warp"), Var("lane")
        self._lane = lane
        number = index.add(index.mul(block, warps), warp)
        body = bind("row", number, total, lambda row: digits("d", row, dims, self._row))
        lanes = For(lane, WARP, tuple(body), Kind.THREAD)
        threads = For(warp, warps, (lanes,), Kind.THREAD)
        return [For(block, -(-total // warps), (threads,), Kind.BLOCK)]

    def _store_scalar(self, at: tuple[Expr, ...]) -> list[Stmt]:
        return [Bind(Var("first"), self._lane, 1, tuple(super()._store_scalar(at)))]

    def _each_element(
        self, heavy: bool, body: Callable[[Expr, Expr], list[Stmt]]
    ) -> list[Stmt]:
        """``body`` of each element of this thread and the number of its virtual lane among those of
        the thread, in the order of the row."""
        share = min(self._width, WARP)
        cells = self._width // share
        chunks, rest = divmod(self.length, self._width)
        kind = Kind.UNROLLED if chunks * cells <= IN_LINE and not heavy else Kind.SERIAL

        def of_lane(lane: Expr) -> list[Stmt]:
            def chunk(start: Expr) -> list[Stmt]:
                def one(j: Expr) -> list[Stmt]:
                    return body(index.add(index.add(start, index.mul(j, share)), lane), j)

                return loop("j", cells, one, Kind.UNROLLED)

            stmts = loop("i", chunks, lambda i: chunk(index.mul(i, self._width)), kind)
            for j in range(-(-rest // share)):

                def last(place: Expr, j: int = j) -> list[Stmt]:
                    return body(index.add(place, chunks * self._width), index.lit(j))

                stmts += bind("last", index.add(lane, j * share), rest, last)
            return stmts

        # where a row has fewer virtual lanes than a warp, the others have nothing to add
        return of_lane(self._lane) if share == WARP else bind("active", self._lane, share, of_lane)

    def _reduction(self, at: tuple[Expr, ...], node: Node) -> list[Stmt]:
        op, dtype = node.op, node.type.dtype
        assert isinstance(op, ops.Reduce)
        combine = COMBINE[op.fn]
        cells = max(1, self._width // WARP)
        acc = Buffer("acc", dtype, cells, Space.REGISTER)
        zero = index.lit(0)

        def add(i: Expr, cell: Expr) -> list[Stmt]:
            stores, x = self._element(at, node.inputs[0], i)
            return [*stores, Store(acc, cell, Bin(combine, Load(acc, cell), x))]

        first = Lit(identity(op.fn, dtype), dtype)
        stmts = loop("j", cells, lambda j: [Store(acc, j, first)], Kind.UNROLLED)
        stmts += self._each_element(self._is_heavy(node), add)
        half = self._width // 2
        while half >= WARP:
            for j in range(half // WARP):
                joined = Bin(
                    combine, Load(acc, index.lit(j)), Load(acc, index.lit(j + half // WARP))
                )
                stmts.append(Store(acc, index.lit(j), joined))
            half //= 2
        while half:
            source = index.mod(index.add(self._lane, half), WARP)
            other = Shuffle(Load(acc, zero), source)
            stmts.append(Store(acc, zero, Bin(combine, Load(acc, zero), other)))
            half //= 2
        stmts.append(Store(self.scalars[node], zero, Shuffle(Load(acc, zero), zero)))
        self.available |= self._needs(node) & {self.saved}
        return [Alloc(acc, tuple(stmts))]

    def _is_heavy(self, node: Node) -> bool:
        """Whether a pass for ``node`` computes expensive functions element by element."""
        return weight_of(tuple(self._needs(node))) > 0

    def _final(self, at: tuple[Expr, ...]) -> list[Stmt]:
        def one(i: Expr, cell: Expr) -> list[Stmt]:
            stores, value = self._element(at, self.group.result, i)
            return [*stores, self.result.store((*at, i), value)]

        return self._each_element(self._is_heavy(self.group.result), one)
