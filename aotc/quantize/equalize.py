"""A Net and the range of each channel in front of its layers in; the same function with channels of
similar size out: cross-layer equalisation.

A channel may be divided by any factor if the layers that read it multiply their weights by it, and
where a constant factor, a normalisation or a layer comes before, the division is free: it joins
their constants. Between two layers this is the equalisation of Nagel et al., "Data-Free
Quantization Through Weight Equalization and Bias Correction", arXiv 1906.04721, section 4.1, with
measured ranges as in SmoothQuant (Xiao et al., arXiv 2211.10438, equation 4 with alpha 1/2): the
factor sqrt(data / weights) makes both ranges equal. A layer of which each result depends on one
channel has a scale of its own for each, so its data take all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from onnx import NodeProto

from aotc.quantize.layers import Layer, find_layer, out_channels
from aotc.quantize.merge import replace_operand, scale_channels
from aotc.quantize.net import Net, attribute, integer, is_standard
from aotc.quantize.placement import Placement

LARGEST_FACTOR = 1e4

#: f(x / s) == f(x) / s for s > 0, channel by channel
_HOMOGENEOUS = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool")

Divide = Callable[[np.ndarray], None]


def equalize(net: Net, placement: Placement, ranges: Mapping[str, np.ndarray]) -> int:
    """Balances the channels of all tensors of ``placement`` that only layers read, in place.
    ``ranges`` has the largest magnitude of each channel; how many tensors changed."""
    readers, producers = net.readers(), net.producers()
    layers = [unit.layer for unit in placement.units if unit.layer]
    balanced = 0
    for name, data in ranges.items():
        users = [layer for layer in layers if layer.data == name]
        if len(users) < len(readers[name]) or name in net.outputs:
            continue
        axes = [_in_axis(net, layer) for layer in users]
        if None in axes or not all(_owns_weights(readers, layer) for layer in users):
            continue
        known = [(layer, axis) for layer, axis in zip(users, axes, strict=True) if axis is not None]
        divide = _divider(net, readers, producers, name, users[0])
        if divide is None:
            continue
        factors = _factors(net, known, data)
        divide(factors)
        for layer, axis in known:
            _multiply(net, layer, axis, factors)
        balanced += 1
    return balanced


def _in_axis(net: Net, layer: Layer) -> int | None:
    """The axis of the weights along which the data channels lie; None if groups hide it."""
    weights = net.array(layer.weights)
    assert weights is not None
    if is_standard(layer.node, "Gemm", "MatMul"):
        transposed = is_standard(layer.node, "Gemm") and integer(layer.node, "transA", 0)
        return None if transposed else 1 - layer.out_axis
    if attribute(layer.node, "group", 1) == 1:
        return 1 - layer.out_axis
    return 0 if _is_depthwise(net, layer) else None


def _is_depthwise(net: Net, layer: Layer) -> bool:
    """Whether each result channel is made from a data channel of its own."""
    weights = net.array(layer.weights)
    assert weights is not None
    groups = attribute(layer.node, "group", 1)
    single = weights.shape[1] == 1 and weights.shape[0] == groups
    return is_standard(layer.node, "Conv") and single and weights.shape[0] > 1


def _owns_weights(readers: dict[str, list[NodeProto]], layer: Layer) -> bool:
    return len(readers[layer.weights]) == 1


def _factors(
    net: Net, layers: list[tuple[Layer, int]], data: np.ndarray
) -> np.ndarray:
    """What to divide each channel of the data by; the geometric mean is 1."""
    if all(_is_depthwise(net, layer) for layer, _ in layers):
        factors = data
    else:
        weights = np.max([_magnitudes(net, layer, axis) for layer, axis in layers], axis=0)
        factors = np.sqrt(data / np.where(weights > 0, weights, 1.0)) * (weights > 0)
    used = factors > 0
    if not used.any():
        return np.ones_like(factors)
    factors = np.where(used, factors, 1.0)
    factors = factors / np.exp(np.mean(np.log(factors[used])))
    return np.where(used, np.clip(factors, 1 / LARGEST_FACTOR, LARGEST_FACTOR), 1.0)


def _magnitudes(net: Net, layer: Layer, axis: int) -> np.ndarray:
    weights = net.array(layer.weights)
    assert weights is not None
    others = tuple(place for place in range(weights.ndim) if place != axis)
    return np.asarray(np.abs(weights).max(axis=others, initial=0.0), np.float64)


def _multiply(net: Net, layer: Layer, axis: int, factors: np.ndarray) -> None:
    weights = net.array(layer.weights)
    assert weights is not None
    shape = [1] * weights.ndim
    shape[axis] = -1
    scaled = weights.astype(np.float64) * factors.reshape(shape)
    net.set_constant(layer.weights, scaled.astype(np.float32))


def _divider(
    net: Net,
    readers: dict[str, list[NodeProto]],
    producers: Mapping[str, NodeProto],
    name: str,
    user: Layer,
) -> Divide | None:
    """What divides the channels of ``name`` where it is made, if constants there can take it."""
    weights = net.array(user.weights)
    assert weights is not None
    matrix = is_standard(user.node, "Gemm", "MatMul")
    trailing = 0 if matrix else weights.ndim - 2
    chain = _chain(net, readers, producers, name, matrix)
    if chain is None:
        return None

    def divide(factors: np.ndarray) -> None:
        shaped = factors.reshape(-1, *[1] * trailing)
        for node in chain:
            layer = find_layer(net, node)
            if layer is not None:
                _divide_layer(net, readers, layer, factors)
                continue
            for place in _constants(net, node):
                values = net.array(node.input[place])
                assert values is not None
                scaled = values * shaped if is_standard(node, "Div") else values / shaped
                replace_operand(net, readers, node, place, scaled)

    return divide


def _chain(
    net: Net,
    readers: dict[str, list[NodeProto]],
    producers: Mapping[str, NodeProto],
    name: str,
    matrix: bool,
) -> list[NodeProto] | None:
    """The nodes of which all float constants have to be divided so that ``name`` is, from the last
    one back to the first; None when there is something else before it."""
    chain: list[NodeProto] = []
    while True:
        node = producers.get(name)
        if node is None:
            return None
        layer = find_layer(net, node)
        constants = _constants(net, node)
        following = node.input[0] if node.input else ""
        if layer is not None:
            fits = is_standard(node, "Gemm" if matrix else "Conv")
            return [*chain, node] if fits and _owns_weights(readers, layer) else None
        if is_standard(node, "LayerNormalization"):
            return [*chain, node] if matrix and constants[:1] == [1] else None
        if is_standard(node, "Mul") and len(constants) == 1:
            return [*chain, node]
        if is_standard(node, "Div") and constants == [1]:
            return [*chain, node]
        if is_standard(node, "Add", "Sub") and len(constants) == 1:
            chain.append(node)
            following = node.input[1 - constants[0]]
        elif not is_standard(node, *_HOMOGENEOUS):
            return None
        if len(readers[following]) != 1 or following in net.outputs:
            return None
        name = following


def _constants(net: Net, node: NodeProto) -> list[int]:
    """Which operands are float constants."""
    return [place for place, name in enumerate(node.input) if net.floats(name) is not None]


def _divide_layer(
    net: Net, readers: dict[str, list[NodeProto]], layer: Layer, factors: np.ndarray
) -> None:
    """Divides the result channels of a layer."""
    weights = net.array(layer.weights)
    assert weights is not None
    replace_operand(net, readers, layer.node, 1, scale_channels(layer, weights, 1 / factors))
    if layer.bias:
        bias = net.array(layer.bias)
        assert bias is not None
        flat = np.broadcast_to(bias.reshape(-1), out_channels(net, layer))
        replace_operand(net, readers, layer.node, 2, flat / factors)
