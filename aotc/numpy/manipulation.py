"""Functions of the standard that move, join or repeat elements: arrays in, arrays out."""

from __future__ import annotations

from typing import Any

import numpy as np

from aotc.graph.types import broadcast_dims
from aotc.numpy.array import ArgumentError, Array
from aotc.numpy.eager import checked, known_now, operation
from aotc.numpy.types import result_type
from aotc.tracing.core import lift, one_axis
from aotc.tracing.core import reshape as to_shape
from aotc.tracing.movement import broadcast_arrays as stretched
from aotc.tracing.tensor import Tensor, tnp

Axes = int | tuple[int, ...]


def _alike(arrays: Any) -> list[Tensor]:
    """Operands of one type by the rules of the standard."""
    if not arrays:
        raise ArgumentError("there is nothing to join")
    values = [lift(x) for x in arrays]
    common = result_type(*values)
    return [x.astype(common) for x in values]


@operation
def concat(arrays: Any, /, *, axis: int | None = 0) -> Any:
    """Arrays joined along ``axis``; flattened first if it is None."""
    return tnp.concatenate(_alike(arrays), axis)


@operation
def stack(arrays: Any, /, *, axis: int = 0) -> Any:
    """Arrays of one shape along a new ``axis``."""
    return tnp.stack(_alike(arrays), axis)


@operation
def unstack(x: Any, /, *, axis: int = 0) -> tuple[Any, ...]:
    """The slices of ``x`` along ``axis``, which they have not."""
    parts = tnp.moveaxis(lift(x), axis, 0)
    return tuple(parts[place] for place in range(parts.shape[0]))


@operation
def broadcast_arrays(*arrays: Any) -> tuple[Any, ...]:
    """The arrays stretched to their common shape."""
    return stretched(*arrays)


@checked
def broadcast_shapes(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape; ValueError (an ArgumentError) when there is none."""
    try:
        return broadcast_dims(*shapes)
    except ValueError as error:
        raise ArgumentError(str(error)) from None


@operation
def broadcast_to(x: Any, /, shape: tuple[int, ...]) -> Any:
    """``x`` stretched to ``shape``."""
    return tnp.broadcast_to(lift(x), shape)


@operation
def expand_dims(x: Any, /, axis: Axes = 0) -> Any:
    """New axes of size 1 at the places ``axis`` of the result."""
    return tnp.expand_dims(lift(x), axis)


@operation
def squeeze(x: Any, /, axis: Axes) -> Any:
    """Without the axes of size 1 that ``axis`` names."""
    return tnp.squeeze(lift(x), axis)


@operation
def flip(x: Any, /, *, axis: Axes | None = None) -> Any:
    """The other way round along ``axis``, or along all."""
    return tnp.flip(lift(x), axis)


@operation
def moveaxis(x: Any, source: Axes, destination: Axes, /) -> Any:
    """Axes at other places, the rest in their order."""
    return tnp.moveaxis(lift(x), source, destination)


@operation
def permute_dims(x: Any, /, axes: tuple[int, ...]) -> Any:
    """The axes in the order ``axes``."""
    return tnp.transpose(lift(x), axes)


@operation
def _reshaped(x: Any, shape: Any) -> Any:
    return tnp.reshape(lift(x), shape)


@checked
def reshape(x: Any, /, shape: tuple[int, ...], *, copy: bool | None = None) -> Any:
    """The same elements in row-major order; one size may be -1. Arrays never share their numbers,
    so that ``copy`` may not be False."""
    if copy is False:
        raise ArgumentError("reshape always copies", remedy="leave copy out")
    return _reshaped(x, shape)


@operation
def roll(x: Any, /, shift: Any, *, axis: Axes | None = None) -> Any:
    """Elements moved by ``shift`` places around ``axis``, or around the flattened array."""
    value = lift(x)
    if axis is None:
        flat = to_shape(value, (value.size,))
        return to_shape(tnp.roll(flat, _within(shift, value.size), 0), value.shape)
    axes = axis if isinstance(axis, tuple) else (axis,)
    shifts = shift if isinstance(shift, tuple) else (shift,) * len(axes)
    if len(shifts) != len(axes):
        raise ArgumentError(f"{len(shifts)} shifts for {len(axes)} axes")
    for by, each in zip(shifts, axes, strict=True):
        value = tnp.roll(value, _within(by, value.shape[one_axis(each, value.ndim)]), each)
    return value


def _within(shift: int, size: int) -> int:
    return int(shift) % size if size else 0


@operation
def tile(x: Any, repetitions: tuple[int, ...], /) -> Any:
    """``x`` so many times along each axis."""
    return tnp.tile(lift(x), repetitions)


@operation
def _repeated(x: Any, counts: Any, axis: int | None) -> Any:
    return tnp.repeat(lift(x), counts, axis)


@checked
def repeat(x: Any, repeats: Any, /, *, axis: int | None = None) -> Any:
    """Each element along ``axis`` (of the flattened array if None) so many times in a row. Counts
    that are an array must be known while tracing: they are the size of the result."""
    if isinstance(repeats, int):
        return _repeated(x, repeats, axis)
    return _repeated_by(x, repeats, axis)


@known_now
def _repeated_by(x: Any, repeats: Array, axis: int | None) -> Any:
    size = x.size if axis is None else x.shape[axis]
    try:
        counts = np.broadcast_to(repeats.values, (size,))
    except ValueError:
        raise ArgumentError(f"{repeats.shape} counts for {size} elements") from None
    return _repeated(x, counts, axis)
