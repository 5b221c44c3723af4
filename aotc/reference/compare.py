"""Two sets of outputs in, how far apart they are per output out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from aotc.graph.types import DType


@dataclass(frozen=True)
class Difference:
    """``error`` is the largest difference over the largest magnitude in the reference; for integers
    and booleans the share of elements that differ. ``tolerance`` is the largest error that passes.
    """

    name: str
    type: str
    error: float
    tolerance: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance  # false for NaN


def tensors_of(outputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The tensors in ``outputs``: the elements of a sequence by place, nothing for an absent
    value."""
    found: dict[str, np.ndarray] = {}
    for name, value in outputs.items():
        if isinstance(value, list):
            parts = {f"{name}[{place}]": item for place, item in enumerate(value)}
            found.update(tensors_of(parts))
        elif value is not None:
            found[name] = value
    return found


def compare_outputs(
    found: Mapping[str, Any],
    expected: Mapping[str, Any],
    tolerance: float,
    steps: int = 0,
) -> list[Difference]:
    """One Difference per tensor of the outputs in ``expected``. One that is missing, of another
    shape or too many is an infinite error; integers must be equal whatever the tolerance, or no
    more than ``steps`` apart."""
    found = tensors_of({name: found[name] for name in expected if name in found})
    expected = tensors_of(expected)
    result = [
        Difference(name, "absent", float("inf"), 0.0) for name in found if name not in expected
    ]
    for name, reference in expected.items():
        array = found.get(name)
        type_ = f"{reference.dtype}{list(reference.shape)}"
        exact = not DType.of(reference).is_float
        if array is None or array.shape != reference.shape or array.dtype != reference.dtype:
            error = float("inf")
        elif exact:
            apart = array != reference
            if steps and reference.dtype.kind in "iu":
                apart = np.abs(array.astype(np.float64) - reference.astype(np.float64)) > steps
            error = float(np.mean(apart)) if reference.size else 0.0
        else:
            error = _float_error(array, reference)
        result.append(Difference(name, type_, error, 0.0 if exact else tolerance))
    return result


def _float_error(array: np.ndarray, reference: np.ndarray) -> float:
    """Largest difference over the reference's largest magnitude; NaN and infinities must stand in
    the same places, and then do not count."""
    if DType.of(reference).is_narrow:
        array, reference = array.astype(np.float32), reference.astype(np.float32)
    finite = np.isfinite(reference)
    if not np.array_equal(array[~finite], reference[~finite], equal_nan=True):
        return float("inf")
    a, b = array[finite].astype(np.float64), reference[finite].astype(np.float64)
    if not a.size:
        return 0.0
    largest = float(np.max(np.abs(b)))
    difference = float(np.max(np.abs(a - b)))
    if difference == 0.0:
        return 0.0
    return difference / largest if largest else float("inf")
