"""ATen operators that make, move or choose elements: Tensors in, numpy's functions on them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from aotc.errors import UnsupportedError
from aotc.graph import ops
from aotc.graph.types import DType
from aotc.importers.onnx_rules import onnx_op
from aotc.importers.torch_ops.rule import Lowering, Operands, Rule, Use, rules
from aotc.tracing.core import (
    broadcast,
    cast,
    concat,
    constant,
    cut,
    elementwise,
    emit,
    gather,
    known,
    lift,
    one_axis,
    reshape,
    transpose,
)
from aotc.tracing.indexing import updated
from aotc.tracing.tensor import Tensor, tnp


def _to_result_shape(use: Use, x: Tensor, *ignored: Any) -> Tensor:
    """Whatever the arguments say, the result has been worked out."""
    return reshape(x, use.dims)


def _expand(use: Use, x: Tensor, *ignored: Any) -> Tensor:
    return broadcast(x, use.dims)


def _permute(use: Use, x: Tensor, dims: Sequence[int]) -> Tensor:
    return transpose(x, [dim % x.ndim for dim in dims])


def _cat(use: Use, parts: Sequence[Tensor], dim: int) -> Tensor:
    """Vectors of no elements are left out, whatever the rank of the others."""
    dtype = use.type.dtype
    used = [cast(x, dtype) for x in parts if x.shape != (0,)] or [cast(parts[0], dtype)]
    return concat(used, one_axis(dim, used[0].ndim))


def _stack(use: Use, parts: Sequence[Tensor], dim: int) -> Any:
    return tnp.stack(parts, axis=dim)


def _held(place: int | None, size: int, default: int) -> int:
    """An end of a slice as Python holds it to the axis."""
    return default if place is None else max(0, min(size, place + size if place < 0 else place))


def _range(x: Tensor, dim: int, start: int | None, end: int | None, step: int) -> range:
    size = x.shape[one_axis(dim, x.ndim)]
    return range(_held(start, size, 0), _held(end, size, size), step)


def _slice(
    use: Use, x: Tensor, dim: int, start: int | None, end: int | None, step: int
) -> Tensor:
    places = _range(x, dim, start, end, step)
    return cut(x, one_axis(dim, x.ndim), places.start if places else 0, len(places), step)


def _slice_scatter(
    use: Use, x: Tensor, source: Tensor, dim: int, start: int | None, end: int | None, step: int
) -> Tensor:
    axis, places = one_axis(dim, x.ndim), _range(x, dim, start, end, step)
    source = broadcast(cast(source, x.type.dtype), use.dims[:axis] + (len(places),)
                       + use.dims[axis + 1 :])
    if step != 1 or not places:
        return updated(x, (slice(None),) * axis + (slice(places.start, places.stop, step),), source)
    size = x.shape[axis]
    ends = [(0, places.start), (places.stop, size)]
    low, high = (cut(x, axis, first, last - first) if last > first else None
                 for first, last in ends)
    return concat([part for part in (low, source, high) if part is not None], axis)


def _select(use: Use, x: Tensor, dim: int, index: Any) -> Tensor:
    """Also at a place known only at run time."""
    axis = one_axis(dim, x.ndim)
    if isinstance(index, Tensor):
        return gather(x, reshape(index, ()), axis)
    return reshape(cut(x, axis, index % x.shape[axis], 1), use.dims)


def _select_scatter(use: Use, x: Tensor, source: Tensor, dim: int, index: int) -> Tensor:
    axis = one_axis(dim, x.ndim)
    place = index % x.shape[axis]
    return _slice_scatter(use, x, tnp.expand_dims(source, axis), axis, place, place + 1, 1)


def _split(use: Use, x: Tensor, sizes: Sequence[int], dim: int) -> list[Tensor]:
    axis, parts, start = one_axis(dim, x.ndim), [], 0
    for size in sizes:
        parts.append(cut(x, axis, start, size))
        start += size
    return parts


def _unbind(use: Use, x: Tensor, dim: int) -> list[Tensor]:
    axis = one_axis(dim, x.ndim)
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    return [reshape(cut(x, axis, place, 1), shape) for place in range(x.shape[axis])]


def _flip(use: Use, x: Tensor, dims: Sequence[int]) -> Any:
    return tnp.flip(x, tuple(dims)) if dims else x


def _roll(use: Use, x: Tensor, shifts: Sequence[int], dims: Sequence[int]) -> Any:
    return tnp.roll(x, tuple(shifts), tuple(dims)) if dims else tnp.roll(x, shifts[0])


def _repeat(use: Use, x: Tensor, repeats: Sequence[int]) -> Any:
    return tnp.tile(x, tuple(repeats))


def _diagonal(use: Use, x: Tensor, offset: int, dim1: int, dim2: int) -> Any:
    return tnp.diagonal(x, offset, dim1, dim2)


def _triangle(name: str) -> Lowering:
    function = getattr(tnp, name)
    return lambda use, x, diagonal: function(x, diagonal)


def _pad_widths(x: Tensor, pad: Sequence[int]) -> tuple[list[int], list[int]]:
    """ATen pairs up the pads from the last axis on."""
    low, high = [0] * x.ndim, [0] * x.ndim
    for place in range(len(pad) // 2):
        low[-1 - place], high[-1 - place] = pad[2 * place], pad[2 * place + 1]
    return low, high


def _constant_pad(use: Use, x: Tensor, pad: Sequence[int], value: float) -> Any:
    low, high = _pad_widths(x, pad)
    for axis, (front, back) in enumerate(zip(low, high, strict=True)):
        start, left = max(-front, 0), max(-front, 0) + max(-back, 0)
        x = cut(x, axis, start, x.shape[axis] - left)
    widths = [(max(a, 0), max(b, 0)) for a, b in zip(low, high, strict=True)]
    return tnp.pad(x, widths, constant_values=value) if x.ndim else x


def _pad_like(mode: str) -> Lowering:
    def rule(use: Use, x: Tensor, pad: Sequence[int]) -> Any:
        low, high = _pad_widths(x, pad)
        widths = constant([*low, *high], DType.I64)
        return onnx_op("Pad", x, widths, None, None, mode=mode)

    return rule


# Indices.


def _positions(index: Tensor, size: int) -> Tensor:
    """A negative index counts from the end, which the primitives do by themselves."""
    return cast(index, DType.I64) if index.type.dtype is not DType.I32 else index


def _embedding(use: Use, weight: Tensor, index: Tensor, *ignored: Any) -> Tensor:
    return gather(weight, _positions(index, weight.shape[0]), 0)


def _index_select(use: Use, x: Tensor, dim: int, index: Tensor) -> Tensor:
    if not x.ndim:
        return broadcast(x, use.dims)
    axis = one_axis(dim, x.ndim)
    return gather(x, tnp.ravel(_positions(index, x.shape[axis])), axis)


def _gather(use: Use, x: Tensor, dim: int, index: Tensor, sparse_grad: bool) -> Tensor:
    if not x.ndim:
        return broadcast(x, index.shape)
    if not index.ndim:
        return reshape(_gather(use, x, dim, reshape(index, (1,)), False), ())
    return emit(ops.GatherElements(one_axis(dim, x.ndim)), x, cast(index, DType.I64))


def _scatter(fn: str) -> Lowering:
    def rule(use: Use, x: Tensor, dim: int, index: Tensor, source: Any) -> Tensor:
        return _scattered(x, dim, index, source, fn)

    return rule


def _scattered(x: Tensor, dim: int, index: Tensor, source: Any, fn: str) -> Tensor:
    """ATen takes as much of the source as there are indices."""
    if not x.ndim:
        return reshape(_scattered(reshape(x, (1,)), 0, reshape(index, (1,)),
                                  tnp.ravel(lift(source)), fn), ())
    values = lift(source, x.type.dtype)
    if values.shape:
        for axis, size in enumerate(index.shape):
            values = cut(values, axis, 0, size)
    values = broadcast(values, index.shape)
    return emit(
        ops.ScatterElements(one_axis(dim, x.ndim), fn), x, cast(index, DType.I64), values
    )


def _scatter_reduce(
    use: Use, x: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, include_self: bool
) -> Tensor:
    fn = {"sum": "add", "prod": "mul", "amax": "max", "amin": "min"}.get(reduce)
    if fn is None:
        raise UnsupportedError(f"a scatter with reduce='{reduce}' is not supported")
    if not include_self:
        x = _scattered(x, dim, index, _neutral(fn, x.type.dtype), "set")
    return _scattered(x, dim, index, source, fn)


def _neutral(fn: str, dtype: DType) -> float:
    """What does not change a sum, product or extreme."""
    if fn in ("add", "mul"):
        return int(fn == "mul")
    low, high = (-np.inf, np.inf) if dtype.is_float else dtype.int_range
    return low if fn == "max" else high


def _key(x: Tensor, indices: Sequence[Tensor | None]) -> tuple[Any, ...]:
    """numpy's key; a mask must be known, else the size of the result is not."""
    parts: list[Any] = []
    for index in indices:
        if index is None:
            parts.append(slice(None))
            continue
        values = known(index)
        if index.type.dtype in (DType.BOOL, DType.U8) and values is None:
            raise UnsupportedError("a mask known at run time picks an unknown number of elements")
        parts.append(index if values is None else values)
    return tuple(parts)


