"""A Net with layers in, the same Net with fewer nodes out: batch norms, factors and biases join the
weights of the layer before them.

The new weights are computed in float64 and rounded once.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from aotc.quantize.layers import Layer, find_layer, is_vector, out_channels, result_axis
from aotc.quantize.net import Net, attribute, integer, is_standard, set_attribute


def merge_layers(net: Net) -> None:
    """Everything of this module, until nothing changes."""
    for node in net.nodes:
        _unit_factors(net, node)
    _biases(net)
    _paddings(net)
    while _merge_one_round(net):
        pass


def _unit_factors(net: Net, node: NodeProto) -> None:
    """A Gemm's alpha and beta move into its constants."""
    if not is_standard(node, "Gemm"):
        return
    for place, name in ((1, "alpha"), (2, "beta")):
        factor = attribute(node, name, 1.0)
        values = net.floats(node.input[place]) if len(node.input) > place else None
        if values is not None and isinstance(factor, float) and factor != 1.0:
            scaled = (values.astype(np.float64) * factor).astype(np.float32)
            node.input[place] = net.add_constant(f"{node.input[place]}_{name}", scaled)
            set_attribute(node, name, 1.0)


def _biases(net: Net) -> None:
    """MatMul and a constant Add become a Gemm where the data is a matrix."""
    known = net.ranks()
    readers = net.readers()
    gone: set[int] = set()
    for node in net.nodes:
        layer = find_layer(net, node)
        if layer is None or not is_standard(node, "MatMul") or known.get(layer.data) != 2:
            continue
        following = _only_reader(net, readers, layer.output)
        if following is None or not is_standard(following, "Add"):
            continue
        values = _other_operand(net, following, layer.output)
        channels = out_channels(net, layer)
        fits = values is not None and values.ndim <= 2 and values.size in (1, channels)
        if values is None or not fits or not is_vector(values):
            continue
        vector = np.broadcast_to(values.reshape(-1), channels)
        bias = net.add_constant(f"{layer.weights}_bias", vector.astype(np.float32))
        gemm = helper.make_node(
            "Gemm", [layer.data, layer.weights, bias], [following.output[0]], name=node.name
        )
        node.CopyFrom(gemm)
        gone.add(id(following))
    net.nodes = [node for node in net.nodes if id(node) not in gone]


def _paddings(net: Net) -> None:
    """Zeros around an image that only a Conv reads become the Conv's own padding."""
    readers = net.readers()
    gone: set[int] = set()
    for node in net.nodes:
        conv = _only_reader(net, readers, node.output[0])
        if not is_standard(node, "Pad") or conv is None or not is_standard(conv, "Conv"):
            continue
        own, auto = attribute(conv, "pads", None), attribute(conv, "auto_pad", b"NOTSET")
        pads = _zero_pads(net, node)
        if pads is None or auto not in (b"NOTSET", b"VALID") or conv.input[0] != node.output[0]:
            continue
        rank = len(pads) // 2
        inner = pads[2:rank] + pads[rank + 2 :]
        if any(pads[:2] + pads[rank : rank + 2]) or min(inner, default=-1) < 0:
            continue
        old = own if isinstance(own, list) and auto == b"NOTSET" else [0] * len(inner)
        set_attribute(conv, "auto_pad", "NOTSET")
        set_attribute(conv, "pads", [a + b for a, b in zip(old, inner, strict=True)])
        conv.input[0] = node.input[0]
        gone.add(id(node))
    net.nodes = [node for node in net.nodes if id(node) not in gone]


def _zero_pads(net: Net, node: NodeProto) -> list[int] | None:
    """How much zero a Pad puts before and after each axis; None if it may do anything else."""
    if attribute(node, "mode", b"constant") != b"constant" or len(node.input) > 3:
        return None
    value = net.array(node.input[2]) if len(node.input) > 2 and node.input[2] else np.zeros(1)
    pads = net.array(node.input[1]) if len(node.input) > 1 else None
    if pads is None or value is None or value.any():
        return None
    return [int(pad) for pad in pads]


def _merge_one_round(net: Net) -> bool:
    """Lets each layer take in the node after it, if it can; whether any did."""
    readers = net.readers()
    gone: set[int] = set()
    for node in net.nodes:
        layer = None if id(node) in gone else find_layer(net, node)
        if layer is None:
            continue
        following = _only_reader(net, readers, layer.output)
        if following is None or id(following) in gone:
            continue
        change = _affine(net, layer, following)
        if change is not None:
            _apply(net, readers, layer, *change)
            node.output[0] = following.output[0]
            gone.add(id(following))
    net.nodes = [node for node in net.nodes if id(node) not in gone]
    return bool(gone)


def _only_reader(net: Net, readers: dict[str, list[NodeProto]], name: str) -> NodeProto | None:
    """The one node that reads ``name``, if it reads it once and nobody else needs it."""
    found = readers.get(name, [])
    return found[0] if len(found) == 1 and name not in net.outputs else None


