"""ONNX operators on strings: a `Call` goes in, tensors of bytes come out.

Characters that an operator looks at one by one (white space, letters whose case changes) are those
of ASCII; everything else is compared and copied as UTF-8, which is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.folding import FoldingBuilder
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.extents import Size, boxed, settle, simple
from aotc.frontend.onnx_ops.text_rows import (
    changed_case,
    is_one_of,
    lengths,
    text_input,
    widened,
)
from aotc.frontend.regex import full_match
from aotc.frontend.values import Ragged, Text
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType, TensorType

WHITE_SPACE = b" \t\n\v\f\r"


def concat(call: Call) -> Text:
    """The strings of input 0 followed by those of input 1, with numpy broadcasting."""
    a, b = (text_input(call, index) for index in (0, 1))
    shape = call.joint_shape(a.shape, b.shape)
    width = a.width + b.width
    head = widened(call, call.broadcast(a.node, (*shape, a.width)), width)
    tail = call.broadcast(b.node, (*shape, b.width))
    length = call.reshape(lengths(call, head), (*shape, 1))
    place = call.binary("sub", _columns(call, width), length)
    moved = _at(call, tail, place)
    return Text(call.select(call.compare("lt", place, 0), head, moved))


def _columns(call: Call, count: int) -> Node:
    """0, 1, 2, ...: i64[count]."""
    return call.apply(ops.Iota((count,), 0, DType.I64))


def _at(call: Call, rows: Node, places: Node) -> Node:
    """The bytes at ``places`` of each of ``rows``; NUL beyond their end, unspecified before their
    beginning."""
    width = rows.shape[-1]
    flat = int(np.prod(rows.shape[:-1], dtype=np.int64))
    first = call.binary("min", call.binary("max", places, 0), width)
    padded = call.reshape(widened(call, rows, width + 1), (flat, width + 1))
    index = call.reshape(first, (flat, places.type.elems // flat if flat else 0))
    found = call.apply(ops.GatherElements(1), padded, index)
    return call.reshape(found, places.shape)


def split(call: Call) -> list[Text | Node]:
    """The pieces of each string between delimiters, along a new last axis that is as long as the
    string with the most pieces has them, and their number (i64)."""
    x = text_input(call, 0)
    delimiter = call.attrs.string("delimiter", "").encode()
    limit = call.attrs.integer("maxsplit") if "maxsplit" in call.attrs else -1
    rows = call.reshape(x.node, (x.elems, x.width))
    cut = _cut_at_delimiters if delimiter else _cut_at_spaces
    pieces = cut(call, rows, delimiter or WHITE_SPACE, limit)
    longest: Size = 0
    if x.elems:
        longest = simple(call.reduce("max", pieces.count, (0,), keep=False))
    box, extents = settle(call, [*x.shape, longest], [*x.shape, pieces.most])
    number = box[-1]
    starts, ends = pieces.spans(number)
    place = call.binary(
        "add", call.reshape(starts, (x.elems, number, 1)), _columns(call, x.width)
    )
    inside = call.compare("lt", place, call.reshape(ends, (x.elems, number, 1)))
    found = _at(call, rows, place)
    bytes_ = call.select(inside, found, call.scalar(0, found))
    ragged = None if all(isinstance(size, int) for size in extents) else extents
    return [
        Text(call.reshape(bytes_, (*box, x.width)), ragged),
        call.reshape(pieces.count, x.shape),
    ]


class _Pieces:
    """How many pieces each string has (i64[n]), the most that any can have, and where the first
    ``number`` of them begin and end (i64[n, number])."""

    def __init__(
        self, count: Node, most: int, spans: Callable[[int], tuple[Node, Node]]
    ) -> None:
        self.count = count
        self.most = most
        self.spans = spans


def _running(call: Call, flags: Node) -> Node:
    """How many of ``flags`` (bool[n, width]) hold up to each place: i64."""
    return call.apply(ops.CumSum(1, False, False), call.cast(flags, DType.I64))


def _below(call: Call, running: Node, ranks: Node) -> Node:
    """The place at which ``running`` (i64[n, width], rising) reaches each of ``ranks``."""
    rows, width = running.shape
    lower = call.compare(
        "lt", call.reshape(running, (rows, 1, width)), call.reshape(ranks, (ranks.type.elems, 1))
    )
    return call.reduce("sum", call.cast(lower, DType.I64), (-1,), keep=False)


def _cut_at_delimiters(call: Call, rows: Node, delimiter: bytes, limit: int) -> _Pieces:
    """At every occurrence of ``delimiter``, of which those that overlap an earlier one do not
    count; at ``limit`` at most unless it is negative."""
    width, step = rows.shape[1], len(delimiter)
    padded = widened(call, rows, width + step - 1)
    found = call.compare("eq", call.slice_axis(padded, 1, 0, width), delimiter[0])
    for offset, byte in enumerate(delimiter[1:], 1):
        same = call.compare("eq", call.slice_axis(padded, 1, offset, width), byte)
        found = call.binary("and", found, same)
    if any(delimiter.startswith(delimiter[offset:]) for offset in range(1, step)):
        found = _apart(call, found, step)
    if limit >= 0:
        found = call.binary("and", found, call.compare("le", _running(call, found), limit))
    running = _running(call, found)
    cuts = call.reduce("max", running, (1,), keep=False)
    most = width // step + 1
    if limit >= 0:
        most = min(most, limit + 1)

    def spans(number: int) -> tuple[Node, Node]:
        ends = _below(call, running, call.binary("add", _columns(call, number), 1))
        if not number:
            return ends, ends
        before = call.slice_axis(ends, 1, 0, number - 1)
        starts = call.pad(call.binary("add", before, step), (0, 1), (0, 0))
        return starts, ends

    return _Pieces(call.binary("add", cuts, 1), most, spans)


def _apart(call: Call, found: Node, step: int) -> Node:
    """``found`` without those that begin less than ``step`` places after one that is kept."""
    count, width = found.shape
    body = FoldingBuilder()
    body.parameter("place", TensorType(DType.I64, ()))
    blocked = body.parameter("blocked", TensorType(DType.I64, (count,)))
    here = body.parameter("here", TensorType(DType.BOOL, (count,)))
    zero, one, rest = (body.constant(number, DType.I64) for number in (0, 1, step - 1))
    kept = body.binary("and", here, body.compare("eq", blocked, zero))
    less = body.binary("max", body.binary("sub", blocked, one), zero)
    after = body.select(kept, rest, less)
    outputs = [("going", body.constant(True, DType.BOOL)), ("blocked", after), ("kept", kept)]
    walk = ops.Repeat(body.finish("apart", outputs), 1, 1, width)
    result = call.apply(
        walk,
        call.constant(np.asarray(width)),
        call.constant(np.asarray(True)),
        call.constant(np.zeros(count, np.int64)),
        call.transpose(found, (1, 0)),
    )
    return call.transpose(call.apply(ops.Item(2), result), (1, 0))


def _cut_at_spaces(call: Call, rows: Node, spaces: bytes, limit: int) -> _Pieces:
    """The words between white space; after ``limit`` words comes the rest of the string, unless
    ``limit`` is negative."""
    count, width = rows.shape
    blank = call.reduce("or", is_one_of_bytes(call, rows, spaces + b"\0"), (-1,), keep=False)
    word = call.unary("not", blank)
    before = call.pad(call.slice_axis(word, 1, 0, width - 1), (0, 1), (0, 0))
    begins = call.binary("and", word, call.unary("not", before))
    running = _running(call, begins)
    words = call.reduce("max", running, (1,), keep=False)
    most = (width + 1) // 2
    if limit >= 0:
        words = call.binary("min", words, limit + 1)
        most = min(most, limit + 1)
    total = call.reshape(lengths(call, rows), (count, 1))

    def spans(number: int) -> tuple[Node, Node]:
        ranks = call.binary("add", _columns(call, number), 1)
        starts = _below(call, running, ranks)
        mine = call.compare(
            "eq",
            call.reshape(running, (count, 1, width)),
            call.reshape(ranks, (number, 1)),
        )
        mine = call.binary("and", mine, call.reshape(word, (count, 1, width)))
        size = call.reduce("sum", call.cast(mine, DType.I64), (-1,), keep=False)
        ends = call.binary("add", starts, size)
        if limit >= 0:
            rest = call.compare("gt", ranks, limit)
            beyond = call.compare("gt", ranks, limit + 1)
            ends = call.select(rest, total, ends)
            ends = call.select(beyond, call.scalar(0, ends), ends)
        return starts, ends

    return _Pieces(words, most, spans)


def is_one_of_bytes(call: Call, rows: Node, bytes_: bytes) -> Node:
    """Which of ``bytes_`` each byte is: bool[..., len(bytes_)]."""
    lifted = call.reshape(rows, (*rows.shape, 1))
    return call.compare("eq", lifted, call.constant(np.frombuffer(bytes_, np.uint8)))


def normalize(call: Call) -> Text:
    """The strings that are no stop words, in the case that is asked for; one empty string when none
    is left. Shape [c] or [1, c]."""
    x = text_input(call, 0)
    if len(x.shape) not in (1, 2) or (len(x.shape) == 2 and x.shape[0] != 1):
        raise ModelError(f"takes strings of shape [c] or [1,c], not {list(x.shape)}")
    action = call.attrs.string("case_change_action", "NONE")
    if action not in ("NONE", "LOWER", "UPPER"):
        raise ModelError(f"attribute 'case_change_action' is '{action}'")
    rows = call.reshape(x.node, (x.elems, x.width))
    result = rows if action == "NONE" else changed_case(call, rows, action == "UPPER")
    words = list(call.attrs.texts("stopwords") or ())
    if not words and x.elems:
        return Text(call.reshape(result, x.node.shape))
    compared = rows
    if not call.attrs.flag("is_case_sensitive"):
        compared = changed_case(call, rows, upper=False)
        words = [word.lower() for word in words]
    kept = call.constant(np.ones(0, np.bool_))
    if x.elems:
        stopped = call.reduce("or", is_one_of(call, compared, words), (-1,), keep=False)
        kept = call.unary("not", stopped)
    return _packed(call, result, kept, x.shape[:-1])


def _packed(call: Call, rows: Node, kept: Node, leading: tuple[int, ...]) -> Text:
    """Those of ``rows`` that are ``kept``, or an empty string."""
    count = rows.shape[0]
    total = call.constant(np.zeros((), np.int64))
    if count:
        total = call.reduce("sum", call.cast(kept, DType.I64), (0,), keep=False)
    length = simple(call.binary("max", total, 1))
    box, extents = settle(call, [*leading, length], [*leading, max(count, 1)])
    room = box[-1]
    # each row that is kept writes its number where it goes, all others write behind the room
    before = call.apply(ops.CumSum(0, True, False), call.cast(kept, DType.I64))
    target = call.select(kept, call.binary("min", before, room), call.scalar(room, before))
    blank = call.constant(np.full(room + 1, count, np.int64))
    chosen = blank
    if count:
        chosen = call.apply(ops.ScatterElements(0, "set"), blank, target, _columns(call, count))
    padded = call.pad(rows, (0, 0), (1, 0))
    found = call.apply(ops.Gather(0), padded, call.slice_axis(chosen, 0, 0, room))
    ragged = None if all(isinstance(size, int) for size in extents) else extents
    return Text(call.reshape(found, (*box, rows.shape[1])), ragged)


def regex_full_match(call: Call) -> Node | Ragged:
    """Whether the pattern matches the whole of each string: a walk through its automaton, all
    strings at once, one byte after the other."""
    x = call.value(0)
    if not isinstance(x, Text):
        x = text_input(call, 0)
    automaton = full_match(call.attrs.string("pattern"))
    if not x.elems:
        return call.constant(np.zeros(x.shape, np.bool_))
    kinds = automaton.moves.shape[1]
    # a NUL behind the longest string ends it, and keeps the state from there on
    rows = widened(call, call.reshape(x.node, (x.elems, x.width)), x.width + 1)
    columns = call.transpose(rows, (1, 0))
    steps = call.apply(ops.Gather(0), call.constant(automaton.kinds.astype(np.int32)), columns)
    body = FoldingBuilder()
    body.parameter("step", TensorType(DType.I64, ()))
    state = body.parameter("state", TensorType(DType.I32, (x.elems,)))
    kind = body.parameter("kind", TensorType(DType.I32, (x.elems,)))
    table = body.constant((automaton.moves * kinds).astype(np.int32).reshape(-1))
    after = body.apply(ops.Gather(0), table, body.binary("add", state, kind))
    going = body.constant(True, DType.BOOL)
    walk = ops.Repeat(body.finish("walk", [("going", going), ("state", after)]), 1, 1, x.width + 1)
    start = call.constant(np.full(x.elems, automaton.start * kinds, np.int32))
    count = call.constant(np.asarray(x.width + 1))
    result = call.apply(walk, count, call.constant(np.asarray(True)), start, steps)
    final = call.apply(ops.Item(1), result)
    matches = call.reshape(call.compare("eq", final, kinds), x.shape)
    return boxed(matches, x.extents or x.shape)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "RegexFullMatch": regex_full_match,
        "StringConcat": concat,
        "StringNormalizer": normalize,
        "StringSplit": split,
    }
)
