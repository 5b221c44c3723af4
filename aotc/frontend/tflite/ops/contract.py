"""Convolutions and matrix products of TFLite: a `Use` goes in, `Conv` or `Dot` comes out.

Data is channels-last, as the kernels want it, so `Conv` takes it as it is; constant weights are
brought into the order of the primitive while the model is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.window import Window, window_of
from aotc.frontend.tflite.use import Rule, Use
from aotc.graph import ops
from aotc.graph.ir import Node

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


def _convolved(use: Use, weights: Node, options: Any, groups: int) -> Node:
    """Data in operand 0 with ``weights`` [O, I/groups, *window], bias in operand 2, activation."""
    x = use.real(0)
    sides = window(use, options, weights.shape[2:], x.shape[1:-1], dilated=True)
    op = ops.Conv(
        sides.strides, sides.low, sides.high, sides.dilation, groups, channels_last=True
    )
    y = use.with_bias(use.call.apply(op, x, weights), 2)
    return use.result(y, options.FusedActivationFunction())


def conv_2d(use: Use) -> Node:
    """Convolution with weights [O, H, W, I/groups], bias and activation."""
    options = use.options("Conv2DOptions")
    _expect_rank(use.call[0], 4)
    weights = use.weights(1, (0, 3, 1, 2))
    groups = use.call[0].shape[3] // max(1, weights.shape[1])
    return _convolved(use, weights, options, groups)


def conv_3d(use: Use) -> Node:
    """Convolution with weights [D, H, W, I, O], bias and activation."""
    options = use.options("Conv3DOptions")
    _expect_rank(use.call[0], 5)
    return _convolved(use, use.weights(1, (4, 3, 0, 1, 2)), options, 1)


def depthwise_conv_2d(use: Use) -> Node:
    """Convolution of each channel by itself, with weights [1, H, W, channels * multiplier], bias
    and activation."""
    options = use.options("DepthwiseConv2DOptions")
    _expect_rank(use.call[0], 4)
    return _convolved(use, use.weights(1, (3, 0, 1, 2)), options, use.call[0].shape[3])


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
    x, weights = use.real(0), use.weights(1, (1, 0))
    depth, outputs = weights.shape
    if not depth or x.type.elems % depth:
        raise ModelError(f"{x.type} does not divide into rows of {depth}")
    if options.KeepNumDims() and (not x.type.rank or x.shape[-1] != depth):
        raise ModelError(f"{x.type} has no rows of {depth}")
    rows = use.call.reshape(x, (x.type.elems // depth, depth))
    y = use.with_bias(use.call.apply(ops.Dot(), rows, weights), 2)
    if options.KeepNumDims():
        y = use.call.reshape(y, (*x.shape[:-1], outputs))
    return use.result(y, options.FusedActivationFunction())


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
