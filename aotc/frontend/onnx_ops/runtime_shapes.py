"""Operators that move data by operands which are known at run time only: a `Call` goes in, index
arithmetic on a box of fixed shape comes out.

The forms for constant operands are in movement.py and shape.py; both read an operator alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call
from aotc.frontend.onnx_ops.extents import (
    MAX_RANK,
    Size,
    all_of,
    along,
    any_of,
    as_node,
    axis_hits,
    boxed,
    choose,
    compute,
    data_of,
    elements,
    holds,
    iota,
    least,
    product,
    require,
    settle,
    simple,
    spread,
)
from aotc.frontend.values import Value
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType

FAR = 2**63 - 1
"""Beyond every axis."""


def reshape(call: Call) -> Value:
    """Reshape whose shape, or whose operand's size, is known at run time."""
    x, sizes = data_of(call, 0)
    if call.version < 5:
        given: list[Size] = list(call.attrs.integers("shape", ()) or ())
    else:
        given = elements(call, 1, "shape")
    copies = not call.attrs.flag("allowzero")
    target: list[Size] = []
    for axis, size in enumerate(given):
        if copies and (size == 0 or (isinstance(size, Node) and not _from(call, size, 1))):
            own: Size = sizes[axis] if axis < len(sizes) else -2
            size = choose(call, holds(call, "eq", size, 0), own, size)
        target.append(size)
    total = product(call, sizes)
    if target.count(-1) == 1:
        target[target.index(-1)] = _quotient(call, sizes, [size for size in target if size != -1])
    open_axes = [axis for axis, size in enumerate(target) if not _from(call, size, 0)]
    inferred = {axis: holds(call, "eq", target[axis], -1) for axis in open_axes}
    rest = product(
        call,
        [choose(call, inferred[a], 1, s) if a in inferred else s for a, s in enumerate(target)],
    )
    missing = compute(call, "div", total, rest)
    for axis, hit in inferred.items():
        target[axis] = choose(call, hit, missing, target[axis])
    fits = [holds(call, "ge", size, 0) for size in target if not _from(call, size, 0)]
    if _quotient(call, sizes, target) != 1:
        fits.append(holds(call, "eq", product(call, target), total))
    require(call, all_of(call, fits), f"its shape must be one for {x.type}")
    box, extents = settle(call, target, _reshape_bounds(x, target))
    return relayout(call, x, sizes, box, extents)


def _from(call: Call, size: Size, bound: int) -> bool:
    """Whether ``size`` is known to be ``bound`` or more."""
    low = least(call, size)
    return low is not None and low >= bound


def _quotient(call: Call, sizes: Sequence[Size], others: Sequence[Size]) -> Size:
    """The product of ``sizes`` over that of ``others``: what both have cancels."""
    left = [size for size in sizes if isinstance(size, Node)]
    below = []
    for size in others:
        if isinstance(size, Node) and size in left:
            left.remove(size)
        else:
            below.append(size)
    factor = math.prod(size for size in sizes if isinstance(size, int))
    divisor = math.prod(size for size in below if isinstance(size, int))
    if divisor and factor % divisor == 0:
        below = [size for size in below if isinstance(size, Node)]
        factor //= divisor
    above = product(call, [*left, factor] if factor != 1 else left)
    return compute(call, "div", above, product(call, below)) if below else above


def _reshape_bounds(x: Node, target: Sequence[Size]) -> list[int | None]:
    """With one open axis, what the other ones leave of the elements."""
    known = int(np.prod([size for size in target if isinstance(size, int)], dtype=np.int64))
    single = sum(not isinstance(size, int) for size in target) == 1
    most = x.type.elems // known if single and known else None
    return [most for _ in target]


