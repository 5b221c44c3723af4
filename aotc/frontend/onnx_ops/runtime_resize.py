"""ONNX Resize by scales, sizes or a region known at run time only: a `Call` goes in, gathers at
computed places with computed weights come out.

The formulas are those of resize.py, on graph nodes; positions are computed in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call
from aotc.frontend.onnx_ops.extents import (
    Size,
    along,
    as_node,
    boxed,
    data_of,
    elements,
    iota,
    settle,
    simple,
)
from aotc.frontend.onnx_ops.resize_plan import declared_scales, sampling
from aotc.frontend.resample import Sampling
from aotc.frontend.values import Value
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType

MOST_TAPS = 256
"""More neighbours than this for one element (antialias at small scales) are refused."""


@dataclass(frozen=True)
class Axis:
    """One axis to resize: the operand's size, the box of the result and the elements filled in it,
    the scale (f64[]) and the region of interest (f64[] each)."""

    axis: int
    size: Size
    box: int
    result: Size
    scale: Node
    start: Node
    end: Node


def resize(call: Call) -> Value:
    """The data resampled along some axes."""
    x, sizes = data_of(call, 0)
    how = sampling(call)
    rank = len(sizes)
    axes = call.axes(call.attrs.integers("axes") or range(rank), rank)
    scales, results = _scales(call, [sizes[axis] for axis in axes])
    wanted = list(sizes)
    for axis, result in zip(axes, results, strict=True):
        wanted[axis] = result
    box, extents = settle(call, wanted, [None] * rank)
    starts, ends = _region(call, len(axes), how)
    for place, axis in enumerate(axes):
        plan = Axis(
            axis, sizes[axis], box[axis], extents[axis], scales[place], starts[place], ends[place]
        )
        if x.shape[axis] == 0 or box[axis] == 0:
            raise ModelError(f"axis {axis} is empty: {x.shape[axis]} to {box[axis]} elements")
        x = _resize_axis(call, x, plan, how)
        if how.coordinates == "tf_crop_and_resize":
            x = _fill_outside(call, x, plan, how)
    return boxed(x, extents)


def _real(call: Call, size: Size) -> Node:
    """A size as f64[]."""
    return call.cast(as_node(call, size), DType.F64)


def _numbers(call: Call, index: int, count: int, what: str) -> list[Node]:
    """The ``count`` numbers in input ``index``, f64[] each."""
    node = call[index]
    if node.type.elems != count:
        raise ModelError(f"its {what} are {node.type.elems} numbers, not {count}")
    flat = call.cast(call.reshape(node, (count,)), DType.F64)
    return [call.reshape(call.slice_axis(flat, 0, at, 1), ()) for at in range(count)]


def _scales(call: Call, dims: list[Size]) -> tuple[list[Node], list[Size]]:
    """The scale and the resulting size of each axis that is resized."""
    given = call.optional(3) if call.version >= 11 else None
    if given is None or given.type.elems == 0:
        if call.operator == "Upsample" and call.version < 9:
            given_scales = np.asarray(declared_scales(call), np.float64)
            scales = [call.constant(scale.reshape(())) for scale in given_scales]
        else:
            scales = _numbers(call, 1 if call.version < 11 else 2, len(dims), "scales")
        return scales, [_floor(call, dim, s) for dim, s in zip(dims, scales, strict=True)]
    sizes = elements(call, 3, "sizes")
    if len(sizes) != len(dims):
        raise ModelError(f"{len(sizes)} sizes for {len(dims)} axes")
    scales = [
        call.binary("div", _real(call, size), _real(call, dim))
        for size, dim in zip(sizes, dims, strict=True)
    ]
    policy = call.attrs.string("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return scales, sizes
    if policy not in ("not_larger", "not_smaller"):
        raise ModelError(f"attribute 'keep_aspect_ratio_policy' cannot be '{policy}'")
    chosen = scales[0]
    for scale in scales[1:]:
        chosen = call.binary("min" if policy == "not_larger" else "max", chosen, scale)
    return [chosen] * len(dims), [_floor(call, dim, chosen, 0.5) for dim in dims]


def _floor(call: Call, dim: Size, scale: Node, added: float = 0.0) -> Size:
    """``floor(dim * scale + added)``; -1 when that is not a size."""
    product = call.binary("add", call.binary("mul", _real(call, dim), scale), added)
    sane = call.binary(
        "and", call.compare("gt", scale, 0.0), call.compare("lt", product, float(2**40))
    )
    whole = call.select(sane, call.unary("floor", product), call.scalar(-1.0, product))
    return simple(call.cast(whole, DType.I64))


def _region(call: Call, count: int, how: Sampling) -> tuple[list[Node], list[Node]]:
    """The start and the end of the region of interest along each axis."""
    if how.coordinates == "tf_crop_and_resize":
        numbers = _numbers(call, 1, 2 * count, "region of interest")
        return numbers[:count], numbers[count:]
    zero, one = (call.constant(np.asarray(value, np.float64)) for value in (0, 1))
    return [zero] * count, [one] * count


def _positions(call: Call, plan: Axis, coordinates: str) -> Node:
    """For each place in the result's box, the (fractional) position in the operand: f64[box]."""
    x = call.cast(iota(call, plan.box), DType.F64)
    size, result = _real(call, plan.size), _real(call, plan.result)
    half = call.binary("sub", call.binary("div", call.binary("add", x, 0.5), plan.scale), 0.5)
    several = call.compare("gt", result, 1.0)
    last = call.binary("sub", size, 1.0)
    gaps = call.binary("max", call.binary("sub", result, 1.0), 1.0)
    if coordinates == "asymmetric":
        return call.binary("div", x, plan.scale)
    if coordinates == "half_pixel":
        return half
    if coordinates == "pytorch_half_pixel":
        return call.select(several, half, call.scalar(0.0, half))
    if coordinates == "tf_half_pixel_for_nn":
        return call.binary("div", call.binary("add", x, 0.5), plan.scale)
    if coordinates == "align_corners":
        # the length counts before it is rounded down to a whole number of elements
        length = call.binary("mul", plan.scale, size)
        between = call.binary("max", call.binary("sub", length, 1.0), 1.0)
        return call.binary("div", call.binary("mul", x, last), between)
    if coordinates == "half_pixel_symmetric":
        adjustment = call.binary("div", result, call.binary("mul", plan.scale, size))
        away = call.binary("sub", call.scalar(1.0, adjustment), adjustment)
        centre = call.binary("mul", call.binary("mul", size, 0.5), away)
        return call.binary("add", half, centre)
    if coordinates == "tf_crop_and_resize":
        first = call.binary("mul", plan.start, last)
        extent = call.binary("mul", call.binary("sub", plan.end, plan.start), last)
        spaced = call.binary("add", call.binary("div", call.binary("mul", x, extent), gaps), first)
        centre = call.binary("mul", call.binary("add", plan.start, plan.end), 0.5)
        return call.select(several, spaced, call.binary("mul", centre, last))
    raise ModelError(f"attribute 'coordinate_transformation_mode' cannot be '{coordinates}'")


