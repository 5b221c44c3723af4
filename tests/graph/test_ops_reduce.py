"""The meaning of reductions, windows, products and rankings against plain loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from graph_cases import conv, reduce_window
from hypothesis import given, settings
from hypothesis import strategies as st

from aotc.graph import ops
from aotc.graph.ir import Op
from aotc.graph.types import TensorType


def small_integers(type_: TensorType, seed: int) -> np.ndarray:
    """Values whose sums and products are exact in every element type."""
    rng = np.random.default_rng(seed)
    return np.asarray(rng.integers(0, 3, type_.dims), dtype=type_.dtype.numpy)


def slow_conv(op: ops.Conv, data: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The definition, one product at a time, channels first, skipping the padding."""
    (outputs, per_group, *window), result_type = weights.shape, data.dtype
    sizes = data.shape[2:]
    fields = list(zip(sizes, window, op.strides, op.low, op.high, op.dilation, strict=True))
    extents = [(n + lo + hi - ((w - 1) * d + 1)) // s + 1 for n, w, s, lo, hi, d in fields]
    result = np.zeros((data.shape[0], outputs, *extents), result_type)
    for batch, out, *position in np.ndindex(*result.shape):
        group = out // (outputs // op.groups)
        for channel, *tap in itertools.product(range(per_group), *map(range, window)):
            at = [
                p * s + t * d - lo
                for p, t, (_, _, s, lo, _, d) in zip(position, tap, fields, strict=True)
            ]
            if all(0 <= i < n for i, n in zip(at, sizes, strict=True)):
                value = data[(batch, group * per_group + channel, *at)]
                result[(batch, out, *position)] += value * weights[(out, channel, *tap)]
    return result


@settings(max_examples=25, deadline=None)
@given(conv(), st.integers(0, 99))
def test_conv_is_its_definition(application: tuple[Op, tuple], seed: int) -> None:
    op, (data_type, weights_type) = application
    assert isinstance(op, ops.Conv)
    data, weights = small_integers(data_type, seed), small_integers(weights_type, seed + 1)
    first = np.moveaxis(data, -1, 1) if op.channels_last else data
    expected = slow_conv(op, first, weights)
    expected = np.moveaxis(expected, 1, -1) if op.channels_last else expected
    np.testing.assert_array_equal(op.evaluate(data, weights), expected)


@settings(max_examples=40, deadline=None)
@given(reduce_window(), st.integers(0, 99))
def test_reduce_window_is_its_definition(application: tuple[Op, tuple], seed: int) -> None:
    op, (type_,) = application
    assert isinstance(op, ops.ReduceWindow)
    x = small_integers(type_, seed)
    expected = np.empty(op.infer(type_).dims, x.dtype)
    lowest = -np.inf if type_.dtype.is_float else np.iinfo(x.dtype).min
    for position in np.ndindex(*expected.shape):
        inside = [0 if op.fn == "sum" else lowest]
        for tap in np.ndindex(*op.window):
            at = tuple(
                p * s + t * d - lo
                for p, t, s, d, lo in zip(
                    position, tap, op.strides, op.dilation, op.low, strict=True
                )
            )
            if all(0 <= i < n for i, n in zip(at, x.shape, strict=True)):
                inside.append(x[at])
        expected[position] = sum(inside) if op.fn == "sum" else max(inside)
    np.testing.assert_array_equal(op.evaluate(x), expected)


def test_integer_sum_wraps_in_its_own_type() -> None:
    x = np.array([[100, 100], [1, 2]], np.int8)
    assert ops.Reduce("sum", (1,)).evaluate(x).tolist() == [-56, 3]
    assert ops.CumSum(1, False, False).evaluate(x).tolist() == [[100, -56], [1, 3]]


def test_reduce_of_every_axis_and_of_nothing() -> None:
    x = np.array([[True, False], [True, True]])
    assert ops.Reduce("and", (0, 1)).evaluate(x).shape == ()
    assert ops.Reduce("and", (0,)).evaluate(x).tolist() == [True, False]
    assert ops.Reduce("or", (1,)).evaluate(x).tolist() == [True, True]
    assert ops.Reduce("prod", (0,)).evaluate(np.ones((0, 2), np.float32)).tolist() == [1, 1]


@pytest.mark.parametrize(("fn", "last", "expected"), [("max", False, 1), ("max", True, 3)])
def test_arg_reduce_ties(fn: str, last: bool, expected: int) -> None:
    assert ops.ArgReduce(fn, 0, last).evaluate(np.array([1, 5, 2, 5])) == expected


@pytest.mark.parametrize(
    ("exclusive", "reverse", "expected"),
    [
        (False, False, [1, 3, 6]),
        (True, False, [0, 1, 3]),
        (False, True, [6, 5, 3]),
        (True, True, [5, 3, 0]),
    ],
)
def test_cum_sum_variants(exclusive: bool, reverse: bool, expected: list[int]) -> None:
    x = np.array([[1, 2, 3]])
    assert ops.CumSum(1, exclusive, reverse).evaluate(x).tolist() == [expected]


def test_top_k_breaks_ties_by_index() -> None:
    x = np.array([3, 1, 3, 2, 1])
    assert ops.TopK(4, 0, True).evaluate(x).tolist() == [0, 2, 3, 1]
    assert ops.TopK(4, 0, False).evaluate(x).tolist() == [1, 4, 3, 0]


def test_dot_is_batched() -> None:
    a = np.arange(12.0, dtype=np.float32).reshape(2, 2, 3)
    b = np.arange(24.0, dtype=np.float32).reshape(2, 3, 4)
    np.testing.assert_array_equal(ops.Dot().evaluate(a, b), np.einsum("bmk,bkn->bmn", a, b))
