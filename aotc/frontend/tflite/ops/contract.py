"""Convolutions and matrix products of TFLite: a `Use` goes in, `Conv` or `Dot` comes out.

Data is channels-last, as the kernels want it, so `Conv` takes it as it is; constant weights are
brought into the order of the primitive while the model is read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.window import Window, window_of
from aotc.frontend.tflite.ops.requantize import centred, layer_of, stored_sums
from aotc.frontend.tflite.use import Rule, Use
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType

PADDINGS = ("SAME_UPPER", "VALID")
"""ONNX's names of the schema's Padding."""


def window(
    use: Use, options: Any, size: tuple[int, ...], spatial: tuple[int, ...], dilated: bool = False
) -> Window:
    """A window of ``size`` that slides over ``spatial`` under the strides and padding of
    ``options``."""
    padding = options.Padding()
    if not 0 <= padding < len(PADDINGS):
        raise ModelError(f"its padding is number {padding}: SAME (0) and VALID (1) are known")
    planes = [options.StrideH(), options.StrideW()]
    gaps = [options.DilationHFactor(), options.DilationWFactor()] if dilated else [1, 1]
    if len(spatial) == 3:
        planes.insert(0, options.StrideD())
        gaps.insert(0, options.DilationDFactor())
    call = use.onnx_call("Conv", strides=planes, dilations=gaps, auto_pad=PADDINGS[padding])
    return window_of(call, spatial, size)


def _expect_rank(x: Node, rank: int) -> None:
    if x.type.rank != rank:
        raise ModelError(f"needs data of {rank} axes, got {x.type}")


def _convolved(use: Use, perm: tuple[int, ...], options: Any, depthwise: bool = False) -> Node:
    """Data in operand 0 with the weights in operand 1, which ``perm`` brings into the order
    [O, I/groups, *window], bias in operand 2, activation."""
    x, activation = use.call[0], options.FusedActivationFunction()
    layer = layer_of(use, perm, 0, activation)
    weights = use.weights(1, perm) if layer is None else use.call.constant(layer.weights)
    groups = x.shape[-1] if depthwise else x.shape[-1] // max(1, weights.shape[1])
    sides = window(use, options, weights.shape[2:], x.shape[1:-1], dilated=True)
    op = ops.Conv(
        sides.strides, sides.low, sides.high, sides.dilation, groups, channels_last=True
    )
    if layer is None:
        y = use.with_bias(use.call.apply(op, use.real(0), weights), 2)
        return use.result(y, activation)
    none = (0,) * len(sides.low)
    codes = use.call.pad(layer.codes, (0, *sides.low, 0), (0, *sides.high, 0), float(layer.zero))
    wide = use.call.cast(codes, DType.I32)
    op = replace(op, low=none, high=none)
    # a depthwise convolution has few weights, which may have 32 bits
    small, shift = (layer.weights, 0) if depthwise else centred(layer.weights)
    sums = use.call.apply(op, wide, use.call.constant(small))
    if shift:
        ones = use.call.constant(np.ones((groups, *small.shape[1:]), np.int32))
        whole = use.call.apply(op, wide, ones)
        sums = use.call.binary("add", sums, _per_group(use, whole, small.shape[0], shift))
    totals = _totals(layer.weights, range(1, weights.type.rank))
    return stored_sums(use, sums, layer, totals, activation, twice=True)


def _per_group(use: Use, whole: Node, outputs: int, shift: int) -> Node:
    """``shift * whole``, [.., groups], for each of ``outputs`` channels of the groups."""
    groups = whole.shape[-1]
    scaled = use.call.binary("mul", whole, shift)
    if groups == 1:
        return scaled
    apart = use.call.reshape(scaled, (*whole.shape, 1))
    apart = use.call.broadcast(apart, (*whole.shape, outputs // groups))
    return use.call.reshape(apart, (*whole.shape[:-1], outputs))


def _totals(weights: np.ndarray, axes: Iterable[int]) -> np.ndarray:
    """The sum over ``axes`` and that of the magnitudes, int64[2, channels]."""
    along = tuple(axes)
    sums = [each.sum(axis=along, dtype=np.int64) for each in (weights, np.abs(weights))]
    return np.stack(sums)


def conv_2d(use: Use) -> Node:
    """Convolution with weights [O, H, W, I/groups], bias and activation."""
    _expect_rank(use.call[0], 4)
    return _convolved(use, (0, 3, 1, 2), use.options("Conv2DOptions"))


def conv_3d(use: Use) -> Node:
    """Convolution with weights [D, H, W, I, O], bias and activation."""
    _expect_rank(use.call[0], 5)
    return _convolved(use, (4, 3, 0, 1, 2), use.options("Conv3DOptions"))


def depthwise_conv_2d(use: Use) -> Node:
    """Convolution of each channel by itself, with weights [1, H, W, channels * multiplier], bias
    and activation."""
    _expect_rank(use.call[0], 4)
    return _convolved(use, (3, 0, 1, 2), use.options("DepthwiseConv2DOptions"), depthwise=True)


def transpose_conv(use: Use) -> Node:
    """The gradient of a convolution in its data: operands are the shape of the result, weights
    [O, H, W, I], data and bias."""
    options = use.options("TransposeConvOptions")
    shape, x = use.ints(0, "output shape"), use.real(2)
    _expect_rank(x, 4)
    padding = options.Padding()
    if len(shape) != 4 or not 0 <= padding < len(PADDINGS):
        raise ModelError(f"its output shape {shape} or padding {padding} is none of an image")
    y = use.onnx(
        "ConvTranspose",
        use.call.transpose(x, (0, 3, 1, 2)),
        use.weights(1, (3, 0, 1, 2)),
        strides=[options.StrideH(), options.StrideW()],
        output_shape=shape[1:3],
        auto_pad="SAME_UPPER",
    )
    y = use.with_bias(use.call.transpose(y, (0, 2, 3, 1)), 3)
    return use.result(y, options.FusedActivationFunction())


def fully_connected(use: Use) -> Node:
    """Rows of data times weights [outputs, inputs], bias and activation."""
    options = use.options("FullyConnectedOptions")
    if options.WeightsFormat():
        raise use.call.unsupported("its weights are shuffled for one processor")
    x, activation = use.call[0], options.FusedActivationFunction()
    layer = layer_of(use, (1, 0), 1, activation)
    weights = use.weights(1, (1, 0)) if layer is None else use.call.constant(layer.weights)
    depth, outputs = weights.shape
    if not depth or x.type.elems % depth:
        raise ModelError(f"{x.type} does not divide into rows of {depth}")
    if options.KeepNumDims() and (not x.type.rank or x.shape[-1] != depth):
        raise ModelError(f"{x.type} has no rows of {depth}")
    shape = (x.type.elems // depth, depth)
    if layer is None:
        rows = use.call.reshape(use.real(0), shape)
        y = use.with_bias(use.call.apply(ops.Dot(), rows, weights), 2)
        y = use.result(y, activation)
    else:
        rows = use.call.cast(use.call.reshape(layer.codes, shape), DType.I32)
        small, shift = centred(layer.weights)
        sums = use.call.apply(ops.Dot(), rows, use.call.constant(small))
        if shift:
            whole = use.call.reduce("sum", rows, [1])
            sums = use.call.binary("add", sums, use.call.binary("mul", whole, shift))
        totals = _totals(layer.weights, [0])
        y = stored_sums(use, sums, layer, totals, activation, twice=False)
    return use.call.reshape(y, (*x.shape[:-1], outputs)) if options.KeepNumDims() else y


def batch_matmul(use: Use) -> Node:
    """Matrix product over the last two axes, the leading ones stretched as numpy does."""
    options = use.options("BatchMatMulOptions")
    sides = []
    for index, turned in enumerate((options.AdjX(), options.AdjY())):
        x = use.real(index)
        if x.type.rank < 2:
            raise ModelError(f"needs matrices, got {x.type}")
        axes = tuple(range(x.type.rank))
        order = (*axes[:-2], axes[-1], axes[-2]) if turned else axes
        sides.append(use.call.transpose(x, order))
    return use.result(use.onnx("MatMul", *sides))


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "BATCH_MATMUL": batch_matmul,
        "CONV_2D": conv_2d,
        "CONV_3D": conv_3d,
        "DEPTHWISE_CONV_2D": depthwise_conv_2d,
        "FULLY_CONNECTED": fully_connected,
        "TRANSPOSE_CONV": transpose_conv,
    }
)
