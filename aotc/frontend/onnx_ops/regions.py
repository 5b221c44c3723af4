"""Pooling over regions of images (RoiAlign, MaxRoiPool): a `Call` goes in, gathers and reductions
come out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.folding import FoldingBuilder
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType, TensorType

MOST_UNROLLED = 16
"""More samples than this in a bin are taken in a loop."""


@dataclass(frozen=True)
class Bins:
    """The bins of all regions along one axis of the images: ``start`` [regions, bins] is where each
    starts, ``size`` [regions, 1] how long it is, ``samples`` [regions, 1] into how many equal parts
    it falls (whole floats), ``extent`` the length of the axis."""

    start: Node
    size: Node
    samples: Node
    extent: int

    def nodes(self) -> list[Node]:
        """What a nested graph must capture."""
        return [self.start, self.size, self.samples]

    def neighbours(self, call: Call, sample: Node) -> list[tuple[Node, Node]]:
        """The two pixels around the middle of part ``sample`` (a whole float), as int64, and their
        weights, each [regions, bins]; the weights are 0 outside the image and beyond the last
        part."""
        part = call.binary("div", call.binary("add", sample, 0.5), self.samples)
        place = call.binary("add", self.start, call.binary("mul", part, self.size))
        last = self.extent - 1.0
        inside = call.binary(
            "and", call.compare("ge", place, -1.0), call.compare("le", place, float(self.extent))
        )
        inside = call.binary("and", inside, call.compare("lt", sample, self.samples))
        place = call.binary("min", call.binary("max", place, 0.0), last)
        low = call.unary("floor", place)
        high = call.binary("min", call.binary("add", low, 1.0), last)
        after = call.binary("sub", place, low)
        before = call.binary("add", call.unary("neg", after), 1.0)
        nothing = call.scalar(0.0, place)
        return [
            (call.cast(pixel, DType.I64), call.select(inside, weight, nothing))
            for pixel, weight in ((low, before), (high, after))
        ]


def roi_align(call: Call) -> Node:
    """Each region in ``output_height`` by ``output_width`` bins; a bin is the mean or the maximum
    of samples between pixels, ``sampling_ratio`` in each direction or one for each pixel."""
    x, regions, batch = call[0], call[1], call[2]
    _expect_regions(x, regions, 4)
    if batch.shape != (regions.shape[0],):
        raise ModelError(f"images {batch.type} for regions {regions.type}")
    mode, ratio = call.attrs.string("mode", "avg"), call.attrs.integer("sampling_ratio", 0)
    size = [call.attrs.integer(f"output_{side}", 1) for side in ("height", "width")]
    if mode not in ("avg", "max") or min(size) < 1 or ratio < 0:
        raise ModelError(f"mode '{mode}', ratio {ratio} or size {size} is not valid")
    wide = DType.F32 if x.type.dtype.size_bytes < 4 else x.type.dtype
    images = call.transpose(call.cast(x, wide), (0, 2, 3, 1))
    pixels = x.shape[0] * x.shape[2] * x.shape[3]
    rows = call.reshape(images, (pixels, x.shape[1]))
    regions = call.cast(regions, wide)
    bins = [_bins(call, regions, 1 - axis, size[axis], x.shape[2 + axis], ratio) for axis in (0, 1)]
    first = call.binary("mul", call.cast(batch, DType.I64), x.shape[2] * x.shape[3])
    first = call.reshape(first, (regions.shape[0], 1, 1))
    if ratio > 0 and ratio * ratio <= MOST_UNROLLED:
        total: Node | None = None
        for at in range(ratio * ratio):
            row, column = (call.scalar(n, bins[0].start) for n in divmod(at, ratio))
            value = _sample(call, mode, rows, first, bins, row, column)
            total = _joined(call, mode, total, value)
        assert total is not None
    else:
        total = _all_samples(call, mode, rows, first, bins)
    shape = (regions.shape[0], *size, x.shape[1])
    y = call.transpose(call.reshape(total, shape), (0, 3, 1, 2))
    if mode == "avg":
        count = call.binary("mul", bins[0].samples, bins[1].samples)
        count = call.reshape(call.binary("max", count, 1.0), (regions.shape[0], 1, 1, 1))
        y = call.binary("div", y, count)
    return call.cast(y, x.type.dtype)


def _expect_regions(x: Node, regions: Node, columns: int) -> None:
    if x.type.rank != 4 or 0 in x.shape or not x.type.dtype.is_float:
        raise ModelError(f"needs images [N, C, H, W] of floats, got {x.type}")
    if regions.type.rank != 2 or regions.shape[1] != columns:
        raise ModelError(f"needs regions [count, {columns}], got {regions.type}")


def _bins(call: Call, regions: Node, column: int, count: int, extent: int, ratio: int) -> Bins:
    """The bins along the axis whose ends are in ``column`` and two columns further."""
    # opset 10 had no attribute and did not shift by half a pixel
    default = "half_pixel" if call.version >= 16 else "output_half_pixel"
    coordinates = call.attrs.string("coordinate_transformation_mode", default)
    if coordinates not in ("half_pixel", "output_half_pixel"):
        raise ModelError(f"coordinate_transformation_mode cannot be '{coordinates}'")
    scale = call.attrs.real("spatial_scale", 1.0)
    ends = [
        call.binary("mul", call.slice_axis(regions, 1, at, 1), scale) for at in (column, column + 2)
    ]
    if coordinates == "half_pixel":
        ends = [call.binary("sub", end, 0.5) for end in ends]
    whole = call.binary("sub", ends[1], ends[0])
    if coordinates != "half_pixel":
        whole = call.binary("max", whole, 1.0)
    size = call.binary("div", whole, float(count))
    place = call.apply(ops.Iota((1, count), 1, size.type.dtype))
    start = call.binary("add", ends[0], call.binary("mul", size, place))
    samples = call.binary("max", call.unary("ceil", size), 0.0)
    if ratio:
        samples = call.broadcast(call.scalar(ratio, size), size.shape)
    return Bins(start, size, samples, extent)


def _sample(
    call: Call, mode: str, rows: Node, first: Node, bins: list[Bins], row: Node, column: Node
) -> Node:
    """Sample (``row``, ``column``) of every bin: [regions * bins, C]."""
    value: Node | None = None
    width = bins[1].extent
    for y, y_weight in bins[0].neighbours(call, row):
        for x, x_weight in bins[1].neighbours(call, column):
            line = call.binary("add", call.binary("mul", _column(call, y), width), first)
            place = call.binary("add", line, _row(call, x))
            weight = call.binary("mul", _column(call, y_weight), _row(call, x_weight))
            pixel = call.apply(ops.Gather(0), rows, call.reshape(place, (place.type.elems,)))
            term = call.binary("mul", pixel, call.reshape(weight, (weight.type.elems, 1)))
            value = _joined(call, mode, value, term)
    assert value is not None
    return value


def _column(call: Call, x: Node) -> Node:
    return call.reshape(x, (*x.shape, 1))


def _row(call: Call, x: Node) -> Node:
    return call.reshape(x, (x.shape[0], 1, x.shape[1]))


def _joined(call: Call, mode: str, total: Node | None, value: Node) -> Node:
    """Sums for the mean. ONNX defines the maximum as that of the weighted pixels, not of their
    sums."""
    if total is None:
        return value
    return call.binary("max" if mode == "max" else "add", total, value)


def _all_samples(call: Call, mode: str, rows: Node, first: Node, bins: list[Bins]) -> Node:
    """The samples of every bin joined in a loop, as long as the bin with most of them needs."""
    most = [_most(call, axis.samples) for axis in bins]
    trips = call.cast(call.binary("mul", *most), DType.I64)
    positions = first.shape[0] * bins[0].start.shape[1] * bins[1].start.shape[1]
    initial = call.constant(np.asarray(0, rows.type.dtype.numpy))
    initial = call.broadcast(initial, (positions, rows.shape[1]))
    captured = [rows, first, most[1], *bins[0].nodes(), *bins[1].nodes()]
    builder = FoldingBuilder()
    inside = replace(call, builder=builder)
    index = builder.parameter("sample", TensorType(DType.I64, ()))
    before = builder.parameter("total", initial.type)
    own = [builder.parameter(f"captured{at}", node.type) for at, node in enumerate(captured)]
    local = [
        Bins(own[3 + 3 * at], own[4 + 3 * at], own[5 + 3 * at], axis.extent)
        for at, axis in enumerate(bins)
    ]
    at = inside.cast(index, rows.type.dtype)
    row = inside.unary("floor", inside.binary("div", inside.binary("add", at, 0.5), own[2]))
    column = inside.binary("sub", at, inside.binary("mul", row, own[2]))
    value = _sample(inside, mode, own[0], own[1], local, row, column)
    after = _joined(inside, mode, before, value)
    if mode == "max":
        # the first sample counts even when it is negative; one that a bin lacks does not
        start = inside.compare("eq", index, 0)
        after = inside.select(_present(inside, local, row, column), after, before)
        after = inside.select(start, value, after)
    going = builder.constant(np.asarray(True))
    body = builder.finish(call.origin, [("going", going), ("total", after)])
    always = call.constant(np.asarray(True))
    loop = call.apply(ops.Repeat(body, 1, 0, ops.UNLIMITED), trips, always, initial, *captured)
    return call.apply(ops.Item(1), loop)


def _most(call: Call, samples: Node) -> Node:
    """The largest number of samples of any region, 0 without regions."""
    if samples.type.elems == 0:
        return call.scalar(0.0, samples)
    return call.reduce("max", samples, (0, 1), keep=False)


def _present(call: Call, bins: list[Bins], row: Node, column: Node) -> Node:
    """Whether each bin has the sample: bool[positions, 1]."""
    has = call.binary(
        "and",
        call.compare("lt", row, bins[0].samples),
        call.compare("lt", column, bins[1].samples),
    )
    shape = (has.shape[0], bins[0].start.shape[1], bins[1].start.shape[1])
    spread = call.broadcast(call.reshape(has, (has.shape[0], 1, 1)), shape)
    return call.reshape(spread, (spread.type.elems, 1))


def max_roi_pool(call: Call) -> Node:
    """The largest pixel of each bin of each region [image, x1, y1, x2, y2]; 0 for an empty bin.
    Ends are rounded to pixels, bins outwards (Girshick, Fast R-CNN, 2015)."""
    x, regions = call[0], call[1]
    _expect_regions(x, regions, 5)
    size = call.attrs.required_integers("pooled_shape")
    if len(size) != 2 or min(size) < 1:
        raise ModelError(f"attribute 'pooled_shape' is {size}: needs two numbers of 1 or more")
    image = call.cast(call.slice_axis(regions, 1, 0, 1), DType.I64)
    # [regions, C, H, W] reduced over W, then over H
    y = call.apply(ops.Gather(0), x, call.reshape(image, (regions.shape[0],)))
    for axis in (1, 0):
        low, high = _whole_bins(call, regions, 1 + (1 - axis), size[axis], x.shape[2 + axis])
        y = _largest_between(call, y, 2 + axis, low, high)
    return call.select(call.compare("eq", y, -np.inf), call.scalar(0.0, y), y)


def _whole_bins(
    call: Call, regions: Node, column: int, count: int, extent: int
) -> tuple[Node, Node]:
    """The first pixel of each bin and the one after its last, [regions, bins], as whole floats."""
    scale = call.attrs.real("spatial_scale", 1.0)
    # half away from zero
    ends = []
    for at in (column, column + 2):
        end = call.binary("mul", call.slice_axis(regions, 1, at, 1), scale)
        whole = call.unary("floor", call.binary("add", call.unary("abs", end), 0.5))
        ends.append(call.binary("mul", whole, call.unary("sign", end)))
    length = call.binary("max", call.binary("add", call.binary("sub", ends[1], ends[0]), 1.0), 1.0)
    size = call.binary("div", length, float(count))
    place = call.apply(ops.Iota((1, count), 1, size.type.dtype))
    low = call.unary("floor", call.binary("mul", size, place))
    high = call.unary("ceil", call.binary("mul", size, call.binary("add", place, 1.0)))
    limits = [call.binary("add", edge, ends[0]) for edge in (low, high)]
    kept = [call.binary("min", call.binary("max", edge, 0.0), float(extent)) for edge in limits]
    return kept[0], kept[1]


def _largest_between(call: Call, x: Node, axis: int, low: Node, high: Node) -> Node:
    """For each bin the largest of ``axis`` from ``low`` to before ``high``, -inf for none."""
    rank, bins = x.type.rank, low.shape[1]
    apart = call.reshape(x, (*x.shape[:axis], 1, *x.shape[axis:]))
    line = (*(1,) * (axis + 1), x.shape[axis], *(1,) * (rank - axis - 1))
    place = call.apply(ops.Iota(line, axis + 1, low.type.dtype))
    column = [low.shape[0], *(1,) * rank]
    column[axis] = bins
    inside = call.binary(
        "and",
        call.compare("ge", place, call.reshape(low, column)),
        call.compare("lt", place, call.reshape(high, column)),
    )
    kept = call.select(inside, apart, call.scalar(-np.inf, x))
    return call.reduce("max", kept, [axis + 1], keep=False)


RULES: Mapping[str, Rule] = MappingProxyType({"MaxRoiPool": max_roi_pool, "RoiAlign": roi_align})
