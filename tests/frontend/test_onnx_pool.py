"""ONNX pooling and norms of windows against ONNX Runtime."""

import pytest
from onnx_cases import case, check, f32

CASES = [
    *(
        case(
            op,
            11,
            f32(2, 3, 7, 8),
            kernel_shape=[3, 2],
            strides=[2, 3],
            pads=[1, 0, 1, 1],
            ceil_mode=ceil,
        )
        for op in ("MaxPool", "AveragePool")
        for ceil in (0, 1)
    ),
    case("MaxPool", 12, f32(1, 2, 9), kernel_shape=[3], dilations=[2]),
    *(
        case(op, 11, f32(1, 2, 7), kernel_shape=[2], strides=[2], auto_pad=mode)
        for op in ("MaxPool", "AveragePool", "LpPool")
        for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    case("AveragePool", 11, f32(1, 2, 7), kernel_shape=[3], pads=[1, 1], count_include_pad=1),
    case(
        "AveragePool",
        19,
        f32(1, 2, 8),
        kernel_shape=[3],
        pads=[1, 0],
        strides=[2],
        ceil_mode=1,
        count_include_pad=1,
        oracle="onnx",
    ),
    case("AveragePool", 19, f32(1, 1, 8), kernel_shape=[2], dilations=[3]),
    *(case("LpPool", 11, f32(1, 2, 7), kernel_shape=[3], p=p) for p in (1, 2, 3)),
    *(
        case(op, 13, f32(2, 3, 4, 5))
        for op in ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
    ),
    *(case("LpNormalization", 11, f32(3, 4), axis=axis, p=p) for axis in (0, 1) for p in (1, 2)),
    *(case("LRN", 13, f32(1, 6, 2, 2), size=size, alpha=0.1, bias=2.0) for size in (3, 5)),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, tmp_path):
    check(case, tmp_path)
