"""The inverse error function: a Tensor in, polynomials out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from aotc.errors import UnsupportedError
from aotc.graph.types import DType
from aotc.tracing.core import compare, select, unary
from aotc.tracing.tensor import Tensor, tnp

_INNER = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087,
          -0.00125372503, -0.00417768164, 0.246640727, 1.50140941)  # fmt: skip
_OUTER = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773,
          -0.0076224613, 0.00943887047, 1.00167406, 2.83297682)  # fmt: skip


def erf_inv(x: Tensor) -> Any:
    """M. Giles, Approximating the erfinv function (GPU Computing Gems, 2011), single precision:
    two polynomials in -log(1 - x^2)."""
    if x.type.dtype is DType.F64:
        raise UnsupportedError("the inverse error function is in float32 only")
    w = unary("neg", tnp.log1p(unary("neg", x * x)))
    central = compare("lt", w, 5.0)
    at = select(central, w - np.float32(2.5), unary("sqrt", w) - np.float32(3.0))
    y = select(central, tnp.full_like(x, _INNER[0]), _OUTER[0])
    for inner, outer in zip(_INNER[1:], _OUTER[1:], strict=True):
        y = y * at + select(central, tnp.full_like(x, inner), outer)
    return select(compare("eq", unary("abs", x), 1.0), x * math.inf, y * x)
