"""Scales and zero points of quantised tensors: nodes go in, nothing comes out, or a ModelError that
says what no quantised tensor can have."""

from __future__ import annotations

import numpy as np

from aotc.errors import ModelError
from aotc.graph.ir import Node

_REMEDY = "quantise the model again with representative data"


def expect_scale(scale: Node, what: str = "scale") -> None:
    """ModelError for a scale that is no float, or known and not finite and above zero."""
    if not scale.type.dtype.is_float:
        raise ModelError(f"its {what} is {scale.type}, not floats", remedy=_REMEDY)
    if scale.data is None:
        return
    values = scale.data.astype(np.float32).reshape(-1)
    wrong = np.flatnonzero(~(np.isfinite(values) & (values > 0)))
    if wrong.size:
        place = f" of channel {wrong[0]}" if values.size > 1 else ""
        raise ModelError(
            f"its {what}{place} is {values[wrong[0]]!s}: it must be finite and more than 0",
            remedy=_REMEDY,
        )


def expect_zero_point(zero: Node | None, codes: Node, what: str = "zero point") -> None:
    """ModelError for a zero point that is not of the type of the codes, so that it could lie out of
    their range."""
    if zero is not None and zero.type.dtype is not codes.type.dtype:
        raise ModelError(
            f"its {what} is {zero.type.dtype.value}, but the tensor that it is of is "
            f"{codes.type.dtype.value}",
            remedy=_REMEDY,
        )
