"""Reductions and running sums of the standard: arrays and axes in, arrays out."""

from __future__ import annotations

from typing import Any

from aotc.numpy.array import ArgumentError
from aotc.numpy.eager import operation
from aotc.numpy.types import expect_kinds
from aotc.tracing.core import concat, cut, lift, one_axis, reshape
from aotc.tracing.tensor import Tensor, tnp

_NUMBER, _ALL = "iuf", "biuf"


def _checked(name: str, x: Any, kinds: str) -> Tensor:
    value = lift(x)
    expect_kinds(name, value.dtype, kinds)
    return value


@operation
def sum(x: Any, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    """Sums; of integers in 64 bits unless ``dtype`` says otherwise."""
    return tnp.sum(_checked("sum", x, _NUMBER), axis, dtype, keepdims=keepdims)


@operation
def prod(x: Any, /, *, axis: Any = None, dtype: Any = None, keepdims: bool = False) -> Any:
    """Products; of integers in 64 bits unless ``dtype`` says otherwise."""
    return tnp.prod(_checked("prod", x, _NUMBER), axis, dtype, keepdims=keepdims)


@operation
def max(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    """The largest elements; a NaN wins."""
    return tnp.max(_checked("max", x, _NUMBER), axis, keepdims=keepdims)


@operation
def min(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    """The smallest elements; a NaN wins."""
    return tnp.min(_checked("min", x, _NUMBER), axis, keepdims=keepdims)


@operation
def mean(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    """Arithmetic means of floats."""
    return tnp.mean(_checked("mean", x, "f"), axis, keepdims=keepdims)


@operation
def var(
    x: Any, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False
) -> Any:
    """Variances of floats: squares of distances from the mean, over their number less
    ``correction``."""
    return tnp.var(_checked("var", x, "f"), axis, correction=correction, keepdims=keepdims)


@operation
def std(
    x: Any, /, *, axis: Any = None, correction: float = 0.0, keepdims: bool = False
) -> Any:
    """Square roots of the variances."""
    return tnp.std(_checked("std", x, "f"), axis, correction=correction, keepdims=keepdims)


def _running(name: str, x: Any, axis: int | None, dtype: Any, start: int | None) -> Any:
    value = _checked(name, x, _NUMBER)
    if axis is None and value.ndim > 1:
        raise ArgumentError(f"{name} of {value.type} needs an axis")
    if not value.ndim:
        value = reshape(value, (1,))
    chosen = one_axis(0 if axis is None else axis, value.ndim)
    function = tnp.cumsum if name == "cumulative_sum" else tnp.cumprod
    result = function(value, chosen, dtype)
    if start is None:
        return result
    shape = [1 if place == chosen else size for place, size in enumerate(value.shape)]
    return concat([tnp.full_like(result, start, shape=shape), result], chosen)


@operation
def cumulative_sum(
    x: Any,
    /,
    *,
    axis: int | None = None,
    dtype: Any = None,
    include_initial: bool = False,
) -> Any:
    """Running sums along ``axis``; with ``include_initial`` from 0 on."""
    return _running("cumulative_sum", x, axis, dtype, 0 if include_initial else None)


@operation
def cumulative_prod(
    x: Any,
    /,
    *,
    axis: int | None = None,
    dtype: Any = None,
    include_initial: bool = False,
) -> Any:
    """Running products along ``axis``; with ``include_initial`` from 1 on."""
    return _running("cumulative_prod", x, axis, dtype, 1 if include_initial else None)


@operation
def all(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    """Whether all elements are true (not 0)."""
    return tnp.all(_checked("all", x, _ALL), axis, keepdims=keepdims)


@operation
def any(x: Any, /, *, axis: Any = None, keepdims: bool = False) -> Any:
    """Whether any element is true (not 0)."""
    return tnp.any(_checked("any", x, _ALL), axis, keepdims=keepdims)


@operation
def diff(
    x: Any,
    /,
    *,
    axis: int = -1,
    n: int = 1,
    prepend: Any = None,
    append: Any = None,
) -> Any:
    """Differences of neighbours along ``axis``, ``n`` times over."""
    value = _checked("diff", x, _NUMBER)
    chosen = one_axis(axis, value.ndim)
    ends = [each for each in (prepend, value, append) if each is not None]
    value = concat([lift(each).astype(value.dtype) for each in ends], chosen)
    for _ in range(n):
        size = value.shape[chosen] - 1
        if size < 0:
            return value
        value = cut(value, chosen, 1, size) - cut(value, chosen, 0, size)
    return value
