"""TFLite operators that move data, and those that make shapes: a `Use` goes in, nodes come out.

Stored integers are moved as they are; where the result stores them otherwise, each is converted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.folding import known_value
from aotc.frontend.tflite.use import Rule, Use
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType


def reshape(use: Use) -> Node:
    """The elements under the shape in operand 1, or in the options."""
    x = use.call[0]
    options = use.options("ReshapeOptions")
    if use.is_known(1):
        shape = use.ints(1, "shape")
    elif options.NewShapeLength():
        shape = tuple(int(size) for size in options.NewShapeAsNumpy())
    elif use.has(1):
        shape = use.output().shape
    else:
        raise ModelError("has no shape", remedy="the file is damaged: convert the model again")
    return use.moved(use.onnx("Reshape", x, use.vector(shape), allowzero=1), 0)


def squeeze(use: Use) -> Node:
    """Without the axes of size 1 that are named, or without all of them."""
    options = use.options("SqueezeOptions")
    axes = options.SqueezeDimsAsNumpy() if options.SqueezeDimsLength() else ()
    operands = [use.vector([int(axis) for axis in axes])] if len(axes) else []
    return use.moved(use.onnx("Squeeze", use.call[0], *operands), 0)


def expand_dims(use: Use) -> Node:
    """With one more axis of size 1."""
    axis = use.call.known_int(1, "axis")
    return use.moved(use.onnx("Unsqueeze", use.call[0], use.vector([axis])), 0)


def transpose(use: Use) -> Node:
    """Axes in another order."""
    perm = use.ints(1, "permutation")
    return use.moved(use.onnx("Transpose", use.call[0], perm=perm), 0)


def concatenation(use: Use) -> Node:
    """All operands joined along an axis."""
    options = use.options("ConcatenationOptions")
    if options.FusedActivationFunction():
        raise use.call.unsupported("an activation after it is not supported")
    parts = [use.moved(use.call[index], index) for index in range(len(use.inputs))]
    return use.onnx("Concat", *parts, axis=options.Axis())


def pack(use: Use) -> Node:
    """The operands stacked along a new axis."""
    options, parts = use.options("PackOptions"), []
    for index in range(len(use.inputs)):
        part = use.moved(use.call[index], index)
        axis = use.call.axis(options.Axis(), part.type.rank + 1)
        parts.append(use.call.reshape(part, (*part.shape[:axis], 1, *part.shape[axis:])))
    if not parts:
        raise ModelError("takes at least one operand, has none")
    return use.call.concat(parts, use.call.axis(options.Axis(), parts[0].type.rank))


def unpack(use: Use) -> Sequence[Node]:
    """The slices along an axis, without that axis."""
    options, x = use.options("UnpackOptions"), use.call[0]
    axis = use.call.axis(options.Axis(), x.type.rank)
    if x.shape[axis] != len(use.outputs):
        raise ModelError(f"{x.type} does not unpack into {len(use.outputs)} along axis {axis}")
    shape = (*x.shape[:axis], *x.shape[axis + 1 :])
    return [
        use.moved(use.call.reshape(use.call.slice_axis(x, axis, at, 1), shape), 0, at)
        for at in range(len(use.outputs))
    ]


def split(use: Use) -> Sequence[Node]:
    """Equal pieces along the axis in operand 0."""
    axis, x = use.call.known_int(0, "axis"), use.call[1]
    axis = use.call.axis(axis, x.type.rank)
    count = len(use.outputs)
    if not count or x.shape[axis] % count:
        raise ModelError(f"{x.type} does not split into {count} along axis {axis}")
    return _pieces(use, x, 1, axis, [x.shape[axis] // count] * count)


def split_v(use: Use) -> Sequence[Node]:
    """Pieces of the sizes in operand 1 along the axis in operand 2; -1 is what is left."""
    x, sizes = use.call[0], list(use.ints(1, "sizes"))
    axis = use.call.axis(use.call.known_int(2, "axis"), x.type.rank)
    if sizes.count(-1) == 1:
        sizes[sizes.index(-1)] = x.shape[axis] - sum(sizes) - 1
    if sum(sizes) != x.shape[axis] or min(sizes, default=0) < 0 or len(sizes) != len(use.outputs):
        raise ModelError(f"{x.type} does not split into {sizes} along axis {axis}")
    return _pieces(use, x, 0, axis, sizes)


def _pieces(use: Use, x: Node, source: int, axis: int, sizes: Sequence[int]) -> list[Node]:
    starts = [sum(sizes[:at]) for at in range(len(sizes))]
    return [
        use.moved(use.call.slice_axis(x, axis, start, size), source, at)
        for at, (start, size) in enumerate(zip(starts, sizes, strict=True))
    ]


def slice_(use: Use) -> Node:
    """As many elements from each axis as operand 2 says (-1: all that are left) from the place in
    operand 1 on."""
    x, starts, counts = use.call[0], use.ints(1, "begin"), use.ints(2, "size")
    if not len(starts) == len(counts) == x.type.rank:
        raise ModelError(f"begin {starts} and size {counts} do not fit {x.type}")
    per_axis = zip(x.shape, starts, counts, strict=True)
    counts = tuple(size - start if count == -1 else count for size, start, count in per_axis)
    return use.moved(use.call.apply(ops.Slice(starts, counts, (1,) * x.type.rank), x), 0)


def strided_slice(use: Use) -> Node:
    """numpy's basic slicing; each mask has one bit for each entry of begin, end and strides."""
    options, x = use.options("StridedSliceOptions"), use.call[0]
    begin, end, steps = (use.ints(at, "range") for at in (1, 2, 3))
    if not len(begin) == len(end) == len(steps):
        raise ModelError(f"begin {begin}, end {end} and strides {steps} differ in length")
    key: list[slice | int | None] = []
    new_axes = options.NewAxisMask()
    for place in range(len(begin)):
        bit = 1 << place
        if options.EllipsisMask() & bit:
            later = sum(not new_axes >> at & 1 for at in range(place + 1, len(begin)))
            done = sum(entry is not None for entry in key)
            key += [slice(None)] * (x.type.rank - done - later)
        elif new_axes & bit:
            key.append(None)
        elif options.ShrinkAxisMask() & bit:
            key.append(begin[place])
        else:
            first = None if options.BeginMask() & bit else begin[place]
            last = None if options.EndMask() & bit else end[place]
            if last is not None and options.Offset():
                last += begin[place]
            key.append(slice(first, last, steps[place]))
    return use.moved(_indexed(use, x, key), 0)


