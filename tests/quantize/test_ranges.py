"""Ranges of codes, by each method, against what the values themselves say."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aotc.quantize.codes import CODE_TYPES, coding_for
from aotc.quantize.observe import Histogram
from aotc.quantize.ranges import METHODS, choose_range

UINT8 = CODE_TYPES["uint8"]


def observed(values):
    histogram = Histogram()
    histogram.add(np.asarray(values, np.float32))
    return histogram


def error(values, ends, code=UINT8):
    coding = coding_for(*ends, code)
    return np.mean(np.square(coding.restore(coding.round(values)) - values))


@settings(max_examples=60, deadline=None)
@given(
    st.floats(-(2.0**100), 2.0**100, width=32),
    st.floats(-(2.0**100), 2.0**100, width=32),
    st.sampled_from(sorted(CODE_TYPES)),
)
def test_codings_have_an_exact_zero_and_reach_both_ends(low, high, name):
    low, high = min(low, high), max(low, high)
    coding = coding_for(low, high, CODE_TYPES[name])
    assert coding.restore(coding.round(np.zeros(1))) == 0
    assert coding.scale > 0 and np.isfinite(coding.scale)
    ends = np.array([min(low, 0), max(high, 0)])
    assert np.abs(coding.restore(coding.round(ends)) - ends).max() <= coding.scale * 1.0001


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=300),
    st.sampled_from(METHODS),
    st.sampled_from(sorted(CODE_TYPES)),
)
def test_ranges_have_zero_in_them_and_stay_within_the_values(values, method, name):
    low, high = choose_range(observed(values), method, CODE_TYPES[name])
    assert min(min(values), 0) <= low <= 0 <= high <= max(max(values), 0)


def test_minmax_covers_everything():
    assert choose_range(observed([-1.5, 2.25, 0.5]), "minmax", UINT8) == (-1.5, 2.25)
    assert choose_range(observed([2.0, 3.0]), "minmax", UINT8) == (0.0, 3.0)


def test_percentile_leaves_out_as_many_as_it_says():
    values = np.random.default_rng(0).normal(size=100_000).astype(np.float32)
    low, high = choose_range(observed(values), "percentile", UINT8, 99.0)
    expected = np.percentile(values, [0.5, 99.5])
    np.testing.assert_allclose([low, high], expected, atol=0.01)


def test_least_error_is_better_than_everything_with_outliers():
    random = np.random.default_rng(0)
    values = np.append(random.normal(size=100_000), [40.0, -35.0]).astype(np.float32)
    ends = choose_range(observed(values), "mse", UINT8)
    tried = [(values.min() * s, values.max() * s) for s in np.linspace(0.05, 1, 96)]
    best = min(error(values, pair) for pair in tried)
    assert error(values, ends) < 0.9 * error(values, (values.min(), values.max()))
    assert error(values, ends) <= 1.05 * best


def test_entropy_cuts_a_long_tail_and_keeps_a_uniform_range():
    random = np.random.default_rng(0)
    tail = np.append(random.exponential(size=200_000), [60.0]).astype(np.float32)
    assert choose_range(observed(tail), "entropy", UINT8)[1] < 30
    even = random.uniform(0, 10, 200_000)
    assert choose_range(observed(even), "entropy", UINT8)[1] > 9


@pytest.mark.parametrize("method", METHODS)
def test_a_tensor_of_zeros_has_a_coding(method):
    assert choose_range(observed([0.0, 0.0]), method, UINT8) == (0.0, 0.0)
    assert coding_for(0.0, 0.0, UINT8).scale == 1
