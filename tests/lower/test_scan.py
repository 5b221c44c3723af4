"""Running sums, arg reductions and rankings: lowered kernels against the reference, element by element."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from move_cases import Swapped, check, lowered, build, numbers

from aotc.graph import ops
from aotc.loop.ir import For, Kind

FEW = settings(max_examples=25, deadline=None)
DTYPES = st.sampled_from(["float32", "float64", "int32", "int64", "uint8", "int8", "float16"])


@st.composite
def tensors(draw, special=True):
    """(array, axis, or the array behind a transposing view)."""
    shape = tuple(draw(st.lists(st.integers(1, 9), min_size=1, max_size=3)))
    values = numbers(draw(DTYPES), shape, draw(st.integers(0, 999)), special)
    axis = draw(st.integers(0, len(shape) - 1))
    return (Swapped(values) if draw(st.booleans()) else values), axis


@FEW
@given(tensors(special=False), st.booleans(), st.booleans())
def test_running_sums(tensor, exclusive, reverse):
    values, axis = tensor
    check(ops.CumSum(axis, exclusive, reverse), values)


@FEW
@given(tensors(), st.sampled_from(["max", "min"]), st.booleans())
def test_arg_reductions_with_ties_and_nans(tensor, fn, last):
    values, axis = tensor
    check(ops.ArgReduce(fn, axis, last), values)


@FEW
@given(tensors(), st.booleans(), st.data())
def test_rankings_with_ties_and_nans(tensor, largest, data):
    values, axis = tensor
    size = (values.values if isinstance(values, Swapped) else values).shape[axis]
    check(ops.TopK(data.draw(st.integers(1, size)), axis, largest), values)


@pytest.mark.parametrize("dtype", ["float32", "int64", "float16", "uint8"])
@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize(
    "make",
    [
        lambda axis: ops.CumSum(axis, False, True),
        lambda axis: ops.CumSum(axis, True, False),
        lambda axis: ops.ArgReduce("max", axis, False),
        lambda axis: ops.ArgReduce("min", axis, True),
        lambda axis: ops.TopK(3, axis, True),
        lambda axis: ops.TopK(5, axis, False),
    ],
)
def test_native_code_gives_the_same(make, axis, dtype):
    op = make(axis)
    special = not isinstance(op, ops.CumSum)
    check(op, numbers(dtype, (5, 3, 11), 7, special), native=True)


def test_rank_everything_including_extreme_integers():
    limits = np.iinfo(np.int32)
    values = np.array([limits.max, limits.min, 0, limits.max, limits.min, 3], np.int32)
    for largest in (True, False):
        check(ops.TopK(6, 0, largest), values, native=True)


def test_lines_beside_a_contiguous_axis_are_taken_by_vectors():
    graph, _ = build(ops.ArgReduce("max", 0, False), np.zeros((7, 64), np.float32))
    (call,) = lowered(graph).calls
    assert Kind.VECTOR in kinds(call.kernel.body)


def kinds(body):
    found = set()
    for stmt in body:
        if isinstance(stmt, For):
            found.add(stmt.kind)
        found |= kinds(getattr(stmt, "body", ()))
    return found
