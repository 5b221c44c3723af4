"""Small models with random weights and samples for them, for the tests of the quantiser."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from aotc.quantize.samples import find_samples


def quiet(*_):
    """A progress callback that shows nothing."""


def draw(seed, *shape):
    """Normal float32 values, scaled for as many operands as each result has."""
    values = np.random.default_rng(seed).standard_normal(shape)
    return (values * np.sqrt(2 / max(1, np.prod(shape[1:])))).astype(np.float32)


def make(nodes, constants, inputs, outputs, opset=17):
    """A model; ``nodes`` are (operator, operands, results, attributes), the rest by name: arrays,
    shapes, ranks."""
    graph = helper.make_graph(
        [
            helper.make_node(kind, operands.split(","), results.split(","), name=results, **extra)
            for kind, operands, results, extra in nodes
        ],
        "small",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [None] * r)
         for n, r in outputs.items()],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model


def residual_net(opset=17):
    """Conv, BatchNormalization, Relu, a residual sum, pools and a Gemm."""
    constants = {
        "w1": draw(1, 8, 3, 3, 3), "scale": np.abs(draw(2, 8)) + np.float32(0.5),
        "shift": draw(3, 8), "mean": draw(4, 8), "variance": np.abs(draw(5, 8)) + np.float32(0.1),
        "w2": draw(6, 8, 8, 3, 3), "b2": draw(7, 8), "w3": draw(8, 8, 1, 3, 3),
        "w4": draw(9, 8, 5), "b4": draw(10, 5),
    }  # fmt: skip
    nodes = [
        ("Conv", "x,w1", "c1", {"pads": [1, 1, 1, 1]}),
        ("BatchNormalization", "c1,scale,shift,mean,variance", "n1", {}),
        ("Relu", "n1", "r1", {}),
        ("Conv", "r1,w2,b2", "c2", {"pads": [1, 1, 1, 1]}),
        ("Add", "c2,r1", "s", {}),
        ("Relu", "s", "r2", {}),
        ("MaxPool", "r2", "p", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Conv", "p,w3", "c3", {"pads": [1, 1, 1, 1], "group": 8}),
        ("Relu", "c3", "r3", {}),
        ("GlobalAveragePool", "r3", "g", {}),
        ("Flatten", "g", "f", {}),
        ("Gemm", "f,w4,b4", "y", {}),
    ]
    return make(nodes, constants, {"x": [1, 3, 8, 8]}, {"y": 2}, opset)


def save_samples(folder, count=6, shape=(1, 3, 8, 8), name=None):
    """Files of normal values in ``folder``, .npy or with a name .npz."""
    folder.mkdir(exist_ok=True)
    for number in range(count):
        values = np.random.default_rng(100 + number).standard_normal(shape).astype(np.float32)
        if name is None:
            np.save(folder / f"{number}.npy", values)
        else:
            np.savez(folder / f"{number}.npz", **{name: values})
    return folder


def saved(model, tmp_path):
    """The path of ``model``, and its samples."""
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    return path, find_samples(save_samples(tmp_path / "samples"), model)


def run(model, inputs):
    """The first output, by ONNX Runtime without optimisations."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, inputs)[0]
