"""A histogram in, the range of values that the codes of a quantised tensor should cover out.

Methods: ``minmax`` covers everything; ``percentile`` leaves out the rarest values; ``mse`` makes
the mean squared error least (as Banner, Nahshan and Soudry, arXiv 1810.05723, but on the measured
distribution); ``entropy`` makes the Kullback-Leibler divergence between the distributions of values
and codes least (as Migacz, "8-bit Inference with TensorRT", GTC 2017).
"""

from __future__ import annotations

import numpy as np

from aotc.quantize.codes import CodeType, coding_for
from aotc.quantize.observe import BINS, Histogram

METHODS = ("minmax", "percentile", "mse", "entropy")

_SHARES = np.linspace(1.0, 0.2, 65)
_COARSE = 2048
"""Bins of the histogram of magnitudes that entropy works on."""


def choose_range(
    histogram: Histogram, method: str, code: CodeType, percentile: float = 99.99
) -> tuple[float, float]:
    """The least and the largest value to cover, zero among them. Codes of 16 bits cover everything
    but what ``percentile`` leaves out: their steps are finer than the bins."""
    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    if histogram.is_empty or low == high:
        return 0.0, 0.0
    if method == "percentile":
        return _percentile(histogram, percentile)
    if method == "minmax" or code.bits > 8:
        return low, high
    if method == "entropy":
        return _least_divergence(histogram, code)
    return _least_error(histogram, code)


def _percentile(histogram: Histogram, percentile: float) -> tuple[float, float]:
    """The range that ``percentile`` of 100 values lie in, as many outside on either side."""
    total = histogram.counts.sum()
    outside = total * (1 - percentile / 100) / 2
    edges = (np.arange(BINS + 1) - BINS // 2) * (2 * histogram.reach / BINS)
    below = np.cumsum(histogram.counts)
    above = np.cumsum(histogram.counts[::-1])[::-1]
    first = int(np.argmax(below > outside))
    last = BINS - 1 - int(np.argmax(above[::-1] > outside))
    low = max(float(edges[first]), histogram.low)
    high = min(float(edges[last + 1]), histogram.high)
    return min(low, 0.0), max(high, 0.0)


def _least_error(histogram: Histogram, code: CodeType) -> tuple[float, float]:
    """Shrinks either end in turn as long as the mean squared error falls."""
    used = histogram.counts > 0
    values, counts = histogram.centres[used], histogram.counts[used].astype(np.float64)

    def error(low: float, high: float) -> float:
        coding = coding_for(low, high, code)
        return float(counts @ np.square(coding.restore(coding.round(values)) - values))

    low, high = min(histogram.low, 0.0), max(histogram.high, 0.0)
    best = min(((error(low * s, high * s), s) for s in _SHARES), key=lambda found: found[0])
    low, high = low * best[1], high * best[1]
    for _ in range(2):
        high = min((high * s for s in _SHARES), key=lambda end: error(low, end))
        low = min((low * s for s in _SHARES), key=lambda end: error(end, high))
    return low, high


def _least_divergence(histogram: Histogram, code: CodeType) -> tuple[float, float]:
    """Cuts both ends at the magnitude with the least divergence, at least one bin a code."""
    folded = histogram.counts.reshape(_COARSE * 2, -1).sum(axis=1).astype(np.float64)
    magnitudes = folded[_COARSE:] + folded[:_COARSE][::-1]
    magnitudes[0] = 0.0 if magnitudes[1:].any() else magnitudes[0]  # zero is always exact
    two_sided = histogram.low < 0 < histogram.high
    levels = code.levels // 2 if two_sided or code.symmetric else code.levels
    last = int(np.flatnonzero(magnitudes)[-1]) + 1
    if last <= levels:
        return min(histogram.low, 0.0), max(histogram.high, 0.0)
    stops = np.unique(np.linspace(levels, last, 96).astype(int))
    best = min(stops, key=lambda stop: _divergence(magnitudes, int(stop), levels))
    cut = float(best) / _COARSE * histogram.reach
    return max(min(histogram.low, 0.0), -cut), min(max(histogram.high, 0.0), cut)


def _divergence(magnitudes: np.ndarray, stop: int, levels: int) -> float:
    """From the distribution cut at bin ``stop`` to what ``levels`` codes keep of it."""
    kept = magnitudes[:stop]
    reference = kept.copy()
    reference[-1] += magnitudes[stop:].sum()
    codes = np.arange(stop) * levels // stop
    filled = kept > 0
    per_code = np.bincount(codes, kept, levels)
    members = np.bincount(codes, filled, levels)
    model = np.where(filled, (per_code / np.maximum(members, 1))[codes], 0.0)
    if not model.any():
        return np.inf
    p, q = reference / reference.sum(), model / model.sum()
    # What the last bin gets from beyond the cut may meet an empty model: smooth both a little.
    p, q = p + 1e-12, q + 1e-12
    return float(np.sum(p * np.log(p / q)))

