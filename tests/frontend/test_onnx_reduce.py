"""ONNX reductions and rankings against ONNX Runtime."""

import numpy as np
import pytest
from onnx_cases import Const, case, check, f32, ints

CASES = [
    *(
        case(op, 11, f32(2, 3, 4, low=0.1), axes=[0, -1], keepdims=keep)
        for op in ("ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean")
        for keep in (0, 1)
    ),
    *(
        case(op, 13, f32(2, 3, 4), axes=[1])
        for op in ("ReduceMax", "ReduceMin", "ReduceProd", "ReduceSumSquare")
    ),
    *(
        case(op, 18, f32(2, 3, 4), ints(1, 2), keepdims=0)
        for op in ("ReduceMax", "ReduceMin", "ReduceProd", "ReduceSumSquare", "ReduceMean")
    ),
    case("ReduceSum", 11, f32(2, 3), axes=[1]),
    case("ReduceSum", 13, f32(2, 3), ints(-1)),
    case("ReduceSum", 13, f32(2, 3), note="all axes"),
    case("ReduceSum", 13, f32(2, 3), noop_with_empty_axes=1),
    case("ReduceMean", 18, np.array([[1, 2, 4]], np.int32), ints(1)),
    case("ReduceMax", 20, np.array([[True, False]]), ints(1), oracle="onnx"),
    case("ReduceMax", 20, np.zeros((2, 0), np.float32), ints(1), oracle="onnx"),
    *(
        case(op, 13, np.array([[3, 1, 3], [0, 0, 2]], np.float32), axis=axis, keepdims=keep)
        for op in ("ArgMax", "ArgMin")
        for axis in (0, -1)
        for keep in (0, 1)
    ),
    case("ArgMax", 13, np.array([3, 1, 3], np.float32), select_last_index=1),
    case("TopK", 9, f32(3, 5), outputs=2, k=2),
    case("TopK", 10, f32(3, 5), ints(2), outputs=2, axis=0),
    case("TopK", 11, f32(3, 5), ints(3), outputs=2, largest=0),
    *(
        case("CumSum", 14, f32(3, 4), Const(np.array(1)), exclusive=exclusive, reverse=reverse)
        for exclusive in (0, 1)
        for reverse in (0, 1)
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, tmp_path):
    check(case, tmp_path)
