"""ONNX Resize and Upsample: a `Call` goes in, gathers weighted by constants come out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from aotc.errors import ModelError
from aotc.frontend.onnx_ops import runtime_resize
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.resize_plan import declared_scales, sampling
from aotc.frontend.onnx_ops.runtime import ints_or_declared
from aotc.frontend.resample import AxisPlan, Sampling, resize_axis, source_positions
from aotc.frontend.values import Value
from aotc.graph.ir import Node


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
        y = resize_axis(call.builder, y, plan, how, call.origin)
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
