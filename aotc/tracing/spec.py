"""What the user says of an argument in, its type out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aotc.graph.types import DType, TensorType
from aotc.tracing.places import misuse


@dataclass(frozen=True)
class Spec:
    """The shape and element type of an argument."""

    shape: tuple[int, ...]
    dtype: DType

    @property
    def type(self) -> TensorType:
        return TensorType(self.dtype, self.shape)


def spec(shape: int | Sequence[int], dtype: Any = "float32") -> Spec:
    """The description of one argument of `trace`: sizes (one integer for a vector, ``()`` for a
    number) and an element type as numpy names it. UsageError when aotc has no such type or a size
    is not an integer of 0 or more.

    >>> str(spec((2, 3), "uint8").type)
    'uint8[2,3]'
    """
    dims = (shape,) if isinstance(shape, int | np.integer) else tuple(shape)
    for dim in dims:
        if not isinstance(dim, int | np.integer) or isinstance(dim, bool) or dim < 0:
            raise misuse(
                f"{dim!r} is not a size", "every size of an argument is an integer of 0 or more"
            )
    return Spec(tuple(int(dim) for dim in dims), element_type(dtype))


def element_type(dtype: Any) -> DType:
    """aotc's name for a numpy dtype; UsageError when it has none."""
    try:
        return DType(np.dtype(dtype).name)
    except (TypeError, ValueError):
        try:
            return DType(dtype)
        except ValueError:
            raise misuse(
                f"aotc has no element type {dtype}", "use bool, an integer type or a float type"
            ) from None


def read_annotation(items: Any) -> Spec:
    """``Tensor[2, 3, "uint8"]``: sizes, then perhaps an element type."""
    parts = list(items) if isinstance(items, tuple) else [items]
    dtype: Any = "float32"
    if parts and not isinstance(parts[-1], int) and parts[-1] != ():
        dtype = parts.pop()
    if () in parts:
        parts = []
    named = [part for part in parts if isinstance(part, str)]
    if named:
        raise misuse(
            f"the size '{named[0]}' has no value",
            "write it as a number, or give the sizes to aotc.trace with aotc.spec",
        )
    return spec(tuple(parts), dtype)


def spec_of(value: Any) -> Spec | None:
    """The type of a Spec, or of an array or number given as an example; None for all else."""
    if isinstance(value, Spec):
        return value
    if isinstance(value, TensorType):
        return spec(value.dims, value.dtype.value)
    if isinstance(value, np.ndarray | np.generic | bool | int | float):
        array = np.asarray(value)
        return spec(array.shape, array.dtype)
    return None