def _whole(call: Call, positions: Node, rounding: str) -> Node:
    """Fractional positions as whole ones, still f64."""
    if rounding == "round_prefer_floor":
        return call.unary("ceil", call.binary("sub", positions, 0.5))
    if rounding == "round_prefer_ceil":
        return call.unary("floor", call.binary("add", positions, 0.5))
    if rounding not in ("floor", "ceil"):
        raise ModelError(f"attribute 'nearest_mode' cannot be '{rounding}'")
    return call.unary(rounding, positions)


def _inside(call: Call, places: Node, size: Size) -> Node:
    """Whole places (f64) as indices of an axis of ``size``."""
    last = call.binary("sub", _real(call, size), 1.0)
    return call.cast(call.binary("max", call.binary("min", places, last), 0.0), DType.I64)


def _resize_axis(call: Call, x: Node, plan: Axis, how: Sampling) -> Node:
    if plan.size == 1:
        # every neighbour is the one element, and the weights add up to 1
        return call.broadcast(
            x, [plan.box if at == plan.axis else n for at, n in enumerate(x.shape)]
        )
    positions = _positions(call, plan, how.coordinates)
    if how.mode == "nearest":
        places = _inside(call, _whole(call, positions, how.nearest), plan.size)
        return call.apply(ops.Gather(plan.axis), x, places)
    return _weighted(call, x, plan, how, positions)


