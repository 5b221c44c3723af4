"""Strings as rows of bytes, in the terms of a `Call`: width, case, equality and search."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aotc.errors import ModelError, UnsupportedError
from aotc.frontend.onnx_ops.call import Call
from aotc.frontend.text import byte_table
from aotc.frontend.values import Text, kind_of
from aotc.graph.ir import Node
from aotc.graph.types import DType


def text_input(call: Call, index: int) -> Text:
    """Input ``index``, strings of a shape that is known; ModelError when it is something else."""
    value = call.value(index)
    if not isinstance(value, Text):
        shown = "missing" if value is None else kind_of(value)
        raise ModelError(f"input {index} must be a tensor of strings, is {shown}")
    if value.extents is not None:
        raise UnsupportedError(
            f"the number of strings in input {index} is known at run time only",
            remedy="declare the shape of that tensor in the model",
        )
    return value


def widened(call: Call, rows: Node, width: int) -> Node:
    """``rows`` (u8[..., w]) with at least ``width`` bytes each."""
    missing = max(width - rows.shape[-1], 0)
    rank = rows.type.rank
    return call.pad(rows, (0,) * rank, (*(0,) * (rank - 1), missing))


def joined_rows(call: Call, texts: Sequence[Text]) -> tuple[Node, list[int]]:
    """All strings of ``texts`` in one table u8[n, width] after an empty one, and the row at which
    each begins."""
    width = max(text.width for text in texts)
    parts = [call.constant(np.zeros((1, width), np.uint8))]
    starts = []
    total = 1
    for text in texts:
        starts.append(total)
        total += text.elems
        parts.append(widened(call, call.reshape(text.node, (text.elems, text.width)), width))
    return call.concat(parts, 0), starts


def lengths(call: Call, rows: Node) -> Node:
    """The number of bytes of each string: i64[...] for u8[..., width]."""
    used = call.cast(call.compare("ne", rows, 0), DType.I64)
    return call.reduce("sum", used, (-1,), keep=False)


def equal_rows(call: Call, a: Node, b: Node) -> Node:
    """Where the strings ``a`` and ``b`` (which broadcast) are equal."""
    width = max(a.shape[-1], b.shape[-1])
    same = call.compare("eq", widened(call, a, width), widened(call, b, width))
    return call.reduce("and", same, (-1,), keep=False)


def is_one_of(call: Call, rows: Node, words: Sequence[bytes]) -> Node:
    """Which of ``words`` each string is: bool[..., len(words)]."""
    lifted = call.reshape(rows, (*rows.shape[:-1], 1, rows.shape[-1]))
    return equal_rows(call, lifted, call.constant(byte_table(words)))


def changed_case(call: Call, rows: Node, upper: bool) -> Node:
    """ASCII letters in upper or in lower case; all other characters stay."""
    first, last = (b"a"[0], b"z"[0]) if upper else (b"A"[0], b"Z"[0])
    inside = call.binary(
        "and", call.compare("ge", rows, first), call.compare("le", rows, last)
    )
    bit = call.scalar(0x20, rows)
    return call.select(inside, call.binary("xor", rows, bit), rows)
