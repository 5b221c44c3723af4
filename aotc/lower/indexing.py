"""Gather, scatter and iota: one MOVE group in, kernels out that read or write at computed indices.

Every index is wrapped and clamped as the primitives say, so no access leaves its tensor whatever
the indices are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from aotc.fuse.groups import Group
from aotc.graph import ops
from aotc.graph.ir import Node, Op
from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import Alloc, Bin, Buffer, Cmp, Conv, Expr, Lit, Load, Sel, Space, Stmt, Store
from aotc.loop.program import Call
from aotc.lower.context import Context
from aotc.lower.lookup import is_lookup, lower_lookup
from aotc.lower.pointwise import UNROLL, innermost_last, sweep
from aotc.lower.ranking import lower_arg_reduce, lower_top_k
from aotc.lower.scan import lower_cumsum
from aotc.lower.scope import Access, KernelScope, loop, vector_sweep
from aotc.lower.views import View, as_stored, collapse

_I64_MAX = (1 << 63) - 1


@dataclass(frozen=True)
class _Component:
    """One computed coordinate of an addressed element, for every position of an iteration space.

    ``indices`` has the shape of the space. The coordinate counts along an axis of ``size`` elements
    that lie ``stride`` apart. ``resolved`` indices are known to be within the axis.
    """

    indices: View
    size: int
    stride: int
    resolved: bool


@dataclass(frozen=True)
class _Addressed:
    """For every position of an iteration space one element of ``whole``: ``strides``, one for each
    axis of the space, give its fixed part, ``components`` the rest."""

    whole: View
    strides: tuple[int, ...]
    components: tuple[_Component, ...]


_Writer = Callable[[Access, tuple[Expr, ...], Access, Expr], Stmt]


def lower_gather(context: Context, group: Group) -> None:
    """Emits a Gather: a copy of strided pieces when the indices are a known regular pattern,
    otherwise rows of the axes behind, each found by its index."""
    node = group.anchor
    op = node.op
    assert isinstance(op, ops.Gather)
    if is_lookup(node):
        lower_lookup(context, group)
        return
    data, result = context.view(node.inputs[0]), context.view(group.result)
    size, rank = data.shape[op.axis], node.inputs[1].type.rank
    values = _known(node.inputs[1], (size,))
    if values is not None and _copy_pattern(context, group, data, result, op.axis, values):
        return
    indices, resolved = _index_view(context, node.inputs[1], values)
    before, behind = data.strides[: op.axis], data.strides[op.axis + 1 :]
    spread = replace(
        indices,
        shape=result.shape,
        strides=(0,) * len(before) + indices.strides + (0,) * len(behind),
    )
    component = _Component(spread, size, data.strides[op.axis], resolved)
    strides = before + (0,) * rank + behind
    _emit_gather(context, group, _Addressed(data, strides, (component,)), result)


def lower_gather_elements(context: Context, group: Group) -> None:
    """Emits a GatherElements: every element has an index of its own."""
    node = group.anchor
    op = node.op
    assert isinstance(op, ops.GatherElements)
    data, result = context.view(node.inputs[0]), context.view(group.result)
    source = _along_axis(context, data, op.axis, node.inputs[1])
    _emit_gather(context, group, source, result)


def lower_gather_nd(context: Context, group: Group) -> None:
    """Emits a GatherND: rows of the axes that the indices do not address."""
    node = group.anchor
    op = node.op
    assert isinstance(op, ops.GatherND)
    data, result = context.view(node.inputs[0]), context.view(group.result)
    source = _by_tuples(context, data, op.batch_dims, node.inputs[1], result.shape)
    _emit_gather(context, group, source, result)


def lower_scatter_nd(context: Context, group: Group) -> None:
    """Emits a copy of the data, then the updates in order, row by row."""
    node = group.anchor
    op = node.op
    assert isinstance(op, ops.ScatterND)
    data, indices, updates = node.inputs
    result = context.view(group.result)
    context.copy(context.view(data), result)
    target = _by_tuples(context, result, 0, indices, updates.shape)
    _emit_scatter(context, group, target, context.view(updates), op.fn)


def lower_scatter_elements(context: Context, group: Group) -> None:
    """Emits a copy of the data, then the updates in order, element by element."""
    node = group.anchor
    op = node.op
    assert isinstance(op, ops.ScatterElements)
    data, indices, updates = node.inputs
    result = context.view(group.result)
    context.copy(context.view(data), result)
    target = _along_axis(context, result, op.axis, indices)
    _emit_scatter(context, group, target, context.view(updates), op.fn)


def lower_iota(context: Context, group: Group) -> None:
    """Emits the counting along one axis."""
    op = group.anchor.op
    assert isinstance(op, ops.Iota)
    result = context.view(group.result)
    count = tuple(
        1 if axis == op.axis and dim > 1 else 0 for axis, dim in enumerate(result.shape)
    )
    scope = KernelScope()
    scope.reserve(result)
    whole = scope.access(result, write=True)
    target, counter = innermost_last(collapse([result, replace(result, strides=count)]))
    output = replace(whole, strides=target.strides)
    number = Access(whole.buffer, counter.strides)
    lanes = context.lanes_for(op.dtype, DType.I64)

    def nest(at: tuple[Expr, ...], dims: Sequence[int]) -> list[Stmt]:
        if len(dims) > 1:
            return loop(f"d{len(at)}", dims[0], lambda i: nest((*at, i), dims[1:]))

        def element(i: Expr) -> list[Stmt]:
            return [output.store((*at, i), _converted(number.index((*at, i)), op.dtype))]

        return vector_sweep(dims[0], lanes, 1, element)

    context.emit(scope.call(group.label, nest((), target.shape)))


def _converted(value: Expr, dtype: DType) -> Expr:
    return value if value.dtype is dtype else Conv(value, dtype)


# Indices: where they lie, what they are when known, and how they stay within bounds.


def _known(node: Node, sizes: tuple[int, ...]) -> np.ndarray | None:
    """Constant indices, wrapped and clamped (int64); None when they come at run time. The last axis
    has one entry for each of ``sizes``, or there is one size for all."""
    if node.data is None:
        return None
    values = node.data
    if values.dtype == np.uint64:  # what is beyond int64 would turn negative
        values = np.minimum(values, np.uint64(_I64_MAX))
    wide = values.astype(np.int64)
    limits = np.array(sizes, np.int64)
    return np.asarray(np.clip(np.where(wide < 0, wide + limits, wide), 0, limits - 1)).reshape(
        node.shape
    )


def _index_view(context: Context, node: Node, values: np.ndarray | None) -> tuple[View, bool]:
    """Where the indices lie and whether they are within bounds already."""
    if values is None:
        return context.view(node), False
    return context.constant(np.ascontiguousarray(values), "indices"), True


def _along_axis(context: Context, whole: View, axis: int, indices: Node) -> _Addressed:
    """The element of ``whole`` at each position of ``indices``, whose value replaces the place on
    ``axis``."""
    size = whole.shape[axis]
    view, resolved = _index_view(context, indices, _known(indices, (size,)))
    strides = tuple(
        0 if a == axis or view.shape[a] == 1 else stride for a, stride in enumerate(whole.strides)
    )
    component = _Component(view, size, whole.strides[axis], resolved)
    return _Addressed(whole, strides, (component,))


def _by_tuples(
    context: Context, whole: View, batch: int, indices: Node, space: tuple[int, ...]
) -> _Addressed:
    """The elements of ``whole`` that the tuples on the last axis of ``indices`` name behind
    ``batch`` shared axes; ``space`` is the shape of the tuples followed by the axes not named."""
    depth = indices.shape[-1]
    sizes = whole.shape[batch : batch + depth]
    view, resolved = _index_view(context, indices, _known(indices, sizes))
    tuples = indices.type.rank - 1
    behind = whole.strides[batch + depth :]
    strides = whole.strides[:batch] + (0,) * (tuples - batch) + behind
    spread = view.strides[:-1] + (0,) * len(behind)
    components = tuple(
        _Component(
            replace(view, shape=space, strides=spread, offset=view.offset + i * view.strides[-1]),
            size,
            whole.strides[batch + i],
            resolved,
        )
        for i, size in enumerate(sizes)
    )
    return _Addressed(whole, strides, components)


def _within(value: Expr, component: _Component) -> Expr:
    """The index as int64 within the axis: from the end when negative, clamped when beyond."""
    if component.size == 1:
        return index.lit(0)
    signed = value.dtype.is_signed
    if value.dtype is DType.U64:
        value = Bin("min", value, Lit(_I64_MAX, DType.U64))
    wide = _converted(value, DType.I64)
    if component.resolved:
        return wide
    if signed:
        negative = Cmp("lt", wide, index.lit(0))
        wide = Sel(negative, Bin("add", wide, index.lit(component.size)), wide)
    return Bin("max", Bin("min", wide, index.lit(component.size - 1)), index.lit(0))


# Regular patterns of constant indices.


def _copy_pattern(
    context: Context, group: Group, data: View, result: View, axis: int, values: np.ndarray
) -> bool:
    """Emits a Gather as a strided copy if ``values`` are a regular pattern and the result's axes
    allow it; says whether it did."""
    pattern = _pattern(values.reshape(-1))
    if pattern is None:
        return False
    step = data.strides[axis]
    counts, steps = tuple(c for c, _ in pattern), tuple(s * step for _, s in pattern)
    source = replace(
        data,
        shape=data.shape[:axis] + counts + data.shape[axis + 1 :],
        strides=data.strides[:axis] + steps + data.strides[axis + 1 :],
        offset=data.offset + int(values.flat[0]) * step,
    )
    target = result.reshape(source.shape)
    if target is None:
        return False
    target, source = as_stored(target, source)
    sweep(context, group.label, target, [source], lambda loads: loads[0], UNROLL)
    return True


def _pattern(values: np.ndarray) -> list[tuple[int, int]] | None:
    """(count, step) pairs, outermost first, with values[i] = values[0] + sum of digit * step, where
    i has one digit below each count. Covers slices, reversal, repetition and tiling; None when
    there are no such pairs."""
    pairs: list[tuple[int, int]] = []
    while values.size > 1:
        step = int(values[1] - values[0])
        count = _run(values, step)
        if count == 1:
            return None
        pairs.insert(0, (count, step))
        values = values[::count]
    return pairs


def _run(values: np.ndarray, step: int) -> int:
    """The longest length that cuts ``values`` evenly into pieces each rising by ``step``."""
    breaks = np.flatnonzero(np.diff(values) != step)
    first = int(breaks[0]) + 1 if breaks.size else values.size
    for count in range(first, 1, -1):
        if values.size % count == 0 and np.all((breaks + 1) % count == 0):
            return count
    return 1


# Kernels.


def _emit_gather(context: Context, group: Group, source: _Addressed, result: View) -> None:
    whole, result = as_stored(source.whole, result)
    source = replace(source, whole=whole)

    def move(output: Access, at: tuple[Expr, ...], whole: Access, flat: Expr) -> Stmt:
        return output.store(at, whole.number(Load(whole.buffer, flat)))

    context.emit(_kernel(context, group, source, result, move, gathers=True))


def _emit_scatter(
    context: Context, group: Group, target: _Addressed, updates: View, fn: str
) -> None:
    def move(source: Access, at: tuple[Expr, ...], whole: Access, flat: Expr) -> Stmt:
        update = source.load(at)
        value = update if fn == "set" else Bin(fn, Load(whole.buffer, flat), update)
        return Store(whole.buffer, flat, value)

    context.emit(_kernel(context, group, target, updates, move, gathers=False))


@dataclass(frozen=True)
class _Space:
    """The axes of a kernel's loops, merged and ordered. ``plain`` is accessed at the position
    itself, ``fixed`` plus the offset of the components at the computed one."""

    shape: tuple[int, ...]
    plain: Access
    fixed: Access
    components: tuple[tuple[Access, _Component], ...]
    settled: int  # the computed offset depends on no axis from this one on

    def offset(self, at: tuple[Expr, ...]) -> Expr:
        """The computed part of the element index; ``at`` covers at least the ``settled`` axes."""
        full = at + (index.lit(0),) * (len(self.shape) - len(at))
        total: Expr = index.lit(0)
        for access, component in self.components:
            place = _within(access.load(full), component)
            total = index.add(total, index.mul(place, component.stride))
        return total


def _space(scope: KernelScope, addressed: _Addressed, plain: View, gathers: bool) -> _Space:
    """Reserves the parameters and orders the axes: last the one along which the written elements
    are contiguous.

    A scatter keeps the order of its updates: it moves only an axis that selects different elements.
    """
    parts = addressed.components
    scope.reserve(plain, addressed.whole, *(part.indices for part in parts))
    marker = replace(plain, strides=addressed.strides)
    views = collapse([plain, marker, *(part.indices for part in parts)])
    views = innermost_last(views) if gathers else _contiguous_last(views)
    to, fixed, *chosen = views
    rank = len(to.shape)
    moving = [a for a in range(rank) if any(view.strides[a] for view in chosen)]
    plain_access = scope.access(plain, write=gathers)
    whole = scope.access(addressed.whole, write=not gathers)
    components = []
    for part, view in zip(parts, chosen, strict=True):
        access = scope.access(part.indices)
        components.append((replace(access, strides=view.strides), part))
    return _Space(
        to.shape,
        replace(plain_access, strides=to.strides),
        replace(whole, strides=fixed.strides),
        tuple(components),
        max(moving, default=-1) + 1,
    )


def _contiguous_last(views: list[View]) -> list[View]:
    """The views with the axis last along which the scattered-to tensor (the second) is contiguous
    and all indices (the ones behind it) are the same; unchanged when there is none."""
    _, marker, *indices = views
    rank = len(marker.shape)
    for axis in range(rank):
        if marker.strides[axis] == 1 and not any(view.strides[axis] for view in indices):
            perm = tuple(a for a in range(rank) if a != axis) + (axis,)
            return [view.transpose(perm) for view in views]
    return views


def _kernel(
    context: Context, group: Group, addressed: _Addressed, plain: View, move: _Writer, gathers: bool
) -> Call:
    """The kernel that applies ``move`` at every position; the computed offset is found once per row
    where the innermost axis does not change it."""
    scope = KernelScope()
    space = _space(scope, addressed, plain, gathers)
    rank = len(space.shape)
    rows = space.settled < rank
    place = Buffer("place", DType.I64, 1, Space.REGISTER)
    lanes = context.lanes_for(plain.dtype)

    def element(at: tuple[Expr, ...]) -> list[Stmt]:
        offset = Load(place, index.lit(0)) if rows else space.offset(at)
        flat = index.add(space.fixed.index(at), offset)
        return [move(space.plain, at, space.fixed, flat)]

    def nest(at: tuple[Expr, ...]) -> list[Stmt]:
        depth = len(at)
        if rows and depth == space.settled:
            find = Store(place, index.lit(0), space.offset(at))
            return [Alloc(place, (find, *inside(at)))]
        return inside(at)

    def inside(at: tuple[Expr, ...]) -> list[Stmt]:
        depth = len(at)
        # Lanes must write different elements, which only rows of a scatter are known to do.
        lane_wise = gathers or (rows and space.fixed.strides[-1] != 0)
        if depth == rank - 1 and lane_wise:
            unroll = UNROLL if rows else 1
            return vector_sweep(space.shape[-1], lanes, unroll, lambda i: element((*at, i)))
        if depth == rank:
            return element(at)
        return loop(f"d{depth}", space.shape[depth], lambda i: nest((*at, i)))

    return scope.call(group.label, nest(()))


INDEXING: Mapping[type[Op], Callable[[Context, Group], None]] = MappingProxyType(
    {
        ops.Gather: lower_gather,
        ops.GatherElements: lower_gather_elements,
        ops.GatherND: lower_gather_nd,
        ops.ScatterND: lower_scatter_nd,
        ops.ScatterElements: lower_scatter_elements,
        ops.Iota: lower_iota,
        ops.CumSum: lower_cumsum,
        ops.ArgReduce: lower_arg_reduce,
        ops.TopK: lower_top_k,
    }
)
