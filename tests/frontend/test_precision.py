"""Operators on bfloat16: float32 inside, one rounding at the end, the types that ONNX gives."""

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto
from onnx_cases import Const, build, case, f32, run_file, save

BF16 = ml_dtypes.bfloat16


def run(folder, one):
    model, feeds = build(one)
    return run_file(save(model, folder), feeds)


def in_float32(operand):
    if isinstance(operand, Const):
        return Const(in_float32(operand.values))
    return operand.astype(np.float32) if operand.dtype == BF16 else operand


@pytest.mark.parametrize(
    "op, opset, operands, attrs",
    [
        ("Softmax", 13, [f32(3, 40)], {}),
        ("Gelu", 20, [f32(100)], {}),
        ("MatMul", 13, [f32(4, 30), Const(f32(30, 5, seed=1))], {}),
        ("ReduceMean", 18, [f32(4, 50)], {"keepdims": 0}),
        ("Sum", 13, [f32(4, 5), f32(5, seed=1), f32(4, 1, seed=2)], {}),
        ("Gemm", 13, [f32(3, 4), f32(4, 5, seed=1), f32(5, seed=2)], {"alpha": 0.3}),
    ],
)
def test_one_rounding_for_an_operator(tmp_path, op, opset, operands, attrs):
    operands = [
        Const(x.values.astype(BF16)) if isinstance(x, Const) else x.astype(BF16) for x in operands
    ]
    (found,) = run(tmp_path, case(op, opset, *operands, **attrs))
    (wide,) = run(tmp_path, case(op, opset, *map(in_float32, operands), **attrs))
    assert found.dtype == BF16
    np.testing.assert_array_equal(found.astype(np.float32), wide.astype(BF16).astype(np.float32))


def test_each_result_has_the_type_of_its_own_variable(tmp_path):
    x = f32(2, 8).astype(BF16)
    operands = x, f32(8, seed=1).astype(BF16), f32(8, seed=2).astype(BF16)
    found = run(tmp_path, case("LayerNormalization", 17, *operands, outputs=3))
    assert [result.dtype for result in found] == [BF16, np.float32, np.float32]
    (power,) = run(tmp_path, case("Pow", 15, f32(3, low=1), x[0, :3]))
    assert power.dtype == np.float32
    (power,) = run(tmp_path, case("Pow", 15, x[0, :3], f32(3, low=1)))
    assert power.dtype == BF16
    (less,) = run(tmp_path, case("Less", 13, x, x))
    assert less.dtype == bool
    (best,) = run(tmp_path, case("ArgMax", 13, x))
    assert best.dtype == np.int64


def test_types_by_attribute_and_movement_are_left_alone(tmp_path):
    x = f32(2, 8).astype(BF16)
    (wide,) = run(tmp_path, case("Cast", 13, x, to=TensorProto.DOUBLE))
    assert wide.dtype == np.float64
    (eye,) = run(tmp_path, case("EyeLike", 22, x))
    assert eye.dtype == BF16
    values, places = run(
        tmp_path, case("TopK", 11, x, Const(np.array([3], np.int64)), outputs=2)
    )
    assert (values.dtype, places.dtype) == (BF16, np.int64)
    np.testing.assert_array_equal(values, np.take_along_axis(x, places, axis=1))


def test_float16_rounds_step_by_step(tmp_path):
    x = f32(3, 7).astype(np.float16)
    (found,) = run(tmp_path, case("Sum", 13, x, x[:1], x[1:2]))
    np.testing.assert_array_equal(found, (x + x[:1]) + x[1:2])
