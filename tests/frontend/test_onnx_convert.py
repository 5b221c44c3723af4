"""ONNX conversions between element types against the tables of the standard and its reference."""

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx_cases import build, case, expected, run_file, save

from aotc.errors import ModelError
from aotc.frontend.tensors import DTYPES

FLOAT8 = ["FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ"]
LARGEST = {"FLOAT8E4M3FN": 448, "FLOAT8E4M3FNUZ": 240, "FLOAT8E5M2": 57344, "FLOAT8E5M2FNUZ": 57344}
SPECIAL = np.array([0, -0.0, np.nan, np.inf, -np.inf, 1e9, -1e9, 1.3, -500, 2e-9], np.float32)
MAX_SCALE, MIN_SCALE = 2.0**127, 2.0**-127


def number(name):
    return TensorProto.DataType.Value(name)


def converted(folder, x, **attrs):
    """What the imported Cast gives."""
    model, feeds = build(case("Cast", 24, x, **attrs))
    (result,) = run_file(save(model, folder), feeds)
    assert result.dtype == DTYPES[attrs["to"]].numpy
    return result


def same(found, right):
    """Equal numbers with equal signs; every NaN is the same."""
    found, right = found.astype(np.float32), right.astype(np.float32)
    np.testing.assert_array_equal(found, right)
    numbers = ~np.isnan(found)
    np.testing.assert_array_equal(np.signbit(found[numbers]), np.signbit(right[numbers]))


@pytest.mark.parametrize("saturate", [1, 0])
@pytest.mark.parametrize("name", FLOAT8)
@pytest.mark.parametrize("source", [np.float32, np.float16, ml_dtypes.bfloat16, np.float64])
def test_float8_agrees_with_the_reference(tmp_path, source, name, saturate):
    with np.errstate(over="ignore"):
        x = np.concatenate([SPECIAL, np.random.default_rng(0).normal(size=99) * 300]).astype(source)
    found = converted(tmp_path, x, to=number(name), saturate=saturate)
    oracle = case("Cast", 24, x, to=number(name), saturate=saturate, oracle="onnx")
    same(found, expected(oracle, *build(oracle))[0])


@pytest.mark.parametrize("name", FLOAT8)
def test_the_tables_of_the_standard(tmp_path, name):
    x = np.array([np.nan, np.inf, -np.inf, 1e9, -1e9], np.float32)
    most = LARGEST[name]
    limited = converted(tmp_path, x, to=number(name), saturate=1).astype(np.float32)
    np.testing.assert_array_equal(limited, [np.nan, most, -most, most, -most])
    plain = converted(tmp_path, x, to=number(name), saturate=0).astype(np.float32)
    beyond = np.inf if name == "FLOAT8E5M2" else np.nan
    np.testing.assert_array_equal(plain, [np.nan, beyond, -beyond, beyond, -beyond])


@pytest.mark.parametrize(
    "mode, saturate, right",
    [
        ("up", 1, [MIN_SCALE, MAX_SCALE, np.nan, MIN_SCALE, 1, 2, 2, 4, MIN_SCALE, 2.0**-126]),
        ("down", 1, [MIN_SCALE, MAX_SCALE, np.nan, MIN_SCALE, 1, 1, 1, 2, MIN_SCALE, MIN_SCALE]),
        ("nearest", 1, [MIN_SCALE, MAX_SCALE, np.nan, MIN_SCALE, 1, 1, 2, 4, MIN_SCALE, 2.0**-126]),
        ("nearest", 0, [np.nan, np.nan, np.nan, np.nan, 1, 1, 2, 4, MIN_SCALE, 2.0**-126]),
    ],
)
def test_powers_of_two(tmp_path, mode, saturate, right):
    x = [0, np.inf, np.nan, 2.0**-128, 1, 1.4, 1.5, 3, MIN_SCALE, 1.5 * MIN_SCALE]
    attrs = {"to": TensorProto.FLOAT8E8M0, "round_mode": mode, "saturate": saturate}
    found = converted(tmp_path, np.array(x, np.float32), **attrs)
    np.testing.assert_array_equal(found.astype(np.float32), np.array(right, np.float32))


@pytest.mark.parametrize("mode", ["up", "down", "nearest"])
@pytest.mark.parametrize("saturate", [1, 0])
def test_powers_of_two_agree_with_the_reference(tmp_path, mode, saturate):
    x = np.exp(np.random.default_rng(0).uniform(-80, 80, 999)).astype(np.float32)
    attrs = {"to": TensorProto.FLOAT8E8M0, "round_mode": mode, "saturate": saturate}
    found = converted(tmp_path, x, **attrs)
    same(found, onnx.numpy_helper.to_float8e8m0(x, bool(saturate), mode))


def test_an_unknown_rounding_mode(tmp_path):
    with pytest.raises(ModelError, match="'round_mode' must be up, down or nearest"):
        converted(tmp_path, SPECIAL, to=TensorProto.FLOAT8E8M0, round_mode="odd")


@pytest.mark.parametrize("name", ["INT4", "UINT4", "INT2", "UINT2"])
@pytest.mark.parametrize("source", [np.float32, np.float16, np.int8, np.int64, ml_dtypes.bfloat16])
def test_integers_keep_their_low_bits(tmp_path, source, name):
    x = np.arange(-20, 20).astype(source)
    found = converted(tmp_path, x, to=number(name))
    bits = DTYPES[number(name)].size_bits
    assert ((found.astype(np.int64) - np.arange(-20, 20)) % (1 << bits) == 0).all()


def test_the_type_of_another_tensor(tmp_path):
    like = np.zeros(1, ml_dtypes.float8_e5m2)
    model, feeds = build(case("CastLike", 19, SPECIAL, like, saturate=0))
    (found,) = run_file(save(model, tmp_path), feeds)
    with np.errstate(over="ignore"):
        same(found, SPECIAL.astype(like.dtype))


@pytest.mark.parametrize(
    "x, to, right",
    [
        (np.array([1.0, -0.0], np.float32), "INT32", np.array([0x3F800000, -(2**31)], np.int32)),
        (np.array([0x3F80, 0x8000], np.uint16), "BFLOAT16", np.array([1, -0.0])),
        (np.array([0x3C00], np.int16), "FLOAT16", np.array([1.0])),
        (np.array([True, False]), "UINT8", np.array([1, 0])),
        (np.array([0, 1, 2], np.uint8), "BOOL", np.array([False, True, True])),
        (np.array([-1, 3]).astype(ml_dtypes.int4), "UINT4", np.array([15, 3])),
        (np.array([1.5, -6]).astype(ml_dtypes.float4_e2m1fn), "INT4", np.array([3, -1])),
        (np.array([1.0]), "DOUBLE", np.array([1.0])),
    ],
)
def test_bits_as_another_type(tmp_path, x, to, right):
    model, feeds = build(case("BitCast", 26, x, to=number(to)))
    (found,) = run_file(save(model, tmp_path), feeds)
    assert found.dtype == DTYPES[number(to)].numpy
    np.testing.assert_array_equal(found.astype(np.float64), right.astype(np.float64))


def test_bits_of_another_size_are_refused(tmp_path):
    model, _ = build(case("BitCast", 26, np.zeros(2, np.float32), to=TensorProto.INT16))
    with pytest.raises(ModelError, match="differ in size"):
        run_file(save(model, tmp_path), {})
