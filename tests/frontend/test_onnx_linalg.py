"""ONNX matrix products and determinants against ONNX Runtime."""

import numpy as np
import pytest
from onnx_cases import Const, build, case, check, f32, run_file, save

from aotc.errors import ModelError

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
    *(
        case("Det", 11, f32(*shape), tolerance=1e-3)
        for shape in ((1, 1), (2, 2), (3, 3, 3), (2, 3, 5, 5), (9, 9))
    ),
    case("Det", 11, np.array([[[0, 1], [1, 0]], [[0, 0], [0, 3]], [[1, 2], [2, 4]]], np.float32)),
    case("Det", 22, f32(3, 3).astype(np.float64), oracle="onnx"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, tmp_path):
    check(case, tmp_path)


def test_determinants_of_what_is_not_square(tmp_path):
    model, feeds = build(case("Det", 11, f32(3, 2)))
    with pytest.raises(ModelError, match="square matrices"):
        run_file(save(model, tmp_path), feeds)
