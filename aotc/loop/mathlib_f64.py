"""Math functions in float64 arithmetic: f64 expressions in, f64 expressions out, no table, no
branch.

f32 and f16 use them too, rounded once, for everything that is not hot (see loop/mathlib.py). Every
polynomial is an own fit by Remez exchange in 60-digit arithmetic on the function that the
polynomial multiplies (for the odd ones (f(x)/x-1)/x^2 in x^2), weighted so that the error is
relative to the result, rounded to float64.
"""

from __future__ import annotations

from aotc.graph.types import DType
from aotc.loop.ir import Bin, Cmp, Expr, Lit
from aotc.loop.scalar import (
    INF,
    NAN,
    absolute,
    add,
    bits,
    both,
    clamp,
    const,
    convert,
    copy_sign,
    div,
    equal,
    fma,
    from_bits,
    less,
    mul,
    neg,
    offset,
    poly,
    scale,
    select,
    sqrt,
    sub,
)

# (exp(r)-1-r)/r^2 on |r| <= ln 2, relative error of exp 2^-56.5
_EXP = (
    0.4999999999999993,
    0.16666666666666938,
    0.04166666666670236,
    0.008333333333269455,
    0.0013888888883543844,
    0.0001984126989307386,
    2.4801590846749434e-05,
    2.7557300573187226e-06,
    2.7556154317825835e-07,
    2.5055041064235996e-08,
    2.1062631392474464e-09,
    1.5935482857523946e-10,
)
# atanh on |x| <= 0.1717, relative error 2^-59.5
_ATANH = (
    0.33333333333333676,
    0.19999999999706392,
    0.1428571437144512,
    0.11111099256836195,
    0.090917839067442,
    0.07656975828363956,
    0.07398516094152366,
)
# sin on |x| <= pi/4, relative error 2^-57.9
_SIN = (
    -0.1666666666666663,
    0.008333333333322108,
    -0.00019841269829580182,
    2.755731361800682e-06,
    -2.505074721511145e-08,
    1.5896197403776834e-10,
)
# (cos(x)-1+x^2/2)/x^4 on |x| <= pi/4, error 2^-64.2
_COS = (
    0.0416666666666666,
    -0.0013888888888874125,
    2.480158728948234e-05,
    -2.7557314352372173e-07,
    2.0875723278132235e-09,
    -1.13596480422716e-11,
)
# atan on |x| <= tan(pi/8), relative error 2^-59.4
_ATAN = (
    -0.333333333333332,
    0.1999999999995321,
    -0.1428571428016262,
    0.11111110781946291,
    -0.09090897718961907,
    0.07692059600978196,
    -0.06663097832843037,
    0.05847848981806023,
    -0.05039142729221756,
    0.03806089654504962,
    -0.017903645377373784,
)
# asin on |x| <= 1/2, relative error 2^-59.9
_ASIN = (
    0.1666666666666676,
    0.0749999999997064,
    0.044642857174773634,
    0.03038194269962441,
    0.02237221522808243,
    0.017351607515114123,
    0.01398087653006719,
    0.011398438011790954,
    0.010782998307373675,
    0.0036957171710398948,
    0.021734220893585364,
    -0.02103800098799225,
    0.03265361609878632,
)
# sinh on |x| <= 1, relative error 2^-63.3
_SINH = (
    0.16666666666666669,
    0.008333333333333148,
    0.00019841269841431864,
    2.7557319157074076e-06,
    2.5052123136416973e-08,
    1.605725978965984e-10,
    7.758748240123255e-13,
)
# tanh on |x| <= 0.547, relative error 2^-65.9
_TANH = (
    -0.3333333333333333,
    0.1333333333333309,
    -0.05396825396805955,
    0.02186948852839211,
    -0.008863235347894934,
    0.003592125312903391,
    -0.0014558071114511668,
    0.0005898400803323908,
    -0.00023823983997301983,
    9.402658587583485e-05,
    -3.30442898918545e-05,
    7.493940867491046e-06,
)
# erf(x)/x - 1 in x^2 on |x| <= 1, error 2^-57
_ERF_SMALL = (
    0.12837916709551256,
    -0.3761263890318355,
    0.11283791670945253,
    -0.02686617064327622,
    0.005223977607423468,
    -0.0008548325989696758,
    0.00012055295320494294,
    -1.4924744663335489e-05,
    1.6447517677871873e-06,
    -1.6209175911748696e-07,
    1.3722976265924504e-08,
    -7.801188874097751e-10,
)
# erfc(x) exp(x^2) in 1/(x+2) on 1 <= x <= 6, error of erfc 2^-62.5
_ERF_LARGE = (
    -2.712614133032336e-06,
    0.5643586598282592,
    1.1236496031456706,
    2.0537339174328775,
    1.9371596316266617,
    9.653326864669694,
    -40.10994844447612,
    158.05294363692445,
    -503.56048201659814,
    982.9962658850678,
    -1140.1415422369835,
    739.5010741890911,
    -209.5612972624789,
)
_LN2 = 0.6931471805599453
LN2_HIGH = 0.693147180559663  # 41 bits, so that an exponent times it is exact
LN2_LOW = 2.8235290563031577e-13
_HALF_LOG2E = 0.7213475204444817
_ROUND_MAGIC = 1.5 * 2.0**52
# pi/2 as 33 + 33 + 53 bits: times a quadrant number below 2^20 the first two are exact.
_HALF_PI = (1.5707963267341256, 6.077100506303966e-11, 2.0222662487959506e-21)
_PI_2, _PI_2_LOW = 1.5707963267948966, 6.123233995736766e-17
_PI_4, _PI_4_LOW = 0.7853981633974483, 3.061616997868383e-17