def _indexed(use: Use, x: Node, key: Sequence[slice | int | None]) -> Node:
    """``x[key]``."""
    starts, counts, steps, shape = [], [], [], []
    sizes = iter(x.shape)
    given = sum(entry is not None for entry in key)
    if given > x.type.rank:
        raise ModelError(f"its range has {given} axes, {x.type} has fewer")
    for entry in (*key, *[slice(None)] * (x.type.rank - given)):
        if entry is None:
            shape.append(1)
            continue
        size = next(sizes)
        if isinstance(entry, int):
            if not -size <= entry < size:
                raise ModelError(f"place {entry} is outside an axis of {size}")
            chosen = range(entry % size, entry % size + 1)
        else:
            chosen = range(size)[entry]
            shape.append(len(chosen))
        starts.append(chosen.start if len(chosen) else 0)
        counts.append(len(chosen))
        steps.append(chosen.step)
    y = use.call.apply(ops.Slice(tuple(starts), tuple(counts), tuple(steps)), x)
    return use.call.reshape(y, shape)


def gather(use: Use) -> Node:
    """The slices along an axis that the indices name."""
    options, x, index = use.options("GatherOptions"), use.call[0], use.call[1]
    axis, batches = use.call.axis(options.Axis(), x.type.rank), options.BatchDims()
    if batches == 0:
        return use.moved(use.onnx("Gather", x, index, axis=axis), 0)
    if batches != axis:
        raise use.call.unsupported(f"batch_dims {batches} with axis {axis} is not supported")
    index = use.call.cast(use.call.reshape(index, (*index.shape, 1)), DType.I64)
    return use.moved(use.onnx("GatherND", x, index, batch_dims=batches), 0)


