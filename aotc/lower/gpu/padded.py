"""Convolutions with a border on sm_90a: the data without its border goes in, a kernel comes out
whose tensor maps bring zeros in place of it, so that nobody has to store them.

Positions of boxes may lie before the first element or behind the last one. With strides, an axis of
the data becomes two, its steps and what is between them, as an axis of its own or as part of the
pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from aotc.fuse.groups import VIEW_OPS, Group, GroupKind
from aotc.graph import ops
from aotc.graph.ir import Constant, Node
from aotc.loop.mma import KINDS
from aotc.loop.program import Role, Storage
from aotc.lower.context import Context
from aotc.lower.contract_kernel import Operands
from aotc.lower.gpu.tile_maps import Boxes, MapAxis, Part, boxes_along
from aotc.lower.gpu.warpgroup import ARCH, lower_warpgroups
from aotc.lower.views import View
from aotc.lower.widen import widening
from aotc.schedule.gpu_warpgroup import CHUNK_BYTES, MIN_COLUMNS, MIN_ROWS, STEP_BYTES


@dataclass(frozen=True)
class _Side:
    """One axis of the data along which windows move: its extent, elements between neighbours, zeros
    before it, the positions of windows on it and how far apart they and their taps are."""

    extent: int
    stride: int
    low: int
    results: int
    taps: int
    step: int
    dilation: int

    @property
    def before(self) -> int:
        """Steps before the first element at which windows begin."""
        return -(-self.low // self.step)

    @property
    def plus(self) -> int:
        """Taps that would be left of the first window if it began at a whole step."""
        return self.before * self.step - self.low


def brings_zeros(context: Context, pad: Node) -> bool:
    """Whether all that reads ``pad``, a border of data, is convolutions that can do without; as far
    as can be said before the data has a place."""
    target, op, source = context.target, pad.op, pad.inputs[0]
    if target.cpu != ARCH or target.precision not in KINDS or not isinstance(op, ops.Pad):
        return False
    if isinstance(source.op, (Constant, *VIEW_OPS)) and source not in context.held.decoded:
        return False
    if pad.type.rank != 4 or op.value != 0 or any(w[i] for w in (op.low, op.high) for i in (0, 3)):
        return False
    shown = context.held.decoded.get(source, source)
    dtype = context.held.stored.get(shown, shown.type.dtype.machine)
    storage = Storage(pad.op.mnemonic, Role.ARENA, math.prod(source.shape) * dtype.size_bytes)
    data = View.packed(storage, dtype, source.shape)
    anchors = {
        group.anchor for group in context.groups.groups if group.kind is GroupKind.CONTRACT
    }
    users = context.graph.users()[pad]
    outputs = [node for _, node in context.graph.outputs]
    return pad not in outputs and all(
        user in anchors and _boxes(data, pad, user, target.precision) is not None for user in users
    )


def lower_windows(
    context: Context,
    group: Group,
    epilogue: tuple[Node, ...],
    leaf_nodes: Sequence[Node],
    result: View,
    leaves: Sequence[View],
) -> bool:
    """Emits the kernel of a convolution that reads a border which nobody has stored; False where
    there is none after all, and nothing has been emitted."""
    pad, weights = group.anchor.inputs
    data, held = context.view(pad.inputs[0]), context.view(weights)
    boxes = _boxes(data, pad, group.anchor, context.target.precision)
    if boxes is None or not held.is_constant:
        return False
    images, *pixels, _ = result.shape
    taps = math.prod(weights.shape[2:]) * weights.shape[1]
    inner = taps // math.prod(boxes.depth[:-1])
    # where the elements are, the boxes say
    lhs = replace(
        data,
        shape=(images, *pixels, *boxes.depth[:-1], inner),
        strides=(0,) * (2 + len(boxes.depth)) + (1,),
    )
    rhs = held.transpose((2, 3, 1, 0))
    rhs = replace(rhs, shape=(images, *rhs.shape), strides=(0, *rhs.strides))
    operands = Operands(1, lhs, rhs, result, tuple(leaves))
    return lower_warpgroups(context, group, epilogue, leaf_nodes, operands, boxes)


def _boxes(data: View, pad: Node, anchor: Node, precision: str) -> Boxes | None:
    """The tiles of a convolution over ``data`` with the border of ``pad``; None where tensor maps
    cannot bring them."""
    op, border, weights = anchor.op, pad.op, anchor.inputs[1]
    assert isinstance(border, ops.Pad)
    if not isinstance(op, ops.Conv) or op.groups != 1 or not op.channels_last:
        return None
    plain = anchor.inputs[0] is pad and widening(weights) is None and not any((*op.low, *op.high))
    images, *pixels, outputs = anchor.shape
    large = images * math.prod(pixels) >= MIN_ROWS and outputs >= MIN_COLUMNS
    if not plain or not large or data.dtype is not KINDS[precision].dtype or data.moves:
        return None
    # an axis of one element has no stride: any will do
    strides = [step or math.prod(data.shape[i + 1 :]) for i, step in enumerate(data.strides)]
    if min(strides) < 1 or strides[-1] != 1:
        return None
    sides = [
        _Side(
            data.shape[1 + i],
            strides[1 + i],
            border.low[1 + i],
            pixels[i],
            weights.shape[2 + i],
            op.strides[i],
            op.dilation[i],
        )
        for i in range(2)
    ]
    return _along_sides(data, images, strides[0], sides)


def _along_sides(data: View, images: int, stride: int, sides: Sequence[_Side]) -> Boxes | None:
    """The axes of the map: images, both sides, channels."""
    channels, size = data.shape[-1], data.dtype.size_bytes
    full, step = CHUNK_BYTES // size, STEP_BYTES // size
    down, across = sides
    split = any(side.step > 1 for side in sides)
    if split and any(side.dilation > 1 or side.extent % side.step for side in sides):
        return None
    first = int(images > 1)
    axes = [MapAxis(images, stride, [Part("row", 0)], row=0)] * first
    axes += _down(down, first)
    row = Part("row", first + 1)
    if across.step == 1:
        chunk = min(full, -(-channels // step) * step)
        taps = Part("depth", 1, across.dilation)
        axes.append(
            MapAxis(across.extent, across.stride, [row, taps], first + 1, -across.low)
        )
        axes.append(MapAxis(channels, 1, [Part("depth", 2, chunk)]))
        depth: tuple[int, ...] = (down.taps, across.taps, -(-channels // chunk))
        needed = min(chunk, channels)
    else:
        # neighbours within a step are one pixel of more channels
        chunk = needed = math.gcd(channels, full)
        if across.stride != channels or chunk < step:
            return None
        each = across.step * channels // chunk
        plus = across.plus * channels // chunk
        taps = Part("depth", 1, over=each, plus=plus)
        wide = across.step * channels
        axes.append(
            MapAxis(across.extent // across.step, wide, [row, taps], first + 1, -across.before)
        )
        axes.append(MapAxis(wide, 1, [Part("depth", 1, chunk, below=each, plus=plus)]))
        depth = (down.taps, across.taps * channels // chunk)
    rows = (images,) * first + (down.results, across.results)
    merged: tuple[tuple[int, ...], ...] = tuple((dim,) for dim in rows)
    if not first:
        merged = ((1, down.results), (across.results,))
    return boxes_along(data, tuple(axes), rows, merged, depth, needed, chunk)


def _down(side: _Side, row: int) -> list[MapAxis]:
    """The axes of the outer side, whose rows are axis ``row``."""
    if side.step == 1:
        parts = [Part("row", row), Part("depth", 0, side.dilation)]
        return [MapAxis(side.extent, side.stride, parts, row, -side.low)]
    taps = Part("depth", 0, over=side.step, plus=side.plus)
    steps = side.extent // side.step
    outer = MapAxis(steps, side.step * side.stride, [Part("row", row), taps], row, -side.before)
    between = Part("depth", 0, below=side.step, plus=side.plus)
    return [outer, MapAxis(side.step, side.stride, [between])]
