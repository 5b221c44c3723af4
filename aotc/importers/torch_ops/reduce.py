"""ATen operators that combine many elements (sums, extremes, ranking, softmax, running sums):
Tensors in, numpy's functions on them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from aotc.graph import ops
from aotc.graph.types import DType
from aotc.importers.onnx_rules import onnx_op
from aotc.importers.torch_ops.rule import Lowering, Operands, Rule, Use, rules
from aotc.tracing.core import (
    all_axes,
    cast,
    compare,
    concat,
    constant,
    cut,
    elementwise,
    emit,
    lift,
    one_axis,
    reduce,
    select,
    unary,
)
from aotc.tracing.reductions import sort as sorted_along
from aotc.tracing.reductions import top_k
from aotc.tracing.tensor import Tensor, tnp


def _axes(x: Tensor, dim: Any) -> tuple[int, ...]:
    """ATen's ``dim``: None and an empty list are all axes."""
    if dim is None or (isinstance(dim, Sequence) and not dim):
        return tuple(range(x.ndim))
    return all_axes(dim if isinstance(dim, int) else tuple(dim), x.ndim) if x.ndim else ()


def _reduction(function: Callable[..., Any]) -> Lowering:
    """One of numpy's reductions, over no axis of a number."""

    def rule(use: Use, x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
        return function(x, axis=_axes(x, dim), keepdims=keepdim)

    return rule


def _sum(use: Use, x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    return reduce("sum", cast(x, use.dtype), _axes(x, dim), keepdim)


def _prod(use: Use, x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    return reduce("prod", cast(x, use.dtype), _axes(x, dim), keepdim)


def _truth(fn: str) -> Lowering:
    def rule(use: Use, x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
        return reduce(fn, cast(x, DType.BOOL), _axes(x, dim), keepdim)

    return rule


def _mean(use: Use, x: Tensor, dim: Any = None, keepdim: bool = False) -> Any:
    return tnp.mean(cast(x, use.dtype), axis=_axes(x, dim), keepdims=keepdim)


def _var(
    use: Use, x: Tensor, dim: Any = None, correction: float | None = None, keepdim: bool = False
) -> Any:
    freedom = 1 if correction is None else correction
    return tnp.var(x, axis=_axes(x, dim), ddof=freedom, keepdims=keepdim)


def _var_dim(use: Use, x: Tensor, dim: Any, unbiased: bool, keepdim: bool) -> Any:
    return _var(use, x, dim, int(unbiased), keepdim)


def _var_all(use: Use, x: Tensor, unbiased: bool) -> Any:
    return _var(use, x, None, int(unbiased))


def _var_mean(use: Use, x: Tensor, dim: Any, correction: Any, keepdim: bool) -> Any:
    return _var(use, x, dim, correction, keepdim), _mean(use, x, dim, keepdim)


def _best(fn: str) -> Lowering:
    """The place of the best element, of the whole tensor or along an axis."""

    def rule(use: Use, x: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
        if not x.ndim:
            return constant(0, DType.I64)
        return getattr(tnp, f"arg{fn}")(x, axis=dim, keepdims=keepdim)

    return rule


def _best_with_place(fn: str) -> Lowering:
    """The best element along an axis, and its place."""

    def rule(use: Use, x: Tensor, dim: int, keepdim: bool) -> Any:
        if not x.ndim:
            return x, constant(0, DType.I64)
        value = getattr(tnp, fn)(x, axis=dim, keepdims=keepdim)
        return value, getattr(tnp, f"arg{fn}")(x, axis=dim, keepdims=keepdim)

    return rule


def _softmax(use: Use, x: Tensor, dim: int, half_to_float: bool) -> Any:
    return onnx_op("Softmax", x, axis=dim) if x.ndim else tnp.ones_like(x)


def _log_softmax(use: Use, x: Tensor, dim: int, half_to_float: bool) -> Any:
    return onnx_op("LogSoftmax", x, axis=dim) if x.ndim else tnp.zeros_like(x)


def _logsumexp(use: Use, x: Tensor, dim: Any, keepdim: bool = False) -> Any:
    return onnx_op(
        "ReduceLogSumExp", x, constant(list(_axes(x, dim)), DType.I64), keepdims=int(keepdim)
    )


def _norm(use: Use, x: Tensor, order: float, dim: Any = None, keepdim: bool = False) -> Any:
    axes = _axes(x, dim)
    if order == 2:
        return unary("sqrt", reduce("sum", x * x, axes, keepdim))
    size = unary("abs", x)
    if order in (float("inf"), float("-inf")):
        return reduce("max" if order > 0 else "min", size, axes, keepdim)
    if order == 0:
        return reduce("sum", cast(x != 0, use.dtype), axes, keepdim)
    total = reduce("sum", size if order == 1 else tnp.power(size, order), axes, keepdim)
    return total if order == 1 else tnp.power(total, 1 / order)


def _running(op: Callable[..., Any]) -> Lowering:
    def rule(use: Use, x: Tensor, dim: int) -> Any:
        return op(cast(x, use.dtype), axis=dim, dtype=use.dtype) if x.ndim else x

    return rule


def _sort(use: Use, x: Tensor, *rest: Any) -> Any:
    """``dim, descending``, in the stable form after ``stable``; equal elements stay in order."""
    dim, descending = rest[-2:]
    if not x.ndim:
        return x, constant(0, DType.I64)
    return top_k(x, x.shape[one_axis(dim, x.ndim)], dim, bool(descending))


def _top_k(use: Use, x: Tensor, k: int, dim: int, largest: bool, in_order: bool) -> Any:
    if not x.ndim:
        return x, constant(0, DType.I64)
    return top_k(x, k, dim, largest)


def _median(use: Use, x: Tensor) -> Any:
    """The lower one of two middle elements; NaN if there is any."""
    flat = tnp.ravel(x)
    y = sorted_along(flat, 0)[(flat.size - 1) // 2]
    if not x.type.dtype.is_float:
        return y
    return select(reduce("or", unary("isnan", flat), (0,)), float("nan"), y)


def _nth(use: Use, x: Tensor, k: int, dim: int, keepdim: bool) -> Any:
    """The ``k``-th smallest element along an axis, counted from 1, and its place."""
    if not x.ndim:
        return x, constant(0, DType.I64)
    axis = one_axis(dim, x.ndim)
    values, places = top_k(x, k, axis, largest=False)
    pair = [cut(each, axis, k - 1, 1) for each in (values, places)]
    return pair if keepdim else [tnp.squeeze(each, axis) for each in pair]


def _median_along(use: Use, x: Tensor, dim: int, keepdim: bool) -> Any:
    """The lower one of two middle elements, and its place; the first NaN if there is any."""
    if not x.ndim:
        return x, constant(0, DType.I64)
    value, place = _nth(use, x, (x.shape[dim] + 1) // 2, dim, keepdim)
    if not x.type.dtype.is_float:
        return value, place
    bad = tnp.any(unary("isnan", x), axis=dim, keepdims=keepdim)
    first = tnp.argmax(x, axis=dim, keepdims=keepdim)
    return select(bad, float("nan"), value), select(bad, first, place)


def _running_best(fn: str) -> Lowering:
    """The best element so far along an axis, and the place of the last such one."""

    def rule(use: Use, x: Tensor, dim: int) -> Any:
        if not x.ndim:
            return x, constant(0, DType.I64)
        axis = one_axis(dim, x.ndim)
        place = emit(ops.Iota(x.shape, axis, DType.I64))
        best, reach = x, 1
        while reach < x.shape[axis]:
            count = x.shape[axis] - reach
            now, before = cut(best, axis, reach, count), cut(best, axis, 0, count)
            here, there = cut(place, axis, reach, count), cut(place, axis, 0, count)
            better = compare("gt" if fn == "max" else "lt", before, now)
            if x.type.dtype.is_float:
                better = select(unary("isnan", before), unary("not", unary("isnan", now)), better)
            joined = elementwise(ops.Select(), better, before, now)
            best = concat([cut(best, axis, 0, reach), joined], axis)
            where = elementwise(ops.Select(), better, there, here)
            place = concat([cut(place, axis, 0, reach), where], axis)
            reach *= 2
        return best, place

    return rule


def _places_in_order(
    use: Use, ordered: Tensor, x: Any, right: bool, side: str | None, sorter: Tensor | None
) -> Any:
    """`searchsorted`: how many elements stand before each of ``x``."""
    if sorter is not None:
        ordered = emit(ops.GatherElements(ordered.ndim - 1), ordered, sorter)
    values = lift(x, ordered.type.dtype)
    rows = tnp.expand_dims(ordered, -2) if ordered.ndim > 1 else ordered
    after = "ge" if right or side == "right" else "gt"
    before = compare(after, tnp.expand_dims(values, -1), rows)
    return reduce("sum", cast(before, use.type.dtype), (before.ndim - 1,))


def _bucket(use: Use, x: Any, edges: Tensor, right: bool) -> Any:
    return _places_in_order(use, edges, x, right, None, None)


def _cdist(use: Use, a: Tensor, b: Tensor, p: float, mode: int | None) -> Any:
    apart = tnp.expand_dims(a, -2) - tnp.expand_dims(b, -3)
    return _norm(use, apart, p, (-1,))


def _extreme(fn: str) -> Lowering:
    return _reduction(getattr(tnp, fn))


def _running_sum(x: Tensor, axis: int, dtype: DType) -> Tensor:
    return emit(ops.CumSum(one_axis(axis, x.ndim), False, False), x)


def _running_product(x: Tensor, axis: int, dtype: DType) -> Any:
    return tnp.cumprod(x, axis=axis, dtype=dtype.numpy)


_WIDE: Mapping[str, Lowering] = MappingProxyType(
    {
        "sum": _sum,
        "prod": _prod,
        "mean": _mean,
        "var": _var,
        "var.dim": _var_dim,
        "var.default": _var_all,
        "var_mean.correction": _var_mean,
        "any": _truth("or"),
        "all": _truth("and"),
        "amax": _extreme("max"),
        "amin": _extreme("min"),
        "max.default": _extreme("max"),
        "min.default": _extreme("min"),
        "_softmax": _softmax,
        "_log_softmax": _log_softmax,
        "logsumexp": _logsumexp,
        "linalg_vector_norm": _norm,
        "cumsum": _running(_running_sum),
        "cumprod": _running(_running_product),
        "_cdist_forward": _cdist,
    }
)

_CHOOSING: Mapping[str, Lowering] = MappingProxyType(
    {
        "argmax": _best("max"),
        "argmin": _best("min"),
        "max.dim": _best_with_place("max"),
        "min.dim": _best_with_place("min"),
        "sort": _sort,
        "topk": _top_k,
        "median.default": _median,
        "median.dim": _median_along,
        "kthvalue": _nth,
        "cummax": _running_best("max"),
        "cummin": _running_best("min"),
        "searchsorted": _places_in_order,
        "bucketize": _bucket,
    }
)

RULES: Mapping[str, Rule] = MappingProxyType(
    {**rules(Operands.WIDE, _WIDE), **rules(Operands.GIVEN, _CHOOSING)}
)
"""By the operator's name, with its overload where overloads differ."""
