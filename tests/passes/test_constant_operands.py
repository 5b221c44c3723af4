"""What passes know about constant operands: splats, channel vectors, joins that stay in range."""

import numpy as np
import pytest

from aotc.graph.build import Builder
from aotc.passes.constants import (
    SCANNED_ELEMS,
    is_splat,
    merge_factors,
    merge_sum,
    splat_value,
    squeezed_value,
    stretch,
    stretched_value,
)


def test_splats_are_seen_through_broadcasts():
    b = Builder()
    wide = b.broadcast(b.constant(np.full((1, 1), 3, np.float32)), (4, 5))
    assert splat_value(wide) == 3 and is_splat(wide, 3) and not is_splat(wide, 2)
    assert stretched_value(wide).shape == (1, 1)
    assert splat_value(b.constant(np.array([2, 2, 2]))) == 2
    assert splat_value(b.constant(np.array([2, 2, 3]))) is None
    assert splat_value(b.constant(np.zeros((0,), np.float32))) is None
    assert splat_value(b.unary("neg", wide)) is None


def test_large_constants_are_not_scanned():
    b = Builder()
    assert splat_value(b.constant(np.zeros(SCANNED_ELEMS + 1, np.float32))) is None


def test_squeezed_value_refuses_variation_along_other_axes():
    b = Builder()
    values = np.repeat(np.arange(3, dtype=np.float32)[None, :, None], 4, axis=2)
    node = b.constant(values)
    np.testing.assert_array_equal(squeezed_value(node, (0, 2)), values[:, :, :1])
    assert squeezed_value(node, (1,)) is None


def test_stretch_makes_no_broadcast_where_none_is_needed():
    b = Builder()
    values = np.ones((2, 3), np.float32)
    assert stretch(b, values, (2, 3)).data is not None
    assert stretch(b, values[:1], (2, 3)).shape == (2, 3)


def floats(*values):
    return np.array(values, np.float32)


@pytest.mark.parametrize(
    ("a", "b", "want"),
    [
        (floats(1), floats(2), [3.0]),
        (floats(1, 2), floats(1), [2.0, 3.0]),
        (floats(3e38), floats(3e38), None),
        (np.array([127], np.int8), np.array([127], np.int8), [-2]),
    ],
)
def test_merge_sum(a, b, want):
    joined = merge_sum(a, b)
    assert (None if joined is None else joined.tolist()) == want


@pytest.mark.parametrize(
    ("a", "b", "divide", "want"),
    [
        (floats(3), floats(0.5), (False, False), [1.5]),
        (floats(4), floats(6), (True, False), [1.5]),
        (floats(6), floats(4), (False, True), [1.5]),
        (floats(2), floats(4), (True, True), [0.125]),
        (floats(3), floats(0), (False, False), None),
        (floats(3), floats(0), (False, True), None),
        (floats(1e30), floats(1e30), (False, False), None),
        (floats(1e-30), floats(1e-30), (False, False), None),
        (np.array([64], np.int8), np.array([3], np.int8), (False, False), [-64]),
    ],
)
def test_merge_factors(a, b, divide, want):
    joined = merge_factors(a, b, divide)
    assert (None if joined is None else joined.tolist()) == want
