"""The exact meaning of every scalar operation of the loop IR: numpy arrays in, numpy arrays out,
elementwise.

Shared by the evaluator and by tests. All functions take arrays of one or more dimensions that
broadcast and whose numpy type is that of the operand's DType, and return an array of the result's
type; float operations round once, to nearest even.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from aotc.graph.types import DType


def unary(fn: str, x: np.ndarray) -> np.ndarray:
    """`ir.Un`; ValueError for an unknown ``fn``."""
    with np.errstate(all="ignore"):
        match fn:
            case "neg":
                return _keep(np.negative(x), x)
            case "abs":
                return _keep(np.abs(x), x)
            case "sqrt":
                return _keep(np.sqrt(x), x)
            case "floor":
                return _keep(np.floor(x), x)
            case "ceil":
                return _keep(np.ceil(x), x)
            case "round":
                return _keep(np.rint(x), x)
            case "not":
                return np.asarray(np.logical_not(x))
            case "bitnot":
                return _keep(np.invert(x), x)
            case "tf32":
                return _to_tf32(x)
    raise ValueError(f"unknown unary function '{fn}'")


def _to_tf32(x: np.ndarray) -> np.ndarray:
    """As cvt.rna.tf32.f32: bit 12 and those below it are rounded off the magnitude."""
    raised = (x.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(x), raised.view(np.float32), x)


def binary(fn: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`ir.Bin`; ValueError for an unknown ``fn``.

    Of two equal floats (also -0 and +0) min and max give the first. A shift by the width of the
    type or more leaves 0, or -1 for shr of a negative number.
    """
    is_float = a.dtype.kind == "f"
    with np.errstate(all="ignore"):
        match fn:
            case "add":
                return _keep(np.add(a, b), a)
            case "sub":
                return _keep(np.subtract(a, b), a)
            case "mul":
                return _keep(np.multiply(a, b), a)
            case "div":
                return _keep(np.divide(a, b), a) if is_float else truncating_div(a, b)
            case "min":
                return minimum(a, b) if is_float else _keep(np.minimum(a, b), a)
            case "max":
                return maximum(a, b) if is_float else _keep(np.maximum(a, b), a)
            case "maximum":
                zeros = (a == 0) & (b == 0)
                return _keep(np.where(zeros, np.add(a, b), np.maximum(a, b)), a)
            case "and":
                return _keep(np.bitwise_and(a, b), a)
            case "or":
                return _keep(np.bitwise_or(a, b), a)
            case "xor":
                return _keep(np.bitwise_xor(a, b), a)
            case "shl":
                return _keep(np.left_shift(a, b), a)
            case "shr":
                return _keep(np.right_shift(a, b), a)
            case "mod" if not is_float:
                return flooring_mod(a, b)
    raise ValueError(f"unknown binary function '{fn}' on {a.dtype}")


