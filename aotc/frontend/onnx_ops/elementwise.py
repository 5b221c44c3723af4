"""Elementwise ONNX operators and conversion: a `Call` goes in, nodes come out."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.legacy import with_broadcast_attributes
from aotc.frontend.values import Value
from aotc.graph.ir import Node
from aotc.graph.types import DType


def unary(fn: str) -> Rule:
    """The rule of an operator that is one `Unary` primitive."""
    return lambda call: call.unary(fn, call[0])


def binary(fn: str) -> Rule:
    """The rule of an operator that is one `Binary` primitive with broadcasting."""
    return with_broadcast_attributes(lambda call: call.binary(fn, call[0], call[1]))


def compare(fn: str) -> Rule:
    """The rule of an operator that is one `Compare` primitive with broadcasting."""
    return with_broadcast_attributes(lambda call: call.compare(fn, call[0], call[1]))


def variadic(fn: str) -> Rule:
    """The rule of an operator that joins any number of operands, left to right."""
    return lambda call: reduce(lambda a, b: call.binary(fn, a, b), _at_least_one(call))


def _at_least_one(call: Call) -> list[Node]:
    operands = call.operands
    if not operands:
        raise ModelError("takes at least one input, has none")
    return operands


def mean(call: Call) -> Node:
    """Mean of any number of operands, with broadcasting."""
    operands = _at_least_one(call)
    total = reduce(lambda a, b: call.binary("add", a, b), operands)
    return total if len(operands) == 1 else call.binary("mul", total, 1.0 / len(operands))


def power(call: Call) -> Node:
    """``x ** y`` in the type of x; small whole exponents stay `pow` for the simplifier to
    expand."""
    x, y = call[0], call[1]
    if x.type.dtype is y.type.dtype:
        return call.binary("pow", x, y)
    if x.type.dtype.is_float or not y.type.dtype.is_float:
        return call.binary("pow", x, call.cast(y, x.type.dtype))
    wide = call.binary("pow", call.cast(x, DType.F64), call.cast(y, DType.F64))
    return call.cast(wide, x.type.dtype)


def modulo(call: Call) -> Node:
    """Remainder with the sign of the divisor, or of the dividend with ``fmod``."""
    return call.binary("fmod" if call.attrs.flag("fmod") else "mod", call[0], call[1])


def bit_shift(call: Call) -> Node:
    """Shift by ``direction``."""
    direction = call.attrs.string("direction")
    if direction not in ("LEFT", "RIGHT"):
        raise ModelError(f"attribute 'direction' must be LEFT or RIGHT, is '{direction}'")
    return call.binary("shl" if direction == "LEFT" else "shr", call[0], call[1])


def is_inf(call: Call) -> Node:
    """Infinite, of the sign or signs asked for."""
    x = call[0]
    negative = call.attrs.flag("detect_negative", True)
    positive = call.attrs.flag("detect_positive", True)
    if negative and positive:
        return call.unary("isinf", x)
    if negative or positive:
        return call.compare("eq", x, np.inf if positive else -np.inf)
    return call.broadcast(call.constant(np.asarray(False)), x.shape)


def where(call: Call) -> Node:
    """``condition ? x : y`` with broadcasting."""
    return call.select(call[0], call[1], call[2])


def clip(call: Call) -> Node:
    """``min(max(x, low), high)``; the bounds are attributes before opset 11 and inputs from then
    on."""
    x = call[0]
    if call.version < 11:
        low = call.scalar(call.attrs.real("min"), x) if "min" in call.attrs else None
        high = call.scalar(call.attrs.real("max"), x) if "max" in call.attrs else None
    else:
        low, high = call.optional(1), call.optional(2)
    for fn, bound in (("max", low), ("min", high)):
        if bound is not None:
            if bound.type.elems != 1:
                raise ModelError(f"a bound must be one number, is {bound.type}")
            x = call.binary(fn, x, call.reshape(bound, ()))
    return x


def identity(call: Call) -> Value:
    """The input itself, whatever it is."""
    value = call.value(0)
    return call[0] if value is None else value


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Abs": unary("abs"),
        "Acos": unary("acos"),
        "Acosh": unary("acosh"),
        "Add": binary("add"),
        "And": binary("and"),
        "Asin": unary("asin"),
        "Asinh": unary("asinh"),
        "Atan": unary("atan"),
        "Atanh": unary("atanh"),
        "BitShift": bit_shift,
        "BitwiseAnd": binary("and"),
        "BitwiseNot": unary("bitnot"),
        "BitwiseOr": binary("or"),
        "BitwiseXor": binary("xor"),
        "Ceil": unary("ceil"),
        "Clip": clip,
        "Cos": unary("cos"),
        "Cosh": unary("cosh"),
        "Div": binary("div"),
        "Equal": compare("eq"),
        "Erf": unary("erf"),
        "Exp": unary("exp"),
        "Floor": unary("floor"),
        "Greater": compare("gt"),
        "GreaterOrEqual": compare("ge"),
        "Identity": identity,
        "IsInf": is_inf,
        "IsNaN": unary("isnan"),
        "Less": compare("lt"),
        "LessOrEqual": compare("le"),
        "Log": unary("log"),
        "Max": variadic("max"),
        "Mean": mean,
        "Min": variadic("min"),
        "Mod": modulo,
        "Mul": binary("mul"),
        "Neg": unary("neg"),
        "Not": unary("not"),
        "Or": binary("or"),
        "Pow": with_broadcast_attributes(power),
        "Reciprocal": unary("reciprocal"),
        "Round": unary("round"),
        "Sign": unary("sign"),
        "Sin": unary("sin"),
        "Sinh": unary("sinh"),
        "Sqrt": unary("sqrt"),
        "Sub": binary("sub"),
        "Sum": variadic("add"),
        "Tan": unary("tan"),
        "Tanh": unary("tanh"),
        "Where": where,
        "Xor": binary("xor"),
    }
)
