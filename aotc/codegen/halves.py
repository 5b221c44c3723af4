"""float16 to float32 for targets without an instruction for it, where LLVM would call a function
that nobody provides: a value as text in, its float32 as text out."""

from __future__ import annotations

from aotc.codegen.operators import Put, compare, constant, convert, select
from aotc.codegen.text import type_of
from aotc.graph.types import DType

_SPARE = 23 - 10  # bits of the mantissa that float16 does not have
_REBIAS = (127 - 15) << 23


def half_to_single(put: Put, lanes: int, x: str) -> str:
    """The float32 that equals the float16 ``x``, by integer arithmetic; NaN stays NaN."""
    ty = type_of(DType.I32, lanes)

    def bits(value: int) -> str:
        return constant(value, DType.I32, lanes)

    short = put(f"bitcast {type_of(DType.F16, lanes)} {x} to {type_of(DType.U16, lanes)}")
    code = convert(put, DType.U16, DType.I32, lanes, short)
    size = put(f"and {ty} {code}, {bits(0x7FFF)}")
    high = put(f"shl {ty} {size}, {bits(_SPARE)}")
    number = put(f"add {ty} {high}, {bits(_REBIAS)}")
    special = put(f"or {ty} {high}, {bits(0x7F800000)}")
    is_special = compare(put, "ge", DType.I32, lanes, size, bits(0x7C00))
    number = select(put, DType.I32, lanes, is_special, lanes, special, number)
    # below the normal numbers, the code counts steps of 2**-24
    steps = convert(put, DType.I32, DType.F32, lanes, size)
    step = constant(2.0**-24, DType.F32, lanes)
    tiny = put(f"fmul {type_of(DType.F32, lanes)} {steps}, {step}")
    tiny = put(f"bitcast {type_of(DType.F32, lanes)} {tiny} to {ty}")
    is_tiny = compare(put, "lt", DType.I32, lanes, size, bits(0x400))
    number = select(put, DType.I32, lanes, is_tiny, lanes, tiny, number)
    raised = put(f"shl {ty} {code}, {bits(16)}")
    sign = put(f"and {ty} {raised}, {bits(-(1 << 31))}")
    whole = put(f"or {ty} {number}, {sign}")
    return put(f"bitcast {ty} {whole} to {type_of(DType.F32, lanes)}")
