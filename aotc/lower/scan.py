"""CumSum, ArgReduce and TopK: one MOVE group in, one kernel out that walks lines along an axis.

Lanes run across lines where both tensors are contiguous that way; otherwise a line is walked
element by element.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from aotc.fuse.groups import Group
from aotc.graph import ops
from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import Alloc, Bin, Buffer, Cmp, Expr, Lit, Load, Sel, Space, Stmt, Store, Un
from aotc.lower.context import Context
from aotc.lower.pointwise import innermost_last
from aotc.lower.scope import Access, KernelScope, loop, rest_lanes, vector
from aotc.lower.views import View, collapse


@dataclass(frozen=True)
class _Cell:
    """One line as a lane sees it: its position beside the axis, and its place in the registers."""

    at: tuple[Expr, ...]
    lane: Expr


_OnCell = Callable[[_Cell], Sequence[Stmt]]
_OnLanes = Callable[[_OnCell], list[Stmt]]


@dataclass(frozen=True)
class _Lines:
    """Lines of two tensors along one axis. The accesses take the position beside the axis, then the
    place on the line."""

    source: Access
    target: Access
    shape: tuple[int, ...]
    lanes: int  # lines taken at once

    def nest(self, block: Callable[[int, _OnLanes], list[Stmt]]) -> list[Stmt]:
        """Loops over all lines. ``block(width, on_lanes)`` writes what happens to up to ``width``
        lines; ``on_lanes(body)`` repeats ``body`` for each of them."""

        def blocks(at: tuple[Expr, ...]) -> list[Stmt]:
            full = self.shape[-1] // self.lanes
            rest = self.shape[-1] - full * self.lanes
            stmts: list[Stmt] = []
            if full:
                stmts += loop("j", full, lambda j: part(at, index.mul(j, self.lanes), self.lanes))
            if rest:
                stmts += part(at, index.lit(full * self.lanes), rest)
            return stmts

        def part(at: tuple[Expr, ...], start: Expr, active: int) -> list[Stmt]:
            width = rest_lanes(active, self.lanes)

            def on_lanes(body: _OnCell) -> list[Stmt]:
                if width == 1:
                    return list(body(_Cell((*at, start), index.lit(0))))
                return [
                    vector("v", active, width, lambda v: body(_Cell((*at, index.add(start, v)), v)))
                ]

            return block(width, on_lanes)

        def outer(at: tuple[Expr, ...], dims: Sequence[int]) -> list[Stmt]:
            if not dims:
                return blocks(at)
            return loop(f"d{len(at)}", dims[0], lambda i: outer((*at, i), dims[1:]))

        return outer((), self.shape[:-1])


def _lines(
    context: Context, scope: KernelScope, source: View, target: View, axis: int, reduced: bool
) -> _Lines:
    """The lines of ``source`` and ``target`` along ``axis``, which ``target`` lacks when
    ``reduced``."""
    scope.reserve(source, target)
    whole_source, whole_target = scope.access(source), scope.access(target, write=True)
    beside_source = _without(source, axis)
    beside_target = target if reduced else _without(target, axis)
    to, of = innermost_last(collapse([beside_target, beside_source]))
    contiguous = to.strides[-1] == 1 and of.strides[-1] == 1
    return _Lines(
        Access(whole_source.buffer, (*of.strides, source.strides[axis]), whole_source.base),
        Access(
            whole_target.buffer,
            (*to.strides, 0 if reduced else target.strides[axis]),
            whole_target.base,
        ),
        to.shape,
        context.lanes_for(source.dtype, target.dtype) if contiguous else 1,
    )


def _without(view: View, axis: int) -> View:
    return replace(
        view,
        shape=view.shape[:axis] + view.shape[axis + 1 :],
        strides=view.strides[:axis] + view.strides[axis + 1 :],
    )


def _allocate(buffers: Sequence[Buffer], body: Sequence[Stmt]) -> list[Stmt]:
    stmts = list(body)
    for buffer in reversed(buffers):
        stmts = [Alloc(buffer, tuple(stmts))]
    return stmts


def _serial(name: str, extent: int, body: Callable[[Expr], list[Stmt]]) -> list[Stmt]:
    """Like scope.loop, but nothing for an extent of 0."""
    return loop(name, extent, body) if extent else []


def lower_cumsum(context: Context, group: Group) -> None:
    """Emits the running sums of a CumSum, each in the order of its axis."""
    node = group.anchor
    op = node.op
    assert isinstance(op, ops.CumSum)
    source, target = context.view(node.inputs[0]), context.view(group.result)
    extent = source.shape[op.axis]
    if op.reverse:
        source, target = _flip(source, op.axis), _flip(target, op.axis)
    scope = KernelScope()
    lines = _lines(context, scope, source, target, op.axis, reduced=False)
    dtype = source.dtype
    # -0.0 + x is x for every x; an exclusive sum starts with a stored zero, which is positive.
    zero = Lit(-0.0 if dtype.is_float and not op.exclusive else 0, dtype)

    def block(width: int, on_lanes: _OnLanes) -> list[Stmt]:
        total = Buffer("total", dtype, width, Space.REGISTER)

        def step(i: Expr) -> list[Stmt]:
            def body(cell: _Cell) -> list[Stmt]:
                value = lines.source.load((*cell.at, i))
                add = Store(total, cell.lane, Bin("add", Load(total, cell.lane), value))
                put = lines.target.store((*cell.at, i), Load(total, cell.lane))
                return [put, add] if op.exclusive else [add, put]

            return on_lanes(body)

        clear = on_lanes(lambda cell: [Store(total, cell.lane, zero)])
        return _allocate([total], [*clear, *loop("i", extent, step)])

    context.emit(scope.call(group.label, lines.nest(block)))


def _flip(view: View, axis: int) -> View:
    dim = view.shape[axis]
    starts = tuple(dim - 1 if a == axis else 0 for a in range(len(view.shape)))
    steps = tuple(-1 if a == axis else 1 for a in range(len(view.shape)))
    return view.slice(starts, view.shape, steps)


def _both(a: Expr, b: Expr) -> Expr:
    return Bin("and", a, b)


def _either(a: Expr, b: Expr) -> Expr:
    return Bin("or", a, b)


def _is_nan(x: Expr) -> Expr:
    return Cmp("ne", x, x)


def _better(fn: str, last: bool, x: Expr, best: Expr) -> Expr:
    """Whether ``x``, met after ``best``, takes its place; a NaN is the best value of all."""
    order = {"max": "gt", "min": "lt"}[fn] if not last else {"max": "ge", "min": "le"}[fn]
    beats = Cmp(order, x, best)
    if not x.dtype.is_float:
        return beats
    return _either(beats, _is_nan(x) if last else _both(_is_nan(x), Un("not", _is_nan(best))))


def lower_arg_reduce(context: Context, group: Group) -> None:
    """Emits the search for the best element of every line."""
    node = group.anchor
    op = node.op
    assert isinstance(op, ops.ArgReduce)
    source, target = context.view(node.inputs[0]), context.view(group.result)
    scope = KernelScope()
    lines = _lines(context, scope, source, target, op.axis, reduced=True)

    def block(width: int, on_lanes: _OnLanes) -> list[Stmt]:
        best = Buffer("best", source.dtype, width, Space.REGISTER)
        place = Buffer("place", DType.I64, width, Space.REGISTER)

        def first(cell: _Cell) -> list[Stmt]:
            value = lines.source.load((*cell.at, index.lit(0)))
            return [Store(best, cell.lane, value), Store(place, cell.lane, index.lit(0))]

        def step(i: Expr) -> list[Stmt]:
            at = index.add(i, 1)

            def body(cell: _Cell) -> list[Stmt]:
                value, old = lines.source.load((*cell.at, at)), Load(best, cell.lane)
                takes = _better(op.fn, op.last, value, old)
                return [
                    Store(place, cell.lane, Sel(takes, at, Load(place, cell.lane))),
                    Store(best, cell.lane, Sel(takes, value, old)),
                ]

            return on_lanes(body)

        def last(cell: _Cell) -> list[Stmt]:
            return [lines.target.store((*cell.at, index.lit(0)), Load(place, cell.lane))]

        search = _serial("i", source.shape[op.axis] - 1, step)
        return _allocate([best, place], [*on_lanes(first), *search, *on_lanes(last)])

    context.emit(scope.call(group.label, lines.nest(block)))


def _before(largest: bool, a: Expr, b: Expr) -> Expr:
    """Whether ``a`` ranks strictly before ``b``; a NaN counts as the largest value."""
    order = Cmp("gt" if largest else "lt", a, b)
    if not a.dtype.is_float:
        return order
    big, small = (a, b) if largest else (b, a)
    return _either(order, _both(_is_nan(big), Un("not", _is_nan(small))))


def _foremost(largest: bool, dtype: DType) -> Lit:
    """A value that nothing ranks before."""
    if dtype.is_float:
        return Lit(math.nan if largest else -math.inf, dtype)
    info = np.iinfo(dtype.numpy)
    return Lit(int(info.max if largest else info.min), dtype)


def lower_top_k(context: Context, group: Group) -> None:
    """Emits k searches along every line; each finds the element that ranks next after the one found
    before.

    That order (value, then index) is total, so no marks on the elements taken are needed.
    """
    node = group.anchor
    op = node.op
    assert isinstance(op, ops.TopK)
    source, target = context.view(node.inputs[0]), context.view(group.result)
    scope = KernelScope()
    lines = _lines(context, scope, source, target, op.axis, reduced=False)
    none = index.lit(-1)

    def block(width: int, on_lanes: _OnLanes) -> list[Stmt]:
        best = Buffer("best", source.dtype, width, Space.REGISTER)
        place = Buffer("place", DType.I64, width, Space.REGISTER)
        previous = Buffer("previous", source.dtype, width, Space.REGISTER)
        previous_place = Buffer("previous_place", DType.I64, width, Space.REGISTER)

        def clear(cell: _Cell) -> list[Stmt]:
            foremost = _foremost(op.largest, source.dtype)
            return [Store(best, cell.lane, foremost), Store(place, cell.lane, none)]

        def step(i: Expr) -> list[Stmt]:
            def body(cell: _Cell) -> list[Stmt]:
                value, old = lines.source.load((*cell.at, i)), Load(best, cell.lane)
                bar, bar_place = Load(previous, cell.lane), Load(previous_place, cell.lane)
                tie = Un("not", _before(op.largest, value, bar))
                left = _either(
                    _before(op.largest, bar, value), _both(tie, Cmp("lt", bar_place, i))
                )
                empty = Cmp("lt", Load(place, cell.lane), index.lit(0))
                takes = _both(left, _either(empty, _before(op.largest, value, old)))
                taken = Cmp("eq", Load(place, cell.lane), i)
                return [
                    Store(place, cell.lane, Sel(takes, i, Load(place, cell.lane))),
                    Store(best, cell.lane, Sel(taken, value, old)),
                ]

            return on_lanes(body)

        def keep(cell: _Cell) -> list[Stmt]:
            return [
                Store(previous, cell.lane, Load(best, cell.lane)),
                Store(previous_place, cell.lane, Load(place, cell.lane)),
            ]

        def rank(j: Expr) -> list[Stmt]:
            found = on_lanes(
                lambda cell: [lines.target.store((*cell.at, j), Load(place, cell.lane))]
            )
            search = loop("i", source.shape[op.axis], step)
            return [*on_lanes(keep), *on_lanes(clear), *search, *found]

        buffers = [best, place, previous, previous_place]
        return _allocate(buffers, [*on_lanes(clear), *loop("r", op.k, rank)])

    context.emit(scope.call(group.label, lines.nest(block)))