def gather_nd(use: Use) -> Node:
    """The last axis of the indices addresses the leading axes of the data."""
    index = use.call.cast(use.call[1], DType.I64)
    return use.moved(use.onnx("GatherND", use.call[0], index), 0)


def scatter_nd(use: Use) -> Node:
    """Zeros of the shape in operand 2 with slices added at the indices in operand 0."""
    shape = use.ints(2, "shape")
    zeros = use.call.broadcast(use.call.scalar(0, use.call[1]), shape)
    index = use.call.cast(use.call[0], DType.I64)
    return use.onnx("ScatterND", zeros, index, use.call[1], reduction="add")


def tile(use: Use) -> Node:
    """Each axis repeated."""
    repeats = use.vector(use.ints(1, "multiples"))
    return use.moved(use.onnx("Tile", use.call[0], repeats), 0)


def broadcast_to(use: Use) -> Node:
    """Stretched as numpy does."""
    return use.moved(use.call.broadcast(use.call[0], use.ints(1, "shape")), 0)


def reverse(use: Use) -> Node:
    """The elements along some axes from the end."""
    x = use.call[0]
    for axis in use.call.axes(use.ints(1, "axes"), x.type.rank):
        x = use.call.slice_axis(x, axis, x.shape[axis] - 1, x.shape[axis], -1)
    return use.moved(x, 0)


def reverse_sequence(use: Use) -> Node:
    """The first elements of each batch reversed."""
    options = use.options("ReverseSequenceOptions")
    lengths = use.call.cast(use.call[1], DType.I64)
    time, batch = options.SeqDim(), options.BatchDim()
    if sorted((time, batch)) != [0, 1]:
        raise use.call.unsupported(f"time along axis {time}, batches along axis {batch}")
    y = use.onnx("ReverseSequence", use.call[0], lengths, time_axis=time, batch_axis=batch)
    return use.moved(y, 0)


