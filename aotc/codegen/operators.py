"""Operators as LLVM instructions: in go operand texts and element types, out comes a result text.

Every function takes ``put``, which appends ``%name = <instruction>`` and returns ``%name``, and
``lanes`` (0 for scalars); the same sequence serves scalars and vectors. Nothing here may become a
library call on x86-64-v3 or aarch64, and each result has the same bits on every target:

* ``max(a, b)`` is ``b > a or isnan(b) ? b : a`` and ``min(a, b)`` is ``b < a or isnan(b) ? b : a``:
  NaN if either is NaN, and the first operand when both are equal, so of two zeros the first. With a
  literal as second operand that is one or two instructions on x86.
* f16 arithmetic is rounded after every operation, once, also Fma.
* Shifts by the width or more give 0 (or the sign, for a signed right shift).
* Integer division and mod by zero give 0; the smallest integer divided by -1 is itself.
"""

from __future__ import annotations

from collections.abc import Callable

from aotc.codegen.text import literal, splat_constant, suffix_of, type_of, vector_constant
from aotc.errors import VerifyError
from aotc.graph.types import DType

Put = Callable[[str], str]

_ROUNDINGS = {"sqrt": "sqrt", "floor": "floor", "ceil": "ceil", "round": "roundeven"}
_FLOAT_ARITHMETIC = {"add": "fadd", "sub": "fsub", "mul": "fmul", "div": "fdiv"}
_PLAIN_INTEGER = {"add", "sub", "mul", "and", "or", "xor"}
_FLOAT_COMPARE = {"eq": "oeq", "ne": "une", "lt": "olt", "le": "ole", "gt": "ogt", "ge": "oge"}


def constant(value: float | int, dtype: DType, lanes: int) -> str:
    """A constant of ``dtype``, in every lane when ``lanes`` is not 0."""
    text = literal(value, dtype)
    return splat_constant(text, type_of(dtype)) if lanes else text


def intrinsic(put: Put, name: str, ty: str, *args: str, extra: str = "") -> str:
    """A call of the overloaded intrinsic ``llvm.<name>`` on operands of type ``ty``."""
    operands = ", ".join(f"{ty} {arg}" for arg in args)
    return put(f"call {ty} @llvm.{name}.{suffix_of(ty)}({operands}{extra})")


def unary(
    put: Put, fn: str, dtype: DType, lanes: int, x: str, rounding_bits: int = 64
) -> str:
    """``Un``: neg abs sqrt floor ceil round not bitnot. Floats of more than ``rounding_bits`` are
    rounded by arithmetic, because their instruction would be a call of a library."""
    ty = type_of(dtype, lanes)
    if fn in ("not", "bitnot"):
        ones = 1 if dtype is DType.BOOL else -1
        return put(f"xor {ty} {x}, {constant(ones, dtype, lanes)}")
    if dtype.is_float:
        if fn == "neg":
            return put(f"fneg {ty} {x}")
        if fn in ("floor", "ceil", "round") and dtype.size_bits > rounding_bits:
            return _rounded(put, fn, dtype, lanes, x)
        name = "fabs" if fn == "abs" else _ROUNDINGS.get(fn)
        if name:
            return intrinsic(put, name, ty, x)
    elif fn == "neg":
        return put(f"sub {ty} {constant(0, dtype, lanes)}, {x}")
    elif fn == "abs":
        return intrinsic(put, "abs", ty, x, extra=", i1 false") if dtype.is_signed else x
    elif fn in ("floor", "ceil", "round"):
        return x
    raise VerifyError(f"no unary operator '{fn}' on {dtype.value}")


def _rounded(put: Put, fn: str, dtype: DType, lanes: int, x: str) -> str:
    """``x`` rounded by adding a number so large that the last bit of the sum stands for 1; what is
    as large itself is an integer, or no number."""
    if dtype is DType.F16:
        wide = convert(put, DType.F16, DType.F32, lanes, x)
        return convert(put, DType.F32, dtype, lanes, _rounded(put, fn, DType.F32, lanes, wide))
    ty, flags = type_of(dtype, lanes), type_of(DType.BOOL, lanes)
    large = constant(2.0**23 if dtype is DType.F32 else 2.0**52, dtype, lanes)
    size = intrinsic(put, "fabs", ty, x)
    raised = put(f"fadd {ty} {size}, {large}")
    whole = intrinsic(put, "copysign", ty, put(f"fsub {ty} {raised}, {large}"), x)
    if fn != "round":
        beyond, step = ("ogt", -1.0) if fn == "floor" else ("olt", 1.0)
        wrong = put(f"fcmp {beyond} {ty} {whole}, {x}")
        stepped = put(f"fadd {ty} {whole}, {constant(step, dtype, lanes)}")
        whole = put(f"select {flags} {wrong}, {ty} {stepped}, {ty} {whole}")
        whole = intrinsic(put, "copysign", ty, whole, x)  # -0 above -1
    is_small = put(f"fcmp olt {ty} {size}, {large}")
    return put(f"select {flags} {is_small}, {ty} {whole}, {ty} {x}")


