"""ONNX convolutions against ONNX Runtime."""

import numpy as np
import pytest
from onnx_cases import Const, case, check, f32

CASES = [
    case("Conv", 11, f32(2, 3, 7), f32(4, 3, 3, seed=1), note="one axis"),
    case("Conv", 11, f32(1, 2, 4, 4, 4), f32(3, 2, 2, 2, 2, seed=1), note="three axes"),
    case(
        "Conv",
        11,
        f32(1, 3, 8, 7),
        Const(f32(4, 3, 3, 2, seed=1)),
        Const(f32(4, seed=2)),
        pads=[1, 0, 2, 1],
        strides=[2, 1],
        dilations=[1, 2],
        kernel_shape=[3, 2],
    ),
    case("Conv", 11, f32(1, 4, 5, 5), f32(6, 2, 3, 3, seed=1), group=2),
    *(
        case("Conv", 11, f32(1, 2, 7, 8), f32(3, 2, 3, 2, seed=1), auto_pad=mode, strides=[2, 3])
        for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")
    ),
    case(
        "ConvInteger",
        10,
        np.arange(16, dtype=np.uint8).reshape(1, 1, 4, 4),
        np.array([[[[1, 2], [3, 4]]]], np.uint8),
        Const(np.array(5, np.uint8)),
        Const(np.array(1, np.uint8)),
        pads=[1, 1, 1, 1],
    ),
    case("ConvTranspose", 11, f32(2, 3, 4, 5), f32(3, 2, 2, 3, seed=1), strides=[2, 3]),
    case("ConvTranspose", 11, f32(1, 3, 5), f32(3, 2, 3, seed=1), Const(f32(2, seed=2))),
    case(
        "ConvTranspose",
        11,
        f32(1, 4, 5, 6),
        f32(4, 2, 3, 3, seed=1),
        group=2,
        strides=[2, 3],
        pads=[1, 0, 1, 1],
        output_padding=[1, 0],
    ),
    case("ConvTranspose", 11, f32(1, 2, 4, 4), f32(2, 3, 3, 3, seed=1), dilations=[2, 1]),
    case("ConvTranspose", 11, f32(1, 2, 4), f32(2, 3, 2, seed=1), pads=[2, 2], dilations=[1]),
    case("ConvTranspose", 11, f32(1, 2, 4), f32(2, 3, 1, seed=1), strides=[3], pads=[1, 2]),
    *(
        case("ConvTranspose", 11, f32(1, 2, 4), f32(2, 3, 3, seed=1), auto_pad=m, strides=[2])
        for m in ("SAME_UPPER", "SAME_LOWER")
    ),
    case("ConvTranspose", 11, f32(1, 2, 4), f32(2, 3, 3, seed=1), output_shape=[8], strides=[2]),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, tmp_path):
    check(case, tmp_path)
