"""Shape arithmetic: how reshapes group axes, and permutations."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aotc.passes.shapes import inverse, moves_nothing, reshape_groups


@pytest.mark.parametrize(
    ("before", "after", "groups"),
    [
        ((2, 3), (2, 3), [((0,), (0,)), ((1,), (1,))]),
        ((2, 3, 4), (6, 4), [((0, 1), (0,)), ((2,), (1,))]),
        ((1, 6), (2, 1, 3), [((1,), (0, 2))]),
        ((4, 6), (6, 4), [((0, 1), (0, 1))]),
        ((1, 1), (1,), []),
        ((), (1, 1), []),
    ],
)
def test_reshape_groups(before, after, groups):
    assert reshape_groups(before, after) == groups


@given(st.permutations(range(5)))
def test_inverse(perm):
    assert [perm[axis] for axis in inverse(tuple(perm))] == list(range(5))


def test_moves_nothing():
    assert moves_nothing((1, 0, 2), (1, 3, 4))
    assert not moves_nothing((0, 2, 1), (1, 3, 4))
    assert moves_nothing((0, 1), (3, 4))
