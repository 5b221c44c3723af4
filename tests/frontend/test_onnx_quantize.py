"""ONNX quantisation against ONNX Runtime."""

import numpy as np
import pytest
from onnx_cases import Const, case, check, f32

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
