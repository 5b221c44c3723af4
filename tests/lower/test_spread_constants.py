"""Constants that repeat over short innermost axes: the sweep is one row, the numbers are the
same."""

import re

import numpy as np
import pytest

import aotc

MEAN, STD = np.float32([0.5, 0.25, 2.0]), np.float32([3.0, 0.5, 1.5])
COLUMN = np.linspace(0, 1, 48, dtype=np.float32)[:, None]
IMAGE = np.random.default_rng(0).random((5, 48, 3)).astype(np.float32)


def swept(graph, **choices):
    """The active lanes of the vectors in a compiled graph."""
    text = aotc.compile(graph, **choices).as_text("loops")
    return {int(count) for count in re.findall(r"for v in 0\.\.(\d+) vector", text)}


CASES = {
    "channels": lambda x: (x - MEAN) / STD,
    "columns": lambda x: x * COLUMN + MEAN,
    "doubles": lambda x: x.astype(np.float64) * MEAN.astype(np.float64),
    "flags": lambda x: np.where(np.array([True, False, True]), x, -x),
    "rows stay apart": lambda x: x * np.arange(5, dtype=np.float32)[:, None, None] - MEAN,
    "reversed": lambda x: x + COLUMN[::-1],
}


@pytest.mark.parametrize("name", CASES)
def test_short_rows_with_constants(name):
    function = CASES[name]
    compiled = aotc.compile(aotc.trace(function, IMAGE))
    np.testing.assert_allclose(compiled(IMAGE), function(IMAGE), rtol=2e-7)
    assert min(swept(aotc.trace(function, IMAGE))) >= 4


def test_odd_rows_are_written_out_whole():
    x = IMAGE[:, :13]
    graph = aotc.trace(CASES["channels"], x)
    np.testing.assert_allclose(aotc.compile(graph)(x), CASES["channels"](x), rtol=2e-7)
    assert swept(graph) == {8, 3}  # 195 elements: vectors of 8 and a rest


def test_where_it_does_not_pay():
    graph = aotc.trace(CASES["channels"], IMAGE)
    assert swept(graph, opt="size") == {3}
    long = np.zeros((2, 5001, 3), np.float32)
    weights = np.linspace(1, 2, 5001, dtype=np.float32)[:, None]
    assert 3 in swept(aotc.trace(lambda x: x * weights, long))
    # what is known at run time only stays as it is
    two = aotc.trace(lambda x, mean: x - mean, IMAGE, MEAN)
    assert swept(two) == {3}
