"""The array object of the standard, with numbers: operators in, results that are computed at once.

It has what the standard gives an array and no more. numpy's own functions work on it as they do on
traced values.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from aotc.errors import AotcError, UsageError
from aotc.tracing.core import lift
from aotc.tracing.indexing import pick, updated
from aotc.tracing.tensor import Tensor


class ArgumentError(UsageError, TypeError, ValueError, IndexError):
    """An argument that does not fit; to Python also what it would raise itself for a wrong type, a
    wrong value or a key outside of a sequence."""


@contextmanager
def clear_errors(name: str) -> Iterator[None]:
    """An ArgumentError instead of what Python and numpy raise inside for arguments of ``name`` that
    they cannot work with, or that do not fit into memory."""
    try:
        yield
    except AotcError:
        raise
    except (AttributeError, IndexError, MemoryError, OverflowError, TypeError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ArgumentError(f"{name}: {text or type(error).__name__}") from None


def _space() -> Any:
    """The namespace, which imports this module."""
    return importlib.import_module("aotc.numpy")


def _types() -> Any:
    return importlib.import_module("aotc.numpy.types")


def _run(function: Callable[..., Any], *inputs: Any) -> Any:
    with clear_errors("this array"):
        return importlib.import_module("aotc.numpy.eager").run(function, inputs, {})


def _forward(name: str) -> Callable[[Array, Any], Any]:
    def method(self: Array, other: Any, /) -> Any:
        if not isinstance(other, Array | Tensor | bool | int | float):
            return NotImplemented
        return getattr(_space(), name)(self, other)

    return method


def _reflected(name: str) -> Callable[[Array, Any], Any]:
    def method(self: Array, other: Any, /) -> Any:
        if not isinstance(other, Array | Tensor | bool | int | float):
            return NotImplemented
        return getattr(_space(), name)(other, self)

    return method


def _in_place(name: str) -> Callable[[Array, Any], Any]:
    def method(self: Array, other: Any, /) -> Any:
        if not isinstance(other, Array | bool | int | float):
            return NotImplemented
        result = getattr(_space(), name)(self, other)
        if isinstance(result, Tensor):  # while a function is traced, as for traced values
            return result
        if result.shape != self.shape or result.dtype != self.dtype:
            raise UsageError(
                f"{result.dtype}{list(result.shape)} does not go into {self.dtype}"
                f"{list(self.shape)} in place"
            )
        self.values = result.values
        return self

    return method


def _alone(name: str) -> Callable[[Array], Any]:
    def method(self: Array, /) -> Any:
        return getattr(_space(), name)(self)

    return method


class Array:
    """Numbers of one element type in a shape. ``aotc.numpy.asarray`` makes one; ``values`` are the
    numbers as a numpy array of its own."""

    __slots__ = ("values",)
    __hash__ = None  # type: ignore[assignment]
    __array_priority__ = 900

    def __init__(self, values: np.ndarray) -> None:
        self.values = values

    # Attributes.

    @property
    def dtype(self) -> np.dtype:
        return self.values.dtype

    @property
    def device(self) -> str:
        return "cpu"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def ndim(self) -> int:
        return self.values.ndim

    @property
    def size(self) -> int:
        return self.values.size

    @property
    def T(self) -> Any:
        """The transpose of a matrix; UsageError for other ranks."""
        if self.ndim != 2:
            raise UsageError(f"T is for matrices, this has {self.ndim} axes", remedy="use mT")
        return self.mT

    @property
    def mT(self) -> Any:
        """The last two axes exchanged."""
        return _space().matrix_transpose(self)

    def __repr__(self) -> str:
        return f"Array({self.values!r})"

    def __len__(self) -> int:
        if not self.shape:
            raise UsageError("a number has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        return (self[place] for place in range(len(self)))

    # To Python and to other libraries.

    def _number(self, kinds: str, what: str) -> Any:
        if self.ndim or self.dtype.kind not in kinds:
            raise UsageError(f"{self.dtype}{list(self.shape)} is not one {what}")
        return self.values.item()

    def __bool__(self) -> bool:
        return bool(self._number("biuf", "truth"))

    def __int__(self) -> int:
        return int(self._number("biuf", "number"))

    def __float__(self) -> float:
        return float(self._number("biuf", "number"))

    def __complex__(self) -> complex:
        return complex(self._number("biuf", "number"))

    def __index__(self) -> int:
        return int(self._number("iu", "integer"))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.values, dtype=dtype, copy=copy)

    def __array_namespace__(self, /, *, api_version: str | None = None) -> Any:
        """`aotc.numpy`; UsageError for a version of the standard that it does not follow."""
        return _space().of_version(api_version)

    def __dlpack__(
        self,
        /,
        *,
        stream: Any = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[Any, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        given: Any = {"stream": stream, "max_version": max_version, "dl_device": dl_device}
        return self.values.__dlpack__(**given, copy=copy)

    def __dlpack_device__(self, /) -> tuple[Any, int]:
        return self.values.__dlpack_device__()

    def to_device(self, device: Any, /, *, stream: Any = None) -> Array:
        """The array itself: "cpu" is the only device."""
        _types().expect_device(device)
        return self

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **named: Any) -> Any:
        def call(*given: Any) -> Any:
            operands = [lift(value) if isinstance(value, Array) else value for value in given]
            return getattr(ufunc, method)(*operands, **named)

        return _run(call, *inputs)

    def __array_function__(self, function: Any, types: Any, inputs: Any, named: Any) -> Any:
        return _run(lambda given, options: function(*given, **options), list(inputs), dict(named))

    # Indexing.

    def __getitem__(self, key: Any, /) -> Any:
        """A copy of the elements that ``key`` names: integers, slices, ``None``, ``...``, arrays of
        integers, one array of bools. ArgumentError when it does not fit."""
        return _run(pick, self, _plain_key(key))

    def __setitem__(self, key: Any, value: Any, /) -> None:
        """Other arrays do not see the change."""
        _types().expect_same_kind(getattr(value, "dtype", value), self.dtype)
        result = _run(updated, self, _plain_key(key), value)
        if isinstance(result, Tensor):
            raise UsageError(
                "an array of numbers cannot be changed while a function is traced",
                remedy="x = aotc.updated(x, key, value) gives a new one",
            )
        self.values = result.values

    # Operators.

    __abs__ = _alone("abs")
    __neg__ = _alone("negative")
    __pos__ = _alone("positive")
    __invert__ = _alone("bitwise_invert")
    __add__, __radd__ = _forward("add"), _reflected("add")
    __sub__, __rsub__ = _forward("subtract"), _reflected("subtract")
    __mul__, __rmul__ = _forward("multiply"), _reflected("multiply")
    __truediv__, __rtruediv__ = _forward("divide"), _reflected("divide")
    __floordiv__, __rfloordiv__ = _forward("floor_divide"), _reflected("floor_divide")
    __mod__, __rmod__ = _forward("remainder"), _reflected("remainder")
    __pow__, __rpow__ = _forward("pow"), _reflected("pow")
    __and__, __rand__ = _forward("bitwise_and"), _reflected("bitwise_and")
    __or__, __ror__ = _forward("bitwise_or"), _reflected("bitwise_or")
    __xor__, __rxor__ = _forward("bitwise_xor"), _reflected("bitwise_xor")
    __lshift__, __rlshift__ = _forward("bitwise_left_shift"), _reflected("bitwise_left_shift")
    __rshift__, __rrshift__ = _forward("bitwise_right_shift"), _reflected("bitwise_right_shift")
    __iadd__, __isub__, __imul__ = _in_place("add"), _in_place("subtract"), _in_place("multiply")
    __itruediv__, __ifloordiv__ = _in_place("divide"), _in_place("floor_divide")
    __imod__, __ipow__ = _in_place("remainder"), _in_place("pow")
    __iand__, __ior__ = _in_place("bitwise_and"), _in_place("bitwise_or")
    __ixor__, __ilshift__ = _in_place("bitwise_xor"), _in_place("bitwise_left_shift")
    __irshift__ = _in_place("bitwise_right_shift")
    __matmul__, __rmatmul__ = _forward("matmul"), _reflected("matmul")
    __imatmul__ = _in_place("matmul")
    __lt__, __le__ = _forward("less"), _forward("less_equal")
    __gt__, __ge__ = _forward("greater"), _forward("greater_equal")
    __eq__ = _forward("equal")
    __ne__ = _forward("not_equal")


def _plain_key(key: Any) -> Any:
    """Masks as numpy arrays: how many elements they choose is a size."""
    if isinstance(key, tuple):
        return tuple(_plain_key(part) for part in key)
    return key.values if isinstance(key, Array) and key.dtype == bool else key
