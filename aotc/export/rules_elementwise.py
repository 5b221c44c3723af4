"""Elementwise primitives in, ONNX nodes that mean the same out, at the edges of the range too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from aotc.export.emitter import Emitter, Value
from aotc.graph import ops
from aotc.graph.ir import Node, Op
from aotc.graph.types import DType

Rule = Callable[[Emitter, Node, tuple[Value, ...]], Value | tuple[Value, ...]]

_UNARY = MappingProxyType(
    {
        "abs": "Abs", "sign": "Sign", "exp": "Exp", "log": "Log", "sqrt": "Sqrt",
        "reciprocal": "Reciprocal", "tanh": "Tanh", "erf": "Erf", "sigmoid": "Sigmoid",
        "sin": "Sin", "cos": "Cos", "tan": "Tan", "asin": "Asin", "acos": "Acos", "atan": "Atan",
        "sinh": "Sinh", "cosh": "Cosh", "asinh": "Asinh", "acosh": "Acosh", "atanh": "Atanh",
        "floor": "Floor", "ceil": "Ceil", "round": "Round", "not": "Not", "bitnot": "BitwiseNot",
    }
)  # fmt: skip
_PLAIN = MappingProxyType(
    {"add": "Add", "sub": "Sub", "mul": "Mul", "min": "Min", "max": "Max", "pow": "Pow"}
)
_LOGICAL = MappingProxyType(
    {"and": ("And", "BitwiseAnd"), "or": ("Or", "BitwiseOr"), "xor": ("Xor", "BitwiseXor")}
)
_COMPARE = MappingProxyType(
    {"eq": "Equal", "ne": "Equal", "lt": "Less", "le": "LessOrEqual", "gt": "Greater",
     "ge": "GreaterOrEqual"}
)  # fmt: skip
_UNSIGNED = MappingProxyType(
    {DType.I8: DType.U8, DType.I16: DType.U16, DType.I32: DType.U32, DType.I64: DType.U64}
)


def op_of(node: Node, kind: type[Op]) -> Any:
    """The primitive of a node, which is of this kind."""
    assert isinstance(node.op, kind)
    return node.op


def unary(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    (x,) = operands
    fn = op_of(node, ops.Unary).fn
    if fn in ("isnan", "isinf"):
        return emitter.apply({"isnan": "IsNaN", "isinf": "IsInf"}[fn], x, result=DType.BOOL)
    if fn == "neg":
        if x.dtype.is_signed:
            return emitter.apply("Neg", x)
        return emitter.apply("Sub", emitter.number(0, x.dtype), x)
    return emitter.apply(_UNARY[fn], x)


def binary(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    a, b = operands
    fn = op_of(node, ops.Binary).fn
    if fn in _LOGICAL:
        return emitter.apply(_LOGICAL[fn][a.dtype is not DType.BOOL], a, b)
    if fn in _PLAIN:
        return emitter.apply(_PLAIN[fn], a, b)
    if fn in ("shl", "shr"):
        return _shift(emitter, fn, a, b)
    if a.dtype.is_float:
        return _float_division(emitter, fn, a, b)
    return _integer_division(emitter, fn, a, b, node.inputs[1].data)


def _float_division(emitter: Emitter, fn: str, a: Value, b: Value) -> Value:
    if fn == "div":
        return emitter.apply("Div", a, b)
    rest = emitter.apply("Mod", a, b, fmod=1)
    if fn == "fmod":
        return rest
    # ONNX has the sign of the divisor for integers only
    zero = emitter.number(0, a.dtype)
    below = [emitter.apply("Less", x, zero, result=DType.BOOL) for x in (rest, b)]
    other_side = emitter.raw("Xor", DType.BOOL, *below)
    moved = emitter.where(other_side, emitter.apply("Add", rest, b), rest)
    nothing = emitter.where(below[1], emitter.number(-0.0, a.dtype), zero)
    return emitter.where(emitter.apply("Equal", rest, zero, result=DType.BOOL), nothing, moved)


def _integer_division(
    emitter: Emitter, fn: str, a: Value, b: Value, known: np.ndarray | None
) -> Value:
    """By 0 it gives 0, by -1 it wraps; neither is left to the operators, which may trap."""
    safe, zero = b, emitter.number(0, a.dtype)
    one = emitter.number(1, a.dtype)
    by_zero = by_less = None
    if known is None or (known == 0).any():
        by_zero = emitter.apply("Equal", b, zero, result=DType.BOOL)
        safe = emitter.where(by_zero, one, safe)
    if a.dtype.is_signed and (known is None or (known == -1).any()):
        by_less = emitter.apply("Equal", b, emitter.number(-1, a.dtype), result=DType.BOOL)
        safe = emitter.where(by_less, one, safe)
    if fn == "div":
        made = emitter.apply("Div", a, safe)
        opposite = emitter.apply("Neg", a) if by_less is not None else zero
    else:
        made, opposite = emitter.apply("Mod", a, safe, fmod=int(fn == "fmod")), zero
    if by_less is not None:
        made = emitter.where(by_less, opposite, made)
    return made if by_zero is None else emitter.where(by_zero, zero, made)


def _shift(emitter: Emitter, fn: str, a: Value, b: Value) -> Value:
    """ONNX shifts unsigned integers by less than their width."""
    kind, unsigned = a.dtype, _UNSIGNED.get(a.dtype, a.dtype)
    zero = emitter.number(0, unsigned)
    width = emitter.number(8 * kind.size_bytes, unsigned)
    amount = emitter.cast(b, unsigned)
    far = emitter.raw("GreaterOrEqual", DType.BOOL, amount, width)
    amount = emitter.where(far, zero, amount)
    if fn == "shl" or not kind.is_signed:
        way = "LEFT" if fn == "shl" else "RIGHT"
        moved = emitter.raw("BitShift", unsigned, emitter.cast(a, unsigned), amount, direction=way)
        return emitter.cast(emitter.where(far, zero, moved), kind)
    # of a negative number the complement is shifted
    below = emitter.apply("Less", a, emitter.number(0, kind), result=DType.BOOL)
    turned = emitter.where(below, emitter.apply("BitwiseNot", a), a)
    moved = emitter.raw(
        "BitShift", unsigned, emitter.cast(turned, unsigned), amount, direction="RIGHT"
    )
    moved = emitter.cast(emitter.where(far, zero, moved), kind)
    return emitter.where(below, emitter.apply("BitwiseNot", moved), moved)


def compare(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    fn = op_of(node, ops.Compare).fn
    made = emitter.apply(_COMPARE[fn], *operands, result=DType.BOOL)
    return emitter.raw("Not", DType.BOOL, made) if fn == "ne" else made


def select(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    return emitter.where(*operands)


def cast(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    return emitter.convert(operands[0], op_of(node, ops.Cast).dtype)


def bitcast(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    return emitter.bits(operands[0], op_of(node, ops.Bitcast).dtype)


def relabel(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    """The bits; types of less than a byte are the low bits of the byte that holds them."""
    (x,) = operands
    target = op_of(node, ops.Relabel).dtype
    if x.dtype is DType.F4E2M1:
        return emitter.convert(emitter.bits(x, DType.U4), target)
    if target is DType.F4E2M1:
        return emitter.bits(emitter.convert(x, DType.U4), target)
    packed = any(kind.size_bits < 8 for kind in (x.dtype, target))
    return emitter.convert(x, target) if packed else emitter.bits(x, target)


RULES: Mapping[type[Op], Rule] = MappingProxyType(
    {
        ops.Unary: unary,
        ops.Binary: binary,
        ops.Compare: compare,
        ops.Select: select,
        ops.Cast: cast,
        ops.Bitcast: bitcast,
        ops.Relabel: relabel,
    }
)
