"""numpy's functions that move, join or choose elements: Tensors in, Tensors out.

The parameters are numpy's; sizes, axes and counts are Python numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
    common_type,
    concat,
    constant,
    cut,
    described,
    emit,
    gather,
    joint_shape,
    known,
    lift,
    one_axis,
    select,
    unary,
)
from aotc.tracing.core import reshape as to_shape
from aotc.tracing.core import transpose as permuted
from aotc.tracing.indexing import wrapped
from aotc.tracing.places import misuse, unsupported
from aotc.tracing.spec import element_type
from aotc.tracing.tensor import Tensor, tnp


def reshape(a: Any, shape: Any, order: str = "C") -> Tensor:
    """At most one size may be -1."""
    x = lift(a)
    if order not in ("C", "A"):
        raise unsupported(f"reshape in order {order!r} does not trace", "transpose first")
    sizes = [int(size) for size in (shape if isinstance(shape, tuple | list) else (shape,))]
    if sizes.count(-1) == 1:
        rest = int(np.prod([size for size in sizes if size != -1], dtype=np.int64))
        if rest == 0 or x.size % rest:
            raise misuse(f"{x.type} does not reshape to {tuple(sizes)}")
        sizes[sizes.index(-1)] = x.size // rest
    return to_shape(x, sizes)


def ravel(a: Any, order: str = "C") -> Tensor:
    return reshape(a, -1 if lift(a).size else (0,), order)


def transpose(a: Any, axes: Any = None) -> Tensor:
    x = lift(a)
    if axes is None:
        return permuted(x, tuple(reversed(range(x.ndim))))
    order = all_axes(axes, x.ndim)
    if len(order) != x.ndim:
        raise misuse(f"{tuple(axes)} does not order the axes of {x.type}")
    return permuted(x, order)


def moveaxis(a: Any, source: Any, destination: Any) -> Tensor:
    x = lift(a)
    froms, to = all_axes(source, x.ndim), all_axes(destination, x.ndim)
    order = [axis for axis in range(x.ndim) if axis not in froms]
    for place, axis in sorted(zip(to, froms, strict=True)):
        order.insert(place, axis)
    return permuted(x, order)


def swapaxes(a: Any, axis1: int, axis2: int) -> Tensor:
    x = lift(a)
    order = list(range(x.ndim))
    i, j = one_axis(axis1, x.ndim), one_axis(axis2, x.ndim)
    order[i], order[j] = order[j], order[i]
    return permuted(x, order)


def expand_dims(a: Any, axis: Any) -> Tensor:
    x = lift(a)
    count = len(axis) if isinstance(axis, tuple | list) else 1
    places = all_axes(axis, x.ndim + count)
    sizes = iter(x.shape)
    return to_shape(x, [1 if i in places else next(sizes) for i in range(x.ndim + count)])


def squeeze(a: Any, axis: Any = None) -> Tensor:
    x = lift(a)
    ones = tuple(i for i, size in enumerate(x.shape) if size == 1)
    axes = ones if axis_of(axis, x) is None else all_axes(axis, x.ndim)
    if not set(axes) <= set(ones):
        raise misuse(f"an axis of {x.type} to squeeze is not of size 1")
    return to_shape(x, [size for i, size in enumerate(x.shape) if i not in axes])


def broadcast_to(array: Any, shape: Any) -> Tensor:
    return broadcast(lift(array), shape if isinstance(shape, tuple | list) else (shape,))


def broadcast_arrays(*args: Any) -> tuple[Tensor, ...]:
    values = [lift(value) for value in args]
    shape = joint_shape("numpy.broadcast_arrays", values)
    return tuple(broadcast(value, shape) for value in values)


def _at_least(rank: int) -> Callable[..., Any]:
    def function(*arys: Any) -> Any:
        shaped = []
        for value in map(lift, arys):
            shape = value.shape
            if len(shape) < rank:
                shape = np.empty(shape, "b")[(None,) * (rank - len(shape))].shape
            if rank == 3 and value.ndim in (1, 2):
                shape = (1, *value.shape, 1)[-3:] if value.ndim == 2 else (1, *value.shape, 1)
            shaped.append(to_shape(value, shape))
        return shaped[0] if len(shaped) == 1 else tuple(shaped)

    return function


def _joined(values: Any) -> list[Tensor]:
    """Operands of one element type."""
    items = list(values)
    if not items:
        raise misuse("there is nothing to join")
    dtype = common_type(*(item if isinstance(item, Tensor) else np.asarray(item) for item in items))
    return [lift(item, dtype) for item in items]


def concatenate(arrays: Any, axis: int | None = 0, dtype: Any = None) -> Tensor:
    parts = _joined(arrays)
    if axis is None:
        parts, axis = [ravel(part) for part in parts], 0
    if dtype is not None:
        parts = [cast(part, dtype) for part in parts]
    return concat(parts, one_axis(axis, parts[0].ndim))


def stack(arrays: Any, axis: int = 0, dtype: Any = None) -> Tensor:
    parts = _joined(arrays)
    if len({part.shape for part in parts}) > 1:
        shown = ", ".join(str(part.type) for part in parts[:8])
        raise misuse(f"only tensors of one shape stack: {shown}")
    return concatenate([expand_dims(part, axis) for part in parts], axis, dtype)


def vstack(tup: Any, dtype: Any = None) -> Tensor:
    return concatenate([_at_least(2)(part) for part in tup], 0, dtype)


def hstack(tup: Any, dtype: Any = None) -> Tensor:
    parts = [_at_least(1)(part) for part in tup]
    return concatenate(parts, 0 if parts[0].ndim == 1 else 1, dtype)


def dstack(tup: Any) -> Tensor:
    return concatenate([_at_least(3)(part) for part in tup], 2)


def column_stack(tup: Any) -> Tensor:
    parts = [lift(part) for part in tup]
    return concatenate([x if x.ndim > 1 else to_shape(x, (x.size, 1)) for x in parts], 1)


def split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Tensor]:
    x, count = lift(ary), indices_or_sections
    size = x.shape[one_axis(axis, x.ndim)]
    if isinstance(count, int | np.integer) and size % count:
        raise misuse(f"axis {axis} of {x.type} does not split into {count} equal parts")
    return array_split(x, count, axis)


def array_split(ary: Any, indices_or_sections: Any, axis: int = 0) -> list[Tensor]:
    x = lift(ary)
    chosen = one_axis(axis, x.ndim)
    places = np.array_split(np.arange(x.shape[chosen]), indices_or_sections)
    return [
        cut(x, chosen, int(place[0]) if place.size else 0, place.size) for place in places
    ]


def _split_along(axis: int) -> Callable[..., list[Tensor]]:
    def function(ary: Any, indices_or_sections: Any) -> list[Tensor]:
        x = lift(ary)
        return split(x, indices_or_sections, 0 if axis == 1 and x.ndim == 1 else axis)

    return function


def flip(m: Any, axis: Any = None) -> Tensor:
    x = lift(m)
    for each in all_axes(axis, x.ndim):
        if x.shape[each] > 1:
            x = cut(x, each, x.shape[each] - 1, x.shape[each], -1)
    return x


def roll(a: Any, shift: Any, axis: Any = None) -> Tensor:
    x = lift(a)
    if axis is None:
        return to_shape(roll(ravel(x), shift, 0), x.shape)
    for by, each in np.broadcast(np.asarray(shift), np.asarray(all_axes(axis, x.ndim))):
        size, at = x.shape[each], int(each)
        by = int(by) % size if size else 0
        if by:
            x = concat([cut(x, at, size - by, by), cut(x, at, 0, size - by)], at)
    return x


def rot90(m: Any, k: int = 1, axes: Any = (0, 1)) -> Tensor:
    x = lift(m)
    a, b = all_axes(axes, x.ndim)
    if k % 4 == 2:
        return flip(x, (a, b))
    if k % 4 == 1:
        return swapaxes(flip(x, b), a, b)
    return flip(swapaxes(x, a, b), b) if k % 4 else x


def repeat(a: Any, repeats: Any, axis: int | None = None) -> Tensor:
    x = lift(a)
    if axis_of(axis, x) is None:
        x, axis = ravel(x), 0
    chosen = one_axis(axis, x.ndim)
    counts = known(repeats)
    if counts is None:
        raise unsupported("np.repeat with counts known at run time gives an unknown size")
    if counts.ndim == 0:
        wide = expand_dims(x, chosen + 1)
        shape = (*x.shape[: chosen + 1], int(counts), *x.shape[chosen + 1 :])
        joined = (*x.shape[:chosen], x.shape[chosen] * int(counts), *x.shape[chosen + 1 :])
        return to_shape(broadcast(wide, shape), joined)
    return gather(x, np.repeat(np.arange(x.shape[chosen]), counts), chosen)


def tile(A: Any, reps: Any) -> Tensor:
    x = lift(A)
    counts = [int(count) for count in (reps if isinstance(reps, tuple | list) else (reps,))]
    rank = max(x.ndim, len(counts))
    counts = [1] * (rank - len(counts)) + counts
    sizes = [1] * (rank - x.ndim) + list(x.shape)
    alone = [each for size in sizes for each in (1, size)]
    wide = [each for pair in zip(counts, sizes, strict=True) for each in pair]
    joined = [count * size for count, size in zip(counts, sizes, strict=True)]
    return to_shape(broadcast(to_shape(x, alone), wide), joined)


def pad(array: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Tensor:
    """Modes constant (one value), edge, reflect, symmetric and wrap."""
    x = lift(array)
    if isinstance(pad_width, dict):
        pad_width = [pad_width.get(i, pad_width.get(i - x.ndim, 0)) for i in range(x.ndim)]
        pad_width = [each if isinstance(each, tuple | list) else (each, each) for each in pad_width]
    sides = [(int(low), int(high)) for low, high in np.broadcast_to(pad_width, (x.ndim, 2))]
    if mode == "constant":
        value = known(constant_values)
        if value is None or value.size != 1:
            raise unsupported("np.pad takes one constant, known while tracing")
        if not any(map(any, sides)):
            return x
        fill = value.reshape(()).astype(x.dtype).item()
        low, high = zip(*sides, strict=True)
        if x.type.dtype is DType.BOOL:
            return cast(emit(ops.Pad(low, high, int(fill)), cast(x, DType.U8)), DType.BOOL)
        return emit(ops.Pad(low, high, fill), x)
    if mode not in ("edge", "reflect", "symmetric", "wrap"):
        raise unsupported(f"np.pad in mode {mode!r} does not trace")
    for axis, side in enumerate(sides):
        if any(side):
            places = tnp.pad(np.arange(x.shape[axis]), side, mode=mode)
            x = gather(x, places, axis)
    return x


def take(a: Any, indices: Any, axis: int | None = None, mode: str = "raise") -> Tensor:
    """Indices known while tracing must lie in the axis; others are held to its ends."""
    x = lift(a)
    if axis_of(axis, x) is None:
        x, axis = ravel(x), 0
    chosen = one_axis(axis, x.ndim)
    return gather(x, wrapped(indices, x, chosen, mode), chosen)


def take_along_axis(arr: Any, indices: Any, axis: int | None = -1) -> Tensor:
    x, places = lift(arr), lift(indices)
    if axis is None:
        x, axis = ravel(x), 0
    chosen = one_axis(axis, x.ndim)
    if places.ndim != x.ndim:
        raise misuse(f"numpy.take_along_axis: {described((x, places))} differ in rank")
    sizes = [
        tuple(1 if i == chosen else size for i, size in enumerate(value.shape))
        for value in (x, places)
    ]
    what = f"numpy.take_along_axis along axis {chosen}"
    shape = list(joint_shape(what, (x, places), sizes))
    data_shape = [x.shape[chosen] if i == chosen else size for i, size in enumerate(shape)]
    index_shape = [places.shape[chosen] if i == chosen else size for i, size in enumerate(shape)]
    places = lift(wrapped(places, x, chosen))
    return emit(ops.GatherElements(chosen), broadcast(x, data_shape),
                broadcast(places, index_shape))


def where(condition: Any, *choices: Any) -> Tensor:
    """With one argument the size of the result would depend on the data: UnsupportedError."""
    if len(choices) != 2:
        raise unsupported(
            "np.where with a condition alone gives an unknown size", "give both values"
        )
    dtype = common_type(*choices)
    # a Python integer beyond the range of the others wraps here, as in numpy
    a, b = (cast(lift(choice), dtype) for choice in choices)
    test = cast(lift(condition), DType.BOOL)
    joint_shape("numpy.where", (condition, *choices))
    return select(test, a, b)


def choose_first(condlist: Sequence[Any], choicelist: Sequence[Any], default: Any = 0) -> Tensor:
    result: Any = default
    for condition, choice in reversed(list(zip(condlist, choicelist, strict=True))):
        result = where(condition, choice, result)
    return lift(result)


def clip(a: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None) -> Any:
    low, high = min if a_min is None else a_min, max if a_max is None else a_max
    x = a if low is None else np.maximum(a, low)
    return x if high is None else np.minimum(x, high)


def round(a: Any, decimals: int = 0) -> Any:
    x = lift(a)
    if not x.type.dtype.is_float:
        if decimals < 0:
            raise unsupported("rounding integers to tens does not trace")
        return x
    if decimals == 0:
        return unary("round", x)
    factor = x.dtype.type(10.0 ** abs(decimals))
    return np.rint(x * factor) / factor if decimals > 0 else np.rint(x / factor) * factor


def _triangle(lower: bool) -> Callable[..., Tensor]:
    def function(m: Any, k: int = 0) -> Tensor:
        x = lift(m)
        if not x.ndim:
            raise misuse(f"{x.type} has no triangle")
        rows, columns = x.shape[-2 % x.ndim], x.shape[-1]
        mask = np.tri(rows, columns, k if lower else k - 1, dtype=bool)
        return select(constant(mask if lower else ~mask), x, constant(0, x.type.dtype))

    return function


def diagonal(a: Any, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Tensor:
    x = moveaxis(a, (axis1, axis2), (-2, -1))
    places = np.arange(x.shape[-2] * x.shape[-1]).reshape(x.shape[-2:]).diagonal(offset)
    flat = to_shape(x, (*x.shape[:-2], x.shape[-2] * x.shape[-1]))
    step = int(places[1] - places[0]) if places.size > 1 else 1
    return cut(flat, flat.ndim - 1, int(places[0]) if places.size else 0, places.size, step)


def diag(v: Any, k: int = 0) -> Tensor:
    x = lift(v)
    if x.ndim == 2:
        return diagonal(x, k)
    if x.ndim != 1:
        raise misuse(f"numpy.diag takes a vector or a matrix, not {x.type}")
    size = x.size + abs(k)
    columns = pad(x, (max(k, 0), max(-k, 0)))
    wide = broadcast(to_shape(columns, (1, size)), (size, size))
    return select(constant(np.eye(size, k=k, dtype=bool)), wide, constant(0, x.type.dtype))


def _filled(value: int) -> Callable[..., Tensor]:
    def function(a: Any, dtype: Any = None, shape: Any = None) -> Tensor:
        return full_like(a, value, dtype, shape)

    return function


def full_like(a: Any, fill_value: Any, dtype: Any = None, shape: Any = None) -> Tensor:
    x = lift(a)
    kind = x.type.dtype if dtype is None else element_type(dtype)
    size = x.shape if shape is None else shape
    return broadcast(lift(fill_value, kind), size if isinstance(size, tuple | list) else (size,))


def meshgrid(*xi: Any, indexing: str = "xy") -> tuple[Tensor, ...]:
    if indexing not in ("xy", "ij"):
        raise misuse(f"there is no indexing {indexing!r}", "use 'xy' or 'ij'")
    values = [ravel(value) for value in xi]
    rank = len(values)
    shaped = [
        to_shape(x, [x.size if i == place else 1 for i in range(rank)])
        for place, x in enumerate(values)
    ]
    if indexing == "xy" and rank > 1:
        shaped = [swapaxes(x, 0, 1) for x in shaped]
    return broadcast_arrays(*shaped)


def nan_to_num(x: Any, nan: float = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    value = lift(x)
    if not value.type.dtype.is_float:
        return value
    ends = np.finfo(value.dtype)
    high = ends.max if posinf is None else posinf
    low = ends.min if neginf is None else neginf
    kind = value.dtype.type
    value = where(tnp.isnan(value), kind(nan), value)
    value = where(value == np.inf, kind(high), value)
    return where(value == -np.inf, kind(low), value)


def astype(x: Any, dtype: Any) -> Tensor:
    return cast(lift(x), dtype)


def same(x: Any) -> Tensor:
    return lift(x)


def shape(a: Tensor) -> tuple[int, ...]:
    return a.shape


def ndim(a: Tensor) -> int:
    return a.ndim


def size(a: Tensor, axis: int | None = None) -> int:
    return a.size if axis is None else a.shape[one_axis(axis, a.ndim)]


FUNCTIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        **{
            each.__name__: each
            for each in (
                *(reshape, ravel, transpose, moveaxis, swapaxes, expand_dims, squeeze),
                *(broadcast_to, broadcast_arrays, concatenate, stack, vstack, hstack, dstack),
                *(column_stack, split, array_split, flip, roll, rot90, repeat, tile, pad, take),
                *(take_along_axis, where, clip, round, diagonal, diag, full_like, meshgrid),
                *(nan_to_num, astype, shape, ndim, size),
            )
        },
        **{f"atleast_{rank}d": _at_least(rank) for rank in (1, 2, 3)},
        **{f"{name}split": _split_along(axis) for name, axis in (("v", 0), ("h", 1), ("d", 2))},
        "select": choose_first,
        "permute_dims": transpose,
        "matrix_transpose": lambda x: swapaxes(x, -1, -2),
        "flipud": lambda m: flip(m, 0),
        "fliplr": lambda m: flip(m, 1),
        "tril": _triangle(True),
        "triu": _triangle(False),
        "zeros_like": _filled(0),
        "ones_like": _filled(1),
        "empty_like": _filled(0),
        "around": round,
        "copy": same,
        "real": same,
        "ascontiguousarray": same,
    }
)
