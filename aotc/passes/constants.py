"""Constant operands: a node goes in, the values it is known to hold come out, unstretched."""

from __future__ import annotations

import math

import numpy as np

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Node

SCANNED_ELEMS = 1 << 16
"""Larger dense constants are never compared element by element: they are weights, not scalars."""


def stretched_value(node: Node) -> np.ndarray | None:
    """The values of a constant or of a `Broadcast` of one; stretched axes keep size 1, the rank is
    the node's."""
    if node.data is not None:
        return node.data
    if isinstance(node.op, ops.Broadcast):
        return node.inputs[0].data
    return None


def splat_value(node: Node) -> np.generic | None:
    """The one value that every element of ``node`` is known to hold, or None."""
    value = stretched_value(node)
    if value is None or value.size == 0 or value.size > SCANNED_ELEMS:
        return None
    first = value.reshape(-1)[0]
    if value.size > 1 and not (value == first).all():
        return None
    return first  # type: ignore[no-any-return]


def is_splat(node: Node, number: float) -> bool:
    """Whether every element of ``node`` is known to equal ``number``."""
    value = splat_value(node)
    return value is not None and bool(value == number)


def squeezed_value(node: Node, axes: tuple[int, ...]) -> np.ndarray | None:
    """The known values of ``node``, which must not vary along ``axes``, with those axes of size 1;
    or None."""
    value = stretched_value(node)
    if value is None:
        return None
    for axis in axes:
        if value.shape[axis] > 1:
            first = value.take([0], axis=axis)
            if value.size > SCANNED_ELEMS or not (value == first).all():
                return None
            value = first
    return value


def stretch(builder: Builder, values: np.ndarray, shape: tuple[int, ...], origin: str = "") -> Node:
    """The constant ``values`` (of the rank of ``shape``) stretched to ``shape``."""
    node = builder.constant(values)
    if node.shape == shape:
        return node
    return builder.apply(ops.Broadcast(shape), node, origin=origin)


def merge(fn: str, a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """``a fn b`` (add or mul) rounded once, for two constants of one type; None when it would grow
    or overflow.

    Floats are computed in float64. Joining constants must not make a larger constant than both
    were, nor turn two finite factors into infinity or lose one in the subnormal range. """
    shape = np.broadcast_shapes(a.shape, b.shape)
    if math.prod(shape) > max(a.size, b.size):
        return None
    function = np.add if fn == "add" else np.multiply
    if a.dtype.kind != "f":
        with np.errstate(over="ignore"):
            return np.asarray(function(a, b), dtype=a.dtype)
    with np.errstate(all="ignore"):
        exact = function(a.astype(np.float64), b.astype(np.float64))
        rounded = np.asarray(exact.astype(a.dtype))
    tiny = np.finfo(a.dtype).tiny
    lost = ~np.isfinite(rounded) | ((np.abs(rounded) < tiny) & (exact != 0))
    if fn == "mul":
        lost |= exact == 0
    return None if lost.any() else rounded
