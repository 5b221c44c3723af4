"""ONNX operators that make tensors from shapes and numbers against ONNX Runtime."""

import numpy as np
import pytest
from onnx_cases import Const, case, check, f32, ints

CASES = [
    case("Shape", 13, f32(2, 3, 4)),
    case("Shape", 15, f32(2, 3, 4), start=1, end=-1),
    case("Size", 13, f32(2, 3, 4)),
    case("ConstantOfShape", 9, ints(2, 3)),
    case("Constant", 13, value_ints=[1, 2]),
    case("Constant", 13, value_float=1.5),
    case("Range", 11, Const(np.array(2)), Const(np.array(11)), Const(np.array(3))),
    case("Range", 11, Const(np.array(5)), Const(np.array(-2)), Const(np.array(-2))),
    case("Range", 11, *(Const(np.array(v, np.float32)) for v in (0.0, 1.0, 0.3))),
    case("EyeLike", 9, f32(3, 4), k=1),
    case("EyeLike", 9, f32(4, 3), k=-1, dtype=7),
    *(
        case(
            "OneHot",
            11,
            np.array([[0, -1], [2, 7]]),
            Const(np.array(4)),
            np.array([0.5, 2.5], np.float32),
            axis=axis,
        )
        for axis in (-1, 0, 1)
    ),
    case("NonZero", 13, Const(np.array([[1, 0], [0, 3]]))),
    case("Compress", 11, f32(3, 4), Const(np.array([False, True, True])), axis=0),
    case("Compress", 11, f32(2, 2), Const(np.array([False, True, True]))),
    case("Dropout", 7, f32(3, 4), ratio=0.3),
    case("Dropout", 13, f32(3, 4), outputs=2),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, tmp_path):
    check(case, tmp_path)
