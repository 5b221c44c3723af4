"""Operands of contractions as tensor maps: a strided view goes in, the axes of a map whose boxes
are tiles of the operand come out, and where a box begins.

Windows of a convolution overlap. A tensor map of the data itself has no overlap: an axis of the
rows and an axis of the depth that step along the same memory become one axis of the map, and a
position on it is a sum. So a tile is a box of pixels, shifted by the tap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from aotc.loop import index
from aotc.loop.ir import Expr, TensorMap
from aotc.lower.scope import STORAGE_ALIGNMENT, Access
from aotc.lower.views import View
from aotc.schedule.gpu_warpgroup import CHUNK_BYTES, STEP_BYTES

MOST_AXES, MOST_BOX = 5, 256
#: Boxes of one operand in a tile at most: a thread of one warp each; and rows of one at least,
#: after which the pattern of swizzling repeats.
MOST_BOXES, FEWEST_ROWS = 32, 8

Position = Mapping[str, Sequence[Expr]]
"""Where a box is, by kind of axis: ``batch``, ``row`` and ``depth``."""


@dataclass(frozen=True)
class Part:
    """A share of a position on an axis of a map: the position on axis ``axis`` of a ``kind`` and
    ``plus``, divided by ``over``, the remainder by ``below`` (0: all of it), and ``times`` that."""

    kind: str
    axis: int
    times: int = 1
    over: int = 1
    below: int = 0
    plus: int = 0

    def value(self, at: Position) -> Expr:
        """The share, of the position ``at``."""
        found = index.div(index.add(at[self.kind][self.axis], self.plus), self.over)
        return index.mul(index.mod(found, self.below) if self.below else found, self.times)


@dataclass
class MapAxis:
    """An axis of a map; ``row`` is the axis of rows along which boxes extend, -1 for none. The
    first position on it is ``shift``."""

    extent: int
    stride: int
    parts: list[Part] = field(default_factory=list)
    row: int = -1
    shift: int = 0


@dataclass(frozen=True)
class Boxes:
    """An operand that tensor maps can bring. ``rows`` are the extents of the axes along which boxes
    extend, ``merged`` for each of them the extents of the axes of the view that it stands for.
    ``depth`` are the extents of the axes of the depth, the last in chunks of ``chunk`` elements, of
    which ``steps`` steps of tensor cores count."""

    view: View
    axes: tuple[MapAxis, ...]
    rows: tuple[int, ...]
    merged: tuple[tuple[int, ...], ...]
    depth: tuple[int, ...]
    chunk: int
    steps: int

    def map(self, name: str, access: Access, box: Sequence[int], tf32: bool) -> TensorMap:
        """The map with boxes of ``box`` rows along each axis of these."""
        *outer, inner = self.axes
        full = CHUNK_BYTES // access.buffer.dtype.size_bytes
        sizes = (*(box[axis.row] if axis.row >= 0 else 1 for axis in outer), full)
        return TensorMap(
            name,
            access.buffer,
            access.base,
            tuple(axis.extent for axis in (*outer, inner)),
            (*(axis.stride for axis in outer), 1),
            sizes,
            tf32,
        )

    def position(self, at: Position) -> tuple[Expr, ...]:
        """The first element of a box."""
        return tuple(
            index.linear(axis.shift, ((part.value(at), 1) for part in axis.parts))
            for axis in self.axes
        )


def boxes_of(view: View, batch: int, rows: int, chunk: int = 0) -> Boxes | None:
    """The operand of which ``batch`` axes, then ``rows`` axes, then those of the depth are given;
    None where no tensor map brings its tiles. ``chunk`` is the size of chunks if the rows of the
    operand do not decide it."""
    size = view.dtype.size_bytes
    strides, depth = view.strides[batch + rows :], view.shape[batch + rows :]
    full = CHUNK_BYTES // size
    if view.moves or min(view.strides) < 0 or not strides or strides[-1] != 1:
        return None
    row_axes, merged = _row_axes(view, batch, rows)
    extents = tuple(axis.extent for axis in row_axes)
    if any(axis.stride == 0 for axis in row_axes):
        return None
    more = _outer_depth(row_axes, depth, strides)
    found = _inner_axis(row_axes, extents, depth, STEP_BYTES // size, chunk or full)
    if more is None or found is None:
        return None
    inner, chunk = found
    axes = (*_batch_axes(view, batch), *row_axes, *more, inner)
    chunks = (*depth[:-1], -(-depth[-1] // chunk))
    return boxes_along(view, axes, extents, merged, chunks, min(chunk, depth[-1]), chunk)


def boxes_along(
    view: View,
    axes: tuple[MapAxis, ...],
    rows: tuple[int, ...],
    merged: tuple[tuple[int, ...], ...],
    depth: tuple[int, ...],
    needed: int,
    chunk: int,
) -> Boxes | None:
    """The operand with these axes of a map, of whose chunks of ``chunk`` elements ``needed`` may be
    other than zero; None where a map cannot have them, or they leave the storage."""
    size = view.dtype.size_bytes
    # the widest step first, as the driver's manual has it; boxes go through rows in order
    *outer, inner = axes
    outer.sort(key=lambda axis: -axis.stride)
    order = [axis.row for axis in outer if axis.row >= 0]
    if order == sorted(order):
        axes = (*outer, inner)
    mapped = replace(
        view,
        shape=tuple(axis.extent for axis in axes),
        strides=tuple(axis.stride for axis in axes),
    )
    starts = (mapped.offset, *mapped.strides[:-1])
    aligned = all(start * size % STORAGE_ALIGNMENT == 0 for start in starts)
    inside = (mapped.high + 1) * size <= mapped.storage.size_bytes
    steps = -(-needed * size // STEP_BYTES)
    if not aligned or not inside or len(axes) > MOST_AXES:
        return None
    return Boxes(mapped, axes, rows, merged, depth, chunk, steps)


def _row_axes(
    view: View, batch: int, rows: int
) -> tuple[list[MapAxis], tuple[tuple[int, ...], ...]]:
    """The axes of the rows, those joined that are one in memory, and which each is made of. There
    is at least one."""
    found: list[tuple[int, int, list[int]]] = []
    for dim, stride in zip(
        view.shape[batch : batch + rows], view.strides[batch : batch + rows], strict=True
    ):
        if found and (dim == 1 or found[-1][0] == 1 or found[-1][1] == stride * dim):
            extent, before, dims = found[-1]
            # an axis of one position has no stride of its own
            found[-1] = extent * dim, (before if dim == 1 else stride), [*dims, dim]
        else:
            found.append((dim, stride, [dim]))
    axes = []
    for number, (extent, stride, _) in enumerate(found):
        # any stride will do for a single position
        stride = stride or (view.shape[-1] * STORAGE_ALIGNMENT if extent == 1 else 0)
        axes.append(MapAxis(extent, stride, [Part("row", number)], row=number))
    return axes, tuple(tuple(dims) for _, _, dims in found)


def _inner_axis(
    rows: list[MapAxis], extents: Sequence[int], depth: Sequence[int], step: int, full: int
) -> tuple[MapAxis, int] | None:
    """The innermost axis, and the elements of a chunk of it, of at most ``full``. Where rows begin
    within the depth of others, their axis grows."""
    last, extent = len(depth) - 1, depth[-1]
    inside = [
        axis
        for axis, own in zip(rows, extents, strict=True)
        if own > 1 and axis.stride < extent
    ]
    if not inside:
        chunk = min(full, -(-extent // step) * step)
        return MapAxis(extent, 1, [Part("depth", last, chunk)]), chunk
    (row, *others) = inside
    chunk = math.gcd(row.stride, full)
    if others or chunk < step or extent % chunk:
        return None
    per_row = row.stride // chunk  # chunks
    row.parts.append(Part("depth", last, over=per_row))
    row.extent += (extent - 1) // row.stride
    return MapAxis(row.stride, 1, [Part("depth", last, chunk, below=per_row)]), chunk


def _outer_depth(
    rows: list[MapAxis], depth: Sequence[int], strides: Sequence[int]
) -> list[MapAxis] | None:
    """The axes of the depth but the last, as far as they are not along those of the rows, which
    grow; None where they cross."""
    more: list[MapAxis] = []
    ends = [axis.stride * axis.extent if axis.extent > 1 else 0 for axis in rows]
    for number, (extent, stride) in enumerate(zip(depth[:-1], strides[:-1], strict=True)):
        if extent == 1:
            continue
        span = stride * (extent - 1)
        crossing = [
            axis
            for axis, end in zip(rows, ends, strict=True)
            if axis.stride <= span and stride < end
        ]
        if not crossing:
            more.append(MapAxis(extent, stride, [Part("depth", number)]))
            continue
        (row, *others) = crossing
        if others:
            return None
        if stride % row.stride == 0:
            times = stride // row.stride
            row.parts.append(Part("depth", number, times))
            row.extent += (extent - 1) * times
        elif row.stride % stride == 0:
            below = row.stride // stride
            more.append(MapAxis(below, stride, [Part("depth", number, below=below)]))
            row.parts.append(Part("depth", number, over=below))
            row.extent += (extent - 1) // below
        else:
            return None
    return more


def _batch_axes(view: View, batch: int) -> list[MapAxis]:
    """The axes of the batch that move the operand, those joined that are one in memory."""
    axes: list[MapAxis] = []
    for number in range(batch):
        dim, stride = view.shape[number], view.strides[number]
        if stride == 0:
            continue
        if axes and axes[-1].stride == stride * dim:
            parts = [replace(part, times=part.times * dim) for part in axes[-1].parts]
            axes[-1] = MapAxis(axes[-1].extent * dim, stride, [*parts, Part("batch", number)])
        else:
            axes.append(MapAxis(dim, stride, [Part("batch", number)]))
    return axes


@dataclass(frozen=True)
class Box:
    """How boxes cover rows: the extent of one along each axis, boxes in a tile, and how many boxes
    there are along each axis."""

    extents: tuple[int, ...]
    in_tile: int
    grid: tuple[int, ...]

    @property
    def rows(self) -> int:
        """Rows of a box."""
        return math.prod(self.extents)

    @property
    def tiles(self) -> int:
        """Tiles that cover all rows."""
        return -(-math.prod(self.grid) // self.in_tile)


def cover(rows: Sequence[int], tile_rows: int) -> Box | None:
    """The boxes for tiles of ``tile_rows`` rows that waste the least; of those, the largest. None
    where boxes of eight rows or more cannot be had."""
    extents = _splits(tile_rows, len(rows))
    if len(rows) == 1:
        extents = [(min(tile_rows, MOST_BOX),)]
    choices = []
    for box in extents:
        each = math.prod(box)
        grid = tuple(-(-dim // extent) for dim, extent in zip(rows, box, strict=True))
        choices.append(Box(box, tile_rows // each, grid))
    return min(choices, key=lambda box: (box.tiles, box.in_tile), default=None)


def _splits(tile_rows: int, axes: int) -> list[tuple[int, ...]]:
    """Powers of two along ``axes`` axes that make boxes of at least FEWEST_ROWS rows, at most
    MOST_BOXES of them in a tile."""
    found: list[tuple[int, ...]] = [()]
    for _ in range(axes):
        found = [
            (*box, 1 << power)
            for box in found
            for power in range(MOST_BOX.bit_length())
            if math.prod(box) << power <= tile_rows
        ]
    least = max(FEWEST_ROWS, tile_rows // MOST_BOXES)
    sizes = ((box, math.prod(box)) for box in found)
    return [box for box, size in sizes if size >= least and tile_rows % size == 0]
