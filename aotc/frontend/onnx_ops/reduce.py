"""ONNX reductions and rankings: a `Call` goes in, `Reduce` and its relatives come out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.onnx_ops import runtime_shapes
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.extents import either
from aotc.frontend.onnx_ops.runtime import along_axis_operand
from aotc.frontend.onnx_ops.runtime_shapes import over_open_axes
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType

Axes = tuple[int, ...]
Formula = Callable[[Call, Node, Axes, bool], Node]


def _axes(call: Call, since: int) -> Axes | None:
    """The axes to reduce; None when the operator is to do nothing."""
    rank = call[0].type.rank
    if call.version < since:
        given = call.attrs.integers("axes")
    else:
        given = None if call.optional(1) is None else call.known_ints(1, "axes")
    if not given:
        return None if call.attrs.flag("noop_with_empty_axes") else tuple(range(rank))
    return tuple(sorted(call.axes(given, rank)))


def reduction(formula: Formula, since: int = 18) -> Rule:
    """The rule of a reduction whose axes are an attribute before opset ``since``."""

    def rule(call: Call) -> Node:
        keep = call.attrs.flag("keepdims", True)
        if call.version >= since and not call.is_known(1):
            return over_open_axes(call, lambda axes: formula(call, call[0], axes, keep), keep)
        axes = _axes(call, since)
        # with nothing to reduce, the formula still applies to single elements
        return formula(call, call[0], axes or (), keep)

    return rule


def plain(fn: str) -> Formula:
    """One `Reduce`; on bool, max and min are or and and."""

    def formula(call: Call, x: Node, axes: Axes, keep: bool) -> Node:
        chosen = {"max": "or", "min": "and"}.get(fn, fn) if x.type.dtype is DType.BOOL else fn
        if chosen in ("max", "min") and any(x.shape[axis] == 0 for axis in axes):
            dims = enumerate(x.shape)
            kept = [1 if at in axes else size for at, size in dims if keep or at not in axes]
            worst = call.constant(_worst(chosen, x.type.dtype))
            return call.broadcast(worst, kept)
        return call.reduce(chosen, x, axes, keep)

    return formula


def _worst(fn: str, dtype: DType) -> np.ndarray:
    """What a maximum or minimum of nothing is."""
    if dtype.is_float:
        return np.asarray(-np.inf if fn == "max" else np.inf, dtype=dtype.numpy)
    info = np.iinfo(dtype.numpy)
    return np.asarray(info.min if fn == "max" else info.max, dtype=dtype.numpy)


def mean(call: Call, x: Node, axes: Axes, keep: bool) -> Node:
    """Sum over count."""
    if x.type.dtype.is_float:
        return call.mean(x, axes, keep)
    count = math.prod(x.shape[axis] for axis in axes)
    return call.binary("div", call.reduce("sum", x, axes, keep), count)


def sum_square(call: Call, x: Node, axes: Axes, keep: bool) -> Node:
    """Sum of squares."""
    return call.reduce("sum", call.binary("mul", x, x), axes, keep)


def l1(call: Call, x: Node, axes: Axes, keep: bool) -> Node:
    """Sum of magnitudes."""
    return call.reduce("sum", call.unary("abs", x), axes, keep)


def _through_float(call: Call, x: Node, fn: str) -> Node:
    """A float function of numbers of any type."""
    if x.type.dtype.is_float:
        return call.unary(fn, x)
    return call.cast(call.unary(fn, call.cast(x, DType.F64)), x.type.dtype)


def l2(call: Call, x: Node, axes: Axes, keep: bool) -> Node:
    """Root of the sum of squares."""
    return _through_float(call, sum_square(call, x, axes, keep), "sqrt")


def log_sum(call: Call, x: Node, axes: Axes, keep: bool) -> Node:
    """Logarithm of the sum."""
    return _through_float(call, call.reduce("sum", x, axes, keep), "log")


def log_sum_exp(call: Call, x: Node, axes: Axes, keep: bool) -> Node:
    """``log(sum(exp(x)))`` as ``max + log(sum(exp(x - max)))``."""
    dtype = x.type.dtype
    wide = x if dtype.is_float else call.cast(x, DType.F64)
    if any(x.shape[axis] == 0 for axis in axes):
        return call.cast(log_sum(call, call.unary("exp", wide), axes, keep), dtype)
    top = call.reduce("max", wide, axes)
    # an infinite maximum would give inf - inf; 0 in its place gives the right infinity
    top = call.select(call.unary("isinf", top), call.scalar(0.0, top), top)
    total = call.reduce("sum", call.unary("exp", call.binary("sub", wide, top)), axes)
    result = call.binary("add", call.unary("log", total), top)
    kept = [size for axis, size in enumerate(result.shape) if keep or axis not in axes]
    return call.cast(call.reshape(result, kept), dtype)


def arg_reduce(fn: str) -> Rule:
    """The index of the largest or smallest element along ``axis``."""

    def rule(call: Call) -> Node:
        x = call[0]
        axis = call.axis(call.attrs.integer("axis", 0), x.type.rank)
        found = call.apply(ops.ArgReduce(fn, axis, call.attrs.flag("select_last_index")), x)
        if not call.attrs.flag("keepdims", True):
            return found
        return call.reshape(found, [1 if at == axis else n for at, n in enumerate(x.shape)])

    return rule


def top_k(call: Call) -> Sequence[Node]:
    """The k largest or smallest elements along ``axis``, best first, and their places."""
    x = call[0]
    axis = call.axis(call.attrs.integer("axis", -1), x.type.rank)
    k = call.attrs.integer("k") if call.version < 10 else call.known_int(1, "count k")
    if not 0 <= k <= x.shape[axis]:
        raise ModelError(f"cannot take {k} of the {x.shape[axis]} elements of axis {axis}")
    places = call.apply(ops.TopK(k, axis, call.attrs.flag("largest", True)), x)
    return [call.apply(ops.GatherElements(axis), x, places), places]


def running(formula: Callable[[Call, Node, int], Node]) -> Rule:
    """The rule of a running sum or product along the axis in input 1."""

    def rule(call: Call) -> Node:
        x = call[0]
        rank = x.type.rank
        if rank == 0:
            raise ModelError("needs at least one axis, got a scalar")
        return along_axis_operand(call, 1, range(rank), rank, lambda at: formula(call, x, at))

    return rule


def cum_sum(call: Call, x: Node, axis: int) -> Node:
    """Running sum."""
    exclusive, reverse = call.attrs.flag("exclusive"), call.attrs.flag("reverse")
    return call.apply(ops.CumSum(axis, exclusive, reverse), x)


def cum_prod(call: Call, x: Node, axis: int) -> Node:
    """Running product by doubling: after step k each element is the product of 2^k elements up to
    its own."""
    reverse, size = call.attrs.flag("reverse"), x.shape[axis]
    if call.attrs.flag("exclusive"):
        x = _delayed(call, x, axis, 1, reverse)
    reach = 1
    while reach < size:
        x = call.binary("mul", x, _delayed(call, x, axis, reach, reverse))
        reach *= 2
    return x


def _delayed(call: Call, x: Node, axis: int, count: int, reverse: bool) -> Node:
    """``count`` ones, then the elements of ``axis`` but the last ``count``; mirrored when
    ``reverse``."""
    size = x.shape[axis]
    if count >= size:
        return call.broadcast(call.scalar(1, x), x.shape)
    kept = call.slice_axis(x, axis, count if reverse else 0, size - count)
    added = [count if at == axis else 0 for at in range(x.type.rank)]
    none = [0] * x.type.rank
    return call.pad(kept, none, added, 1.0) if reverse else call.pad(kept, added, none, 1.0)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "ArgMax": arg_reduce("max"),
        "ArgMin": arg_reduce("min"),
        "CumProd": running(cum_prod),
        "CumSum": running(cum_sum),
        "ReduceL1": reduction(l1),
        "ReduceL2": reduction(l2),
        "ReduceLogSum": reduction(log_sum),
        "ReduceLogSumExp": reduction(log_sum_exp),
        "ReduceMax": reduction(plain("max")),
        "ReduceMean": reduction(mean),
        "ReduceMin": reduction(plain("min")),
        "ReduceProd": reduction(plain("prod")),
        "ReduceSum": reduction(plain("sum"), since=13),
        "ReduceSumSquare": reduction(sum_square),
        "TopK": either(top_k, runtime_shapes.top_k, 1),
    }
)
