"""Views of one sweep in, the same with constants spread out where only they keep a short innermost
axis from its neighbour: pixels of three channels are then swept like any row."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aotc.lower.context import Context
from aotc.lower.views import View, collapse

MOST_BYTES = 1 << 14
"""A constant may grow to this size for it."""


def spread_constants(context: Context, views: Sequence[View]) -> list[View]:
    """``views`` (the result first) of one shape. Where the innermost axis is shorter than a vector
    and only constants step through the last two axes unevenly, each of these is written out for as
    many positions as fill whole vectors, or for all; unchanged for targets without vectors and
    where small code is asked for."""
    merged = collapse(list(views))
    lanes = context.lanes_for(*(view.dtype for view in views))
    shape = merged[0].shape
    if len(shape) < 2 or shape[-1] >= lanes or context.target.compact:
        return list(views)
    rows, width = shape[-2:]
    uneven = [view for view in merged if view.strides[-2] != view.strides[-1] * width]
    if not uneven or not all(_can_spread(view) for view in uneven) or merged[0] in uneven:
        return list(views)
    period = lanes // math.gcd(lanes, width)
    if rows % period or any(view.strides[-2] for view in uneven):
        period = rows
    if any(period * width * view.dtype.size_bytes > MOST_BYTES for view in uneven):
        return list(views)
    return [
        _written_out(context, view, period) if view in uneven else _split(view, period)
        for view in merged
    ]


def _can_spread(view: View) -> bool:
    return view.is_constant and view.storage.data is not None and not any(view.strides[:-2])


def _split(view: View, period: int) -> View:
    """The axis before the last as (..., period)."""
    *outer, rows, width = view.shape
    *steps, down, along = view.strides
    return replace(
        view,
        shape=(*outer, rows // period, period, width),
        strides=(*steps, down * period, down, along),
    )


def _written_out(context: Context, view: View, period: int) -> View:
    *outer, rows, width = view.shape
    down, along = view.strides[-2:]
    places = view.offset + np.arange(period)[:, None] * down + np.arange(width) * along
    assert view.storage.data is not None
    known = view.storage.data.reshape(-1).view(view.dtype.numpy)
    values = np.ascontiguousarray(known[places])
    made = context.constant(values, view.storage.name)
    strides = (*(0 for _ in outer), 0, width, 1)
    shape = (*outer, rows // period, period, width)
    return replace(made, shape=shape, strides=strides, value=view.value)
