"""ONNX operators that move data against ONNX Runtime."""

import numpy as np
import pytest
from onnx_cases import Const, case, check, f32, ints

CASES = [
    case("Reshape", 13, f32(2, 3, 4), ints(0, -1)),
    case("Reshape", 14, np.zeros((0, 3), np.float32), ints(3, 0), allowzero=1),
    case("Reshape", 7, f32(2, 3, 4), ints(4, 3, -1)),
    *(case("Flatten", 13, f32(2, 3, 4), axis=axis) for axis in (0, 1, 3, -1)),
    case("Squeeze", 11, f32(1, 3, 1), axes=[0]),
    case("Squeeze", 13, f32(1, 3, 1), ints(-1)),
    case("Squeeze", 13, f32(1, 3, 1)),
    case("Unsqueeze", 11, f32(3, 4), axes=[0, 3]),
    case("Unsqueeze", 13, f32(3, 4), ints(-1, 1)),
    case("Transpose", 13, f32(2, 3, 4), perm=[1, 2, 0]),
    case("Transpose", 13, f32(2, 3, 4)),
    case("Expand", 13, f32(3, 1), ints(2, 1, 4)),
    case("Expand", 13, f32(3, 4), ints(1)),
    case("Tile", 13, f32(2, 3), ints(2, 3)),
    case("Slice", 7, f32(4, 5), starts=[1, -3], ends=[3, 1000], axes=[0, 1]),
    case("Slice", 9, f32(4, 5), starts=[1], ends=[-1]),
    case("Slice", 10, f32(4, 5), ints(1), ints(4), ints(1), ints(2)),
    case("Slice", 13, f32(4, 5), ints(-1, 3), ints(-1000, 0), ints(0, 1), ints(-1, -2)),
    case("Slice", 13, f32(4, 5), ints(3), ints(1), note="empty"),
    case("Split", 11, f32(6, 2), outputs=3, note="equal"),
    case("Split", 11, f32(2, 6), outputs=2, axis=1, split=[2, 4]),
    case("Split", 13, f32(2, 6), ints(1, 5), outputs=2, axis=-1),
    case("Split", 18, f32(7, 2), outputs=3, num_outputs=3),
    case("Concat", 13, f32(2, 3), f32(2, 1, seed=1), f32(2, 2, seed=2), axis=-1),
    case("Pad", 7, f32(3, 4), pads=[0, 1, 2, 0], value=1.5),
    *(
        case("Pad", 10, f32(3, 4), mode=mode, pads=[2, 1, 1, 3])
        for mode in ("constant", "edge", "reflect")
    ),
    case("Pad", 13, f32(3, 4), ints(0, 1, 2, 0), Const(np.float32(1.5))),
    case("Pad", 13, f32(3, 4), ints(0, -1, 2, -1), note="negative"),
    case("Pad", 18, f32(3, 4), ints(1, 2), Const(np.float32(0)), ints(-1)),
    *(case("Pad", 19, f32(3, 4), ints(1, 3, 2, 4), mode=mode) for mode in ("wrap", "edge")),
    case("Pad", 19, f32(3, 4), ints(4, 0, 5, 9), mode="wrap", oracle="onnx"),
    *(case("DepthToSpace", 11, f32(1, 8, 2, 3), blocksize=2, mode=m) for m in ("DCR", "CRD")),
    case("SpaceToDepth", 13, f32(1, 2, 4, 6), blocksize=2),
    case("Trilu", 14, f32(3, 4)),
    case("Trilu", 14, f32(2, 3, 4), Const(np.array(-1)), upper=0),
    case("ReverseSequence", 10, f32(4, 3), np.array([1, 4, 2]), time_axis=0, batch_axis=1),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, tmp_path):
    check(case, tmp_path)
