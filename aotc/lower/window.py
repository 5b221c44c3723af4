"""WINDOW and DEPTHWISE groups: sliding windows over each channel by itself, lanes along the
innermost axis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from aotc.fuse.groups import Group
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import Alloc, Bin, Buffer, Conv, Expr, Kind, Lit, Load, Space, Stmt, Store
from aotc.lower.columns import lower_columns
from aotc.lower.context import Context
from aotc.lower.contract import fits_bytes, has_least_pair
from aotc.lower.contract_kernel import multiply_add
from aotc.lower.gpu.vectors import choose_strip, neighbours
from aotc.lower.packed import constant_array
from aotc.lower.pointwise import evaluate_nodes, widened
from aotc.lower.row_pairs import lower_row_pairs
from aotc.lower.scope import KernelScope, loop, rest_lanes, vector
from aotc.lower.views import View
from aotc.schedule.recipe import split_evenly
from aotc.target import DotProducts

#: Accumulator vectors per tile: enough to hide the latency of two FMA pipes of four cycles each.
TILE_VECTORS = 8
#: The same where small code is asked for.
COMPACT_VECTORS = 1
#: Taps that are laid out in line, of a row and in all; on a GPU, so that all loads overlap.
MOST_TAPS, FEW_TAPS, GPU_TAPS = 49, 9, 25

Term = Callable[[tuple[Expr, ...], tuple[Expr, ...], Expr], Expr]


def lower_window(context: Context, group: Group) -> None:
    """Emits the kernel of a WINDOW group: result[i] = fn over taps t of data[i * stride + t *
    dilation]."""
    op = group.anchor.op
    assert isinstance(op, ops.ReduceWindow) and not any(op.low) and not any(op.high)
    data = context.view(group.anchor.inputs[0])
    windows = sliding(data, group.anchor.shape, op.window, op.strides, op.dilation)
    first = lowest(data.value_dtype) if op.fn == "max" else 0
    fn = "max" if op.fn == "max" else "add"
    _Sweep(context, group, windows, None, first, lambda acc, x, _: Bin(fn, acc, x)).emit()


def lower_depthwise(context: Context, group: Group) -> None:
    """Emits the kernel of a DEPTHWISE group: each channel is convolved with its own filter."""
    op = group.anchor.op
    assert isinstance(op, ops.Conv) and not any(op.low) and not any(op.high)
    data, weights = (context.view(operand) for operand in group.anchor.inputs)
    ones = (1,)
    windows = sliding(
        data,
        group.anchor.shape,
        (*ones, *weights.shape[2:], *ones),
        (*ones, *op.strides, *ones),
        (*ones, *op.dilation, *ones),
    )
    spatial = len(op.strides)
    taps_last = weights.transpose((1, *range(2, spatial + 2), 0))  # [1, *window, C]
    if taps_last.is_constant:
        packed = np.ascontiguousarray(constant_array(taps_last))
        if data.dtype.size_bytes == 1 and fits_bytes(taps_last):
            packed = packed.astype(np.int8)
            in_bytes = context.target.dot_products is DotProducts.MVE
            if in_bytes and lower_columns(context, group, packed[0]):
                return
            in_pairs = context.target.dot_products is DotProducts.SMLAD
            if in_pairs and lower_row_pairs(context, group, packed[0]):
                return
        taps = context.constant(packed, "filters")
    else:
        taps = context.temporary(weights.dtype, taps_last.shape, "filters", weights.value)
        context.copy(taps_last, taps)
    taps = replace(taps, shape=(*taps.shape, 1), strides=(*taps.strides, 0))
    sweep = _PairedSweep if _sums_pairs(context, group, taps_last) else _Sweep
    sweep(context, group, windows, taps, 0, lambda acc, x, w: multiply_add(x, w, acc)).emit()


def _sums_pairs(context: Context, group: Group, taps: View) -> bool:
    """Whether two products at a time are summed in int16: vectors of int8, weights of which no two
    are -128 in neighbouring taps, and no more taps than are laid out in line."""
    sums, result = group.anchor.type.dtype, group.result.type.dtype
    target = context.target
    in_bytes = context.view(group.anchor.inputs[0]).dtype is DType.I8 and sums is DType.I32
    if not (in_bytes and target.signed_codes and fits_bytes(taps)) or target.compact:
        return False
    in_line = taps.reshape((math.prod(taps.shape[:-1]), taps.shape[-1]))
    if in_line is None or has_least_pair(in_line) or in_line.shape[0] > MOST_TAPS:
        return False
    return context.lanes_for(sums, result) == 4


def lowest(dtype: DType) -> float | int:
    """The identity of max."""
    if dtype.is_float:
        return -math.inf
    return int(np.iinfo(dtype.numpy).min) if dtype.is_int else 0


def sliding(
    data: View,
    result: tuple[int, ...],
    window: tuple[int, ...],
    strides: tuple[int, ...],
    dilation: tuple[int, ...],
) -> View:
    """The view [*result, *window] of overlapping windows over ``data``."""
    steps = tuple(a * b for a, b in zip(data.strides, strides, strict=True))
    taps = tuple(a * b for a, b in zip(data.strides, dilation, strict=True))
    shape = (*result, *window)
    along = [s if dim > 1 else 0 for s, dim in zip((*steps, *taps), shape, strict=True)]
    return replace(data, shape=shape, strides=tuple(along))


class _Sweep:
    """Writes one sliding-window kernel: tiles of several positions along the last sliding
    axis, one vector of the innermost axis at a time, all taps unrolled when they are few."""

    def __init__(
        self,
        context: Context,
        group: Group,
        windows: View,
        taps: View | None,
        first: float | int,
        combine: Callable[[Expr, Expr, Expr], Expr],
    ) -> None:
        self.context = context
        self.group = group
        self.first = first
        self.combine = combine
        self.dtype = group.anchor.type.dtype
        rank = len(windows.shape) // 2
        self.dims, self.window = windows.shape[:rank], windows.shape[rank:]
        self.epilogue = tuple(node for node in group.nodes if node is not group.anchor)
        self.leaf_nodes = context.operands(self.epilogue, group.nodes)
        leaves = [context.view(node) for node in self.leaf_nodes]
        result = context.view(group.result)
        self.scope = KernelScope(aligned=context.target.is_gpu)
        self.scope.reserve(windows, result, *leaves, *([taps] if taps else []))
        self.data = self.scope.access(windows)
        self.taps = self.scope.access(taps) if taps else None
        self.leaves = [self.scope.access(leaf) for leaf in leaves]
        self.result = self.scope.access(result, write=True)
        if context.target.is_gpu:
            self.lanes, self.positions = self._strip()
        else:
            self.lanes = context.lanes_for(self.dtype, result.dtype)
            self.positions = COMPACT_VECTORS if context.target.compact else TILE_VECTORS

    def _strip(self) -> tuple[int, int]:
        """Lanes and positions of a thread of a GPU."""
        rank = len(self.dims)
        along = [(self.data, rank - 1), (self.result, rank - 1)]
        along += [(leaf, rank - 1) for leaf in self.leaves]
        along += [(self.taps, rank - 1)] if self.taps else []
        accesses = [
            replace(x, strides=(*x.strides[:axis], *x.strides[axis + 1 :], x.strides[axis]))
            for x, axis in along
        ]
        return choose_strip(math.prod(self.dims), neighbours(accesses, self.dims[-1]))

    def emit(self) -> None:
        self.context.emit(
            self.scope.call(self.group.label, self._outer((), self.dims[:-2]), independent=True)
        )

    def _outer(self, at: tuple[Expr, ...], dims: Sequence[int]) -> list[Stmt]:
        if dims:
            return loop(f"d{len(at)}", dims[0], lambda i: self._outer((*at, i), dims[1:]))
        if len(self.dims) < 2:
            return self._inner(at, None)
        return self._inner(at, self.dims[-2])

    def _inner(self, at: tuple[Expr, ...], columns: int | None) -> list[Stmt]:
        """The innermost axis in vectors, and inside, the axis before it in tiles."""
        extent = self.dims[-1]
        full, rest = divmod(extent, self.lanes)

        def block(start: Expr, active: int, lanes: int) -> list[Stmt]:
            if columns is None:
                return self._tile(at, 1, lambda _: (), start, active, lanes)
            stmts: list[Stmt] = []
            for segment in split_evenly(columns, self.positions):

                def tile(c: Expr, segment=segment) -> list[Stmt]:  # type: ignore[no-untyped-def]
                    c0 = index.add(index.mul(c, segment.size), index.lit(segment.start))
                    return self._tile(
                        at, segment.size, lambda t: (index.add(c0, t),), start, active, lanes
                    )

                stmts += loop("c", segment.count, tile)
            return stmts

        stmts = []
        if full:
            stmts += loop(
                "n", full, lambda n: block(index.mul(n, self.lanes), self.lanes, self.lanes)
            )
        if rest:
            stmts += block(index.lit(full * self.lanes), rest, rest_lanes(rest, self.lanes))
        return stmts

    def _tile(
        self,
        at: tuple[Expr, ...],
        size: int,
        column: Callable[[Expr], tuple[Expr, ...]],
        start: Expr,
        active: int,
        lanes: int,
    ) -> list[Stmt]:
        """``size`` positions at ``(*at, *column(t), start + v)``: clear, accumulate all
        taps, finish."""
        acc = Buffer("acc", self.dtype, size * lanes, Space.REGISTER)

        def each(body: Callable[[Expr, Expr], Stmt]) -> list[Stmt]:
            return loop(
                "t",
                size,
                lambda t: [vector("v", active, lanes, lambda v: [body(t, v)])],
                Kind.UNROLLED,
            )

        def cell(t: Expr, v: Expr) -> Expr:
            return index.add(index.mul(t, lanes), v)

        def where(t: Expr, v: Expr) -> tuple[Expr, ...]:
            return (*at, *column(t), index.add(start, v))

        def step(*taps: tuple[Expr, ...]) -> list[Stmt]:
            def term(t: Expr, v: Expr) -> Stmt:
                target = cell(t, v)
                total = self._sum(Load(acc, target), where(t, v), index.add(start, v), taps)
                return Store(acc, target, total)

            return each(term)

        def finish(t: Expr, v: Expr) -> Stmt:
            position = where(t, v)
            values: dict[Node, Expr] = {self.group.anchor: Load(acc, cell(t, v))}
            for node, leaf in zip(self.leaf_nodes, self.leaves, strict=True):
                values[node] = leaf.load(position)
            values = evaluate_nodes(self.epilogue, values)
            return self.result.store(position, values[self.group.result])

        clear = each(lambda t, v: Store(acc, cell(t, v), Lit(self.first, self.dtype)))
        return [Alloc(acc, (*clear, *self._taps((), step), *each(finish)))]

    def _sum(
        self, total: Expr, at: tuple[Expr, ...], channel: Expr, taps: Sequence[tuple[Expr, ...]]
    ) -> Expr:
        """``total`` and what ``taps`` (one here) give at the position ``at``."""
        (tap,) = taps
        x = widened(self.data.load((*at, *tap)), self.dtype)
        weight: Expr = Lit(0, self.dtype)
        if self.taps:
            weight = widened(self.taps.load((*tap[:-1], channel, tap[-1])), self.dtype)
        return self.combine(total, x, weight)

    def _taps(self, tap: tuple[Expr, ...], step: Callable[..., list[Stmt]]) -> list[Stmt]:
        if len(tap) == len(self.window):
            return step(tap)
        if self.context.target.compact:
            extent = self.window[len(tap)]
            return loop(f"k{len(tap)}", extent, lambda i: self._taps((*tap, i), step))
        in_line = GPU_TAPS if self.context.target.is_gpu else FEW_TAPS
        unrolled = math.prod(self.window) <= in_line or len(tap) >= len(self.window) - 2
        kind = Kind.UNROLLED if unrolled and math.prod(self.window) <= MOST_TAPS else Kind.SERIAL
        extent = self.window[len(tap)]
        return loop(f"k{len(tap)}", extent, lambda i: self._taps((*tap, i), step), kind)


class _PairedSweep(_Sweep):
    """A sweep over bytes in as many lanes as products of int16 fill a vector with, two taps at a
    time."""

    def __init__(
        self,
        context: Context,
        group: Group,
        windows: View,
        taps: View | None,
        first: float | int,
        combine: Callable[[Expr, Expr, Expr], Expr],
    ) -> None:
        super().__init__(context, group, windows, taps, first, combine)
        wider = 4 if context.target.dot_products is DotProducts.RVV else 2
        self.lanes *= wider
        self.positions //= wider

    def _sum(
        self, total: Expr, at: tuple[Expr, ...], channel: Expr, taps: Sequence[tuple[Expr, ...]]
    ) -> Expr:
        assert self.taps
        products: list[Expr] = []
        for tap in taps:
            x = Conv(self.data.load((*at, *tap)), DType.I16)
            weight = Conv(self.taps.load((*tap[:-1], channel, tap[-1])), DType.I16)
            products.append(Bin("mul", x, weight))
        both = Bin("add", *products) if len(products) > 1 else products[0]
        return Bin("add", total, Conv(both, self.dtype))

    def _taps(self, tap: tuple[Expr, ...], step: Callable[..., list[Stmt]]) -> list[Stmt]:
        axes = (map(index.lit, range(extent)) for extent in self.window)
        places = list(itertools.product(*axes))
        return [
            stmt for i in range(0, len(places), 2) for stmt in step(*places[i : i + 2])
        ]