def binary(
    put: Put, fn: str, dtype: DType, lanes: int, a: str, b: str, b_is_number: bool = False
) -> str:
    """``Bin`` on any values of ``dtype``; with ``b_is_number`` ``b`` is known not to be NaN."""
    ty = type_of(dtype, lanes)
    if dtype.is_float:
        if fn in _FLOAT_ARITHMETIC:
            return put(f"{_FLOAT_ARITHMETIC[fn]} {ty} {a}, {b}")
        if fn in ("min", "max"):
            return _float_extreme(put, fn, dtype, lanes, a, b, b_is_number)
    elif dtype is DType.BOOL:
        fn = {"min": "and", "max": "or"}.get(fn, fn)
        if fn in ("and", "or", "xor"):
            return put(f"{fn} {ty} {a}, {b}")
    elif fn in _PLAIN_INTEGER:
        return put(f"{fn} {ty} {a}, {b}")
    elif fn in ("min", "max"):
        return intrinsic(put, f"{'s' if dtype.is_signed else 'u'}{fn}", ty, a, b)
    elif fn in ("shl", "shr"):
        return _shift(put, fn, dtype, lanes, a, b)
    elif fn in ("div", "mod"):
        return _integer_division(put, fn, dtype, lanes, a, b)
    raise VerifyError(f"no binary operator '{fn}' on {dtype.value}")


def _float_extreme(
    put: Put, fn: str, dtype: DType, lanes: int, a: str, b: str, b_is_number: bool
) -> str:
    ty, flags = type_of(dtype, lanes), type_of(DType.BOOL, lanes)
    relation = "olt" if fn == "min" else "ogt"
    better = put(f"fcmp {relation} {ty} {b}, {a}")
    # x86's minps/maxps give the second operand when either is NaN: this select is one instruction.
    chosen = put(f"select {flags} {better}, {ty} {b}, {ty} {a}")
    if b_is_number:
        return chosen
    unordered = put(f"fcmp uno {ty} {b}, {b}")
    return put(f"select {flags} {unordered}, {ty} {b}, {ty} {chosen}")


def _shift(put: Put, fn: str, dtype: DType, lanes: int, a: str, b: str) -> str:
    ty, flags = type_of(dtype, lanes), type_of(DType.BOOL, lanes)
    bits = dtype.size_bytes * 8
    if fn == "shr" and dtype.is_signed:
        amount = intrinsic(put, "umin", ty, b, constant(bits - 1, dtype, lanes))
        return put(f"ashr {ty} {a}, {amount}")
    small = put(f"icmp ult {ty} {b}, {constant(bits, dtype, lanes)}")
    zero = constant(0, dtype, lanes)
    amount = put(f"select {flags} {small}, {ty} {b}, {ty} {zero}")
    shifted = put(f"{'shl' if fn == 'shl' else 'lshr'} {ty} {a}, {amount}")
    return put(f"select {flags} {small}, {ty} {shifted}, {ty} {zero}")