def _weighted(call: Call, x: Node, plan: Axis, how: Sampling, positions: Node) -> Node:
    """The weighted sum of the neighbours of each position."""
    one = call.scalar(1.0, plan.scale)
    stretch = call.binary("min", plan.scale, one) if how.antialias else one
    reach = _reach(call, plan, how, x.shape[plan.axis])
    base = call.unary("floor", positions)
    size = _real(call, plan.size)
    places, weights = [], []
    for offset in range(1 - reach, reach + 1):
        place = call.binary("add", base, float(offset))
        distance = call.binary("mul", call.binary("sub", place, positions), stretch)
        weight = _kernel(call, call.unary("abs", distance), how)
        if how.exclude_outside:
            valid = call.compare("ge", place, 0.0)
            valid = call.binary("and", valid, call.compare("lt", place, size))
            weight = call.select(valid, weight, call.scalar(0.0, weight))
        places.append(_inside(call, place, plan.size))
        weights.append(weight)
    if how.exclude_outside or how.antialias:
        total = weights[0]
        for weight in weights[1:]:
            total = call.binary("add", total, weight)
        weights = [call.binary("div", weight, total) for weight in weights]
    result: Node | None = None
    for place, weight in zip(places, weights, strict=True):
        part = call.apply(ops.Gather(plan.axis), x, place)
        factor = along(call, call.cast(weight, x.type.dtype), plan.axis, x.type.rank)
        part = call.binary("mul", part, factor)
        result = part if result is None else call.binary("add", result, part)
    assert result is not None
    return result


def _reach(call: Call, plan: Axis, how: Sampling, size: int) -> int:
    """The most neighbours on each side that can have a weight: a result of ``box`` elements was
    made with a scale of at least (box - 1/2) / size."""
    support = 2 if how.mode == "cubic" else 1
    if not how.antialias:
        return support
    if isinstance(plan.result, Node):
        raise call.unsupported("with antialias, the size of its result must be declared")
    # a policy of the aspect ratio rounds the size of the result
    reach = math.ceil(support * max(1.0, size / (plan.box - 0.5)))
    if 2 * reach > MOST_TAPS:
        raise call.unsupported(f"antialias over {2 * reach} neighbours at a scale of run time")
    return reach


def _kernel(call: Call, d: Node, how: Sampling) -> Node:
    """The weight at the distances ``d`` (not negative)."""
    zero = call.scalar(0.0, d)
    if how.mode == "linear":
        return call.binary("max", call.binary("sub", call.scalar(1.0, d), d), zero)
    a = how.cubic_a
    near = call.binary("sub", call.binary("mul", d, a + 2), a + 3)
    near = call.binary("add", call.binary("mul", call.binary("mul", near, d), d), 1.0)
    far = call.binary("sub", call.binary("mul", d, a), 5 * a)
    far = call.binary("add", call.binary("mul", far, d), 8 * a)
    far = call.binary("sub", call.binary("mul", far, d), 4 * a)
    outer = call.select(call.compare("lt", d, 2.0), far, zero)
    return call.select(call.compare("le", d, 1.0), near, outer)


def _fill_outside(call: Call, y: Node, plan: Axis, how: Sampling) -> Node:
    """Positions beyond the operand get the extrapolation value."""
    positions = _positions(call, plan, how.coordinates)
    last = call.binary("sub", _real(call, plan.size), 1.0)
    outside = call.binary(
        "or", call.compare("lt", positions, 0.0), call.compare("gt", positions, last)
    )
    column = along(call, outside, plan.axis, y.type.rank)
    return call.select(column, call.scalar(how.extrapolation, y), y)
