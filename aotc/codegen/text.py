"""Pieces of LLVM IR text: in go element types and values, out come type names and literals."""

from __future__ import annotations

import struct

import numpy as np

from aotc.graph.types import DType

_REGISTER_TYPES = {
    DType.BOOL: "i1",
    DType.I8: "i8",
    DType.I16: "i16",
    DType.I32: "i32",
    DType.I64: "i64",
    DType.U8: "i8",
    DType.U16: "i16",
    DType.U32: "i32",
    DType.U64: "i64",
    DType.F16: "half",
    DType.F32: "float",
    DType.F64: "double",
}

_SUFFIXES = {"half": "f16", "float": "f32", "double": "f64"}


def type_of(dtype: DType, lanes: int = 0) -> str:
    """The LLVM type of ``dtype`` in a register; ``lanes`` 0 is a scalar. Bools are i1."""
    name = _REGISTER_TYPES[dtype]
    return f"<{lanes} x {name}>" if lanes else name


def memory_type_of(dtype: DType, lanes: int = 0) -> str:
    """The LLVM type of ``dtype`` in memory: as in a register, but a bool is one byte."""
    name = "i8" if dtype is DType.BOOL else _REGISTER_TYPES[dtype]
    return f"<{lanes} x {name}>" if lanes else name


def suffix_of(type_name: str) -> str:
    """The suffix that overloaded intrinsics carry for a type: ``<16 x float>`` gives ``v16f32``."""
    if type_name.startswith("<"):
        lanes, element = type_name[1:-1].split(" x ")
        return f"v{lanes}{suffix_of(element)}"
    return _SUFFIXES.get(type_name, type_name)


def literal(value: float | int, dtype: DType) -> str:
    """The text of a scalar constant; floats are rounded to ``dtype``, integers wrap to it."""
    if dtype is DType.BOOL:
        return "true" if value else "false"
    if dtype is DType.F16:
        return f"0xH{_f16_bits(value):04X}"
    if dtype.is_float:
        # LLVM writes float and double constants alike: the bits of the value as a double.
        with np.errstate(over="ignore"):
            exact = float(dtype.numpy.type(value))
        return f"0x{struct.unpack('<Q', struct.pack('<d', exact))[0]:016X}"
    bits = dtype.size_bytes * 8
    wrapped = int(value) & ((1 << bits) - 1)
    return str(wrapped - (1 << bits) if wrapped >> (bits - 1) else wrapped)


def _f16_bits(value: float | int) -> int:
    with np.errstate(over="ignore"):
        return int(np.array(value, dtype=np.float16).view(np.uint16))


def splat_constant(text: str, scalar_type: str) -> str:
    """A scalar constant in every lane."""
    return f"splat ({scalar_type} {text})"


def byte_string(content: bytes) -> str:
    """An array constant of i8 with ``content``."""
    return 'c"' + "".join(
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\' else f"\\{byte:02X}"
        for byte in content
    ) + '"'


def vector_constant(texts: list[str], scalar_type: str) -> str:
    """A vector constant from the texts of its lanes."""
    return "<" + ", ".join(f"{scalar_type} {text}" for text in texts) + ">"


def prefix_mask(active: int, lanes: int) -> str:
    """The <lanes x i1> constant whose first ``active`` lanes are set."""
    return vector_constant(["true" if lane < active else "false" for lane in range(lanes)], "i1")
