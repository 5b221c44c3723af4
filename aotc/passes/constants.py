"""Constant operands: a node goes in, the values it is known to hold come out, unstretched."""

from __future__ import annotations

import numpy as np

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Node
from aotc.graph.types import DType

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


def fits(values: np.ndarray, dtype: DType) -> bool:
    """Whether integers are all in the range of an integer type."""
    least, most = dtype.int_range
    return bool(values.size == 0 or (values.min() >= least and values.max() <= most))


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


def with_constant(node: Node, fn: str) -> tuple[Node, float | None]:
    """The other operand of ``fn`` with a constant that is the same everywhere, and that; the node
    itself and None where it is something else."""
    if node.op == ops.Binary(fn):
        for x, constant in (node.inputs, node.inputs[::-1]):
            value = splat_value(constant)
            if value is not None:
                return x, float(value)
    return node, None


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


def merge_sum(a: np.ndarray, b: np.ndarray) -> np.ndarray | None:
    """``a + b`` rounded once; None when finite numbers give infinity. Integers wrap around."""
    with np.errstate(all="ignore"):
        if a.dtype.kind != "f":
            return np.asarray(a + b, dtype=a.dtype)
        rounded = np.asarray(a.astype(np.float64) + b, dtype=a.dtype)
    return rounded if np.isfinite(rounded).all() else None


def merge_factors(
    a: np.ndarray, b: np.ndarray, divide: tuple[bool, bool] = (False, False)
) -> np.ndarray | None:
    """``a * b`` rounded once, with 1/a or 1/b in place of those that ``divide`` names. Integers
    wrap around.

    None when the product is zero, subnormal or infinite: the two steps might then differ much from
    one. """
    with np.errstate(all="ignore"):
        if a.dtype.kind != "f":
            return np.asarray(a * b, dtype=a.dtype)
        left, right = a.astype(np.float64), b.astype(np.float64)
        exact = (1 / left if divide[0] else left) * (1 / right if divide[1] else right)
        rounded = np.asarray(exact, dtype=a.dtype)
        normal = np.isfinite(rounded) & (np.abs(rounded) >= np.finfo(a.dtype).tiny)
    return rounded if normal.all() else None
