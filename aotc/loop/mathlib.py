"""Elementwise functions of the tensor IR as scalar loop-IR expressions: operand expressions in,
expression out.

Only Lit, Un, Bin, Fma, Cmp, Sel, Conv and Bits appear in the results: no libm, no table, no branch.
Each result is the same on every target because every operation is correctly rounded. f16 computes
in f32 and rounds once. `MAX_ULP` states the largest error of each function that is not correctly
rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from aotc.graph.types import DType
from aotc.loop import mathlib_f32, mathlib_f64, mathlib_pow
from aotc.loop.ir import Bin, Cmp, Expr, Un
from aotc.loop.scalar import (
    INF,
    absolute,
    add,
    both,
    const,
    convert,
    copy_sign,
    div,
    either,
    equal,
    fma,
    is_nan,
    less,
    mul,
    neg,
    negate,
    select,
    sub,
)

# Largest error in units in the last place (f32, f64) over the whole domain, denormals included;
# sin, cos and tan for |x| < 1e5, pow wherever the result is finite.
MAX_ULP: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "exp": (2.0, 2.0),
        "log": (2.0, 2.0),
        "tanh": (6.0, 3.0),
        "erf": (6.0, 3.0),
        "sigmoid": (4.0, 3.0),
        "sin": (1.0, 2.0),
        "cos": (1.0, 2.0),
        "tan": (1.0, 4.0),
        "asin": (1.0, 3.0),
        "acos": (1.0, 3.0),
        "atan": (1.0, 3.0),
        "sinh": (1.0, 3.0),
        "cosh": (1.0, 3.0),
        "asinh": (1.0, 4.0),
        "acosh": (1.0, 4.0),
        "atanh": (1.0, 4.0),
        "pow": (1.0, 2.0),
    }
)

_ROUNDED = ("neg", "abs", "sqrt", "floor", "ceil", "round")
_HOT: Mapping[str, Callable[[Expr], Expr]] = MappingProxyType(
    {
        "exp": mathlib_f32.exp,
        "log": mathlib_f32.log,
        "tanh": mathlib_f32.tanh,
        "erf": mathlib_f32.erf,
        "sigmoid": mathlib_f32.sigmoid,
    }
)
_WIDE: Mapping[str, Callable[[Expr], Expr]] = MappingProxyType(
    {
        "exp": mathlib_f64.exp,
        "log": mathlib_f64.log,
        "tanh": mathlib_f64.tanh,
        "erf": mathlib_f64.erf,
        "sigmoid": mathlib_f64.sigmoid,
        "sinh": mathlib_f64.sinh,
        "cosh": mathlib_f64.cosh,
        "asinh": mathlib_f64.asinh,
        "acosh": mathlib_f64.acosh,
        "atanh": mathlib_f64.atanh,
        "asin": mathlib_f64.asin,
        "acos": mathlib_f64.acos,
        "atan": mathlib_f64.atan,
    }
)
_PERIODIC: Mapping[str, Callable[[Expr, bool], Expr]] = MappingProxyType(
    {"sin": mathlib_f64.sin, "cos": mathlib_f64.cos, "tan": mathlib_f64.tan}
)


def unary(fn: str, x: Expr) -> Expr:
    """The expression of graph `Unary` ``fn`` on x; ValueError when ``fn`` is not defined on x's
    type."""
    if fn == "isnan" or fn == "isinf":
        return _classify(fn, x)
    if (fn == "not" and x.dtype is DType.BOOL) or (fn == "bitnot" and x.dtype.is_int):
        return Un(fn, x)
    if fn == "sign" and x.dtype is not DType.BOOL:
        return _sign(x)
    if not x.dtype.is_float:
        return _unary_int(fn, x)
    if fn in _ROUNDED:
        return Un(fn, x)
    if fn == "reciprocal":
        return div(const(1.0, x), x)
    if x.dtype is DType.F16:
        return convert(unary(fn, convert(x, DType.F32)), DType.F16)
    return _transcendental(fn, x)


def _transcendental(fn: str, x: Expr) -> Expr:
    if x.dtype is DType.F32 and fn in _HOT:
        return _HOT[fn](x)
    wide = convert(x, DType.F64)
    if fn in _PERIODIC:
        return convert(_PERIODIC[fn](wide, x.dtype is DType.F64), x.dtype)
    if fn not in _WIDE:
        raise ValueError(f"no expansion of '{fn}' on {x.dtype.value}")
    return convert(_WIDE[fn](wide), x.dtype)


def _classify(fn: str, x: Expr) -> Expr:
    if not x.dtype.is_float:
        return Cmp("ne", x, x)
    return is_nan(x) if fn == "isnan" else equal(absolute(x), INF)


def _sign(x: Expr) -> Expr:
    """1, -1 or 0; NaN stays NaN."""
    zero, one = const(0, x), const(1, x)
    if not x.dtype.is_signed:
        return select(equal(x, 0), zero, one)
    rest = select(equal(x, 0), zero, x) if x.dtype.is_float else zero
    return select(less(zero, x), one, select(less(x, zero), const(-1, x), rest))


def _unary_int(fn: str, x: Expr) -> Expr:
    if x.dtype.is_int:
        if fn in ("floor", "ceil", "round") or (fn == "abs" and not x.dtype.is_signed):
            return x
        if fn == "neg" or fn == "abs":
            return Un(fn, x)
    raise ValueError(f"no expansion of '{fn}' on {x.dtype.value}")


def binary(fn: str, a: Expr, b: Expr) -> Expr:
    """The expression of graph `Binary` ``fn``; ValueError when ``fn`` is not defined on the
    type."""
    if a.dtype is not b.dtype:
        raise ValueError(f"operands of '{fn}' are {a.dtype.value} and {b.dtype.value}")
    is_bool = a.dtype is DType.BOOL
    match fn:
        case "and" | "or" | "xor" if not a.dtype.is_float:
            return Bin(fn, a, b)
        case "shl" | "shr" if a.dtype.is_int:
            return Bin(fn, a, b)
        case "pow" if not is_bool:
            return _pow(a, b)
        case "fmod" if not is_bool:
            return _fmod_float(a, b) if a.dtype.is_float else _fmod_int(a, b)
        case "mod" if a.dtype.is_float:
            return _mod_float(a, b)
        case "add" | "sub" | "mul" | "div" | "min" | "max" | "mod" if not is_bool:
            return Bin(fn, a, b)
    raise ValueError(f"no expansion of '{fn}' on {a.dtype.value}")


def compare(fn: str, a: Expr, b: Expr) -> Expr:
    """The expression of graph `Compare` ``fn``, of type bool."""
    return Cmp(fn, a, b)


def _pow(a: Expr, b: Expr) -> Expr:
    if not a.dtype.is_float:
        return mathlib_pow.pow_int(a, b)
    wide = mathlib_pow.pow_float(
        convert(a, DType.F64), convert(b, DType.F64), a.dtype is DType.F64
    )
    return convert(wide, a.dtype)


def _fmod_int(a: Expr, b: Expr) -> Expr:
    """a - b*trunc(a/b); 0 when b is 0."""
    return select(equal(b, 0), const(0, a), sub(a, mul(b, div(a, b))))


def _fmod_wide(x: Expr, y: Expr) -> Expr:
    """Remainder with the sign of x, exact while |x/y| < 2^53, below |y| for any quotient; f64."""
    top, bottom = absolute(x), absolute(y)
    quotient = Un("floor", div(top, bottom))
    rest = fma(neg(quotient), bottom, top)
    # The rounded quotient may be one too large or, after the floor, one too small.
    rest = select(less(rest, 0.0), add(rest, bottom), rest)
    rest = select(less(rest, bottom), rest, sub(rest, bottom))
    # A quotient that lost its last digits leaves anything; 0 is as good and in the range.
    size = absolute(rest)
    size = select(less(size, bottom), size, 0.0)
    value = select(less(top, bottom), x, copy_sign(size, x))
    bad = either(either(equal(top, INF), equal(bottom, 0.0)), either(is_nan(x), is_nan(y)))
    return select(bad, float("nan"), value)


def _fmod_float(a: Expr, b: Expr) -> Expr:
    return convert(_fmod_wide(convert(a, DType.F64), convert(b, DType.F64)), a.dtype)


def _mod_float(a: Expr, b: Expr) -> Expr:
    """Remainder with the sign of the divisor; a zero remainder takes the divisor's sign."""
    y = convert(b, DType.F64)
    rest = _fmod_wide(convert(a, DType.F64), y)
    differ = Cmp("ne", less(rest, 0.0), less(y, 0.0))
    shifted = select(both(differ, negate(equal(rest, 0.0))), add(rest, y), rest)
    zero = equal(rest, 0.0)
    return convert(select(zero, copy_sign(const(0.0, y), y), shifted), a.dtype)
