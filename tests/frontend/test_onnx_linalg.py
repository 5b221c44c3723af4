"""ONNX matrix products against ONNX Runtime."""

import numpy as np
import pytest
from onnx_cases import Const, case, check, f32

CASES = [
    case("MatMul", 13, f32(3, 4), f32(4, 5, seed=1)),
    case("MatMul", 13, f32(2, 3, 4), f32(4, 5, seed=1), note="weights"),
    case("MatMul", 13, f32(2, 1, 3, 4), f32(6, 4, 5, seed=1), note="batches stretch"),
    case("MatMul", 13, f32(4), f32(4, 5, seed=1), note="vector on the left"),
    case("MatMul", 13, f32(2, 3, 4), f32(4, seed=1), note="vector on the right"),
    case("MatMul", 13, f32(4), f32(4, seed=1), note="two vectors"),
    case("MatMul", 13, f32(4), f32(2, 4, 3, seed=1), note="vector and batch"),
    *(
        case(
            "Gemm",
            opset,
            f32(*((4, 3) if trans_a else (3, 4))),
            Const(f32(*((5, 4) if trans_b else (4, 5)), seed=1)),
            Const(f32(5, seed=2)),
            transA=trans_a,
            transB=trans_b,
            alpha=0.5,
            beta=2.0,
        )
        for opset in (7, 13)
        for trans_a in (0, 1)
        for trans_b in (0, 1)
    ),
    case("Gemm", 13, f32(3, 4), f32(4, 5, seed=1)),
    case("Gemm", 13, f32(3, 4), f32(4, 5, seed=1), f32(3, 1, seed=2)),
    case(
        "MatMulInteger",
        10,
        np.array([[1, 200], [3, 4]], np.uint8),
        np.array([[5, 6], [7, 250]], np.uint8),
        Const(np.array(3, np.uint8)),
        Const(np.array(2, np.uint8)),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, tmp_path):
    check(case, tmp_path)
