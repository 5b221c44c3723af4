"""Powers: expressions for base and exponent in, x**y out, as C's pow has it for floats.

Floats: |x|^y = exp(y log|x|) with the logarithm as an unevaluated sum of two f64, so that the
product keeps its bits; f32 and f16 need only one f64. Integers: square and multiply, unrolled.
"""

from __future__ import annotations

from aotc.graph.types import DType
from aotc.loop import mathlib_f64
from aotc.loop.ir import Bin, Cmp, Expr, Lit, Un
from aotc.loop.scalar import (
    INF,
    NAN,
    absolute,
    add,
    bits,
    both,
    clamp,
    const,
    div,
    either,
    equal,
    fma,
    from_bits,
    less,
    mul,
    neg,
    negate,
    offset,
    poly,
    scale,
    select,
    sub,
)

# (atanh(s)/s - 1 - s^2/3)/s^4 for s in x^2 on |s| <= 0.1717 by Remez exchange, relative error of
# atanh 2^-73.5
_ATANH_TAIL = (
    0.1999999999999999,
    0.1428571428572261,
    0.11111111108755369,
    0.09090909436738741,
    0.07692278327412454,
    0.06668162875352063,
    0.058373245408288164,
    0.059952133181958425,
)
_EXPONENT_STEPS = 6


def pow_int(base: Expr, exponent: Expr) -> Expr:
    """Integer power that wraps, for exponents below 64; larger ones count modulo 2 and are right
    for the bases -1, 0 and 1. A negative exponent gives the truncated quotient 1/base^-exponent."""
    one, zero = const(1, base), const(0, base)
    negative = less(exponent, 0)
    size = absolute(exponent) if exponent.dtype.is_signed else exponent
    parity = Bin("and", size, one)
    large = Bin("or", parity, const(62, base))
    size = select(less(const(63, base), size), large, size)
    result: Expr = one
    square = base
    for step in range(_EXPONENT_STEPS):
        bit = Bin("and", size, const(1 << step, base))
        result = select(equal(bit, 0), result, mul(result, square))
        if step + 1 < _EXPONENT_STEPS:
            square = mul(square, square)
    if not exponent.dtype.is_signed:
        return result
    is_unit = either(equal(base, 1), equal(base, -1))
    return select(both(negative, negate(is_unit)), zero, result)


def pow_float(x: Expr, y: Expr, precise: bool) -> Expr:
    """x**y for f64; without ``precise`` good to f32 only, at half the operations."""
    size = absolute(x)
    power = _power_precise(size, y) if precise else mathlib_f64.exp(mul(y, mathlib_f64.log(size)))
    whole = equal(Un("floor", y), y)
    half = scale(y, 0.5)
    odd = both(whole, negate(equal(Un("floor", half), half)))
    sign_bit = Lit(-(1 << 63), DType.I64)
    flip = Bin("and", bits(x), sign_bit)
    signed = from_bits(Bin("or", bits(power), flip), DType.F64)
    result = select(odd, signed, power)
    undefined = both(both(less(x, 0.0), less(const(-INF, x), x)), negate(whole))
    result = select(undefined, NAN, result)
    # pow(-1, inf) is 1, pow(1, anything) and pow(anything, 0) too, NaN included.
    endless = both(equal(size, 1.0), equal(absolute(y), INF))
    return select(either(either(equal(y, 0.0), equal(x, 1.0)), endless), 1.0, result)


def _power_precise(size: Expr, y: Expr) -> Expr:
    """size**y for size >= 0, y != 0."""
    high, low = _log_pair(size)
    # Limiting y keeps y*high finite where the result is 0 or inf anyway.
    y = clamp(y, -1e300, 1e300)
    product = clamp(mul(y, high), -1e4, 1e4)
    error = fma(y, high, neg(product))
    error = fma(y, low, error)
    result = mathlib_f64.exp(product)
    # e^(p+d) = e^p + e^p d; an infinite result stays as it is
    refined = select(less(result, INF), fma(result, error, result), result)
    ordinary = both(less(const(0.0, size), size), less(size, INF))
    grows = Cmp("eq", less(const(0.0, y), y), less(const(1.0, size), size))
    edge = select(grows, const(INF, size), const(0.0, size))
    nan = either(Cmp("ne", size, size), Cmp("ne", y, y))
    return select(nan, NAN, select(ordinary, refined, edge))


def _log_pair(x: Expr) -> tuple[Expr, Expr]:
    """log(x) as high + low with an error near 2^-66 of it, for 0 < x < inf."""
    small = less(x, 2.0**-1022)
    e, m = mathlib_f64.split_exponent(select(small, scale(x, 2.0**54), x))
    e = select(small, offset(e, -54.0), e)
    f = offset(m, -1.0)  # exact
    bottom = offset(m, 1.0)
    bottom_low = sub(m, offset(bottom, -1.0))
    s = div(f, bottom)
    s_low = div(fma(neg(s), bottom_low, fma(neg(s), bottom, f)), bottom)
    square = mul(s, s)
    square_low = fma(scale(s, 2.0), s_low, fma(s, s, neg(square)))
    # third = s^2/3 + s^4 tail, as a pair; 1/3 = third_high + third_low
    third_high, third_low = 0.3333333333333333, 1.850371707708594e-17
    cubic = scale(square, third_high)
    cubic_low = fma(square, third_low, fma(square, third_high, neg(cubic)))
    cubic_low = fma(square_low, third_high, cubic_low)
    cubic_low = fma(mul(square, square), poly(square, _ATANH_TAIL), cubic_low)
    # log m = 2s + 2s*(cubic + cubic_low)
    twice, twice_low = scale(s, 2.0), scale(s_low, 2.0)
    main = mul(twice, cubic)
    main_low = fma(twice, cubic, neg(main))
    main_low = fma(twice, cubic_low, fma(twice_low, cubic, main_low))
    # e ln 2: the high part has 41 bits, so e times it is exact.
    e_high = scale(e, mathlib_f64.LN2_HIGH)
    e_low = scale(e, mathlib_f64.LN2_LOW)
    first, first_low = _two_sum(e_high, twice)
    second, second_low = _two_sum(first, main)
    rest = add(add(first_low, second_low), add(add(twice_low, main_low), e_low))
    high = add(second, rest)
    return high, add(sub(second, high), rest)


def _two_sum(a: Expr, b: Expr) -> tuple[Expr, Expr]:
    """a + b as sum and error, exactly."""
    total = add(a, b)
    back = sub(total, a)
    return total, add(sub(a, sub(total, back)), sub(b, back))
