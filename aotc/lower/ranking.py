"""ArgReduce and TopK: one MOVE group in, one kernel out that searches the lines along an axis.

Lanes run along a line when it is long and contiguous, otherwise across lines. A line is searched
from the end that loses ties, so that an element takes the place of an equal one met before it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np

from aotc.fuse.groups import Group
from aotc.graph import ops
from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import Bin, Buffer, Cmp, Conv, Expr, Kind, Lit, Load, Sel, Space, Stmt, Store, Un
from aotc.lower.context import Context
from aotc.lower.scan import Cell, Lines, OnLanes, allocate, lines_along
from aotc.lower.scope import KernelScope, loop, vector
from aotc.lower.views import View

#: Vectors that a line must fill to be searched by lanes along it: joining the lanes costs as much
#: as several vectors.
LONG = 16

#: Whether an element takes part, given the lane that has its line, its value and its place.
Counts = Callable[[Expr, Expr, Expr], Expr]


def _both(a: Expr, b: Expr) -> Expr:
    return Bin("and", a, b)


def _either(a: Expr, b: Expr) -> Expr:
    return Bin("or", a, b)


def _not(a: Expr) -> Expr:
    return Un("not", a)


@dataclass(frozen=True)
class Ranking:
    """An order of all values from the largest or from the smallest on, with every NaN before or
    behind the numbers."""

    largest: bool
    nan_first: bool

    def not_behind(self, a: Expr, b: Expr) -> Expr:
        """Whether ``a`` ranks before ``b`` or equal to it."""
        ordered = Cmp("ge" if self.largest else "le", a, b)
        if not a.dtype.is_float:
            return ordered
        decisive = a if self.nan_first else b
        return _either(ordered, Cmp("ne", decisive, decisive))

    def foremost(self, dtype: DType) -> Lit:
        """A value that no other ranks before."""
        if dtype.is_float and self.nan_first:
            return Lit(math.nan, dtype)
        return _extreme(dtype, self.largest)

    def rearmost(self, dtype: DType) -> Lit:
        """A value that ranks before no other."""
        if dtype.is_float and not self.nan_first:
            return Lit(math.nan, dtype)
        return _extreme(dtype, not self.largest)


def _extreme(dtype: DType, largest: bool) -> Lit:
    if dtype.is_float:
        return Lit(math.inf if largest else -math.inf, dtype)
    info = np.iinfo(dtype.numpy)
    return Lit(int(info.max if largest else info.min), dtype)


@dataclass(frozen=True)
class Search:
    """The statements that search lines. The registers hold the best element met so far and its
    place, for each lane; of equal ones the first on the line, or the ``last``."""

    lines: Lines
    ranking: Ranking
    last: bool
    along: int  # lanes that run along a line; 1 when lanes run across lines
    best: Buffer
    place: Buffer

    @classmethod
    def of(
        cls, lines: Lines, ranking: Ranking, *, last: bool, width: int, along: int = 1
    ) -> Self:
        """A search of ``width`` lines at once."""
        places = DType.I32 if lines.extent < 1 << 31 else DType.I64
        return cls(
            lines,
            ranking,
            last,
            along,
            Buffer("best", lines.source.buffer.dtype, width * along, Space.REGISTER),
            Buffer("place", places, width * along, Space.REGISTER),
        )

    def numbered(self, i: Expr) -> Expr:
        """A place on the line in the type that holds places."""
        return i if self.place.dtype is DType.I64 else Conv(i, self.place.dtype)

    def put(self, store: Stmt) -> list[Stmt]:
        """Executes the ``store`` of a line's result."""
        return [store]

    def found(self, cell: Cell) -> Expr:
        """The place of the best element (int64)."""
        found = Load(self.place, cell.lane)
        return found if found.dtype is DType.I64 else Conv(found, DType.I64)

    def run(self, on_lanes: OnLanes, counts: Counts | None = None) -> list[Stmt]:
        """Searches every line among the elements that count, at least one."""
        if self.along == 1:
            clear = on_lanes(lambda cell: self.clear(cell.lane))
            return [*clear, *self._serial(on_lanes, 0, counts)]
        lanes = self.along
        chunks = self.lines.extent // lanes

        def chunk(cell: Cell, c: Expr) -> list[Stmt]:
            start = index.mul(self.position(c, chunks), lanes)

            def lane(v: Expr) -> list[Stmt]:
                return self.meet(Cell(cell.at, v), index.add(start, v), counts)

            return [vector("v", lanes, lanes, lane)]

        clear = [vector("v", lanes, lanes, self.clear)]
        whole = loop("c", chunks, lambda c: on_lanes(lambda cell: chunk(cell, c)))
        rest = self._serial(on_lanes, chunks * lanes, counts)
        join = loop("l", lanes - 1, lambda i: self._join(index.add(i, 1)), Kind.UNROLLED)
        if self.last:  # the rest is behind what any lane has met, so it comes after the join
            return [*clear, *whole, *join, *rest]
        return [*clear, *rest, *whole, *join]

    def position(self, i: Expr, count: int) -> Expr:
        """Step ``i`` of ``count`` in the direction of the search."""
        return i if self.last else index.sub(index.lit(count - 1), i)

    def _serial(self, on_lanes: OnLanes, first: int, counts: Counts | None) -> list[Stmt]:
        """Meets the elements from ``first`` on, one at a time."""
        count = self.lines.extent - first
        if count == 0:
            return []

        def step(i: Expr) -> list[Stmt]:
            at = index.add(self.position(i, count), first)
            return on_lanes(lambda cell: self.meet(cell, at, counts))

        return loop("i", count, step)

    def clear(self, lane: Expr) -> list[Stmt]:
        # Every element takes the place of the rearmost value. Should a lane meet none, its place
        # is behind all others.
        nowhere = Lit(int(np.iinfo(self.place.dtype.numpy).max), self.place.dtype)
        return [
            Store(self.place, lane, nowhere),
            Store(self.best, lane, self.ranking.rearmost(self.best.dtype)),
        ]

    def meet(self, cell: Cell, i: Expr, counts: Counts | None) -> list[Stmt]:
        value = self.lines.source.load((*cell.at, i))
        old, place = Load(self.best, cell.lane), Load(self.place, cell.lane)
        takes = self.ranking.not_behind(value, old)
        if counts is not None:
            line = cell.lane if self.along == 1 else index.lit(0)
            takes = _both(counts(line, value, i), takes)
        # The second store must not ask again: the first has changed what ``counts`` may see.
        taken = Cmp("eq", place, self.numbered(i))
        return [
            Store(self.place, cell.lane, Sel(takes, self.numbered(i), place)),
            Store(self.best, cell.lane, Sel(taken, value, old)),
        ]

    def _join(self, lane: Expr) -> list[Stmt]:
        """Brings the better one of ``lane`` and lane 0 to lane 0."""
        return self.take(Load(self.best, lane), Load(self.place, lane))

    def take(self, value: Expr, place: Expr) -> list[Stmt]:
        """Brings ``value`` at ``place`` to lane 0 if it is better than what is there."""
        zero = index.lit(0)
        old, old_place = Load(self.best, zero), Load(self.place, zero)
        ahead = Cmp("gt" if self.last else "lt", place, old_place)
        better = _either(_not(self.ranking.not_behind(old, value)), ahead)
        takes = _both(self.ranking.not_behind(value, old), better)
        taken = Cmp("eq", old_place, place)
        return [
            Store(self.place, zero, Sel(takes, place, old_place)),
            Store(self.best, zero, Sel(taken, value, old)),
        ]