def relayout(
    call: Call,
    x: Node,
    sizes: Sequence[Size],
    box: tuple[int, ...],
    extents: Sequence[Size],
) -> Value:
    """The elements of ``x`` (a box filled to ``sizes``) in row-major order as a box filled to
    ``extents``, of which there are as many."""
    ragged = [axis for axis, size in enumerate(sizes) if isinstance(size, Node)]
    open_axes = [axis for axis, size in enumerate(extents) if isinstance(size, Node)]
    count = int(np.prod(box, dtype=np.int64))
    if not ragged and not open_axes and count != x.type.elems:
        raise ModelError(f"{x.type} does not have the {count} elements of its declared result")
    if _factors(x.shape, sizes) == _factors(box, extents):
        return boxed(call.reshape(x, box), extents)
    if ragged in ([], [0]) and open_axes in ([], [0]):
        # what is filled comes first in both boxes
        flat = call.reshape(x, (x.type.elems,))
        if count > x.type.elems:
            flat = call.pad(flat, [0], [count - x.type.elems])
        else:
            flat = call.slice_axis(flat, 0, 0, count)
        return boxed(call.reshape(flat, box), extents)
    place = linear_index(call, box, extents)
    if ragged:
        place = _box_index(call, place, x.shape, sizes)
    flat = call.reshape(x, (x.type.elems,))
    return boxed(call.apply(ops.Gather(0), flat, place), extents)


def _factors(box: Sequence[int], sizes: Sequence[Size]) -> list[tuple[int, Size, int]]:
    """The sizes that are nodes, their boxes, and the elements of the axes after each up to the
    next: boxes that agree in these hold the same elements at the same places."""
    found: list[tuple[int, Size, int]] = []
    whole = 1
    for most, size in zip(reversed(box), reversed(sizes), strict=True):
        if isinstance(size, Node):
            found.append((most, size, whole))
            whole = 1
        else:
            whole *= most
    return [*found, (0, 0, whole)]


def linear_index(call: Call, box: tuple[int, ...], extents: Sequence[Size]) -> Node:
    """For each place in ``box``, its place in row-major order of a tensor of size ``extents``."""
    total = call.constant(np.zeros((1,) * len(box), dtype=np.int64))
    stride: Size = 1
    for axis in reversed(range(len(box))):
        column = along(call, iota(call, box[axis]), axis, len(box))
        total = call.binary("add", total, call.binary("mul", column, as_node(call, stride)))
        stride = compute(call, "mul", stride, extents[axis])
    return call.broadcast(total, box)


def _box_index(call: Call, place: Node, box: tuple[int, ...], sizes: Sequence[Size]) -> Node:
    """Places in row-major order of a tensor of ``sizes`` as places of its box."""
    found, stride = None, 1
    for axis in reversed(range(len(box))):
        size = as_node(call, sizes[axis])
        at = call.binary("mul", call.binary("mod", place, size), stride)
        found = at if found is None else call.binary("add", found, at)
        place = call.binary("div", place, size)
        stride *= box[axis]
    assert found is not None
    return found


def expand(call: Call) -> Value:
    """numpy broadcasting with a shape known at run time."""
    x, sizes = data_of(call, 0)
    given = elements(call, 1, "shape")
    rank = max(len(given), len(sizes))
    old: list[Size] = [*[1] * (rank - len(sizes)), *sizes]
    wanted: list[Size] = [*[1] * (rank - len(given)), *given]
    result = [_stretched(call, a, b) for a, b in zip(old, wanted, strict=True)]
    box, extents = settle(call, result, [None] * rank)
    dims = (1,) * (rank - x.type.rank) + x.shape
    return boxed(call.broadcast(_within_box(call, call.reshape(x, dims), box), box), extents)


def _within_box(call: Call, x: Node, box: Sequence[int]) -> Node:
    """``x`` without what lies beyond ``box``."""
    for axis, most in enumerate(box):
        x = prefix(call, x, axis, min(most, x.shape[axis]))
    return x


def prefix(call: Call, x: Node, axis: int, count: int) -> Node:
    """The first ``count`` elements of an axis; ModelError when it has fewer."""
    if count > x.shape[axis]:
        raise ModelError(f"its result is declared with {count} elements of {x.shape[axis]}")
    return call.slice_axis(x, axis, 0, count)


def _stretched(call: Call, size: Size, wanted: Size) -> Size:
    """The size of an axis of ``size`` broadcast with ``wanted``. Only an axis known to be 1
    stretches."""
    if size == 1:
        return wanted
    if wanted == 1:
        return size
    same = [holds(call, "eq", wanted, size), holds(call, "eq", wanted, 1)]
    require(call, any_of(call, same), "its shape must be one to which the operand stretches")
    return size


