"""Quantised arithmetic: a graph in which codes become floats and floats become codes goes in; out
comes one whose products multiply the codes themselves.

A tensor is quantised when it is ``(codes - zero) * scale`` with codes of 8 bits. A product or a
convolution of such a tensor with constant quantised weights is a sum of products of integers, exact
in 32 bits, times one scale for each output channel; the zero point adds a constant to each channel
(nothing else is in the sum, since padding is made explicit and holds the zero point). A bias of
which the scale makes a whole number joins that constant. Where a tensor is quantised, the division
by its scale moves up to the scales of what it is made of, so that one multiplication remains; a
result may differ by one step where a quotient lies next to the middle between two codes. Codes of
eight bits with a sign become codes without one, or the reverse, by what instructions multiply.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node
from aotc.graph.types import DType
from aotc.passes.constants import (
    fits,
    splat_value,
    stretch,
    stretched_value,
    with_constant,
)
from aotc.passes.integer_sums import Zero, channel_shape, shifted, times_codes, times_constant
from aotc.passes.rewrite import reemit

#: Data movement through which the codes are looked for.
_MOVES = (ops.Reshape, ops.Transpose, ops.Slice, ops.Broadcast)
#: How far from a whole number of steps a bias may be: what rounding its float32 value did.
_BIAS_SLACK = 2.0**-20
_DEPTH = 24
#: The numbers that a float32 can hold, a little less.
_LARGEST = 3e38
#: What one is at least in steps of a result: so little makes no difference, and processors are slow
#: with the subnormal numbers that less would make.
_LEAST_STEPS = 2.0**-100


@dataclass(frozen=True)
class _Quantized:
    """A float32 tensor as ``(codes - zero) * scale``."""

    codes: Node  # uint8 or int8
    zero: Zero
    scale: float


@dataclass(frozen=True)
class _Scaled:
    """A float32 tensor as ``sums * scale``: ``sums`` int32, ``scale`` broadcasts over it."""

    sums: Node
    scale: np.ndarray


def integer(graph: Graph, codes: DType = DType.U8) -> Graph:
    """Products of quantised tensors with quantised weights on integers; the codes of data that is
    multiplied are of type ``codes`` (U8 or I8)."""
    if not any(_widens(node) for node in graph.nodes()):
        return graph
    return _Rewriter(codes).run(graph)


def _widens(node: Node, dtype: DType | None = None) -> bool:
    """Whether ``node`` turns codes into numbers (of ``dtype``)."""
    if not isinstance(node.op, ops.Cast) or dtype not in (None, node.op.dtype):
        return False
    to_numbers = node.op.dtype in (DType.F32, DType.I32)
    return to_numbers and node.inputs[0].type.dtype in (DType.I8, DType.U8)


class _Rewriter:
    """Re-emits one graph; knows of new float nodes which integers they stand for."""

    def __init__(self, codes: DType) -> None:
        self.codes = codes
        self.builder = Builder()
        self.scaled: dict[Node, _Scaled] = {}
        self.recoded: dict[tuple[Node, DType], Node] = {}

    def run(self, graph: Graph) -> Graph:
        return reemit(graph, self._emit, self.builder)

    def _emit(self, builder: Builder, node: Node, new: Mapping[Node, Node]) -> Node | None:
        operands = tuple(new[x] for x in node.inputs)
        match node.op:
            case ops.Conv() | ops.Dot() if node.type.dtype is DType.F32:
                return self._product(node, operands[0], operands[1])
            case ops.Conv() | ops.Dot() if node.type.dtype is DType.I32:
                return self._integer_product(node, operands[0], operands[1])
            case ops.Binary(fn="add") if node.type.dtype is DType.F32:
                return self._biased(operands[0], operands[1], node.origin)
            case ops.ReduceWindow(fn="max") if node.type.dtype is DType.F32:
                return self._largest(node.op, operands[0], node.origin)
            case ops.Reshape() | ops.Transpose() if operands[0] in self.scaled:
                return self._moved(node.op, operands[0], node.origin)
            case ops.Cast(dtype=dtype) if dtype in (DType.I8, DType.U8):
                return self._quantize(node, operands[0])
            case ops.Binary(fn="mul") if node.type.dtype is DType.F32:
                return self._from_codes(builder.apply(node.op, *operands, origin=node.origin))
        return None

    # What is quantised.

    def _quantized(self, node: Node, depth: int = _DEPTH) -> _Quantized | None:
        """``node`` as codes, if it is a known constant multiple of them, moved or not; integers are
        codes less a zero point."""
        number = node.type.dtype
        if depth == 0 or number not in (DType.F32, DType.I32):
            return None
        if isinstance(node.op, (*_MOVES, ops.Pad)):
            source = self._quantized(node.inputs[0], depth - 1)
            if source is None:
                return None
            op = node.op
            if isinstance(op, ops.Pad):
                if op.value != 0 or not isinstance(source.zero, int):
                    return None
                op = replace(op, value=float(source.zero))
            codes = self.builder.apply(op, source.codes, origin=node.origin)
            return replace(source, codes=codes)
        scale = 1.0
        if number is DType.F32:
            if node.op != ops.Binary("mul"):
                return None
            node, factor = node.inputs
            scale = _positive(factor) or 0.0
        zero: Zero | None = 0
        if node.op == ops.Binary("sub"):
            node, point = node.inputs
            zero = self._zero(point)
        if not scale or zero is None or not _widens(node, number):
            return None
        codes = node.inputs[0]
        least, most = codes.type.dtype.int_range
        if isinstance(zero, int) and not least <= zero <= most:
            return None
        return _Quantized(codes, zero, scale)

    def _zero(self, point: Node) -> Zero | None:
        """The whole number that ``point`` has everywhere, or the node of one int32."""
        value = splat_value(point)
        if value is not None:
            return int(value) if float(value) == int(value) else None
        while isinstance(point.op, (ops.Broadcast, ops.Reshape)):
            point = point.inputs[0]
        if point.type.dtype is not DType.I32 or point.type.elems != 1:
            return None
        return self.builder.reshape(point, ())

    def _coded(self, value: _Quantized, dtype: DType) -> _Quantized:
        """The same with codes of ``dtype`` (U8 or I8)."""
        if value.codes.type.dtype is dtype:
            return value
        zero = shifted(self.builder, value.zero, 128 if dtype is DType.U8 else -128)
        return replace(value, codes=self._as(value.codes, dtype), zero=zero)

    def _from_codes(self, x: Node) -> Node | None:
        """A float made of codes that exist in two types: of the ones that are multiplied."""
        found = self._quantized(x)
        if found is None or found.codes.type.dtype is self.codes:
            return None
        made = found.codes
        while _keeps_codes(made.op):
            made = made.inputs[0]
        if (made, self.codes) not in self.recoded:
            return None
        return self._dequantized(self._coded(found, self.codes), x.origin)

    def _as(self, codes: Node, dtype: DType) -> Node:
        """Codes of eight bits, 128 more or less, with the sign or without; what moves them moves
        the others, so that whoever makes codes can make both."""
        made = self.recoded.get((codes, dtype))
        if made is None:
            builder, origin = self.builder, codes.origin
            if _keeps_codes(codes.op):
                made = builder.apply(codes.op, self._as(codes.inputs[0], dtype), origin=origin)
            else:
                bits = builder.apply(ops.Bitcast(DType.U8), codes, origin=origin)
                made = builder.binary("xor", bits, _number(builder, 128, bits), origin)
                made = builder.apply(ops.Bitcast(dtype), made, origin=origin)
            self.recoded[codes, dtype] = made
        return made

    # Products.

    def _product(self, node: Node, data: Node, weights: Node) -> Node | None:
        found = self._quantized(data)
        if found is None:
            return None
        factors = quantized_weights(weights)
        if factors is None:
            return self._product_of_two(node, found, weights)
        codes, scales = factors
        scale = _per_channel(node.op, scales)
        if scale is None:
            return None
        data_codes = self._coded(found, self.codes)
        sums = times_constant(self.builder, node, data_codes.codes, data_codes.zero, codes)
        if sums is None:
            return None
        if isinstance(node.op, ops.Conv):
            scale = scale.reshape(channel_shape(node.op, node.type.rank))
        return self._float_of(sums, _times(scale, found.scale), node.origin)

    def _integer_product(self, node: Node, data: Node, weights: Node) -> Node | None:
        """A product of codes less their zero points, of which one side may be constants that fit
        bytes."""
        found = self._quantized(data)
        if found is None:
            return None
        codes = _evaluated(weights)
        if codes is None or codes.size == 0:
            return self._sums_of_two(node, found, self._quantized(weights))
        if not fits(codes, DType.I8):
            return self._sums_of_two(node, found, self._shifted_to_bytes(codes))
        if found.zero == 0 and found.codes.type.dtype is self.codes and not _pads(node.op):
            return None  # as it has to be
        data_codes = self._coded(found, self.codes)
        return times_constant(self.builder, node, data_codes.codes, data_codes.zero, codes)

    def _product_of_two(self, node: Node, a: _Quantized, weights: Node) -> Node | None:
        """A matrix product of which both sides are known only at run time."""
        b = self._quantized(weights)
        sums = self._sums_of_two(node, a, b)
        if b is None or sums is None:
            return None
        scale = np.full((1,) * node.type.rank, a.scale, np.float32)
        return self._float_of(sums, _times(scale, b.scale), node.origin)

    def _shifted_to_bytes(self, values: np.ndarray) -> _Quantized | None:
        """Constant integers as codes and a zero point, if they lie close enough together."""
        least, most = int(values.min()), int(values.max())
        if most - least > 255:
            return None
        codes = (values - least - 128).astype(np.int8)
        return _Quantized(self.builder.constant(codes), -128 - least, 1.0)

    def _sums_of_two(self, node: Node, a: _Quantized, b: _Quantized | None) -> Node | None:
        """The sums of products of two tensors of codes."""
        if b is None or not isinstance(node.op, ops.Dot):
            return None
        left, right = self._coded(a, self.codes), self._coded(b, DType.I8)
        return times_codes(self.builder, node, left.codes, left.zero, right.codes, right.zero)

    def _float_of(self, sums: Node, scale: np.ndarray, origin: str) -> Node:
        """``sums * scale`` as float32."""
        number = self.builder.cast(sums, DType.F32, origin)
        node = self.builder.binary("mul", number, self.builder.constant(scale), origin)
        self.scaled[node] = _Scaled(sums, scale)
        return node

    def _biased(self, a: Node, b: Node, origin: str) -> Node | None:
        """A bias that is a whole number of steps is added to the sums."""
        for x, bias in ((a, b), (b, a)):
            found, values = self.scaled.get(x), stretched_value(bias)
            if found is None or values is None or x.type.rank != values.ndim:
                continue
            if values.size > max(found.scale.size, max(x.shape, default=1)):
                continue
            steps = values.astype(np.float64) / found.scale
            whole = np.rint(steps)
            if (np.abs(steps - whole) > _BIAS_SLACK * np.maximum(np.abs(whole), 1)).any():
                continue
            if (np.abs(whole) >= 2**30).any():
                continue
            constant = self.builder.constant(whole.astype(np.int32))
            sums = self.builder.binary("add", found.sums, constant, origin)
            return self._float_of(sums, found.scale, origin)
        return None

    def _moved(self, op: ops.Reshape | ops.Transpose, x: Node, origin: str) -> Node | None:
        """Movement of scaled sums: of the sums, if the scale is one number or moves along."""
        found = self.scaled[x]
        if isinstance(op, ops.Transpose):
            if found.scale.ndim != len(op.perm):
                return None
            scale = found.scale.transpose(op.perm)
        elif found.scale.size == 1:
            scale = found.scale.reshape((1,) * len(op.shape))
        elif found.scale.size == x.shape[-1] == found.scale.shape[-1] == op.shape[-1]:
            scale = found.scale.reshape((*(1,) * (len(op.shape) - 1), -1))
        else:
            return None
        sums = self.builder.apply(op, found.sums, origin=origin)
        return self._float_of(sums, scale, origin)

    def _largest(self, op: ops.ReduceWindow, x: Node, origin: str) -> Node | None:
        """The largest number has the largest code."""
        found = self._quantized(x)
        if found is None:
            return None
        return self._dequantized(
            replace(found, codes=self.builder.apply(op, found.codes, origin=origin)), origin
        )

    def _dequantized(self, value: _Quantized, origin: str) -> Node:
        builder = self.builder
        assert isinstance(value.zero, int)  # as it is of all floats here
        number = builder.cast(value.codes, DType.F32, origin)
        shifted = builder.binary("sub", number, _number(builder, value.zero, number), origin)
        return builder.binary("mul", shifted, _number(builder, value.scale, number), origin)

    # Quantisation.

    def _quantize(self, node: Node, limited: Node) -> Node | None:
        """``cast(min(max(round(x / scale) + zero, low), high))`` with the division moved up."""
        assert isinstance(node.op, ops.Cast)
        inner, high = with_constant(limited, "min")
        inner, low = with_constant(inner, "max")
        inner, zero = with_constant(inner, "add")
        if low is None or high is None or inner.op != ops.Unary("round"):
            return None
        quotient = inner.inputs[0]
        if quotient.op != ops.Binary("div"):
            return None
        x, divisor = quotient.inputs
        scale = _positive(divisor)
        if scale is None or (zero is not None and zero != int(zero)):
            return None
        same = self._quantized(x)
        if same is not None and same.codes.type.dtype is node.op.dtype:
            unchanged = same.scale == scale and same.zero == (zero or 0)
            if unchanged and (low, high) == same.codes.type.dtype.int_range:
                return same.codes
        point = float(zero or 0)
        x = self._unlimited(x, low - point, high - point, scale)
        divided = self._divided(x, scale)
        if divided is None:
            return None
        code = self._code(divided, point, low, high, node.op.dtype, node.origin)
        other, shift = (DType.U8, 128) if node.op.dtype is DType.I8 else (DType.I8, -128)
        self.recoded[code, other] = self._code(
            divided, point + shift, low + shift, high + shift, other, node.origin
        )
        return code

    def _code(
        self, x: Node, zero: float, low: float, high: float, dtype: DType, origin: str
    ) -> Node:
        builder = self.builder
        value = builder.unary("round", x, origin)
        for fn, number in (("add", zero), ("max", low), ("min", high)):
            value = builder.binary(fn, value, _number(builder, number, value), origin)
        return builder.cast(value, dtype, origin)

    def _unlimited(self, x: Node, low: float, high: float, scale: float) -> Node:
        """``x`` without limits (of activation functions) beyond which the codes end anyway."""
        while isinstance(x.op, ops.Binary) and x.op.fn in ("max", "min"):
            inner, number = with_constant(x, x.op.fn)
            if number is None:
                break
            steps = float(number) / scale
            if steps > low - 0.5 if x.op.fn == "max" else steps < high + 0.5:
                break
            x = inner
        return x

    def _divided(self, x: Node, scale: float, depth: int = _DEPTH) -> Node | None:
        """``x / scale`` without a division; None when ``x`` is not made of scaled terms."""
        if depth == 0:
            return None
        builder = self.builder
        found = self.scaled.get(x)
        if found is not None:
            factor = np.maximum(found.scale.astype(np.float64) / scale, _LEAST_STEPS)
            factor = factor.astype(np.float32)
            number = builder.cast(found.sums, DType.F32, x.origin)
            return builder.binary("mul", number, builder.constant(factor), x.origin)
        value = stretched_value(x)
        if value is not None:
            quotient = (value.astype(np.float64) / scale).astype(np.float32)
            return stretch(builder, quotient, x.shape, x.origin)
        if not isinstance(x.op, ops.Binary):
            if isinstance(x.op, _MOVES):
                inner = self._divided(x.inputs[0], scale, depth - 1)
                return inner and builder.apply(x.op, inner, origin=x.origin)
            return None
        if x.op.fn == "mul" and self._quantized(x) is not None:
            steps = max((_positive(x.inputs[1]) or 1.0) / scale, _LEAST_STEPS)
            return builder.binary("mul", x.inputs[0], _number(builder, steps, x), x.origin)
        if x.op.fn in ("add", "sub", "max", "min"):
            parts = [self._divided(part, scale, depth - 1) for part in x.inputs]
            if parts[0] is None or parts[1] is None:
                return None
            return builder.binary(x.op.fn, parts[0], parts[1], x.origin)
        if x.op.fn == "mul":
            return self._scaled_by(x, scale)
        return self._divided_twice(x, scale, depth) if x.op.fn == "div" else None

    def _scaled_by(self, x: Node, scale: float) -> Node | None:
        """``y * constant / scale`` with one multiplication."""
        for y, factor in (x.inputs, x.inputs[::-1]):
            value = stretched_value(factor)
            if value is not None:
                with np.errstate(over="ignore"):
                    quotient = (value.astype(np.float64) / scale).astype(np.float32)
                if not np.isfinite(quotient).all():
                    return None
                factor = stretch(self.builder, quotient, x.shape, x.origin)
                return self.builder.binary("mul", y, factor, x.origin)
            if isinstance(factor.op, ops.Broadcast):
                each = factor.inputs[0]
                if each.type.elems * 2 <= x.type.elems:
                    inverse = _number(self.builder, 1 / scale, each)
                    each = self.builder.binary("mul", each, inverse, x.origin)
                    each = self.builder.apply(factor.op, each, origin=x.origin)
                    return self.builder.binary("mul", y, each, x.origin)
        return None

    def _divided_twice(self, x: Node, scale: float, depth: int) -> Node | None:
        """``y / z / scale`` for a constant ``z`` or one that is the same along an axis."""
        builder = self.builder
        y, z = x.inputs
        known = _positive(z)
        if known is not None:
            inner = self._divided(y, scale * known, depth - 1)
            factor = 1 / (scale * known)
            if inner is None and factor < _LARGEST:
                inner = builder.binary("mul", y, _number(builder, factor, y), x.origin)
            return inner
        if not isinstance(z.op, ops.Broadcast) or z.inputs[0].type.elems * 2 > x.type.elems:
            return None
        each = z.inputs[0]
        each = builder.binary("mul", each, _number(builder, scale, each), x.origin)
        inverse = builder.binary("div", _number(builder, 1, each), each, x.origin)
        return builder.binary("mul", y, builder.apply(z.op, inverse, origin=x.origin), x.origin)


def _keeps_codes(op: ops.Op) -> bool:
    """Whether each result of ``op`` is one of its operands, and the same one when all are shifted.
    """
    return isinstance(op, _MOVES) or (isinstance(op, ops.ReduceWindow) and op.fn == "max")


def _positive(node: Node) -> float | None:
    """The one finite number above zero that ``node`` is known to hold, or None."""
    value = splat_value(node)
    number = 0.0 if value is None else float(value)
    return number if 0 < number < np.inf else None


def _number(builder: Builder, value: float, like: Node) -> Node:
    """``value`` in the type and the shape of ``like``."""
    constant = np.full((1,) * like.type.rank, value, like.type.dtype.numpy)
    return stretch(builder, constant, like.shape)


def _pads(op: ops.Op) -> bool:
    """Whether ``op`` is a convolution that pads."""
    return isinstance(op, ops.Conv) and (any(op.low) or any(op.high))


def _times(scale: np.ndarray, factor: float) -> np.ndarray:
    """The product of two scales, rounded once."""
    return (scale.astype(np.float64) * factor).astype(np.float32)


def quantized_weights(node: Node) -> tuple[np.ndarray, np.ndarray] | None:
    """Codes less their zero points (int32, in the range of int8) and scales (float32) of constant
    quantised weights, both of the node's shape; None for anything else."""
    moves = []
    while isinstance(node.op, _MOVES):
        moves.append(node.op)
        node = node.inputs[0]
    if node.op != ops.Binary("mul"):
        return None
    shifted, factor = node.inputs
    scales = _stretched(factor)
    points: np.ndarray | None = np.zeros((1,) * node.type.rank, np.int32)
    if shifted.op == ops.Binary("sub"):
        shifted, point = shifted.inputs
        points = _stretched(point)
    if scales is None or points is None or not _widens(shifted, DType.F32):
        return None
    codes = _evaluated(shifted.inputs[0])
    if codes is None or codes.size == 0:
        return None
    values = codes.astype(np.int32) - points.astype(np.int32)
    if not fits(values, DType.I8) or not np.isfinite(scales).all():
        return None
    scales = np.broadcast_to(scales, values.shape)
    for op in reversed(moves):
        values, scales = op.evaluate(values), op.evaluate(scales)
    return np.ascontiguousarray(values), scales


