"""Quantisation as instructions: in goes a float32 as text, out come codes of 8 or 16 bits.

The same sequence serves scalars and vectors, but for Arm's microcontrollers, where comparing floats
is slow and one instruction each rounds, and limits to the range of a type, also in vectors (MVE).
"""

from __future__ import annotations

import struct

from aotc.codegen.operators import Put, compare, constant, convert, intrinsic, select
from aotc.codegen.text import type_of
from aotc.graph.types import DType
from aotc.loop.ir import Quantize
from aotc.target import DotProducts, Target

#: Added to a float32 below 2**22 in size, it leaves the nearest integer (the even one of two) in
#: the low bits of the sum: there the last bit stands for 1.
ROUNDER = 1.5 * 2**23


def quantize(put: Put, expr: Quantize, target: Target, lanes: int, x: str) -> str:
    """The codes of ``x`` (see `ir.Quantize`)."""
    if rounds_by_addition(target, lanes):
        code = _by_addition(put, expr, lanes, x)
    elif lanes:
        code = _narrowed(put, expr, x)
    else:
        code = _saturated(put, expr, x)
    if expr.is_number:
        return code
    number = compare(put, "eq", DType.F32, lanes, x, x)
    none = constant(0, expr.dtype, lanes)
    return select(put, expr.dtype, lanes, number, lanes, code, none)


def rounds_by_addition(target: Target, lanes: int) -> bool:
    """Whether a number is rounded and limited as a float, not by instructions for integers."""
    style = target.dot_products
    if not lanes:
        return style not in (DotProducts.SMLAD, DotProducts.MVE)
    return (style, lanes) != (DotProducts.MVE, 4)


def quantized_number(put: Put, expr: Quantize, lanes: int, x: str) -> str:
    """The codes of ``x``, which is a number, as float32: they need not become codes for that."""
    raised = _raised(put, expr, lanes, x)
    offset = constant(ROUNDER - expr.zero, DType.F32, lanes)
    return put(f"fsub {type_of(DType.F32, lanes)} {raised}, {offset}")


def _raised(put: Put, expr: Quantize, lanes: int, x: str) -> str:
    """``x``, limited first, so that the rounding is one addition, plus the rounder."""
    ty, flags = type_of(DType.F32, lanes), type_of(DType.BOOL, lanes)
    for beyond, limit in (("olt", expr.low), ("ogt", expr.high)):
        number = constant(float(limit - expr.zero), DType.F32, lanes)
        outside = put(f"fcmp {beyond} {ty} {x}, {number}")
        x = put(f"select {flags} {outside}, {ty} {number}, {ty} {x}")
    return put(f"fadd {ty} {x}, {constant(ROUNDER, DType.F32, lanes)}")


def _by_addition(put: Put, expr: Quantize, lanes: int, x: str) -> str:
    ty, words = type_of(DType.F32, lanes), type_of(DType.I32, lanes)
    raised = _raised(put, expr, lanes, x)
    bits = put(f"bitcast {ty} {raised} to {words}")
    (rounder,) = struct.unpack("<i", struct.pack("<f", ROUNDER))
    code = put(f"sub {words} {bits}, {constant(rounder - expr.zero, DType.I32, lanes)}")
    return convert(put, DType.I32, expr.dtype, lanes, code)


def _saturated(put: Put, expr: Quantize, x: str) -> str:
    """The conversion rounds and saturates; sum and limit do so as well."""
    code = put(f"bitcast float {put(f'call float @llvm.arm.vcvtr.f32(float {x})')} to i32")
    if expr.zero:
        code = put(f"call i32 @llvm.arm.qadd(i32 {code}, i32 {expr.zero})")
    if (expr.low, expr.high) == expr.dtype.int_range:
        kind, bits = ("ssat" if expr.dtype.is_signed else "usat"), expr.dtype.size_bits
        code = put(f"call i32 @llvm.arm.{kind}(i32 {code}, i32 {bits})")
    else:
        code = intrinsic(put, "smax", "i32", code, str(expr.low))
        code = intrinsic(put, "smin", "i32", code, str(expr.high))
    return convert(put, DType.I32, expr.dtype, 0, code)

def _narrowed(put: Put, expr: Quantize, x: str) -> str:
    """As `_saturated`, in four lanes: narrower numbers take the low half of each lane."""
    words = "<4 x i32>"
    code = put(f"call {words} @llvm.arm.mve.vcvtn.v4i32.v4f32(i32 0, <4 x float> {x})")
    if expr.zero:
        code = intrinsic(put, "sadd.sat", words, code, constant(expr.zero, DType.I32, 4))
    if (expr.low, expr.high) != expr.dtype.int_range:
        code = intrinsic(put, "smax", words, code, constant(expr.low, DType.I32, 4))
        code = intrinsic(put, "smin", words, code, constant(expr.high, DType.I32, 4))
        return convert(put, DType.I32, expr.dtype, 4, code)
    wide, lanes = words, 4
    for bits in (16, 8)[: 16 // expr.dtype.size_bits]:
        lanes *= 2
        narrow = f"<{lanes} x i{bits}>"
        same = put(f"bitcast {wide} {code} to {narrow}")
        unsigned = int(bits == expr.dtype.size_bits and not expr.dtype.is_signed)
        name = f"llvm.arm.mve.vqmovn.v{lanes}i{bits}.v{lanes // 2}i{2 * bits}"
        flags = f"i32 {unsigned}, i32 0, i32 0"  # of a signed number, to the low half
        code = put(f"call {narrow} @{name}({narrow} {same}, {wide} {code}, {flags})")
        wide = narrow
    code = put(f"bitcast {wide} {code} to {words}")
    return convert(put, DType.I32, expr.dtype, 4, code)
