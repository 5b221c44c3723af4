"""ArgReduce and TopK on a GPU: a warp searches a line, its threads every 32nd element.

What is found does not depend on the order of the search, so the places are those of a processor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from aotc.fuse.groups import Group
from aotc.graph import ops
from aotc.loop import index
from aotc.loop.ir import (
    Alloc,
    Bind,
    Buffer,
    Expr,
    For,
    Kind,
    Load,
    Shuffle,
    Space,
    Stmt,
    Store,
    Var,
)
from aotc.loop.launch import WARP
from aotc.lower.context import Context
from aotc.lower.gpu.binding import bind, digits, held_below
from aotc.lower.ranking import (
    Counts,
    Search,
    lower_arg_reduce,
    lower_top_k,
    search_arg,
    search_top,
    searched,
)
from aotc.lower.scan import Cell, Lines, OnLanes, lines_along
from aotc.lower.scope import KernelScope, overlapped

#: Lines of a block, lines from which a thread for each keeps the GPU busy if neighbours read
#: neighbours then, and elements whose loads overlap.
WARPS, MANY_LINES, IN_LINE = 4, 1 << 14, 8


def lower_gpu_arg_reduce(context: Context, group: Group) -> None:
    """Emits the search of an ArgReduce."""
    op = group.anchor.op
    assert isinstance(op, ops.ArgReduce)
    if not _suits_warps(context, group, op.axis):
        lower_arg_reduce(context, group)
        return
    scope = KernelScope()
    warps = _warp_lines(scope, context, group, op.axis, reduced=True)
    search_arg(context, group, scope, warps, _WarpSearch.of)


def lower_gpu_top_k(context: Context, group: Group) -> None:
    """Emits the searches of a TopK."""
    op = group.anchor.op
    assert isinstance(op, ops.TopK)
    if not _suits_warps(context, group, op.axis):
        lower_top_k(context, group)
        return
    scope = KernelScope()
    warps = _warp_lines(scope, context, group, op.axis, reduced=False)
    search_top(context, group, scope, warps, _WarpSearch.of)


def _suits_warps(context: Context, group: Group, axis: int) -> bool:
    """Whether every thread of a warp has elements of a line, of a type that shuffles move."""
    source, _ = searched(context, group)
    extent = source.shape[axis]
    lines = math.prod(source.shape) // extent
    if not WARP <= extent < 1 << 31 or source.dtype.size_bytes != 4:
        return False
    return source.strides[axis] == 1 or lines < MANY_LINES


def _warp_lines(
    scope: KernelScope, context: Context, group: Group, axis: int, reduced: bool
) -> _WarpLines:
    """The lines that are searched; see `lines_along`."""
    lines = lines_along(scope, *searched(context, group), axis, 1, reduced=reduced)
    return _WarpLines(**vars(lines))


@dataclass(frozen=True)
class _WarpLines(Lines):
    """Lines of which each has a warp. The variables number the blocks, the warps of a block and the
    threads of a warp."""

    block: Var = field(default_factory=lambda: Var("block"))
    warp: Var = field(default_factory=lambda: Var("warp"))
    lane: Var = field(default_factory=lambda: Var("lane"))

    @property
    def total(self) -> int:
        """The lines."""
        return math.prod(self.shape)

    @property
    def number(self) -> Expr:
        """The number of the warp's line, if there is one."""
        return index.add(index.mul(self.block, WARPS), self.warp)

    def nest(self, block: Callable[[int, OnLanes], list[Stmt]]) -> list[Stmt]:
        """The blocks and threads; warps without a line search the last one."""

        def line(at: tuple[Expr, ...]) -> list[Stmt]:
            return block(1, lambda body: list(body(Cell(at, index.lit(0)))))

        held = held_below(self.number, self.total)
        body = bind("line", held, self.total, lambda x: digits("d", x, self.shape, line))
        lanes = For(self.lane, WARP, tuple(body), Kind.THREAD)
        warps = For(self.warp, WARPS, (lanes,), Kind.THREAD)
        return [For(self.block, -(-self.total // WARPS), (warps,), Kind.BLOCK)]


@dataclass(frozen=True)
class _WarpSearch(Search):
    """The statements of one thread."""

    @property
    def _warps(self) -> _WarpLines:
        assert isinstance(self.lines, _WarpLines)
        return self.lines

    def put(self, store: Stmt) -> list[Stmt]:
        """Executes the ``store`` in one thread of a warp that has a line."""
        warps = self._warps
        own = bind("own", warps.number, warps.total, lambda _: [store])
        return [Bind(Var("first"), warps.lane, 1, tuple(own))]

    def run(self, on_lanes: OnLanes, counts: Counts | None = None) -> list[Stmt]:
        """Searches the line; all threads know what is found."""
        lane = self._warps.lane
        chunks, rest = divmod(self.lines.extent, WARP)

        def meet(at: Expr) -> list[Stmt]:
            return on_lanes(lambda cell: self.meet(cell, at, counts))

        def chunk(c: Expr) -> list[Stmt]:
            return meet(index.add(index.mul(self.position(c, chunks), WARP), lane))

        whole = overlapped(chunks, IN_LINE, chunk)
        tail = bind("last", lane, rest, lambda x: meet(index.add(x, chunks * WARP)))
        parts = [*whole, *tail] if self.last else [*tail, *whole]
        return [*self.clear(index.lit(0)), *parts, *self._meet_warp()]

    def _meet_warp(self) -> list[Stmt]:
        """Brings the best of all threads to all of them."""
        zero, lane = index.lit(0), self._warps.lane
        found = (self.best, self.place)
        others = [Buffer(f"other_{x.name}", x.dtype, 1, Space.REGISTER) for x in found]
        stmts: list[Stmt] = []
        half = WARP // 2
        while half:
            source = index.mod(index.add(lane, half), WARP)
            for mine, other in zip(found, others, strict=True):
                stmts.append(Store(other, zero, Shuffle(Load(mine, zero), source)))
            value, place = (Load(other, zero) for other in others)
            stmts += self.take(value, place)
            half //= 2
        stmts += [Store(mine, zero, Shuffle(Load(mine, zero), zero)) for mine in found]
        for other in others:
            stmts = [Alloc(other, tuple(stmts))]
        return stmts
