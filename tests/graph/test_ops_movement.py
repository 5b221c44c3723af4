"""The meaning of data movement against plain loops and numpy."""

from __future__ import annotations

import numpy as np
import pytest

from aotc.graph import ops
from aotc.graph.types import DType

X = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)


def test_slice_backwards_reaches_the_first_element() -> None:
    op = ops.Slice((1, 2, 3), (2, 2, 4), (-1, -2, -1))
    np.testing.assert_array_equal(op.evaluate(X), X[::-1, ::-2, ::-1])


def test_pad_surrounds_with_the_value() -> None:
    result = ops.Pad((1, 0, 0), (0, 0, 2), -np.inf).evaluate(X)
    assert result.shape == (3, 3, 6)
    np.testing.assert_array_equal(result[1:, :, :4], X)
    assert np.isneginf(result[0]).all() and np.isneginf(result[..., 4:]).all()


def test_gather_wraps_negative_indices_and_clamps_the_rest() -> None:
    indices = np.array([[0, -1], [7, -9]])
    expected = X[:, [[0, 2], [2, 0]]]
    np.testing.assert_array_equal(ops.Gather(1).evaluate(X, indices), expected)


def test_gather_with_huge_unsigned_index_clamps() -> None:
    indices = np.array([2**64 - 1], np.uint64)
    np.testing.assert_array_equal(ops.Gather(2).evaluate(X, indices), X[..., 3:])


def test_gather_elements_is_take_along_axis() -> None:
    indices = np.array([[[0], [2], [-1]], [[1], [1], [0]]])
    expected = np.take_along_axis(X, indices, 2)
    np.testing.assert_array_equal(ops.GatherElements(2).evaluate(X, indices), expected)


def test_gather_elements_with_fewer_indices_than_data() -> None:
    result = ops.GatherElements(2).evaluate(X, np.array([[[3, 0, 1, 2, 3]]]))
    np.testing.assert_array_equal(result, X[:1, :1, [3, 0, 1, 2, 3]])


@pytest.mark.parametrize(
    ("batch_dims", "indices", "expected"),
    [
        (0, [[0, 1], [1, -1]], X[[0, 1], [1, 2]]),
        (0, [[1]], X[1:]),
        (1, [[2], [0]], np.stack([X[0, 2], X[1, 0]])),
        (1, [[[2, 3]], [[0, 9]]], [[X[0, 2, 3]], [X[1, 0, 3]]]),
        (2, [[[1], [2], [3]], [[0], [0], [0]]], [[1, 6, 11], [12, 16, 20]]),
    ],
)
def test_gather_nd(batch_dims: int, indices: list, expected: np.ndarray) -> None:
    result = ops.GatherND(batch_dims).evaluate(X, np.array(indices))
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("fn", "expected"),
    [
        ("set", [1, 30, 3, 40]),
        ("add", [1, 52, 3, 44]),
        ("mul", [1, 1200, 3, 160]),
        ("min", [1, 2, 3, 4]),
        ("max", [1, 30, 3, 40]),
    ],
)
def test_scatter_applies_updates_in_order(fn: str, expected: list[int]) -> None:
    data, updates = np.array([1, 2, 3, 4]), np.array([20, 30, 40])
    indices = np.array([1, -3, 99])
    assert ops.ScatterND(fn).evaluate(data, indices[:, None], updates).tolist() == expected
    assert ops.ScatterElements(0, fn).evaluate(data, indices, updates).tolist() == expected


def test_scatter_nd_of_rows() -> None:
    updates = np.zeros((1, 4), np.float32)
    result = ops.ScatterND("set").evaluate(X, np.array([[1, 2]]), updates)
    expected = X.copy()
    expected[1, 2] = 0
    np.testing.assert_array_equal(result, expected)


def test_scatter_elements_along_an_axis() -> None:
    data = np.zeros((3, 3), np.float32)
    indices = np.array([[1, 0, 2], [0, 2, 1]])
    updates = np.array([[1.0, 1.1, 1.2], [2.0, 2.1, 2.2]], np.float32)
    expected = np.array([[2.0, 1.1, 0.0], [1.0, 0.0, 2.2], [0.0, 2.1, 1.2]], np.float32)
    np.testing.assert_array_equal(
        ops.ScatterElements(0, "set").evaluate(data, indices, updates), expected
    )


def test_iota_counts_along_its_axis() -> None:
    result = ops.Iota((2, 3), 0, DType.F32).evaluate()
    np.testing.assert_array_equal(result, [[0, 0, 0], [1, 1, 1]])
    assert ops.Iota((2, 3), 1, DType.I64).evaluate().tolist() == [[0, 1, 2], [0, 1, 2]]


def test_concat_and_transpose() -> None:
    joined = ops.Concat(1).evaluate(X, X[:, :1])
    np.testing.assert_array_equal(joined, np.concatenate([X, X[:, :1]], 1))
    np.testing.assert_array_equal(ops.Transpose((2, 0, 1)).evaluate(X), X.transpose(2, 0, 1))