def _integer_division(put: Put, fn: str, dtype: DType, lanes: int, a: str, b: str) -> str:
    ty, flags = type_of(dtype, lanes), type_of(DType.BOOL, lanes)
    zero, one = constant(0, dtype, lanes), constant(1, dtype, lanes)
    is_zero = put(f"icmp eq {ty} {b}, {zero}")
    divisor = put(f"select {flags} {is_zero}, {ty} {one}, {ty} {b}")
    if not dtype.is_signed:
        if fn == "mod":
            return put(f"urem {ty} {a}, {divisor}")
        quotient = put(f"udiv {ty} {a}, {divisor}")
        return put(f"select {flags} {is_zero}, {ty} {zero}, {ty} {quotient}")
    is_minus_one = put(f"icmp eq {ty} {b}, {constant(-1, dtype, lanes)}")
    divisor = put(f"select {flags} {is_minus_one}, {ty} {one}, {ty} {divisor}")
    if fn == "div":
        quotient = put(f"sdiv {ty} {a}, {divisor}")
        negated = put(f"sub {ty} {zero}, {a}")
        signed = put(f"select {flags} {is_minus_one}, {ty} {negated}, {ty} {quotient}")
        return put(f"select {flags} {is_zero}, {ty} {zero}, {ty} {signed}")
    remainder = put(f"srem {ty} {a}, {divisor}")
    signs = put(f"xor {ty} {remainder}, {b}")
    differs = put(f"icmp slt {ty} {signs}, {zero}")
    nonzero = put(f"icmp ne {ty} {remainder}, {zero}")
    wrong = put(f"and {flags} {differs}, {nonzero}")
    correction = put(f"select {flags} {wrong}, {ty} {b}, {ty} {zero}")
    return put(f"add {ty} {remainder}, {correction}")


def compare(put: Put, fn: str, dtype: DType, lanes: int, a: str, b: str) -> str:
    """``Cmp`` of two values of ``dtype``; the result is i1."""
    ty = type_of(dtype, lanes)
    if dtype.is_float:
        return put(f"fcmp {_FLOAT_COMPARE[fn]} {ty} {a}, {b}")
    sign = "" if fn in ("eq", "ne") else "s" if dtype.is_signed else "u"
    return put(f"icmp {sign}{fn} {ty} {a}, {b}")


def fused_multiply_add(put: Put, dtype: DType, lanes: int, a: str, b: str, c: str) -> str:
    """``Fma``: rounded once; on integers a multiplication and an addition that wrap."""
    ty = type_of(dtype, lanes)
    if not dtype.is_float:
        product = put(f"mul {ty} {a}, {b}")
        return put(f"add {ty} {product}, {c}")
    if dtype is not DType.F16:
        return intrinsic(put, "fma", ty, a, b, c)
    # In f64 the product is exact, and so is the sum, unless c is so large that it is the result.
    wide = [convert(put, DType.F16, DType.F64, lanes, x) for x in (a, b, c)]
    total = intrinsic(put, "fma", type_of(DType.F64, lanes), *wide)
    return convert(put, DType.F64, DType.F16, lanes, total)


def select(put: Put, dtype: DType, lanes: int, cond: str, cond_lanes: int, a: str, b: str) -> str:
    """``Sel``; the condition may be one i1 for all lanes."""
    ty = type_of(dtype, lanes)
    return put(f"select {type_of(DType.BOOL, cond_lanes)} {cond}, {ty} {a}, {ty} {b}")


def bitcast(put: Put, source: DType, dtype: DType, lanes: int, x: str) -> str:
    """``Bits``: the same bits as another type of the same size."""
    if type_of(source) == type_of(dtype):
        return x
    return put(f"bitcast {type_of(source, lanes)} {x} to {type_of(dtype, lanes)}")


def convert(
    put: Put, source: DType, dtype: DType, lanes: int, x: str, saturates: bool = True
) -> str:
    """``Conv``: numeric conversion, float to integer saturating, to bool ``!= 0``. ``saturates``
    says that the target has an instruction that saturates vectors of floats."""
    if source is dtype:
        return x
    ty, result = type_of(source, lanes), type_of(dtype, lanes)
    if dtype is DType.BOOL:
        test = "fcmp une" if source.is_float else "icmp ne"
        return put(f"{test} {ty} {x}, {constant(0, source, lanes)}")
    if source.is_float and dtype.is_float:
        return _convert_float(put, source, dtype, lanes, x)
    if source.is_float:
        if lanes == 2 and source is DType.F32 and dtype.size_bytes <= 4:
            # LLVM converts by way of int64 on processors whose vectors have no two lanes of 32 bits
            four = convert(put, source, dtype, 4, resized(put, source, 2, 4, x), saturates)
            return resized(put, dtype, 4, 2, four)
        if source is DType.F16:
            x, ty = convert(put, source, DType.F32, lanes, x), type_of(DType.F32, lanes)
        if lanes and (dtype.size_bytes < 4 or not saturates):
            wide = DType.F64 if source is DType.F64 else DType.F32
            return _convert_held(put, wide, dtype, lanes, x)
        sign = "si" if dtype.is_signed else "ui"
        name = f"fpto{sign}.sat.{suffix_of(result)}.{suffix_of(ty)}"
        return put(f"call {result} @llvm.{name}({ty} {x})")
    if dtype.is_float:
        instruction = "sitofp" if source.is_signed else "uitofp"
        if dtype is DType.F16:  # exact below 2**24, and above 2**16 the f16 is infinite anyway
            single = put(f"{instruction} {ty} {x} to {type_of(DType.F32, lanes)}")
            return convert(put, DType.F32, DType.F16, lanes, single)
        return put(f"{instruction} {ty} {x} to {result}")
    if source is DType.BOOL or source.size_bytes < dtype.size_bytes:
        extension = "sext" if source.is_signed else "zext"
        return put(f"{extension} {ty} {x} to {result}")
    if source.size_bytes > dtype.size_bytes:
        return put(f"trunc {ty} {x} to {result}")
    return x