def exp(x: Expr, factor: float = 1.0) -> Expr:
    """``factor`` * e^x for a power of two ``factor``, overflowing only when the result does."""
    x = clamp(x, -746.0, 711.0)
    shifted = fma(x, _HALF_LOG2E, _ROUND_MAGIC + 1023.0)
    n = offset(shifted, -(_ROUND_MAGIC + 1023.0))
    r = fma(n, -2 * LN2_LOW, fma(n, -2 * LN2_HIGH, x))
    p = poly(r, (1.0, 1.0, *_EXP))
    power = from_bits(Bin("shl", bits(shifted), Lit(52, DType.I64)), DType.F64)
    last = power if factor == 1.0 else scale(power, factor)
    return mul(mul(p, power), last)


def log(x: Expr) -> Expr:
    """Natural logarithm; log(0) = -inf, NaN below 0."""
    small = less(x, 2.0**-1022)
    e, m = split_exponent(select(small, scale(x, 2.0**54), x))
    e = select(small, offset(e, -54.0), e)
    f = offset(m, -1.0)
    result = _log_of_quotient(e, f, offset(f, 2.0))
    special = select(equal(x, 0.0), -INF, select(less(x, 0.0), NAN, x))
    return select(both(less(const(0.0, x), x), less(x, INF)), result, special)


def log1p(x: Expr) -> Expr:
    """log(1 + x) for finite x > -1, accurate for small x."""
    w = offset(x, 1.0)
    lost = sub(x, offset(w, -1.0))
    e, m = split_exponent(w)
    # Dividing by 2^e is exact, so the low part of 1+x can follow.
    power = from_bits(sub(bits(w), sub(bits(m), bits(const(1.0, x)))), DType.F64)
    f = select(equal(e, 0.0), x, add(offset(m, -1.0), div(lost, power)))
    return _log_of_quotient(e, f, offset(f, 2.0))


def split_exponent(x: Expr) -> tuple[Expr, Expr]:
    """(e, m) with x = 2^e m and sqrt(1/2) <= m < sqrt(2), for positive normal x; e as f64."""
    sqrt_half = Lit(0x3FE6A09E667F3BCD, DType.I64)
    raw = Bin("sub", bits(x), sqrt_half)
    e = convert(Bin("shr", raw, Lit(52, DType.I64)), DType.F64)
    mantissa = Bin("add", Bin("and", raw, Lit((1 << 52) - 1, DType.I64)), sqrt_half)
    return e, from_bits(mantissa, DType.F64)


def _log_of_quotient(e: Expr, f: Expr, two_plus_f: Expr) -> Expr:
    """e ln 2 + log(1+f) through log(1+f) = 2 atanh(s), s = f/(2+f), written as f - (f^2/2 - s(f^2/2
    + R)) so that the rounding of s hardly counts."""
    s = div(f, two_plus_f)
    square = mul(s, s)
    r = scale(mul(square, poly(square, _ATANH)), 2.0)
    half = scale(mul(f, f), 0.5)
    tail = fma(s, add(half, r), mul(e, const(LN2_LOW, e)))
    return fma(e, LN2_HIGH, sub(f, sub(half, tail)))


