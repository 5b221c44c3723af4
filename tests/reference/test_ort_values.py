"""ONNX Runtime on element types that numpy does not have."""

import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from aotc.reference.ort_values import run_session


def session_of(source, target):
    """ONNX Runtime with a model that casts one type to another."""
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], ["y"], to=target)],
        "cast",
        [helper.make_tensor_value_info("x", source, [2, 3])],
        [helper.make_tensor_value_info("y", target, [2, 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString())


@pytest.mark.parametrize(
    "kind, dtype",
    [
        (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
        (TensorProto.FLOAT8E4M3FN, ml_dtypes.float8_e4m3fn),
        (TensorProto.FLOAT8E5M2FNUZ, ml_dtypes.float8_e5m2fnuz),
        (TensorProto.DOUBLE, np.float64),
    ],
)
def test_there_and_back(kind, dtype):
    x = np.array([[0, 1.5, -2], [3, 0.25, -8]], np.float32)
    there = session_of(TensorProto.FLOAT, kind)
    (found,) = run_session(onnxruntime, there, ["y"], {"x": x})
    assert found.dtype == dtype
    np.testing.assert_array_equal(found.astype(np.float32), x)
    back = session_of(kind, TensorProto.FLOAT)
    np.testing.assert_array_equal(run_session(onnxruntime, back, ["y"], {"x": found})[0], x)