SearchOf = Callable[..., Search]
"""Makes a Search of lines, a ranking, and by keyword ``last`` and ``width``."""


def _lines(
    context: Context, scope: KernelScope, source: View, target: View, axis: int, reduced: bool
) -> tuple[Lines, int]:
    """The lines to search, and how many lanes run along each (1: lanes run across lines)."""
    lanes = context.lanes_for(source.dtype)
    along = source.strides[axis] == 1 and source.shape[axis] >= LONG * lanes
    across = 1 if along else lanes
    lines = lines_along(scope, source, target, axis, across, reduced)
    return lines, lanes if along else 1


def lower_arg_reduce(context: Context, group: Group) -> None:
    """Emits one search of every line."""
    op = group.anchor.op
    assert isinstance(op, ops.ArgReduce)
    scope = KernelScope()
    lines, along = _lines(context, scope, *searched(context, group), op.axis, reduced=True)
    search_arg(context, group, scope, lines, partial(Search.of, along=along))


def lower_top_k(context: Context, group: Group) -> None:
    """Emits k searches of every line."""
    op = group.anchor.op
    assert isinstance(op, ops.TopK)
    scope = KernelScope()
    lines, along = _lines(context, scope, *searched(context, group), op.axis, reduced=False)
    search_top(context, group, scope, lines, partial(Search.of, along=along))


