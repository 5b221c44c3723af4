"""Scalar arithmetic: single rounding of fma, integer division and conversions at their edges."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aotc.graph.types import DType
from aotc.loop import arith

QUICK = settings(max_examples=150, deadline=None)
any_f64 = st.floats(width=64, allow_nan=False, allow_infinity=False)
any_f32 = st.floats(width=32, allow_nan=False, allow_infinity=False)
any_f16 = st.floats(width=16, allow_nan=False, allow_infinity=False)


def one(value, kind):
    return np.array([value], kind)


def exact_fma(a, b, c, kind):
    """a*b + c by rational arithmetic, rounded once to ``kind``."""
    value = Fraction(a) * Fraction(b) + Fraction(c)
    if value == 0:
        return kind(a) * kind(b) + kind(c)
    try:
        wide = float(value)
    except OverflowError:
        return kind(np.inf if value > 0 else -np.inf)
    even = np.float64(wide).view(np.int64) % 2 == 0
    if kind is not np.float64 and Fraction(wide) != value and even:
        # To odd: take the neighbour with an odd last bit on the side of the exact value.
        wide = float(np.nextafter(wide, np.inf if value > Fraction(wide) else -np.inf))
    with np.errstate(all="ignore"):
        return kind(wide)


def assert_fma(a, b, c, kind):
    with np.errstate(all="ignore"):
        want = exact_fma(a, b, c, kind)
    got = arith.fma(one(a, kind), one(b, kind), one(c, kind))[0]
    assert got.dtype == kind
    assert got == want and np.signbit(got) == np.signbit(want), (a, b, c, got, want)


@QUICK
@given(any_f64, any_f64, any_f64)
def test_f64_fma_is_rounded_once(a, b, c):
    assert_fma(a, b, c, np.float64)


@QUICK
@given(any_f64, any_f64, st.integers(-3, 3))
def test_f64_fma_with_cancellation(a, b, ulps):
    with np.errstate(all="ignore"):
        c = -(np.float64(a) * np.float64(b))
    if np.isfinite(c):
        c = float(c + ulps * np.spacing(c))
        if np.isfinite(c):
            assert_fma(a, b, c, np.float64)


@QUICK
@given(any_f32, any_f32, any_f32)
def test_f32_fma_is_rounded_once(a, b, c):
    assert_fma(a, b, c, np.float32)


@pytest.mark.slow
@QUICK
@given(any_f16, any_f16, any_f16)
def test_f16_fma_is_rounded_once(a, b, c):
    assert_fma(a, b, c, np.float16)


def test_f32_fma_where_rounding_through_f64_goes_wrong():
    # 1 + 1.5 * 2^-23 - 2^-70 is just below a tie; f64 drops the last term and the tie goes up.
    ulp = 2.0**-23
    a = np.float32([2.0**-12 * (1 + ulp)])
    b = np.float32([2.0**-12 * (1 - ulp)])
    c = np.float32([1 + ulp])
    assert (a.astype(float) * b + c).astype(np.float32)[0] == np.float32(1 + 2 * ulp)
    assert arith.fma(a, b, c)[0] == c[0]


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_fma_of_special_values(kind):
    inf, nan, big = kind(np.inf), kind(np.nan), np.finfo(kind).max
    assert arith.fma(one(inf, kind), one(1, kind), one(-1, kind))[0] == inf
    assert np.isnan(arith.fma(one(inf, kind), one(0, kind), one(1, kind))[0])
    assert np.isnan(arith.fma(one(inf, kind), one(1, kind), one(-inf, kind))[0])
    assert np.isnan(arith.fma(one(1, kind), one(nan, kind), one(1, kind))[0])
    assert arith.fma(one(big, kind), one(big, kind), one(-inf, kind))[0] == -inf
    assert arith.fma(one(big, kind), one(2, kind), one(-big, kind))[0] == big


def test_min_and_max_let_nan_win_and_give_the_first_of_equals():
    a = np.float32([1, np.nan, 2, 0.0, -0.0])
    b = np.float32([2, 1, np.nan, -0.0, 0.0])
    low, high = arith.binary("min", a, b), arith.binary("max", a, b)
    assert np.array_equal(low, np.float32([1, np.nan, np.nan, 0, 0]), equal_nan=True)
    assert np.array_equal(high, np.float32([2, np.nan, np.nan, 0, 0]), equal_nan=True)
    assert np.signbit(low[3:]).tolist() == [False, True]
    assert np.signbit(high[3:]).tolist() == [False, True]


@pytest.mark.parametrize("kind", [np.int8, np.int64])
def test_integer_division_truncates_and_never_traps(kind):
    low = np.iinfo(kind).min
    a = np.array([7, -7, 7, -7, 5, low, low], kind)
    b = np.array([2, 2, -2, -2, 0, -1, 1], kind)
    assert arith.binary("div", a, b).tolist() == [3, -3, -3, 3, 0, low, low]
    assert arith.binary("mod", a, b).tolist() == [1, 1, -1, -1, 0, 0, 0]


def test_unsigned_division_and_wrapping():
    a, b = np.uint8([200, 7, 9]), np.uint8([3, 0, 255])
    assert arith.binary("div", a, b).tolist() == [66, 0, 0]
    assert arith.binary("add", a, b).tolist() == [203, 7, 8]
    assert arith.fma(a, b, a).tolist() == [(200 * 3 + 200) % 256, 7, (9 * 255 + 9) % 256]


@pytest.mark.parametrize(
    "target, values, want",
    [
        (DType.I8, [1.9, -1.9, 127.5, 128, -128.9, -129, 1e30, np.nan], [1, -1, 127, 127]),
        (DType.U8, [1.9, -0.9, 255.5, 256, -5, np.inf, -np.inf, np.nan], [1, 0, 255, 255]),
    ],
)
def test_float_to_integer_truncates_and_saturates(target, values, want):
    info = np.iinfo(target.numpy)
    rest = [-128, info.min, info.max, 0] if target is DType.I8 else [0, info.max, 0, 0]
    got = arith.convert(np.float32(values), target)
    assert got.dtype == target.numpy and got.tolist() == want + rest


@pytest.mark.parametrize("target", [DType.I64, DType.U64, DType.I32, DType.U32])
def test_wide_integers_saturate_at_their_exact_limits(target):
    info = np.iinfo(target.numpy)
    x = np.float64([2.0**70, -(2.0**70), 2.0**info.bits / 2, np.nan])
    got = arith.convert(x, target).tolist()
    assert got[:2] == [info.max, info.min] and got[3] == 0
    assert got[2] == (info.max if info.min else 2 ** (info.bits - 1))


def test_other_conversions():
    assert arith.convert(np.float32([0, -0.0, np.nan, 2]), DType.BOOL).tolist() == [0, 0, 1, 1]
    assert arith.convert(np.array([True, False]), DType.F32).tolist() == [1.0, 0.0]
    assert arith.convert(np.int64([300, -1]), DType.U8).tolist() == [44, 255]
    assert arith.convert(np.int64([2**53 + 1, 2**24 + 1]), DType.F32).tolist() == [2**53, 2**24]
    assert arith.convert(np.float64([65519.9, 65520]), DType.F16).tolist() == [65504, np.inf]


def test_bits_keep_the_bytes():
    assert arith.reinterpret(np.float32([1.0]), DType.I32).tolist() == [0x3F800000]
    assert arith.reinterpret(np.int64([0x3FF0000000000000]), DType.F64).tolist() == [1.0]


def test_unknown_functions_are_named():
    x = np.float32([1])
    with pytest.raises(ValueError, match="unary function 'cosec'"):
        arith.unary("cosec", x)
    with pytest.raises(ValueError, match="binary function 'mod' on float32"):
        arith.binary("mod", x, x)
    with pytest.raises(ValueError, match="comparison 'about'"):
        arith.compare("about", x, x)
