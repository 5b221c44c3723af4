"""ONNX normalisations against ONNX Runtime."""

import numpy as np
import pytest
from onnx_cases import Const, case, check, f32

CASES = [
    *(
        case(
            "BatchNormalization",
            opset,
            f32(2, 3, 4),
            *(maker(f32(3, seed=seed, low=0.5)) for seed in range(1, 5)),
            epsilon=1e-3,
            note=note,
        )
        for opset in (7, 9, 15)
        for maker, note in ((Const, "constants"), (np.asarray, "inputs"))
    ),
    case("LayerNormalization", 17, f32(2, 3, 4), Const(f32(4, seed=1)), Const(f32(4, seed=2))),
    case("LayerNormalization", 17, f32(2, 3, 4), f32(3, 4, seed=1), outputs=3, axis=1),
    case("LayerNormalization", 17, f32(2, 4).astype(np.float16), f32(4).astype(np.float16),
         tolerance=4e-3),
    case("RMSNormalization", 23, f32(2, 3, 4), f32(4, seed=1), oracle="onnx"),
    case("InstanceNormalization", 7, f32(2, 3, 4), f32(3, seed=1), f32(3, seed=2)),
    case("GroupNormalization", 18, f32(2, 4, 3), f32(2, seed=1), f32(2, seed=2), num_groups=2,
         oracle="onnx"),
    case("GroupNormalization", 21, f32(2, 4, 3), f32(4, seed=1), f32(4, seed=2), num_groups=2,
         oracle="onnx"),
    case("MeanVarianceNormalization", 13, f32(2, 3, 4, 5)),
    case("MeanVarianceNormalization", 13, f32(2, 3, 4), axes=[0, 1]),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, tmp_path):
    check(case, tmp_path)