def _index(use: Use, x: Tensor, indices: Sequence[Tensor | None]) -> Any:
    return x[_key(x, indices)]


def _index_put(
    use: Use, x: Tensor, indices: Sequence[Tensor | None], values: Tensor, accumulate: bool
) -> Tensor:
    masks = [index for index in indices if index is not None and index.type.dtype is DType.BOOL]
    if len(masks) == 1 and known(masks[0]) is None and values.size == 1 and not accumulate:
        return _masked_fill(use, x, _mask_for(x, indices), reshape(values, ()))
    return updated(x, _key(x, indices), cast(values, x.type.dtype), "add" if accumulate else "set")


def _mask_for(x: Tensor, indices: Sequence[Tensor | None]) -> Tensor:
    """The one mask among ``indices``, shaped to broadcast over ``x``."""
    shape: list[int] = []
    found: Tensor | None = None
    for index in indices:
        if index is None:
            shape.append(1)
        else:
            shape += index.shape
            found = index
    assert found is not None
    return reshape(found, (*shape, *(1,) * (x.ndim - len(shape))))


def _masked_fill(use: Use, x: Tensor, mask: Tensor, value: Any) -> Tensor:
    filled = lift(value, x.type.dtype)
    return elementwise(ops.Select(), cast(mask, DType.BOOL), filled, x)


