"""Activation functions of ONNX against ONNX Runtime."""

import numpy as np
import pytest
from onnx_cases import Const, case, check, f32

CASES = [
    *(
        case(op, 18, np.linspace(-30, 30, 25, dtype=np.float32).reshape(5, 5))
        for op in ("Celu", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "Relu")
    ),
    *(
        case(op, 18, np.linspace(-100, 100, 25, dtype=np.float32))
        for op in ("Selu", "Shrink", "Sigmoid", "Softplus", "Softsign", "ThresholdedRelu")
    ),
    case("Celu", 12, f32(9), alpha=0.5),
    case("Elu", 7, f32(9), alpha=2.0),
    case("HardSigmoid", 7, f32(9), alpha=0.3, beta=0.4),
    *(case("LeakyRelu", 16, f32(9), alpha=alpha) for alpha in (0.2, 1.5, -0.5)),
    case("Selu", 7, f32(9), alpha=1.5, gamma=0.5),
    case("Shrink", 9, f32(9), lambd=1.0, bias=0.25),
    case("ThresholdedRelu", 10, f32(9), alpha=0.5),
    case("PRelu", 7, f32(2, 3, 4), Const(f32(3, 1, seed=1))),
    case("PRelu", 16, f32(2, 3, 4), f32(1, seed=1)),
    *(case("Gelu", 20, f32(3, 4), approximate=mode) for mode in ("none", "tanh")),
    case("Swish", 24, f32(3, 4), alpha=0.5, oracle="onnx"),
    case("Relu", 14, np.array([-3, 4], np.int32)),
    *(
        case(op, opset, f32(2, 3, 4), axis=axis)
        for op in ("Softmax", "LogSoftmax", "Hardmax")
        for opset in (11, 13)
        for axis in (0, 1, 2)
    ),
    case("Softmax", 11, f32(2, 3, 4), note="default axis"),
    case("Softmax", 13, f32(2, 3, 4), note="default axis"),
    case("Softmax", 13, np.array([1000.0, 1001.0, -1000.0], np.float32), note="large"),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, tmp_path):
    check(case, tmp_path)
