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
    """How often values of each size occur, the extremes, and the mean of each channel.

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
        places = np.floor(values.ravel() * (BINS / 2 / self.reach)).astype(np.int64) + BINS // 2
        self.counts += np.bincount(np.minimum(places, BINS - 1), minlength=BINS)
        self._add_means(values)

    def merge(self, other: Histogram) -> None:
        """Takes in all that another histogram has; the means are left as they are."""
        self.low, self.high = min(self.low, other.low), max(self.high, other.high)
        self._grow(other.reach)
        counts, reach = other.counts, other.reach
        while reach < self.reach:
            counts, reach = _halved(counts), reach * 2
        self.counts = self.counts + counts

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

    def _grow(self, largest: float) -> None:
        while self.reach < largest:
            if not self.counts.any():
                # Nothing to merge: go there at once.
                self.reach = max(2.0 ** math.ceil(math.log2(largest)), _LEAST)
                if self.reach < largest:
                    self.reach *= 2
                break
            self.counts = _halved(self.counts)
            self.reach *= 2

    def _add_means(self, values: np.ndarray) -> None:
        if self._axis is None:
            return
        axis = self._axis % values.ndim
        others = tuple(place for place in range(values.ndim) if place != axis)
        sums = values.sum(axis=others, dtype=np.float64)
        self._sums = sums if self._sums is None else self._sums + sums
        self._rows += values.size // values.shape[axis]


def _halved(counts: np.ndarray) -> np.ndarray:
    """The same counts in bins twice as wide, over a range twice as large."""
    result = np.zeros_like(counts)
    quarter = BINS // 4
    result[quarter : BINS - quarter] = counts.reshape(-1, 2).sum(axis=1)
    return result
