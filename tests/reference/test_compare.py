"""Comparison of outputs: relative to the largest magnitude, exact for integers and NaN."""

import numpy as np
import pytest

from aotc.reference.compare import compare_outputs


def error(found, expected, tolerance=1e-4):
    (difference,) = compare_outputs({"y": found}, {"y": expected}, tolerance)
    return difference


def test_errors_are_relative_to_the_largest_magnitude():
    expected = np.array([0.0, -100.0, 1.0], np.float32)
    found = expected + np.array([0.005, 0, 0], np.float32)
    assert error(found, expected).error == pytest.approx(5e-5, rel=1e-3)
    assert error(found, expected).passed
    assert not error(found, expected, 1e-5).passed


def test_integers_and_booleans_must_be_equal():
    expected = np.array([1, 2, 3, 4])
    assert error(expected, expected).passed
    assert error(expected + [0, 0, 0, 1], expected).error == 0.25
    assert not error(expected + [0, 0, 0, 1], expected, tolerance=1).passed
    assert not error(np.array([True]), np.array([False])).passed


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_must_match(wrong):
    plain, odd = np.array([1.0, 2.0]), np.array([1.0, wrong])
    assert not error(odd, plain).passed
    assert not error(plain, odd).passed
    assert error(odd, odd).passed


def test_other_shapes_types_and_missing_outputs_fail():
    y = np.zeros((2, 3), np.float32)
    assert not error(y.reshape(3, 2), y).passed
    assert not error(y.astype(np.float64), y).passed
    (missing,) = compare_outputs({}, {"y": y}, 1.0)
    assert not missing.passed


def test_zero_and_empty_outputs():
    zero = np.zeros(3, np.float32)
    assert error(zero, zero).passed
    assert not error(zero + 1e-30, zero).passed
    assert error(np.zeros((0, 2)), np.zeros((0, 2))).passed


def test_elements_of_sequences_are_compared_one_by_one():
    x = np.float32([1, 2])
    first, second = compare_outputs({"y": [x, x]}, {"y": [x, x + 1]}, 0.1)
    assert (first.name, first.passed) == ("y[0]", True)
    assert (second.name, second.passed) == ("y[1]", False)


def test_sequences_of_other_lengths_and_absent_values_differ():
    x = np.float32([1, 2])
    assert not all(d.passed for d in compare_outputs({"y": [x, x]}, {"y": [x]}, 0.1))
    assert not all(d.passed for d in compare_outputs({"y": [x]}, {"y": [x, x]}, 0.1))
    assert not all(d.passed for d in compare_outputs({"y": x}, {"y": None}, 0.1))
    assert compare_outputs({"y": None, "other": x}, {"y": None}, 0.1) == []