def compare(fn: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`ir.Cmp`; ValueError for an unknown ``fn``."""
    match fn:
        case "eq":
            return np.asarray(np.equal(a, b))
        case "ne":
            return np.asarray(np.not_equal(a, b))
        case "lt":
            return np.asarray(np.less(a, b))
        case "le":
            return np.asarray(np.less_equal(a, b))
        case "gt":
            return np.asarray(np.greater(a, b))
        case "ge":
            return np.asarray(np.greater_equal(a, b))
    raise ValueError(f"unknown comparison '{fn}'")


def minimum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The float minimum in which NaN wins and the first of two equals (also -0 and +0) is the
    result; with a literal ``b`` that is one instruction on x86."""
    return np.where((b < a) | np.isnan(b), b, a)


def maximum(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The float maximum, as ``minimum``."""
    return np.where((b > a) | np.isnan(b), b, a)


def truncating_div(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Integer division toward zero; by zero it gives 0, and the smallest integer by -1 wraps."""
    safe = np.where(b == 0, np.ones_like(b), b)
    minus_one = safe == -1 if a.dtype.kind == "i" else np.zeros(a.shape, bool)
    safe = np.where(minus_one, np.ones_like(b), safe)
    floor = np.floor_divide(a, safe)
    inexact = (floor * safe != a) & ((a < 0) != (safe < 0))
    quotient = np.where(minus_one, np.negative(a), floor + inexact.astype(a.dtype))
    return _keep(np.where(b == 0, np.zeros_like(a), quotient), a)


def flooring_mod(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Integer remainder with the sign of the divisor; by zero it gives 0."""
    unsafe = (b == 0) | ((b == -1) if a.dtype.kind == "i" else False)
    remainder = np.remainder(a, np.where(unsafe, np.ones_like(b), b))
    return _keep(np.where(unsafe, np.zeros_like(a), remainder), a)


def fma(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """`ir.Fma`: a*b + c rounded once; on integers a*b + c with wrap-around."""
    with np.errstate(all="ignore"):
        if a.dtype.kind != "f":
            return _keep(a * b + c, a)
        if a.dtype == np.float64:
            return _fma_f64(a, b, c)
        return _fma_narrow(a, b, c)


def dot_product(
    a: Sequence[np.ndarray], b: Sequence[np.ndarray], c: np.ndarray
) -> np.ndarray:
    """`ir.DotProduct` of groups whose elements are given one by one."""
    products = (x.astype(np.int32) * y.astype(np.int32) for x, y in zip(a, b, strict=True))
    return _keep(sum(products, start=c), c)


def widened(group: Sequence[np.ndarray]) -> np.ndarray:
    """`ir.Widened` of four bytes."""
    ordered = np.stack([group[t] for t in (0, 2, 1, 3)], axis=-1)
    return ordered.astype("<i2").view("<i8")[..., 0]


def short_products(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """`ir.ShortProducts`."""
    places = np.arange(0, 8 * a.itemsize, 16, dtype=a.dtype)
    parts = ((x[..., None] >> places).astype(np.int16) for x in (a, b))
    first, second = (part.astype(np.int32) for part in parts)
    return _keep(c + (first * second).sum(axis=-1, dtype=np.int32), c)


def quantize(x: np.ndarray, zero: int, low: int, high: int, dtype: DType) -> np.ndarray:
    """`ir.Quantize`."""
    with np.errstate(all="ignore"):
        code = np.clip(np.rint(x) + np.float32(zero), np.float32(low), np.float32(high))
        return np.where(np.isnan(x), 0, code).astype(dtype.numpy)


def convert(x: np.ndarray, dtype: DType) -> np.ndarray:
    """`ir.Conv`."""
    target = dtype.numpy
    with np.errstate(all="ignore"):
        if dtype is DType.BOOL:
            return np.asarray(x != 0)
        if x.dtype.kind != "f" or dtype.is_float:
            return x.astype(target)
        wide = np.trunc(x.astype(np.float64))
        info = np.iinfo(target)
        low, high = float(info.min), float(info.max) + (1.0 if info.bits < 64 else 0.0)
        inside = (wide >= low) & (wide < high)
        result = np.where(inside, wide, 0.0).astype(target)
        result = np.where(wide < low, target.type(info.min), result)
        return np.where(wide >= high, target.type(info.max), result)


def reinterpret(x: np.ndarray, dtype: DType) -> np.ndarray:
    """`ir.Bits`."""
    return np.ascontiguousarray(x).view(dtype.numpy).reshape(x.shape)


def _keep(result: np.ndarray, like: np.ndarray) -> np.ndarray:
    return np.asarray(result).astype(like.dtype, copy=False)


def _two_sum(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Knuth's error-free sum: a + b = s + e exactly."""
    s = a + b
    bb = s - a
    return s, (a - (s - bb)) + (b - bb)


def _sum_to_odd(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a + b in float64 rounded to odd, so that rounding again to a shorter format is right."""
    s, e = _two_sum(a, b)
    even = (s.view(np.int64) & 1) == 0
    towards = np.where(e > 0, np.inf, -np.inf)
    return np.where(np.isfinite(s) & (e != 0) & even, np.nextafter(s, towards), s)


def _fma_narrow(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """For f16 and f32: the product is exact in float64, the sum is rounded to odd and then to
    nearest."""
    product = a.astype(np.float64) * b.astype(np.float64)
    addend = c.astype(np.float64)
    if a.dtype == np.float32:
        # Rounding twice goes wrong only from a float64 halfway between two float32 values.
        total = np.asarray(product + addend)
        halfway = (total.view(np.int64) & 0x1FFFFFFF) == 0x10000000
        denormal = np.abs(total) < 2.0**-126
        if not halfway.any() and not (denormal & (total != 0)).any():
            return total.astype(np.float32)
    return _sum_to_odd(product, addend).astype(a.dtype)


def _fma_f64(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
    """Boldo and Melquiond's algorithm (error-free product and sums, last correction rounded to odd)
    where nothing can overflow or underflow on the way, rational arithmetic elsewhere."""
    a, b, c = np.broadcast_arrays(a, b, c)
    product = a * b
    plain = product + c
    finite = np.isfinite(a) & np.isfinite(b) & np.isfinite(c)
    zero = (a == 0) | (b == 0)
    result = np.where(np.isfinite(a) & np.isfinite(b) & ~np.isfinite(c), c, plain)
    size = np.abs(product)
    safe = (size > 2.0**-900) & (size < 2.0**900) & (np.abs(c) < 2.0**900)
    safe &= (np.abs(a) < 2.0**900) & (np.abs(b) < 2.0**900)
    easy = finite & ~zero & safe
    if easy.any():
        low = _product_error(a, b, product)
        u_high, u_low = _two_sum(c, low)
        t_high, t_low = _two_sum(product, u_high)
        result = np.where(easy, t_high + _sum_to_odd(t_low, u_low), result)
    flat = result.reshape(-1)
    for i in np.flatnonzero(finite & ~zero & ~safe):
        flat[i] = _fma_exact(float(a.flat[i]), float(b.flat[i]), float(c.flat[i]))
    return result


def _product_error(a: np.ndarray, b: np.ndarray, product: np.ndarray) -> np.ndarray:
    """Dekker's a*b - product, exact without overflow or underflow."""

    def split(v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        big = v * 134217729.0
        high = big - (big - v)
        return high, v - high

    a_high, a_low = split(a)
    b_high, b_low = split(b)
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return np.asarray(error)


def _fma_exact(a: float, b: float, c: float) -> float:
    value = Fraction(a) * Fraction(b) + Fraction(c)
    if value == 0:
        return 0.0
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")
