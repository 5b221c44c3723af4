"""Operators whose result is as long as the data say (NonZero, Compress, Unique, NonMaxSuppression):
a `Call` goes in, boxes of the largest size and the number of elements in them come out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.bodies import Body
from aotc.frontend.folding import known_value
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.extents import (
    Size,
    as_node,
    box_mask,
    boxed,
    data_of,
    holds,
    iota,
    require,
    settle,
    simple,
)
from aotc.frontend.onnx_ops.runtime_shapes import prefix
from aotc.frontend.values import Value
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType, TensorType

MOST_COLUMNS = 256
"""Slices of more elements than this are not sorted."""


def compact(call: Call, flags: Node) -> tuple[Node, Size]:
    """The places of those of ``flags`` (bool[n]) that hold, in order, then anything (i64[n]), and
    how many there are."""
    (size,) = flags.shape
    if size == 0:
        return call.constant(np.zeros(0, np.int64)), 0
    ones = call.cast(flags, DType.I64)
    ends = call.apply(ops.CumSum(0, False, False), ones)
    # the others all go to one place behind the last
    target = call.select(flags, call.binary("sub", ends, 1), call.scalar(size, ends))
    empty = call.constant(np.zeros(size + 1, np.int64))
    places = call.apply(ops.ScatterElements(0, "set"), empty, target, iota(call, size))
    count = call.reshape(call.slice_axis(ends, 0, size - 1, 1), ())
    return call.slice_axis(places, 0, 0, size), simple(count)


def non_zero(call: Call) -> Value:
    """The places of the elements that are not zero, one column each, in row-major order."""
    x, sizes = data_of(call, 0)
    known = known_value(x)
    if known is not None and all(isinstance(size, int) for size in sizes):
        found = np.nonzero(np.atleast_1d(known))[: x.type.rank]
        places = np.asarray(found or np.zeros((0, np.count_nonzero(known))), dtype=np.int64)
        return call.constant(places)
    flags = x if x.type.dtype is DType.BOOL else call.compare("ne", x, 0)
    filled = box_mask(call, x.shape, sizes)
    if filled is not None:
        flags = call.binary("and", flags, filled)
    chosen, count = compact(call, call.reshape(flags, (x.type.elems,)))
    box, extents = settle(call, [x.type.rank, count], [None, x.type.elems])
    chosen = prefix(call, chosen, 0, box[1])
    rows, stride = [], x.type.elems
    for size in x.shape:
        stride //= max(size, 1)
        row = call.binary("mod", call.binary("div", chosen, max(stride, 1)), max(size, 1))
        rows.append(call.reshape(row, (1, box[1])))
    empty = call.constant(np.zeros((0, box[1]), np.int64))
    return boxed(call.concat(rows, 0) if rows else empty, extents)


def compress(call: Call) -> Value:
    """The slices along ``axis`` (or the flattened elements) where a condition holds."""
    x, sizes = data_of(call, 0)
    if "axis" in call.attrs:
        axis = call.axis(call.attrs.integer("axis"), x.type.rank)
    else:
        if not all(isinstance(size, int) for size in sizes):
            raise call.unsupported("it flattens an operand whose size is known at run time only")
        x, axis = call.reshape(x, (x.type.elems,)), 0
        sizes = x.shape
    flags = call[1]
    known = known_value(flags)
    if flags.type.rank != 1 or flags.type.dtype is not DType.BOOL:
        raise ModelError(f"its condition must be bool[n], is {flags.type}")
    if known is not None and isinstance(sizes[axis], int):
        chosen: Node = call.constant(np.flatnonzero(known).astype(np.int64))
        count: Size = chosen.shape[0]
        last = int(chosen.value[-1]) if chosen.value is not None and count else -1
        require(call, holds(call, "lt", last, sizes[axis]), "its condition is longer than the axis")
    else:
        beyond = call.compare("ge", iota(call, flags.shape[0]), as_node(call, sizes[axis]))
        outside = call.reduce("or", call.binary("and", flags, beyond), (0,), keep=False)
        require(call, call.unary("not", outside), "its condition holds beyond the end of the axis")
        chosen, count = compact(call, flags)
    wanted = [count if at == axis else size for at, size in enumerate(sizes)]
    most = [min(flags.shape[0], size) if at == axis else size for at, size in enumerate(x.shape)]
    box, extents = settle(call, wanted, most)
    return boxed(call.apply(ops.Gather(axis), x, prefix(call, chosen, 0, box[axis])), extents)


def unique(call: Call) -> Sequence[Value | None]:
    """The different elements (or slices along ``axis``), the first place of each, which of them
    each element is, and how often each occurs."""
    x = call[0]
    sort = call.attrs.flag("sorted", True)
    axis = call.axis(call.attrs.integer("axis"), x.type.rank) if "axis" in call.attrs else 0
    if "axis" not in call.attrs:
        x = call.reshape(x, (x.type.elems,))
    size = x.shape[axis]
    others = [at for at in range(x.type.rank) if at != axis]
    if size == 0:
        none = call.constant(np.zeros(0, np.int64))
        return [x, none, none, none]
    rows = call.reshape(call.transpose(x, (axis, *others)), (size, x.type.elems // size))
    order, starts = _sorted_slices(call, rows)
    firsts, count = compact(call, starts)
    group = call.binary("sub", _running(call, starts), 1)
    zeros = call.constant(np.zeros(size, np.int64))
    scatter = ops.ScatterElements(0, "set")
    inverse = call.apply(scatter, zeros, order, group)
    ones = call.broadcast(call.constant(np.asarray(1)), (size,))
    counts = call.apply(ops.ScatterElements(0, "add"), zeros, group, ones)
    indices = call.apply(ops.Gather(0), order, firsts)
    if not sort:
        # in the order of their first places; what is no group comes last
        real = call.compare("lt", iota(call, size), as_node(call, count))
        keys = call.select(real, indices, call.scalar(size, indices))
        ranked = call.apply(ops.TopK(size, 0, False), keys)
        renamed = call.apply(scatter, zeros, ranked, iota(call, size))
        indices, counts = (call.apply(ops.Gather(0), v, ranked) for v in (indices, counts))
        inverse = call.apply(ops.Gather(0), renamed, inverse)
    wanted = [count if at == axis else n for at, n in enumerate(x.shape)]
    box, extents = settle(call, wanted, x.shape)
    values = call.apply(ops.Gather(axis), x, prefix(call, indices, 0, box[axis]))
    results: list[Value | None] = [boxed(values, extents)]
    for output, vector in ((1, indices), (2, inverse), (3, counts)):
        if output >= len(call.output_used):
            break
        if output == 2:
            results.append(inverse)
            continue
        box, extents = settle(call, [count], [size], output)
        results.append(boxed(prefix(call, vector, 0, box[0]), extents))
    return results


def _running(call: Call, flags: Node) -> Node:
    return call.apply(ops.CumSum(0, False, False), call.cast(flags, DType.I64))


def _sorted_slices(call: Call, slices: Node) -> tuple[Node, Node]:
    """The order (i64[n]) that sorts the rows of [n, width] lexicographically, equal ones by their
    place, and where a row differs from the one before it in that order (bool[n])."""
    size, width = slices.shape
    if width > MOST_COLUMNS:
        raise call.unsupported(f"slices of {width} elements are too long to be sorted")
    if slices.type.dtype is DType.BOOL:
        slices = call.cast(slices, DType.U8)
    order: Node = iota(call, size)
    for column in reversed(range(width)):
        # a stable sort by each column, the most significant one last
        keys = call.reshape(call.slice_axis(slices, 1, column, 1), (size,))
        ranks = call.apply(ops.TopK(size, 0, False), call.apply(ops.Gather(0), keys, order))
        order = call.apply(ops.Gather(0), order, ranks)
    rows = call.apply(ops.Gather(0), slices, order)
    later, earlier = call.slice_axis(rows, 0, 1, size - 1), call.slice_axis(rows, 0, 0, size - 1)
    if size == 1:
        return order, call.constant(np.ones(1, np.bool_))
    differs = call.compare("ne", later, earlier)
    if slices.type.dtype.is_float:
        both = call.binary("and", call.unary("isnan", later), call.unary("isnan", earlier))
        differs = call.binary("and", differs, call.unary("not", both))
    differs = call.reduce("or", differs, (1,), keep=False)
    return order, call.concat([call.constant(np.ones(1, np.bool_)), differs], 0)


def non_max_suppression(call: Call) -> Value:
    """The boxes of each class by falling score, without those that overlap a better one too much:
    rows of batch, class and box."""
    boxes, scores = call[0], call[1]
    if boxes.type.rank != 3 or scores.type.rank != 3 or boxes.shape[2] != 4:
        raise ModelError(f"boxes {boxes.type} and scores {scores.type} do not fit together")
    batch, classes, count = scores.shape
    if boxes.shape[:2] != (batch, count):
        raise ModelError(f"boxes {boxes.type} and scores {scores.type} do not fit together")
    wanted = _scalar(call, 2, DType.I64, 0)
    most = simple(call.binary("max", call.binary("min", wanted, count), 0))
    rounds = most if isinstance(most, int) else _most_rounds(call, count)
    total = batch * classes * rounds
    if total == 0:
        return call.constant(np.zeros((0, 3), np.int64))
    chosen, valid = suppress(call, boxes, scores, as_node(call, most), rounds)
    flags = call.reshape(call.transpose(valid, (1, 2, 0)), (total,))
    chosen = call.reshape(call.transpose(chosen, (1, 2, 0)), (total,))
    places, found = compact(call, flags)
    box, extents = settle(call, [found, 3], [total, 3])
    places = prefix(call, places, 0, box[0])
    row = call.binary("div", places, rounds)
    columns = [
        call.binary("div", row, classes),
        call.binary("mod", row, classes),
        call.apply(ops.Gather(0), chosen, places),
    ]
    return boxed(call.concat([call.reshape(c, (box[0], 1)) for c in columns], 1), extents)


def _scalar(call: Call, index: int, dtype: DType, default: float) -> Node:
    """The number in input ``index``, or the default when it is left out or empty."""
    node = call.optional(index)
    if node is None or node.type.elems == 0:
        return call.constant(np.asarray(default, dtype.numpy))
    return call.cast(call.reshape(node, ()), dtype)


def _most_rounds(call: Call, count: int) -> int:
    """No class can have more boxes than the whole result."""
    declared = call.declared[0] if call.declared else None
    rows = declared[0] if declared else None
    given = call.bounds.get(call.outputs[0])
    limits = [limit for limit in (rows, given, count) if isinstance(limit, int)]
    return min(limits)


def suppress(
    call: Call, boxes: Node, scores: Node, most: Node, rounds: int
) -> tuple[Node, Node]:
    """The box that each round chooses in each class, and whether it chose one: i64 and
    bool [rounds, batch, classes]."""
    low, high = _corners(call, boxes)
    overlap = _scalar(call, 3, boxes.type.dtype, 0.0)
    threshold = _scalar(call, 4, scores.type.dtype, -math.inf)
    alive = call.compare("gt", scores, threshold)
    body = Body(call.builder)
    own = [body.parameter(TensorType(DType.I64, ())), body.parameter(alive.type)]
    inner = replace(call, builder=body.builder)
    fetched = [body.fetch_node(node) for node in (*low, *high, overlap, scores)]
    corners, (limit, score) = fetched[:4], fetched[4:]
    best, valid, left = _one_round(inner, own[1], corners, limit, score)
    going = inner.reduce("or", left, (0, 1, 2), keep=False)
    graph = body.finish("suppression", own, body.captured, [going, left, best, valid])
    start = call.constant(np.asarray(True))
    repeat = ops.Repeat(graph, 1, 0, rounds)
    loop = call.apply(repeat, most, start, alive, *body.captured)
    return call.apply(ops.Item(2), loop), call.apply(ops.Item(3), loop)


def _corners(call: Call, boxes: Node) -> tuple[list[Node], list[Node]]:
    """The lower and upper coordinates of the boxes, [batch, 1, count] each."""
    batch, count, _ = boxes.shape
    a, b, c, d = (
        call.reshape(call.slice_axis(boxes, 2, at, 1), (batch, 1, count)) for at in range(4)
    )
    if call.attrs.flag("center_point_box"):
        halves = [call.binary("mul", size, 0.5) for size in (c, d)]
        low = [call.binary("sub", at, half) for at, half in zip((a, b), halves, strict=True)]
        high = [call.binary("add", at, half) for at, half in zip((a, b), halves, strict=True)]
        return low, high
    pairs = ((a, c), (b, d))
    return [call.binary("min", *p) for p in pairs], [call.binary("max", *p) for p in pairs]


def _one_round(
    call: Call, alive: Node, corners: Sequence[Node], limit: Node, scores: Node
) -> tuple[Node, Node, Node]:
    """The best of the boxes that are ``alive`` in each class (i64[batch, classes]), whether there
    is one, and which boxes are alive without it and those that overlap it."""
    worst = call.scalar(-math.inf, scores)
    best = call.apply(ops.ArgReduce("max", 2, False), call.select(alive, scores, worst))
    valid = call.reduce("or", alive, (2,), keep=False)
    at = call.reshape(best, (*best.shape, 1))
    wide = [call.broadcast(corner, scores.shape) for corner in corners]
    own = [call.apply(ops.GatherElements(2), corner, at) for corner in wide]
    sides = []
    for axis in (0, 1):
        end = call.binary("min", wide[2 + axis], own[2 + axis])
        start = call.binary("max", wide[axis], own[axis])
        sides.append(call.binary("max", call.binary("sub", end, start), 0.0))
    shared = call.binary("mul", *sides)
    areas = [
        call.binary("mul", *(call.binary("sub", b[2 + k], b[k]) for k in (0, 1)))
        for b in (wide, own)
    ]
    joint = call.binary("sub", call.binary("add", *areas), shared)
    # nothing is shared with an empty box, and then the union may be empty as well
    ratio = call.binary("div", shared, joint)
    close = call.binary("and", call.compare("gt", shared, 0.0), call.compare("gt", ratio, limit))
    place = call.apply(ops.Iota(scores.shape, 2, DType.I64))
    gone = call.binary("or", close, call.compare("eq", place, at))
    return best, valid, call.binary("and", alive, call.unary("not", gone))


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Compress": compress,
        "NonMaxSuppression": non_max_suppression,
        "NonZero": non_zero,
        "Unique": unique,
    }
)
