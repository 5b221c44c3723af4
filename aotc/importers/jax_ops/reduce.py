"""Primitives of JAX that combine many elements (sums, windows, running sums, ranking): Tensors in,
primitives of the graph out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from aotc.errors import UnsupportedError
from aotc.graph import ops
from aotc.graph.types import DType
from aotc.importers.jax_ops.elementwise import Lowering
from aotc.importers.jax_ops.movement import padded, spread
from aotc.importers.use import Use
from aotc.tracing.core import (
    binary,
    broadcast,
    cast,
    compare,
    concat,
    constant,
    cut,
    elementwise,
    emit,
    reduce,
    select,
    unary,
)
from aotc.tracing.reductions import top_k
from aotc.tracing.tensor import Tensor, tnp

MOST_TAPS = 128
"""A window with more elements than this is not looked at element by element."""


def _reduce(fn: str, on_bool: str = "") -> Lowering:
    def rule(use: Use, x: Tensor, axes: Sequence[int], **ignored: Any) -> Tensor:
        name = on_bool if on_bool and x.type.dtype is DType.BOOL else fn
        return reduce(name, x, tuple(axes))

    return rule


# Sliding windows.


def _lowest(dtype: DType) -> float:
    return -math.inf if dtype.is_float else dtype.int_range[0]


def _slide(
    fn: str,
    x: Tensor,
    window_dimensions: Sequence[int],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    base_dilation: Sequence[int],
    window_dilation: Sequence[int],
) -> Tensor:
    fill = 0 if fn == "sum" else _lowest(x.type.dtype)
    config = [(min(low, 0), min(high, 0), gap - 1)
              for (low, high), gap in zip(padding, base_dilation, strict=True)]  # fmt: skip
    inner = padded(x, config, fill)
    low, high = ([max(side, 0) for side in sides] for sides in zip(*padding, strict=True))
    return emit(
        ops.ReduceWindow(
            fn,
            tuple(window_dimensions),
            tuple(window_strides),
            tuple(low),
            tuple(high),
            tuple(window_dilation),
        ),
        inner,
    )


def _window(fn: str) -> Lowering:
    def rule(use: Use, x: Tensor, **window: Any) -> Tensor:
        if not x.ndim:
            return x
        if fn != "min":
            return _slide(fn, x, **window)
        # the least is the largest, mirrored: exact for floats, and for integers bit by bit
        mirror = "neg" if x.type.dtype.is_float else "bitnot"
        return unary(mirror, _slide("max", unary(mirror, x), **window))

    return rule


def _select_and_scatter_add(
    use: Use,
    source: Tensor,
    x: Tensor,
    select_prim: Any,
    window_dimensions: Sequence[int],
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **ignored: Any,
) -> Any:
    """What a sliding extreme hands back: each element of ``source`` goes to the first best one of
    its window."""
    if math.prod(window_dimensions) > MOST_TAPS:
        raise UnsupportedError(f"the gradient of a window of {tuple(window_dimensions)} elements")
    largest = str(select_prim) == "ge"
    worst = _lowest(x.type.dtype) if largest else -_lowest(x.type.dtype)
    wide = tnp.pad(x, list(padding), constant_values=worst)
    inside = tnp.pad(broadcast(constant(True), x.shape), list(padding), constant_values=False)
    taps = list(itertools.product(*map(range, window_dimensions)))
    best: Any = None
    chosen: Any = None
    for place, tap in enumerate(taps):
        here, valid = (_tap(v, tap, source.shape, window_strides) for v in (wide, inside))
        if best is None:
            best, chosen = here, select(valid, constant(place, DType.I32), -1)
            continue
        better = binary("or", compare("gt" if largest else "lt", here, best),
                        binary("and", compare("lt", chosen, 0), valid))  # fmt: skip
        best = elementwise(ops.Select(), better, here, best)
        chosen = select(better, place, chosen)
    total: Any = None
    for place, tap in enumerate(taps):
        part = select(compare("eq", chosen, place), source, 0)
        part = _placed(part, tap, wide.shape, window_strides)
        total = part if total is None else total + part
    for axis, (low, _) in enumerate(padding):
        total = cut(total, axis, low, x.shape[axis])
    return total


def _tap(x: Tensor, tap: Sequence[int], shape: Sequence[int], strides: Sequence[int]) -> Tensor:
    """The element at ``tap`` of every window."""
    for axis, (at, count, step) in enumerate(zip(tap, shape, strides, strict=True)):
        x = cut(x, axis, at, count, step)
    return x


def _placed(x: Tensor, tap: Sequence[int], shape: Sequence[int], strides: Sequence[int]) -> Any:
    """The reverse of `_tap`, zero elsewhere."""
    sides = []
    for axis, (at, size, step) in enumerate(zip(tap, shape, strides, strict=True)):
        x = spread(x, axis, step - 1, 0)
        sides.append((at, size - at - x.shape[axis]))
    return tnp.pad(x, sides)


# Along one axis.


def _cumsum(use: Use, x: Tensor, axis: int, reverse: bool) -> Tensor:
    return emit(ops.CumSum(axis, False, reverse), x)


def _running(combine: Callable[[Tensor, Tensor], Any]) -> Lowering:
    """By doubling: in each round an element takes in twice as many."""

    def rule(use: Use, x: Tensor, axis: int, reverse: bool) -> Any:
        y, size, reach = tnp.flip(x, axis) if reverse else x, x.shape[axis], 1
        while reach < size:
            later = combine(cut(y, axis, reach, size - reach), cut(y, axis, 0, size - reach))
            y, reach = concat([cut(y, axis, 0, reach), later], axis), 2 * reach
        return tnp.flip(y, axis) if reverse else y

    return rule


def _sort(
    use: Use, *operands: Tensor, dimension: int, num_keys: int, **ignored: Any
) -> list[Tensor]:
    """All operands in the order of the first ``num_keys``, the last of these first; stable."""
    values = list(operands)
    for key in reversed(range(num_keys)):
        count = values[key].shape[dimension]
        _, places = top_k(_numbers(values[key]), count, dimension, largest=False)
        values = [emit(ops.GatherElements(dimension), value, places) for value in values]
    return values


def _numbers(x: Tensor) -> Tensor:
    return cast(x, DType.U8) if x.type.dtype is DType.BOOL else x


def _top_k(use: Use, x: Tensor, k: int, axis: int = -1, **ignored: Any) -> Any:
    return top_k(x, k, axis)


def _about_top_k(
    use: Use, x: Tensor, k: int, reduction_dimension: int, is_max_k: bool, **ignored: Any
) -> Any:
    """The exact ones."""
    return top_k(x, k, reduction_dimension, is_max_k)


RULES: Mapping[str, Lowering] = MappingProxyType(
    {
        "reduce_sum": _reduce("sum"),
        "reduce_prod": _reduce("prod"),
        "reduce_max": _reduce("max", "or"),
        "reduce_min": _reduce("min", "and"),
        "reduce_and": _reduce("and"),
        "reduce_or": _reduce("or"),
        "reduce_window_sum": _window("sum"),
        "reduce_window_max": _window("max"),
        "reduce_window_min": _window("min"),
        "select_and_scatter_add": _select_and_scatter_add,
        "cumsum": _cumsum,
        "cumprod": _running(lambda later, earlier: later * earlier),
        "cummax": _running(tnp.maximum),
        "cummin": _running(tnp.minimum),
        "cumlogsumexp": _running(tnp.logaddexp),
        "sort": _sort,
        "top_k": _top_k,
        "approx_top_k": _about_top_k,
    }
)
