"""Running sums: lowered kernels against the reference, element by element."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from move_cases import check, numbers, tensors

from aotc.graph import ops


@settings(max_examples=25, deadline=None)
@given(tensors(special=False), st.booleans(), st.booleans())
def test_running_sums(tensor, exclusive, reverse):
    values, axis = tensor
    check(ops.CumSum(axis, exclusive, reverse), values)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "int64", "float16", "uint8"])
@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("exclusive", [False, True])
def test_native_code_gives_the_same(exclusive, axis, dtype):
    op = ops.CumSum(axis, exclusive, reverse=not exclusive)
    check(op, numbers(dtype, (5, 3, 11), 7), native=True)


def test_a_running_sum_keeps_negative_zeros_and_rounds_in_order():
    values = np.array([-0.0, -0.0, 1e8, 1.0, -1e8, np.inf, -np.inf, 1.0], np.float32)
    program = check(ops.CumSum(0, False, False), values, native=True)
    assert len(program.calls) == 1
