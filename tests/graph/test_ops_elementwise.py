"""The meaning of elementwise primitives where numpy, C and ONNX could disagree."""

from __future__ import annotations

import math

import numpy as np
import pytest

from aotc.graph import ops
from aotc.graph.types import DType, TensorType

INT_MIN = np.iinfo(np.int32).min


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


@pytest.mark.parametrize(
    ("fn", "a", "b", "expected"),
    [
        ("div", ints(7, -7, 7, -7, 6), ints(2, 2, -2, -2, -3), [3, -3, -3, 3, -2]),
        ("div", ints(5, -5, 0), ints(0, 0, 0), [0, 0, 0]),
        ("div", ints(INT_MIN, INT_MIN), ints(-1, 3), [INT_MIN, -715827882]),
        ("mod", ints(7, -7, 7, -7, 3), ints(3, 3, -3, -3, 0), [1, 2, -2, -1, 0]),
        ("fmod", ints(7, -7, 7, -7, 3), ints(3, 3, -3, -3, 0), [1, -1, 1, -1, 0]),
        ("pow", ints(2, -3, 2, 1), ints(5, 3, -1, -4), [32, -27, 0, 1]),
        ("pow", ints(-1, -1, 0), ints(-3, -2, -1), [-1, 1, 0]),
        ("add", ints(2**31 - 1), ints(1), [INT_MIN]),
        ("shl", ints(1, 1), ints(4, 32), [16, 0]),
        ("shr", ints(-8, -8), ints(1, 40), [-4, -1]),
    ],
)
def test_integer_arithmetic(fn: str, a: np.ndarray, b: np.ndarray, expected: list[int]) -> None:
    assert ops.Binary(fn).evaluate(a, b).tolist() == expected


def test_unsigned_division_and_power() -> None:
    a, b = np.array([200, 9], np.uint8), np.array([7, 0], np.uint8)
    assert ops.Binary("div").evaluate(a, b).tolist() == [28, 0]
    assert ops.Binary("pow").evaluate(a, b).tolist() == [200**7 % 256, 1]


def test_nan_wins_in_min_and_max() -> None:
    a, b = np.array([np.nan, 1.0]), np.array([1.0, np.nan])
    assert np.isnan(ops.Binary("min").evaluate(a, b)).all()
    assert np.isnan(ops.Binary("max").evaluate(a, b)).all()


def test_float_mod_follows_divisor_and_fmod_dividend() -> None:
    a, b = np.array([-5.5, 5.5]), np.array([2.0, -2.0])
    assert ops.Binary("mod").evaluate(a, b).tolist() == [0.5, -0.5]
    assert ops.Binary("fmod").evaluate(a, b).tolist() == [-1.5, 1.5]


def test_erf_is_rounded_from_double() -> None:
    x = np.linspace(-4, 4, 41, dtype=np.float32)
    expected = np.array([math.erf(float(value)) for value in x], np.float32)
    np.testing.assert_array_equal(ops.Unary("erf").evaluate(x), expected)


def test_sigmoid_at_the_ends() -> None:
    x = np.array([-1000, -88, 0, 1000], np.float32)
    result = ops.Unary("sigmoid").evaluate(x)
    np.testing.assert_allclose(result, [0, math.exp(-88), 0.5, 1], rtol=1e-5)


def test_round_is_half_to_even() -> None:
    x = np.array([0.5, 1.5, 2.5, -0.5, -1.5], np.float32)
    assert ops.Unary("round").evaluate(x).tolist() == [0, 2, 2, 0, -2]


def test_float_to_integer_truncates_and_saturates() -> None:
    x = np.array([1.9, -1.9, 1e30, -1e30, np.nan, np.inf, -np.inf], np.float32)
    top, low = 2**63 - 1, -(2**63)
    expected = [1, -1, top, low, 0, top, low]
    assert ops.Cast(DType.I64).evaluate(x).tolist() == expected
    assert ops.Cast(DType.U8).evaluate(x).tolist() == [1, 0, 255, 0, 0, 255, 0]
    assert ops.Cast(DType.U64).evaluate(x).tolist() == [1, 0, 2**64 - 1, 0, 0, 2**64 - 1, 0]


def test_cast_to_bool_and_narrow() -> None:
    assert ops.Cast(DType.BOOL).evaluate(np.array([0.0, -0.0, 0.2, np.nan])).tolist() == [
        False,
        False,
        True,
        True,
    ]
    assert ops.Cast(DType.I8).evaluate(np.array([300, -129])).tolist() == [44, 127]


def test_comparisons_with_nan() -> None:
    x = np.array([np.nan])
    for fn in ("eq", "lt", "le", "gt", "ge"):
        assert not ops.Compare(fn).evaluate(x, x)[0]
    assert ops.Compare("ne").evaluate(x, x)[0]


def test_bits_keep_their_value_and_need_the_same_size() -> None:
    x = np.array([1.0, -0.0], np.float32)
    assert ops.Bitcast(DType.U32).evaluate(x).tolist() == [0x3F800000, 0x80000000]
    single = TensorType(DType.F32, (2,))
    assert ops.Bitcast(DType.I32).infer(single) == TensorType(DType.I32, (2,))
    for dtype in (DType.F64, DType.BF16, DType.BOOL):
        with pytest.raises(ValueError, match="size|bool"):
            ops.Bitcast(dtype).infer(single)


def test_another_name_for_stored_integers() -> None:
    short, stored = TensorType(DType.BF16, (1,)), TensorType(DType.U16, (1,))
    assert ops.Relabel(DType.U16).infer(short) == stored
    assert ops.Relabel(DType.BF16).infer(stored) == short
    assert ops.Relabel(DType.U16).evaluate(np.array([1], DType.BF16.numpy)).tolist() == [0x3F80]
    for dtype, operand in ((DType.I16, short), (DType.F16, short), (DType.U16, stored)):
        with pytest.raises(ValueError, match="is not stored as"):
            ops.Relabel(dtype).infer(operand)


def test_arithmetic_takes_narrow_floats_but_not_narrow_integers() -> None:
    x = np.array([1, 2.5], DType.BF16.numpy)
    result = ops.Unary("exp").evaluate(x)
    np.testing.assert_array_equal(result, np.exp(x.astype(np.float32)).astype(x.dtype))
    four = TensorType(DType.I4, (2,))
    for op in (ops.Binary("add"), ops.Binary("shl")):
        with pytest.raises(ValueError, match="needs whole bytes"):
            op.infer(four, four)
