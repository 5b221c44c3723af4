"""ONNX RNN, GRU and LSTM against ONNX Runtime."""

import pytest
from onnx_cases import Const, case, check, f32

CASES = [
    *(
        case(
            op,
            14,
            f32(4, 2, 3),
            Const(f32(sides, gates * 5, 3, seed=1, low=-1, high=1)),
            Const(f32(sides, gates * 5, 5, seed=2, low=-1, high=1)),
            Const(f32(sides, 2 * gates * 5, seed=3, low=-1, high=1)),
            None,
            f32(sides, 2, 5, seed=4, low=-1, high=1),
            outputs=outputs,
            hidden_size=5,
            direction=direction,
        )
        for op, gates, outputs in (("RNN", 1, 2), ("GRU", 3, 2), ("LSTM", 4, 3))
        for direction, sides in (("forward", 1), ("reverse", 1), ("bidirectional", 2))
    ),
    case(
        "GRU",
        14,
        f32(4, 2, 3),
        Const(f32(1, 15, 3, seed=1)),
        Const(f32(1, 15, 5, seed=2)),
        Const(f32(1, 30, seed=3)),
        outputs=2,
        hidden_size=5,
        linear_before_reset=1,
    ),
    case(
        "LSTM",
        7,
        f32(3, 2, 3),
        Const(f32(1, 20, 3, seed=1)),
        Const(f32(1, 20, 5, seed=2)),
        None,
        None,
        None,
        None,
        Const(f32(1, 15, seed=4)),
        outputs=1,
        hidden_size=5,
        note="peepholes",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, tmp_path):
    check(case, tmp_path)