def tile(call: Call) -> Value:
    """Each axis repeated a number of times known at run time."""
    x, sizes = data_of(call, 0)
    rank = len(sizes)
    if call.version < 6:
        counts, axes = elements(call, 1, "tiles"), elements(call, 2, "axis")
        entries = spread(call, axes, rank, [counts], [1])
        repeats = [1 if entry is None else entry[0] for entry in entries]
    else:
        repeats = elements(call, 1, "repeats")
    if len(repeats) != rank:
        raise ModelError(f"{len(repeats)} repeats do not fit {x.type}")
    wanted = [compute(call, "mul", n, size) for n, size in zip(repeats, sizes, strict=True)]
    box, extents = settle(call, wanted, [None] * rank)
    for axis in range(rank):
        if repeats[axis] != 1 and (box[axis], sizes[axis]) != (x.shape[axis], box[axis]):
            place = call.binary("mod", iota(call, box[axis]), as_node(call, sizes[axis]))
            x = call.apply(ops.Gather(axis), x, place)
    return boxed(x, extents)


def slice_(call: Call) -> Value:
    """numpy slicing by starts, ends, axes and steps known at run time."""
    x, sizes = data_of(call, 0)
    rank = len(sizes)
    starts: Sequence[Size]
    ends: Sequence[Size]
    axes: Sequence[Size] | None
    steps: Sequence[Size] | None = None
    if call.version < 10:
        starts, ends = call.attrs.required_integers("starts"), call.attrs.required_integers("ends")
        axes = call.attrs.integers("axes")
    else:
        starts, ends = elements(call, 1, "starts"), elements(call, 2, "ends")
        axes = None if call.optional(3) is None else elements(call, 3, "axes")
        steps = None if call.optional(4) is None else elements(call, 4, "steps")
    steps = [1] * len(starts) if steps is None else steps
    entries = spread(call, axes, rank, [starts, ends, steps], [0, FAR, 1])
    parts = [
        (0, size, 1) if entry is None else _part(call, size, *entry)
        for size, entry in zip(sizes, entries, strict=True)
    ]
    box, extents = settle(call, [count for _, count, _ in parts], x.shape)
    for axis, (first, count, step) in enumerate(parts):
        if entries[axis] is None:
            continue
        if isinstance(first, int) and isinstance(step, int) and isinstance(count, int):
            x = call.slice_axis(x, axis, first if count else 0, count, step)
        else:
            steps_in = call.binary("mul", iota(call, box[axis]), as_node(call, step))
            place = call.binary("add", steps_in, as_node(call, first))
            x = call.apply(ops.Gather(axis), x, place)
    return boxed(x, extents)


def _part(
    call: Call, size: Size, start: Size, end: Size, step: Size
) -> tuple[Size, Size, Size]:
    """The first place, the count and the step of a slice of an axis, as numpy reads them."""
    require(call, holds(call, "ne", step, 0), "its steps must not be 0")
    most = compute(call, "max", size, 1)
    least = compute(call, "sub", 0, most)
    step = compute(call, "min", compute(call, "max", step, least), most)  # no farther ones matter
    backward = holds(call, "lt", step, 0)
    lowest = choose(call, backward, -1, 0)
    highest = choose(call, backward, compute(call, "sub", size, 1), size)
    first, last = (_clamped(call, at, size, lowest, highest) for at in (start, end))
    reach = choose(
        call, backward, compute(call, "sub", first, last), compute(call, "sub", last, first)
    )
    width = choose(call, backward, compute(call, "sub", 0, step), step)
    count = compute(call, "div", compute(call, "add", reach, compute(call, "sub", width, 1)), width)
    return first, compute(call, "max", count, 0), step


def _clamped(call: Call, at: Size, size: Size, lowest: Size, highest: Size) -> Size:
    front = choose(call, holds(call, "lt", at, 0), compute(call, "add", at, size), at)
    return compute(call, "min", compute(call, "max", front, lowest), highest)


