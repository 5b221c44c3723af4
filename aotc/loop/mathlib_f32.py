"""Hot math functions in float32 arithmetic: f32 expressions in, f32 expressions out, no table, no
branch.

The coefficients are own fits. Polynomials: Remez exchange in 60-digit arithmetic on the function
that the polynomial multiplies (for exp, (exp(r)-1-r)/r^2), weighted so that the error is relative
to the result. Rationals x*P(x^2)/Q(x^2): linearised least squares |P - f*Q|/(f*Q_previous) with
Lawson's reweighting until the largest relative error stops falling; P(0)/Q(0) is held at the slope
in 0. All were then rounded to float32, and the rationals varied by random steps of the last bits as
long as the largest error of the f32 result fell.
"""

from __future__ import annotations

from aotc.graph.types import DType
from aotc.loop.ir import Bin, Expr, Lit
from aotc.loop.scalar import (
    INF,
    NAN,
    add,
    bits,
    clamp,
    const,
    convert,
    div,
    equal,
    fma,
    from_bits,
    less,
    mul,
    offset,
    poly,
    scale,
    select,
)

# (exp(r)-1-r)/r^2 on |r| <= ln 2, relative error of exp 2^-26.1
_EXP = (0.50000036, 0.16666614, 0.04166126, 0.008336108, 0.0014104681, 0.00019611414)
# (log(1+f)-f+f^2/2)/f^3 on sqrt(1/2)-1 <= f <= sqrt(2)-1, relative error of log 2^-27.4
_LOG = (
    0.3333333,
    -0.25000823,
    0.20001227,
    -0.16623355,
    0.1420175,
    -0.13160187,
    0.12761639,
    -0.076345585,
)
# tanh(x)/x in x^2 on |x| <= 9.02, relative error 2^-25.4
_TANH_P = (1.0, 0.13382684, 0.003497454, 2.0635765e-05, 1.3384185e-08)
_TANH_Q = (1.0, 0.46716005, 0.025884345, 0.00032885117, 7.790217e-07)
# erf(x)/x in x^2 on |x| <= 3.93, relative error 2^-25.6
_ERF_P = (
    1.1283791,
    0.19024561,
    0.052719146,
    0.0037562766,
    0.00028424017,
    2.0456944e-06,
)
_ERF_Q = (
    1.0,
    0.50193375,
    0.114034906,
    0.014951136,
    0.0011594507,
    3.8012575e-05,
)

_HALF_LOG2E = 0.7213475204444817
_TWO_LN2_HIGH = 1.38629150390625  # 2 ln 2 to 16 bits, so that n times it is exact
_TWO_LN2_LOW = 2.8572136406188345e-06
_LN2_HIGH = 0.693145751953125
_LN2_LOW = 1.4286068203094173e-06
# Adding this rounds to an integer in the low bits; 127 there makes a shift by 23 give the power of
# two.
_ROUND_MAGIC = 1.5 * 2.0**23 + 127.0


#: Below half of the least denormal; the end of the range that exp looks at.
_VANISHES = -104.0


def exp(x: Expr) -> Expr:
    """e^x. x = 2n ln 2 + r, so 2^n is one shift and multiplying by it twice reaches
    both the largest finite and the denormal results."""
    return _exp(clamp(x, _VANISHES, 89.0))


def _exp(x: Expr) -> Expr:
    """e^x within the limits of `exp`."""
    shifted = fma(x, _HALF_LOG2E, _ROUND_MAGIC)
    n = offset(shifted, -_ROUND_MAGIC)
    r = fma(n, -_TWO_LN2_LOW, fma(n, -_TWO_LN2_HIGH, x))
    p = poly(r, (1.0, 1.0, *_EXP))
    power = from_bits(Bin("shl", bits(shifted), Lit(23, DType.I32)), DType.F32)
    # What a mask has pushed out of reach is zero by this, not by an underflow: processors need a
    # hundred cycles and more for one.
    power = select(equal(x, _VANISHES), 0.0, power)
    return mul(mul(p, power), power)


def log(x: Expr) -> Expr:
    """Natural logarithm; log(0) = -inf, NaN below 0."""
    small = less(x, 2.0**-126)
    normal = select(small, scale(x, 2.0**23), x)
    sqrt_half = Lit(0x3F3504F3, DType.I32)
    raw = Bin("sub", bits(normal), sqrt_half)
    exponent = convert(Bin("shr", raw, Lit(23, DType.I32)), DType.F32)
    e = select(small, offset(exponent, -23.0), exponent)
    mantissa = Bin("add", Bin("and", raw, Lit(0x7FFFFF, DType.I32)), sqrt_half)
    f = offset(from_bits(mantissa, DType.F32), -1.0)
    square = mul(f, f)
    tail = fma(mul(square, f), poly(f, _LOG), mul(e, const(_LN2_LOW, e)))
    result = fma(e, _LN2_HIGH, add(f, fma(square, -0.5, tail)))
    # Outside (0, inf): zero gives -inf, inf and NaN give themselves, the negatives NaN.
    special = select(equal(x, 0.0), -INF, select(less(x, 0.0), NAN, x))
    inside = Bin("and", less(const(0.0, x), x), less(x, INF))
    return select(inside, result, special)


def tanh(x: Expr) -> Expr:
    """Hyperbolic tangent as a rational function."""
    x = clamp(x, -9.02, 9.02)
    square = mul(x, x)
    return clamp(div(mul(x, poly(square, _TANH_P)), poly(square, _TANH_Q)), -1.0, 1.0)


def erf(x: Expr) -> Expr:
    """The error function as a rational function."""
    x = clamp(x, -3.93, 3.93)
    square = mul(x, x)
    return clamp(div(mul(x, poly(square, _ERF_P)), poly(square, _ERF_Q)), -1.0, 1.0)


def sigmoid(x: Expr) -> Expr:
    """1/(1+e^-x) as e^x/(1+e^x), which keeps the relative accuracy for very negative x."""
    # Beyond 20 the quotient rounds to 1; the limit keeps e^x from overflowing to inf/inf.
    e = _exp(clamp(x, _VANISHES, 20.0))
    return div(e, offset(e, 1.0))


