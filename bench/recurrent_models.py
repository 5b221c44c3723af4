#!/usr/bin/env python3
"""Sizes in, recurrent ONNX models with seeded weights out: single layers and small text models.

bench/recurrent_models.py FOLDER    writes the text models there
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

GATES = {"RNN": 1, "GRU": 3, "LSTM": 4}
OPSET, IR_VERSION = 17, 8

VOCABULARY, EMBEDDING, HIDDEN = 96, 64, 128


@dataclass(frozen=True)
class Layer:
    """One recurrent layer over a whole sequence."""

    op: str
    features: int
    hidden: int
    steps: int
    batch: int = 1
    sides: int = 1

    def __str__(self) -> str:
        sides = " both ways" if self.sides == 2 else ""
        return f"{self.op} {self.features}>{self.hidden}{sides}"


def _weights(random: np.random.Generator, op: str, features: int, hidden: int, sides: int) -> dict:
    """What frameworks start from: uniform within one over the root of the hidden size."""
    reach = hidden**-0.5
    shapes = {
        "W": (sides, GATES[op] * hidden, features),
        "R": (sides, GATES[op] * hidden, hidden),
        "B": (sides, 2 * GATES[op] * hidden),
    }
    return {
        name: random.uniform(-reach, reach, shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def _attributes(op: str, hidden: int, sides: int) -> dict:
    found = {"hidden_size": hidden, "direction": "bidirectional" if sides == 2 else "forward"}
    return found | ({"linear_before_reset": 1} if op == "GRU" else {})


def _floats(name: str, *shape: int) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _model(nodes: list, inputs: list, outputs: list, weights: dict) -> onnx.ModelProto:
    stored = [numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = helper.make_graph(nodes, "recurrent", inputs, outputs, stored)
    imports = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=imports, ir_version=IR_VERSION)


def layer_model(layer: Layer) -> onnx.ModelProto:
    """Inputs x [steps, batch, features] and the state; outputs y and the state afterwards."""
    op, hidden, sides = layer.op, layer.hidden, layer.sides
    weights = _weights(np.random.default_rng(0), op, layer.features, hidden, sides)
    states = ["h", "c"] if op == "LSTM" else ["h"]
    state = (sides, layer.batch, hidden)
    node = helper.make_node(
        op,
        ["x", "W", "R", "B", "", *states],
        ["y", *(f"{name}_next" for name in states)],
        **_attributes(op, hidden, sides),
    )
    inputs = [_floats("x", layer.steps, layer.batch, layer.features)]
    outputs = [_floats("y", layer.steps, sides, layer.batch, hidden)]
    inputs += [_floats(name, *state) for name in states]
    outputs += [_floats(f"{name}_next", *state) for name in states]
    return _model([node], inputs, outputs, weights)


def text_model(op: str) -> onnx.ModelProto:
    """One character in, what comes next out: embedding, recurrent layer, dense layer. Inputs token
    (int64 [1, 1]) and the state [1, 1, HIDDEN]; outputs logits [1, VOCABULARY] and the state."""
    random = np.random.default_rng(1)
    weights = _weights(random, op, EMBEDDING, HIDDEN, 1)
    weights["embedding"] = random.standard_normal((VOCABULARY, EMBEDDING)).astype(np.float32)
    weights["dense"] = random.standard_normal((HIDDEN, VOCABULARY)).astype(np.float32)
    weights["bias"] = random.standard_normal(VOCABULARY).astype(np.float32)
    weights["one"] = np.array([1], np.int64)
    states = ["h", "c"] if op == "LSTM" else ["h"]
    after = [f"{name}_next" for name in states]
    nodes = [
        helper.make_node("Gather", ["embedding", "token"], ["x"]),
        helper.make_node(
            op, ["x", "W", "R", "B", "", *states], ["y", *after], **_attributes(op, HIDDEN, 1)
        ),
        helper.make_node("Squeeze", ["y", "one"], ["row"]),
        helper.make_node("Flatten", ["row"], ["flat"]),
        helper.make_node("Gemm", ["flat", "dense", "bias"], ["logits"]),
    ]
    token = helper.make_tensor_value_info("token", TensorProto.INT64, (1, 1))
    inputs = [token, *(_floats(name, 1, 1, HIDDEN) for name in states)]
    outputs = [_floats("logits", 1, VOCABULARY), *(_floats(name, 1, 1, HIDDEN) for name in after)]
    return _model(nodes, inputs, outputs, weights)


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the text models.")
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for op in ("GRU", "LSTM"):
        path = folder / f"text_{op.lower()}.onnx"
        onnx.save(text_model(op), path)
        print(path)


if __name__ == "__main__":
    main()