def _masked_scatter(use: Use, x: Tensor, mask: Tensor, source: Tensor) -> Any:
    """Element n of the source goes where the mask is true for the nth time."""
    wide = broadcast(mask, x.shape)
    flat = cast(tnp.ravel(wide), DType.I64)
    place = emit(ops.CumSum(0, True, False), flat)
    picked = reshape(gather(tnp.ravel(source), place, 0), x.shape)
    return elementwise(ops.Select(), wide, picked, x)


# Tensors out of nothing.


def _full(use: Use, size: Any, value: Any) -> Tensor:
    return broadcast(lift(value, use.type.dtype), use.dims)


def _zeros(use: Use, *ignored: Any) -> Tensor:
    """Also what torch leaves open (`empty`) is zero."""
    return _full(use, None, 0)


def _ones(use: Use, *ignored: Any) -> Tensor:
    return _full(use, None, 1)


def _arange(use: Use, *ends: Any) -> Tensor:
    start, _, step = {1: (0, *ends, 1), 2: (*ends, 1), 3: ends}[len(ends)]
    places = start + np.arange(use.dims[0]) * step
    return constant(places.astype(use.type.dtype.numpy))


def _triangle_places(places: Callable[..., Any]) -> Lowering:
    """The rows and columns of the elements of a triangle."""

    def rule(use: Use, rows: int, columns: int, offset: int) -> Tensor:
        return constant(np.stack(places(rows, offset, columns)).astype(use.type.dtype.numpy))

    return rule


def _scalar(use: Use, value: Any) -> Tensor:
    return lift(value, use.type.dtype)


