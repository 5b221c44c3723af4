"""Quantisation: in go the nodes that round, shift, limit and narrow a float32, out come a few
expressions that give the same integer."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop.ir import Bin, Bits, Cmp, Conv, Expr, Lit, Sel
from aotc.lower.context import scalar_value

#: Added to a float32 below 2**22 in size, it leaves the nearest integer (the even one of two) in
#: the low bits of the sum: there the last bit stands for 1.
ROUNDER = 1.5 * 2**23
#: The numbers that a float32 can hold without infinity, a little less.
LARGEST = 3e38


@dataclass(frozen=True)
class Quantized:
    """``x`` (float32) to the nearest even integer, plus ``zero``, limited to ``low .. high``, as
    ``dtype``; ``may_be_nan`` unless it is proved that ``x`` is a number."""

    x: Node
    zero: int
    low: int
    high: int
    dtype: DType
    may_be_nan: bool


def quantized_value(node: Node) -> Quantized | None:
    """What `node` quantises, if it is ``cast(min(max(round(x) + zero, low), high))`` with ``low``
    and ``high`` in the range of a type of at most 16 bits; ``zero`` may be missing."""
    if not isinstance(node.op, ops.Cast) or not node.op.dtype.is_int:
        return None
    if node.op.dtype.size_bytes > 2 or node.inputs[0].type.dtype is not DType.F32:
        return None
    inner, high = _with_constant(node.inputs[0], "min")
    inner, low = _with_constant(inner, "max")
    inner, zero = _with_constant(inner, "add")
    if high is None or low is None or inner.op != ops.Unary("round"):
        return None
    numbers = (zero or 0, low, high)
    least, most = node.op.dtype.int_range
    if any(number != int(number) or abs(number) > most - least for number in numbers):
        return None
    if not least <= low <= high <= most:
        return None
    x = inner.inputs[0]
    bound = _bound(x)
    zero, low, high = map(int, numbers)
    return Quantized(x, zero, low, high, node.op.dtype, not bound < LARGEST)


def nearest(quantized: Quantized, x: Expr) -> Expr:
    """The quantised ``x``: limited first, so that the rounding is one addition."""

    def number(value: float) -> Lit:
        return Lit(value, DType.F32)

    zero = quantized.zero
    limited = Bin("max", x, number(quantized.low - zero))
    limited = Bin("min", limited, number(quantized.high - zero))
    bits = Bits(Bin("add", limited, number(ROUNDER)), DType.I32)
    rounder = int(np.float32(ROUNDER).view(np.int32))
    code = Bin("sub", bits, Lit(rounder - zero, DType.I32))
    result: Expr = Conv(code, quantized.dtype)
    if quantized.may_be_nan:
        result = Sel(Cmp("eq", x, x), result, Lit(0, quantized.dtype))
    return result


def _with_constant(node: Node, fn: str) -> tuple[Node, float | int | None]:
    """The other operand of ``fn`` with a constant that is the same everywhere, and that; the node
    itself and None where it is something else."""
    if node.op == ops.Binary(fn):
        for x, constant in (node.inputs, node.inputs[::-1]):
            value = scalar_value(constant)
            if value is not None:
                return x, value
    return node, None


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
