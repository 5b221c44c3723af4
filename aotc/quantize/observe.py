"""The values of a tensor in, sample by sample; a histogram of all of them out, without keeping any.
"""

from __future__ import annotations

import math

import numpy as np

from aotc.errors import UsageError

BINS = 8192
"""Over the whole histogram, below and above zero together."""

_LEAST = 2.0**-100


class Histogram:
    """How often values of each size occur, the extremes, and the mean and largest
    magnitude of each channel.

    The bins divide [-reach, reach] evenly and ``reach`` is a power of two, so bins merge in pairs
    when a larger value comes: the result does not depend on the order of the samples.
    """

    def __init__(self, channel_axis: int | None = None) -> None:
        self.low = math.inf
        self.high = -math.inf
        self.reach = _LEAST
        self.counts = np.zeros(BINS, np.int64)
        self._axis = channel_axis
        self._sums: np.ndarray | None = None
        self._rows = 0
        self._magnitudes: np.ndarray | None = None

    def add(self, values: np.ndarray, name: str = "") -> None:
        """Takes in the values of one sample; UsageError when some are not finite."""
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise UsageError(
                f"tensor '{name}' has values that are NaN or infinite on a sample",
                remedy="leave the sample out, or repair the model",
            )
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._grow(max(abs(low), abs(high)))
        # in float64, so that no value is so small that it ends up as zero
        exact = np.multiply(values.ravel(), BINS / 2 / self.reach, dtype=np.float64)
        places = np.floor(exact).astype(np.int64) + BINS // 2
        self.counts += np.bincount(np.minimum(places, BINS - 1), minlength=BINS)
        self._add_channels(values)

    def merge(self, other: Histogram) -> None:
        """Takes in all that another histogram has; the means are left as they are."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self._grow(other.reach / 2)
        self.counts = self.counts + _widened(other.counts, self.reach / other.reach)

    @property
    def is_empty(self) -> bool:
        """Whether there have been no values."""
        return self.low > self.high

    @property
    def centres(self) -> np.ndarray:
        """The middle of each bin, float64 [BINS]; the outermost ones never lie beyond the extremes.
        """
        width = 2 * self.reach / BINS
        middles = (np.arange(BINS) - BINS // 2 + 0.5) * width
        return np.asarray(np.clip(middles, self.low, self.high))

    @property
    def means(self) -> np.ndarray | None:
        """The mean of each channel, float64; None without a channel axis."""
        return None if self._sums is None else self._sums / self._rows

    @property
    def magnitudes(self) -> np.ndarray | None:
        """The largest magnitude in each channel, float64; None without a channel axis."""
        return self._magnitudes

    def _grow(self, largest: float) -> None:
        """Makes the range reach beyond ``largest``, so that no value lies on its open end."""
        reach = self.reach
        while reach <= largest:
            reach *= 2
        self.counts = _widened(self.counts, reach / self.reach)
        self.reach = reach

    def _add_channels(self, values: np.ndarray) -> None:
        if self._axis is None:
            return
        axis = self._axis % values.ndim
        others = tuple(place for place in range(values.ndim) if place != axis)
        sums = values.sum(axis=others, dtype=np.float64)
        self._sums = sums if self._sums is None else self._sums + sums
        self._rows += values.size // values.shape[axis]
        largest = np.abs(values).max(axis=others).astype(np.float64)
        before = self._magnitudes
        self._magnitudes = largest if before is None else np.maximum(before, largest)


def _widened(counts: np.ndarray, factor: float) -> np.ndarray:
    """The same counts in bins that are ``factor`` (a power of two) times as wide."""
    half = BINS // 2
    together = int(min(factor, half))
    left = half // together
    result = np.zeros_like(counts)
    result[half - left : half] = counts[:half].reshape(left, together).sum(axis=1)
    result[half : half + left] = counts[half:].reshape(left, together).sum(axis=1)
    return result
