"""ONNX sequences: a `Call` goes in, sequences of graph nodes or one of their elements come out.

Where a position is known at run time only, each element of the result is chosen among those that it
can be; those of different sizes are chosen in a box of the largest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError, UnsupportedError
from aotc.frontend.folding import known_value
from aotc.frontend.layouts import choose, length_of
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.specialize import MAX_ITEMS
from aotc.frontend.values import OptionalValue, Ragged, SequenceValue, Text, Value, kind_of
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType


def sequence_of(call: Call, index: int) -> SequenceValue:
    """Input ``index``, which must be a sequence."""
    value = call.value(index)
    if isinstance(value, OptionalValue) and value.value is not None:
        value = value.value
    if not isinstance(value, SequenceValue):
        what = "missing" if value is None else kind_of(value)
        raise ModelError(
            f"input {index} must be a sequence, is {what}",
            remedy="the node is malformed: export the model again",
        )
    return value


def item_of(call: Call, index: int) -> Value:
    """Input ``index``, which must be there and may be a tensor of any kind."""
    value = call.value(index)
    if value is None or isinstance(value, SequenceValue | OptionalValue):
        what = "missing" if value is None else kind_of(value)
        raise ModelError(
            f"input {index} must be a tensor, is {what}",
            remedy="the node is malformed: export the model again",
        )
    return value


def _expect_short(count: int) -> None:
    if count > MAX_ITEMS:
        raise UnsupportedError(
            f"a sequence of {count} elements is longer than {MAX_ITEMS}",
            remedy="keep the elements in one tensor with one more axis",
        )


def construct(call: Call) -> SequenceValue:
    """The inputs as a sequence."""
    _expect_short(len(call.inputs))
    return SequenceValue(tuple(item_of(call, index) for index in range(len(call.inputs))))


def empty(call: Call) -> SequenceValue:
    """No elements."""
    return SequenceValue(())


def length(call: Call) -> Node:
    """The number of elements."""
    return length_of(call.builder, sequence_of(call, 0))


def _position(
    call: Call, index: int, sequence: SequenceValue, ends: bool
) -> int | Node:
    """The position in input ``index``, counted from the front; the end of the sequence where it is
    left out. ``ends``: the place after the last element counts too. Whether it lies in the
    sequence is checked, now or at run time."""
    size = length_of(call.builder, sequence)
    given = call.optional(index)
    if given is None:
        place = size if ends else call.binary("sub", size, 1)
    else:
        if given.type.dtype not in (DType.I32, DType.I64) or given.type.elems != 1:
            raise ModelError(f"its position must be one whole number, is {given.type}")
        place = call.cast(call.reshape(given, ()), DType.I64)
        place = call.select(call.compare("lt", place, 0), call.binary("add", place, size), place)
    last = call.binary("add", size, 0 if ends else -1)
    inside = call.binary("and", call.compare("ge", place, 0), call.compare("le", place, last))
    known, holds = known_value(place), known_value(inside)
    if holds is not None and not holds:
        count = len(sequence.items)
        raise ModelError(
            f"its position is outside a sequence of {count} elements",
            remedy="the model is contradictory: export it again",
        )
    call.builder.check(inside, f"node '{call.origin}' needs a position inside its sequence")
    return place if known is None else int(known)


def insert(call: Call) -> SequenceValue:
    """One more element, before the given position."""
    sequence = sequence_of(call, 0)
    new = item_of(call, 1)
    items = sequence.items
    _expect_short(len(items) + 1)
    place = _position(call, 2, sequence, ends=True)
    longer = None if sequence.length is None else call.binary("add", sequence.length, 1)
    if isinstance(place, int):
        return SequenceValue((*items[:place], new, *items[place:]), longer)
    result: list[Value] = []
    for slot in range(len(items) + 1):
        value = items[slot - 1] if slot else new
        if slot:
            value = choose(call.builder, call.compare("eq", place, slot), new, value)
        if slot < len(items):
            value = choose(call.builder, call.compare("gt", place, slot), items[slot], value)
        result.append(value)
    return SequenceValue(tuple(result), longer)


def erase(call: Call) -> SequenceValue:
    """All elements but the one at the given position."""
    sequence = sequence_of(call, 0)
    items = sequence.items
    place = _position(call, 1, sequence, ends=False)
    shorter = None if sequence.length is None else call.binary("sub", sequence.length, 1)
    if isinstance(place, int):
        return SequenceValue((*items[:place], *items[place + 1 :]), shorter)
    pairs = enumerate(zip(items[:-1], items[1:], strict=True))
    kept = (
        choose(call.builder, call.compare("gt", place, slot), here, after)
        for slot, (here, after) in pairs
    )
    return SequenceValue(tuple(kept), shorter)


def at(call: Call) -> Value:
    """The element at the given position."""
    sequence = sequence_of(call, 0)
    if call.value(1) is None:
        raise ModelError("its position is missing", remedy="export the model again")
    place = _position(call, 1, sequence, ends=False)
    if isinstance(place, int):
        return sequence.items[place]
    if not sequence.items:
        raise ModelError("it takes an element of an empty sequence", remedy="check the model")
    result = sequence.items[0]
    for slot, item in enumerate(sequence.items[1:], 1):
        result = choose(call.builder, call.compare("eq", place, slot), item, result)
    return result


def split_to_sequence(call: Call) -> SequenceValue:
    """Pieces of one tensor along an axis: of one element, of a given size, or of given sizes."""
    data = call[0]
    axis = call.axis(call.attrs.integer("axis", 0), data.type.rank)
    size = data.shape[axis]
    split = call.optional(1)
    if split is None:
        _expect_short(size)
        pieces = [call.slice_axis(data, axis, start, 1) for start in range(size)]
        if not call.attrs.flag("keepdims", True):
            shape = data.shape[:axis] + data.shape[axis + 1 :]
            pieces = [call.reshape(piece, shape) for piece in pieces]
        return SequenceValue(tuple(pieces))
    if split.type.dtype not in (DType.I32, DType.I64) or split.type.rank > 1:
        raise ModelError(f"its split must be one or several whole numbers, is {split.type}")
    known = known_value(split)
    if known is not None:
        return SequenceValue(tuple(_known_pieces(call, data, axis, known)))
    if split.type.rank == 0:
        return _equal_pieces(call, data, axis, call.cast(split, DType.I64))
    return _given_pieces(call, data, axis, call.cast(split, DType.I64))


def _known_pieces(call: Call, data: Node, axis: int, split: np.ndarray) -> list[Node]:
    size = data.shape[axis]
    if split.ndim == 0:
        step = int(split)
        if step < 1:
            raise ModelError(f"it splits into pieces of {step} elements")
        _expect_short(-(-size // step))
        return [
            call.slice_axis(data, axis, start, min(step, size - start))
            for start in range(0, size, step)
        ]
    _expect_short(split.size)
    if (split < 0).any() or split.sum() != size:
        raise ModelError(f"pieces of {split.tolist()} elements do not make an axis of {size}")
    starts = np.cumsum(split) - split
    pairs = zip(starts.tolist(), split.tolist(), strict=True)
    return [call.slice_axis(data, axis, start, count) for start, count in pairs]


def _equal_pieces(call: Call, data: Node, axis: int, step: Node) -> SequenceValue:
    """Pieces of ``step`` (i64[]) elements, the last one smaller: as many as there can be."""
    size = data.shape[axis]
    _expect_short(size)
    positive = call.compare("gt", step, 0)
    call.builder.check(positive, f"node '{call.origin}' needs pieces of one element or more")
    step = call.binary("max", step, 1)
    pieces = []
    for place in range(size):
        # piece number p has at most size // (p + 1) elements, or is the shorter last one
        most = max(min(wide, size - place * wide) for wide in range(1, size + 1))
        start = call.binary("mul", step, place)
        left = call.binary("max", call.binary("sub", call.constant(np.asarray(size)), start), 0)
        pieces.append(_piece(call, data, axis, start, call.binary("min", step, left), most))
    rounded = call.binary("add", step, size - 1)
    return SequenceValue(tuple(pieces), call.binary("div", rounded, step))


def _given_pieces(call: Call, data: Node, axis: int, split: Node) -> SequenceValue:
    """Pieces of the sizes in ``split``, i64[n]."""
    (count,) = split.shape
    size = data.shape[axis]
    _expect_short(count)
    whole = call.compare("eq", call.reduce("sum", split, (0,), False), size)
    least = call.compare("ge", call.reduce("min", split, (0,), False), 0) if count else whole
    call.builder.check(
        call.binary("and", whole, least),
        f"node '{call.origin}' needs pieces that make an axis of {size} elements",
    )
    start = call.constant(np.asarray(0))
    pieces = []
    for place in range(count):
        own = call.reshape(call.slice_axis(split, 0, place, 1), ())
        # what the check refuses must not reach beyond the box either
        own = call.binary("min", call.binary("max", own, 0), size)
        pieces.append(_piece(call, data, axis, start, own, size))
        start = call.binary("add", start, own)
    return SequenceValue(tuple(pieces))


def _piece(call: Call, data: Node, axis: int, start: Node, count: Node, most: int) -> Ragged:
    """``count`` elements of one axis from ``start``, in a box of ``most``."""
    steps = call.constant(np.arange(most))
    index = call.binary("min", call.binary("add", start, steps), data.shape[axis] - 1)
    box = call.apply(ops.Gather(axis), data, index)
    sizes: list[int | Node] = list(box.shape)
    sizes[axis] = count
    return Ragged(box, tuple(sizes))


@dataclass(frozen=True)
class _Part:
    """An element to be joined: its box, its sizes, and whether it is there (None: always)."""

    node: Node
    sizes: tuple[Node | int, ...]
    there: Node | None


def concat_from_sequence(call: Call) -> Value:
    """All elements joined along an axis, which is a new one if ``new_axis``."""
    sequence = sequence_of(call, 0)
    if not sequence.items:
        raise ModelError("it joins a sequence without elements", remedy="check the model")
    texts = [item for item in sequence.items if isinstance(item, Text)]
    width = max((text.width for text in texts), default=0)
    axis, parts = 0, []
    for slot, item in enumerate(sequence.items):
        node, sizes = _box_of(call, item, width)
        rank = node.type.rank - bool(texts)
        new = call.attrs.flag("new_axis")
        axis = call.axis(call.attrs.integer("axis"), rank + new)
        if new:
            node = call.reshape(node, (*node.shape[:axis], 1, *node.shape[axis:]))
            sizes.insert(axis, 1)
        there = None
        if sequence.length is not None:
            there = call.compare("gt", sequence.length, slot)
            size = sizes[axis]
            full = size if isinstance(size, Node) else call.constant(np.asarray(size))
            sizes[axis] = call.select(there, full, call.constant(np.asarray(0)))
        parts.append(_Part(node, tuple(sizes), there))
    result = _joined(call, parts, axis)
    if not texts:
        return result
    return Text(result) if isinstance(result, Node) else Text(result.node, result.extents[:-1])


def _box_of(call: Call, item: Value, width: int) -> tuple[Node, list[Node | int]]:
    """The box and the sizes of an element; strings have ``width`` bytes as one more axis."""
    match item:
        case Node():
            return item, list(item.shape)
        case Ragged(node=node, extents=extents):
            return node, list(extents)
        case Text(node=node, extents=extents):
            room = [*(0 for _ in item.shape), width - item.width]
            sizes = item.shape if extents is None else extents
            return call.pad(node, [0] * len(room), room), [*sizes, width]
    raise UnsupportedError(
        f"an element is {kind_of(item)}", remedy="rewrite this part of the model"
    )


def _value(node: Node, sizes: Sequence[Node | int]) -> Node | Ragged:
    exact = all(isinstance(size, int) for size in sizes)
    return node if exact else Ragged(node, tuple(sizes))


def _joined(call: Call, parts: Sequence[_Part], axis: int) -> Node | Ragged:
    """Boxes filled to their sizes, joined along ``axis``; the other sizes must agree."""
    first = parts[0]
    shape, sizes = list(first.node.shape), list(first.sizes)
    for part in parts[1:]:
        if (part.node.type.rank, part.node.type.dtype) != (len(shape), first.node.type.dtype):
            raise ModelError(f"it joins {first.node.type} and {part.node.type}")
        for other in set(range(len(shape))) - {axis}:
            with nullcontext() if part.there is None else call.builder.guarded(part.there):
                _expect_same(call, sizes[other], part.sizes[other], other)
            shape[other] = max(shape[other], part.node.shape[other])
            if isinstance(part.sizes[other], int):
                sizes[other] = part.sizes[other]
    nodes = []
    for part in parts:
        room = [most - size for most, size in zip(shape, part.node.shape, strict=True)]
        room[axis] = 0
        nodes.append(call.pad(part.node, [0] * len(shape), room))
    whole = call.concat(nodes, axis)
    filled = [part.sizes[axis] for part in parts]
    if all(isinstance(size, int) for size in filled):
        sizes[axis] = whole.shape[axis]
        return _value(whole, sizes)
    return _close_gaps(call, whole, nodes, filled, axis, sizes)


def _expect_same(call: Call, a: int | Node, b: int | Node, axis: int) -> None:
    if isinstance(a, int) and isinstance(b, int):
        if a != b:
            raise ModelError(f"it joins tensors of {a} and {b} elements on axis {axis}")
        return
    nodes = [x if isinstance(x, Node) else call.constant(np.asarray(x)) for x in (a, b)]
    if nodes[0] is not nodes[1]:
        same = call.compare("eq", nodes[0], nodes[1])
        call.builder.check(same, f"node '{call.origin}' joins tensors of different sizes")


def _close_gaps(
    call: Call,
    whole: Node,
    nodes: Sequence[Node],
    filled: Sequence[int | Node],
    axis: int,
    sizes: list[int | Node],
) -> Ragged:
    """``whole`` without what is not filled of each part: an element behind a gap comes from as many
    elements further on as the gaps before it have."""
    total = whole.shape[axis]
    places = call.constant(np.arange(total))
    source = places
    end = call.constant(np.asarray(0))
    for node, size in zip(nodes, filled, strict=True):
        count = size if isinstance(size, Node) else call.constant(np.asarray(size))
        end = call.binary("add", end, count)
        gap = call.binary("sub", call.constant(np.asarray(node.shape[axis])), count)
        behind = call.cast(call.compare("ge", places, end), DType.I64)
        source = call.binary("add", source, call.binary("mul", behind, gap))
    sizes[axis] = end
    if not total:
        return Ragged(whole, tuple(sizes))
    index = call.binary("min", source, total - 1)
    return Ragged(call.apply(ops.Gather(axis), whole, index), tuple(sizes))


def sequence_map(call: Call) -> Sequence[Value]:
    """The body applied to each element, and to the same places of further sequences; a tensor goes
    to every application as it is."""
    graph = call.attrs.graph("body")
    first = sequence_of(call, 0)
    size = length_of(call.builder, first)
    for value in call.inputs[1:]:
        if not isinstance(value, SequenceValue):
            continue
        exact = value.length is None and first.length is None
        if exact and len(value.items) != len(first.items):
            counts = f"{len(first.items)} and {len(value.items)}"
            raise ModelError(f"its sequences have {counts} elements")
        if not exact:
            same = call.compare("eq", size, length_of(call.builder, value))
            call.builder.check(same, f"node '{call.origin}' needs sequences of one length")
    capacity = min(len(x.items) for x in call.inputs if isinstance(x, SequenceValue))
    results: list[list[Value]] = [[] for _ in graph.output]
    for place in range(capacity):
        operands = [
            value.items[place] if isinstance(value, SequenceValue) else item_of(call, index)
            for index, value in enumerate(call.inputs)
        ]
        with call.builder.guarded(call.compare("gt", size, place)):
            outputs = call.subgraph(graph, operands)
        for column, output in zip(results, outputs, strict=True):
            column.append(output)
    return [SequenceValue(tuple(column), first.length) for column in results]


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "ConcatFromSequence": concat_from_sequence,
        "SequenceAt": at,
        "SequenceConstruct": construct,
        "SequenceEmpty": empty,
        "SequenceErase": erase,
        "SequenceInsert": insert,
        "SequenceLength": length,
        "SequenceMap": sequence_map,
        "SplitToSequence": split_to_sequence,
    }
)
