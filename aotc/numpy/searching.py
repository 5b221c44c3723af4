"""Searching, sorting and picking of the standard: arrays in, positions or elements out."""

from __future__ import annotations

from typing import Any

import numpy as np

from aotc.graph import ops
from aotc.graph.types import DType
from aotc.numpy.array import ArgumentError, Array
from aotc.numpy.eager import known_now, operation
from aotc.numpy.elementwise import promoted
from aotc.numpy.types import expect_kinds
from aotc.tracing.core import cast, emit, gather, lift, one_axis, reshape, select
from aotc.tracing.tensor import Tensor, tnp

_NUMBER, _ALL = "iuf", "biuf"


@operation
def argmax(x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Any:
    """Positions of the largest elements, the first of equal ones; of a NaN before any number."""
    expect_kinds("argmax", lift(x).dtype, _NUMBER)
    return tnp.argmax(lift(x), axis, keepdims=keepdims)


@operation
def argmin(x: Any, /, *, axis: int | None = None, keepdims: bool = False) -> Any:
    """Positions of the smallest elements, the first of equal ones; of a NaN before any number."""
    expect_kinds("argmin", lift(x).dtype, _NUMBER)
    return tnp.argmin(lift(x), axis, keepdims=keepdims)


@operation
def count_nonzero(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    """How many elements are not 0 (or not False)."""
    return tnp.count_nonzero(lift(x), axis, keepdims=keepdims)


@operation
def where(condition: Any, x1: Any, x2: Any, /) -> Any:
    """``x1`` where ``condition`` holds, else ``x2``."""
    test = lift(condition)
    expect_kinds("the condition of where", test.dtype, "b")
    if not any(isinstance(x, Tensor) for x in (x1, x2)):
        x1 = lift(x1)
    return tnp.where(test, *promoted("where", _ALL, x1, x2))


@operation
def _counted(x: Any) -> Any:
    return tnp.count_nonzero(lift(x))


@operation
def _first_true(x: Any, count: int) -> Any:
    """The positions of the first ``count`` true elements, in their order."""
    flat = reshape(tnp.equal(lift(x), 0), (lift(x).size,))
    return emit(ops.TopK(count, 0, False), cast(flat, DType.U8))


@known_now
def nonzero(x: Array, /) -> tuple[Any, ...]:
    """For each axis, the places of elements that are not 0, in row-major order."""
    if not x.ndim:
        raise ArgumentError("nonzero takes no numbers", remedy="compare it with 0")
    flat = _first_true(x, int(_counted(x)))
    return tuple(_unraveled(flat, x.shape))


@operation
def _unraveled(flat: Any, shape: tuple[int, ...]) -> list[Any]:
    places = []
    for size in reversed(shape):
        rest = flat // np.int64(max(size, 1))
        places.append(flat - rest * np.int64(max(size, 1)))
        flat = rest
    return places[::-1]


@operation
def searchsorted(
    x1: Any, x2: Any, /, *, side: str = "left", sorter: Any = None
) -> Any:
    """Where each element of ``x2`` goes into the sorted vector ``x1``, by halving."""
    if side not in ("left", "right"):
        raise ArgumentError(f"there is no side {side!r}", remedy="use left or right")
    table, values = promoted("searchsorted", _NUMBER, x1, x2)
    if table.ndim != 1:
        raise ArgumentError(f"searchsorted takes a sorted vector, not {table.type}")
    if sorter is not None:
        table = gather(table, lift(sorter), 0)
    size = table.shape[0]
    low = tnp.zeros_like(values, dtype=np.int64)
    if not size:
        return low
    high = low + np.int64(size)
    for _ in range(size.bit_length()):
        middle = (low + high) // np.int64(2)
        at = gather(table, tnp.minimum(middle, np.int64(size - 1)), 0)
        right = _before(at, values) if side == "left" else ~_before(values, at)
        right = right & (low < high)
        low, high = select(right, middle + np.int64(1), low), select(right, high, middle)
    return low


def _before(a: Tensor, b: Tensor) -> Any:
    """Whether ``a`` sorts before ``b``: a NaN is after all numbers."""
    before = tnp.less(a, b)
    return before | (~tnp.isnan(a) & tnp.isnan(b)) if a.type.dtype.is_float else before


@operation
def argsort(x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """Positions in order of value, equal elements in their order; NaN is the largest."""
    value = lift(x)
    if not value.ndim:
        raise ArgumentError("a number has no order")
    chosen = one_axis(axis, value.ndim)
    ranked = cast(value, DType.U8) if value.type.dtype is DType.BOOL else value
    return emit(ops.TopK(value.shape[chosen], chosen, descending), ranked)


@operation
def sort(x: Any, /, *, axis: int = -1, descending: bool = False, stable: bool = True) -> Any:
    """Elements in order of value; NaN is the largest."""
    value = lift(x)
    order = argsort(value, axis=axis, descending=descending)
    if not value.size:
        return value
    return emit(ops.GatherElements(one_axis(axis, value.ndim)), value, order)


@operation
def take(x: Any, indices: Any, /, *, axis: int | None = None) -> Any:
    """Elements at ``indices`` along ``axis``, which only a vector may leave out."""
    value = lift(x)
    if axis is None and value.ndim != 1:
        raise ArgumentError(f"take from {value.type} needs an axis")
    return tnp.take(value, lift(indices), 0 if axis is None else axis)


@operation
def take_along_axis(x: Any, indices: Any, /, *, axis: int = -1) -> Any:
    """Elements at ``indices`` along ``axis``, each vector by its own."""
    return tnp.take_along_axis(lift(x), lift(indices), axis)


@operation
def isin(x1: Any, x2: Any, /, *, invert: bool = False) -> Any:
    """Which elements of ``x1`` are among those of ``x2``."""
    if not any(isinstance(x, Tensor) for x in (x1, x2)):
        x1 = lift(x1)
    values, table = promoted("isin", _ALL, x1, x2)
    flat = reshape(table, (table.size,))
    if not table.size:
        found = tnp.zeros_like(values, dtype=bool)
    elif values.type.dtype is DType.BOOL:
        found = tnp.any(tnp.equal(values[..., None], flat), -1)
    else:
        ordered = sort(flat)
        place = searchsorted(ordered, values)
        found = tnp.equal(gather(ordered, tnp.minimum(place, np.int64(table.size - 1)), 0), values)
    return ~found if invert else found
