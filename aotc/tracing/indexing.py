"""``x[key]`` in, the nodes that pick these elements out: every form that numpy has, as long as the
size of the result does not depend on data."""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aotc.errors import UsageError
from aotc.graph import ops
from aotc.graph.types import DType
from aotc.tracing.core import (
    broadcast,
    cast,
    constant,
    emit,
    joint_shape,
    known,
    lift,
    reshape,
    transpose,
)
from aotc.tracing.eager import eager
from aotc.tracing.places import misuse, unsupported
from aotc.tracing.tensor import Tensor, tnp


def wrapped(indices: Any, x: Tensor, axis: int, mode: str = "raise") -> Any:
    """Indices for an axis of ``x``: those known now must lie in it (or are wrapped or clipped, as
    numpy's ``mode`` says); those of run time that lie outside are held to its ends."""
    values, size = known(indices), x.shape[axis]
    if mode not in ("raise", "wrap", "clip"):
        raise misuse(f"there is no mode {mode!r}", "use raise, wrap or clip")
    if values is None:
        if mode == "clip":
            return np.clip(indices, 0, size - 1)
        return indices % size if mode == "wrap" else indices
    if values.dtype.kind not in "iu" and values.size:
        raise misuse(f"an index must be integers, not {values.dtype}")
    if mode != "raise":
        return values % max(size, 1) if mode == "wrap" else np.clip(values, 0, size - 1)
    outside = (values < -size) | (values >= size)
    if outside.any():
        raise misuse(f"index {values[outside].flat[0]} is outside axis {axis} of {x.type}")
    return np.where(values < 0, values + size, values).astype(np.int64)


@dataclass
class _Plan:
    """A key after reading: how to slice, then the axes that arrays index."""

    starts: list[int] = field(default_factory=list)
    counts: list[int] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    shape: list[int] = field(default_factory=list)  # after slicing, with new axes, without integers
    arrays: list[tuple[int, Any]] = field(default_factory=list)  # axis in shape, indices
    places: list[int] = field(default_factory=list)  # where in the key integers and arrays are

    def take(self, start: int, count: int, step: int) -> None:
        self.starts.append(start)
        self.counts.append(count)
        self.steps.append(step)


def _expanded(x: Tensor, key: Any) -> list[Any]:
    """The parts of ``key``, masks as the places where they hold, with one Ellipsis."""
    given = [_part(part) for part in (key if isinstance(key, tuple) else (key,))]
    dots = sum(part is Ellipsis for part in given)
    if dots > 1:
        raise misuse("an index can have one ... only")
    used = sum(map(_axes_of, given))
    if used > x.ndim:
        raise misuse(f"{used} indices for {x.type}, which has {x.ndim} axes")
    parts: list[Any] = []
    axis = 0
    for part in given if dots else [*given, Ellipsis]:
        if _is_mask(part):
            own = x.shape[axis : axis + part.ndim]
            # of a mask without elements, a size of 0 fits any axis
            if any(size not in (0, wanted) for size, wanted in zip(part.shape, own, strict=True)):
                raise misuse(f"a mask of shape {part.shape} does not fit {x.type} at axis {axis}")
            parts += part.nonzero()
        else:
            parts.append(part)
        axis += x.ndim - used if part is Ellipsis else _axes_of(part)
    return parts


def _part(part: Any) -> Any:
    """One part of a key, lists as arrays."""
    if isinstance(part, list | tuple):
        values = known(part)
        part = lift(part) if values is None else values
        if values is not None and not values.size:
            part = values.astype(np.int64)
    run_time_mask = isinstance(part, Tensor) and part.type.dtype is DType.BOOL
    if isinstance(part, bool | np.bool_) or run_time_mask:
        raise unsupported(
            "a mask known at run time picks an unknown number of elements",
            "use np.where(mask, x, other), or a mask that is a constant",
        )
    return part


