"""Elementwise functions of the standard: arrays of its kinds in, arrays out.

Operands of one kind promote by the table of the standard; Python numbers take the type of the array
beside them. The meaning of each function is that of numpy's on traced values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from aotc.numpy.eager import operation
from aotc.numpy.types import expect_kinds, kind_of, result_type
from aotc.tracing.core import lift
from aotc.tracing.tensor import Tensor, tnp

Function = Callable[..., Any]


def promoted(name: str, kinds: str, *operands: Any) -> list[Tensor]:
    """Operands as Tensors of their common type; UsageError for kinds that ``name`` does not
    take."""
    common = result_type(*(
        x if isinstance(x, Tensor | bool | int | float) else lift(x) for x in operands
    ))
    expect_kinds(name, common, kinds)
    return [lift(x).astype(common) if isinstance(x, Tensor) else _number(x, common)
            for x in operands]


def _number(x: Any, dtype: np.dtype) -> Tensor:
    return lift(np.asarray(x, dtype=dtype))


def _one(name: str, kinds: str, function: Function) -> Function:
    def apply(x: Any, /) -> Any:
        x = lift(x)
        expect_kinds(name, x.dtype, kinds)
        return function(x)

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"The standard's ``{name}``, elementwise."
    return operation(apply)


def _two(name: str, kinds: str, function: Function) -> Function:
    def apply(x1: Any, x2: Any, /) -> Any:
        return function(*promoted(name, kinds, x1, x2))

    apply.__name__ = apply.__qualname__ = name
    apply.__doc__ = f"The standard's ``{name}``, elementwise, with broadcasting."
    return operation(apply)


def _same(x: Any) -> Any:
    return x


def _floor_divide(a: Any, b: Any) -> Any:
    """The floor of the quotient also where one operand is infinite, of which numpy makes NaN and
    -1."""
    result = tnp.floor_divide(a, b)
    if not a.type.dtype.is_float:
        return result
    return tnp.where(tnp.isinf(a) ^ tnp.isinf(b), a / b, result)


_FLOAT, _NUMBER, _INTEGER, _WHOLE, _BOOL, _ALL = "f", "iuf", "iu", "biu", "b", "biuf"

abs = _one("abs", _NUMBER, np.abs)
acos = _one("acos", _FLOAT, np.acos)
acosh = _one("acosh", _FLOAT, np.acosh)
add = _two("add", _NUMBER, np.add)
asin = _one("asin", _FLOAT, np.asin)
asinh = _one("asinh", _FLOAT, np.asinh)
atan = _one("atan", _FLOAT, np.atan)
atan2 = _two("atan2", _FLOAT, np.atan2)
atanh = _one("atanh", _FLOAT, np.atanh)
bitwise_and = _two("bitwise_and", _WHOLE, np.bitwise_and)
bitwise_invert = _one("bitwise_invert", _WHOLE, np.invert)
bitwise_left_shift = _two("bitwise_left_shift", _INTEGER, np.left_shift)
bitwise_or = _two("bitwise_or", _WHOLE, np.bitwise_or)
bitwise_right_shift = _two("bitwise_right_shift", _INTEGER, np.right_shift)
bitwise_xor = _two("bitwise_xor", _WHOLE, np.bitwise_xor)
ceil = _one("ceil", _NUMBER, np.ceil)
conj = _one("conj", _NUMBER, _same)
copysign = _two("copysign", _FLOAT, np.copysign)
cos = _one("cos", _FLOAT, np.cos)
cosh = _one("cosh", _FLOAT, np.cosh)
divide = _two("divide", _FLOAT, np.divide)
equal = _two("equal", _ALL, np.equal)
exp = _one("exp", _FLOAT, np.exp)
expm1 = _one("expm1", _FLOAT, np.expm1)
floor = _one("floor", _NUMBER, np.floor)
floor_divide = _two("floor_divide", _NUMBER, _floor_divide)
greater = _two("greater", _NUMBER, np.greater)
greater_equal = _two("greater_equal", _NUMBER, np.greater_equal)
hypot = _two("hypot", _FLOAT, np.hypot)
imag = _one("imag", _NUMBER, tnp.zeros_like)
isfinite = _one("isfinite", _NUMBER, np.isfinite)
isinf = _one("isinf", _NUMBER, np.isinf)
isnan = _one("isnan", _NUMBER, np.isnan)
less = _two("less", _NUMBER, np.less)
less_equal = _two("less_equal", _NUMBER, np.less_equal)
log = _one("log", _FLOAT, np.log)
log10 = _one("log10", _FLOAT, np.log10)
log1p = _one("log1p", _FLOAT, np.log1p)
log2 = _one("log2", _FLOAT, np.log2)
logaddexp = _two("logaddexp", _FLOAT, np.logaddexp)
logical_and = _two("logical_and", _BOOL, np.logical_and)
logical_not = _one("logical_not", _BOOL, np.logical_not)
logical_or = _two("logical_or", _BOOL, np.logical_or)
logical_xor = _two("logical_xor", _BOOL, np.logical_xor)
maximum = _two("maximum", _NUMBER, np.maximum)
minimum = _two("minimum", _NUMBER, np.minimum)
multiply = _two("multiply", _NUMBER, np.multiply)
negative = _one("negative", _NUMBER, np.negative)
nextafter = _two("nextafter", _FLOAT, np.nextafter)
not_equal = _two("not_equal", _ALL, np.not_equal)
positive = _one("positive", _NUMBER, np.positive)
pow = _two("pow", _NUMBER, np.pow)
real = _one("real", _NUMBER, _same)
reciprocal = _one("reciprocal", _FLOAT, np.reciprocal)
remainder = _two("remainder", _NUMBER, np.remainder)
round = _one("round", _NUMBER, tnp.round)
sign = _one("sign", _NUMBER, np.sign)
signbit = _one("signbit", _FLOAT, np.signbit)
sin = _one("sin", _FLOAT, np.sin)
sinh = _one("sinh", _FLOAT, np.sinh)
sqrt = _one("sqrt", _FLOAT, np.sqrt)
square = _one("square", _NUMBER, np.square)
subtract = _two("subtract", _NUMBER, np.subtract)
tan = _one("tan", _FLOAT, np.tan)
tanh = _one("tanh", _FLOAT, np.tanh)
trunc = _one("trunc", _NUMBER, np.trunc)


@operation
def clip(x: Any, /, min: Any = None, max: Any = None) -> Any:
    """The standard's ``clip``: ``x`` held between the ends, which take its type."""
    x = lift(x)
    expect_kinds("clip", x.dtype, _NUMBER)
    for name, end, limit in (("min", min, np.maximum), ("max", max, np.minimum)):
        if end is None:
            continue
        common = result_type(x, end if isinstance(end, Tensor | bool | int | float) else lift(end))
        if kind_of(common) != kind_of(x.dtype):
            expect_kinds(f"{name} of clip", common, kind_of(x.dtype))
        end = end.astype(x.dtype) if isinstance(end, Tensor) else _number(end, x.dtype)
        x = limit(x, end)
    return x
