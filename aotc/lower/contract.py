"""CONTRACT groups: Dot and Conv as one register-tiled kernel, with the pointwise ops that follow
in its epilogue.

Every contraction is seen as result[*batch, row, column, channel] = sum over depth of lhs[*batch,
row, column, *depth] * rhs[*batch, *depth, channel]. A convolution gets there without copying: its
lhs is a strided view in which windows overlap. Lanes run along channels and each result adds its
terms in depth order with one fused multiply-add each, so the bytes do not depend on vector width
or tile sizes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aotc.fuse.groups import Group
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop.ir import GROUP
from aotc.lower.byte_panels import pack_bytes
from aotc.lower.context import Context
from aotc.lower.contract_depth import DepthWriter, Steps, steps_of
from aotc.lower.contract_kernel import Bytes, ContractWriter, Operands
from aotc.lower.contract_lanes import LanesWriter, lanes_recipe
from aotc.lower.contract_pairs import PairWriter
from aotc.lower.movement import lower_pad
from aotc.lower.packed import constant_array, in_panels
from aotc.lower.tiles import TileWriter, in_steps
from aotc.lower.views import View, collapse
from aotc.lower.widen import WideningWriter, small_weights, stored_type, widening
from aotc.passes.constants import fits
from aotc.schedule.cpu import ContractSizes
from aotc.schedule.recipe import ContractRecipe
from aotc.schedule.tiles import tiles_pay
from aotc.target import DotProducts, Target


def lower_contract(context: Context, group: Group) -> None:
    """Emits the kernel of a CONTRACT group."""
    epilogue = tuple(node for node in group.nodes if node is not group.anchor)
    leaf_nodes = context.operands(epilogue, group.nodes)
    leaves = [context.view(node) for node in leaf_nodes]
    result = context.view(group.result)
    if _without_border(context, group, epilogue, leaf_nodes, result, leaves):
        return
    if isinstance(group.anchor.op, ops.Dot):
        operands = _dot_operands(context, group.anchor, result, leaves)
    else:
        operands = _conv_operands(context, group.anchor, result, leaves)
    operands = _simplified(operands)
    plain = widening(group.anchor.inputs[1]) is None
    if context.target.is_gpu and plain:
        from aotc.lower.gpu.contract import lower_gpu_contract, suits_blocks

        if suits_blocks(operands):
            lower_gpu_contract(context, group, epilogue, leaf_nodes, operands)
            return
    steps = _along_depth(context, group.anchor.type.dtype, operands)
    if steps is not None:
        along = DepthWriter(context, group, epilogue, leaf_nodes, operands, steps)
        context.emit(along.call(f"steps {steps}"))
        return
    if _along_channels(context.target, group.anchor.type.dtype, operands):
        recipe = lanes_recipe(operands, context.target.compact)
        packed = context.constant(pack(operands, recipe), "packed")
        wide = LanesWriter(group, epilogue, leaf_nodes, operands, recipe, packed)
        context.emit(wide.call(f"bytes {recipe}"))
        return
    widen = widening(group.anchor.inputs[1])
    bytes_ = _in_groups(context, group.anchor.type.dtype, operands)
    if bytes_ is None:
        operands = replace(operands, rhs=_side_by_side(context, operands.rhs))
    depth = operands.lhs.shape[operands.batch + 2 :]
    if bytes_:
        depth = (*depth[:-1], bytes_.groups)
    rows, columns, channels = operands.result.shape[-3:]
    paired = bytes_ is not None and context.target.dot_products is DotProducts.SMLAD
    lanes = context.lanes_for(group.anchor.type.dtype, operands.result.dtype)
    sizes = ContractSizes(
        rows=rows,
        columns=columns,
        channels=channels,
        depth=math.prod(depth),
        inner_depth=depth[-1],
        lanes=1 if paired else lanes,
        elem_bytes=group.anchor.type.dtype.size_bytes,
        overlapping=columns > 1 and _pixels_overlap(operands),
        streamed=rows == 1 and _is_streamed(operands),
        paired=paired,
        stored=stored_type(widen),
    )
    operands, bytes_, sizes = _by_tiles(context.target, operands, bytes_, sizes)
    recipe = context.choose(sizes, _with_room(context.target, bytes_))
    if widen is not None:
        small = small_weights(widen, operands)
        expanding = WideningWriter(
            context, group, epilogue, leaf_nodes, operands, recipe, small
        )
        context.emit(expanding.call(f"{sizes.key}: {recipe}"))
        return
    writer = _writer(context, group, epilogue, leaf_nodes, operands, recipe, bytes_, sizes)
    context.emit(writer.call(f"{sizes.key}: {recipe}"))


def _without_border(
    context: Context,
    group: Group,
    epilogue: tuple[Node, ...],
    leaf_nodes: Sequence[Node],
    result: View,
    leaves: Sequence[View],
) -> bool:
    """Emits the kernel of a convolution over data whose border nobody has stored, if it can do
    without; False where there is no such border, or is one now."""
    node = group.anchor.inputs[0]
    border = context.bare.get(node)
    if border is None:
        return False
    from aotc.lower.gpu.padded import lower_windows

    if lower_windows(context, group, epilogue, leaf_nodes, result, leaves):
        return True
    del context.bare[node]
    lower_pad(context, border)
    return False


def _writer(
    context: Context,
    group: Group,
    epilogue: tuple[Node, ...],
    leaf_nodes: Sequence[Node],
    operands: Operands,
    recipe: ContractRecipe,
    bytes_: Bytes | None,
    sizes: ContractSizes,
) -> ContractWriter:
    """What writes the kernel of a processor; weights are packed for it."""
    panels = None
    if operands.rhs.is_constant:
        panels = context.constant(pack(operands, recipe, bytes_), "packed")
    elif bytes_:
        panels = pack_bytes(context, operands.rhs, operands.batch, recipe, bytes_)
    if sizes.paired:
        assert bytes_ is not None and panels is not None
        return PairWriter(context, group, epilogue, leaf_nodes, operands, recipe, panels, bytes_)
    return (TileWriter if sizes.tiled else ContractWriter)(
        group, epilogue, leaf_nodes, operands, recipe, panels, bytes_=bytes_
    )


def _in_groups(context: Context, sums: DType, operands: Operands) -> Bytes | None:
    """How bytes are multiplied in groups of four; None where they are not."""
    lhs, rhs, target = operands.lhs, operands.rhs, context.target
    if (lhs.dtype, sums) != (DType.I8 if target.signed_codes else DType.U8, DType.I32):
        return None
    if target.dot_products in (DotProducts.NONE, DotProducts.MVE, DotProducts.RVV):
        return None
    if rhs.is_constant:
        fits_all = fits_bytes(rhs) and not (target.sums_pairs and has_least_pair(rhs))
    else:  # any byte may come
        fits_all = not target.sums_pairs and _worth_packing(operands)
    if not fits_all:
        return None
    if lhs.strides[-1] != 1 or lhs.shape[-1] < GROUP:
        return None
    return Bytes(lhs.shape[-1])


def _with_room(target: Target, bytes_: Bytes | None) -> Target:
    """``target`` with registers for sums only: products of int8 as int16, and halves of weights,
    take some of their own."""
    if bytes_ is None or target.dot_products not in (DotProducts.SMULL, DotProducts.VMULL):
        return target
    return replace(target, vector_registers=target.vector_registers * 5 // 8)


def _along_channels(target: Target, sums: DType, operands: Operands) -> bool:
    """Whether bytes are multiplied with as many lanes along the channels as a vector has bytes."""
    if target.dot_products is not DotProducts.RVV or sums is not DType.I32:
        return False
    lhs, rhs = operands.lhs, operands.rhs
    return lhs.dtype is DType.I8 and fits_bytes(rhs) and not has_least_pair(rhs)


def _along_depth(context: Context, sums: DType, operands: Operands) -> Steps | None:
    """The steps of a product of bytes with lanes along the depth; None where others are to be."""
    if context.target.dot_products is not DotProducts.MVE or sums is not DType.I32:
        return None
    return steps_of(operands) if fits_bytes(operands.rhs) else None


def _by_tiles(
    target: Target, operands: Operands, bytes_: Bytes | None, sizes: ContractSizes
) -> tuple[Operands, Bytes | None, ContractSizes]:
    """The same as it is, or as tile registers take it where they compute it sooner."""
    same = operands, bytes_, sizes
    if not target.tiles or bytes_ is None or not operands.rhs.is_constant:
        return same
    found = in_steps(operands)
    if found is None:
        return same
    inner = found[1].groups
    depth = sizes.depth // sizes.inner_depth * inner
    tiled = replace(sizes, depth=depth, inner_depth=inner, tiled=True)
    return (*found, tiled) if tiles_pay(sizes, tiled, target) else same


def _worth_packing(operands: Operands) -> bool:
    """Whether the right-hand side is bytes that are made at run time and read by more than one
    row, which packing them takes as long as."""
    rhs, batch = operands.rhs, operands.batch
    pixels = math.prod(operands.lhs.shape[batch : batch + 2])
    is_matrix = len(rhs.shape) == batch + 2
    return not rhs.is_constant and rhs.dtype is DType.I8 and is_matrix and pixels > 1


def fits_bytes(view: View) -> bool:
    """Whether ``view`` is of constant integers that an int8 can hold."""
    if not view.is_constant or not view.dtype.is_int:
        return False
    return fits(constant_array(view), DType.I8)


def has_least_pair(weights: View) -> bool:
    """Whether neighbours along the last axis but one are both -128: the sum of the products of two
    such with int8 can leave int16, as that of no others."""
    least = constant_array(weights) == -128
    return bool((least[..., 1:, :] & least[..., :-1, :]).any())


def _is_streamed(operands: Operands) -> bool:
    """Whether the pixels of the left-hand side lie one after the other, each with its depth."""
    lhs, batch = operands.lhs, operands.batch
    return len(lhs.shape) == batch + 3 and lhs.strides[batch + 1 :] == (lhs.shape[-1], 1)


def _pixels_overlap(operands: Operands) -> bool:
    """Whether neighbouring pixels share elements within a short innermost depth axis, as the
    windows of a convolution over few channels do."""
    depth = operands.lhs.shape[operands.batch + 2 :]
    column_stride = abs(operands.lhs.strides[operands.batch + 1])
    reach = depth[-1] * abs(operands.lhs.strides[-1])
    short = depth[-1] <= 8 and math.prod(depth[:-1]) > 1
    return short and 0 < column_stride < reach <= 16 * depth[-1]


def _dot_operands(context: Context, anchor: Node, result: View, leaves: Sequence[View]) -> Operands:
    lhs, rhs = (context.view(operand) for operand in anchor.inputs)
    in_bytes = rhs.dtype is DType.I8 and anchor.type.dtype is DType.I32
    if not in_bytes:  # bytes may be put into panels yet
        rhs = _side_by_side(context, rhs)
    batch = len(lhs.shape) - 2
    return Operands(
        batch,
        _insert_axis(lhs, batch),
        rhs,
        _insert_axis(result, batch),
        tuple(_insert_axis(leaf, batch) for leaf in leaves),
    )


def _side_by_side(context: Context, rhs: View) -> View:
    """The right-hand side, copied if it is made at run time and its channels lie apart."""
    if rhs.is_constant or rhs.strides[-1] in (0, 1) or context.target.is_gpu:
        return rhs
    packed = context.temporary(rhs.dtype, rhs.shape, "packed", rhs.value)
    context.copy(rhs, packed)
    return packed


def _insert_axis(view: View, axis: int) -> View:
    """The view with an axis of size 1 before ``axis``."""
    return replace(
        view,
        shape=view.shape[:axis] + (1,) + view.shape[axis:],
        strides=view.strides[:axis] + (0,) + view.strides[axis:],
    )


def _conv_operands(
    context: Context, anchor: Node, result: View, leaves: Sequence[View]
) -> Operands:
    op = anchor.op
    assert isinstance(op, ops.Conv) and not any(op.low) and not any(op.high)
    data, weights = (context.view(operand) for operand in anchor.inputs)
    spatial = len(op.strides)
    window = weights.shape[2:]
    groups = op.groups
    if not op.channels_last:
        to_last = (0, *range(2, spatial + 2), 1)
        data, result = data.transpose(to_last), result.transpose(to_last)
        leaves = [leaf.transpose(to_last) for leaf in leaves]
    out_spatial = result.shape[1:-1]

    def canonical(view: View) -> View:
        """[N, *spatial, C] -> [N, *outer spatial, groups, row, column, C / groups]."""
        split = view.reshape((*view.shape[:-1], groups, view.shape[-1] // groups))
        assert split is not None
        while len(split.shape) < 5:  # a 1-D convolution has no row axis
            split = _insert_axis(split, 1)
        rank = len(split.shape)
        return split.transpose((*range(rank - 4), rank - 2, rank - 4, rank - 3, rank - 1))

    data = data.reshape((*data.shape[:-1], groups, data.shape[-1] // groups)) or data
    batch_stride, *spatial_strides, group_stride, channel_stride = data.strides
    axes = [(data.shape[0], batch_stride)]
    pixels = [
        (extent, stride * step)
        for extent, stride, step in zip(out_spatial, spatial_strides, op.strides, strict=True)
    ]
    if spatial == 1:
        pixels.insert(0, (1, 0))
    axes += [*pixels[:-2], (groups, group_stride), *pixels[-2:]]
    taps = [
        (extent, stride * step)
        for extent, stride, step in zip(window, spatial_strides, op.dilation, strict=True)
    ]
    channels_first = channel_stride != 1 and data.shape[-1] > 1
    inputs = [(data.shape[-1], channel_stride)]
    depth = [*inputs, *taps] if channels_first else [*taps, *inputs]
    lhs = replace(
        data,
        shape=tuple(extent for extent, _ in (*axes, *depth)),
        strides=tuple(0 if extent == 1 else stride for extent, stride in (*axes, *depth)),
    )
    # weights [O, I/groups, *window] -> [1.., groups, *depth, O/groups]
    split = weights.reshape((groups, weights.shape[0] // groups, *weights.shape[1:]))
    assert split is not None
    if channels_first:
        rhs = split.transpose((0, *range(2, spatial + 3), 1))
    else:
        rhs = split.transpose((0, *range(3, spatial + 3), 2, 1))
    batch = len(axes) - 2
    for _ in range(batch - 1):
        rhs = _insert_axis(rhs, 0)
    outer = lhs.shape[: batch - 1]
    rhs = replace(rhs, shape=(*outer, *rhs.shape[batch - 1 :]))
    return Operands(batch, lhs, rhs, canonical(result), tuple(canonical(leaf) for leaf in leaves))


def _simplified(operands: Operands) -> Operands:
    """Fewer axes with the same meaning: batch axes of size 1 dropped, pixel and depth axes
    merged."""
    batch, lhs, rhs = operands.batch, operands.lhs, operands.rhs
    pixels = [operands.result, *operands.leaves]
    for axis in reversed(range(batch)):
        if lhs.shape[axis] == 1:
            lhs, rhs, *pixels = (_drop_axis(view, axis) for view in (lhs, rhs, *pixels))
            batch -= 1
    merged = [_merge_axes(view, batch) for view in (lhs, *pixels)]
    if all(view is not None for view in merged):
        lhs, *pixels = [_insert_axis(view, batch) for view in merged if view is not None]
    head = lhs.shape[: batch + 2]
    depth_of_lhs = replace(lhs, shape=lhs.shape[len(head) :], strides=lhs.strides[len(head) :])
    depth_of_rhs = replace(rhs, shape=rhs.shape[batch:-1], strides=rhs.strides[batch:-1])
    # a constant rhs is packed in depth order, so only the lhs restricts merging
    sources = [depth_of_lhs] if rhs.is_constant else [depth_of_lhs, depth_of_rhs]
    depth = collapse(sources)
    lhs = replace(
        lhs, shape=head + depth[0].shape, strides=lhs.strides[: len(head)] + depth[0].strides
    )
    if not rhs.is_constant:
        rhs = replace(
            rhs,
            shape=rhs.shape[:batch] + depth[1].shape + rhs.shape[-1:],
            strides=rhs.strides[:batch] + depth[1].strides + rhs.strides[-1:],
        )
    return Operands(batch, lhs, rhs, pixels[0], tuple(pixels[1:]))


def _drop_axis(view: View, axis: int) -> View:
    return replace(
        view,
        shape=view.shape[:axis] + view.shape[axis + 1 :],
        strides=view.strides[:axis] + view.strides[axis + 1 :],
    )


def _merge_axes(view: View, axis: int) -> View | None:
    """Axes ``axis`` and ``axis + 1`` as one; None when the view does not step through them
    evenly."""
    (outer, inner), (outer_stride, inner_stride) = (
        view.shape[axis : axis + 2],
        view.strides[axis : axis + 2],
    )
    if outer == 1:
        stride = inner_stride
    elif inner == 1:
        stride = outer_stride
    elif outer_stride == inner_stride * inner:
        stride = inner_stride
    else:
        return None
    return replace(
        view,
        shape=(*view.shape[:axis], outer * inner, *view.shape[axis + 2 :]),
        strides=(*view.strides[:axis], stride, *view.strides[axis + 2 :]),
    )


def pack(
    operands: Operands, recipe: ContractRecipe, bytes_: Bytes | None = None
) -> np.ndarray:
    """Constant weights as [*batch][panel][depth][lanes of the panel], zero beyond the last channel;
    with ``bytes_`` the depth is that in groups, and each lane has the bytes of a group. Integers
    that are multiplied by bytes are stored as bytes where they fit.

    Batch axes along which the weights repeat stay of size 1.
    """
    rhs = operands.rhs
    repeated = tuple(
        1 if stride == 0 else dim for dim, stride in zip(rhs.shape, rhs.strides, strict=True)
    )
    kept = repeated[: operands.batch] + rhs.shape[operands.batch :]
    values = constant_array(replace(rhs, shape=kept))
    channels = rhs.shape[-1]
    depth = math.prod(rhs.shape[operands.batch : -1])
    batch = math.prod(kept[: operands.batch])
    # what is multiplied in groups is known to fit
    if bytes_ or (operands.lhs.dtype.size_bytes == 1 and fits_bytes(rhs)):
        values = values.astype(np.int8)
    if bytes_:
        matrix = _grouped(values.reshape(-1, bytes_.extent, channels), bytes_)
        depth = depth // bytes_.extent * bytes_.groups
    else:
        matrix = values[..., None]
    matrix = matrix.reshape(batch, depth, channels, -1)
    return in_panels(matrix, recipe)


def _grouped(values: np.ndarray, bytes_: Bytes) -> np.ndarray:
    """Weights [outer, extent, channels] as [outer, groups, channels, 4]; in a last step that begins
    early, what the one before it has is zero, and so is what lies beyond the extent."""
    outer, extent, channels = values.shape
    step = bytes_.step
    covered = bytes_.whole * step
    spread = np.zeros((outer, bytes_.groups * GROUP, channels), values.dtype)
    spread[:, :covered] = values[:, :covered]
    if covered < extent:
        first = covered + covered - bytes_.early  # behind the weights that the last step skips
        spread[:, first : first + extent - covered] = values[:, covered:]
    groups = spread.reshape(outer, bytes_.groups, GROUP, channels)
    return np.ascontiguousarray(groups.transpose(0, 1, 3, 2))
