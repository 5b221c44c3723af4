"""What must be expected to change, for margins from a known distribution and known errors."""

import math

import numpy as np
import pytest

from aotc.quantize.margins import clear_scale, expected_changes


@pytest.mark.parametrize("error", [0.02, 0.1, 0.3])
def test_the_estimate_bounds_what_a_large_sample_shows(error):
    random = np.random.default_rng(0)
    many = random.uniform(0, 8, 400_000)
    truth = (many + random.normal(0, error, many.size) < 0).mean()
    estimates = []
    for _ in range(200):
        margins = random.uniform(0, 8, 100)
        moved = margins + random.normal(0, error, 100)
        estimates.append(expected_changes(margins, moved) / 100)
    assert np.mean(np.array(estimates) > truth) > 0.85
    assert truth < np.median(estimates) < 3 * truth


def test_nothing_is_expected_where_nothing_moves_or_can_be_told():
    margins = np.linspace(0.1, 3, 100)
    assert expected_changes(margins, margins) == 0
    assert expected_changes(margins[:10], margins[:10] - 1) == 0
    assert expected_changes(np.full(100, np.inf), np.full(100, np.inf)) == 0


def test_probabilities_count_by_their_logarithms():
    np.testing.assert_allclose(clear_scale(np.array([0.25, 0.5])), [math.log(0.25), math.log(0.5)])
    assert clear_scale(np.array([0.0, 1.0]))[0] < -60
    np.testing.assert_array_equal(clear_scale(np.array([-1.0, 0.5])), [-1.0, 0.5])
    np.testing.assert_array_equal(clear_scale(np.array([0.5, 12.0])), [0.5, 12.0])