def tanh(x: Expr) -> Expr:
    """Hyperbolic tangent."""
    x = clamp(x, -20.0, 20.0)
    size = absolute(x)
    square = mul(x, x)
    small = fma(mul(square, size), poly(square, _TANH), size)
    large = sub(const(1.0, x), div(const(2.0, x), offset(exp(scale(size, 2.0)), 1.0)))
    return _signed(select(less(size, 0.547), small, large), x)


def erf(x: Expr) -> Expr:
    """The error function."""
    x = clamp(x, -6.0, 6.0)
    square = mul(x, x)
    small = fma(x, poly(square, _ERF_SMALL), x)
    size = absolute(x)
    t = div(const(1.0, x), offset(size, 2.0))
    large = fma(neg(exp(neg(square))), poly(t, _ERF_LARGE), 1.0)
    return select(less(size, 1.0), small, select(equal(x, x), copy_sign(large, x), x))


def sigmoid(x: Expr) -> Expr:
    """1/(1+e^-x) as e^x/(1+e^x)."""
    top = const(40.0, x)
    e = exp(select(less(top, x), top, x))
    return div(e, offset(e, 1.0))


def sinh(x: Expr) -> Expr:
    """Hyperbolic sine."""
    square = mul(x, x)
    small = fma(mul(square, x), poly(square, _SINH), x)
    size = absolute(x)
    e = exp(size, 0.5)
    large = sub(e, div(const(0.25, x), e))
    return select(less(size, 1.0), small, select(equal(x, x), copy_sign(absolute(large), x), x))


def cosh(x: Expr) -> Expr:
    """Hyperbolic cosine."""
    e = exp(absolute(x), 0.5)
    return add(e, div(const(0.25, x), e))


def asinh(x: Expr) -> Expr:
    """Inverse hyperbolic sine."""
    size = absolute(x)
    square = mul(x, x)
    root = sqrt(offset(square, 1.0))
    middle = log1p(add(size, div(square, offset(root, 1.0))))
    far = offset(log(size), _LN2)
    return select(less(size, 2.0**28), _signed(middle, x), _signed(far, x))


def _signed(size: Expr, x: Expr) -> Expr:
    """``size`` with the sign of x, x itself when that is NaN."""
    return select(equal(x, x), copy_sign(absolute(size), x), x)


def acosh(x: Expr) -> Expr:
    """Inverse hyperbolic cosine; NaN below 1."""
    t = offset(x, -1.0)
    near = log1p(add(t, sqrt(mul(t, offset(t, 2.0)))))
    far = offset(log(x), _LN2)
    result = select(less(x, 2.0**28), near, far)
    return select(less(x, 1.0), NAN, result)


def atanh(x: Expr) -> Expr:
    """Inverse hyperbolic tangent; inf at 1, NaN beyond."""
    size = absolute(x)
    inside = scale(log1p(div(scale(size, 2.0), sub(const(1.0, x), size))), 0.5)
    result = select(equal(size, 1.0), INF, inside)
    return select(Cmp("le", size, const(1.0, x)), copy_sign(absolute(result), x), NAN)


def _reduce_quadrant(x: Expr, precise: bool) -> tuple[Expr, Expr, Expr]:
    """(quadrant as i64, high, low): x = quadrant*pi/2 + high + low by Cody and Waite, |x| < 1e6.

    Without ``precise``, ``low`` is 0: enough when x came from float32 and the result goes back
    there.
    """
    shifted = fma(x, 0.6366197723675814, _ROUND_MAGIC)
    n = offset(shifted, -_ROUND_MAGIC)
    first = fma(n, -_HALF_PI[0], x)
    if not precise:
        return bits(shifted), clamp(fma(n, -_HALF_PI[1], first), -1.0, 1.0), const(0.0, x)
    second = scale(n, -_HALF_PI[1])
    total = add(first, second)
    back = sub(total, first)
    lost = add(sub(first, sub(total, back)), sub(second, back))
    lost = fma(n, -_HALF_PI[2], lost)
    high = add(total, lost)
    # The limits are met only far beyond the stated range, where they keep |sin| and |cos| near 1.
    low = clamp(add(sub(total, high), lost), -1e-9, 1e-9)
    return bits(shifted), clamp(high, -1.0, 1.0), low


