"""Set functions of the standard: an array in, its different elements out, in order of value.

The sizes of the results depend on the numbers, so these must be known.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from aotc.graph import ops
from aotc.graph.types import DType
from aotc.numpy.array import Array
from aotc.numpy.eager import checked, known_now, operation
from aotc.numpy.searching import argsort, nonzero, take
from aotc.tracing.core import broadcast, cast, concat, constant, cut, emit, lift, reshape
from aotc.tracing.tensor import tnp


class UniqueAll(NamedTuple):
    """Different elements, where each is first, which of them each element is, and how many."""

    values: Any
    indices: Any
    inverse_indices: Any
    counts: Any


class UniqueCounts(NamedTuple):
    """Different elements, and how many of each there are."""

    values: Any
    counts: Any


class UniqueInverse(NamedTuple):
    """Different elements, and which of them each element is."""

    values: Any
    inverse_indices: Any


@operation
def _ranked(x: Any) -> tuple[Any, Any]:
    """The order of the flat elements, and which in that order differ from the one before. A NaN
    differs from all."""
    flat = reshape(lift(x), (lift(x).size,))
    if not flat.size:
        return tnp.zeros_like(flat, dtype=np.int64), tnp.zeros_like(flat, dtype=bool)
    order = argsort(flat)
    ordered = emit(ops.GatherElements(0), flat, order)
    size = flat.size
    apart = tnp.not_equal(cut(ordered, 0, 1, size - 1), cut(ordered, 0, 0, size - 1))
    return order, concat([broadcast(constant(True), (1,)), apart], 0)


@operation
def _inverse(order: Any, first: Any, shape: tuple[int, ...]) -> Any:
    rank = tnp.cumsum(cast(lift(first), DType.I64)) - np.int64(1)
    place = reshape(order, (order.size, 1))
    back = emit(ops.ScatterND("set"), tnp.zeros_like(rank), place, rank)
    return reshape(back, shape)


@operation
def _distances(starts: Any, size: int) -> Any:
    return concat([cut(starts, 0, 1, starts.size - 1), constant(np.array([size]))], 0) - starts


@known_now
def unique_all(x: Array, /) -> UniqueAll:
    """The different elements, their first places in the flattened array, the place among them of
    each element of ``x``, and their counts."""
    order, first = _ranked(x)
    (starts,) = nonzero(first)
    indices = take(order, starts)
    values = take(_flat(x), indices)
    if not x.size:
        return UniqueAll(values, indices, _inverse(order, first, x.shape), indices)
    return UniqueAll(
        values, indices, _inverse(order, first, x.shape), _distances(starts, x.size)
    )


@operation
def _flat(x: Any) -> Any:
    return reshape(lift(x), (lift(x).size,))


@checked
def unique_counts(x: Any, /) -> UniqueCounts:
    """The different elements and their counts."""
    found = unique_all(x)
    return UniqueCounts(found.values, found.counts)


@checked
def unique_inverse(x: Any, /) -> UniqueInverse:
    """The different elements, and which of them each element is."""
    found = unique_all(x)
    return UniqueInverse(found.values, found.inverse_indices)


@checked
def unique_values(x: Any, /) -> Any:
    """The different elements."""
    return unique_all(x).values
