"""Layers: the operators with constant weights that a quantiser is about, and where in their weights
and results the channels lie."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from onnx import NodeProto

from aotc.quantize.net import Net, attribute, integer, is_standard


@dataclass(frozen=True)
class Layer:
    """A node that multiplies ``data`` with constant weights.

    ``out_axis`` is the axis of the weights along which each result channel has a scale of its own,
    ``repeats`` how many groups of result channels share these scales, ``data_axis`` the axis of the
    data that is summed over. ``bias`` is a constant, "" when there is none; only operators with
    ``takes_bias`` can get one.
    """

    node: NodeProto
    out_axis: int
    repeats: int
    data_axis: int
    takes_bias: bool

    @property
    def data(self) -> str:
        name: str = self.node.input[0]
        return name

    @property
    def weights(self) -> str:
        name: str = self.node.input[1]
        return name

    @property
    def bias(self) -> str:
        name: str = self.node.input[2] if len(self.node.input) > 2 else ""
        return name

    @property
    def output(self) -> str:
        name: str = self.node.output[0]
        return name


def find_layer(net: Net, node: NodeProto) -> Layer | None:
    """``node`` as a layer: a Conv, ConvTranspose, Gemm or MatMul with constant float32 weights."""
    if len(node.input) < 2:
        return None
    weights = net.floats(node.input[1])
    if weights is None or node.input[0] in net.constants or not np.isfinite(weights).all():
        return None
    bias = node.input[2] if len(node.input) > 2 else ""
    if bias and net.floats(bias) is None:
        return None
    if is_standard(node, "Conv") and weights.ndim >= 3:
        return Layer(node, 0, 1, 1, True)
    if is_standard(node, "ConvTranspose") and weights.ndim >= 3:
        return Layer(node, 1, integer(node, "group", 1), 1, True)
    if is_standard(node, "Gemm") and weights.ndim == 2:
        plain = attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "beta", 1.0) == 1.0
        values = net.array(bias) if bias else None
        flat = values is None or is_vector(values)
        data_axis = 0 if integer(node, "transA", 0) else 1
        out_axis = 0 if integer(node, "transB", 0) else 1
        return Layer(node, out_axis, 1, data_axis, True) if plain and flat else None
    if is_standard(node, "MatMul") and weights.ndim == 2:
        return Layer(node, 1, 1, -1, False)
    return None


def out_channels(net: Net, layer: Layer) -> int:
    """The number of result channels."""
    weights = net.array(layer.weights)
    assert weights is not None
    return int(weights.shape[layer.out_axis]) * layer.repeats


def result_axis(net: Net, layer: Layer) -> int:
    """The axis of the channels in the result, counted from the last one (negative)."""
    weights = net.array(layer.weights)
    assert weights is not None
    return -1 if is_standard(layer.node, "Gemm", "MatMul") else 1 - weights.ndim


def input_matrix(net: Net, layer: Layer, weights: np.ndarray) -> np.ndarray:
    """How much each data channel weighs in each result channel, summed over the window.

    ``weights`` have the shape of the layer's; the result is [result channels, data channels].
    """
    if is_standard(layer.node, "Gemm", "MatMul"):
        return weights if layer.out_axis == 0 else weights.T
    summed = weights.reshape(*weights.shape[:2], math.prod(weights.shape[2:])).sum(axis=2)
    groups = integer(layer.node, "group", 1)
    if is_standard(layer.node, "ConvTranspose"):
        blocks = [block.T for block in np.split(summed, groups, axis=0)]
    else:
        blocks = np.split(summed, groups, axis=0)
    rows, columns = blocks[0].shape
    result = np.zeros((rows * groups, columns * groups), weights.dtype)
    for index, block in enumerate(blocks):
        result[index * rows : (index + 1) * rows, index * columns : (index + 1) * columns] = block
    return result


def is_vector(values: np.ndarray) -> bool:
    """Whether a constant has no axis but the last one."""
    return values.size == (values.shape[-1] if values.ndim else 1)
