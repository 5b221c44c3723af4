"""ONNX quantisation against ONNX Runtime and ONNX's reference: every type, every granularity."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx_cases import Const, build, case, check, expected, f32, run_file, save

import aotc
from aotc.errors import AotcError

CASES = [
    *(
        case(
            "QuantizeLinear",
            13,
            f32(2, 3, 4, low=-300, high=300),
            Const(np.array([0.5, 1.0, 2.0], np.float32)),
            Const(np.array([0, 3, 250 if dtype is np.uint8 else -3], dtype)),
            axis=1,
            note=dtype.__name__,
        )
        for dtype in (np.uint8, np.int8)
    ),
    case("QuantizeLinear", 10, f32(5, low=0, high=99), Const(np.float32(0.5)), note="no zero"),
    case(
        "DequantizeLinear",
        13,
        np.arange(12, dtype=np.uint8).reshape(3, 4),
        Const(np.array([0.5, 1, 2, 3], np.float32)),
        Const(np.array([0, 1, 2, 3], np.uint8)),
        axis=-1,
    ),
    case("DequantizeLinear", 10, np.array([1, -5], np.int32), Const(np.float32(0.5))),
    case(
        "DequantizeLinear",
        21,
        np.arange(12, dtype=np.int8).reshape(2, 6),
        Const(f32(2, 2, low=0.1)),
        axis=1,
        block_size=3,
    ),
    case("DynamicQuantizeLinear", 11, f32(3, 4), outputs=3),
    case(
        "QLinearMatMul",
        10,
        np.array([[1, 200], [3, 4]], np.uint8),
        Const(np.float32(0.5)),
        Const(np.array(3, np.uint8)),
        np.array([[5, 6], [7, 250]], np.uint8),
        Const(np.float32(0.25)),
        Const(np.array(2, np.uint8)),
        Const(np.float32(20)),
        Const(np.array(7, np.uint8)),
    ),
    case(
        "QLinearConv",
        10,
        np.arange(32, dtype=np.uint8).reshape(1, 2, 4, 4),
        Const(np.float32(0.5)),
        Const(np.array(3, np.uint8)),
        Const(np.arange(24, dtype=np.uint8).reshape(3, 2, 2, 2)),
        Const(np.array([0.25, 0.5, 1.0], np.float32)),
        Const(np.array([2, 2, 2], np.uint8)),
        Const(np.float32(16)),
        Const(np.array(7, np.uint8)),
        Const(np.array([1, -2, 300], np.int32)),
        pads=[1, 0, 0, 1],
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, tmp_path):
    check(case, tmp_path)


INTEGERS = ["UINT8", "INT8", "UINT16", "INT16", "UINT4", "INT4", "UINT2", "INT2"]
FLOATS = ["FLOAT8E4M3FN", "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT4E2M1"]
AXIS = 1
GRANULARITIES = {"one": ((), {}), "per axis": ((6,), {"axis": AXIS}),
                 "blocks": ((2, 2, 3), {"axis": AXIS, "block_size": 3}),
                 "cut blocks": ((2, 2, 3), {"axis": AXIS, "block_size": 4})}  # fmt: skip


def numpy_of(name):
    return helper.tensor_dtype_to_np_dtype(TensorProto.DataType.Value(name))


def agree(folder, one):
    """The imported case gives what ONNX's reference gives, bit by bit."""
    model, feeds = build(one)
    (found,) = run_file(save(model, folder), feeds)
    (right,) = expected(one, model, feeds)
    assert found.dtype == right.dtype
    np.testing.assert_array_equal(found.astype(np.float64), np.asarray(right).astype(np.float64))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    kind=st.sampled_from(INTEGERS + FLOATS),
    granularity=st.sampled_from(list(GRANULARITIES)),
    real=st.sampled_from([np.float32, np.float16]),
    known=st.booleans(),
    seed=st.integers(0, 99),
)
def test_there_and_back_in_every_type(tmp_path, kind, granularity, real, known, seed):
    rng = np.random.default_rng(seed)
    shape, attrs = GRANULARITIES[granularity]
    scale = np.asarray(2.0 ** rng.integers(-2, 2, shape), real)
    # powers of two and halves of them: many ties between two integers
    x = np.asarray(rng.integers(-40, 40, (2, 6, 3)) / 2 * 2.0 ** rng.integers(0, 4), real)
    points = rng.integers(0, 2, shape) if kind in INTEGERS else np.zeros(shape)
    zero = np.asarray(points, numpy_of(kind))
    maker = Const if known else np.asarray
    operands = maker(scale), maker(zero)
    agree(tmp_path, case("QuantizeLinear", 25, x, *operands, oracle="onnx", **attrs))
    codes = rng.integers(0, 1 << 4, (2, 6, 3)).astype(numpy_of(kind))
    agree(tmp_path, case("DequantizeLinear", 25, codes, *operands, oracle="onnx", **attrs))


@pytest.mark.parametrize("kind", [*INTEGERS, *FLOATS])
def test_the_type_by_attribute(tmp_path, kind):
    number = TensorProto.DataType.Value(kind)
    x, scale = f32(3, 4, low=-9, high=9), np.array(0.5, np.float32)
    agree(tmp_path, case("QuantizeLinear", 25, x, scale, oracle="onnx", output_dtype=number))


