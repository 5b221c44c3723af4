"""Models that bench/models.py has not, as ONNX: encoders with random weights, and a model for one
image made one for several."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

_SHAPING = ("Reshape", "Expand", "Equal", "Where")


def with_batch(model: onnx.ModelProto, batch: int) -> onnx.ModelProto:
    """``model``, whose inputs have a first axis of 1, for ``batch`` of them: constants that are
    shapes and begin with 1 begin with ``batch`` instead."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    for value in (*found.graph.input, *found.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    del found.graph.value_info[:]
    shapes = {name for node in found.graph.node if node.op_type in _SHAPING for name in node.input}
    for node in found.graph.node:
        if node.op_type == "Constant" and node.output[0] in shapes:
            tensor = node.attribute[0].t
            values = numpy_helper.to_array(tensor)
            if values.dtype == np.int64 and values.ndim == 1 and len(values) > 1 and values[0] == 1:
                tensor.CopyFrom(numpy_helper.from_array(np.array([batch, *values[1:]])))
    return found


def weights_in_order(model: onnx.ModelProto) -> list[np.ndarray]:
    """The float32 initializers that are no numbers, in the order in which the nodes use them; those
    of products as [out, in] (Gemm of the models here has them so, MatMul has not)."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    origins = {name: name for name in stored}
    found = []
    for node in model.graph.node:
        if node.op_type == "Identity" and node.input[0] in origins:
            origins[node.output[0]] = origins[node.input[0]]
            continue
        for name in node.input:
            tensor = stored.get(origins.get(name, ""))
            if tensor is not None and tensor.data_type == TensorProto.FLOAT and tensor.dims:
                values = numpy_helper.to_array(tensor)
                found.append(values.T if node.op_type == "MatMul" else values)
    return found


def encoder_model(sizes: Mapping[str, Any], batch: int) -> onnx.ModelProto:
    """An encoder like BERT's with random weights: ids and mask int64 [batch, tokens] in, float32
    [batch, tokens, wide] out. ``sizes``: layers, wide, heads, tokens and words."""
    maker = _Maker(sizes, batch)
    ends = [
        [helper.make_tensor_value_info(name, TensorProto.INT64, [batch, sizes["tokens"]])
         for name in ("ids", "mask")],
        [helper.make_tensor_value_info(
            maker.encoder(), TensorProto.FLOAT, [batch, sizes["tokens"], sizes["wide"]])],
    ]  # fmt: skip
    graph = helper.make_graph(maker.nodes, "encoder", *ends, maker.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


class _Maker:
    """Nodes and weights of an encoder, one after the other."""

    def __init__(self, sizes: Mapping[str, Any], batch: int) -> None:
        self.sizes, self.batch = sizes, batch
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(0)

    def encoder(self) -> str:
        """All of it; the name of the output."""
        sizes, wide = self.sizes, self.sizes["wide"]
        words = self.node("Gather", self.drawn(sizes["words"], wide), "ids")
        kinds = self.node("Gather", self.drawn(2, wide), self.constant(np.int64([0])))
        places = self.drawn(sizes["tokens"], wide)
        x = self.norm(self.node("Add", self.node("Add", words, kinds), places))
        shape = self.constant(np.int64([self.batch, 1, 1, sizes["tokens"]]))
        kept = self.node("Cast", self.node("Reshape", "mask", shape), to=TensorProto.BOOL)
        masked = self.node(
            "Where", kept, self.constant(np.float32(0)), self.constant(np.float32(-1e9))
        )
        for _ in range(sizes["layers"]):
            x = self.norm(self.node("Add", self.attention(x, masked), x))
            inner = self.node("Gelu", self.linear(x, wide, 4 * wide))
            x = self.norm(self.node("Add", self.linear(inner, 4 * wide, wide), x))
        return x

    def attention(self, x: str, masked: str) -> str:
        wide, heads, tokens = (self.sizes[name] for name in ("wide", "heads", "tokens"))
        shape = self.constant(np.int64([self.batch, tokens, heads, wide // heads]))
        q, k, v = (
            self.node(
                "Transpose", self.node("Reshape", self.linear(x, wide, wide), shape), perm=order
            )
            for order in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3])
        )
        scale = self.constant(np.float32((wide // heads) ** -0.5))
        scores = self.node("Add", self.node("Mul", self.node("MatMul", q, k), scale), masked)
        mixed = self.node("MatMul", self.node("Softmax", scores, axis=-1), v)
        mixed = self.node("Transpose", mixed, perm=[0, 2, 1, 3])
        flat = self.constant(np.int64([self.batch, tokens, wide]))
        return self.linear(self.node("Reshape", mixed, flat), wide, wide)

    def linear(self, x: str, inside: int, outside: int) -> str:
        product = self.node("MatMul", x, self.drawn(inside, outside))
        return self.node("Add", self.drawn(outside), product)

    def norm(self, x: str) -> str:
        wide = self.sizes["wide"]
        scale = self.drawn(wide, around=1.0)
        return self.node("LayerNormalization", x, scale, self.drawn(wide), axis=-1, epsilon=1e-12)

    def drawn(self, *shape: int, around: float = 0.0) -> str:
        values = self.random.standard_normal(shape, dtype=np.float32) * 0.05 + around
        return self.constant(values.astype(np.float32))

    def constant(self, values: np.ndarray | np.generic) -> str:
        name = f"c{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], **attributes))
        return name
