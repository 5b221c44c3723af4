"""Derivatives of sliding windows and convolutions, themselves windows and convolutions."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from aotc.autodiff.emit import Emit, Maybe, is_float
from aotc.autodiff.reduce import bilinear_jvp
from aotc.autodiff.rule import Rule, linear, same_op
from aotc.graph import ops
from aotc.graph.ir import Node


def expand_max_window(e: Emit, node: Node) -> Node | None:
    """A sliding maximum, axis by axis, as the maximum of shifted slices; None for sums. Padding
    never wins unless it is all that a window sees."""
    assert isinstance(node.op, ops.ReduceWindow)
    if node.op.fn != "max" or not is_float(node):
        return None
    op, (x,) = node.op, node.inputs
    for axis in range(x.type.rank):
        window, step = op.window[axis], op.strides[axis]
        x = e.pad_axis(x, axis, op.low[axis], op.high[axis], -math.inf)
        count, gap = node.shape[axis], op.dilation[axis]
        taps = [e.slice_axis(x, axis, tap * gap, count, step) for tap in range(window)]
        if window == 1:
            x = taps[0]
            continue
        apart = (*taps[0].shape[:axis], 1, *taps[0].shape[axis:])
        stacked = e.builder.concat([e.builder.reshape(tap, apart) for tap in taps], axis)
        x = e.apply(ops.Reduce("max", (axis,)), stacked)
    return x


def _crop(e: Emit, x: Node, axis: int, low: int, size: int) -> Node:
    """``size`` elements of an axis from ``low``, with zeros for those behind its end."""
    missing = max(low + size - x.shape[axis], 0)
    return e.slice_axis(e.pad_axis(x, axis, 0, missing), axis, low, size)


def _window_sum(e: Emit, node: Node, outer: Node) -> Node:
    """Each element takes part in the windows that see it: a sum over a window of the cotangent."""
    assert isinstance(node.op, ops.ReduceWindow)
    op, (x,) = node.op, node.inputs
    for axis, step in enumerate(op.strides):
        outer = e.spread_axis(outer, axis, step)
    around = tuple((w - 1) * gap for w, gap in zip(op.window, op.dilation, strict=True))
    ones = (1,) * x.type.rank
    spread = e.apply(ops.ReduceWindow("sum", op.window, ones, around, around, op.dilation), outer)
    for axis, size in enumerate(x.shape):
        spread = _crop(e, spread, axis, op.low[axis], size)
    return spread


def expand_channels_last(e: Emit, node: Node) -> Node | None:
    """A channels-last convolution between transposes, as the rules know only the other order."""
    op = node.op
    assert isinstance(op, ops.Conv)
    if not op.channels_last or not is_float(node):
        return None
    data, weights = node.inputs
    last = data.type.rank - 1
    first = ops.Conv(op.strides, op.low, op.high, op.dilation, op.groups, channels_last=False)
    return e.move_axis(e.apply(first, e.move_axis(data, last, 1), weights), 1, last)


def _conv_vjp(e: Emit, node: Node, outer: Node, wanted: Sequence[bool]) -> Sequence[Maybe]:
    return [
        _by_data(e, node, outer) if wanted[0] else None,
        _by_weights(e, node, outer) if wanted[1] else None,
    ]


def _by_data(e: Emit, node: Node, outer: Node) -> Node:
    """The full convolution of the spread cotangent with the mirrored weights."""
    op, (data, weights) = node.op, node.inputs
    assert isinstance(op, ops.Conv)
    window, spatial = weights.shape[2:], len(op.strides)
    for axis, step in enumerate(op.strides):
        outer = e.spread_axis(outer, 2 + axis, step)
        weights = e.slice_axis(weights, 2 + axis, window[axis] - 1, window[axis], -1)
    outputs, inputs = weights.shape[0] // op.groups, weights.shape[1]
    grouped = e.builder.reshape(weights, (op.groups, outputs, inputs, *window))
    swapped = e.move_axis(grouped, 2, 1)
    kernels = e.builder.reshape(swapped, (op.groups * inputs, outputs, *window))
    around = tuple((w - 1) * gap for w, gap in zip(window, op.dilation, strict=True))
    full = ops.Conv((1,) * spatial, around, around, op.dilation, op.groups, channels_last=False)
    spread = e.apply(full, outer, kernels)
    for axis in range(spatial):
        spread = _crop(e, spread, 2 + axis, op.low[axis], data.shape[2 + axis])
    return spread


def _by_weights(e: Emit, node: Node, outer: Node) -> Node:
    """The convolution of the data with the cotangent, summed over the batch: strides and dilation
    change places, the batch becomes the channels."""
    op, (data, weights) = node.op, node.inputs
    assert isinstance(op, ops.Conv)
    batch, channels, *sizes = data.shape
    each = channels // op.groups
    grouped = e.builder.reshape(data, (batch, op.groups, each, *sizes))
    front = e.builder.transpose(grouped, (2, 1, 0, *range(3, grouped.type.rank)))
    samples = e.builder.reshape(front, (each, op.groups * batch, *sizes))
    kernels = e.move_axis(outer, 1, 0)
    swapped = ops.Conv(op.dilation, op.low, op.high, op.strides, op.groups, channels_last=False)
    result = e.apply(swapped, samples, kernels)
    for axis, size in enumerate(weights.shape[2:], start=2):
        result = e.slice_axis(result, axis, 0, size)
    return e.move_axis(result, 1, 0)


RULES: Mapping[type[ops.Op], Rule] = MappingProxyType(
    {
        ops.ReduceWindow: linear(same_op, _window_sum),
        ops.Conv: Rule(bilinear_jvp, _conv_vjp),
    }
)