def _stretched(node: Node) -> np.ndarray | None:
    """As `stretched_value`, of what may take a few steps to make."""
    return _evaluated(node.inputs[0] if isinstance(node.op, ops.Broadcast) else node)


def _evaluated(node: Node) -> np.ndarray | None:
    """The values of what a few elementwise steps make of constants; None for anything else."""
    order: dict[Node, None] = {}
    stack = [node]
    while stack:
        at = stack.pop()
        if not (at.data is not None or isinstance(at.op, (*ops.ELEMENTWISE, *_MOVES))):
            return None
        order.pop(at, None)
        order[at] = None
        stack.extend(at.inputs)
        if len(order) > _DEPTH:
            return None
    values: dict[Node, np.ndarray] = {}
    for at in reversed(order):
        if at.data is not None:
            values[at] = at.data
        else:
            values[at] = at.op.evaluate(*(values[x] for x in at.inputs))
    return values[node]


def _per_channel(op: ops.Op, scales: np.ndarray) -> np.ndarray | None:
    """The scale of each output channel, to broadcast over a Dot's result or as a vector for a
    Conv; None when it changes within one sum."""
    axes = tuple(range(1, scales.ndim)) if isinstance(op, ops.Conv) else (scales.ndim - 2,)
    first = scales
    for axis in axes:
        first = first.take([0], axis=axis)
    if not (scales == first).all() or not (first > 0).all():
        return None
    return first.reshape(-1) if isinstance(op, ops.Conv) else first
