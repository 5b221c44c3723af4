"""numpy's functions that combine many elements of one tensor: reductions, running sums, sorting.

The parameters are numpy's. Sums of floats add up in an order of their own, so they agree with
numpy's to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from aotc.graph import ops
from aotc.graph.types import DType
from aotc.tracing.core import (
    all_axes,
    axis_of,
    broadcast,
    cast,
    concat,
    constant,
    cut,
    emit,
    lift,
    one_axis,
    reduce,
    reshape,
    select,
    stopped,
    unary,
)
from aotc.tracing.eager import eager
from aotc.tracing.places import misuse, unsupported
from aotc.tracing.spec import element_type
from aotc.tracing.tensor import Tensor, tnp


def _sum_type(x: Tensor, dtype: Any) -> DType:
    """What numpy adds up in: 64 bits for bools and integers."""
    if dtype is not None:
        return element_type(dtype)
    kind = x.type.dtype
    if kind.is_float:
        return kind
    return DType.U64 if kind.is_int and not kind.is_signed else DType.I64


def _total(fn: str) -> Callable[..., Tensor]:
    def function(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: bool = False) -> Tensor:
        x = lift(a)
        axes = all_axes(axis_of(axis, x), x.ndim)
        return reduce(fn, cast(x, _sum_type(x, dtype)), axes, keepdims)

    return function


sum_of = _total("sum")


def _extreme(fn: str, on_bool: str) -> Callable[..., Tensor]:
    def function(a: Any, axis: Any = None, *, keepdims: bool = False) -> Tensor:
        x = lift(a)
        name = on_bool if x.type.dtype is DType.BOOL else fn
        return reduce(name, x, all_axes(axis_of(axis, x), x.ndim), keepdims)

    return function


def _logical(fn: str) -> Callable[..., Tensor]:
    def function(a: Any, axis: Any = None, *, keepdims: bool = False) -> Tensor:
        x = cast(lift(a), DType.BOOL)
        return reduce(fn, x, all_axes(axis_of(axis, x), x.ndim), keepdims)

    return function


def _count(x: Tensor, axis: Any) -> int:
    return int(np.prod([x.shape[each] for each in all_axes(axis, x.ndim)], dtype=np.int64))


def _mean_type(x: Tensor, dtype: Any) -> tuple[DType, DType]:
    """What a mean adds up in, and its type: float64 of integers, float32 for float16."""
    kind = element_type(dtype) if dtype is not None else x.type.dtype
    kind = kind if kind.is_float else DType.F64
    return kind.arithmetic, kind


def mean(a: Any, axis: Any = None, dtype: Any = None, *, keepdims: bool = False) -> Tensor:
    x = lift(a)
    wide, kind = _mean_type(x, dtype)
    total = reduce("sum", cast(x, wide), all_axes(axis, x.ndim), keepdims)
    return cast(total / wide.numpy.type(_count(x, axis)), kind)


def var(
    a: Any,
    axis: Any = None,
    dtype: Any = None,
    *,
    ddof: float = 0,
    keepdims: bool = False,
    correction: float | None = None,
) -> Tensor:
    """The mean of squares of what is left when the mean is taken off, as numpy does it."""
    x = lift(a)
    wide, kind = _mean_type(x, dtype)
    apart = cast(x, wide) - mean(cast(x, wide), axis, keepdims=True)
    total = reduce("sum", apart * apart, all_axes(axis, x.ndim), keepdims)
    freedom = _count(x, axis) - (ddof if correction is None else correction)
    return cast(total / wide.numpy.type(max(freedom, 0)), kind)


def std(a: Any, axis: Any = None, dtype: Any = None, **named: Any) -> Tensor:
    return unary("sqrt", var(a, axis, dtype, **named))


def ptp(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
    return tnp.max(a, axis, keepdims=keepdims) - tnp.min(a, axis, keepdims=keepdims)


def average(a: Any, axis: Any = None, weights: Any = None, *, keepdims: bool = False) -> Any:
    if weights is None:
        return mean(a, axis, keepdims=keepdims)
    x, w = lift(a), lift(weights)
    if w.shape != x.shape:
        w = broadcast(reshape(w, [
            size if i == one_axis(axis, x.ndim) else 1 for i, size in enumerate(x.shape)
        ]), x.shape)
    return sum_of(x * w, axis, keepdims=keepdims) / sum_of(w, axis, keepdims=keepdims)


def count_nonzero(a: Any, axis: Any = None, *, keepdims: bool = False) -> Tensor:
    return sum_of(cast(lift(a), DType.BOOL), axis, keepdims=keepdims)


def _numbers(x: Tensor) -> Tensor:
    """Bools as numbers, for what ranks."""
    return cast(x, DType.U8) if x.type.dtype is DType.BOOL else x


def _arg(fn: str) -> Callable[..., Tensor]:
    def function(a: Any, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
        x = _numbers(lift(a))
        axis = axis_of(axis, x)
        flat = reshape(x, (x.size,)) if axis is None else x
        chosen = 0 if axis is None else one_axis(axis, x.ndim)
        y = emit(ops.ArgReduce(fn, chosen, False), flat)
        if not keepdims:
            return y
        return reshape(y, [
            1 if axis is None or i == chosen else size for i, size in enumerate(x.shape)
        ])

    return function


def cumsum(a: Any, axis: int | None = None, dtype: Any = None) -> Tensor:
    x = lift(a)
    if axis_of(axis, x) is None:
        x, axis = reshape(x, (x.size,)), 0
    return emit(ops.CumSum(one_axis(axis, x.ndim), False, False), cast(x, _sum_type(x, dtype)))


def cumprod(a: Any, axis: int | None = None, dtype: Any = None) -> Any:
    """By doubling: in each round a product takes in twice as many elements."""
    x = lift(a)
    if axis_of(axis, x) is None:
        x, axis = reshape(x, (x.size,)), 0
    chosen = one_axis(axis, x.ndim)
    y, size, reach = cast(x, _sum_type(x, dtype)), x.shape[chosen], 1
    while reach < size:
        later = cut(y, chosen, reach, size - reach) * cut(y, chosen, 0, size - reach)
        y, reach = concat([cut(y, chosen, 0, reach), later], chosen), 2 * reach
    return y


def diff(a: Any, n: int = 1, axis: int = -1) -> Any:
    x = lift(a)
    chosen = one_axis(axis, x.ndim)
    for _ in range(n):
        count = max(x.shape[chosen] - 1, 0)
        later, earlier = cut(x, chosen, min(count, 1), count), cut(x, chosen, 0, count)
        x = later != earlier if x.type.dtype is DType.BOOL else later - earlier
    return x


def _ranked(x: Tensor, count: int, axis: int, largest: bool) -> Tensor:
    """Positions of the best ``count`` elements; equal ones in their order."""
    return emit(ops.TopK(count, axis, largest), _numbers(x))


def argsort(a: Any, axis: int | None = -1) -> Tensor:
    """Equal elements stay in their order, whatever ``kind`` says."""
    x = lift(a)
    if axis_of(axis, x) is None:
        x, axis = reshape(x, (x.size,)), 0
    chosen = one_axis(axis, x.ndim)
    return _ranked(x, x.shape[chosen], chosen, False)


def sort(a: Any, axis: int | None = -1) -> Tensor:
    x = lift(a)
    if axis is None:
        x, axis = reshape(x, (x.size,)), 0
    if x.size == 0:
        return x
    chosen = one_axis(axis, x.ndim)
    return emit(ops.GatherElements(chosen), x, argsort(x, chosen))


def median(a: Any, axis: int | None = None, *, keepdims: bool = False) -> Tensor:
    x = lift(a)
    flat = reshape(x, (x.size,)) if axis is None else x
    chosen = 0 if axis is None else one_axis(axis, x.ndim)
    size = flat.shape[chosen]
    ordered = sort(flat, chosen)
    low = (size - 1) // 2
    y = mean(cut(ordered, chosen, low, size // 2 - low + 1), chosen, keepdims=True)
    if x.type.dtype.is_float:
        bad = reduce("or", unary("isnan", flat), (chosen,), True)
        y = select(bad, np.nan, y)
    kept = [1 if axis is None or i == chosen else s for i, s in enumerate(x.shape)]
    return reshape(y, kept if keepdims else [s for i, s in enumerate(y.shape) if i != chosen])


@eager
def top_k(x: Any, k: int, axis: int = -1, largest: bool = True) -> tuple[Tensor, Tensor]:
    """The ``k`` largest (or smallest) elements along ``axis``, best first, and their positions
    (int64); equal ones in their order, a NaN as the largest. UsageError when there are fewer."""
    value = lift(x)
    chosen = one_axis(axis, value.ndim)
    if isinstance(k, Tensor):
        raise misuse("how many elements top_k gives must be a Python number")
    places = _ranked(value, k, chosen, largest)
    return emit(ops.GatherElements(chosen), value, places), places


@eager
def softmax(x: Any, axis: int = -1) -> Any:
    """exp(x) over its sum along ``axis``, the largest taken off first so that nothing
    overflows. The result does not depend on what is taken off, nor does its derivative."""
    value = lift(x)
    power = tnp.exp(value - stopped(tnp.max(value, axis, keepdims=True)))
    return power / tnp.sum(power, axis, keepdims=True)


def norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:
    """Of vectors (orders 1, 2, inf, -inf), and the Frobenius norm of the rest."""
    value = lift(x)
    if not value.type.dtype.is_float:
        value = cast(value, DType.F64)
    vector = value.ndim == 1 or isinstance(axis, int)
    if ord is None or (ord == 2 and vector) or (ord == "fro" and not vector):
        return tnp.sqrt(sum_of(value * value, axis, keepdims=keepdims))
    if not vector or ord not in (1, np.inf, -np.inf):
        raise unsupported(f"numpy.linalg.norm of order {ord} over these axes does not trace")
    size = tnp.abs(value)
    if ord == 1:
        return sum_of(size, axis, keepdims=keepdims)
    return (tnp.max if ord > 0 else tnp.min)(size, axis, keepdims=keepdims)


def trace_of(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    return sum_of(tnp.diagonal(a, offset, axis1, axis2), -1)


def isclose(
    a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Any:
    near = tnp.abs(a - b) <= atol + rtol * tnp.abs(b)
    same = (near & tnp.isfinite(b)) | (a == b)
    return same | (tnp.isnan(a) & tnp.isnan(b)) if equal_nan else same


def allclose(a: Any, b: Any, *options: Any, **named: Any) -> Any:
    return tnp.all(isclose(a, b, *options, **named))


def _without_nan(function: Callable[..., Any], fill: float) -> Callable[..., Any]:
    def counted(a: Any, axis: Any = None, *, keepdims: bool = False) -> Any:
        x = lift(a)
        if x.type.dtype.is_float:
            x = select(unary("isnan", x), constant(fill, x.type.dtype), x)
        return function(x, axis, keepdims=keepdims)

    return counted


FUNCTIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        **{
            each.__name__: each
            for each in (
                *(mean, var, std, ptp, average, count_nonzero, cumsum, cumprod, diff, argsort),
                *(sort, median, isclose, allclose),
            )
        },
        "sum": sum_of,
        "prod": _total("prod"),
        "nansum": _without_nan(sum_of, 0.0),
        "nanprod": _without_nan(_total("prod"), 1.0),
        "max": _extreme("max", "or"),
        "amax": _extreme("max", "or"),
        "min": _extreme("min", "and"),
        "amin": _extreme("min", "and"),
        "all": _logical("and"),
        "any": _logical("or"),
        "argmax": _arg("max"),
        "argmin": _arg("min"),
        "cumulative_sum": cumsum,
        "trace": trace_of,
        "linalg.norm": norm,
        "linalg.vector_norm": lambda x, axis=None, keepdims=False, ord=2: norm(
            x, ord, axis, keepdims
        ),
    }
)
