"""Arg reductions and rankings: lowered kernels against the reference, element by element."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from move_cases import Swapped, build, check, lowered, numbers, tensors

from aotc.graph import ops
from aotc.loop.ir import For, Kind

FEW = settings(max_examples=25, deadline=None)
#: Along lines this long the lanes run: long enough for every type, and no multiple of a vector.
LONG_SHAPE = (3, 283)


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


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "int64", "float16", "uint8"])
@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize(
    "make",
    [
        lambda axis: ops.ArgReduce("max", axis, False),
        lambda axis: ops.ArgReduce("min", axis, True),
        lambda axis: ops.TopK(3, axis, True),
        lambda axis: ops.TopK(5, axis, False),
    ],
)
def test_native_code_gives_the_same(make, axis, dtype):
    check(make(axis), numbers(dtype, (5, 3, 11), 7, special=True), native=True)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "uint64"])
@pytest.mark.parametrize("fn", ["max", "min"])
@pytest.mark.parametrize("last", [False, True])
def test_long_lines(fn, last, dtype):
    op = ops.ArgReduce(fn, 1, last)
    check(op, numbers(dtype, LONG_SHAPE, 3), native=True)
    check(op, numbers(dtype, LONG_SHAPE, 4, special=True), native=True)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "uint64"])
@pytest.mark.parametrize("largest", [False, True])
def test_rankings_of_long_lines(largest, dtype):
    everything = ops.TopK(283, 1, largest)
    for special in (False, True):
        values = numbers(dtype, LONG_SHAPE, 5, special)
        check(everything, values, native=True, interpreted=False)
    check(ops.TopK(2, 1, largest), numbers(dtype, (1, 283), 6, special=True))


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 0.0])
def test_lines_of_one_value(value):
    for shape in ((4, 5), (2, 200)):
        values = np.full(shape, value, np.float32)
        for fn, last in (("max", False), ("min", False), ("max", True), ("min", True)):
            check(ops.ArgReduce(fn, 1, last), values)
        for largest in (True, False):
            check(ops.TopK(3, 1, largest), values)


@pytest.mark.parametrize("place", [0, 7, 8, 127, 128, 282])
def test_the_only_best_is_found_wherever_it_is(place):
    values = np.zeros((1, 283), np.float32)
    values[0, place] = 1
    check(ops.ArgReduce("max", 1, False), values)
    check(ops.ArgReduce("max", 1, True), values)
    check(ops.TopK(2, 1, True), values)


def test_rank_everything_including_extreme_integers():
    limits = np.iinfo(np.int32)
    values = np.array([limits.max, limits.min, 0, limits.max, limits.min, 3], np.int32)
    for largest in (True, False):
        check(ops.TopK(6, 0, largest), values, native=True)


@pytest.mark.parametrize("shape, axis", [((7, 64), 0), ((64, 7), 1), ((2, 300), 1)])
def test_lines_are_searched_by_vectors(shape, axis):
    graph, _ = build(ops.ArgReduce("max", axis, False), np.zeros(shape, np.float32))
    (call,) = lowered(graph).calls
    assert Kind.VECTOR in kinds(call.kernel.body)


def kinds(body):
    found = set()
    for stmt in body:
        if isinstance(stmt, For):
            found.add(stmt.kind)
        found |= kinds(getattr(stmt, "body", ()))
    return found
