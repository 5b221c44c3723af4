"""How clearly decisions were made and how far each moved in, how many of them must be expected to
change out.

Few samples hold few close decisions, and whether one of those changes is luck. What can be
estimated is how dense the closest margins lie, and how far they move: margins spread evenly over
[0, m] that move by errors of either sign, |e| on average, change sign with probability |e| / 2m.
"""

from __future__ import annotations

import math

import numpy as np

CLOSEST = 20
"""So many decisions, or a twentieth of all if that is more, tell density and errors."""

MOST = 1 << 16
"""More decisions are enough to count those that changed."""


def expected_changes(margins: np.ndarray, moved: np.ndarray) -> float:
    """How many decisions change on as many samples like these, at most; ``margins`` are those of
    the exact model, ``moved`` what became of them. 0 where there are too few or too many to tell.

    The bound is two standard deviations of a count above the estimate.
    """
    known = np.isfinite(margins) & np.isfinite(moved)
    total = int(known.sum())
    if not 2 * CLOSEST <= total <= MOST:
        return 0.0
    closest = max(CLOSEST, total // 20)
    order = np.argsort(margins[known], kind="stable")[:closest]
    near = margins[known][order].astype(np.float64)
    error = float(np.abs(moved[known][order] - near).mean())
    if error == 0 or near[-1] <= 0:
        return 0.0
    changing = closest * min(1.0, error / (2 * float(near[-1])))
    return changing * (1 + 2 / math.sqrt(closest))


def clear_scale(scores: np.ndarray) -> np.ndarray:
    """``scores`` on a scale on which errors of close and of clear decisions are alike: logarithms
    of what looks like probabilities, anything else as it is. The order stays."""
    exact = scores.astype(np.float64)
    if scores.size and exact.min() >= 0 and exact.max() <= 1.0001:
        return np.log(np.maximum(exact, 1e-30))
    return exact
