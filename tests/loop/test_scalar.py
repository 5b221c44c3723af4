"""The scalar constructors: clamping keeps NaN, signs are copied bit by bit, Horner's rule in
order."""

from __future__ import annotations

import numpy as np
import pytest
from loop_cases import F32

from aotc.loop import scalar
from aotc.loop.eval import run_kernel
from aotc.loop.ir import Buffer, Conv, Fma, For, Kernel, Lit, Load, Store, Var


def apply(fn, values):
    x, y = Buffer("x", F32, len(values)), Buffer("y", F32, len(values))
    i = Var("i")
    body = (For(i, len(values), (Store(y, i, fn(Load(x, i))),)),)
    result = np.zeros(len(values), np.float32)
    run_kernel(Kernel("k", (x, y), frozenset({y}), body), [np.float32(values), result])
    return result


def test_clamp_limits_and_keeps_nan():
    got = apply(lambda x: scalar.clamp(x, -1.0, 2.0), [-np.inf, -1, 0.5, 2.5, np.nan])
    assert np.array_equal(got, np.float32([-1, -1, 0.5, 2, np.nan]), equal_nan=True)


def test_copy_sign_takes_the_sign_bit_of_zero_too():
    got = apply(lambda x: scalar.copy_sign(scalar.absolute(x), scalar.const(-0.0, x)), [3, -4, 0])
    assert got.tolist() == [-3, -4, 0] and np.signbit(got).all()


def test_poly_is_one_fma_a_coefficient():
    expr = scalar.poly(Lit(2.0, F32), (1.0, 2.0, 3.0))
    assert isinstance(expr, Fma) and isinstance(expr.a, Fma)
    assert apply(lambda x: scalar.poly(x, (1.0, 2.0, 3.0)), [2, -1]).tolist() == [17, 2]


def test_convert_to_the_same_type_is_nothing():
    x = Lit(1.0, F32)
    assert scalar.convert(x, F32) is x
    assert isinstance(scalar.convert(Lit(1), F32), Conv)


def test_select_of_two_numbers_has_no_type():
    with pytest.raises(ValueError, match="needs an expression"):
        scalar.select(scalar.is_nan(Lit(1.0, F32)), 1.0, 2.0)
