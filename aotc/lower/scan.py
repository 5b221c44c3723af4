"""CumSum: one MOVE group in, one kernel out that walks lines along an axis, one lane a line.

The lines are for other kernels along an axis too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from aotc.fuse.groups import Group
from aotc.graph import ops
from aotc.loop import index
from aotc.loop.ir import Alloc, Bin, Buffer, Expr, Lit, Load, Space, Stmt, Store
from aotc.lower.context import Context
from aotc.lower.pointwise import innermost_last
from aotc.lower.scope import Access, KernelScope, loop, rest_lanes, vector
from aotc.lower.views import View, collapse


@dataclass(frozen=True)
class Cell:
    """One line as a lane sees it: its position beside the axis, and its place in the registers."""

    at: tuple[Expr, ...]
    lane: Expr


OnCell = Callable[[Cell], Sequence[Stmt]]
OnLanes = Callable[[OnCell], list[Stmt]]


@dataclass(frozen=True)
class Lines:
    """Lines of two tensors along one axis. The accesses take the position beside the axis, then the
    place on the line."""

    source: Access
    target: Access
    shape: tuple[int, ...]
    lanes: int  # lines taken at once
    extent: int  # elements of a line of the source

    def nest(self, block: Callable[[int, OnLanes], list[Stmt]]) -> list[Stmt]:
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

            def on_lanes(body: OnCell) -> list[Stmt]:
                if width == 1:
                    return list(body(Cell((*at, start), index.lit(0))))
                return [
                    vector("v", active, width, lambda v: body(Cell((*at, index.add(start, v)), v)))
                ]

            return block(width, on_lanes)

        def outer(at: tuple[Expr, ...], dims: Sequence[int]) -> list[Stmt]:
            if not dims:
                return blocks(at)
            return loop(f"d{len(at)}", dims[0], lambda i: outer((*at, i), dims[1:]))

        return outer((), self.shape[:-1])


def lines_along(
    scope: KernelScope, source: View, target: View, axis: int, lanes: int, reduced: bool
) -> Lines:
    """The lines of ``source`` and ``target`` along ``axis``, which ``target`` lacks when
    ``reduced``; ``lanes`` of them are taken at once."""
    scope.reserve(source, target)
    whole_source, whole_target = scope.access(source), scope.access(target, write=True)
    beside_source = _without(source, axis)
    beside_target = target if reduced else _without(target, axis)
    to, of = innermost_last(collapse([beside_target, beside_source]))
    return Lines(
        Access(whole_source.buffer, (*of.strides, source.strides[axis]), whole_source.base),
        Access(
            whole_target.buffer,
            (*to.strides, 0 if reduced else target.strides[axis]),
            whole_target.base,
        ),
        to.shape,
        lanes,
        source.shape[axis],
    )


def _without(view: View, axis: int) -> View:
    return replace(
        view,
        shape=view.shape[:axis] + view.shape[axis + 1 :],
        strides=view.strides[:axis] + view.strides[axis + 1 :],
    )


def allocate(buffers: Sequence[Buffer], body: Sequence[Stmt]) -> list[Stmt]:
    """``body`` with ``buffers`` declared."""
    stmts = list(body)
    for buffer in reversed(buffers):
        stmts = [Alloc(buffer, tuple(stmts))]
    return stmts


def lower_cumsum(context: Context, group: Group) -> None:
    """Emits the running sums of a CumSum, each in the order of its axis."""
    node = group.anchor
    op = node.op
    assert isinstance(op, ops.CumSum)
    source, target = running(context, group)
    scope = KernelScope()
    dtype = source.dtype
    lanes = context.lanes_for(dtype)
    lines = lines_along(scope, source, target, op.axis, lanes, reduced=False)
    # -0.0 + x is x for every x; an exclusive sum starts with a stored zero, which is positive.
    zero = Lit(-0.0 if dtype.is_float and not op.exclusive else 0, dtype)

    def block(width: int, on_lanes: OnLanes) -> list[Stmt]:
        total = Buffer("total", dtype, width, Space.REGISTER)

        def step(i: Expr) -> list[Stmt]:
            def body(cell: Cell) -> list[Stmt]:
                value = lines.source.load((*cell.at, i))
                add = Store(total, cell.lane, Bin("add", Load(total, cell.lane), value))
                put = lines.target.store((*cell.at, i), Load(total, cell.lane))
                return [put, add] if op.exclusive else [add, put]

            return on_lanes(body)

        clear = on_lanes(lambda cell: [Store(total, cell.lane, zero)])
        return allocate([total], [*clear, *loop("i", lines.extent, step)])

    context.emit(scope.call(group.label, lines.nest(block)))


def running(context: Context, group: Group) -> tuple[View, View]:
    """What a CumSum adds up, and its result, both in the direction in which it does."""
    node = group.anchor
    op = node.op
    assert isinstance(op, ops.CumSum)
    source, target = context.view(node.inputs[0]), context.view(group.result)
    if op.reverse:
        return _flip(source, op.axis), _flip(target, op.axis)
    return source, target


def _flip(view: View, axis: int) -> View:
    dim = view.shape[axis]
    starts = tuple(dim - 1 if a == axis else 0 for a in range(len(view.shape)))
    steps = tuple(-1 if a == axis else 1 for a in range(len(view.shape)))
    return view.slice(starts, view.shape, steps)
