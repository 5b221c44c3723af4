"""ONNX Resize and Upsample: a `Call` goes in, gathers weighted by constants come out.

Coordinate formulas are those of ONNX Resize (github.com/onnx/onnx, docs/Operators.md#Resize).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.onnx_ops import runtime_resize
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.linalg import matrix_product
from aotc.frontend.onnx_ops.resize_plan import Sampling, declared_scales, sampling
from aotc.frontend.onnx_ops.runtime import ints_or_declared
from aotc.frontend.values import Value
from aotc.graph import ops
from aotc.graph.ir import Node

MAX_GATHERS = 8
"""More taps than this (antialias at small scales) become a matrix product."""


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


def taps(plan: AxisPlan, how: Sampling) -> tuple[np.ndarray, np.ndarray]:
    """Which input elements make each output element: places [taps, result] and weights [taps,
    result]."""
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


def _nearest_axis(call: Call, x: Node, plan: AxisPlan, how: Sampling) -> Node:
    positions = source_positions(plan, how.coordinates)
    places = np.clip(nearest_places(positions, how.nearest), 0, plan.size - 1)
    factor = plan.result // plan.size
    repeats = factor > 0 and factor * plan.size == plan.result
    if repeats and np.array_equal(places, np.arange(plan.result) // factor):
        # [a, b] -> [a, 1, b] -> [a, factor, b]: repeating needs no index
        dims = x.shape
        apart = call.reshape(x, (*dims[: plan.axis + 1], 1, *dims[plan.axis + 1 :]))
        wide = call.broadcast(apart, (*dims[: plan.axis + 1], factor, *dims[plan.axis + 1 :]))
        return call.reshape(wide, (*dims[: plan.axis], plan.result, *dims[plan.axis + 1 :]))
    return call.apply(ops.Gather(plan.axis), x, call.constant(places))


def _weighted_axis(call: Call, x: Node, plan: AxisPlan, how: Sampling) -> Node:
    places, weights = taps(plan, how)
    if len(places) > MAX_GATHERS:
        return _matrix_axis(call, x, plan, places, weights)
    column = (plan.result, *(1,) * (x.type.rank - plan.axis - 1))
    total: Node | None = None
    for place, weight in zip(places, weights, strict=True):
        if not weight.any():
            continue
        part = call.apply(ops.Gather(plan.axis), x, call.constant(place))
        factor = call.constant(weight.astype(x.type.dtype.numpy).reshape(column))
        part = call.binary("mul", part, factor)
        total = part if total is None else call.binary("add", total, part)
    assert total is not None
    return total


def _matrix_axis(
    call: Call, x: Node, plan: AxisPlan, places: np.ndarray, weights: np.ndarray
) -> Node:
    """Many taps for each element: one product with a matrix [size, result]."""
    matrix = np.zeros((plan.size, plan.result))
    np.add.at(matrix, (places, np.arange(plan.result)), weights)
    last = [axis for axis in range(x.type.rank) if axis != plan.axis] + [plan.axis]
    moved = call.transpose(x, last)
    factor = call.constant(matrix.astype(x.type.dtype.numpy))
    return call.transpose(matrix_product(call, moved, factor), np.argsort(last).tolist())


def _resize_axis(call: Call, x: Node, plan: AxisPlan, how: Sampling) -> Node:
    if how.mode == "nearest":
        return _nearest_axis(call, x, plan, how)
    return _weighted_axis(call, x, plan, how)


def _fill_outside(call: Call, y: Node, plan: AxisPlan, how: Sampling) -> Node:
    """Under tf_crop_and_resize, positions beyond the input get the extrapolation value."""
    positions = source_positions(plan, how.coordinates)
    outside = (positions < 0) | (positions > plan.size - 1)
    if not outside.any():
        return y
    column = (plan.result, *(1,) * (y.type.rank - plan.axis - 1))
    mask = call.constant(outside.reshape(column))
    return call.select(mask, call.scalar(how.extrapolation, y), y)


def resize(call: Call) -> Value:
    """The data resampled along some axes, to given sizes or by given scales."""
    return _resize_known(call) if _is_known(call) else runtime_resize.resize(call)


def _is_known(call: Call) -> bool:
    """Whether the coordinates follow from constants and from what the model declares."""
    if not isinstance(call.value(0), Node):
        return False
    crops = call.attrs.string("coordinate_transformation_mode", "") == "tf_crop_and_resize"
    if crops and not call.is_known(1):
        return False
    given = call.optional(3) if call.version >= 11 else None
    if given is None or given.type.elems == 0:
        return call.is_known(1 if call.version < 11 else 2)
    stretches = call.attrs.string("keep_aspect_ratio_policy", "stretch") == "stretch"
    return call.is_known(3) or (stretches and call.declared_dims(0) is not None)


def _resize_known(call: Call) -> Node:
    x = call[0]
    how = sampling(call)
    y = x
    # all coordinates first: a later axis must not see the sizes of an earlier one
    plans = _plans(call, x, how)
    for plan in plans:
        whole = how.coordinates == "tf_crop_and_resize"
        if plan.size == plan.result and plan.scale == 1.0 and not whole:
            continue
        if plan.size == 0 or plan.result == 0:
            raise ModelError(f"axis {plan.axis} is empty: {plan.size} to {plan.result} elements")
        # a scale below 1 with antialias reads 1 / scale elements for each one
        call.expect_indexable(plan.result * (plan.size if how.antialias else 1))
        y = _resize_axis(call, y, plan, how)
    if how.coordinates == "tf_crop_and_resize":
        for plan in plans:
            y = _fill_outside(call, y, plan, how)
    return y


def _plans(call: Call, x: Node, how: Sampling) -> list[AxisPlan]:
    rank = x.type.rank
    axes = call.axes(call.attrs.integers("axes") or range(rank), rank)
    scales_at = 1 if call.version < 11 else 2
    sizes = None
    if call.version >= 11 and call.optional(3) is not None and call[3].type.elems:
        declared = call.declared_dims(0)
        wanted = None if declared is None else [declared[axis] for axis in axes]
        sizes = ints_or_declared(call, 3, "sizes", wanted)
    roi = [0.0] * len(axes) + [1.0] * len(axes)
    if how.coordinates == "tf_crop_and_resize":
        roi = [float(v) for v in call.known(1, "region of interest").reshape(-1)]
    if sizes is not None:
        scales, results = _from_sizes(call, [x.shape[axis] for axis in axes], sizes)
    else:
        if call.operator == "Upsample" and call.version < 9:
            scales = declared_scales(call)
        else:
            scales = [float(v) for v in call.known(scales_at, "scales").reshape(-1)]
        if len(scales) != len(axes) or not all(0 < s < math.inf for s in scales):
            raise ModelError(f"scales {scales} do not fit {len(axes)} axes")
        results = [math.floor(x.shape[a] * s) for a, s in zip(axes, scales, strict=True)]
    if len(roi) != 2 * len(axes):
        raise ModelError(f"the region of interest has {len(roi)} numbers for {len(axes)} axes")
    return [
        AxisPlan(axis, x.shape[axis], results[i], scales[i], (roi[i], roi[i + len(axes)]))
        for i, axis in enumerate(axes)
    ]


def _from_sizes(
    call: Call, dims: list[int], sizes: tuple[int, ...]
) -> tuple[list[float], list[int]]:
    """Scales and result sizes for asked-for sizes, under keep_aspect_ratio_policy."""
    if len(sizes) != len(dims) or min(sizes, default=0) < 0 or 0 in dims:
        raise ModelError(f"sizes {sizes} do not fit axes of {dims}")
    scales = [size / dim for size, dim in zip(sizes, dims, strict=True)]
    policy = call.attrs.string("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return scales, list(sizes)
    if policy not in ("not_larger", "not_smaller"):
        raise ModelError(f"attribute 'keep_aspect_ratio_policy' cannot be '{policy}'")
    scale = min(scales) if policy == "not_larger" else max(scales)
    return [scale] * len(dims), [math.floor(scale * dim + 0.5) for dim in dims]


RULES: Mapping[str, Rule] = MappingProxyType({"Resize": resize, "Upsample": resize})
