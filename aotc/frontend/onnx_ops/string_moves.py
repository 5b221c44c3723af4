"""Operators that only move elements, on strings: their rule moves the places of the strings, and
one gather then moves the strings.

So none of these operators has a rule of its own for strings, and all their forms are covered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import wraps

from aotc.errors import UnsupportedError
from aotc.frontend.onnx_ops.call import Call, Result, Rule
from aotc.frontend.onnx_ops.text_rows import equal_rows, joined_rows, text_input
from aotc.frontend.values import Ragged, SequenceValue, Text, Value, kind_of
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType

MOVES = (
    *("Compress", "Concat", "DepthToSpace", "Expand", "Flatten", "Gather"),
    *("GatherElements", "GatherND", "OneHot", "Pad", "Reshape", "ReverseSequence", "Scatter"),
    *("ScatterElements", "ScatterND", "Slice", "SpaceToDepth", "Split", "SplitToSequence"),
    *("Squeeze", "Tile", "Transpose", "Unsqueeze", "Where"),
)
"""Operators whose results are elements of those operands that may be strings."""

SIZES = ("Shape", "Size")
"""Operators that look at the shape only."""


def with_strings(rules: Mapping[str, Rule]) -> dict[str, Rule]:
    """``rules`` with those of `MOVES` and `SIZES`, and Equal, made to take strings too."""
    found = dict(rules)
    for name in MOVES:
        found[name] = _moving(rules[name])
    for name in SIZES:
        found[name] = _measuring(rules[name])
    found["Equal"] = _comparing(rules["Equal"])
    return found


def with_fixed_strings(rules: Mapping[str, Rule]) -> dict[str, Rule]:
    """``rules`` that refuse strings whose number is known at run time only."""
    return {name: _fixed(rule) for name, rule in rules.items()}


def _fixed(rule: Rule) -> Rule:
    @wraps(rule)
    def checked(call: Call) -> Result:
        for index, value in enumerate(call.inputs):
            if isinstance(value, Text):
                text_input(call, index)
        return rule(call)

    return checked


def _moving(rule: Rule) -> Rule:
    @wraps(rule)
    def of_strings(call: Call) -> Result:
        texts = [value for value in call.inputs if isinstance(value, Text)]
        if not texts:
            return rule(call)
        # row 0 is the empty string: what padding fills in
        table, starts = joined_rows(call, texts)
        places = [_places(call, *pair) for pair in zip(texts, starts, strict=True)]
        result = rule(_with_texts(call, places))
        if isinstance(result, Sequence):
            return [None if value is None else _rows(call, table, value) for value in result]
        return _rows(call, table, result)

    return of_strings


def _measuring(rule: Rule) -> Rule:
    @wraps(rule)
    def of_strings(call: Call) -> Result:
        texts = [value for value in call.inputs if isinstance(value, Text)]
        return rule(_with_texts(call, [_places(call, text, 0) for text in texts]))

    return of_strings


def _comparing(rule: Rule) -> Rule:
    @wraps(rule)
    def of_strings(call: Call) -> Result:
        if not any(isinstance(value, Text) for value in call.inputs):
            return rule(call)
        return equal_rows(call, *(text_input(call, index).node for index in (0, 1)))

    return of_strings


def _with_texts(call: Call, places: Sequence[Value]) -> Call:
    """The call with ``places`` for its strings in order."""
    rest = iter(places)
    inputs = (next(rest) if isinstance(value, Text) else value for value in call.inputs)
    return replace(call, inputs=tuple(inputs))


def _places(call: Call, text: Text, start: int) -> Value:
    """The number of each string, from ``start`` on."""
    numbers = call.apply(ops.Iota((text.elems,), 0, DType.I64))
    if start:
        numbers = call.binary("add", numbers, start)
    numbers = call.reshape(numbers, text.shape)
    return numbers if text.extents is None else Ragged(numbers, text.extents)


def _rows(call: Call, table: Node, places: Value) -> Text | SequenceValue:
    match places:
        case SequenceValue(items=items, length=length):
            return SequenceValue(tuple(_rows(call, table, item) for item in items), length)
        case Node():
            return Text(call.apply(ops.Gather(0), table, places))
        case Ragged(node=node, extents=extents):
            return Text(call.apply(ops.Gather(0), table, node), extents)
    raise UnsupportedError(
        f"{call.operator} of strings gives {kind_of(places)}, which is not supported",
        remedy="rewrite this part of the model",
    )
