"""Histograms: the same whatever the order of the samples, close to the values themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aotc.errors import UsageError
from aotc.quantize.observe import Histogram

FLOATS = st.floats(-(2.0**100), 2.0**100, width=32)
ARRAYS = st.lists(FLOATS, min_size=1, max_size=20).map(lambda v: np.array(v, np.float32))


def observed(arrays, axis=None):
    histogram = Histogram(axis)
    for array in arrays:
        histogram.add(array)
    return histogram


@settings(max_examples=30, deadline=None)
@given(st.lists(ARRAYS, min_size=1, max_size=4))
def test_order_does_not_matter_and_nothing_is_lost(arrays):
    forward, backward = observed(arrays), observed(arrays[::-1])
    assert np.array_equal(forward.counts, backward.counts)
    assert forward.reach == backward.reach
    values = np.concatenate(arrays)
    assert forward.counts.sum() == values.size
    assert (forward.low, forward.high) == (values.min(), values.max())


@settings(max_examples=30, deadline=None)
@given(ARRAYS, ARRAYS)
def test_merged_histograms_are_those_of_all_values(first, second):
    merged = observed([first])
    merged.merge(observed([second]))
    both = observed([first, second])
    assert np.array_equal(merged.counts, both.counts)
    assert (merged.low, merged.high, merged.reach) == (both.low, both.high, both.reach)


@settings(max_examples=40, deadline=None)
@given(ARRAYS)
def test_each_value_lies_in_its_bin(values):
    histogram = observed([values])
    width = 2 * histogram.reach / len(histogram.counts)
    spread = np.repeat(histogram.centres, histogram.counts)
    assert np.abs(np.sort(values.astype(np.float64)) - spread).max() <= width


def test_channels_have_means_and_magnitudes():
    arrays = [np.random.default_rng(s).normal(size=(2, 3, 4)).astype(np.float32) for s in (0, 1)]
    histogram = observed(arrays, axis=1)
    both = np.concatenate(arrays).transpose(1, 0, 2).reshape(3, -1)
    np.testing.assert_allclose(histogram.means, both.mean(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(histogram.magnitudes, np.abs(both).max(axis=1))


def test_values_that_are_not_finite_are_refused():
    with pytest.raises(UsageError, match="'t' has values that are NaN"):
        Histogram().add(np.array([1, np.nan], np.float32), "t")
