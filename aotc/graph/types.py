"""Tensor types: element type, dimensions (integers or bounded symbols), and their arithmetic."""

from __future__ import annotations

import enum
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import ml_dtypes
import numpy as np


class DType(enum.Enum):
    """Element types; the value is numpy's name for the type (for those after F64, that of
    ml_dtypes). The types after F64 are *narrow*: a tensor of them is stored as integers of the type
    ``machine``, one element to each, and the machine knows nothing else of them."""

    BOOL = "bool"
    I8 = "int8"
    I16 = "int16"
    I32 = "int32"
    I64 = "int64"
    U8 = "uint8"
    U16 = "uint16"
    U32 = "uint32"
    U64 = "uint64"
    F16 = "float16"
    F32 = "float32"
    F64 = "float64"
    BF16 = "bfloat16"
    F8E4M3FN = "float8_e4m3fn"
    F8E4M3FNUZ = "float8_e4m3fnuz"
    F8E5M2 = "float8_e5m2"
    F8E5M2FNUZ = "float8_e5m2fnuz"
    F8E8M0 = "float8_e8m0fnu"
    F4E2M1 = "float4_e2m1fn"
    I4 = "int4"
    U4 = "uint4"
    I2 = "int2"
    U2 = "uint2"

    @property
    def numpy(self) -> np.dtype:
        return _NUMPY[self]

    @property
    def size_bytes(self) -> int:
        """The memory that one element takes; types of less than a byte take a whole one."""
        return _NUMPY[self].itemsize

    @property
    def size_bits(self) -> int:
        """The bits that mean something: 2 or 4 for types that ONNX packs, else those in memory."""
        return _PACKED_BITS.get(self, 8 * self.size_bytes)

    @property
    def is_float(self) -> bool:
        return self in _FLOATS

    @property
    def is_int(self) -> bool:
        return not self.is_float and self is not DType.BOOL

    @property
    def is_signed(self) -> bool:
        return self in _SIGNED or self.is_float

    @property
    def int_range(self) -> tuple[int, int]:
        """The smallest and the largest value of an integer type, or of bool as a number."""
        bits = 1 if self is DType.BOOL else self.size_bits - self.is_signed
        return (-(1 << bits) if self.is_signed else 0), (1 << bits) - 1

    @property
    def is_narrow(self) -> bool:
        """Whether it is stored as integers and computed with in another type."""
        return self in _MACHINE

    @property
    def machine(self) -> DType:
        """The type that registers and memory hold it in: itself unless it is narrow."""
        return _MACHINE.get(self, self)

    @property
    def arithmetic(self) -> DType:
        """The type that its numbers are computed with in: float32 for shorter floats."""
        return DType.F32 if self.is_float and self.size_bytes < 4 else self.machine

    @classmethod
    def of(cls, array: np.ndarray) -> DType:
        """The element type of a numpy array; ValueError when aotc has no such type."""
        return cls(array.dtype.name)


_MACHINE: Mapping[DType, DType] = MappingProxyType(
    {
        DType.BF16: DType.U16,
        **dict.fromkeys((DType.F8E4M3FN, DType.F8E4M3FNUZ, DType.F8E5M2), DType.U8),
        **dict.fromkeys((DType.F8E5M2FNUZ, DType.F8E8M0, DType.F4E2M1), DType.U8),
        **dict.fromkeys((DType.U4, DType.U2), DType.U8),
        **dict.fromkeys((DType.I4, DType.I2), DType.I8),
    }
)
_NUMPY: Mapping[DType, np.dtype] = MappingProxyType(
    {d: np.dtype(getattr(ml_dtypes, d.value) if d in _MACHINE else d.value) for d in DType}
)
MACHINE_TYPES: tuple[DType, ...] = tuple(d for d in DType if d not in _MACHINE)
"""The types that loop IR and machine code know."""

_PACKED_BITS: Mapping[DType, int] = MappingProxyType(
    {DType.F4E2M1: 4, DType.I4: 4, DType.U4: 4, DType.I2: 2, DType.U2: 2}
)
_SIGNED = frozenset((DType.I8, DType.I16, DType.I32, DType.I64, DType.I4, DType.I2))
_FLOATS = frozenset(dtype for dtype in DType if "float" in dtype.value)


@dataclass(frozen=True, slots=True)
class Symbol:
    """A dimension known by name only; ``bound`` is its largest value, None while not given."""

    name: str
    bound: int | None = None

    def __str__(self) -> str:
        return self.name if self.bound is None else f"{self.name}<={self.bound}"


Dim = int | Symbol


@dataclass(frozen=True, slots=True)
class TensorType:
    """The static description of one tensor."""

    dtype: DType
    shape: tuple[Dim, ...]

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def is_static(self) -> bool:
        return all(isinstance(dim, int) for dim in self.shape)

    @property
    def dims(self) -> tuple[int, ...]:
        """The shape as integers; ValueError names the first symbol that is still unbound."""
        for dim in self.shape:
            if not isinstance(dim, int):
                raise ValueError(f"dimension '{dim}' is not bound")
        return self.shape  # type: ignore[return-value]

    @property
    def elems(self) -> int:
        return math.prod(self.dims)

    @property
    def size_bytes(self) -> int:
        return self.elems * self.dtype.size_bytes

    def __str__(self) -> str:
        return f"{self.dtype.value}[{','.join(str(dim) for dim in self.shape)}]"


@dataclass(frozen=True, slots=True)
class TupleType(TensorType):
    """The type of a control primitive, which has several results. As a tensor it is one opaque
    byte, so that code which only asks for types and sizes needs no case for it."""

    items: tuple[TensorType, ...] = ()

    @classmethod
    def of(cls, items: Sequence[TensorType]) -> TupleType:
        return cls(DType.U8, (), tuple(items))

    def __str__(self) -> str:
        return f"({', '.join(map(str, self.items))})"


def broadcast_dims(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """numpy's broadcast of static shapes; ValueError when they do not fit together."""
    rank = max((len(shape) for shape in shapes), default=0)
    padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
    result = []
    for axis in range(rank):
        sizes = {shape[axis] for shape in padded} - {1}
        if len(sizes) > 1:
            raise ValueError(f"shapes {' and '.join(map(str, shapes))} do not broadcast")
        result.append(sizes.pop() if sizes else 1)
    return tuple(result)
