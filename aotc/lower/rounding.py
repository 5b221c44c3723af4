"""Quantisation: in go the nodes that round, shift, limit and narrow a float32, out comes one
expression that does all of it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop.ir import Expr, Quantize
from aotc.passes.constants import with_constant

#: The numbers that a float32 can hold without infinity, a little less.
LARGEST = 3e38


def quantize(node: Node, values: Mapping[Node, Expr]) -> Quantize | None:
    """The codes that ``node`` is, if it is ``cast(min(max(round(x) + zero, low), high))`` with
    limits in the range of a type of at most 16 bits, or the same without ``zero``, and ``values``
    has the expression of ``x``."""
    found = _parts(node)
    if found is None or found[0] not in values:
        return None
    x, zero, low, high = found
    return Quantize(values[x], zero, low, high, node.type.dtype, _bound(x) < LARGEST)


def _parts(node: Node) -> tuple[Node, int, int, int] | None:
    if not isinstance(node.op, ops.Cast) or not node.op.dtype.is_int:
        return None
    if node.op.dtype.size_bytes > 2 or node.inputs[0].type.dtype is not DType.F32:
        return None
    inner, high = with_constant(node.inputs[0], "min")
    inner, low = with_constant(inner, "max")
    inner, zero = with_constant(inner, "add")
    if high is None or low is None or inner.op != ops.Unary("round"):
        return None
    numbers = (zero or 0, low, high)
    least, most = node.op.dtype.int_range
    if any(number != int(number) or abs(number) > most - least for number in numbers):
        return None
    if not least <= low <= high <= most:
        return None
    return inner.inputs[0], int(numbers[0]), int(low), int(high)


def _bound(node: Node, depth: int = 8) -> float:
    """A number that the values of ``node`` do not exceed in size; infinity if none is known, also
    where they may be NaN."""
    if depth == 0:
        return math.inf
    constant = node
    while isinstance(constant.op, (ops.Broadcast, ops.Reshape, ops.Transpose)):
        constant = constant.inputs[0]
    if constant.data is not None and constant.data.size:
        largest = float(np.max(np.abs(constant.data.astype(np.float64))))
        return largest if largest < math.inf else math.inf
    match node.op:
        case ops.Cast() if node.inputs[0].type.dtype.is_int:
            least, most = node.inputs[0].type.dtype.int_range
            return float(max(-least, most))
        case ops.Binary(fn="mul"):
            return _bound(node.inputs[0], depth - 1) * _bound(node.inputs[1], depth - 1)
        case ops.Binary(fn="add" | "sub"):
            return _bound(node.inputs[0], depth - 1) + _bound(node.inputs[1], depth - 1)
        case ops.Binary(fn="min" | "max"):
            return max(_bound(x, depth - 1) for x in node.inputs)
    return math.inf
