"""ONNX convolutions: a `Call` goes in, `Conv` (or `Dot`, where nothing overlaps) comes out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.grids import expect_zero_point
from aotc.frontend.onnx_ops.window import (
    Window,
    auto_pad_mode,
    declared_pads,
    per_axis,
    window_of,
)
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType


def _expect_images(call: Call, x: Node, weights: Node) -> int:
    """The number of spatial axes."""
    spatial = x.type.rank - 2
    if not 1 <= spatial <= 3:
        raise call.unsupported(f"data of {spatial} spatial axes ({x.type}): 1 to 3 are supported")
    if weights.type.rank != x.type.rank:
        raise ModelError(f"data {x.type} and weights {weights.type} differ in rank")
    declared = call.attrs.integers("kernel_shape")
    if declared is not None and declared != weights.shape[2:]:
        raise ModelError(f"kernel_shape {declared} is not that of the weights {weights.type}")
    return spatial


def with_bias(call: Call, y: Node, bias: Node | None) -> Node:
    """``y`` plus one number per channel (axis 1)."""
    if bias is None:
        return y
    channels = y.shape[1]
    if bias.shape != (channels,):
        raise ModelError(f"the bias is {bias.type}, but there are {channels} output channels")
    return call.binary("add", y, call.reshape(bias, (channels, *(1,) * (y.type.rank - 2))))


def convolve(call: Call, x: Node, weights: Node) -> Node:
    """The convolution of ``x`` with ``weights`` under the node's attributes."""
    _expect_images(call, x, weights)
    window = window_of(call, x.shape[2:], weights.shape[2:])
    return call.apply(_conv(window, call.attrs.integer("group", 1)), x, weights)


def _conv(window: Window, groups: int) -> ops.Conv:
    return ops.Conv(
        window.strides, window.low, window.high, window.dilation, groups, channels_last=False
    )


def conv(call: Call) -> Node:
    """Convolution and bias."""
    return with_bias(call, convolve(call, call[0], call[1]), call.optional(2))


def conv_integer(call: Call) -> Node:
    """Convolution of 8-bit integers less their zero points, in int32."""
    x, weights = call.cast(call[0], DType.I32), call.cast(call[1], DType.I32)
    zero_x, zero_w = call.optional(2), call.optional(3)
    expect_zero_point(zero_x, call[0], "first zero point")
    expect_zero_point(zero_w, call[1], "second zero point")
    if zero_x is not None:
        # padding with zero after the subtraction is padding with the zero point before it
        x = call.binary("sub", x, call.reshape(call.cast(zero_x, DType.I32), ()))
    if zero_w is not None:
        zero = call.cast(zero_w, DType.I32)
        zero = call.reshape(zero, (zero.type.elems, *(1,) * (weights.type.rank - 1)))
        weights = call.binary("sub", weights, zero)
    return convolve(call, x, weights)


def conv_transpose(call: Call) -> Node:
    """The gradient of a convolution in its data, and bias. The weights are [C, O/groups,
    *window]."""
    x, weights = call[0], call[1]
    spatial = _expect_images(call, x, weights)
    groups = call.attrs.integer("group", 1)
    if groups < 1 or weights.shape[0] != x.shape[1] or x.shape[1] % groups:
        raise ModelError(f"data {x.type} and weights {weights.type} do not fit {groups} groups")
    strides = per_axis(call, "strides", spatial, 1)
    dilation = per_axis(call, "dilations", spatial, 1)
    low, high = _transposed_pads(call, x, weights, strides, dilation)
    apart = strides == weights.shape[2:] and set(dilation) == {1} and groups == 1
    if apart and not any((*low, *high)):
        y = _stamp(call, x, weights)
    else:
        y = _spread_and_convolve(call, x, weights, strides, dilation, low, high, groups)
    return with_bias(call, y, call.optional(2))