def _amounts(use: Use, x: Node) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How much operand 1 adds before and after each axis."""
    amounts = use.ints(1, "padding")
    if len(amounts) != 2 * x.type.rank or min(amounts, default=0) < 0:
        raise ModelError(f"padding {amounts} does not fit {x.type}")
    return amounts[::2], amounts[1::2]


def pad(use: Use) -> Node:
    """Padding with zero (the zero point of stored integers), or with the value in operand 2."""
    x = use.call[0]
    low, high = _amounts(use, x)
    scale = use.scale_of(use.tensor(0))
    value = float(scale.zero_points[0]) if scale is not None else 0.0
    if use.has(2):
        known = known_value(use.call[2])
        if known is None or known.size != 1:
            raise use.call.unsupported("its padding value is computed at run time")
        value = float(known.reshape(-1)[0])
    return use.moved(use.call.pad(x, low, high, value), 0)


def mirror_pad(use: Use) -> Node:
    """Padding with the elements next to the border, mirrored at it (SYMMETRIC) or at the last
    element (REFLECT)."""
    x = use.call[0]
    apart = 0 if use.options("MirrorPadOptions").Mode() == 1 else 1
    for axis, (low, high) in enumerate(zip(*_amounts(use, x), strict=True)):
        size = x.shape[axis]
        if max(low, high) > size - apart:
            raise ModelError(f"padding {low} and {high} is more than an axis of {size} can mirror")
        front = use.call.slice_axis(x, axis, low - 1 + apart, low, -1) if low else None
        back = use.call.slice_axis(x, axis, size - 1 - apart, high, -1) if high else None
        parts = [part for part in (front, x, back) if part is not None]
        x = use.call.concat(parts, axis)
    return use.moved(x, 0)


def shape(use: Use) -> Node:
    """The sizes of the operand."""
    sizes = np.asarray(use.call[0].shape, use.output().dtype.numpy)
    return use.call.constant(sizes)


def rank(use: Use) -> Node:
    """The number of axes of the operand."""
    return use.call.constant(np.asarray(use.call[0].type.rank, use.output().dtype.numpy))


def fill(use: Use) -> Node:
    """The value in operand 1 in the shape in operand 0."""
    value = use.call.reshape(use.moved(use.call[1], 1), ())
    return use.call.broadcast(value, use.ints(0, "shape"))


def zeros_like(use: Use) -> Node:
    """Zeros in the shape of the operand."""
    x = use.call[0]
    return use.call.broadcast(use.call.scalar(0, x), x.shape)


def range_(use: Use) -> Node:
    """``start, start + delta, ...`` below the limit."""
    return use.onnx("Range", *(use.call[at] for at in range(3)))


def one_hot(use: Use) -> Node:
    """``on`` where a new axis meets the index, ``off`` elsewhere."""
    axis = use.options("OneHotOptions").Axis()
    depth = use.vector([use.call.known_int(1, "depth")])
    on, off = (use.call.reshape(use.call[at], (1,)) for at in (2, 3))
    values = use.call.concat([off, on], 0)
    index = use.call[0]
    size = int(use.ints(1, "depth")[0])
    y = use.onnx("OneHot", index, depth, values, axis=axis)
    # ONNX counts negative indices from the end, here they are off
    rank_ = index.type.rank
    place = use.call.axis(axis, rank_ + 1)
    inside = use.call.reshape(
        use.call.compare("ge", index, 0), (*index.shape[:place], 1, *index.shape[place:])
    )
    inside = use.call.broadcast(inside, (*index.shape[:place], size, *index.shape[place:]))
    return use.call.select(inside, y, use.call.reshape(off, ()))


def depth_to_space(use: Use) -> Node:
    """Blocks of channels become blocks of pixels."""
    x, block = use.call[0], use.options("DepthToSpaceOptions").BlockSize()
    _expect_image(x, block)
    count, height, width, channels = x.shape
    if channels % (block * block):
        raise ModelError(f"{channels} channels are no blocks of {block} x {block}")
    inner = channels // (block * block)
    y = use.call.reshape(x, (count, height, width, block, block, inner))
    y = use.call.transpose(y, (0, 1, 3, 2, 4, 5))
    return use.moved(use.call.reshape(y, (count, height * block, width * block, inner)), 0)


def space_to_depth(use: Use) -> Node:
    """Blocks of pixels become channels."""
    x, block = use.call[0], use.options("SpaceToDepthOptions").BlockSize()
    _expect_image(x, block)
    count, height, width, channels = x.shape
    if height % block or width % block:
        raise ModelError(f"{height} x {width} pixels are no blocks of {block} x {block}")
    y = use.call.reshape(x, (count, height // block, block, width // block, block, channels))
    y = use.call.transpose(y, (0, 1, 3, 2, 4, 5))
    sizes = (count, height // block, width // block, block * block * channels)
    return use.moved(use.call.reshape(y, sizes), 0)


def _expect_image(x: Node, block: int) -> None:
    if x.type.rank != 4 or block < 1:
        raise ModelError(f"needs data of 4 axes and blocks of 1 or more, got {x.type} and {block}")


def space_to_batch(use: Use) -> Node:
    """Padded images cut into interleaved smaller ones, which become further images."""
    x, blocks = use.call[0], use.ints(1, "block shape")
    amounts = use.ints(2, "padding")
    count = len(blocks)
    _expect_blocks(x, blocks, amounts)
    rest = x.type.rank - 1 - count
    scale = use.scale_of(use.tensor(0))
    value = float(scale.zero_points[0]) if scale is not None else 0.0
    low, high = (0, *amounts[::2], *(0,) * rest), (0, *amounts[1::2], *(0,) * rest)
    y = use.call.pad(x, low, high, value)
    spatial, inner = y.shape[1 : 1 + count], y.shape[1 + count :]
    if any(size % block for size, block in zip(spatial, blocks, strict=True)):
        raise ModelError(f"{spatial} does not divide into blocks of {blocks}")
    apart = [n for size, block in zip(spatial, blocks, strict=True) for n in (size // block, block)]
    y = use.call.reshape(y, (x.shape[0], *apart, *inner))
    order = [2 + 2 * at for at in range(count)] + [0] + [1 + 2 * at for at in range(count)]
    y = use.call.transpose(y, (*order, *range(1 + 2 * count, y.type.rank)))
    images = x.shape[0] * int(np.prod(blocks))
    return use.moved(use.call.reshape(y, (images, *apart[::2], *inner)), 0)


def batch_to_space(use: Use) -> Node:
    """The reverse of SPACE_TO_BATCH_ND, cropped."""
    x, blocks = use.call[0], use.ints(1, "block shape")
    crops = use.ints(2, "crops")
    count = len(blocks)
    _expect_blocks(x, blocks, crops)
    parts = int(np.prod(blocks))
    if x.shape[0] % parts:
        raise ModelError(f"{x.shape[0]} images are no blocks of {blocks}")
    spatial, inner = x.shape[1 : 1 + count], x.shape[1 + count :]
    y = use.call.reshape(x, (*blocks, x.shape[0] // parts, *spatial, *inner))
    order = [count]
    for axis in range(count):
        order += [count + 1 + axis, axis]
    y = use.call.transpose(y, (*order, *range(1 + 2 * count, y.type.rank)))
    sizes = [size * block for size, block in zip(spatial, blocks, strict=True)]
    y = use.call.reshape(y, (x.shape[0] // parts, *sizes, *inner))
    for axis, (front, back) in enumerate(zip(crops[::2], crops[1::2], strict=True)):
        left = sizes[axis] - front - back
        if left < 0:
            raise ModelError(f"crops {front} and {back} are more than an axis of {sizes[axis]}")
        y = use.call.slice_axis(y, 1 + axis, front, left)
    return use.moved(y, 0)


def _expect_blocks(x: Node, blocks: Sequence[int], amounts: Sequence[int]) -> None:
    fits = len(amounts) == 2 * len(blocks) and len(blocks) < x.type.rank
    if not fits or min(blocks, default=1) < 1 or min(amounts, default=0) < 0:
        raise ModelError(f"blocks {tuple(blocks)} and {tuple(amounts)} do not fit {x.type}")


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "BATCH_TO_SPACE_ND": batch_to_space,
        "BROADCAST_TO": broadcast_to,
        "CONCATENATION": concatenation,
        "DEPTH_TO_SPACE": depth_to_space,
        "EXPAND_DIMS": expand_dims,
        "FILL": fill,
        "GATHER": gather,
        "GATHER_ND": gather_nd,
        "MIRROR_PAD": mirror_pad,
        "ONE_HOT": one_hot,
        "PACK": pack,
        "PAD": pad,
        "PADV2": pad,
        "RANGE": range_,
        "RANK": rank,
        "RESHAPE": reshape,
        "REVERSE_SEQUENCE": reverse_sequence,
        "REVERSE_V2": reverse,
        "SCATTER_ND": scatter_nd,
        "SHAPE": shape,
        "SLICE": slice_,
        "SPACE_TO_BATCH_ND": space_to_batch,
        "SPACE_TO_DEPTH": space_to_depth,
        "SPLIT": split,
        "SPLIT_V": split_v,
        "SQUEEZE": squeeze,
        "STRIDED_SLICE": strided_slice,
        "TILE": tile,
        "TRANSPOSE": transpose,
        "UNPACK": unpack,
        "ZEROS_LIKE": zeros_like,
    }
)
