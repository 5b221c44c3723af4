"""One axis of a tensor resampled: a node and the places of its elements in, gathers weighted by
constants out. ONNX Resize and aotc.image share this.

Coordinate formulas are those of ONNX Resize (github.com/onnx/onnx, docs/Operators.md#Resize).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from aotc.errors import ModelError
from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Node
from aotc.graph.types import DType

MAX_GATHERS = 8
"""More taps than this (antialias at small scales) become a matrix product."""


@dataclass(frozen=True)
class Sampling:
    """How output positions map to input positions; the attributes of Resize. ``mode`` is nearest,
    linear, cubic or area (the mean over the part of the input that an element covers)."""

    mode: str
    coordinates: str
    nearest: str
    cubic_a: float
    exclude_outside: bool
    antialias: bool
    extrapolation: float


@dataclass(frozen=True)
class AxisPlan:
    """One axis to resize: sizes, the scale from input to output, and the region of interest."""

    axis: int
    size: int
    result: int
    scale: float
    roi: tuple[float, float]


def source_positions(plan: AxisPlan, coordinates: str) -> np.ndarray:
    """For each output position, the (fractional) position in the input."""
    x = np.arange(plan.result, dtype=np.float64)
    scale, size, result = plan.scale, plan.size, plan.result
    if coordinates == "asymmetric":
        return x / scale
    if coordinates == "half_pixel":
        return (x + 0.5) / scale - 0.5
    if coordinates == "pytorch_half_pixel":
        return (x + 0.5) / scale - 0.5 if result > 1 else np.zeros_like(x)
    if coordinates == "tf_half_pixel_for_nn":
        return (x + 0.5) / scale
    if coordinates == "align_corners":
        # the length counts before it is rounded down to a whole number of elements
        length = size * scale
        length = result if abs(length - result) < 1e-6 else length
        return x * (size - 1) / (length - 1) if result > 1 else np.zeros_like(x)
    if coordinates == "half_pixel_symmetric":
        adjustment = result / (scale * size)
        centre = size / 2
        return centre * (1 - adjustment) + (x + 0.5) / scale - 0.5
    if coordinates == "tf_crop_and_resize":
        start, end = plan.roi
        if result > 1:
            return start * (size - 1) + x * (end - start) * (size - 1) / (result - 1)
        return np.full_like(x, 0.5 * (start + end) * (size - 1))
    raise ModelError(f"attribute 'coordinate_transformation_mode' cannot be '{coordinates}'")


def nearest_places(positions: np.ndarray, rounding: str) -> np.ndarray:
    """Fractional positions to whole ones."""
    if rounding == "round_prefer_floor":
        places = np.ceil(positions - 0.5)
    elif rounding == "round_prefer_ceil":
        places = np.floor(positions + 0.5)
    elif rounding == "floor":
        places = np.floor(positions)
    elif rounding == "ceil":
        places = np.ceil(positions)
    else:
        raise ModelError(f"attribute 'nearest_mode' cannot be '{rounding}'")
    return np.asarray(places, dtype=np.int64)


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.asarray(np.maximum(0.0, 1.0 - np.abs(distance)))


def _cubic(distance: np.ndarray, a: float) -> np.ndarray:
    """Keys, Cubic convolution interpolation for digital image processing (1981)."""
    d = np.abs(distance)
    # products instead of powers: they round alike on every machine
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def _covered(plan: AxisPlan) -> tuple[np.ndarray, np.ndarray]:
    """The taps of mode area: the share of each element in the stretch of the input between an
    output element's ends."""
    step = plan.size / plan.result
    low = np.arange(plan.result) * step
    reach = math.ceil(step) + 1
    places = np.floor(low).astype(np.int64) + np.arange(reach)[:, None]
    weights = np.minimum(places + 1, low + step) - np.maximum(places, low)
    weights = np.where(places < plan.size, np.maximum(weights, 0.0), 0.0)
    return np.minimum(places, plan.size - 1), weights / weights.sum(axis=0)


