"""ONNX gathers and scatters against ONNX Runtime."""

import numpy as np
import pytest
from onnx_cases import Const, case, check, f32

CASES = [
    *(case("Gather", 13, f32(3, 4), np.array([[0, -1], [2, 1]]), axis=axis) for axis in (0, -1)),
    case("Gather", 13, f32(3, 4), Const(np.array(1)), axis=1),
    case("GatherElements", 13, f32(3, 4), np.array([[0, -1], [2, 1]]), axis=1),
    case("GatherND", 13, f32(2, 3, 4), np.array([[0, 1], [1, -1]])),
    case("GatherND", 13, f32(2, 3, 4), np.array([[[1]], [[0]]]), batch_dims=1),
    case("Scatter", 9, f32(3, 4), np.array([[0, 2]]), f32(1, 2, seed=1), axis=1),
    *(
        case(
            "ScatterElements",
            18,
            f32(3, 4),
            np.array([[0, 2, 0]]),
            f32(1, 3, seed=1),
            axis=1,
            reduction=way,
        )
        for way in ("none", "add", "mul", "min", "max")
        if way != "none"
    ),
    case("ScatterElements", 11, f32(3, 4), np.array([[0, 2]]), f32(1, 2, seed=1)),
    case("ScatterND", 11, f32(3, 4), np.array([[2], [0]]), f32(2, 4, seed=1)),
    case("ScatterND", 16, f32(3, 4), np.array([[2], [2]]), f32(2, 4, seed=1), reduction="add"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, tmp_path):
    check(case, tmp_path)
