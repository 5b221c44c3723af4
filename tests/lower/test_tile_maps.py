"""Tensor maps of operands: whatever the view, a box holds the elements that the tile is made of."""

import itertools
import math

import numpy as np
import pytest
from graph_runs import for_all
from hypothesis import strategies as st

from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import Lit
from aotc.loop.program import Role, Storage
from aotc.lower.gpu.tile_maps import FEWEST_ROWS, MOST_AXES, MOST_BOXES, boxes_of, cover
from aotc.lower.views import View


def view_of(shape, strides, dtype=DType.F32, offset=0, beyond=0):
    """A view of a storage that ends ``beyond`` elements after its last one."""
    high = offset + sum((dim - 1) * stride for dim, stride in zip(shape, strides, strict=True))
    storage = Storage("x", Role.ARENA, (high + 1 + beyond) * dtype.size_bytes)
    strides = tuple(0 if dim == 1 else step for dim, step in zip(shape, strides, strict=True))
    return View(storage, dtype, tuple(shape), strides, offset)


def windows(images, size, channels, kernel, stride=1, dilation=1, beyond=0):
    """Windows of channels-last data: [images, down, across, kernel, kernel * channels], or with the
    taps apart where they are ``dilation`` apart."""
    count = (size - dilation * (kernel - 1) - 1) // stride + 1
    row = size * channels
    head = [(images, size * row), (count, stride * row), (count, stride * channels)]
    taps = [(kernel, dilation * row), (kernel, dilation * channels), (channels, 1)]
    if dilation == 1:
        taps = [(kernel, row), (kernel * channels, 1)]
    shape, strides = zip(*head, *taps, strict=True)
    return view_of(shape, strides, beyond=beyond)


def number(expr):
    found = index.affine(expr)
    assert found is not None and found.is_const
    return found.const


def check(view, batch, rows, boxes):
    """Each chunk of each row, brought by way of the map, is that of the view; what a chunk has
    beyond the depth is outside the map, so that it is zero."""
    depth = view.shape[batch + rows :]
    extents = [axis.extent for axis in boxes.axes]
    strides = [axis.stride for axis in boxes.axes]
    for at in itertools.product(*map(range, view.shape[:batch])):
        for place in itertools.product(*map(range, boxes.rows)):
            pixel = [
                digit
                for part, dims in zip(place, boxes.merged, strict=True)
                for digit in np.unravel_index(part, dims)
            ]
            for chunk in itertools.product(*map(range, boxes.depth)):
                kinds = {"batch": at, "row": place, "depth": chunk}
                position = boxes.position({k: [Lit(int(i)) for i in v] for k, v in kinds.items()})
                start = [number(part) for part in position]
                for k in range(boxes.chunk):
                    term = chunk[-1] * boxes.chunk + k
                    inside = start[-1] + k < extents[-1]
                    assert inside == (term < depth[-1])
                    if not inside:
                        continue
                    found = boxes.view.offset + k
                    found += sum(i * step for i, step in zip(start, strides, strict=True))
                    where = (*at, *pixel, *chunk[:-1], term)
                    steps = zip(where, view.strides, strict=True)
                    assert found == view.offset + sum(i * step for i, step in steps)
                    held = zip(start[:-1], extents[:-1], strict=True)
                    assert all(0 <= i < extent for i, extent in held)


VIEWS = {
    "matrix": (view_of((5, 1, 40), (40, 0, 1)), 0, 2),
    "rows of a larger matrix": (view_of((5, 1, 16), (48, 0, 1), offset=16), 0, 2),
    "batch that repeats": (view_of((2, 3, 1, 5, 8), (0, 40, 0, 8, 1)), 2, 2),
    "batch of one step": (view_of((2, 3, 1, 4, 8), (96, 32, 0, 8, 1)), 2, 2),
    "heads side by side": (view_of((2, 3, 1, 4, 8), (96, 8, 0, 24, 1)), 2, 2),
    "3x3": (windows(2, 5, 32, 3), 0, 3),
    "narrow pixels": (windows(1, 4, 8, 2), 0, 3),
    "stride, with room behind": (windows(2, 6, 32, 3, stride=2, beyond=7 * 32), 0, 3),
    "dilation": (windows(1, 7, 8, 3, dilation=2), 0, 3),
    "taps apart": (windows(1, 7, 8, 2, stride=3), 0, 3),
}


@pytest.mark.parametrize("name", VIEWS)
def test_a_map_brings_what_the_view_shows(name):
    view, batch, rows = VIEWS[name]
    boxes = boxes_of(view, batch, rows)
    assert boxes is not None and len(boxes.axes) <= MOST_AXES
    strides = [axis.stride for axis in boxes.axes]
    assert strides == sorted(strides, reverse=True)
    check(view, batch, rows, boxes)


def test_what_no_map_brings():
    assert boxes_of(windows(2, 5, 3, 3), 0, 3) is None, "pixels of 12 bytes"
    assert boxes_of(windows(2, 5, 32, 3, stride=2), 0, 3) is None, "an end behind the storage"
    assert boxes_of(view_of((8, 1, 16), (1, 0, 8)), 0, 2) is None, "rows side by side"
    assert boxes_of(view_of((8, 1, 16), (0, 0, 1)), 0, 2) is None, "rows that repeat"
    assert boxes_of(view_of((8, 1, 16), (16, 0, 1), offset=2), 0, 2) is None, "8 bytes off"
    apart = view_of((2, 3, 4, 5, 1, 6, 8), (9000, 2900, 704, 136, 0, 16, 1))
    assert boxes_of(apart, 3, 2) is None, "six axes"


@for_all(st.data(), 8, 200)
def test_any_window_that_has_a_map(data):
    draw = data.draw
    kernel, stride = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    dilation = draw(st.integers(1, 2))
    size = draw(st.integers(dilation * (kernel - 1) + 1, 7))
    channels = draw(st.sampled_from([4, 8, 12, 32]))
    beyond = draw(st.sampled_from([0, (size + 1) * channels]))
    view = windows(draw(st.integers(1, 2)), size, channels, kernel, stride, dilation, beyond)
    boxes = boxes_of(view, 0, 3)
    if boxes is not None:
        check(view, 0, 3, boxes)


@for_all(st.data(), 10, 200)
def test_boxes_cover_all_rows(data):
    dims = data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=3))
    tile = data.draw(st.sampled_from([64, 128, 192, 256]))
    box = cover(dims, tile)
    assert box is not None
    assert box.rows * box.in_tile == tile and box.rows >= FEWEST_ROWS
    assert box.in_tile <= MOST_BOXES
    assert all(
        count * extent >= dim
        for count, extent, dim in zip(box.grid, box.extents, dims, strict=True)
    )
    assert box.tiles >= math.prod(dims) / tile


def test_boxes_of_several_images_waste_nothing():
    for size in (56, 28, 14, 7):
        box = cover((32, size, size), 64)
        assert box is not None and box.tiles == -(-32 * size * size // 64)