def _is_mask(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.dtype == bool


def _axes_of(part: Any) -> int:
    """How many axes of the tensor a part of the key takes."""
    return part.ndim if _is_mask(part) else int(part is not None and part is not Ellipsis)


def _read(x: Tensor, key: Any) -> _Plan:
    parts = _expanded(x, key)
    used = sum(part is not None and part is not Ellipsis for part in parts)
    advanced = any(isinstance(part, Tensor | np.ndarray) and np.ndim(part) for part in parts)
    advanced = advanced or any(isinstance(part, Tensor) for part in parts)
    plan, axis = _Plan(), 0
    for place, part in enumerate(parts):
        if part is None:
            plan.shape.append(1)
        elif part is Ellipsis:
            for _ in range(x.ndim - used):
                plan.take(0, x.shape[axis], 1)
                plan.shape.append(x.shape[axis])
                axis += 1
        elif isinstance(part, slice):
            start, count, step = _slice(part, x.shape[axis])
            plan.take(start, count, step)
            plan.shape.append(count)
            axis += 1
        elif isinstance(part, Tensor | np.ndarray) and (np.ndim(part) or isinstance(part, Tensor)):
            plan.take(0, x.shape[axis], 1)
            plan.arrays.append((len(plan.shape), _index(part, x, axis)))
            plan.places.append(place)
            plan.shape.append(x.shape[axis])
            axis += 1
        else:
            at = _integer(part, x, axis)
            if advanced:
                plan.take(0, x.shape[axis], 1)
                plan.arrays.append((len(plan.shape), np.asarray(at)))
                plan.places.append(place)
                plan.shape.append(x.shape[axis])
            else:
                plan.take(at, 1, 1)
            axis += 1
    return plan


def _slice(part: slice, size: int) -> tuple[int, int, int]:
    try:
        start, stop, step = part.indices(size)
    except (TypeError, ValueError) as error:
        raise misuse(f"{part} is not a slice of Python integers: {error}",
                     "np.take with indices takes places known at run time") from None
    count = len(range(start, stop, step))
    return (start if count else 0), count, (step if count > 1 else 1)


def _integer(part: Any, x: Tensor, axis: int) -> int:
    try:
        at = operator.index(part)
    except TypeError:
        forms = "use integers, slices, None, ... or arrays"
        raise misuse(f"{part!r} is not an index", forms) from None
    size = x.shape[axis]
    if not -size <= at < size:
        raise misuse(f"index {at} is outside axis {axis} of {x.type}")
    return at % size


def _index(part: Any, x: Tensor, axis: int) -> Any:
    if isinstance(part, Tensor) and not part.type.dtype.is_int:
        raise misuse(f"an index must be integers, not {part.type}", "convert it with astype(int)")
    return wrapped(part, x, axis)


def pick(x: Tensor, key: Any) -> Tensor:
    """``x[key]``; UsageError when the key does not fit, UnsupportedError when the size of the
    result would depend on data."""
    if _is_mask(key) and not key.ndim:  # all or nothing, along a new axis
        return pick(pick(x, None), np.arange(int(key)))
    plan = _read(x, key)
    whole = plan.counts == list(x.shape) and not any(plan.starts) and set(plan.steps) <= {1}
    y = x
    if not whole:
        y = emit(ops.Slice(tuple(plan.starts), tuple(plan.counts), tuple(plan.steps)), x)
    y = reshape(y, plan.shape)
    if not plan.arrays:
        return y
    axes = [axis for axis, _ in plan.arrays]
    together = plan.places == list(range(plan.places[0], plan.places[0] + len(plan.places)))
    if len(axes) == 1:
        return emit(ops.Gather(axes[0]), y, lift(plan.arrays[0][1]))
    return _pick_many(y, axes, [indices for _, indices in plan.arrays], axes[0] if together else 0)


def _pick_many(y: Tensor, axes: list[int], arrays: list[Any], place: int) -> Tensor:
    """Elements of several axes by arrays that broadcast; their axes go to ``place``."""
    shape = joint_shape("arrays that index together", arrays)
    rest = [axis for axis in range(y.ndim) if axis not in axes]
    y = transpose(y, (*axes, *rest))
    if any(isinstance(indices, Tensor) for indices in arrays):
        wide = [broadcast(cast(lift(each), DType.I64), shape) for each in arrays]
        index: Tensor = tnp.stack(wide, axis=-1)
    else:
        index = constant(np.stack(np.broadcast_arrays(*arrays), axis=-1).astype(np.int64))
    z = emit(ops.GatherND(0), y, index)
    rank = len(shape)
    order = list(range(rank, z.ndim))
    order[place:place] = range(rank)
    return transpose(z, order)


@eager
def updated(x: Any, key: Any, value: Any, how: str = "set") -> Tensor:
    """A new value that is ``x`` after ``x[key] = value``, or, as ``how`` says, after the elements
    ``add``, ``mul``, ``min`` or ``max`` it; where indices repeat, in their order.

    The key is anything that indexes; an index of run time that lies outside is held to the ends of
    its axis. ``value`` broadcasts. UsageError when it does not fit.
    """
    x = lift(x)
    places = np.arange(x.size).reshape(x.shape)
    if how not in ("set", "add", "mul", "min", "max"):
        raise misuse(f"there is no update '{how}'", "use set, add, mul, min or max")
    parts = key if isinstance(key, tuple) else (key,)
    if any(isinstance(part, Tensor) for part in parts):
        flat = pick(constant(places), key)
    else:
        try:
            flat = constant(places[key])
        except IndexError as error:
            raise misuse(f"{x.type}: {error}") from None
    given = lift(value, x.type.dtype)
    try:
        values = broadcast(given, flat.shape)
    except UsageError:
        raise misuse(
            f"the key picks a part of shape {flat.shape} of {x.type}, which {given.type} does not"
            " stretch to"
        ) from None
    index = reshape(flat, (flat.size, 1))
    result = emit(
        ops.ScatterND(how), reshape(x, (x.size,)), index, reshape(values, (flat.size,))
    )
    return reshape(result, x.shape)
