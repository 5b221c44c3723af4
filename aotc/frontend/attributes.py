"""ONNX attributes: the protobuf entries go in, values of the asked-for Python type come out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from aotc.errors import ModelError
from aotc.frontend.tensors import sparse_values, tensor_values
from aotc.frontend.text import STRING, string_values

_Proto = onnx.AttributeProto


class Attributes:
    """Typed access by name. Every method raises ModelError when the attribute has another type, or
    is missing and no default was given (``None`` as the default of `string` and `integers` means
    missing is fine)."""

    def __init__(self, entries: Mapping[str, onnx.AttributeProto], folder: Path | None) -> None:
        self._entries = entries
        self._folder = folder

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def _find(self, name: str, kind: int, what: str) -> onnx.AttributeProto | None:
        entry = self._entries.get(name)
        if entry is not None and entry.type != kind:
            raise ModelError(
                f"attribute '{name}' must be {what}, but is of type {_type_name(entry.type)}",
                remedy="the node is malformed: export the model again",
            )
        return entry

    def _require(self, name: str, kind: int, what: str) -> onnx.AttributeProto:
        entry = self._find(name, kind, what)
        if entry is None:
            raise ModelError(
                f"attribute '{name}' ({what}) is missing",
                remedy="the node is malformed: export the model again",
            )
        return entry

    def integer(self, name: str, default: int | None = None) -> int:
        """An integer."""
        if default is not None and name not in self._entries:
            return default
        return int(self._require(name, _Proto.INT, "an integer").i)

    def flag(self, name: str, default: bool = False) -> bool:
        """An integer that means yes or no."""
        return self.integer(name, int(default)) != 0

    def integers(self, name: str, default: Sequence[int] | None = None) -> tuple[int, ...] | None:
        """A list of integers."""
        entry = self._find(name, _Proto.INTS, "a list of integers")
        if entry is None:
            return None if default is None else tuple(default)
        return tuple(int(value) for value in entry.ints)

    def required_integers(self, name: str) -> tuple[int, ...]:
        """A list of integers that must be there."""
        return tuple(self._require(name, _Proto.INTS, "a list of integers").ints)

    def real(self, name: str, default: float | None = None) -> float:
        """A float."""
        if default is not None and name not in self._entries:
            return default
        return float(self._require(name, _Proto.FLOAT, "a float").f)

    def reals(self, name: str) -> tuple[float, ...]:
        """A list of floats that must be there."""
        return tuple(self._require(name, _Proto.FLOATS, "a list of floats").floats)

    def string(self, name: str, default: str | None = None) -> str:
        """A string."""
        if default is not None and name not in self._entries:
            return default
        text = self._require(name, _Proto.STRING, "a string").s
        return bytes(text).decode("utf-8", errors="replace")

    def strings(self, name: str) -> tuple[str, ...] | None:
        """A list of strings, or None."""
        entry = self._find(name, _Proto.STRINGS, "a list of strings")
        if entry is None:
            return None
        return tuple(bytes(text).decode("utf-8", errors="replace") for text in entry.strings)

    def texts(self, name: str) -> tuple[bytes, ...] | None:
        """A list of strings as they stand in the file, or None."""
        entry = self._find(name, _Proto.STRINGS, "a list of strings")
        return None if entry is None else tuple(bytes(text) for text in entry.strings)

    def holds_text(self, name: str) -> bool:
        """Whether it is a tensor of strings."""
        entry = self._entries.get(name)
        return entry is not None and entry.type == _Proto.TENSOR and entry.t.data_type == STRING

    def text_tensor(self, name: str) -> np.ndarray:
        """A tensor of strings that must be there, as bytes objects."""
        return string_values(self._require(name, _Proto.TENSOR, "a tensor").t)

    def tensor(self, name: str) -> np.ndarray:
        """A tensor that must be there."""
        return tensor_values(self._require(name, _Proto.TENSOR, "a tensor").t, self._folder)

    def sparse_tensor(self, name: str) -> np.ndarray:
        """A sparse tensor that must be there, made dense."""
        entry = self._require(name, _Proto.SPARSE_TENSOR, "a sparse tensor")
        return sparse_values(entry.sparse_tensor, self._folder)

    def graph(self, name: str) -> onnx.GraphProto:
        """A subgraph that must be there."""
        return self._require(name, _Proto.GRAPH, "a graph").g


def _type_name(kind: int) -> str:
    known = kind in _Proto.AttributeType.values()
    return str(_Proto.AttributeType.Name(kind)) if known else f"number {kind}"
