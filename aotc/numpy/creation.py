"""Functions of the standard that make arrays: shapes, numbers and types in, arrays out.

While a function is traced they give Tensors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from aotc.errors import UsageError
from aotc.graph.rules import MAX_ELEMS
from aotc.numpy.array import ArgumentError, Array
from aotc.numpy.eager import checked, operation
from aotc.numpy.types import DTYPES, astype, expect_device, kind_of
from aotc.tracing.core import broadcast, constant, described, lift
from aotc.tracing.scope import is_tracing
from aotc.tracing.spec import element_type
from aotc.tracing.tensor import Tensor, tnp

_FLOAT, _INTEGER = DTYPES["float64"], DTYPES["int64"]


def _made(values: np.ndarray) -> Any:
    return constant(values) if is_tracing() else Array(values)


def _shape(shape: Any) -> tuple[int, ...]:
    sizes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    if not all(isinstance(size, int | np.integer) and size >= 0 for size in sizes):
        given = described((shape,))
        raise ArgumentError(f"{given} is not a shape", remedy="give integers of 0 or more")
    if math.prod(sizes) > MAX_ELEMS:
        raise ArgumentError(f"an array of {sizes} is too large")
    return sizes


def _dtype(dtype: Any, value: Any = 0.0) -> np.dtype:
    """``dtype``, or what the standard makes of a number where None is given."""
    if dtype is not None:
        return element_type(dtype).numpy
    if isinstance(value, bool):
        return DTYPES["bool"]
    return _INTEGER if isinstance(value, int) else _FLOAT


@operation
def _filled(shape: tuple[int, ...], value: Any, dtype: np.dtype) -> Any:
    number = lift(np.asarray(value, dtype)) if not isinstance(value, Tensor) else value
    return broadcast(number.astype(dtype), shape)


@checked
def full(shape: Any, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    """``fill_value`` in each place; without a type that of the number. UsageError when the number
    is beyond the type."""
    expect_device(device)
    kind = fill_value.dtype if isinstance(fill_value, Array | Tensor) else None
    wanted = _dtype(kind if dtype is None else dtype, fill_value)
    try:
        return _filled(_shape(shape), fill_value, wanted)
    except OverflowError:
        raise ArgumentError(f"{described((fill_value,))} is outside of {wanted}") from None


@checked
def zeros(shape: Any, *, dtype: Any = None, device: Any = None) -> Any:
    return full(shape, 0, dtype=_dtype(dtype), device=device)


@checked
def ones(shape: Any, *, dtype: Any = None, device: Any = None) -> Any:
    return full(shape, 1, dtype=_dtype(dtype), device=device)


@checked
def empty(shape: Any, *, dtype: Any = None, device: Any = None) -> Any:
    """Zeros: nothing is ever left to chance."""
    return zeros(shape, dtype=dtype, device=device)


@checked
def full_like(x: Any, /, fill_value: Any, *, dtype: Any = None, device: Any = None) -> Any:
    return full(x.shape, fill_value, dtype=x.dtype if dtype is None else dtype, device=device)


@checked
def zeros_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Any:
    return full_like(x, 0, dtype=dtype, device=device)


@checked
def ones_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Any:
    return full_like(x, 1, dtype=dtype, device=device)


@checked
def empty_like(x: Any, /, *, dtype: Any = None, device: Any = None) -> Any:
    return full_like(x, 0, dtype=dtype, device=device)


@checked
def eye(
    n_rows: int,
    n_cols: int | None = None,
    /,
    *,
    k: int = 0,
    dtype: Any = None,
    device: Any = None,
) -> Any:
    """Ones on the ``k``-th diagonal."""
    expect_device(device)
    rows, columns = _shape((n_rows, n_rows if n_cols is None else n_cols))
    # a diagonal farther away is as empty as the first one outside
    place = min(max(k, -rows), columns)
    return _made(np.eye(rows, columns, place, _dtype(dtype)))


@checked
def arange(
    start: float,
    /,
    stop: float | None = None,
    step: float = 1,
    *,
    dtype: Any = None,
    device: Any = None,
) -> Any:
    """``start``, ``start + step``, ... up to ``stop``, which is not among them."""
    expect_device(device)
    first, last = (0, start) if stop is None else (start, stop)
    if not all(isinstance(each, int | float) for each in (first, last, step)) or step == 0:
        given = described((first, last, step))
        raise ArgumentError(f"arange takes numbers, the step not 0: {given}")
    whole = [each for each in (first, last, step) if isinstance(each, int)]
    wanted = _dtype(dtype, 0 if len(whole) == 3 else 0.0)
    try:
        if len(whole) == 3:
            values = np.array(range(*whole), dtype=wanted)
        else:
            values = np.arange(first, last, step).astype(wanted)
    except (OverflowError, ValueError, MemoryError):
        raise ArgumentError(f"the numbers of this arange do not fit {wanted}") from None
    return _made(values)


@checked
def linspace(
    start: float,
    stop: float,
    /,
    num: int,
    *,
    dtype: Any = None,
    device: Any = None,
    endpoint: bool = True,
) -> Any:
    """``num`` numbers at one distance, ``stop`` the last of them if ``endpoint``."""
    expect_device(device)
    (count,) = _shape((num,))
    with np.errstate(all="ignore"):
        values = np.linspace(start, stop, count, endpoint=endpoint, dtype=_dtype(dtype))
    return _made(values)


@checked
def asarray(
    obj: Any, /, *, dtype: Any = None, device: Any = None, copy: bool | None = None
) -> Any:
    """An array of numbers, nested sequences of them, another array or a buffer. UsageError for
    element types that aotc has not, for numbers beyond ``dtype``, and when ``copy`` is False where
    one is needed."""
    expect_device(device)
    if isinstance(obj, Tensor):
        return obj if dtype is None else obj.astype(dtype)
    if isinstance(obj, Array) and (dtype is None or obj.dtype == dtype):
        if copy:
            return Array(obj.values.copy())
        return constant(obj.values) if is_tracing() else obj
    if copy is False and not (isinstance(obj, np.ndarray) and dtype in (None, obj.dtype)):
        raise ArgumentError(f"asarray has to copy {type(obj).__name__}", remedy="leave copy out")
    if isinstance(obj, Array):
        return astype(obj, dtype)
    return _made(_read(obj, dtype, copy))


def _read(obj: Any, dtype: Any, copy: bool | None) -> np.ndarray:
    if isinstance(obj, list | tuple):
        obj = _plain(obj)
    try:
        values = np.array(obj, copy=copy, dtype=None if dtype is None else _dtype(dtype))
    except OverflowError as error:
        raise ArgumentError(str(error)) from None
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"asarray cannot read this: {error}") from None
    if dtype is None and not isinstance(obj, np.ndarray | np.generic) and not values.size:
        values = values.astype(_FLOAT)
    element_type(values.dtype)
    return values


def _plain(items: Sequence[Any]) -> list[Any]:
    """Nested sequences with the numbers of the arrays in them."""
    if any(isinstance(item, Tensor) for item in items):
        raise UsageError("asarray of traced values", remedy="join them with stack")
    return [
        _plain(item) if isinstance(item, list | tuple)
        else item.values if isinstance(item, Array) else item
        for item in items
    ]  # fmt: skip


@checked
def from_dlpack(x: Any, /, *, device: Any = None, copy: bool | None = None) -> Any:
    """An array of another library, by the DLPack protocol."""
    expect_device(device)
    try:
        values = np.from_dlpack(x, copy=copy)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise ArgumentError(f"from_dlpack: {error}") from None
    element_type(values.dtype)
    return _made(values)


@operation
def meshgrid(*arrays: Any, indexing: str = "xy") -> tuple[Any, ...]:
    """Coordinates for each place of a grid; the vectors are of one element type."""
    if indexing not in ("xy", "ij"):
        raise ArgumentError(f"there is no indexing {described((indexing,))}", remedy="use xy or ij")
    values = [lift(x) for x in arrays]
    if len({kind_of(x.dtype) for x in values}) > 1:
        raise ArgumentError("meshgrid takes arrays of one type")
    return tuple(tnp.meshgrid(*values, indexing=indexing)) if values else ()


@operation
def tril(x: Any, /, *, k: int = 0) -> Any:
    """The lower triangles of matrices, zeros above the ``k``-th diagonal."""
    return tnp.tril(_matrices("tril", x), _near(k, x))


@operation
def triu(x: Any, /, *, k: int = 0) -> Any:
    """The upper triangles of matrices, zeros below the ``k``-th diagonal."""
    return tnp.triu(_matrices("triu", x), _near(k, x))


def _matrices(name: str, x: Any) -> Tensor:
    value = lift(x)
    if value.ndim < 2:
        raise ArgumentError(f"{name} takes matrices, not {value.type}")
    return value


def _near(k: int, x: Tensor) -> int:
    """A diagonal far outside is as good as the first one outside."""
    rows, columns = x.shape[-2:]
    return min(max(k, -rows - 1), columns + 1)