def resized(put: Put, dtype: DType, lanes: int, count: int, x: str) -> str:
    """The first ``count`` lanes of ``x``; those that it does not have hold anything."""
    places = [str(lane) if lane < lanes else "poison" for lane in range(count)]
    ty, mask = type_of(dtype, lanes), vector_constant(places, "i32")
    return put(f"shufflevector {ty} {x}, {ty} poison, <{count} x i32> {mask}")


def _convert_held(put: Put, source: DType, dtype: DType, lanes: int, x: str) -> str:
    """Vectors of floats to integers, held to the ends of their range as floats and then converted,
    those of 1 or 2 bytes by way of int32. LLVM saturates lane by lane where no instruction does."""
    ty, flags = type_of(source, lanes), type_of(DType.BOOL, lanes)
    work = dtype if dtype.size_bytes >= 4 else DType.I32
    zero, (low, high) = constant(0.0, source, lanes), dtype.int_range
    number = put(f"fcmp ord {ty} {x}, {zero}")
    held = put(f"select {flags} {number}, {ty} {x}, {ty} {zero}")
    inside = put(f"fcmp ogt {ty} {held}, {constant(float(low), source, lanes)}")
    held = put(f"select {flags} {inside}, {ty} {held}, {ty} {constant(float(low), source, lanes)}")
    # the largest integer may lie between floats: what reaches the power of two above is set apart
    end = constant(float(high + 1), source, lanes)
    inside = put(f"fcmp olt {ty} {held}, {end}")
    held = put(f"select {flags} {inside}, {ty} {held}, {ty} {zero}")
    wide = type_of(work, lanes)
    whole = put(f"{'fptosi' if work.is_signed else 'fptoui'} {ty} {held} to {wide}")
    whole = put(f"select {flags} {inside}, {wide} {whole}, {wide} {constant(high, work, lanes)}")
    return put(f"trunc {wide} {whole} to {type_of(dtype, lanes)}") if work is not dtype else whole


def _convert_float(put: Put, source: DType, dtype: DType, lanes: int, x: str) -> str:
    ty, result = type_of(source, lanes), type_of(dtype, lanes)
    if dtype.size_bytes > source.size_bytes:
        return put(f"fpext {ty} {x} to {result}")
    if source is DType.F64 and dtype is DType.F16:
        # Processors have no such instruction, and rounding twice is wrong. So round to f32 "to odd"
        # (an inexact result gets an odd last bit), after which rounding to f16 is correct.
        bits_type = type_of(DType.U64, lanes)
        bits = put(f"bitcast {ty} {x} to {bits_type}")
        dropped = put(f"and {bits_type} {bits}, {constant((1 << 29) - 1, DType.U64, lanes)}")
        carry = put(f"add {bits_type} {dropped}, {constant((1 << 29) - 1, DType.U64, lanes)}")
        merged = put(f"or {bits_type} {bits}, {carry}")
        odd = put(f"and {bits_type} {merged}, {constant(-(1 << 29), DType.U64, lanes)}")
        exact = put(f"bitcast {bits_type} {odd} to {ty}")
        single = put(f"fptrunc {ty} {exact} to {type_of(DType.F32, lanes)}")
        return put(f"fptrunc {type_of(DType.F32, lanes)} {single} to {result}")
    return put(f"fptrunc {ty} {x} to {result}")
