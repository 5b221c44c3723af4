"""Primitives of JAX that make, move or join elements: Tensors in, numpy's functions on them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from aotc.graph import ops
from aotc.graph.types import DType
from aotc.importers.jax_ops.elementwise import Lowering
from aotc.importers.use import Use
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
    reshape,
    transpose,
)
from aotc.tracing.tensor import Tensor, tnp


def _broadcast_in_dim(
    use: Use, x: Tensor, shape: Sequence[int], broadcast_dimensions: Sequence[int], **ignored: Any
) -> Tensor:
    """Axis i of ``x`` is axis ``broadcast_dimensions[i]`` of the result."""
    placed = [1] * len(shape)
    for size, axis in zip(x.shape, broadcast_dimensions, strict=True):
        placed[axis] = size
    return broadcast(reshape(x, placed), shape)


def _reshape(use: Use, x: Tensor, dimensions: Any = None, **ignored: Any) -> Tensor:
    return reshape(x if dimensions is None else transpose(x, dimensions), use.dims)


def _to_result_shape(use: Use, x: Tensor, **ignored: Any) -> Tensor:
    return reshape(x, use.dims)


def _transpose(use: Use, x: Tensor, permutation: Sequence[int]) -> Tensor:
    return transpose(x, permutation)


def _slice(
    use: Use, x: Tensor, start_indices: Sequence[int], limit_indices: Sequence[int], strides: Any
) -> Tensor:
    for axis, start in enumerate(start_indices):
        x = cut(x, axis, start if use.dims[axis] else 0, use.dims[axis],
                strides[axis] if strides else 1)  # fmt: skip
    return x


def _rev(use: Use, x: Tensor, dimensions: Sequence[int]) -> Any:
    return tnp.flip(x, tuple(dimensions)) if dimensions else x


def _concatenate(use: Use, *parts: Tensor, dimension: int) -> Tensor:
    return concat(parts, dimension)


def _split(use: Use, x: Tensor, sizes: Sequence[int], axis: int) -> list[Tensor]:
    starts = np.cumsum([0, *sizes])
    return [cut(x, axis, int(at), int(n)) for at, n in zip(starts, sizes, strict=False)]


def _stack(use: Use, *parts: Tensor, axis: int = 0) -> Any:
    return tnp.stack(parts, axis=axis)


def _unstack(use: Use, x: Tensor, axis: int = 0) -> list[Tensor]:
    shape = x.shape[:axis] + x.shape[axis + 1 :]
    return [reshape(cut(x, axis, place, 1), shape) for place in range(x.shape[axis])]


def _tile(use: Use, x: Tensor, reps: Sequence[int]) -> Any:
    return tnp.tile(x, tuple(reps))


def _iota(use: Use, *ignored: Any, dimension: int, **rest: Any) -> Tensor:
    return emit(ops.Iota(use.dims, dimension, use.type.dtype))


def _empty(use: Use, **ignored: Any) -> Tensor:
    return broadcast(constant(0, use.type.dtype), use.dims)


# Padding, between elements too.


def spread(x: Tensor, axis: int, gap: int, value: Any) -> Tensor:
    """``gap`` times ``value`` between the elements of one axis."""
    size = x.shape[axis]
    if gap == 0 or size < 2:
        return x
    wide = reshape(x, (*x.shape[: axis + 1], 1, *x.shape[axis + 1 :]))
    sides = [(0, 0)] * wide.ndim
    sides[axis + 1] = (0, gap)
    padded = tnp.pad(wide, sides, constant_values=value)
    joined = reshape(padded, (*x.shape[:axis], size * (gap + 1), *x.shape[axis + 1 :]))
    return cut(joined, axis, 0, (size - 1) * (gap + 1) + 1)


def padded(x: Tensor, config: Sequence[tuple[int, int, int]], value: Any) -> Tensor:
    """Low, high and interior padding of each axis with a known value; negative sides are cut
    off."""
    sides = []
    for axis, (low, high, gap) in enumerate(config):
        x = spread(x, axis, gap, value)
        front, back = max(-low, 0), max(-high, 0)
        x = cut(x, axis, front, x.shape[axis] - front - back)
        sides.append((max(low, 0), max(high, 0)))
    return tnp.pad(x, sides, constant_values=value) if any(map(any, sides)) else x


def _pad(use: Use, x: Tensor, value: Tensor, padding_config: Any) -> Any:
    config = [(int(low), int(high), int(gap)) for low, high, gap in padding_config]
    number = known(value)
    if number is not None:
        return padded(x, config, number)
    inside = padded(broadcast(constant(True), x.shape), config, False)
    return elementwise(ops.Select(), inside, padded(x, config, 0), value)


# Slices at places known at run time.


def _held(start: Tensor, size: int, count: int) -> Any:
    """A slice of ``count`` that would begin outside of an axis is moved into it."""
    return tnp.clip(cast(start, DType.I64), 0, size - count)


def _dynamic_slice(use: Use, x: Tensor, *starts: Tensor, **ignored: Any) -> Any:
    for axis, start in enumerate(starts[: x.ndim]):
        count, size = use.dims[axis], x.shape[axis]
        if count == size:
            continue
        place = known(start)
        if place is not None:
            x = cut(x, axis, int(np.clip(place, 0, size - count)), count)
        else:
            x = gather(x, _held(start, size, count) + np.arange(count), axis)
    return x


def _dynamic_update_slice(use: Use, x: Tensor, update: Tensor, *starts: Tensor) -> Any:
    """Only the axes up to the last one that the update does not fill are addressed."""
    partial = [axis for axis in range(x.ndim) if update.shape[axis] != x.shape[axis]]
    if not partial:
        return update
    if not update.size:
        return x
    depth = partial[-1] + 1
    shape = update.shape[:depth]
    places = []
    for axis in range(depth):
        column = np.arange(shape[axis]).reshape((-1,) + (1,) * (depth - axis - 1))
        places.append(broadcast(_held(starts[axis], x.shape[axis], shape[axis]) + column, shape))
    return emit(ops.ScatterND("set"), x, tnp.stack(places, axis=-1), update)


RULES: Mapping[str, Lowering] = MappingProxyType(
    {
        "broadcast_in_dim": _broadcast_in_dim,
        "reshape": _reshape,
        **dict.fromkeys(("squeeze", "expand_dims"), _to_result_shape),
        "transpose": _transpose,
        "slice": _slice,
        "rev": _rev,
        "concatenate": _concatenate,
        "split": _split,
        "stack": _stack,
        "unstack": _unstack,
        "tile": _tile,
        "iota": _iota,
        **dict.fromkeys(("empty", "empty2"), _empty),
        "pad": _pad,
        "dynamic_slice": _dynamic_slice,
        "dynamic_update_slice": _dynamic_update_slice,
    }
)
