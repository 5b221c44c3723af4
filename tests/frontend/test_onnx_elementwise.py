"""Elementwise ONNX operators against ONNX Runtime."""

import numpy as np
import pytest
from onnx_cases import Const, case, check, f32

CASES = [
    *(
        case(op, 13, f32(2, 3))
        for op in ("Abs", "Ceil", "Erf", "Exp", "Floor", "Identity", "Neg", "Reciprocal", "Sign")
    ),
    *(case(op, 13, f32(2, 3, low=0.1)) for op in ("Log", "Sqrt", "Tanh")),
    *(case(op, 14, f32(2, 3)) for op in ("Cos", "Sin", "Atan", "Asinh", "Cosh", "Sinh")),
    *(case(op, 14, f32(2, 3, low=-0.9, high=0.9)) for op in ("Acos", "Asin", "Atanh", "Tan")),
    case("Acosh", 14, f32(2, 3, low=1.1)),
    case("Round", 11, np.array([0.5, 1.5, -0.5, -2.5, 2.4], np.float32)),
    *(case(op, 7, f32(2, 3), f32(3, seed=1)) for op in ("Add", "Sub", "Mul", "Div")),
    *(case(op, 14, f32(2, 1, 3), f32(4, 1, seed=1)) for op in ("Add", "Sub", "Mul", "Div")),
    case("Div", 14, np.array([7, -7, 7, -7]), np.array([2, 2, -2, -2])),
    case("Pow", 13, f32(2, 3, low=0.1), f32(3, seed=1)),
    case("Pow", 13, f32(4), np.array([2, 0, 1, 3])),
    case("Pow", 13, np.array([1, 2, 3, 4], np.int32), np.array([2.0, 0.5, 1.0, 2.0], np.float32)),
    case("Mod", 13, np.array([7, -7, 7, -7]), np.array([3, 3, -3, -3])),
    case("Mod", 13, f32(4), f32(4, seed=1), fmod=1),
    *(case(op, 8, f32(2, 3), f32(3, seed=1), f32(2, 1, seed=2)) for op in ("Max", "Min")),
    *(case(op, 13, f32(2, 3), f32(3, seed=1), f32(2, 1, seed=2)) for op in ("Sum", "Mean")),
    case("Sum", 13, f32(2, 3)),
    *(
        case(op, 16, np.arange(6).reshape(2, 3), np.array([1, 4, 2]))
        for op in ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")
    ),
    *(
        case(op, 7, np.array([[True], [False]]), np.array([True, False]))
        for op in ("And", "Or", "Xor")
    ),
    case("Not", 7, np.array([True, False])),
    *(
        case(op, 18, np.array([5, 6, -1], np.int32), np.array([3], np.int32))
        for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor")
    ),
    case("BitwiseNot", 18, np.array([5, 6, -1], np.int32)),
    *(
        case("BitShift", 11, np.array([5, 6], np.uint8), np.array([1, 2], np.uint8), direction=way)
        for way in ("LEFT", "RIGHT")
    ),
    case("IsNaN", 13, np.array([0, np.nan, np.inf], np.float32)),
    *(
        case(
            "IsInf",
            10,
            np.array([0, np.nan, np.inf, -np.inf], np.float32),
            detect_negative=negative,
            detect_positive=positive,
        )
        for negative in (0, 1)
        for positive in (0, 1)
    ),
    case("Where", 16, np.array([[True], [False]]), f32(2, 3), f32(3, seed=1)),
    case("Clip", 7, f32(3, 4), min=-1.0, max=0.5),
    case("Clip", 7, f32(3, 4), note="no bounds"),
    case("Clip", 11, f32(3, 4), Const(np.float32(-1)), Const(np.float32(0.5)), note="constants"),
    case("Clip", 13, f32(3, 4), None, np.array(0.5, np.float32), note="only a maximum"),
    case("Cast", 13, f32(3, 4), to=7),
    case("Cast", 13, f32(3, 4), to=9),
    case("Cast", 13, np.array([0, 1, -5]), to=1),
    case("Cast", 13, f32(3, 4), to=10, tolerance=1e-3),
    case("Cast", 13, np.array([True, False]), to=11),
    case("CastLike", 15, f32(3), np.array([1])),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, tmp_path):
    check(case, tmp_path)
