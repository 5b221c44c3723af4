"""ONNX operators between images and parts of them (Col2Im, MaxUnpool, CenterCropPad, places of
maxima): a `Call` goes in, slices and scatters come out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import reduce
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.folding import known_value
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.runtime import ints_or_declared
from aotc.frontend.onnx_ops.window import Window, declared_pads, per_axis
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType

MOST_TAPS = 32
"""A longer window is gathered instead of compared tap by tap."""

MOST_SHAPES = 16
"""More shapes of blocks than this are not chosen between at run time."""


def largest_with_place(call: Call, x: Node, window: Window, by_column: bool) -> tuple[Node, Node]:
    """The largest element of each window over [N, C, *spatial] and its place (int64) in ``x``
    flattened, or with the spatial axes in the opposite order (``by_column``). The first of equal
    ones counts."""
    spatial = x.shape[2:]
    place = _flat_place(call, x, by_column)
    # rows first, then the best of the rows: the first of all in the order of the elements
    for axis in reversed(range(len(spatial))):
        x, place = _largest_along(call, x, place, window, axis)
    return x, place


def _largest_along(
    call: Call, x: Node, place: Node, window: Window, axis: int
) -> tuple[Node, Node]:
    """`largest_with_place` along one spatial axis."""
    call.expect_indexable(window.extent[axis])
    lowest = -np.inf if x.type.dtype.is_float else int(np.iinfo(x.type.dtype.numpy).min)
    low, high = [0] * x.type.rank, [0] * x.type.rank
    low[2 + axis], high[2 + axis] = window.low[axis], window.high[axis]
    if window.size[axis] > MOST_TAPS:
        return _largest_by_index(call, call.pad(x, low, high, lowest), place, window, axis)
    sources = call.pad(x, low, high, lowest), call.pad(place, low, high)
    first = np.arange(window.extent[axis]) * window.strides[axis] - window.low[axis]
    column = (window.extent[axis], *(1,) * (x.type.rank - axis - 3))
    seen = np.zeros(window.extent[axis], dtype=bool)
    best: tuple[Node, ...] | None = None
    for tap in range(window.size[axis]):
        start = tap * window.dilation[axis]
        here = tuple(
            call.slice_axis(source, 2 + axis, start, window.extent[axis], window.strides[axis])
            for source in sources
        )
        inside = (first + start >= 0) & (first + start < x.shape[2 + axis])
        if best is None:
            best = here
        else:
            better = call.compare("gt", here[0], best[0])
            # padding never counts, the first element always does, even if it is the lowest number
            if not inside.all():
                better = call.binary("and", better, call.constant(inside.reshape(column)))
            if (inside & ~seen).any():
                fresh = call.constant((inside & ~seen).reshape(column))
                better = call.binary("or", better, fresh)
            best = tuple(call.select(better, *pair) for pair in zip(here, best, strict=True))
        seen |= inside
    assert best is not None
    return best[0], best[1]


def _largest_by_index(
    call: Call, padded: Node, place: Node, window: Window, axis: int
) -> tuple[Node, Node]:
    """`_largest_along` for long windows, whose elements are gathered side by side."""
    extent, taps, gap = window.extent[axis], window.size[axis], window.dilation[axis]
    call.expect_indexable(extent * taps)
    start = np.arange(extent) * window.strides[axis]
    index = call.constant(start[:, None] + np.arange(taps) * gap)
    side = call.apply(ops.Gather(2 + axis), padded, index)
    tap = call.apply(ops.ArgReduce("max", 3 + axis, last=False), side)
    column = (extent, *(1,) * (padded.type.rank - axis - 3))
    first = (start - window.low[axis]).reshape(column)
    found = call.binary("add", call.binary("mul", tap, gap), call.constant(first))
    # padding wins only where all is the lowest number; then the first element counts
    inside = first + -(np.minimum(first, 0) // gap) * gap
    found = call.binary("max", found, call.constant(inside))
    best = call.reduce("max", side, [3 + axis], keep=False)
    return best, call.apply(ops.GatherElements(2 + axis), place, found)


def _flat_place(call: Call, x: Node, by_column: bool) -> Node:
    """Where each element stands in ``x`` flattened."""
    spatial = x.shape[2:]
    pixels = math.prod(spatial)
    strides = [x.shape[1] * pixels, pixels]
    for at in range(len(spatial)):
        strides.append(math.prod(spatial[:at] if by_column else spatial[at + 1 :]))
    terms = [
        call.binary("mul", call.apply(ops.Iota(x.shape, axis, DType.I64)), stride)
        for axis, stride in enumerate(strides)
    ]
    return reduce(lambda a, b: call.binary("add", a, b), terms)


def max_unpool(call: Call) -> Node:
    """The elements at the places that a maximum pooling gave, zeros elsewhere."""
    x, places = call[0], call[1]
    rank = x.type.rank - 2
    if rank < 1 or places.shape != x.shape:
        raise ModelError(f"{x.type} and places {places.type} do not fit")
    size = call.attrs.required_integers("kernel_shape")
    if len(size) != rank:
        raise ModelError(f"a window of {size} does not fit {x.type}")
    strides = per_axis(call, "strides", rank, 1)
    low, high = declared_pads(call, rank)
    pooled = [
        (x.shape[2 + at] - 1) * strides[at] + size[at] - low[at] - high[at] for at in range(rank)
    ]
    shape: tuple[int, ...] = (*x.shape[:2], *pooled)
    if min(pooled) < 1:
        raise ModelError(f"pads leave nothing of the result: {shape}")
    flat = call.reshape(places, (places.type.elems,))
    zeros = call.broadcast(call.scalar(0, x), (math.prod(shape),))
    values = call.reshape(x, (x.type.elems,))
    y = call.reshape(call.apply(ops.ScatterElements(0, "set"), zeros, flat, values), shape)
    if call.optional(2) is None:
        return y
    wanted = ints_or_declared(call, 2, "output shape", call.declared_dims(0))
    if len(wanted) != len(shape) or any(n < own for n, own in zip(wanted, shape, strict=True)):
        raise ModelError(f"the output shape {wanted} does not hold {shape}")
    return call.pad(y, [0] * len(shape), [n - own for n, own in zip(wanted, shape, strict=True)])


def col2im(call: Call) -> Node:
    """Images from columns of blocks; where blocks overlap they add up."""
    x, dims = call[0], call.declared_dims(0)
    rank = call[1].type.elems
    declared = dims if dims is not None and len(dims) == rank + 2 else None
    image = ints_or_declared(call, 1, "image shape", declared and declared[2:])
    if x.type.rank != 3 or rank < 1 or min(image) < 1 or call[2].type.elems != rank:
        raise ModelError(f"columns {x.type}, an image of {image}, blocks {call[2].type}: no fit")
    if known_value(call[2]) is not None or declared is None:
        return _add_blocks(call, x, image, call.known_ints(2, "block shape"))
    block = call.cast(call.reshape(call[2], (rank,)), DType.I64)
    found: Node | None = None
    result: Node | None = None
    choices = _block_shapes(call, x, image, declared[1])
    if len(choices) > MOST_SHAPES:
        call.known_ints(2, "block shape")
    for choice in choices:
        same = call.compare("eq", block, call.constant(np.asarray(choice, np.int64)))
        hit = call.reduce("and", same, (0,), keep=False)
        found = hit if found is None else call.binary("or", found, hit)
        y = _add_blocks(call, x, image, choice)
        result = y if result is None else call.select(hit, y, result)
    if found is None or result is None:
        raise ModelError(f"no block gives {declared} from {x.type}")
    shown = " or ".join(str(choice) for choice in choices)
    call.builder.check(found, f"{call.origin}: its block shape must be {shown}")
    return result


def _block_shapes(
    call: Call, x: Node, image: Sequence[int], channels: int
) -> list[tuple[int, ...]]:
    """The shapes of blocks that fit the columns."""
    taps, rest = divmod(x.shape[1], max(channels, 1))
    shapes: list[tuple[int, ...]] = [()] if not rest else []
    low, high = declared_pads(call, len(image))
    for size, before, after in zip(image, low, high, strict=True):
        most = min(taps, size + before + after)
        sizes = [n for n in range(1, most + 1) if taps % n == 0]
        longer = [(*shape, n) for shape in shapes for n in sizes]
        shapes = [shape for shape in longer if taps % math.prod(shape) == 0]
        call.expect_indexable(len(shapes) * taps)
    fitting = [shape for shape in shapes if math.prod(shape) == taps]
    return [shape for shape in fitting if _fits(call, x, image, shape)]


def _fits(call: Call, x: Node, image: Sequence[int], block: Sequence[int]) -> bool:
    extents = _extents(call, image, block)
    return min(extents) > 0 and math.prod(extents) == x.shape[2]


def _extents(call: Call, image: Sequence[int], block: Sequence[int]) -> list[int]:
    """How many blocks stand along each axis."""
    rank = len(image)
    strides = per_axis(call, "strides", rank, 1)
    dilation = per_axis(call, "dilations", rank, 1)
    low, high = declared_pads(call, rank)
    rooms = [
        image[at] + low[at] + high[at] - (block[at] - 1) * dilation[at] - 1 for at in range(rank)
    ]
    return [room // step + 1 for room, step in zip(rooms, strides, strict=True)]


def _add_blocks(call: Call, x: Node, image: Sequence[int], block: Sequence[int]) -> Node:
    batch, rows, columns = x.shape
    taps = math.prod(block)
    if min(block) < 1 or rows % taps or not _fits(call, x, image, block):
        raise ModelError(f"blocks of {tuple(block)} do not make {tuple(image)} of {x.type}")
    rank, channels = len(image), rows // taps
    extents = _extents(call, image, block)
    strides = per_axis(call, "strides", rank, 1)
    dilation = per_axis(call, "dilations", rank, 1)
    low, high = declared_pads(call, rank)
    canvas = [size + a + b for size, a, b in zip(image, low, high, strict=True)]
    # rows of all channels of all images, added where the block and its tap say
    apart = call.reshape(x, (batch * channels, taps * columns))
    updates = call.transpose(apart, (1, 0))
    shape = (*block, *extents)
    terms = []
    for axis in range(rank):
        step = math.prod(canvas[axis + 1 :])
        for at, gap in ((axis, dilation[axis]), (rank + axis, strides[axis])):
            terms.append(call.binary("mul", call.apply(ops.Iota(shape, at, DType.I64)), gap * step))
    index = reduce(lambda a, b: call.binary("add", a, b), terms)
    zeros = call.broadcast(call.scalar(0, x), (math.prod(canvas), batch * channels))
    flat = call.reshape(index, (taps * columns, 1))
    y = call.transpose(call.apply(ops.ScatterND("add"), zeros, flat, updates), (1, 0))
    y = call.reshape(y, (batch, channels, *canvas))
    for axis in range(rank):
        y = call.slice_axis(y, 2 + axis, low[axis], image[axis])
    return y


def center_crop_pad(call: Call) -> Node:
    """The middle of some axes, or all of them in the middle of zeros."""
    x = call[0]
    rank = x.type.rank
    axes = call.axes(call.attrs.integers("axes", range(rank)) or (), rank)
    dims = call.declared_dims(0)
    declared = [dims[axis] for axis in axes] if dims is not None and len(dims) == rank else None
    sizes = ints_or_declared(call, 1, "shape", declared)
    if len(sizes) != len(axes) or min(sizes, default=0) < 0:
        raise ModelError(f"sizes {sizes} do not fit axes {axes}")
    low, high = [0] * rank, [0] * rank
    for axis, size in zip(axes, sizes, strict=True):
        less = x.shape[axis] - size
        if less > 0:
            x = call.slice_axis(x, axis, less // 2 if size else 0, size)
        else:
            low[axis], high[axis] = -less // 2, -less - -less // 2
    return call.pad(x, low, high)


def image_decoder(call: Call) -> Node:
    """Not compiled."""
    raise call.unsupported(
        "files of images are not decoded: JPEG, PNG and the like need libraries",
        "decode the image before the model and pass its pixels",
    )


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "CenterCropPad": center_crop_pad,
        "Col2Im": col2im,
        "ImageDecoder": image_decoder,
        "MaxUnpool": max_unpool,
    }
)
