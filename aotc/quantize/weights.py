"""The weights and bias of a layer in, int8 and int32 codes with their scales out.

Weights are symmetric, -127 to 127, with a scale for each result channel; a bias has the scale of
the products that it is added to. Bias correction follows Nagel et al., "Data-Free Quantization
Through Weight Equalization and Bias Correction", arXiv 1906.04721, section 4.2, with means that
were measured.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aotc.quantize.codes import SMALLEST_SCALE
from aotc.quantize.layers import Layer, input_matrix, out_channels
from aotc.quantize.merge import scale_channels
from aotc.quantize.net import Net

WEIGHT_LIMIT = 127
BIAS_LIMIT = 1 << 30
"""Biases stay below this, so that as much is left of 32 bits for the sum of the products."""


@dataclass(frozen=True)
class LayerCodes:
    """int8 ``weights`` in the layer's shape with float32 ``scales`` along its ``out_axis``; int32
    ``bias`` [channels] with ``bias_scales``, None where the layer has none."""

    weights: np.ndarray
    scales: np.ndarray
    bias: np.ndarray | None
    bias_scales: np.ndarray


def code_layer(
    net: Net, layer: Layer, input_scale: np.float32, means: np.ndarray | None = None
) -> LayerCodes:
    """The codes of ``layer`` on data of ``input_scale``; with the ``means`` of the data channels,
    its bias takes up what rounding the weights adds to the mean of the result."""
    weights = net.array(layer.weights)
    assert weights is not None
    exact = weights.astype(np.float64)
    channels = out_channels(net, layer)
    bias = np.zeros(channels)
    if layer.bias:
        stored = net.array(layer.bias)
        assert stored is not None
        bias = np.broadcast_to(stored.reshape(-1).astype(np.float64), channels)
    scales = _scales(layer, exact, bias, float(input_scale))
    per_channel = np.tile(scales.astype(np.float64), layer.repeats)
    codes = np.rint(scale_channels(layer, exact, 1 / per_channel))
    codes = np.clip(codes, -WEIGHT_LIMIT, WEIGHT_LIMIT)
    if means is not None and layer.takes_bias:
        added = scale_channels(layer, codes, per_channel) - exact
        bias = bias - input_matrix(net, layer, added) @ means
    # Their product in float32, as those who read the file will compute it.
    bias_scales = (np.tile(scales, layer.repeats) * np.float32(input_scale)).astype(np.float32)
    rounded = np.rint(bias / bias_scales.astype(np.float64))
    rounded = np.clip(rounded, -BIAS_LIMIT, BIAS_LIMIT).astype(np.int32)
    kept = layer.bias or rounded.any()
    return LayerCodes(
        codes.astype(np.int8), scales, rounded if kept and layer.takes_bias else None, bias_scales
    )


def _scales(
    layer: Layer, weights: np.ndarray, bias: np.ndarray, input_scale: float
) -> np.ndarray:
    """The largest weight of each channel over 127; more where the bias would not fit otherwise."""
    others = tuple(axis for axis in range(weights.ndim) if axis != layer.out_axis)
    largest = np.abs(weights).max(axis=others, initial=0.0)
    bias_needs = np.abs(bias).reshape(layer.repeats, -1).max(axis=0) / BIAS_LIMIT / input_scale
    scales = np.maximum(largest / WEIGHT_LIMIT, bias_needs)
    # The product of both scales has to be a normal number too.
    least = SMALLEST_SCALE / min(input_scale, 1.0)
    scales = np.where(scales < least, max(least, 1.0), scales)
    return np.asarray(scales, np.float32)
