"""Tensors that numpy has no type of its own for, to ONNX Runtime and back: arrays of ml_dtypes go
in, its values come out, and the reverse."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aotc.frontend.tensors import ONNX_TYPES, dtype_of
from aotc.graph.types import DType


def run_session(
    module: Any, session: Any, names: Sequence[str], inputs: Mapping[str, np.ndarray]
) -> list[np.ndarray]:
    """The outputs ``names`` of ``session`` in order, whatever their element types. ONNX Runtime's
    own exceptions for types that it lacks, among them those of less than a byte."""
    declared = {*(output.type for output in session.get_outputs() if output.name in names)}
    given = {array.dtype.name for array in inputs.values()}
    if not declared & _NARROW_NAMES and not given & _NARROW_ARRAYS:
        plain: list[np.ndarray] = session.run(list(names), dict(inputs))
        return plain
    values = {name: _to_value(module, array) for name, array in inputs.items()}
    return [_to_array(value) for value in session.run_with_ort_values(list(names), values)]


_NARROW_NAMES = frozenset(
    f"tensor({name})"
    for name in ("bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz")
)
_NARROW_ARRAYS = frozenset(dtype.value for dtype in DType if dtype.is_narrow)


def _to_value(module: Any, array: np.ndarray) -> Any:
    if array.dtype.name not in _NARROW_ARRAYS or DType.of(array).size_bits < 8:
        return module.OrtValue.ortvalue_from_numpy(array)
    dtype = DType.of(array)
    stored = np.ascontiguousarray(array).view(dtype.machine.numpy)
    return module.OrtValue.ortvalue_from_numpy_with_onnx_type(stored, ONNX_TYPES[dtype])


def _to_array(value: Any) -> np.ndarray:
    """A copy: ``value`` owns its memory."""
    dtype, shape = dtype_of(value.element_type()), tuple(value.shape())
    if not dtype.is_narrow:
        plain: np.ndarray = value.numpy()
        return plain
    count = int(np.prod(shape)) * dtype.size_bytes
    raw = ctypes.string_at(value.data_ptr(), count)
    return np.frombuffer(raw, dtype.machine.numpy).view(dtype.numpy).reshape(shape)
