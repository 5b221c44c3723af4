"""Triangular systems: a matrix of which one triangle counts, and right-hand sides in, solutions
out."""

from __future__ import annotations

from typing import Any

import numpy as np

from aotc.numpy import factors
from aotc.tracing.core import constant, select
from aotc.tracing.tensor import Tensor, tnp


def solve_triangular(a: Tensor, b: Tensor, lower: bool, left: bool, unit: bool) -> Any:
    """x of ``a @ x = b``, or of ``x @ a = b`` if not ``left``; only one triangle of ``a`` counts,
    and ones on its diagonal if ``unit``."""
    size = a.shape[-1]
    kept = np.tri(size, dtype=bool) if lower else ~np.tri(size, k=-1, dtype=bool)
    a = select(constant(kept), a, 0)
    if unit:
        a = select(constant(np.eye(size, dtype=bool)), constant(1, a.type.dtype), a)
    if left:
        return factors.solve(a, b)
    x = factors.solve(tnp.swapaxes(a, -1, -2), tnp.swapaxes(b, -1, -2))
    return tnp.swapaxes(x, -1, -2)