def pad(call: Call) -> Value:
    """Padding by amounts, along axes, or with a value known at run time."""
    x, sizes = data_of(call, 0)
    rank, mode = len(sizes), call.attrs.string("mode", "constant")
    if mode not in ("constant", "edge", "reflect", "wrap"):
        raise ModelError(f"attribute 'mode' must be constant, edge, reflect or wrap, is '{mode}'")
    fill = call.scalar(0, x)
    axes: list[Size] | None = None
    if call.version < 11:
        amounts: list[Size] = list(
            call.attrs.required_integers("pads" if call.version > 1 else "paddings")
        )
        fill = call.scalar(call.attrs.real("value", 0.0), x)
    else:
        amounts = elements(call, 1, "pads")
        value = call.optional(2)
        if value is not None and value.type.elems > 0:
            fill = call.reshape(value, ())
        axes = None if call.optional(3) is None else elements(call, 3, "axes")
    half = len(amounts) // 2
    entries = spread(call, axes, rank, [amounts[:half], amounts[half:]], [0, 0])
    wanted: list[Size] = []
    for size, entry in zip(sizes, entries, strict=True):
        added = 0 if entry is None else compute(call, "add", *entry)
        wanted.append(compute(call, "add", size, added))
    box, extents = settle(call, wanted, [None] * rank)
    mask: Node | None = None
    for axis, entry in enumerate(entries):
        if entry is None or all(amount == 0 for amount in entry):
            continue
        place = call.binary("sub", iota(call, box[axis]), as_node(call, entry[0]))
        size = as_node(call, sizes[axis])
        if mode == "constant":
            inside = call.compare("ge", place, 0)
            inside = call.binary("and", inside, call.compare("lt", place, size))
            column = along(call, inside, axis, rank)
            mask = column if mask is None else call.binary("and", mask, column)
        if x.shape[axis] == 0 and mode == "constant":
            dims = enumerate(x.shape)
            x = call.broadcast(fill, [box[axis] if at == axis else n for at, n in dims])
        else:
            x = call.apply(ops.Gather(axis), x, _source(call, place, size, mode))
    x = x if mask is None else call.select(mask, x, fill)
    return boxed(x, extents)


def _source(call: Call, place: Node, size: Node, mode: str) -> Node:
    """Which element stands at ``place`` of an axis of ``size``, before and after it by ``mode``."""
    if mode == "wrap":
        return call.binary("mod", place, size)
    last = call.binary("sub", size, 1)
    if mode == "reflect":
        period = call.binary("mul", last, 2)
        inside = call.binary("mod", place, period)
        return call.binary("min", inside, call.binary("sub", period, inside))
    return call.binary("min", call.binary("max", place, 0), last)


def split(call: Call) -> Sequence[Value]:
    """Pieces along ``axis`` of sizes known at run time."""
    x, sizes = data_of(call, 0)
    axis = call.axis(call.attrs.integer("axis", 0), len(sizes))
    pieces = len(call.output_used)
    given = call.attrs.integers("split") if call.version < 13 else None
    if call.optional(1) is not None:
        counts = elements(call, 1, "sizes")
    elif given is not None:
        counts = list(given)
    else:
        counts = _equal_pieces(call, sizes[axis], pieces)
    if len(counts) != pieces:
        raise ModelError(f"{len(counts)} sizes for {pieces} outputs")
    total: Size = 0
    for count in counts:
        total = compute(call, "add", total, count)
    complete = [holds(call, "eq", total, sizes[axis])]
    complete += [holds(call, "ge", count, 0) for count in counts]
    require(call, all_of(call, complete), f"its sizes must add up to axis {axis} of the operand")
    results: list[Value] = []
    start: Size = 0
    for output, count in enumerate(counts):
        wanted = [count if at == axis else size for at, size in enumerate(sizes)]
        box, extents = settle(call, wanted, x.shape, output)
        if isinstance(start, int) and start + box[axis] <= x.shape[axis]:
            piece = call.slice_axis(x, axis, start if box[axis] else 0, box[axis])
        else:
            place = call.binary("add", iota(call, box[axis]), as_node(call, start))
            piece = call.apply(ops.Gather(axis), x, place)
        results.append(boxed(piece, extents))
        start = compute(call, "add", start, extents[axis])
    return results


def _equal_pieces(call: Call, size: Size, pieces: int) -> list[Size]:
    """Equal sizes, the last ones smaller when they do not add up."""
    each = compute(call, "div", compute(call, "add", size, pieces - 1), pieces)
    found = []
    for place in range(pieces):
        left = compute(call, "sub", size, compute(call, "mul", each, place))
        found.append(compute(call, "max", compute(call, "min", each, left), 0))
    return found


