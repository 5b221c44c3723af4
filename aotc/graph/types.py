"""Tensor types: element type, dimensions (integers or bounded symbols), and their arithmetic."""

from __future__ import annotations

import enum
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


class DType(enum.Enum):
    """Element types; the value is numpy's name for the type."""

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

    @property
    def numpy(self) -> np.dtype:
        return np.dtype(self.value)

    @property
    def size_bytes(self) -> int:
        return int(self.numpy.itemsize)

    @property
    def is_float(self) -> bool:
        return self in (DType.F16, DType.F32, DType.F64)

    @property
    def is_int(self) -> bool:
        return not self.is_float and self is not DType.BOOL

    @property
    def is_signed(self) -> bool:
        return self in (DType.I8, DType.I16, DType.I32, DType.I64) or self.is_float

    @classmethod
    def of(cls, array: np.ndarray) -> DType:
        """The element type of a numpy array; ValueError when aotc has no such type."""
        return cls(array.dtype.name)


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
