"""Element types of the standard, and its rules for which of them go together.

The types are numpy's dtype objects, which traced values have too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from aotc.errors import UsageError
from aotc.numpy.array import Array
from aotc.numpy.eager import checked, operation
from aotc.tracing.core import cast, described, lift
from aotc.tracing.tensor import Tensor

DTYPES: Mapping[str, np.dtype] = MappingProxyType({
    name: np.dtype(name)
    for name in (
        *("bool", "int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64", "float32", "float64"),
    )
})
"""All but the complex types, which aotc has not."""

KINDS: Mapping[str, str] = MappingProxyType({
    "bool": "b",
    "signed integer": "i",
    "unsigned integer": "u",
    "integral": "iu",
    "real floating": "f",
    "complex floating": "c",
    "numeric": "iufc",
})
"""The names of kinds, and numpy's letters for what belongs to each."""

_WORDS = {"b": "bool", "i": "integers", "u": "integers", "f": "floats"}


def kind_of(dtype: np.dtype) -> str:
    """b, i, u or f; bfloat16 and its kin, which numpy does not count as floats, are f too."""
    return "f" if dtype.kind == "V" else dtype.kind


def _together(a: np.dtype, b: np.dtype) -> np.dtype:
    kinds = {kind_of(a), kind_of(b)}
    wrong = len(kinds) > 1 and kinds != {"i", "u"}
    if wrong or (kinds == {"i", "u"} and np.dtype("uint64") in (a, b)):
        raise UsageError(
            f"{a} and {b} have no common type in the standard", remedy="convert one with astype"
        )
    return np.promote_types(a, b)


def _expect_number_fits(value: bool | int | float, dtype: np.dtype) -> None:
    """A Python number must be of the kind of the array that it meets, or of a lesser one."""
    kind = kind_of(dtype)
    allowed = {"b": bool, "i": int, "u": int, "f": int | float}[kind]
    if not isinstance(value, allowed) or (kind != "b" and isinstance(value, bool)):
        raise UsageError(
            f"the number {value!r} does not go with {dtype}", remedy="convert the array with astype"
        )
    if kind in "iu":
        ends = np.iinfo(dtype)
        if not ends.min <= value <= ends.max:
            raise UsageError(f"{value} is outside of {dtype}")


@checked
def result_type(*arrays_and_dtypes: Any) -> np.dtype:
    """The common type of arrays, types and Python numbers, by the table of the standard; UsageError
    for kinds that it does not mix, or without an array or type."""
    numbers = [x for x in arrays_and_dtypes if isinstance(x, bool | int | float)]
    others = [
        x.dtype if isinstance(x, Array | Tensor) else np.dtype(x)
        for x in arrays_and_dtypes
        if not isinstance(x, bool | int | float)
    ]
    if not others:
        raise UsageError("result_type needs an array or a type", remedy="give asarray the numbers")
    common = others[0]
    for each in others[1:]:
        common = _together(common, each)
    for number in numbers:
        _expect_number_fits(number, common)
    return common


@checked
def can_cast(from_: Any, to: Any, /) -> bool:
    """Whether values of a type keep their size in another: no overflow, no loss of a fraction. As
    in numpy, 64-bit integers go into float64."""
    source = from_.dtype if isinstance(from_, Array | Tensor) else np.dtype(from_)
    return bool(np.can_cast(source, np.dtype(to)))


def expect_same_kind(source: Any, target: np.dtype) -> None:
    """UsageError unless values of the type ``source``, or that Python number, may be written into
    an array of ``target``."""
    if isinstance(source, bool | int | float):
        _expect_number_fits(source, target)
    elif _together(source, target) != target:
        raise UsageError(f"{source} does not go into {target}", remedy="convert it with astype")


@checked
def isdtype(dtype: Any, kind: Any) -> bool:
    """Whether ``dtype`` is ``kind``: a type, the name of a kind, or a tuple of these."""
    if isinstance(kind, tuple):
        return any(isdtype(dtype, each) for each in kind)
    if not isinstance(kind, str):
        return bool(np.dtype(dtype) == np.dtype(kind))
    if kind not in KINDS:
        raise UsageError(f"there is no kind '{kind}'", remedy=f"use one of: {', '.join(KINDS)}")
    return kind_of(np.dtype(dtype)) in KINDS[kind]


@dataclass(frozen=True)
class FloatLimits:
    """What `finfo` gives."""

    bits: int
    eps: float
    max: float
    min: float
    smallest_normal: float
    dtype: np.dtype


@dataclass(frozen=True)
class IntegerLimits:
    """What `iinfo` gives."""

    bits: int
    max: int
    min: int
    dtype: np.dtype


@checked
def finfo(type: Any, /) -> FloatLimits:
    """The limits of a float type or of that of an array."""
    dtype = type.dtype if isinstance(type, Array | Tensor) else np.dtype(type)
    if dtype.kind != "f":
        raise UsageError(f"{dtype} is not a float type", remedy="use iinfo for integers")
    ends = np.finfo(dtype)
    eps, high, low = float(ends.eps), float(ends.max), float(ends.min)
    return FloatLimits(ends.bits, eps, high, low, float(ends.smallest_normal), dtype)


@checked
def iinfo(type: Any, /) -> IntegerLimits:
    """The limits of an integer type or of that of an array."""
    dtype = type.dtype if isinstance(type, Array | Tensor) else np.dtype(type)
    if dtype.kind not in "iu":
        raise UsageError(f"{dtype} is not an integer type", remedy="use finfo for floats")
    ends = np.iinfo(dtype)
    return IntegerLimits(ends.bits, int(ends.max), int(ends.min), dtype)


@operation
def _converted(x: Any, dtype: Any) -> Any:
    return cast(lift(x), np.dtype(dtype))


@checked
def astype(x: Any, dtype: Any, /, *, copy: bool = True, device: Any = None) -> Any:
    """``x`` as another type: floats to integers toward zero and within their range, NaN to 0."""
    expect_device(device)
    if not copy and x.dtype == dtype:
        return x
    return _converted(x, dtype)


def expect_device(device: Any) -> None:
    """UsageError unless ``device`` is None or "cpu", the only one."""
    if device not in (None, "cpu"):
        raise UsageError(f"there is no device {described((device,))}", remedy='use "cpu"')


def expect_kinds(name: str, dtype: np.dtype, kinds: str) -> None:
    """UsageError unless ``dtype`` is of one of ``kinds``, numpy's letters."""
    if kind_of(dtype) not in kinds:
        words = " or ".join(dict.fromkeys(_WORDS[kind] for kind in kinds))
        raise UsageError(f"{name} takes {words}, not {dtype}", remedy="convert it with astype")