def squeeze(call: Call) -> Value:
    """Without axes of size 1, of which not all are known."""
    x, sizes = data_of(call, 0)
    axes: list[Size] | None
    if call.version < 13:
        given = call.attrs.integers("axes")
        axes = None if given is None else list(given)
    else:
        axes = None if call.optional(1) is None else elements(call, 1, "axes")
    if axes is None:
        for axis, size in enumerate(sizes):
            if isinstance(size, Node):
                # the number of axes is fixed, so this one stays
                sentence = f"axis {axis} of its operand must not have one element"
                require(call, holds(call, "ne", size, 1), sentence)
        axes = [axis for axis, size in enumerate(sizes) if size == 1]
    if all(isinstance(axis, int) for axis in axes):
        chosen = call.axes([axis for axis in axes if isinstance(axis, int)], len(sizes))
        for axis in chosen:
            sentence = f"axis {axis} of its operand must have one element"
            require(call, holds(call, "eq", sizes[axis], 1), sentence)
            x = call.slice_axis(x, axis, 0, 1)
        kept = [axis for axis in range(len(sizes)) if axis not in chosen]
        node = call.reshape(x, [x.shape[axis] for axis in kept])
        return boxed(node, [sizes[axis] for axis in kept])
    ones = [axis for axis, size in enumerate(sizes) if size == 1]
    shapes = {
        subset: [size for axis, size in enumerate(sizes) if axis not in subset]
        for subset in _subsets(call, ones, len(axes))
    }
    return _regrouped(call, x, axes, len(sizes), shapes)


def unsqueeze(call: Call) -> Value:
    """With axes of size 1 at places known at run time."""
    x, sizes = data_of(call, 0)
    axes: list[Size] = (
        list(call.attrs.required_integers("axes"))
        if call.version < 13
        else elements(call, 1, "axes")
    )
    rank = len(sizes) + len(axes)
    shapes = {}
    known = [axis for axis in axes if isinstance(axis, int)]
    if len(known) == len(axes):
        subsets = [tuple(sorted(call.axes(known, rank)))]
    else:
        subsets = _subsets(call, range(rank), len(axes))
    for subset in subsets:
        own = iter(sizes)
        shapes[subset] = [1 if axis in subset else next(own) for axis in range(rank)]
    if len(known) == len(axes):
        (shape,) = shapes.values()
        boxes = iter(x.shape)
        node = call.reshape(x, [1 if at in subsets[0] else next(boxes) for at in range(rank)])
        return boxed(node, shape)
    return _regrouped(call, x, axes, rank, shapes)


def _subsets(call: Call, axes: Sequence[int], count: int) -> list[tuple[int, ...]]:
    if len(axes) > MAX_RANK // 2:
        raise call.unsupported(f"{count} of {len(axes)} axes are chosen at run time")
    return list(combinations(axes, count))


def _regrouped(
    call: Call,
    x: Node,
    axes: Sequence[Size],
    rank: int,
    shapes: dict[tuple[int, ...], list[Size]],
) -> Value:
    """``x`` in the declared one of ``shapes``, which the sets of axes give; the run checks that
    ``axes`` are one that gives it."""
    subset, fitting = declared_subsets(call, shapes)
    shape = shapes[subset]
    dims = [size for size in shape if isinstance(size, int)]
    if len(dims) < len(shape):
        raise call.unsupported("its axes as well as its operand's sizes are known at run time only")
    meant = subset_hits(call, axes, rank, fitting)
    shown = ", ".join(map(str, dims))
    require(call, any_of(call, meant), f"its axes must give the declared shape [{shown}]")
    return call.reshape(x, dims)


def declared_subsets(
    call: Call, shapes: dict[tuple[int, ...], list[Size]]
) -> tuple[tuple[int, ...], list[tuple[int, ...]]]:
    """The sets of axes whose shape is the one that the model declares, and one of them; all of
    them must give the same shape."""
    declared = call.declared[0] if call.declared else None
    fitting = [
        subset
        for subset, shape in shapes.items()
        if declared is None
        or (
            len(declared) == len(shape)
            and all(
                not isinstance(wanted, int) or not isinstance(size, int) or wanted == size
                for wanted, size in zip(declared, shape, strict=True)
            )
        )
    ]
    if not fitting:
        raise ModelError("no choice of its axes gives the shape that the model declares")
    if any(shapes[subset] != shapes[fitting[0]] for subset in fitting):
        name = call.outputs[0]
        raise call.unsupported(
            "its axes are computed at run time, and they decide the shape of its result",
            f"declare the shape of '{name}' in the model, or make the axes a constant; a bound "
            f"(--max {name}=N) does not tell which axes they are",
        )
    return fitting[0], fitting


