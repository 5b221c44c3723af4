"""Pairs of arrays in, how far the second ones are from the first out, summed over samples."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass
class Closeness:
    """Sums from which the measures of error follow."""

    signal: float = 0.0
    other: float = 0.0
    product: float = 0.0
    noise: float = 0.0
    largest: float = 0.0

    def add(self, found: np.ndarray, expected: np.ndarray) -> None:
        """Takes in one sample."""
        a = expected.astype(np.float64).reshape(-1)
        b = found.astype(np.float64).reshape(-1)
        self.signal += float(a @ a)
        self.other += float(b @ b)
        self.product += float(a @ b)
        difference = b - a
        self.noise += float(difference @ difference)
        self.largest = max(self.largest, float(np.abs(difference).max(initial=0.0)))

    @property
    def sqnr(self) -> float:
        """Signal to quantisation noise in dB: 10 log10(sum x^2 / sum (y - x)^2)."""
        if not self.noise:
            return math.inf
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf

    @property
    def cosine(self) -> float:
        """The cosine of the angle between both, 1 for equal directions."""
        length = math.sqrt(self.signal) * math.sqrt(self.other)
        return self.product / length if length else float(self.signal == self.other)

    @property
    def relative(self) -> float:
        """The noise as a share of the signal."""
        return self.noise / self.signal if self.signal else math.inf if self.noise else 0.0