def _transposed_pads(
    call: Call, x: Node, weights: Node, strides: tuple[int, ...], dilation: tuple[int, ...]
) -> tuple[list[int], list[int]]:
    """How much of the full result is cut off per axis; negative on the high side where it is
    extended.

    Formula of ONNX ConvTranspose: full = stride (in - 1) + output_padding + (window - 1) dilation +
    1.
    """
    spatial = len(strides)
    extra = call.attrs.integers("output_padding") or (0,) * spatial
    output_shape = call.attrs.integers("output_shape")
    if len(extra) != spatial or min(extra) < 0:
        raise ModelError(f"attribute 'output_padding' {extra} does not fit {spatial} axes")
    wanted = None if output_shape is None else output_shape[-spatial:]
    mode = auto_pad_mode(call)
    before, after = declared_pads(call, spatial)
    low, high = [], []
    for axis in range(spatial):
        reach = (weights.shape[2 + axis] - 1) * dilation[axis] + 1
        full = strides[axis] * (x.shape[2 + axis] - 1) + reach + extra[axis]
        if wanted is None and mode in ("NOTSET", "VALID"):
            cut = (0, 0) if mode == "VALID" else (before[axis], after[axis])
        else:
            target = strides[axis] * x.shape[2 + axis] if wanted is None else wanted[axis]
            total = max(0, full - target)
            half = total // 2
            cut = (half, total - half) if mode == "SAME_UPPER" else (total - half, half)
            if wanted is not None and target > full:
                extra_axis = target - full
                cut = (0, -extra_axis)
        low.append(cut[0])
        high.append(cut[1] - extra[axis])
    return low, high


def _stamp(call: Call, x: Node, weights: Node) -> Node:
    """Windows that tile the result exactly: each pixel stamps its own block, one matrix product."""
    channels, outputs, *size = weights.shape
    spatial = x.shape[2:]
    rank = len(spatial)
    pixels = call.transpose(x, (0, *range(2, rank + 2), 1))
    rows = call.reshape(pixels, (x.shape[0] * math.prod(spatial), channels))
    columns = call.reshape(weights, (channels, outputs * math.prod(size)))
    blocks = call.apply(ops.Dot(), rows, columns)
    apart = call.reshape(blocks, (x.shape[0], *spatial, outputs, *size))
    order = [0, rank + 1]
    for axis in range(rank):
        order += [1 + axis, rank + 2 + axis]
    whole = [n * step for n, step in zip(spatial, size, strict=True)]
    return call.reshape(call.transpose(apart, order), (x.shape[0], outputs, *whole))


def _spread_and_convolve(
    call: Call,
    x: Node,
    weights: Node,
    strides: tuple[int, ...],
    dilation: tuple[int, ...],
    low: list[int],
    high: list[int],
    groups: int,
) -> Node:
    """Zeros between the pixels, then a convolution with the mirrored weights."""
    spread = _interleave_zeros(call, x, strides)
    channels, outputs, *size = weights.shape
    spatial = len(size)
    flipped = weights
    for axis in range(2, spatial + 2):
        flipped = call.slice_axis(flipped, axis, weights.shape[axis] - 1, weights.shape[axis], -1)
    apart = call.reshape(flipped, (groups, channels // groups, outputs, *size))
    swapped = call.transpose(apart, (0, 2, 1, *range(3, spatial + 3)))
    kernels = call.reshape(swapped, (groups * outputs, channels // groups, *size))
    reach = [(n - 1) * gap for n, gap in zip(size, dilation, strict=True)]
    before = [r - cut for r, cut in zip(reach, low, strict=True)]
    after = [r - cut for r, cut in zip(reach, high, strict=True)]
    for axis in range(spatial):
        front, back = max(0, -before[axis]), max(0, -after[axis])
        count = spread.shape[2 + axis] - front - back
        if count < 1:
            raise ModelError(f"pads {low} and {high} leave nothing of the result")
        spread = call.slice_axis(spread, 2 + axis, front, count)
    one = (1,) * spatial
    low_pad, high_pad = tuple(max(0, n) for n in before), tuple(max(0, n) for n in after)
    op = ops.Conv(one, low_pad, high_pad, dilation, groups, channels_last=False)
    return call.apply(op, spread, kernels)


def _interleave_zeros(call: Call, x: Node, strides: tuple[int, ...]) -> Node:
    """``stride - 1`` zeros between the elements of each spatial axis."""
    if set(strides) == {1}:
        return x
    images = x.shape[:2]
    apart = call.reshape(x, (*images, *(n for size in x.shape[2:] for n in (size, 1))))
    high = [0, 0, *(n for step in strides for n in (0, step - 1))]
    wide = call.pad(apart, [0] * len(high), high)
    sizes = [size * step for size, step in zip(x.shape[2:], strides, strict=True)]
    y = call.reshape(wide, (*images, *sizes))
    for axis, (size, step) in enumerate(zip(x.shape[2:], strides, strict=True)):
        y = call.slice_axis(y, 2 + axis, 0, (size - 1) * step + 1)
    return y


RULES: Mapping[str, Rule] = MappingProxyType(
    {"Conv": conv, "ConvInteger": conv_integer, "ConvTranspose": conv_transpose}
)