def taps(plan: AxisPlan, how: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """Which input elements make each output element: places [taps, result] and weights [taps,
    result]."""
    if how.mode == "area":
        return _covered(plan)
    positions = source_positions(plan, how.coordinates)
    stretch = min(plan.scale, 1.0) if how.antialias else 1.0
    reach = math.ceil((2 if how.mode == "cubic" else 1) / stretch)
    base = np.floor(positions).astype(np.int64)
    places = base + np.arange(1 - reach, reach + 1)[:, None]
    distance = (places - positions) * stretch
    weights = _cubic(distance, how.cubic_a) if how.mode == "cubic" else _linear(distance)
    if how.exclude_outside:
        weights = np.where((places >= 0) & (places < plan.size), weights, 0.0)
    if how.exclude_outside or how.antialias:
        weights = weights / weights.sum(axis=0)
    return np.clip(places, 0, plan.size - 1), weights


def resize_axis(
    builder: Builder,
    x: Node,
    plan: AxisPlan,
    how: Sampling,
    origin: str,
    work: DType | None = None,
) -> Node:
    """``x`` resampled along one axis, in its own type in mode nearest, else in floats: those of
    ``x``, or ``work``, to which elements are converted after they are picked."""
    if how.mode == "nearest":
        return _nearest_axis(builder, x, plan, how, origin)
    return _weighted_axis(builder, x, plan, how, origin, work or x.type.dtype)


def _nearest_axis(
    builder: Builder, x: Node, plan: AxisPlan, how: Sampling, origin: str
) -> Node:
    positions = source_positions(plan, how.coordinates)
    places = np.clip(nearest_places(positions, how.nearest), 0, plan.size - 1)
    factor = plan.result // plan.size
    repeats = factor > 0 and factor * plan.size == plan.result
    if repeats and np.array_equal(places, np.arange(plan.result) // factor):
        # [a, b] -> [a, 1, b] -> [a, factor, b]: repeating needs no index
        dims = x.shape
        before, after = dims[: plan.axis + 1], dims[plan.axis + 1 :]
        apart = builder.reshape(x, (*before, 1, *after), origin)
        wide = builder.apply(ops.Broadcast((*before, factor, *after)), apart, origin=origin)
        return builder.reshape(wide, (*dims[: plan.axis], plan.result, *after), origin)
    return builder.apply(ops.Gather(plan.axis), x, builder.constant(places), origin=origin)


def _weighted_axis(
    builder: Builder, x: Node, plan: AxisPlan, how: Sampling, origin: str, work: DType
) -> Node:
    places, weights = taps(plan, how)
    if len(places) > MAX_GATHERS:
        wide = builder.cast(x, work, origin)
        return _matrix_axis(builder, wide, plan, places, weights, origin)
    column = (plan.result, *(1,) * (x.type.rank - plan.axis - 1))
    total: Node | None = None
    for place, weight in zip(places, weights, strict=True):
        if not weight.any():
            continue
        part = builder.apply(ops.Gather(plan.axis), x, builder.constant(place), origin=origin)
        factor = builder.constant(weight.astype(work.numpy).reshape(column))
        part = builder.binary("mul", builder.cast(part, work, origin), factor, origin)
        total = part if total is None else builder.binary("add", total, part, origin)
    assert total is not None
    return total


def _matrix_axis(
    builder: Builder, x: Node, plan: AxisPlan, places: np.ndarray, weights: np.ndarray, origin: str
) -> Node:
    """Many taps for each element: one product with a matrix [size, result]."""
    matrix = np.zeros((plan.size, plan.result))
    np.add.at(matrix, (places, np.arange(plan.result)), weights)
    last = [axis for axis in range(x.type.rank) if axis != plan.axis] + [plan.axis]
    moved = builder.transpose(x, tuple(last), origin)
    rows = builder.reshape(moved, (x.type.elems // plan.size, plan.size), origin)
    factor = builder.constant(matrix.astype(x.type.dtype.numpy))
    product = builder.apply(ops.Dot(), rows, factor, origin=origin)
    wide = builder.reshape(product, (*moved.shape[:-1], plan.result), origin)
    return builder.transpose(wide, tuple(np.argsort(last).tolist()), origin)
