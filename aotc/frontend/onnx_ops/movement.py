"""ONNX operators that move data (reshape, slice, concat, pad, ...): a `Call` in, nodes out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.onnx_ops import runtime_shapes
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.extents import either
from aotc.frontend.onnx_ops.runtime import scalar_operand
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType


def reshape(call: Call) -> Node:
    """The elements under the shape in input 1, an attribute before opset 5; 0 copies a size (unless
    ``allowzero``), -1 is inferred."""
    x = call[0]
    given = call.attrs.integers("shape", ()) if call.version < 5 else call.known_ints(1, "shape")
    target = list(given or ())
    if not call.attrs.flag("allowzero"):
        for axis, size in enumerate(target):
            if size == 0:
                if axis >= x.type.rank:
                    raise ModelError(f"shape {target} copies axis {axis}, which {x.type} lacks")
                target[axis] = x.shape[axis]
    if target.count(-1) > 1 or min(target, default=0) < -1:
        raise ModelError(f"shape {target} is not valid: one -1 at most, the rest not negative")
    if -1 in target:
        rest = math.prod(size for size in target if size != -1)
        if rest == 0 or x.type.elems % rest:
            raise ModelError(f"{x.type.elems} elements of {x.type} do not fit the shape {target}")
        target[target.index(-1)] = x.type.elems // rest
    return call.reshape(x, target)


def flatten(call: Call) -> Node:
    """Two axes: everything before ``axis`` and everything from it on."""
    x, axis = call[0], call.attrs.integer("axis", 1)
    rank = x.type.rank
    if not -rank <= axis <= rank:
        raise ModelError(f"axis {axis} is outside a tensor of rank {rank}")
    axis = axis + rank if axis < 0 else axis
    return call.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def _given_axes(call: Call, since: int) -> tuple[int, ...] | None:
    """``axes``: an attribute before opset ``since``, an input from then on; None when left out."""
    if call.version < since:
        return call.attrs.integers("axes")
    return None if call.optional(1) is None else call.known_ints(1, "axes")


def squeeze(call: Call) -> Node:
    """Without the axes of size 1 that are named, or without all of them."""
    x, given = call[0], _given_axes(call, 13)
    if given is None:
        return call.reshape(x, [size for size in x.shape if size != 1])
    axes = call.axes(given, x.type.rank)
    for axis in axes:
        if x.shape[axis] != 1:
            raise ModelError(f"axis {axis} of {x.type} has size {x.shape[axis]}, not 1")
    return call.reshape(x, [size for axis, size in enumerate(x.shape) if axis not in axes])


def unsqueeze(call: Call) -> Node:
    """With axes of size 1 at the named places of the result."""
    x, given = call[0], _given_axes(call, 13)
    if given is None:
        raise ModelError("its axes are missing")
    axes = call.axes(given, x.type.rank + len(given))
    sizes = iter(x.shape)
    rank = x.type.rank + len(axes)
    return call.reshape(x, [1 if axis in axes else next(sizes) for axis in range(rank)])


def transpose(call: Call) -> Node:
    """Axes in the order ``perm``, reversed by default."""
    x = call[0]
    perm = call.attrs.integers("perm", tuple(reversed(range(x.type.rank)))) or ()
    if sorted(perm) != list(range(x.type.rank)):
        raise ModelError(f"'perm' {perm} is not an order of the axes of {x.type}")
    return call.transpose(x, perm)


def expand(call: Call) -> Node:
    """numpy broadcasting of input 0 with the shape in input 1."""
    x, target = call[0], call.known_ints(1, "shape")
    if min(target, default=0) < 0:
        raise ModelError(f"shape {target} has a negative size")
    return call.broadcast(x, call.joint_shape(x.shape, target))


def tile(call: Call) -> Node:
    """Each axis repeated as often as input 1 says; before opset 6 one axis, that of input 2."""
    x = call[0]
    if call.version < 6:
        count, axis = call.known_int(1, "tiles"), call.axis(call.known_int(2, "axis"), x.type.rank)
        repeats = tuple(count if at == axis else 1 for at in range(x.type.rank))
    else:
        repeats = call.known_ints(1, "repeats")
    if len(repeats) != x.type.rank or min(repeats, default=0) < 0:
        raise ModelError(f"repeats {repeats} do not fit {x.type}: one count per axis, not negative")
    # [a, b] -> [1, a, 1, b] -> [r, a, s, b] -> [r a, s b]
    pairs = list(zip(repeats, x.shape, strict=True))
    apart = call.reshape(x, [size for _, dim in pairs for size in (1, dim)])
    wide = call.broadcast(apart, [size for pair in pairs for size in pair])
    return call.reshape(wide, [count * dim for count, dim in pairs])


def slice_(call: Call) -> Node:
    """numpy slicing along some axes; attributes before opset 10, inputs from then on."""
    x = call[0]
    steps: tuple[int, ...] | None = None
    axes: tuple[int, ...] | None
    if call.version < 10:
        starts, ends = call.attrs.required_integers("starts"), call.attrs.required_integers("ends")
        axes = call.attrs.integers("axes")
    else:
        starts, ends = call.known_ints(1, "starts"), call.known_ints(2, "ends")
        axes = None if call.optional(3) is None else call.known_ints(3, "axes")
        steps = None if call.optional(4) is None else call.known_ints(4, "steps")
    axes = call.axes(range(len(starts)) if axes is None else axes, x.type.rank)
    steps = (1,) * len(starts) if steps is None else steps
    if not len(starts) == len(ends) == len(axes) == len(steps):
        raise ModelError(f"the lengths of {starts}, {ends}, {axes} and {steps} differ")
    if 0 in steps:
        raise ModelError(f"steps {steps} contain 0")
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        size = x.shape[axis]
        # a backward slice may end before element 0, which numpy writes as None
        stop = None if step < 0 and end < -size else end
        chosen = range(*slice(start, stop, step).indices(size))
        x = call.slice_axis(x, axis, chosen.start if chosen else 0, len(chosen), step)
    return x


def split(call: Call) -> Sequence[Node]:
    """Pieces along ``axis``: of the given sizes, or equal (the last may be smaller from opset 18
    on)."""
    x = call[0]
    axis = call.axis(call.attrs.integer("axis", 0), x.type.rank)
    size, pieces = x.shape[axis], len(call.output_used)
    # the sizes are an input in opset 1 and from 13 on
    if call.version < 13 and call.optional(1) is None:
        sizes = call.attrs.integers("split")
    else:
        sizes = None if call.optional(1) is None else call.known_ints(1, "sizes")
    if sizes is None:
        if call.attrs.integer("num_outputs", pieces) != pieces:
            raise ModelError(f"attribute 'num_outputs' is not the number of outputs, {pieces}")
        if pieces < 1 or (call.version < 18 and size % pieces):
            raise ModelError(f"axis {axis} of {x.type} does not split into {pieces} equal pieces")
        each = -(-size // pieces)
        sizes = tuple(max(0, min(each, size - each * i)) for i in range(pieces))
    if sum(sizes) != size or len(sizes) != len(call.output_used) or min(sizes) < 0:
        raise ModelError(
            f"sizes {sizes} for {len(call.output_used)} outputs do not fit axis {axis} of {x.type}"
        )
    starts = np.cumsum((0, *sizes[:-1])).tolist()
    return [call.slice_axis(x, axis, at, count) for at, count in zip(starts, sizes, strict=True)]


def concat(call: Call) -> Node:
    """All inputs joined along ``axis``."""
    operands = call.operands
    if not operands:
        raise ModelError("takes at least one input, has none")
    axis = call.attrs.integer("axis", 1 if call.version < 4 else None)
    return call.concat(operands, call.axis(axis, operands[0].type.rank))


def pad(call: Call) -> Node:
    """Padding of mode constant, edge, reflect or wrap; negative amounts remove elements."""
    x, mode = call[0], call.attrs.string("mode", "constant")
    value = 0.0
    rank = x.type.rank
    axes = tuple(range(rank))
    if call.version < 11:
        pads = call.attrs.required_integers("pads" if call.version > 1 else "paddings")
        value = call.attrs.real("value", 0.0)
    else:
        pads = call.known_ints(1, "pads")
        if call.optional(2) is not None and call[2].type.elems > 0:
            value = call.known(2, "padding value").reshape(-1)[0].item()
        if call.optional(3) is not None:
            axes = call.axes(call.known_ints(3, "axes"), rank)
    if len(pads) != 2 * len(axes):
        raise ModelError(f"pads {pads} do not fit {len(axes)} axes: two numbers each")
    low, high = [0] * rank, [0] * rank
    for place, axis in enumerate(axes):
        low[axis], high[axis] = pads[place], pads[place + len(axes)]
    if mode == "constant":
        # removing comes first: padding with a constant commutes with it
        for axis in range(rank):
            x = _crop(call, x, axis, max(0, -low[axis]), max(0, -high[axis]))
        return call.pad(x, [max(0, n) for n in low], [max(0, n) for n in high], value)
    if mode not in ("edge", "reflect", "wrap"):
        raise ModelError(f"attribute 'mode' must be constant, edge, reflect or wrap, is '{mode}'")
    for axis in range(rank):
        x = _extend(call, x, axis, low[axis], high[axis], mode)
    return x


def _crop(call: Call, x: Node, axis: int, front: int, back: int) -> Node:
    count = x.shape[axis] - front - back
    if count < 0:
        raise ModelError(f"removes {front} and {back} elements from axis {axis} of {x.type}")
    return call.slice_axis(x, axis, front if count else 0, count)


def _extend(call: Call, x: Node, axis: int, low: int, high: int, mode: str) -> Node:
    """Padding of one axis with elements of the tensor itself."""
    size = x.shape[axis]
    if size == 0 and max(low, high) > 0:
        raise ModelError(f"axis {axis} of {x.type} is empty: mode '{mode}' has nothing to repeat")
    added = max(low, 0), max(high, 0)
    reach = {"edge": math.inf, "reflect": size - 1, "wrap": size}[mode]
    if max(added) > reach:
        call.expect_indexable(size + sum(added))
        places = np.pad(np.arange(size), added, mode=mode)  # type: ignore[call-overload]
        x = call.apply(ops.Gather(axis), x, call.constant(places))
    else:
        parts = [_side(call, x, axis, added[0], mode, True), x]
        parts.append(_side(call, x, axis, added[1], mode, False))
        x = call.concat([part for part in parts if part is not None], axis)
    return _crop(call, x, axis, max(0, -low), max(0, -high))


def _side(call: Call, x: Node, axis: int, count: int, mode: str, front: bool) -> Node | None:
    """The ``count`` elements before or after axis ``axis`` of ``x``."""
    size = x.shape[axis]
    if count == 0:
        return None
    if mode == "reflect":
        return call.slice_axis(x, axis, count if front else size - 2, count, -1)
    if mode == "wrap":
        return call.slice_axis(x, axis, size - count if front else 0, count)
    edge = call.slice_axis(x, axis, 0 if front else size - 1, 1)
    return call.broadcast(edge, [count if at == axis else dim for at, dim in enumerate(x.shape)])


def depth_to_space(call: Call) -> Node:
    """Blocks of channels become blocks of pixels; ``mode`` DCR or CRD says how channels are
    ordered."""
    x, block = call[0], call.attrs.integer("blocksize")
    mode = call.attrs.string("mode", "DCR")
    _expect_image(x, block)
    n, c, h, w = x.shape
    if c % (block * block) or mode not in ("DCR", "CRD"):
        raise ModelError(f"{x.type} does not fit blocksize {block} in mode '{mode}'")
    depth = c // (block * block)
    if mode == "DCR":
        apart = call.reshape(x, (n, block, block, depth, h, w))
        moved = call.transpose(apart, (0, 3, 4, 1, 5, 2))
    else:
        apart = call.reshape(x, (n, depth, block, block, h, w))
        moved = call.transpose(apart, (0, 1, 4, 2, 5, 3))
    return call.reshape(moved, (n, depth, h * block, w * block))


def space_to_depth(call: Call) -> Node:
    """Blocks of pixels become channels."""
    x, block = call[0], call.attrs.integer("blocksize")
    _expect_image(x, block)
    n, c, h, w = x.shape
    if h % block or w % block:
        raise ModelError(f"{x.type} does not fit blocksize {block}")
    if call.attrs.string("mode", "DCR") not in ("DCR", "CRD"):
        raise ModelError("attribute 'mode' must be DCR or CRD")
    apart = call.reshape(x, (n, c, h // block, block, w // block, block))
    order = (0, 3, 5, 1, 2, 4) if call.attrs.string("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
    moved = call.transpose(apart, order)
    return call.reshape(moved, (n, c * block * block, h // block, w // block))


def _expect_image(x: Node, block: int) -> None:
    if x.type.rank != 4 or block < 1:
        raise ModelError(f"needs rank 4 and a blocksize of 1 or more, got {x.type} and {block}")


def trilu(call: Call) -> Node:
    """The upper or lower triangle of the last two axes, from diagonal k on; zero elsewhere."""
    x = call[0]
    if x.type.rank < 2:
        raise ModelError(f"needs at least two axes, got {x.type}")
    rows, columns = x.shape[-2:]
    k: Node | int = 0
    if call.optional(1) is not None:
        k = call.binary("max", call.binary("min", scalar_operand(call, 1), columns), -rows)
    row = call.apply(ops.Iota((rows, columns), 0, DType.I64))
    column = call.apply(ops.Iota((rows, columns), 1, DType.I64))
    fn = "ge" if call.attrs.flag("upper", True) else "le"
    kept = call.compare(fn, call.binary("sub", column, row), k)
    return call.select(kept, x, call.scalar(0, x))


def reverse_sequence(call: Call) -> Node:
    """The first ``sequence_lens`` elements of each batch reversed along the time axis."""
    x, lengths = call[0], call[1]
    batch = call.axis(call.attrs.integer("batch_axis", 1), x.type.rank)
    time = call.axis(call.attrs.integer("time_axis", 0), x.type.rank)
    if batch == time or lengths.shape != (x.shape[batch],):
        raise ModelError(f"lengths {lengths.type}, batch axis {batch}, time axis {time}: no fit")
    apart = [size if axis == batch else 1 for axis, size in enumerate(x.shape)]
    length = call.reshape(lengths, apart)
    place = call.apply(ops.Iota(x.shape, time, DType.I64))
    length = call.broadcast(call.cast(length, DType.I64), x.shape)
    mirrored = call.binary("sub", call.binary("sub", length, place), 1)
    source = call.select(call.compare("lt", place, length), mirrored, place)
    return call.apply(ops.GatherElements(time), x, source)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Concat": concat,
        "DepthToSpace": depth_to_space,
        "Expand": either(expand, runtime_shapes.expand, 1),
        "Flatten": flatten,
        "Pad": either(pad, runtime_shapes.pad, 1, 2, 3),
        "Reshape": either(reshape, runtime_shapes.reshape, 1),
        "ReverseSequence": reverse_sequence,
        "Slice": either(slice_, runtime_shapes.slice_, 1, 2, 3, 4),
        "SpaceToDepth": space_to_depth,
        "Split": either(split, runtime_shapes.split, 1),
        "Squeeze": either(squeeze, runtime_shapes.squeeze, 1),
        "Tile": either(tile, runtime_shapes.tile, 1, 2),
        "Transpose": transpose,
        "Trilu": trilu,
        "Unsqueeze": either(unsqueeze, runtime_shapes.unsqueeze, 1),
    }
)
