"""A Net in, the same function out with channels of similar size: cross-layer equalisation.

After Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv
1906.04721, section 4.1: between two layers with nothing but a positively homogeneous function, each
channel can be divided by a factor in the first layer and multiplied by it in the second. The factor
sqrt(r1 / r2) gives both the range sqrt(r1 * r2).
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto

from aotc.quantize.layers import Layer, find_layer, out_channels
from aotc.quantize.merge import scale_channels
from aotc.quantize.net import Net, attribute, integer, is_standard

_ROUNDS = 20
_SETTLED = 1e-3

#: f(s * x) == s * f(x) for s > 0, channel by channel
_HOMOGENEOUS = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool")


def equalize(net: Net) -> int:
    """Balances all neighbouring layers of ``net`` in place; how many pairs there are."""
    pairs = _pairs(net)
    for _ in range(_ROUNDS):
        largest = max((_balance(net, first, second) for first, second in pairs), default=0.0)
        if largest < _SETTLED:
            break
    return len(pairs)


def _pairs(net: Net) -> list[tuple[Layer, Layer]]:
    """Layers of which the second is the only user of the first, with weights of their own."""
    readers = net.readers()
    found = []
    for node in net.nodes:
        first = find_layer(net, node)
        if first is None or not is_standard(node, "Conv", "Gemm") or not _owns(readers, first):
            continue
        reader = _only_reader(net, readers, first.output)
        while reader is not None and is_standard(reader, *_HOMOGENEOUS):
            reader = _only_reader(net, readers, reader.output[0])
        second = None if reader is None else find_layer(net, reader)
        if second is None or not is_standard(second.node, node.op_type):
            continue
        if _owns(readers, second) and _in_axis(net, second) is not None and _sums_rows(second):
            found.append((first, second))
    return found


def _only_reader(net: Net, readers: dict[str, list[NodeProto]], name: str) -> NodeProto | None:
    found = readers.get(name, [])
    return found[0] if len(found) == 1 and name not in net.outputs else None


def _owns(readers: dict[str, list[NodeProto]], layer: Layer) -> bool:
    """Whether no other node reads the layer's constants."""
    return all(len(readers[name]) == 1 for name in (layer.weights, layer.bias) if name)


def _sums_rows(layer: Layer) -> bool:
    """Whether the channels of the data are where this module expects them."""
    return not is_standard(layer.node, "Gemm") or not integer(layer.node, "transA", 0)


def _in_axis(net: Net, layer: Layer) -> int | None:
    """The axis of the weights along which the data channels lie; None if groups hide it."""
    weights = net.array(layer.weights)
    assert weights is not None
    if is_standard(layer.node, "Gemm"):
        return 1 - layer.out_axis
    groups = attribute(layer.node, "group", 1)
    if groups == 1:
        return 1
    return 0 if weights.shape[1] == 1 and weights.shape[0] == groups else None


def _balance(net: Net, first: Layer, second: Layer) -> float:
    """Makes the ranges of each channel in both layers equal; how far the largest factor was from
    1, as the size of its logarithm."""
    before, after = net.array(first.weights), net.array(second.weights)
    axis = _in_axis(net, second)
    assert before is not None and after is not None and axis is not None
    ranges = _ranges(before, first.out_axis), _ranges(after, axis)
    if ranges[0].shape != ranges[1].shape:
        return 0.0
    usable = (ranges[0] > 0) & (ranges[1] > 0)
    safe = [np.where(usable, found, 1.0) for found in ranges]
    factor = np.sqrt(safe[0] / safe[1])
    _store(net, first.weights, scale_channels(first, before.astype(np.float64), 1 / factor))
    if first.bias:
        bias = net.array(first.bias)
        assert bias is not None
        flat = np.broadcast_to(bias.reshape(-1), out_channels(net, first))
        _store(net, first.bias, flat / factor)
    shape = [1] * after.ndim
    shape[axis] = -1
    _store(net, second.weights, after.astype(np.float64) * factor.reshape(shape))
    return float(np.abs(np.log(factor)).max(initial=0.0))


def _ranges(weights: np.ndarray, axis: int) -> np.ndarray:
    others = tuple(place for place in range(weights.ndim) if place != axis)
    ranges: np.ndarray = np.abs(weights).max(axis=others, initial=0.0).astype(np.float64)
    return ranges


def _store(net: Net, name: str, values: np.ndarray) -> None:
    net.set_constant(name, values.astype(np.float32))
