"""Arithmetic on shapes and permutations: how a reshape splits and merges axes, and what moves."""

from __future__ import annotations

AxisGroup = tuple[tuple[int, ...], tuple[int, ...]]


def reshape_groups(before: tuple[int, ...], after: tuple[int, ...]) -> list[AxisGroup]:
    """The finest pairs (axes of ``before``, axes of ``after``) of equal extent, in order.

    Axes of size 1 belong to no group. Both shapes have the same number of elements, which is not
    zero. """
    old = [axis for axis, dim in enumerate(before) if dim != 1]
    new = [axis for axis, dim in enumerate(after) if dim != 1]
    groups: list[AxisGroup] = []
    i = j = 0
    while i < len(old):
        first_old, first_new = i, j
        have, want = before[old[i]], after[new[j]]
        i, j = i + 1, j + 1
        while have != want:
            if have < want:
                have *= before[old[i]]
                i += 1
            else:
                want *= after[new[j]]
                j += 1
        groups.append((tuple(old[first_old:i]), tuple(new[first_new:j])))
    return groups


def inverse(perm: tuple[int, ...]) -> tuple[int, ...]:
    """The permutation that undoes ``perm``."""
    result = [0] * len(perm)
    for position, axis in enumerate(perm):
        result[axis] = position
    return tuple(result)


def moves_nothing(perm: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether transposing ``shape`` by ``perm`` changes the place of axes of size 1 only."""
    moved = [axis for axis in perm if shape[axis] != 1]
    return moved == sorted(moved)