def _sin_cos(x: Expr, precise: bool) -> tuple[Expr, Expr, Expr]:
    """(quadrant, sin, cos) of the reduced argument."""
    quadrant, high, low = _reduce_quadrant(x, precise)
    square = mul(high, high)
    half = scale(square, 0.5)
    sine_tail = fma(low, fma(square, -0.5, 1.0), mul(mul(square, high), poly(square, _SIN)))
    sine = add(high, sine_tail)
    # 1 - x^2/2 loses bits that (1 - w) - x^2/2 gives back.
    w = sub(const(1.0, x), half)
    lost = sub(sub(const(1.0, x), w), half)
    cosine_tail = fma(mul(square, square), poly(square, _COS), fma(neg(high), low, lost))
    return quadrant, sine, add(w, cosine_tail)


def _flip_sign(value: Expr, quadrant: Expr) -> Expr:
    """``value`` negated when bit 1 of ``quadrant`` is set."""
    sign = Bin("shl", Bin("and", quadrant, Lit(2, DType.I64)), Lit(62, DType.I64))
    return from_bits(Bin("xor", bits(value), sign), DType.F64)


def _is_odd(quadrant: Expr) -> Expr:
    return equal(Bin("and", quadrant, Lit(1, DType.I64)), 1.0)


def sin(x: Expr, precise: bool = True) -> Expr:
    """Sine for |x| < 1e6, beyond with growing error."""
    quadrant, sine, cosine = _sin_cos(x, precise)
    value = _flip_sign(select(_is_odd(quadrant), cosine, sine), quadrant)
    return select(equal(x, 0.0), x, value)


def cos(x: Expr, precise: bool = True) -> Expr:
    """Cosine for |x| < 1e6, beyond with growing error."""
    quadrant, sine, cosine = _sin_cos(x, precise)
    # cos(x) = sin(x + pi/2)
    after = Bin("add", quadrant, Lit(1, DType.I64))
    return _flip_sign(select(_is_odd(quadrant), sine, cosine), after)


def tan(x: Expr, precise: bool = True) -> Expr:
    """Tangent for |x| < 1e6, beyond with growing error."""
    quadrant, sine, cosine = _sin_cos(x, precise)
    odd = _is_odd(quadrant)
    value = div(select(odd, neg(cosine), sine), select(odd, sine, cosine))
    return select(equal(x, 0.0), x, value)


def atan(x: Expr) -> Expr:
    """Inverse tangent."""
    size = absolute(x)
    far = less(const(2.414213562373095, x), size)
    middle = less(const(0.41421356237309503, x), size)
    one = const(1.0, x)
    top = select(far, -1.0, select(middle, sub(size, one), size))
    bottom = select(far, size, select(middle, add(size, one), one))
    t = div(top, bottom)
    square = mul(t, t)
    base = select(far, _PI_2, select(middle, const(_PI_4, x), const(0.0, x)))
    rest = select(far, _PI_2_LOW, select(middle, const(_PI_4_LOW, x), const(0.0, x)))
    value = add(base, add(t, fma(mul(square, t), poly(square, _ATAN), rest)))
    return select(equal(x, x), copy_sign(value, x), x)


def _asin_small(x: Expr, square: Expr) -> Expr:
    return fma(mul(square, x), poly(square, _ASIN), x)


def asin(x: Expr) -> Expr:
    """Inverse sine; NaN outside [-1, 1]."""
    size = absolute(x)
    outer = less(const(0.5, x), size)
    folded = scale(sub(const(1.0, x), size), 0.5)
    square = select(outer, folded, mul(x, x))
    arc = _asin_small(select(outer, sqrt(folded), size), square)
    value = select(outer, sub(const(_PI_2, x), sub(scale(arc, 2.0), const(_PI_2_LOW, x))), arc)
    return select(Cmp("le", size, const(1.0, x)), copy_sign(absolute(value), x), NAN)


def acos(x: Expr) -> Expr:
    """Inverse cosine; NaN outside [-1, 1]."""
    size = absolute(x)
    outer = less(const(0.5, x), size)
    folded = scale(sub(const(1.0, x), size), 0.5)
    square = select(outer, folded, mul(x, x))
    arc = _asin_small(select(outer, sqrt(folded), x), square)
    twice = scale(arc, 2.0)
    behind = sub(const(2 * _PI_2, x), sub(twice, const(2 * _PI_2_LOW, x)))
    inner = sub(const(_PI_2, x), sub(arc, const(_PI_2_LOW, x)))
    value = select(outer, select(less(x, 0.0), behind, twice), inner)
    return select(Cmp("le", size, const(1.0, x)), value, NAN)

