"""Short constructors for scalar expressions: operands in, loop-IR expressions out.

They fold nothing and choose nothing; they exist so that formulas read as formulas.
"""

from __future__ import annotations

from collections.abc import Sequence

from aotc.graph.types import DType
from aotc.loop.ir import Bin, Bits, Cmp, Conv, Expr, Fma, Lit, Sel, Un

# The signed integer that holds the bits of a float.
BITS_OF = {DType.F16: DType.I16, DType.F32: DType.I32, DType.F64: DType.I64}

INF = float("inf")
NAN = float("nan")


def const(value: float | int, like: Expr) -> Lit:
    """A literal of the type of ``like``."""
    return Lit(float(value) if like.dtype.is_float else int(value), like.dtype)


def add(a: Expr, b: Expr) -> Expr:
    """a + b."""
    return Bin("add", a, b)


def sub(a: Expr, b: Expr) -> Expr:
    """a - b."""
    return Bin("sub", a, b)


def mul(a: Expr, b: Expr) -> Expr:
    """a * b."""
    return Bin("mul", a, b)


def div(a: Expr, b: Expr) -> Expr:
    """a / b."""
    return Bin("div", a, b)


def scale(a: Expr, factor: float) -> Expr:
    """a times a literal."""
    return Bin("mul", a, const(factor, a))


def offset(a: Expr, term: float) -> Expr:
    """a plus a literal."""
    return Bin("add", a, const(term, a))


def fma(a: Expr, b: Expr | float, c: Expr | float) -> Expr:
    """a*b + c rounded once; ``b`` and ``c`` may be numbers."""
    right = b if isinstance(b, Expr) else const(b, a)
    return Fma(a, right, c if isinstance(c, Expr) else const(c, a))


def neg(a: Expr) -> Expr:
    """-a."""
    return Un("neg", a)


def absolute(a: Expr) -> Expr:
    """|a|."""
    return Un("abs", a)


def sqrt(a: Expr) -> Expr:
    """The square root."""
    return Un("sqrt", a)


def less(a: Expr, b: Expr | float) -> Expr:
    """a < b as bool; false when either is NaN."""
    return Cmp("lt", a, b if isinstance(b, Expr) else const(b, a))


def equal(a: Expr, b: Expr | float) -> Expr:
    """a == b as bool."""
    return Cmp("eq", a, b if isinstance(b, Expr) else const(b, a))


def is_nan(a: Expr) -> Expr:
    """Whether a is NaN, as bool."""
    return Cmp("ne", a, a)


def both(a: Expr, b: Expr) -> Expr:
    """Logical and of two bools."""
    return Bin("and", a, b)


def either(a: Expr, b: Expr) -> Expr:
    """Logical or of two bools."""
    return Bin("or", a, b)


def negate(a: Expr) -> Expr:
    """Logical not of a bool."""
    return Un("not", a)


def select(cond: Expr, a: Expr | float, b: Expr | float) -> Expr:
    """cond ? a : b; one of the two may be a number."""
    left = a if isinstance(a, Expr) else const(a, b) if isinstance(b, Expr) else None
    if left is None:
        raise ValueError("select needs an expression on one side")
    return Sel(cond, left, b if isinstance(b, Expr) else const(b, left))


def bits(a: Expr) -> Expr:
    """The bits of a float as the signed integer of its size."""
    return Bits(a, BITS_OF[a.dtype])


def from_bits(a: Expr, dtype: DType) -> Expr:
    """The float of type ``dtype`` with the bits of the integer ``a``."""
    return Bits(a, dtype)


def convert(a: Expr, dtype: DType) -> Expr:
    """Numeric conversion; nothing when the type is already ``dtype``."""
    return a if a.dtype is dtype else Conv(a, dtype)


def clamp(x: Expr, low: float, high: float) -> Expr:
    """x limited to [low, high]; a NaN stays NaN.

    Written as ``low < high ? ..`` selections with x last, which is what the min and max
    instructions of x86 compute; the NaN-propagating ``min``/``max`` of the IR cost three
    instructions there.
    """
    high_lit, low_lit = const(high, x), const(low, x)
    x = Sel(Cmp("lt", high_lit, x), high_lit, x)
    return Sel(Cmp("gt", low_lit, x), low_lit, x)


def poly(x: Expr, coefficients: Sequence[float]) -> Expr:
    """c[0] + c[1]*x + c[2]*x^2 + ... by Horner's rule, one Fma each; ``coefficients`` has 2 or
    more."""
    result = fma(x, coefficients[-1], coefficients[-2])
    for c in reversed(coefficients[:-2]):
        result = fma(result, x, c)
    return result


def copy_sign(magnitude: Expr, sign: Expr) -> Expr:
    """``magnitude`` (which has no sign bit set) with the sign bit of ``sign``."""
    top = 1 << (magnitude.dtype.size_bytes * 8 - 1)
    as_int = BITS_OF[magnitude.dtype]
    sign_bit = Bin("and", bits(sign), Lit(-top, as_int))
    return from_bits(Bin("or", bits(magnitude), sign_bit), magnitude.dtype)
