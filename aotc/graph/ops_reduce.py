"""Primitives that combine many elements: reductions, windows, products, convolution, ranking."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from aotc.graph.ir import Op
from aotc.graph.rules import (
    expect_axis,
    expect_count,
    expect_each_axis,
    expect_known,
    expect_numeric,
    require,
    result_type,
    through_float32,
    window_extent,
)
from aotc.graph.types import DType, TensorType

REDUCE_FUNCTIONS = frozenset({"sum", "prod", "max", "min", "and", "or"})


@dataclass(frozen=True)
class Reduce(Op):
    """``fn`` in sum prod max min (NaN wins; and, or on bool) over ``axes`` (sorted), which
    disappear from the shape. Integers wrap; max and min need at least one element."""

    fn: str
    axes: tuple[int, ...]

    def infer(self, *operands: TensorType) -> TensorType:
        (x,) = expect_count(operands, 1)
        expect_known(self.fn, REDUCE_FUNCTIONS)
        if self.fn in ("and", "or"):
            require(x.dtype is DType.BOOL, f"'{self.fn}' needs bool, got {x}")
        else:
            expect_numeric(x, f"'{self.fn}'")
        require(
            list(self.axes) == sorted(set(self.axes)), f"axes {self.axes} are not sorted and unique"
        )
        for axis in self.axes:
            expect_axis(axis, x.rank)
            require(
                self.fn not in ("max", "min") or x.shape[axis] != 0,
                f"'{self.fn}' over the empty axis {axis} of {x} has no value",
            )
        kept = tuple(dim for axis, dim in enumerate(x.shape) if axis not in self.axes)
        return result_type(x.dtype, kept)

    @through_float32
    @np.errstate(all="ignore")
    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        (x,) = operands
        ufunc = {
            "sum": np.add,
            "prod": np.multiply,
            "max": np.maximum,
            "min": np.minimum,
            "and": np.logical_and,
            "or": np.logical_or,
        }[self.fn]
        return np.asarray(ufunc.reduce(x, axis=self.axes, dtype=x.dtype))


@dataclass(frozen=True)
class ArgReduce(Op):
    """Index (int64) of the max or min (``fn``) along ``axis``, which disappears; the first such
    index, or the last when ``last``. A NaN counts as the best value."""

    fn: str
    axis: int
    last: bool

    def infer(self, *operands: TensorType) -> TensorType:
        (x,) = expect_count(operands, 1)
        expect_known(self.fn, frozenset({"max", "min"}))
        expect_numeric(x, f"'{self.fn}'")
        expect_axis(self.axis, x.rank)
        require(x.shape[self.axis] != 0, f"axis {self.axis} of {x} is empty")
        return result_type(DType.I64, x.shape[: self.axis] + x.shape[self.axis + 1 :])

    @through_float32
    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        (x,) = operands
        find = np.argmax if self.fn == "max" else np.argmin
        if not self.last:
            return np.asarray(find(x, axis=self.axis), dtype=np.int64)
        from_end = find(np.flip(x, self.axis), axis=self.axis)
        return np.asarray(x.shape[self.axis] - 1 - from_end, dtype=np.int64)


@dataclass(frozen=True)
class CumSum(Op):
    """Running sum along ``axis``; ``exclusive`` leaves the element itself out, ``reverse`` runs
    from the end."""

    axis: int
    exclusive: bool
    reverse: bool

    def infer(self, *operands: TensorType) -> TensorType:
        (x,) = expect_count(operands, 1)
        expect_numeric(x, "a running sum")
        expect_axis(self.axis, x.rank)
        return result_type(x.dtype, x.shape)

    @through_float32
    @np.errstate(all="ignore")
    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        x = np.moveaxis(operands[0], self.axis, 0)
        x = x[::-1] if self.reverse else x
        total = np.cumsum(x, axis=0, dtype=x.dtype)
        if self.exclusive:
            total = np.concatenate([np.zeros_like(total[:1]), total[:-1]])
        total = total[::-1] if self.reverse else total
        return np.moveaxis(total, 0, self.axis)


def _windows(
    x: np.ndarray, window: tuple[int, ...], strides: tuple[int, ...], dilation: tuple[int, ...]
) -> np.ndarray:
    """Every window over the last axes of ``x``, as a view [*leading, *positions, *window]."""
    reach = tuple((size - 1) * gap + 1 for size, gap in zip(window, dilation, strict=True))
    leading = x.ndim - len(window)
    steps = [slice(None, None, step) for step in (*[1] * leading, *strides, *dilation)]
    views: np.ndarray = sliding_window_view(x, reach, axis=tuple(range(leading, x.ndim)))
    return views[tuple(steps)]


@dataclass(frozen=True)
class ReduceWindow(Op):
    """Sliding ``fn`` in sum max over windows; every field has one entry per axis (1, 1, 0, 0, 1
    where the axis does not slide). Padding takes part with the identity of ``fn`` (0 or
    -inf/lowest)."""

    fn: str
    window: tuple[int, ...]
    strides: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    dilation: tuple[int, ...]

    def infer(self, *operands: TensorType) -> TensorType:
        (x,) = expect_count(operands, 1)
        expect_known(self.fn, frozenset({"sum", "max"}))
        expect_numeric(x, f"'{self.fn}'")
        for attribute in ("window", "strides", "low", "high", "dilation"):
            expect_each_axis(attribute, getattr(self, attribute), x.rank)
        per_axis = zip(
            x.dims, self.window, self.strides, self.low, self.high, self.dilation, strict=True
        )
        return result_type(x.dtype, tuple(window_extent(*values) for values in per_axis))

    @through_float32
    @np.errstate(all="ignore")
    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        (x,) = operands
        identity = 0 if self.fn == "sum" else _lowest(x.dtype)
        sides = list(zip(self.low, self.high, strict=True))
        padded = np.pad(x, sides, constant_values=identity) if any(map(any, sides)) else x
        views = _windows(padded, self.window, self.strides, self.dilation)
        ufunc = np.add if self.fn == "sum" else np.maximum
        axes = tuple(range(x.ndim, 2 * x.ndim))
        return np.asarray(ufunc.reduce(views, axis=axes, dtype=x.dtype))


def _lowest(dtype: np.dtype) -> float | int:
    return -math.inf if dtype.kind == "f" else int(np.iinfo(dtype).min)


@dataclass(frozen=True)
class Dot(Op):
    """Batched matrix product: lhs [*B, M, K], rhs [*B, K, N] of one dtype -> [*B, M, N]; the batch
    axes equal."""

    def infer(self, *operands: TensorType) -> TensorType:
        lhs, rhs = expect_count(operands, 2)
        require(lhs.dtype is rhs.dtype, f"operands have different types: {lhs} and {rhs}")
        expect_numeric(lhs, "a matrix product")
        require(
            lhs.rank == rhs.rank >= 2, f"operands must share a rank of 2 or more: {lhs} and {rhs}"
        )
        require(lhs.shape[:-2] == rhs.shape[:-2], f"batch axes differ: {lhs} and {rhs}")
        require(
            lhs.shape[-1] == rhs.shape[-2],
            f"{lhs} has {lhs.shape[-1]} columns, {rhs} has {rhs.shape[-2]} rows",
        )
        return result_type(lhs.dtype, (*lhs.shape[:-1], rhs.shape[-1]))

    @through_float32
    @np.errstate(all="ignore")
    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        return np.asarray(np.matmul(*operands))


@dataclass(frozen=True)
class Conv(Op):
    """Convolution (cross-correlation), spatial rank 1 to 3.

    Operands: data and weights [O, I/groups, *window]. Data and result are [N, C, *spatial], or
    [N, *spatial, C] when ``channels_last``; the weights stay OI*. ``low``/``high`` is the zero
    padding per spatial axis."""

    strides: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int
    channels_last: bool

    def infer(self, *operands: TensorType) -> TensorType:
        data, weights = expect_count(operands, 2)
        require(data.dtype is weights.dtype, f"operands have different types: {data}, {weights}")
        expect_numeric(data, "a convolution")
        spatial = data.rank - 2
        require(1 <= spatial <= 3, f"data must have 1 to 3 spatial axes, got {data}")
        require(weights.rank == data.rank, f"data {data} and weights {weights} differ in rank")
        for attribute in ("strides", "low", "high", "dilation"):
            expect_each_axis(attribute, getattr(self, attribute), spatial)
        dims = data.dims
        channels = dims[-1] if self.channels_last else dims[1]
        sizes = dims[1:-1] if self.channels_last else dims[2:]
        require(self.groups >= 1, f"groups must be >= 1, got {self.groups}")
        require(
            channels == weights.dims[1] * self.groups and weights.dims[0] % self.groups == 0,
            f"{channels} channels of {data} do not fit weights {weights} in {self.groups} groups",
        )
        per_axis = zip(
            sizes, weights.dims[2:], self.strides, self.low, self.high, self.dilation, strict=True
        )
        extents = tuple(window_extent(*values) for values in per_axis)
        outputs = weights.dims[0]
        shape = (*extents, outputs) if self.channels_last else (outputs, *extents)
        return result_type(data.dtype, (dims[0], *shape))

    @through_float32
    @np.errstate(all="ignore")
    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        data, weights = operands
        data = np.moveaxis(data, -1, 1) if self.channels_last else data
        sides = [(0, 0), (0, 0), *zip(self.low, self.high, strict=True)]
        padded = np.pad(data, sides) if any(map(any, sides)) else data
        window, rank = weights.shape[2:], len(self.strides)
        views = _windows(padded, window, self.strides, self.dilation)
        extents = views.shape[2 : 2 + rank]
        # [N, C, *extents, *window] -> [N, groups, C/groups * window, positions] (im2col)
        order = (0, 1, *range(2 + rank, 2 + 2 * rank), *range(2, 2 + rank))
        taps = weights.shape[1] * math.prod(window)
        columns = views.transpose(order).reshape(
            data.shape[0], self.groups, taps, math.prod(extents)
        )
        kernels = weights.reshape(self.groups, weights.shape[0] // self.groups, taps)
        result = np.matmul(kernels, columns)
        result = result.reshape(data.shape[0], weights.shape[0], *extents)
        return np.moveaxis(result, 1, -1) if self.channels_last else result


@dataclass(frozen=True)
class TopK(Op):
    """The positions (int64) of the ``k`` largest (or smallest) elements along ``axis``, best first,
    ties by index. A NaN counts as the largest value."""

    k: int
    axis: int
    largest: bool

    def infer(self, *operands: TensorType) -> TensorType:
        (x,) = expect_count(operands, 1)
        expect_numeric(x, "a ranking")
        expect_axis(self.axis, x.rank)
        size = x.dims[self.axis]
        require(0 <= self.k <= size, f"cannot take {self.k} of {size} along axis {self.axis}")
        shape = x.shape[: self.axis] + (self.k,) + x.shape[self.axis + 1 :]
        return result_type(DType.I64, shape)

    @through_float32
    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        (x,) = operands
        if self.largest:
            # sorting the flipped axis and reading it backwards keeps ties in order of index
            flipped = np.argsort(np.flip(x, self.axis), axis=self.axis, kind="stable")
            ranked = x.shape[self.axis] - 1 - np.flip(flipped, self.axis)
        else:
            ranked = np.argsort(x, axis=self.axis, kind="stable")
        chosen = np.take(ranked, range(self.k), axis=self.axis)
        return np.asarray(chosen, dtype=np.int64)