def searched(context: Context, group: Group) -> tuple[View, View]:
    """What is searched, and where the places go."""
    return context.view(group.anchor.inputs[0]), context.view(group.result)


def search_arg(
    context: Context, group: Group, scope: KernelScope, lines: Lines, search_of: SearchOf
) -> None:
    """Emits one search of every line of ``lines``, by what ``search_of`` makes."""
    op = group.anchor.op
    assert isinstance(op, ops.ArgReduce)
    last = op.last
    ranking = Ranking(largest=op.fn == "max", nan_first=True)

    def block(width: int, on_lanes: OnLanes) -> list[Stmt]:
        search = search_of(lines, ranking, last=last, width=width)

        def put(cell: Cell) -> list[Stmt]:
            return search.put(lines.target.store((*cell.at, index.lit(0)), search.found(cell)))

        return allocate([search.best, search.place], [*search.run(on_lanes), *on_lanes(put)])

    context.emit(scope.call(group.label, lines.nest(block)))


def search_top(
    context: Context, group: Group, scope: KernelScope, lines: Lines, search_of: SearchOf
) -> None:
    """Emits k searches of every line; each finds the element that ranks next after the one found
    before. That order (by value, then by place) is total, so no marks on elements are needed."""
    op, dtype = group.anchor.op, lines.source.buffer.dtype
    assert isinstance(op, ops.TopK)
    # A NaN counts as the largest value, so it comes first among the largest and last otherwise.
    ranking = Ranking(op.largest, nan_first=op.largest)
    count = op.k

    def block(width: int, on_lanes: OnLanes) -> list[Stmt]:
        search = search_of(lines, ranking, last=False, width=width)
        bar = Buffer("bar", dtype, width, Space.REGISTER)
        bar_place = Buffer("bar_place", search.place.dtype, width, Space.REGISTER)

        def clear(cell: Cell) -> list[Stmt]:
            nowhere = Lit(-1, bar_place.dtype)
            return [
                Store(bar, cell.lane, ranking.foremost(dtype)),
                Store(bar_place, cell.lane, nowhere),
            ]

        def behind_bar(line: Expr, value: Expr, i: Expr) -> Expr:
            limit, limit_place = Load(bar, line), Load(bar_place, line)
            later = Cmp("lt", limit_place, search.numbered(i))
            strictly = _not(ranking.not_behind(value, limit))
            return _both(ranking.not_behind(limit, value), _either(strictly, later))

        def keep(cell: Cell, j: Expr) -> list[Stmt]:
            return [
                *search.put(lines.target.store((*cell.at, j), search.found(cell))),
                Store(bar, cell.lane, Load(search.best, cell.lane)),
                Store(bar_place, cell.lane, Load(search.place, cell.lane)),
            ]

        def rank(j: Expr) -> list[Stmt]:
            return [*search.run(on_lanes, behind_bar), *on_lanes(lambda cell: keep(cell, j))]

        buffers = [search.best, search.place, bar, bar_place]
        return allocate(buffers, [*on_lanes(clear), *loop("r", count, rank)])

    context.emit(scope.call(group.label, lines.nest(block)))
