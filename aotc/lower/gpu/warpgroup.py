"""Contractions on sm_90a: canonical operands go in, a kernel comes out in which warpgroups multiply
tiles that tensor maps bring to shared memory, where these can.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aotc.fuse.groups import Group
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop.launch import MAX_GRID
from aotc.loop.mma import KINDS
from aotc.lower.context import Context
from aotc.lower.contract_kernel import Operands
from aotc.lower.gpu.operands import (
    channels_first,
    own_batch,
    packed_weights,
    product_kind,
)
from aotc.lower.gpu.split import join_parts
from aotc.lower.gpu.tile_maps import Boxes, boxes_of, cover
from aotc.lower.gpu.warpgroup_exchanged import ExchangedContract
from aotc.lower.gpu.warpgroup_kernel import Factors, WarpgroupContract
from aotc.lower.pointwise import UNROLL, sweep, weight_of
from aotc.lower.scope import STORAGE_ALIGNMENT
from aotc.lower.views import View, as_stored
from aotc.schedule.gpu_warpgroup import (
    CHUNK_BYTES,
    MIN_COLUMNS,
    MIN_ROWS,
    ROWS,
    Sizes,
    WarpgroupTile,
    choose_warpgroup_tile,
    conversion_pays,
)
from aotc.target import SHARED_BYTES

#: The architecture whose code has these instructions.
ARCH = "sm_90a"
#: Tensors that an epilogue may read for three warpgroups to have registers enough, and for two of
#: the largest tiles.
FEW_LEAVES, MANY_LEAVES = 2, 4


def lower_warpgroups(
    context: Context,
    group: Group,
    epilogue: tuple[Node, ...],
    leaf_nodes: Sequence[Node],
    operands: Operands,
    left: Boxes | None = None,
) -> bool:
    """Emits the kernel of a contraction in canonical form; False where it is none for warpgroups,
    and nothing has been emitted. ``left`` says how tensor maps bring the left operand, if its view
    does not."""
    sums = group.anchor.type.dtype
    kind = product_kind(operands, group.anchor, context.target.precision)
    if context.target.cpu != ARCH or kind not in KINDS or not _large_enough(operands):
        return False
    conversions: list[tuple[View, View]] = []
    short = _in_kind(context, operands, kind, conversions)
    if short is None:
        return False
    batch = own_batch(short)
    left = left or boxes_of(short.lhs, batch, short.batch + 2 - batch)
    if left is None:
        return False
    right = None
    if not short.rhs.is_constant:
        right = _right(short, left) or _copied(context, short, left, conversions)
        if right is None:
            return False
    tile = _tile(short, left, right, kind, epilogue)
    if tile is None:
        return False
    factors = right or Factors(left, _packed(context, short, left, kind))
    for source, target in conversions:
        target, source = as_stored(target, source)
        sweep(context, f"{group.label}_operand", target, [source], lambda x: x[0], UNROLL)
    contract = ExchangedContract if factors.exchanged else WarpgroupContract
    if tile.splits == 1:
        context.emit(contract(group, epilogue, leaf_nodes, short, factors, tile).call())
        return True
    parts = context.temporary(sums, (tile.splits, *operands.result.shape), "sums")
    alone = replace(short, result=parts, leaves=())
    context.emit(contract(group, (), (), alone, factors, tile).call())
    join_parts(context, group, epilogue, leaf_nodes, operands, parts)
    return True


def _large_enough(operands: Operands) -> bool:
    """Whether tiles of this size are not mostly empty."""
    batch = own_batch(operands)
    rows = math.prod(operands.lhs.shape[batch : operands.batch + 2])
    return rows >= MIN_ROWS and operands.result.shape[-1] >= MIN_COLUMNS


def _in_kind(
    context: Context, operands: Operands, kind: str, conversions: list[tuple[View, View]]
) -> Operands | None:
    """The operands in the type of the products. What has to be converted first is appended to
    ``conversions``, as it is and as it will be; None where that does not pay."""
    depth = math.prod(operands.lhs.shape[operands.batch + 2 :])
    products = math.prod(operands.result.shape) * depth

    def held(view: View) -> View | None:
        wanted = KINDS[kind].dtype
        elems = view.high - view.low + 1
        if view.dtype is wanted:
            return view
        if view.dtype is not DType.F32 or not conversion_pays(products, elems):
            return None
        # all that lies between its first and its last element, so that windows stay views
        flat = replace(view, shape=(elems,), strides=(1,), offset=view.low)
        short = context.temporary(wanted, (elems,), "short", DType.F32)
        conversions.append((flat, short))
        offset = view.offset - view.low
        return replace(short, shape=view.shape, strides=view.strides, offset=offset)

    lhs, rhs = held(operands.lhs), operands.rhs if operands.rhs.is_constant else held(operands.rhs)
    return None if lhs is None or rhs is None else replace(operands, lhs=lhs, rhs=rhs)


def _rows_of(operands: Operands, left: Boxes) -> View | None:
    """The right-hand side, made at run time, as [*batch, channel, depth]; None where the depth has
    more axes."""
    batch, view = own_batch(operands), channels_first(operands)
    depth = [axis for axis in range(operands.batch + 1, len(view.shape)) if view.shape[axis] > 1]
    if len(depth) != 1 or math.prod(left.depth[:-1]) > 1:
        return None
    return _only(view, (*range(batch), operands.batch, *depth))


def _right(operands: Operands, left: Boxes) -> Factors | None:
    """Both operands, the right one as it lies; None where no map can bring it."""
    batch, rows = own_batch(operands), _rows_of(operands, left)
    if rows is None:
        return None
    found = boxes_of(rows, batch, 1, left.chunk)
    if found is not None:
        return Factors(left, found)
    full = CHUNK_BYTES // rows.dtype.size_bytes
    exchanged = rows.dtype is DType.F32
    if rows.shape[batch] < ROWS or (exchanged and len(left.rows) > 1):
        return None
    across = boxes_of(rows.transpose((*range(batch), batch + 1, batch)), batch, 1, full)
    return None if across is None else Factors(left, across, across=True, exchanged=exchanged)


def _copied(
    context: Context, operands: Operands, left: Boxes, conversions: list[tuple[View, View]]
) -> Factors | None:
    """Both operands, the right one after it has been copied so that a map can bring it; None where
    that does not pay."""
    batch, rows = own_batch(operands), _rows_of(operands, left)
    products = math.prod(operands.result.shape) * left.view.shape[-1]
    if rows is None or not conversion_pays(products, 2 * math.prod(rows.shape)):
        return None
    *outer, depth = rows.shape
    elems = STORAGE_ALIGNMENT // rows.dtype.size_bytes
    whole = context.temporary(
        rows.dtype, (*outer, -(-depth // elems) * elems), "along", rows.value
    )
    target = whole.interior((0,) * len(rows.shape), rows.shape)
    found = boxes_of(target, batch, 1, left.chunk)
    if found is None:
        return None
    conversions.append((rows, target))
    return Factors(left, found)


def _only(view: View, axes: Sequence[int]) -> View:
    """The view at the first position of all other axes."""
    return replace(
        view,
        shape=tuple(view.shape[axis] for axis in axes),
        strides=tuple(view.strides[axis] for axis in axes),
    )


def _packed(context: Context, operands: Operands, left: Boxes, kind: str) -> Boxes:
    """Constant weights as [*batch, channel, depth] in whole chunks, and the map that brings
    them."""
    batch = own_batch(operands)
    values = packed_weights(operands, kind)
    inner = operands.lhs.shape[-1]
    chunks = values.reshape(*values.shape[:batch], operands.rhs.shape[-1], -1, inner)
    padding = left.depth[-1] * left.chunk - inner
    widths = [(0, 0)] * (chunks.ndim - 1) + [(0, padding)]
    padded = np.pad(chunks, widths).reshape(*chunks.shape[: batch + 1], -1)
    boxes = boxes_of(context.constant(padded, "packed"), batch, 1, left.chunk)
    assert boxes is not None
    return boxes


def _tile(
    operands: Operands,
    left: Boxes,
    right: Factors | None,
    kind: str,
    epilogue: Sequence[Node],
) -> WarpgroupTile | None:
    """The tile of a block; None where the grid has no room."""
    leaves = len(operands.leaves)
    few_groups = leaves > FEW_LEAVES or weight_of(epilogue) > 0
    batch = own_batch(operands)
    products = math.prod(operands.lhs.shape[:batch])
    if right is not None and right.exchanged:
        channels = operands.result.shape[-1]
        (rows,) = left.rows
        sizes = Sizes(
            columns=rows,
            batch=products,
            chunks=math.prod(left.depth),
            steps=left.steps,
            row_tiles=lambda rows: -(-channels // rows),
            column_step=ROWS,
            most_products=1,
            most_groups=2,  # threads need registers for the factor too
            most_sums=ROWS if leaves > FEW_LEAVES else 2 * ROWS,
        )
        return _chosen(sizes, kind)
    found = {rows: cover(left.rows, rows) for rows in (64, 128, 192, 256)}
    sizes = Sizes(
        columns=operands.result.shape[-1],
        batch=products,
        chunks=math.prod(left.depth),
        steps=left.steps,
        row_tiles=lambda rows: None if (box := found[rows]) is None else box.tiles,
        column_step=ROWS if right is not None and right.across else MIN_COLUMNS,
        most_groups=2 if few_groups else 3,
        most_sums=ROWS if leaves > MANY_LEAVES else 2 * ROWS,
    )
    return _chosen(sizes, kind)


def _chosen(sizes: Sizes, kind: str) -> WarpgroupTile | None:
    tile = choose_warpgroup_tile(sizes, kind, SHARED_BYTES[ARCH])
    return tile if tile is not None and sizes.batch * tile.splits <= MAX_GRID[1] else None
