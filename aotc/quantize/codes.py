"""Ranges of values in, integer codes out: scales, zero points, and the rounding of QuantizeLinear.

value = (code - zero_point) * scale; code = saturate(round half to even(value / scale) + zero_point)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

SMALLEST_SCALE = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class CodeType:
    """An integer type for activations; ``symmetric`` ones have the zero point 0."""

    name: str
    bits: int
    low: int
    high: int
    symmetric: bool
    opset: int

    @property
    def levels(self) -> int:
        """The number of codes."""
        return self.high - self.low + 1

    @property
    def numpy(self) -> np.dtype:
        """The element type."""
        return np.dtype(self.name)


CODE_TYPES: Mapping[str, CodeType] = MappingProxyType(
    {
        "uint8": CodeType("uint8", 8, 0, 255, False, 13),
        "int8": CodeType("int8", 8, -128, 127, False, 13),
        "int16": CodeType("int16", 16, -32768, 32767, True, 21),
    }
)
"""The choices for activations; ``opset`` is the first version of ONNX's operators that has them."""

WIDE = CODE_TYPES["int16"]
"""What the data of layers become for which 8 bits are too few."""


@dataclass(frozen=True)
class Coding:
    """How the values of one tensor become codes."""

    code: CodeType
    scale: np.float32
    zero_point: int

    def round(self, values: np.ndarray) -> np.ndarray:
        """The codes of ``values``, as floats."""
        exact = np.rint(values / self.scale) + self.zero_point
        return np.asarray(np.clip(exact, self.code.low, self.code.high))

    def restore(self, codes: np.ndarray) -> np.ndarray:
        """The values that ``codes`` stand for."""
        values: np.ndarray = (codes - self.zero_point) * self.scale
        return values


def coding_for(low: float, high: float, code: CodeType) -> Coding:
    """The coding of [low, high], which is widened to have zero in it; zero is always exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    steps = code.high if code.symmetric else code.high - code.low
    scale = (max(-low, high) if code.symmetric else high - low) / steps
    if scale < SMALLEST_SCALE:
        scale = 1.0 if high == low else SMALLEST_SCALE
    rounded = np.float32(min(scale, float(np.finfo(np.float32).max)))
    zero = 0 if code.symmetric else round(code.low - low / float(rounded))
    return Coding(code, rounded, max(code.low, min(code.high, zero)))
