"""What the user says of an argument in, its type out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aotc.graph.types import DType, TensorType
from aotc.tracing.places import misuse


@dataclass(frozen=True)
class Spec:
    """The shape and element type of an argument. A size may have a name, or None for one that is
    still to be found out; `bound` gives them numbers."""

    shape: tuple[int | str | None, ...]
    dtype: DType

    @property
    def type(self) -> TensorType:
        """The type; UsageError while a size has no number."""
        return self.fixed("x")

    def fixed(self, label: str) -> TensorType:
        """The type of argument ``label``; UsageError names the first size that has no number."""
        found = []
        for size in self.labelled(label).shape:
            if not isinstance(size, int):
                raise misuse(
                    f"the size '{size}' of the argument '{label}', {self}, has no value",
                    f'give dims={{"{size}": 8}}, say, when tracing or compiling, write a number in'
                    " its place, or call the function with arrays",
                )
            found.append(size)
        return TensorType(self.dtype, tuple(found))

    @property
    def names(self) -> tuple[str, ...]:
        """The names of sizes without a number."""
        return tuple(size for size in self.shape if isinstance(size, str))

    def labelled(self, label: str) -> Spec:
        """The sizes without a name get that of the argument and their axis: ``x_0``."""
        named = (f"{label}_{i}" if size is None else size for i, size in enumerate(self.shape))
        return Spec(tuple(named), self.dtype)

    def bound(self, dims: Mapping[str, int], label: str) -> Spec:
        """The named sizes that ``dims`` has, as numbers."""
        own = self.labelled(label).shape
        return Spec(tuple(dims.get(s, s) if isinstance(s, str) else s for s in own), self.dtype)

    def match(self, shape: tuple[int, ...], label: str, dims: dict[str, int]) -> None:
        """Adds to ``dims`` what the named sizes are in an argument of ``shape``; UsageError when a
        name has another size already, or the rank differs."""
        if len(shape) != len(self.shape):
            raise misuse(f"the argument '{label}' is {self}, gets an array of shape {shape}")
        for name, size in zip(self.labelled(label).shape, shape, strict=True):
            if isinstance(name, str) and dims.setdefault(name, size) != size:
                raise misuse(f"the size '{name}' is {dims[name]}, and {size} in '{label}'")

    def __str__(self) -> str:
        shown = ",".join("?" if size is None else str(size) for size in self.shape)
        return f"{self.dtype.value}[{shown}]"


Size = int | str | None


def spec(shape: Size | Sequence[Size], dtype: Any = "float32") -> Spec:
    """The description of one argument of `trace`: sizes (one for a vector, ``()`` for a number) and
    an element type as numpy names it.

    A size is an integer, a name that ``dims`` or the arrays of a call give a number, or None, which
    is the name of the argument and the axis: ``x_0``. Equal names are equal sizes. UsageError when
    aotc has no such type or a size is neither.

    >>> str(spec((2, "N"), "uint8"))
    'uint8[2,N]'
    """
    dims = (shape,) if isinstance(shape, int | np.integer | str | None) else tuple(shape)
    return Spec(tuple(map(_size, dims)), element_type(dtype))


def _size(dim: Any) -> Size:
    if dim is None or (isinstance(dim, str) and dim.isidentifier()):
        return dim
    if not isinstance(dim, int | np.integer) or isinstance(dim, bool) or dim < 0:
        raise misuse(
            f"{dim!r} is not a size",
            "a size of an argument is an integer of 0 or more, a name, or None",
        )
    return int(dim)


def named_sizes(specs: Iterable[tuple[Spec, str]]) -> list[str]:
    """The names of the sizes of arguments without a number, each once."""
    return list(dict.fromkeys(n for each, label in specs for n in each.labelled(label).names))


def expect_named(dims: Mapping[str, int], specs: Iterable[tuple[Spec, str]], name: str) -> None:
    """UsageError unless every name in ``dims`` is a size of an argument, and its value a size."""
    known = named_sizes(specs)
    for key, value in dims.items():
        if key not in known:
            raise misuse(f"{name} has no size '{key}'", f"its sizes are: {', '.join(known) or '-'}")
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 0:
            raise misuse(
                f"the size '{key}' of {name} cannot be {value}",
                "a traced function has fixed sizes: give a number of 0 or more, or a list of them",
            )


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
    """``Tensor[2, "N", "uint8"]``: sizes, then perhaps an element type."""
    parts = list(items) if isinstance(items, tuple) else [items]
    dtype: Any = "float32"
    if parts and _is_type(parts[-1]):
        dtype = parts.pop()
    if () in parts:
        parts = []
    return spec(tuple(parts), dtype)


def _is_type(part: Any) -> bool:
    """Whether the last part of an annotation is an element type: not a size, nor the name of one.
    numpy's short names of types would be names of sizes as well: UsageError."""
    if part is None or part == () or isinstance(part, int | np.integer):
        return False
    if not isinstance(part, str):
        return True
    if part in {dtype.value for dtype in DType}:
        return True
    try:
        full = np.dtype(part).name if len(part) > 1 else ""
    except TypeError:
        full = ""
    if full:
        raise misuse(f"{part!r} could be a type or a size", f"write '{full}', or rename the size")
    return False


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
