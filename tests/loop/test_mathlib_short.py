"""The short exponential against float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aotc.graph.types import DType
from aotc.loop.eval import run_kernel
from aotc.loop.ir import Buffer, For, Kernel, Load, Store, Var
from aotc.loop.mathlib_short import EXP2_ERROR, LEAST, MOST, exp2


def powers(x, factor):
    """2^(x * factor) as the kernel computes it."""
    x = np.asarray(x, np.float32)
    source, target = (Buffer(name, DType.F32, x.size) for name in "xy")
    i = Var("i")
    body = (For(i, x.size, (Store(target, i, exp2(Load(source, i), factor)),)),)
    y = np.zeros(x.size, np.float32)
    run_kernel(Kernel("k", (source, target), frozenset({target}), body), [x, y])
    return y


@pytest.mark.parametrize("factor", [1.0, 1.4426950408889634, 0.18033688])
def test_error_is_a_fraction_of_the_last_place_of_eleven_bits(factor):
    x = np.linspace(LEAST, MOST, 60001) / factor
    x = x.astype(np.float32)
    x = x[(x * factor > LEAST + 0.5) & (x * factor < MOST - 0.5)]
    exponent = x.astype(np.float64) * np.float32(factor)
    wanted = 2.0**exponent
    found = powers(x, factor)
    assert np.max(np.abs(found / wanted - 1)) < EXP2_ERROR
    inside = np.abs(exponent) < 14  # normal numbers of float16
    rounded, place = found[inside].astype(np.float16), np.spacing(wanted[inside].astype(np.float16))
    error = np.abs(rounded - wanted[inside]) / place.astype(np.float64)
    assert 0.5 < error.max() < 0.67


@settings(max_examples=20, deadline=None)
@given(st.floats(-(2.0**100), -126.5, width=32), st.sampled_from([0.1, 1.0, 3.5]))
def test_far_below_the_range_nothing_is_left_that_counts(x, factor):
    found = powers([x / factor, -np.inf, -3.4028235e38], factor)
    assert np.all((found >= 0) & (found < 2.0**-124))