def subset_hits(
    call: Call, axes: Sequence[Size], rank: int, subsets: Sequence[tuple[int, ...]]
) -> list[Node]:
    """Whether ``axes`` are each of ``subsets``, in any order."""
    hits = axis_hits(call, axes, rank)
    named = [any_of(call, [row[axis] for row in hits]) for axis in range(rank)]
    return [all_of(call, [named[axis] for axis in subset]) for subset in subsets]


def over_open_axes(call: Call, formula: Callable[[tuple[int, ...]], Node], keep: bool) -> Node:
    """``formula`` over the axes in input 1, which are known at run time only: over each set of
    axes that gives the declared shape, of which the run selects one."""
    x, axes = call[0], elements(call, 1, "axes")
    rank = x.type.rank
    shapes: dict[tuple[int, ...], list[Size]] = {}
    for subset in _subsets(call, range(rank), len(axes)):
        dims = enumerate(x.shape)
        shapes[subset] = [1 if at in subset else n for at, n in dims if keep or at not in subset]
    _, fitting = declared_subsets(call, shapes)
    meant = subset_hits(call, axes, rank, fitting)
    shown = " or ".join(str(list(subset)) for subset in fitting)
    require(call, any_of(call, meant), f"its axes must be {shown}")
    result = formula(fitting[0])
    for hit, subset in zip(meant[1:], fitting[1:], strict=True):
        result = call.select(hit, formula(subset), result)
    return result


def constant_of_shape(call: Call) -> Value:
    """One value in a shape known at run time."""
    sizes = elements(call, 0, "shape")
    value = call.attrs.tensor("value") if "value" in call.attrs else np.zeros(1, np.float32)
    if value.size != 1:
        raise ModelError(f"attribute 'value' must hold one element, has {value.size}")
    box, extents = settle(call, sizes, [None] * len(sizes))
    return boxed(call.broadcast(call.constant(value.reshape(())), box), extents)


def range_(call: Call) -> Value:
    """``start, start + delta, ...`` below a limit, of which one is known at run time only."""
    dtype = call[0].type.dtype
    wide = DType.F64 if dtype.is_float else DType.I64
    start, limit, delta = (call.cast(call.reshape(call[at], ()), wide) for at in range(3))
    span = call.binary("sub", limit, start)
    if dtype.is_float:
        steps = call.unary("ceil", call.binary("div", span, delta))
        # the larger of NaN and 0 is NaN, for which no comparison holds
        sane = call.compare("lt", steps, float(FAR))
        count = call.cast(call.select(sane, steps, call.scalar(-1.0, steps)), DType.I64)
        require(call, sane, "start, limit and delta must be finite, and delta not 0")
    else:
        width = call.unary("abs", delta)
        reach = call.binary("mul", span, call.unary("sign", delta))
        count = call.binary("div", call.binary("add", reach, call.binary("sub", width, 1)), width)
        require(call, call.compare("ne", delta, 0), "delta must not be 0")
    wanted = compute(call, "max", simple(count), 0)
    box, extents = settle(call, [wanted], [None])
    place = call.cast(iota(call, box[0]), wide)
    values = call.binary("add", call.binary("mul", place, delta), start)
    return boxed(call.cast(values, dtype), extents)


def top_k(call: Call) -> Sequence[Value]:
    """The k best elements along ``axis``, for a k known at run time."""
    x, sizes = data_of(call, 0)
    axis = call.axis(call.attrs.integer("axis", -1), len(sizes))
    (k,) = [call.attrs.integer("k")] if call.version < 10 else elements(call, 1, "count k")
    whole = all(isinstance(size, int) for size in sizes)
    if not whole:
        raise call.unsupported("its operand's size is known at run time only")
    inside = call.binary("and", holds(call, "ge", k, 0), holds(call, "le", k, sizes[axis]))
    require(call, inside, f"its count k must be from 0 to {sizes[axis]}")
    wanted = [k if at == axis else size for at, size in enumerate(sizes)]
    results: list[Value] = []
    for output in (0, 1):
        box, extents = settle(call, wanted, x.shape, output)
        best = ops.TopK(box[axis], axis, call.attrs.flag("largest", True))
        places = call.apply(best, x)
        node = places if output else call.apply(ops.GatherElements(axis), x, places)
        results.append(boxed(node, extents))
    return results