def _other_operand(net: Net, node: NodeProto, name: str) -> np.ndarray | None:
    """The constant that is added to or multiplied with ``name``."""
    others = [other for other in node.input if other != name]
    return net.floats(others[0]) if len(others) == 1 and len(node.input) == 2 else None


def _affine(
    net: Net, layer: Layer, node: NodeProto
) -> tuple[np.ndarray, np.ndarray] | None:
    """``node`` as a factor and a term for each channel of the layer before it (float64)."""
    channels = out_channels(net, layer)
    if is_standard(node, "BatchNormalization"):
        if result_axis(net, layer) == -1 and not _is_matrix(layer):
            return None
        return _batch_norm(net, layer, node)
    if not is_standard(node, "Mul", "Div", "Add", "Sub"):
        return None
    constant = _other_operand(net, node, layer.output)
    values = None if constant is None else _per_channel(net, layer, constant, channels)
    reversed_operands = node.input[0] != layer.output
    if values is None or (is_standard(node, "Div", "Sub") and reversed_operands):
        return None
    one, zero = np.ones(channels), np.zeros(channels)
    if is_standard(node, "Mul"):
        return values, zero
    if is_standard(node, "Div"):
        return (1 / values, zero) if values.all() else None
    if not layer.takes_bias:
        return None
    return one, values if is_standard(node, "Add") else -values


def _is_matrix(layer: Layer) -> bool:
    """Whether the result surely has two axes."""
    return is_standard(layer.node, "Gemm")


def _per_channel(
    net: Net, layer: Layer, values: np.ndarray, channels: int
) -> np.ndarray | None:
    """A constant operand as one value for each channel; None if it differs along other axes, or
    would add some to the result."""
    axis = result_axis(net, layer)
    weights = net.array(layer.weights)
    assert weights is not None
    rank = 2 if is_standard(layer.node, "Gemm", "MatMul") else weights.ndim
    if values.ndim > rank or values.size not in (1, channels):
        return None
    if values.size > 1 and (values.ndim < -axis or values.shape[axis] != values.size):
        return None
    return np.broadcast_to(values.reshape(-1).astype(np.float64), channels)


def _batch_norm(
    net: Net, layer: Layer, node: NodeProto
) -> tuple[np.ndarray, np.ndarray] | None:
    """scale * (x - mean) / sqrt(variance + epsilon) + shift, as ONNX defines it for inference."""
    if integer(node, "training_mode", 0) or any(node.output[1:]) or len(node.input) != 5:
        return None
    if node.input[0] != layer.output or not layer.takes_bias:
        return None
    constants = [net.floats(name) for name in node.input[1:]]
    channels = out_channels(net, layer)
    if any(values is None or values.shape != (channels,) for values in constants):
        return None
    scale, shift, mean, variance = (
        values.astype(np.float64) for values in constants if values is not None
    )
    epsilon = attribute(node, "epsilon", 1e-5)
    assert isinstance(epsilon, float)
    if (variance + epsilon <= 0).any():
        return None
    factor = scale / np.sqrt(variance + epsilon)
    return factor, shift - mean * factor


def _apply(
    net: Net,
    readers: dict[str, list[NodeProto]],
    layer: Layer,
    factor: np.ndarray,
    term: np.ndarray,
) -> None:
    """Gives ``layer`` new weights and a new bias: its result times ``factor`` plus ``term``."""
    weights = net.array(layer.weights)
    assert weights is not None
    scaled = scale_channels(layer, weights.astype(np.float64), factor)
    old = net.array(layer.bias) if layer.bias else None
    bias = term if old is None else old.astype(np.float64) * factor + term
    replace_operand(net, readers, layer.node, 1, scaled)
    if old is not None:
        replace_operand(net, readers, layer.node, 2, bias)
    elif bias.any():
        name = net.add_constant(f"{layer.output}_bias", bias.astype(np.float32))
        del layer.node.input[2:]
        layer.node.input.append(name)


def replace_operand(
    net: Net, readers: dict[str, list[NodeProto]], node: NodeProto, place: int, values: np.ndarray
) -> None:
    """Gives a constant operand other values, under its name unless others read it too."""
    name = node.input[place]
    if len(readers[name]) == 1 and name not in net.outputs:
        net.set_constant(name, values.astype(np.float32))
    else:
        node.input[place] = net.add_constant(f"{name}_merged", values.astype(np.float32))


def scale_channels(layer: Layer, weights: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """``weights`` with each result channel multiplied by its ``factor``."""
    if layer.repeats > 1:
        # The first axis has the data channels of one group after the other.
        blocks = np.split(weights, layer.repeats, axis=0)
        factors = np.split(factor, layer.repeats)
        pairs = zip(blocks, factors, strict=True)
        return np.concatenate([_along(block, 1, part) for block, part in pairs], axis=0)
    return _along(weights, layer.out_axis, factor)


def _along(weights: np.ndarray, axis: int, factor: np.ndarray) -> np.ndarray:
    shape = [1] * weights.ndim
    shape[axis] = -1
    scaled: np.ndarray = weights * factor.reshape(shape)
    return scaled
