"""What passes know about constant operands: splats, channel vectors, joins that stay in range."""

import numpy as np
import pytest

from aotc.graph.build import Builder
from aotc.graph.types import DType
from aotc.passes.constants import (
    SCANNED_ELEMS,
    is_splat,
    merge,
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


@pytest.mark.parametrize(
    ("fn", "a", "b", "want"),
    [
        ("add", [1.0], [2.0], [3.0]),
        ("mul", [3.0], [0.5], [1.5]),
        ("mul", [3.0], [0.0], None),
        ("mul", [1e30], [1e30], None),
        ("mul", [1e-30], [1e-30], None),
        ("add", [1.0, 2.0], [1.0], [2.0, 3.0]),
    ],
)
def test_merge(fn, a, b, want):
    joined = merge(fn, np.array(a, np.float32), np.array(b, np.float32))
    assert (None if joined is None else joined.tolist()) == want


def test_merge_refuses_to_grow_and_lets_integers_wrap():
    row, column = np.ones((1, 3), np.float32), np.ones((3, 1), np.float32)
    assert merge("add", row, column) is None
    limit = np.array([127], DType.I8.numpy)
    assert merge("add", limit, limit).tolist() == [-2]
