"""CumSum on a GPU: a warp for each line, its threads side by side.

A warp takes a piece of the line at a time: each thread adds up neighbours, the sums of the threads
before it come by shuffles, and so does what all earlier pieces add up to. That is not the order of
a processor, so with ``--precision f32`` only integers are added so.
"""

from __future__ import annotations

import math

from aotc.fuse.groups import Group
from aotc.graph import ops
from aotc.loop import index
from aotc.loop.ir import (
    Alloc,
    Bin,
    Buffer,
    Cmp,
    Expr,
    For,
    Kind,
    Lit,
    Load,
    Sel,
    Shuffle,
    Space,
    Stmt,
    Store,
    Var,
)
from aotc.loop.launch import WARP
from aotc.lower.context import Context
from aotc.lower.gpu.binding import bind, digits, held_below
from aotc.lower.scan import Lines, lines_along, lower_cumsum, running
from aotc.lower.scope import KernelScope, loop

#: Lines of a block, and elements of a piece for each thread.
WARPS, ELEMS = 4, 4


def lower_gpu_cumsum(context: Context, group: Group) -> None:
    """Emits the running sums of a CumSum."""
    op = group.anchor.op
    assert isinstance(op, ops.CumSum)
    source, target = running(context, group)
    dtype = source.value_dtype
    ordered = context.target.precision == "f32" and dtype.is_float
    along = source.strides[op.axis] in (1, -1) and source.shape[op.axis] >= WARP
    if ordered or not along or dtype.size_bytes != 4 or source.value or target.value:
        lower_cumsum(context, group)
        return
    scope = KernelScope()
    lines = lines_along(scope, source, target, op.axis, 1, reduced=False)
    nest = _Scan(lines, op.exclusive).nest()
    context.emit(scope.call(group.label, [nest]))


class _Scan:
    """Writes one kernel. Positions beside the axis are ``at`` in what follows."""

    def __init__(self, lines: Lines, exclusive: bool) -> None:
        self._lines, self._exclusive = lines, exclusive
        self._dtype = lines.source.buffer.dtype
        self._lane = Var("lane")
        self._cells = Buffer("cells", self._dtype, ELEMS, Space.REGISTER)
        self._carry = Buffer("carry", self._dtype, 1, Space.REGISTER)
        self._before = Buffer("before", self._dtype, 1, Space.REGISTER)
        self._shifted = Buffer("shifted", self._dtype, 1, Space.REGISTER)

    def nest(self) -> Stmt:
        """The blocks and threads; warps without a line add up the last one."""
        total = math.prod(self._lines.shape)
        block, warp = Var("block"), Var("warp")
        number = index.add(index.mul(block, WARPS), warp)
        held = held_below(number, total)

        def line(at: tuple[Expr, ...]) -> list[Stmt]:
            pieces = -(-self._lines.extent // (WARP * ELEMS))
            clear = Store(self._carry, index.lit(0), self._zero())
            return [clear, *loop("i", pieces, lambda i: self._piece(at, i, number, total))]

        body = bind("line", held, total, lambda x: digits("d", x, self._lines.shape, line))
        for buffer in (self._cells, self._carry, self._before, self._shifted):
            body = [Alloc(buffer, tuple(body))]
        lanes = For(self._lane, WARP, tuple(body), Kind.THREAD)
        warps = For(warp, WARPS, (lanes,), Kind.THREAD)
        return For(block, -(-total // WARPS), (warps,), Kind.BLOCK)

    def _zero(self) -> Expr:
        # -0.0 + x is x for every x; an exclusive sum starts with a stored zero, which is positive
        negative = self._dtype.is_float and not self._exclusive
        return Lit(-0.0 if negative else 0, self._dtype)

    def _piece(self, at: tuple[Expr, ...], i: Expr, number: Expr, total: int) -> list[Stmt]:
        """The running sums of one piece."""
        zero = index.lit(0)
        first = index.add(index.mul(i, WARP * ELEMS), index.mul(self._lane, ELEMS))
        extent = self._lines.extent

        def fetch(v: Expr) -> list[Stmt]:
            place = index.add(first, v)
            value: Expr = self._lines.source.load((*at, held_below(place, extent)))
            inside = Cmp("lt", place, index.lit(extent))
            return [Store(self._cells, v, Sel(inside, value, self._zero()))]

        def add(v: Expr) -> list[Stmt]:
            both = Bin("add", Load(self._cells, v), Load(self._cells, index.add(v, 1)))
            return [Store(self._cells, index.add(v, 1), both)]

        def put(v: int) -> list[Stmt]:
            """One result: what is before the thread, and the neighbours up to here."""
            sums: Expr = Load(self._before, zero)
            last = v - self._exclusive
            if last >= 0:
                sums = Bin("add", sums, Load(self._cells, index.lit(last)))
            place = index.add(first, v)
            return bind(
                "place", place, extent, lambda x: [self._lines.target.store((*at, x), sums)]
            )

        stmts = loop("v", ELEMS, fetch, Kind.UNROLLED)
        stmts += loop("v", ELEMS - 1, add, Kind.UNROLLED)
        stmts += self._across()
        stores = [stmt for v in range(ELEMS) for stmt in put(v)]
        stmts += bind("own", number, total, lambda _: stores)
        whole = Bin("add", Load(self._before, zero), Load(self._cells, index.lit(ELEMS - 1)))
        return [*stmts, Store(self._carry, zero, Shuffle(whole, index.lit(WARP - 1)))]

    def _across(self) -> list[Stmt]:
        """Puts the sum of all that is before the thread's neighbours into ``before``."""
        zero, lane = index.lit(0), self._lane
        stmts: list[Stmt] = [
            Store(self._before, zero, Load(self._cells, index.lit(ELEMS - 1)))
        ]
        step = 1
        while step < WARP:
            mine = Load(self._before, zero)
            from_below = Shuffle(mine, index.mod(index.add(lane, WARP - step), WARP))
            has = Cmp("ge", lane, index.lit(step))
            stmts.append(Store(self._shifted, zero, from_below))
            joined = Bin("add", Load(self._shifted, zero), mine)
            stmts.append(Store(self._before, zero, Sel(has, joined, mine)))
            step *= 2
        # the thread's own neighbours are in its sum: that of the thread before it is wanted
        below = Shuffle(Load(self._before, zero), index.mod(index.add(lane, WARP - 1), WARP))
        stmts.append(Store(self._shifted, zero, below))
        has = Cmp("ge", lane, index.lit(1))
        carried = Bin("add", Load(self._carry, zero), Load(self._shifted, zero))
        stmts.append(Store(self._before, zero, Sel(has, carried, Load(self._carry, zero))))
        return stmts