@pytest.mark.parametrize("kind", ["FLOAT16", "BFLOAT16", "FLOAT"])
def test_the_result_of_dequantisation_by_attribute(tmp_path, kind):
    x, scale = np.arange(-8, 8, dtype=np.int8), np.array(0.3, np.float32)
    number = TensorProto.DataType.Value(kind)
    agree(tmp_path, case("DequantizeLinear", 23, x, scale, oracle="onnx", output_dtype=number))


@pytest.mark.parametrize("kind", ["FLOAT16", "BFLOAT16", "FLOAT"])
def test_the_division_is_done_in_the_precision_asked_for(tmp_path, kind):
    x, scale = f32(400, low=-9, high=9), np.array(0.07, np.float32)
    zero = np.array(3, np.int8)
    number = TensorProto.DataType.Value(kind)
    agree(tmp_path, case("QuantizeLinear", 25, x, scale, zero, oracle="onnx", precision=number))


def test_powers_of_two_as_scales(tmp_path):
    scale = np.array([0.5, 2, 8], ml_dtypes.float8_e8m0fnu)
    x = f32(2, 3, 4, low=-40, high=40)
    model, feeds = build(case("QuantizeLinear", 25, x, scale, np.zeros(3, np.int8)))
    (found,) = run_file(save(model, tmp_path), feeds)
    right = np.rint(x / scale.astype(np.float32)[:, np.newaxis]).astype(np.int8)
    np.testing.assert_array_equal(found, right)
    model, feeds = build(case("DequantizeLinear", 25, right, scale))
    (found,) = run_file(save(model, tmp_path), feeds)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, right * scale.astype(np.float32)[:, np.newaxis])


def test_sums_with_large_zero_points_are_exact(tmp_path):
    x, scale = np.array([1, 3, -1], np.float16), np.array(1, np.float16)
    zero = np.array(4097, np.uint16)  # float16 has no 4098
    model, feeds = build(case("QuantizeLinear", 21, x, scale, zero))
    (found,) = run_file(save(model, tmp_path), feeds)
    np.testing.assert_array_equal(found, [4098, 4100, 4096])


def test_products_of_float8(tmp_path):
    a = np.array([[1, 2, -0.5]], ml_dtypes.float8_e4m3fn)
    b = np.array([[4], [0.25], [8]], ml_dtypes.float8_e5m2)
    half, zero_a, zero_b = np.float32(0.5), np.zeros((), a.dtype), np.zeros((), b.dtype)
    operands = a, half, zero_a, b, half, zero_b, half, np.zeros((), a.dtype)
    model, feeds = build(case("QLinearMatMul", 21, *(np.asarray(x) for x in operands)))
    (found,) = run_file(save(model, tmp_path), feeds)
    assert found.dtype == a.dtype
    assert found.astype(np.float32).tolist() == [[0.25]]  # (4 + 0.5 - 4) * 0.5 * 0.5 / 0.5


def scale(*values):
    return Const(np.array(values if len(values) > 1 else values[0], np.float32))


def point(dtype, *shape):
    return Const(np.full(shape, 3, dtype))


BYTES = np.arange(6, dtype=np.uint8).reshape(2, 3)
WEIGHTS = Const(np.ones((3, 2), np.int8))


def product(first=0.1, second=(0.1, 0.2), last=0.1, zeros=(np.uint8, np.int8, np.uint8)):
    a, b, y = (point(dtype) for dtype in zeros)
    return case("QLinearMatMul", 21, BYTES, scale(first), a, WEIGHTS, scale(*second), b,
                scale(last), y)  # fmt: skip


@pytest.mark.parametrize(
    "one, expected",
    [
        (case("QuantizeLinear", 21, f32(2, 3), scale(0), point(np.uint8)), "scale is 0.0"),
        (case("QuantizeLinear", 21, f32(2, 3), scale(-0.1), point(np.uint8)), "scale is -0.1"),
        (case("QuantizeLinear", 21, f32(2, 3), scale(np.nan), point(np.uint8)), "scale is nan"),
        (
            case("QuantizeLinear", 21, f32(2, 3), scale(1, np.inf, 1), point(np.uint8, 3)),
            "scale of channel 1 is inf",
        ),
        (case("DequantizeLinear", 21, BYTES, scale(0), point(np.uint8)), "scale is 0.0"),
        (case("DequantizeLinear", 21, BYTES, scale(1), point(np.int8)), "zero point is int8"),
        (case("DequantizeLinear", 21, BYTES, Const(np.int32(1))), "not floats"),
        (case("QuantizeLinear", 21, f32(2, 3), scale(1), point(np.int64)), "int64"),
        (product(first=np.nan), "first scale is nan"),
        (product(second=(0.1, -1)), "second scale of channel 1 is -1.0"),
        (product(last=0), "last scale is 0.0"),
        (product(zeros=(np.int8, np.int8, np.uint8)), "first zero point is int8"),
        (product(zeros=(np.uint8, np.uint8, np.uint8)), "second zero point is uint8"),
        (
            case("MatMulInteger", 10, BYTES, WEIGHTS, point(np.uint8), point(np.uint8)),
            "second zero point is uint8",
        ),
        (
            case(
                "ConvInteger",
                10,
                np.zeros((1, 1, 4, 4), np.uint8),
                Const(np.ones((1, 1, 2, 2), np.int8)),
                point(np.int8),
            ),
            "first zero point is int8",
        ),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_scales_and_zero_points_that_no_tensor_has(one, expected, tmp_path):
    with pytest.raises(AotcError, match=expected) as caught:
        aotc.load_onnx(save(build(one)[0], tmp_path))
    assert caught.value.remedy and one.op in str(caught.value)
