"""Sampling images at computed places (GridSample, DeformConv): a `Call` goes in, one gather for
each neighbouring pixel comes out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from aotc.errors import ModelError
from aotc.frontend.folding import known_value
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.conv import with_bias
from aotc.frontend.onnx_ops.runtime import ints_or_declared
from aotc.frontend.onnx_ops.window import declared_pads, per_axis
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType

CUBIC = -0.75
"""The coefficient of the cubic kernel (Keys, Cubic convolution interpolation, 1981)."""

MODES: Mapping[str, str] = MappingProxyType(
    {
        "bilinear": "linear",
        "linear": "linear",
        "bicubic": "cubic",
        "cubic": "cubic",
        "nearest": "nearest",
    }
)
"""Attribute ``mode`` of GridSample: the names of opset 16 and those since 20."""

MOST_TAPS = 256
"""More neighbours than this for one sample (cubic over five axes, linear over nine) are refused."""


@dataclass(frozen=True)
class Images:
    """Images as rows of channels.

    ``rows`` is [N, pixels, C], with one row of zeros behind the pixels when what lies outside is
    zero (``padding`` is 'zeros'); 'border' repeats the edge and 'reflection' mirrors the image at
    the centres of its outer pixels (``align``) or at their outer edges.
    """

    rows: Node
    size: tuple[int, ...]
    padding: str
    align: bool

    @classmethod
    def of(cls, call: Call, x: Node, padding: str, align: bool) -> Images:
        """The images ``x`` [N, C, *size]."""
        size = x.shape[2:]
        pixels = math.prod(size)
        if pixels == 0:
            raise ModelError(f"{x.type} has no pixels to sample")
        flat = call.reshape(x, (*x.shape[:2], pixels))
        rows = call.transpose(flat, (0, 2, 1))
        if padding == "zeros":
            rows = call.pad(rows, (0, 0, 0), (0, 1, 0))
        return cls(rows, size, padding, align)

    def limits(self, axis: int) -> tuple[float, float]:
        """Between which places of ``axis`` nothing needs reflecting."""
        return (0.0, self.size[axis] - 1.0) if self.align else (-0.5, self.size[axis] - 0.5)

    def inward(self, call: Call, place: Node, axis: int) -> Node:
        """``place`` moved to where the padding takes its values from."""
        if self.padding == "zeros":
            return place
        low, high = self.limits(axis)
        if self.padding == "reflection":
            return reflected(call, place, low, high)
        outside = call.binary("or", call.compare("lt", place, low), call.compare("gt", place, high))
        last = self.size[axis] - 1.0
        nearest = call.binary("min", call.binary("max", place, 0.0), last)
        return call.select(outside, nearest, place)

    def pixel(self, call: Call, places: Sequence[Node]) -> Node:
        """The rows at whole ``places``, one [N, Q] of floats for each axis: [N, Q, C]."""
        flat: Node | None = None
        inside: Node | None = None
        for axis, (place, size) in enumerate(zip(places, self.size, strict=True)):
            if self.padding == "reflection":
                place = reflected(call, place, *self.limits(axis))
            near = call.binary("min", call.binary("max", place, 0.0), size - 1.0)
            if self.padding == "zeros":
                within = call.compare("eq", near, place)
                inside = within if inside is None else call.binary("and", inside, within)
            index = call.cast(near, DType.I64)
            if flat is not None:
                index = call.binary("add", call.binary("mul", flat, size), index)
            flat = index
        assert flat is not None
        if inside is not None:
            nothing = call.scalar(math.prod(self.size), flat)
            flat = call.select(inside, flat, nothing)
        return call.apply(ops.GatherND(1), self.rows, call.reshape(flat, (*flat.shape, 1)))

    def interpolate(self, call: Call, places: Sequence[Node], mode: str) -> Node:
        """The samples [N, Q, C] at ``places``, one [N, Q] of floats for each axis."""
        if (4 if mode == "cubic" else 2) ** len(places) > MOST_TAPS:
            raise call.unsupported(f"{mode} interpolation over {len(places)} axes")
        taps = [_taps(call, place, mode) for place in places]
        total: Node | None = None
        for choice in itertools.product(*taps):
            pixel = self.pixel(call, [place for place, _ in choice])
            weight = choice[0][1]
            for _, other in choice[1:]:
                weight = call.binary("mul", weight, other)
            weight = call.cast(call.reshape(weight, (*weight.shape, 1)), pixel.type.dtype)
            term = call.binary("mul", pixel, weight)
            total = term if total is None else call.binary("add", total, term)
        assert total is not None
        return total


def reflected(call: Call, place: Node, low: float, high: float) -> Node:
    """``place`` mirrored at ``low`` and ``high`` until it lies between them."""
    span = high - low
    if span == 0:
        return call.broadcast(call.scalar(low, place), place.shape)
    below = call.compare("lt", place, low)
    beyond = call.select(
        below, call.binary("add", call.unary("neg", place), low), call.binary("sub", place, high)
    )
    turns = call.unary("floor", call.binary("mul", beyond, 1.0 / span))
    rest = call.binary("sub", beyond, call.binary("mul", turns, span))
    half = call.binary("mul", turns, 0.5)
    even = call.compare("eq", call.unary("floor", half), half)
    rising = call.compare("eq", below, even)
    mirrored = call.select(
        rising, call.binary("add", rest, low), call.binary("add", call.unary("neg", rest), high)
    )
    return call.select(call.compare("le", beyond, 0.0), place, mirrored)


def _taps(call: Call, place: Node, mode: str) -> list[tuple[Node, Node]]:
    """The neighbours of ``place`` on one axis and their weights."""
    first = call.unary("floor", place)
    after = call.binary("sub", place, first)
    before = call.binary("add", call.unary("neg", after), 1.0)
    if mode == "linear":
        return [(first, before), (call.binary("add", first, 1.0), after)]
    weights = [_far(call, after), _near(call, after), _near(call, before), _far(call, before)]
    steps = (-1.0, 0.0, 1.0, 2.0)
    return [
        (call.binary("add", first, step), weight)
        for step, weight in zip(steps, weights, strict=True)
    ]


def _near(call: Call, distance: Node) -> Node:
    """The cubic kernel at a distance of 0 to 1."""
    line = call.binary("sub", call.binary("mul", distance, CUBIC + 2), CUBIC + 3)
    square = call.binary("mul", distance, distance)
    return call.binary("add", call.binary("mul", line, square), 1.0)


def _far(call: Call, distance: Node) -> Node:
    """The cubic kernel at ``distance + 1``: a (s^3 - 5 s^2 + 8 s - 4) with s from 1 to 2, which is
    a d (d - 1)^2 with d = s - 1."""
    left = call.binary("sub", distance, 1.0)
    square = call.binary("mul", left, left)
    return call.binary("mul", call.binary("mul", square, distance), CUBIC)


def _expect_floats(x: Node) -> DType:
    """The type to compute with."""
    if not x.type.dtype.is_float:
        raise ModelError(f"needs floats, got {x.type}")
    return DType.F32 if x.type.dtype is DType.F16 else x.type.dtype


def grid_sample(call: Call) -> Node:
    """The images sampled where the grid says, from -1 at one end of an axis to 1 at the other; the
    last axis of the grid lists the coordinates of the last axis of the images first."""
    x, grid = call[0], call[1]
    rank = x.type.rank - 2
    align = call.attrs.flag("align_corners")
    mode = MODES.get(call.attrs.string("mode", "linear"))
    padding = call.attrs.string("padding_mode", "zeros")
    if mode is None or padding not in ("zeros", "border", "reflection"):
        raise ModelError(f"attributes 'mode' and 'padding_mode' ('{padding}') are not valid")
    if rank < 1 or grid.type.rank != rank + 2 or grid.shape[-1] != rank:
        raise ModelError(f"the grid {grid.type} does not address the images {x.type}")
    if grid.shape[0] != x.shape[0]:
        raise ModelError(f"{x.shape[0]} images, but grids for {grid.shape[0]}")
    dtype = x.type.dtype
    wide = DType.F32 if dtype is DType.F16 or not dtype.is_float else dtype
    images = Images.of(call, x if mode == "nearest" else call.cast(x, wide), padding, align)
    grid = call.cast(grid, _expect_floats(grid))
    count = math.prod(grid.shape[1:-1])
    places = []
    for axis, size in enumerate(images.size):
        column = call.slice_axis(grid, rank + 1, rank - 1 - axis, 1)
        place = _denormalized(call, call.reshape(column, (x.shape[0], count)), size, align)
        place = call.unary("round", place) if mode == "nearest" else place
        places.append(images.inward(call, place, axis))
    if mode == "nearest":
        y = images.pixel(call, places)
    else:
        y = call.cast(images.interpolate(call, places, mode), dtype)
    return call.reshape(call.transpose(y, (0, 2, 1)), (*x.shape[:2], *grid.shape[1:-1]))


def _denormalized(call: Call, place: Node, size: int, align: bool) -> Node:
    """A place from -1 to 1 in pixels."""
    shifted = call.binary("add", place, 1.0)
    if align:
        return call.binary("mul", call.binary("mul", shifted, 0.5), size - 1.0)
    return call.binary("mul", call.binary("sub", call.binary("mul", shifted, size), 1.0), 0.5)


def deform_conv(call: Call) -> Node:
    """A convolution each of whose taps reads where its own offset says, by linear interpolation,
    times a mask; and bias."""
    x, weights, offset, mask = call[0], call[1], call[2], call.optional(4)
    rank = x.type.rank - 2
    if rank < 1 or not x.type.rank == weights.type.rank == offset.type.rank:
        raise ModelError(f"{x.type}, {weights.type}, {offset.type}: the ranks do not fit")
    window, out = weights.shape[2:], offset.shape[2:]
    groups, parts = call.attrs.integer("group", 1), call.attrs.integer("offset_group", 1)
    batch, channels, outputs = x.shape[0], x.shape[1], weights.shape[0]
    taps = math.prod(window)
    if min(groups, parts) < 1 or channels % parts or outputs % groups:
        raise ModelError(f"{x.type} does not fit {groups} groups, {parts} of offsets")
    if channels != weights.shape[1] * groups or offset.shape[:2] != (batch, parts * taps * rank):
        raise ModelError(f"{x.type}, weights {weights.type}, offsets {offset.type} do not fit")
    _expect_extent(call, x, window, out)
    wide = _expect_floats(x)
    places = _tap_places(call, call.cast(offset, wide), parts, window, out)
    split = call.reshape(call.cast(x, wide), (batch * parts, channels // parts, *x.shape[2:]))
    values = Images.of(call, split, "zeros", True).interpolate(call, places, "linear")
    if mask is not None:
        scale = call.reshape(call.cast(mask, wide), (batch * parts, taps * math.prod(out), 1))
        values = call.binary("mul", values, scale)
    # [N parts, taps, positions, C/parts] -> [N, groups, C/groups, taps, positions]
    count = math.prod(out)
    apart = call.reshape(values, (batch * parts, taps, count, channels // parts))
    columns = call.reshape(
        call.transpose(apart, (0, 3, 1, 2)), (batch, groups, channels // groups * taps, count)
    )
    kernels = call.reshape(
        call.cast(weights, wide), (1, groups, outputs // groups, channels // groups * taps)
    )
    y = call.apply(ops.Dot(), call.broadcast(kernels, (batch, *kernels.shape[1:])), columns)
    y = call.cast(call.reshape(y, (batch, outputs, *out)), x.type.dtype)
    return with_bias(call, y, call.optional(3))


def _expect_extent(call: Call, x: Node, window: tuple[int, ...], out: tuple[int, ...]) -> None:
    """ModelError unless the offsets are for the positions that the attributes give."""
    rank = len(window)
    low, high = declared_pads(call, rank)
    strides = per_axis(call, "strides", rank, 1)
    dilation = per_axis(call, "dilations", rank, 1)
    declared = call.attrs.integers("kernel_shape")
    if declared not in (None, window):
        raise ModelError(f"kernel_shape {declared} is not that of the weights, {window}")
    extents = tuple(
        (x.shape[2 + at] + low[at] + high[at] - (window[at] - 1) * dilation[at] - 1) // strides[at]
        + 1
        for at in range(rank)
    )
    if extents != out:
        raise ModelError(f"offsets for {out} positions, but the window takes {extents}")


def _tap_places(
    call: Call, offset: Node, parts: int, window: tuple[int, ...], out: tuple[int, ...]
) -> list[Node]:
    """Where each tap reads: for each axis [N parts, taps * positions]."""
    rank, taps, batch = len(window), math.prod(window), offset.shape[0]
    low, _ = declared_pads(call, rank)
    strides = per_axis(call, "strides", rank, 1)
    dilation = per_axis(call, "dilations", rank, 1)
    apart = call.reshape(offset, (batch * parts, taps, rank, math.prod(out)))
    places = []
    for axis in range(rank):
        moved = call.slice_axis(apart, 2, axis, 1)
        moved = call.reshape(moved, (batch * parts, *window, *out))
        tap = call.apply(ops.Iota((*window, *(1,) * rank), axis, offset.type.dtype))
        at = call.apply(ops.Iota((*(1,) * rank, *out), rank + axis, offset.type.dtype))
        start = call.binary("sub", call.binary("mul", at, strides[axis]), low[axis])
        whole = call.binary("add", start, call.binary("mul", tap, dilation[axis]))
        place = call.binary("add", moved, whole)
        places.append(call.reshape(place, (batch * parts, taps * math.prod(out))))
    return places


def affine_grid(call: Call) -> Node:
    """The places [N, *size, rank] at which affine maps ``theta`` [N, rank, rank + 1] put the pixels
    of an image [N, C, *size], for GridSample."""
    theta = call[0]
    if theta.type.rank != 3 or theta.shape[2] != theta.shape[1] + 1 or theta.shape[1] < 1:
        raise ModelError(f"needs maps [N, rank, rank + 1], got {theta.type}")
    batch, rank, _ = theta.shape
    dims = call.declared_dims(0)
    size: tuple[int, ...] | None = None
    if dims is not None and len(dims) == rank + 2 and known_value(call[1]) is None:
        # the result does not say the number of channels, which does not matter
        given = call.reshape(call[1], (rank + 2,))
        spatial = call.slice_axis(given, 0, 2, rank)
        size = ints_or_declared(replace(call, inputs=(theta, spatial)), 1, "size", dims[1:-1])
    else:
        _, _, *known = call.known_ints(1, "size")
        size = tuple(known)
    if len(size) != rank or min(size) < 1:
        raise ModelError(f"a size of {size} does not fit maps {theta.type}")
    align, dtype = call.attrs.flag("align_corners"), theta.type.dtype
    columns = []
    for axis in reversed(range(rank)):
        place = call.apply(ops.Iota((*size, 1), axis, dtype))
        span = max(size[axis] - 1, 1) if align else size[axis]
        first = -1.0 if align else 1.0 / span - 1.0
        columns.append(call.binary("add", call.binary("mul", place, 2.0 / span), first))
    columns.append(call.broadcast(call.scalar(1.0, theta), (*size, 1)))
    points = call.reshape(call.concat(columns, rank), (1, math.prod(size), rank + 1))
    points = call.broadcast(points, (batch, *points.shape[1:]))
    y = call.apply(ops.Dot(), points, call.transpose(theta, (0, 2, 1)))
    return call.reshape(y, (batch, *size, rank))


RULES: Mapping[str, Rule] = MappingProxyType(
    {"AffineGrid": affine_grid, "DeformConv": deform_conv, "GridSample": grid_sample}
)
