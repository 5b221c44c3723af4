"""Numbers of float32 stored in 16 bits: expressions of the loop IR that make one of the other."""

from __future__ import annotations

import math

import numpy as np

from aotc.graph.types import DType
from aotc.loop.ir import Bin, Bits, Cmp, Conv, Expr, Lit, Sel, Un

#: The largest finite number of float16.
LARGEST_F16 = 65504.0


def decoded(x: Expr, value: DType) -> Expr:
    """The number of type ``value`` that ``x`` stores: a float16, or the bits of a bfloat16."""
    if x.dtype is DType.F16:
        return Conv(x, value)
    assert x.dtype is DType.U16 and value is DType.F32, x.dtype
    return Bits(Bin("shl", Conv(x, DType.U32), Lit(16, DType.U32)), DType.F32)


def encoded(x: Expr, stored: DType) -> Expr:
    """The float32 ``x`` rounded to nearest even, as float16 or as the bits of a bfloat16 (U16).
    Finite numbers beyond float16 become its largest: so the large ones that stand for minus
    infinity in masks stay finite."""
    if stored is DType.U16:
        return to_bf16(x)
    size = Un("abs", x)
    beyond = Cmp("gt", size, Lit(LARGEST_F16, DType.F32))
    finite = Cmp("lt", size, Lit(math.inf, DType.F32))
    sign = Bin("and", Bits(x, DType.U32), Lit(1 << 31, DType.U32))
    largest = Bin("or", sign, Bits(Lit(LARGEST_F16, DType.F32), DType.U32))
    limited = Sel(Bin("and", beyond, finite), Bits(largest, DType.F32), x)
    return Conv(limited, DType.F16)


def to_bf16(x: Expr) -> Expr:
    """The bits of a float32 rounded to bfloat16, to nearest even; NaN stays NaN."""
    bits = Bits(x, DType.U32)
    odd = Bin("and", Bin("shr", bits, Lit(16, DType.U32)), Lit(1, DType.U32))
    raised = Bin("add", bits, Bin("add", odd, Lit(0x7FFF, DType.U32)))
    quiet = Bin("or", bits, Lit(0x400000, DType.U32))
    chosen = Sel(Cmp("ne", x, x), quiet, raised)
    return Conv(Bin("shr", chosen, Lit(16, DType.U32)), DType.U16)


def numbers_of(stored: np.ndarray, value: DType) -> np.ndarray:
    """What ``decoded`` gives for each element of an array of float16 or uint16."""
    if stored.dtype == np.uint16:
        return (stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return stored.astype(value.numpy)
