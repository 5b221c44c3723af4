"""Vector accesses of GPU threads: views of one shape in, how many neighbours a thread takes out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from aotc.lower.scope import STORAGE_ALIGNMENT, Access
from aotc.lower.views import View

#: Elements below which more threads are worth more than fewer instructions.
MIN_ELEMS = 1 << 16
#: Threads below which they are worth more than vectors, and than several results of one thread.
MIN_THREADS, MANY_THREADS = 1 << 12, 1 << 15
#: Results of one thread along the axis of a strip.
MOST_POSITIONS = 8


def vector_lanes(views: Sequence[View]) -> int:
    """Elements along the innermost axis for one access of 16 bytes to the widest of the views; 1
    where some view does not lie so, or where so few elements leave the GPU idle."""
    return 1 if math.prod(views[0].shape) < MIN_ELEMS else widest_lanes(views)


def widest_lanes(views: Sequence[View]) -> int:
    """The same, however few elements there are."""
    lanes = STORAGE_ALIGNMENT // max(view.dtype.size_bytes for view in views)
    while lanes > 1 and not all(_divides(view, lanes) for view in views):
        lanes //= 2
    return lanes


def _divides(view: View, lanes: int) -> bool:
    """Whether runs of ``lanes`` elements lie side by side, or are one, each aligned."""
    *outer, inner = view.strides
    if view.shape[-1] % lanes or inner not in (0, 1):
        return False
    starts = (view.offset, *outer, *(step for _, step in view.moves))
    return inner == 0 or all(start % lanes == 0 for start in starts)


def neighbours(accesses: Sequence[Access], length: int) -> int:
    """Elements along the last axis, of ``length`` elements, for one access of 16 bytes to the
    widest of the ``accesses``; fewer where some do not lie so."""
    if not accesses:
        return 1
    lanes = STORAGE_ALIGNMENT // max(access.buffer.dtype.size_bytes for access in accesses)
    while lanes > 1 and (length % lanes or not all(_lies_so(x, lanes) for x in accesses)):
        lanes //= 2
    return lanes


def _lies_so(access: Access, lanes: int) -> bool:
    *outer, inner = access.strides
    size = access.buffer.dtype.size_bytes
    if inner == 0:
        return True
    aligned = access.buffer.alignment % (lanes * size) == 0
    return inner == 1 and aligned and all(x % lanes == 0 for x in (access.base, *outer))


def choose_strip(results: int, widest: int) -> tuple[int, int]:
    """How many neighbours, of ``widest`` that an access takes, a thread computes at so many
    positions of a sliding window that share what they load."""
    lanes, positions = widest, 1
    while lanes > 1 and results // lanes < MIN_THREADS:
        lanes //= 2
    while positions < MOST_POSITIONS and results // (lanes * positions * 2) >= MANY_THREADS:
        positions *= 2
    return lanes, positions