def _unfold(use: Use, x: Tensor, dim: int, size: int, step: int) -> Any:
    """Every window of an axis, its elements on a new last axis."""
    axis = one_axis(dim, x.ndim)
    starts = np.arange(0, x.shape[axis] - size + 1, step)
    windows = gather(x, constant(starts[:, None] + np.arange(size)), axis)
    return tnp.moveaxis(windows, axis + 1, -1)


def _diagonal_scatter(
    use: Use, x: Tensor, source: Tensor, offset: int, dim1: int, dim2: int
) -> Tensor:
    places = np.arange(x.size).reshape(x.shape).diagonal(offset, dim1, dim2)
    flat = updated(tnp.ravel(x), places.reshape(-1), tnp.ravel(source))
    return reshape(flat, x.shape)


def _view_as(use: Use, x: Tensor) -> Tensor:
    """The same bits as another type of the same size."""
    if use.type.dtype.size_bytes != x.itemsize:
        raise UnsupportedError("bits as elements of another size are not supported")
    return x if use.type.dtype is x.type.dtype else emit(ops.Bitcast(use.type.dtype), x)


def _as_strided(
    use: Use, x: Tensor, size: Sequence[int], stride: Sequence[int], offset: int | None
) -> Tensor:
    """By index, into elements in row-major order."""
    places = np.full(tuple(size), offset or 0, np.int64)
    for axis, (count, step) in enumerate(zip(size, stride, strict=True)):
        column = np.arange(count) * step
        places += column.reshape((count,) + (1,) * (len(size) - axis - 1))
    if places.size and places.max() >= x.size:
        raise UnsupportedError("the view reaches beyond its tensor")
    return gather(tnp.ravel(x), constant(places), 0)


_TABLE: Mapping[str, Lowering] = MappingProxyType(
    {
        **dict.fromkeys(
            ("view", "reshape", "_unsafe_view", "_reshape_copy", "squeeze", "unsqueeze"),
            _to_result_shape,
        ),
        "expand": _expand,
        "permute": _permute,
        "cat": _cat,
        "stack": _stack,
        "slice": _slice,
        "slice_scatter": _slice_scatter,
        "select": _select,
        "select_scatter": _select_scatter,
        "split_with_sizes": _split,
        "unbind": _unbind,
        "flip": _flip,
        "roll": _roll,
        "repeat": _repeat,
        "diagonal": _diagonal,
        "tril": _triangle("tril"),
        "triu": _triangle("triu"),
        "constant_pad_nd": _constant_pad,
        **{f"reflection_pad{rank}d": _pad_like("reflect") for rank in (1, 2, 3)},
        **{f"replication_pad{rank}d": _pad_like("edge") for rank in (1, 2, 3)},
        "embedding": _embedding,
        "index_select": _index_select,
        "gather": _gather,
        "scatter": _scatter("set"),
        "scatter_add": _scatter("add"),
        "scatter_reduce": _scatter_reduce,
        "index": _index,
        "index_put": _index_put,
        "_unsafe_index": _index,
        "_unsafe_index_put": _index_put,
        "masked_fill": _masked_fill,
        "masked_scatter": _masked_scatter,
        "full": _full,
        "full_like": _full,
        "fill": _full,
        **dict.fromkeys(("zeros", "zeros_like", "new_zeros"), _zeros),
        **dict.fromkeys(("empty", "empty_like", "empty_strided", "new_empty"), _zeros),
        "empty_permuted": _zeros,
        "tril_indices": _triangle_places(np.tril_indices),
        "triu_indices": _triangle_places(np.triu_indices),
        **dict.fromkeys(("ones", "ones_like", "new_ones"), _ones),
        "arange": _arange,
        "scalar_tensor": _scalar,
        "_local_scalar_dense": lambda use, x: reshape(x, ()),
        "unfold": _unfold,
        "as_strided": _as_strided,
        "diagonal_scatter": _diagonal_scatter,
        "view.dtype": _view_as,
    }
)

RULES: Mapping[str, Rule] = MappingProxyType(rules(Operands.GIVEN, _TABLE))
"""By the operator's name, with its overload where overloads differ."""
