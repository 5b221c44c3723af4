"""JAX's gather and scatter with their dimension numbers: Tensors in, gathers and scatters of the
graph out.

An index addresses some axes of the operand and stands for a window of ``slice_sizes`` from there;
the formulas are those of XLA's operation semantics (openxla.org/xla/operation_semantics).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from aotc.graph import ops
from aotc.graph.types import DType
from aotc.importers.jax_ops.elementwise import Lowering
from aotc.importers.use import Use
from aotc.tracing.core import (
    binary,
    broadcast,
    cast,
    compare,
    concat,
    constant,
    cut,
    emit,
    gather,
    known,
    lift,
    reshape,
    select,
    transpose,
)
from aotc.tracing.tensor import Tensor, tnp


def _mode(mode: Any) -> str:
    """What happens to an index outside: clip, fill_or_drop, or a promise that there is none."""
    return str(getattr(mode, "name", mode)).lower()


def _starts(
    x: Tensor,
    indices: Tensor,
    axes: Sequence[int],
    batching: Mapping[int, int],
    places: Sequence[int],
) -> list[Tensor]:
    """Where the window begins on each of ``axes``, [*batch] int64: by an index, by the place in a
    batch, or at 0."""
    batch = indices.shape[:-1]
    found = []
    for axis in axes:
        if axis in batching:
            column = np.arange(batch[batching[axis]])
            shape = [1] * len(batch)
            shape[batching[axis]] = column.size
            found.append(constant(np.broadcast_to(column.reshape(shape), batch)))
        elif axis in places:
            one = cut(indices, len(batch), places.index(axis), 1)
            found.append(cast(reshape(one, batch), DType.I64))
        else:
            found.append(constant(np.zeros(batch, np.int64)))
    return found


def _inside(
    x: Tensor, starts: Sequence[Tensor], axes: Sequence[int], sizes: Sequence[int]
) -> Tensor | None:
    """Whether the whole window lies in the operand, [*batch]; None when it always does."""
    result: Tensor | None = None
    for start, axis in zip(starts, axes, strict=True):
        last, numbers = x.shape[axis] - sizes[axis], known(start)
        if numbers is not None and ((numbers >= 0) & (numbers <= last)).all():
            continue
        here = binary("and", compare("ge", start, 0), compare("le", start, last))
        result = here if result is None else binary("and", result, here)
    return result


def _clipped(
    x: Tensor, starts: Sequence[Tensor], axes: Sequence[int], sizes: Sequence[int]
) -> list[Any]:
    """The starts held to where the whole window lies in the operand."""
    return [
        tnp.clip(start, 0, x.shape[axis] - sizes[axis])
        for start, axis in zip(starts, axes, strict=True)
    ]


def _grid(starts: Sequence[Any], axes: Sequence[int], sizes: Sequence[int]) -> Tensor:
    """The index of each element of each window, [*batch, *window, axes]."""
    batch, window = starts[0].shape, tuple(sizes[axis] for axis in axes)
    columns = []
    for place, (start, axis) in enumerate(zip(starts, axes, strict=True)):
        column = np.arange(sizes[axis]).reshape((-1,) + (1,) * (len(axes) - place - 1))
        wide = reshape(lift(start), (*batch, *(1,) * len(axes)))
        columns.append(broadcast(wide + column, (*batch, *window)))
    numbers = [known(column) for column in columns]
    if all(each is not None for each in numbers):
        return constant(np.stack([np.asarray(each) for each in numbers], axis=-1))
    stacked: Tensor = tnp.stack(columns, axis=-1)
    return stacked


def _gather(
    use: Use,
    x: Tensor,
    indices: Tensor,
    dimension_numbers: Any,
    slice_sizes: Sequence[int],
    mode: Any = None,
    fill_value: Any = None,
    **ignored: Any,
) -> Any:
    numbers, sizes = dimension_numbers, tuple(slice_sizes)
    batching = dict(zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims,
                        strict=True))  # fmt: skip
    places = list(numbers.start_index_map)
    axes = sorted({*batching, *places})
    for axis in range(x.ndim):
        if axis not in axes:
            x = cut(x, axis, 0, sizes[axis])
    batch = indices.shape[:-1]
    if not use.type.elems:
        return broadcast(constant(0, use.type.dtype), use.dims)
    y, inside = x, None
    if axes:
        starts = _starts(x, indices, axes, batching, places)
        fills = "fill" in _mode(mode)
        inside = _inside(x, starts, axes, sizes) if fills else None
        y = _windows(x, _clipped(x, starts, axes, sizes), axes, sizes)
    else:
        y = broadcast(reshape(x, (*(1,) * len(batch), *x.shape)), (*batch, *x.shape))
    gone = {*numbers.collapsed_slice_dims, *batching}
    y = reshape(y, (*batch, *(sizes[axis] for axis in range(x.ndim) if axis not in gone)))
    if inside is not None:
        mask = reshape(inside, (*batch, *(1,) * (y.ndim - len(batch))))
        y = select(mask, y, _fill(y.type.dtype, fill_value))
    return _arranged(y, numbers.offset_dims, len(batch))


def _windows(
    x: Tensor, starts: Sequence[Any], axes: Sequence[int], sizes: Sequence[int]
) -> Tensor:
    """The windows of ``x``, [*batch, *sizes]."""
    batch = starts[0].shape
    rest = [axis for axis in range(x.ndim) if axis not in axes]
    if len(axes) == 1 and sizes[axes[0]] == 1:  # whole rows along one axis
        (axis,) = axes
        y = gather(x, starts[0], axis)
        moved = [*range(axis, axis + len(batch)), *range(axis),
                 *range(axis + len(batch), y.ndim)]  # fmt: skip
        shape = [*batch, *x.shape[:axis], 1, *x.shape[axis + 1 :]]
        return reshape(transpose(y, moved), shape)
    y = emit(ops.GatherND(0), transpose(x, (*axes, *rest)), _grid(starts, axes, sizes))
    first, second = len(batch), len(batch) + len(axes)
    order = [
        first + axes.index(axis) if axis in axes else second + rest.index(axis)
        for axis in range(x.ndim)
    ]
    return transpose(y, (*range(first), *order))


def _arranged(y: Tensor, offsets: Sequence[int], batch: int) -> Tensor:
    """[*batch, *window] with the axes of the window at ``offsets`` of the result."""
    others = iter(range(batch))
    order = [
        batch + offsets.index(axis) if axis in offsets else next(others) for axis in range(y.ndim)
    ]
    return transpose(y, order)


def _fill(dtype: DType, value: Any) -> Any:
    """What JAX gives for an index outside."""
    if value is not None:
        return value
    if dtype.is_float:
        return np.nan
    return dtype.int_range[0] if dtype.is_signed else dtype.int_range[1]


_NEUTRAL: Mapping[str, Callable[[DType], float]] = MappingProxyType(
    {
        "add": lambda dtype: 0,
        "mul": lambda dtype: 1,
        "min": lambda dtype: np.inf if dtype.is_float else dtype.int_range[1],
        "max": lambda dtype: -np.inf if dtype.is_float else dtype.int_range[0],
    }
)
"""What changes nothing."""


def _scatter(fn: str, negate: bool = False) -> Lowering:
    def rule(
        use: Use, x: Tensor, indices: Tensor, updates: Tensor, dimension_numbers: Any,
        mode: Any = None, **ignored: Any,
    ) -> Tensor:
        if not updates.size:
            return x
        y = tnp.negative(updates) if negate else updates
        if x.type.dtype is DType.BOOL and fn != "set":
            wide = _scattered(fn, cast(x, DType.U8), indices, cast(y, DType.U8), dimension_numbers,
                              mode)  # fmt: skip
            return cast(wide, DType.BOOL)
        return _scattered(fn, x, indices, y, dimension_numbers, mode)

    return rule


def _scattered(
    fn: str, x: Tensor, indices: Tensor, updates: Tensor, numbers: Any, mode: Any
) -> Tensor:
    batching = dict(zip(numbers.operand_batching_dims, numbers.scatter_indices_batching_dims,
                        strict=True))  # fmt: skip
    gone = {*numbers.inserted_window_dims, *batching}
    kept = iter(numbers.update_window_dims)
    sizes = [1 if axis in gone else updates.shape[next(kept)] for axis in range(x.ndim)]
    places = list(numbers.scatter_dims_to_operand_dims)
    axes = [
        axis for axis in range(x.ndim)
        if axis in batching or axis in places or sizes[axis] != x.shape[axis]
    ]  # fmt: skip
    rest = [axis for axis in range(x.ndim) if axis not in axes]
    batch = indices.shape[:-1]
    outer = [axis for axis in range(updates.ndim) if axis not in numbers.update_window_dims]
    values = transpose(updates, (*outer, *numbers.update_window_dims))
    values = reshape(values, (*batch, *sizes))
    first = len(batch)
    values = transpose(values, (*range(first), *(first + axis for axis in (*axes, *rest))))
    if not axes:  # every update covers the operand: one after the other at the same place
        x, axes, rest = reshape(x, (1, *x.shape)), [0], list(range(1, x.ndim + 1))
        starts: list[Tensor] = [constant(np.zeros(batch, np.int64))]
        values = reshape(values, (*batch, 1, *values.shape[first:]))
        sizes = [1, *sizes]
        return reshape(_put(fn, x, starts, axes, rest, sizes, values, None), x.shape[1:])
    starts = _starts(x, indices, axes, batching, places)
    drops = "drop" in _mode(mode)
    inside = _inside(x, starts, axes, sizes) if drops else None
    starts = _clipped(x, starts, axes, sizes)
    return _put(fn, x, starts, axes, rest, sizes, values, inside)


def _put(
    fn: str, x: Tensor, starts: Sequence[Any], axes: Sequence[int], rest: Sequence[int],
    sizes: Sequence[int], values: Tensor, inside: Tensor | None,
) -> Tensor:
    """Windows of ``values`` combined with ``x``; those that are not ``inside`` change nothing."""
    order = (*axes, *rest)
    target, index = transpose(x, order), _grid(starts, axes, sizes)
    spare = inside is not None and fn == "set"
    if inside is not None:
        mask = reshape(inside, (*inside.shape, *(1,) * (values.ndim - inside.ndim)))
        if spare:  # they go to a row of their own, which is cut off again
            row = broadcast(constant(0, x.type.dtype), (1, *target.shape[1:]))
            target = concat([target, row], 0)
            outside = constant([target.shape[0] - 1, *[0] * (len(axes) - 1)], DType.I64)
            wide = reshape(inside, (*inside.shape, *(1,) * (index.ndim - inside.ndim)))
            index = select(wide, index, outside)
        else:
            values = select(mask, values, _NEUTRAL[fn](x.type.dtype))
    y = emit(ops.ScatterND(fn), target, index, values)
    y = cut(y, 0, 0, y.shape[0] - 1) if spare else y
    return transpose(y, np.argsort(order).tolist())


def _argument(fn: str) -> Lowering:
    def rule(use: Use, x: Tensor, axes: Sequence[int], **ignored: Any) -> Any:
        numbers = cast(x, DType.U8) if x.type.dtype is DType.BOOL else x
        return emit(ops.ArgReduce(fn, axes[0], False), numbers)

    return rule


RULES: Mapping[str, Lowering] = MappingProxyType(
    {
        "gather": _gather,
        "scatter": _scatter("set"),
        "scatter-add": _scatter("add"),
        "scatter_add": _scatter("add"),
        "scatter-sub": _scatter("add", negate=True),
        "scatter-mul": _scatter("mul"),
        "scatter_mul": _scatter("mul"),
        "scatter-min": _scatter("min"),
        "scatter_min": _scatter("min"),
        "scatter-max": _scatter("max"),
        "scatter_max": _scatter("max"),
        "argmax": _argument("max"),
        "argmin": _argument("min"),
    }
)
