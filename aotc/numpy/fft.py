"""What the extension ``fft`` of the standard has for real numbers: frequencies, and the order of
them. aotc has no complex numbers, so that the transforms themselves are not here."""

from __future__ import annotations

from typing import Any

import numpy as np

from aotc.numpy.array import ArgumentError
from aotc.numpy.creation import asarray
from aotc.numpy.eager import checked, operation
from aotc.numpy.types import expect_device, expect_kinds
from aotc.tracing.core import all_axes, lift
from aotc.tracing.tensor import tnp


def _frequencies(places: np.ndarray, n: int, d: float, dtype: Any) -> Any:
    if n < 1 or d == 0:
        raise ArgumentError(f"there are no frequencies of {n} samples {d} apart")
    kind = np.dtype("float64" if dtype is None else dtype)
    expect_kinds("the type of frequencies", kind, "f")
    return asarray((places / (n * d)).astype(kind))


@checked
def fftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Any:
    """The frequencies of a transform of ``n`` samples ``d`` apart, in cycles by unit of ``d``: from
    0 up, then the negative ones."""
    expect_device(device)
    return _frequencies((np.arange(n) + n // 2) % max(n, 1) - n // 2, n, d, dtype)


@checked
def rfftfreq(n: int, /, *, d: float = 1.0, dtype: Any = None, device: Any = None) -> Any:
    """The frequencies from 0 to n // 2, those of a transform of real samples."""
    expect_device(device)
    return _frequencies(np.arange(n // 2 + 1), n, d, dtype)


def _rolled(name: str, x: Any, axes: Any, forth: bool) -> Any:
    value = lift(x)
    expect_kinds(name, value.dtype, "f")
    for axis in all_axes(axes, value.ndim):
        half = value.shape[axis] // 2
        value = tnp.roll(value, half if forth else -half, axis)
    return value


@operation
def fftshift(x: Any, /, *, axes: Any = None) -> Any:
    """Frequency 0 moved to the middle of ``axes``, or of all."""
    return _rolled("fftshift", x, axes, True)


@operation
def ifftshift(x: Any, /, *, axes: Any = None) -> Any:
    """What takes `fftshift` back."""
    return _rolled("ifftshift", x, axes, False)


__all__ = ["fftfreq", "fftshift", "ifftshift", "rfftfreq"]
