"""Pooling of TFLite: a `Use` goes in, `ReduceWindow` over channels-last data comes out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.pool import element_counts
from aotc.frontend.onnx_ops.window import Window
from aotc.frontend.tflite.ops.contract import window
from aotc.frontend.tflite.use import Rule, Use
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType


def _sides(use: Use) -> tuple[Any, Window]:
    options, x = use.options("Pool2DOptions"), use.call[0]
    if x.type.rank != 4:
        raise ModelError(f"needs data of 4 axes, got {x.type}")
    size = (options.FilterHeight(), options.FilterWidth())
    sides = window(use, options, size, x.shape[1:3])
    for extent, reach in zip(sides.extent, size, strict=True):
        use.call.expect_indexable(extent * reach)
    return options, sides


def _slide(use: Use, x: Node, fn: str, sides: Window) -> Node:
    op = ops.ReduceWindow(
        fn,
        (1, *sides.size, 1),
        (1, *sides.strides, 1),
        (0, *sides.low, 0),
        (0, *sides.high, 0),
        (1, *sides.dilation, 1),
    )
    return use.call.apply(op, x)


def _mean(use: Use, x: Node, sides: Window) -> Node:
    """The mean of the elements in each window; padding does not count."""
    y, even = _slide(use, x, "sum", sides), 1
    for axis, size in enumerate(x.shape[1:3]):
        counts = element_counts(size, sides, axis, False)
        if (counts == counts[0]).all():
            even *= int(counts[0])
            continue
        inverse = np.divide(1.0, counts).astype(x.type.dtype.numpy)
        y = use.call.binary("mul", y, use.call.constant(inverse.reshape(-1, *(1,) * (2 - axis))))
    return use.call.binary("mul", y, 1.0 / even)


def average_pool_2d(use: Use) -> Node:
    """The mean of each window, and activation: of stored integers where the result stores them
    alike, halves rounded away from zero as the reference does."""
    options, sides = _sides(use)
    activation = options.FusedActivationFunction()
    have, want = use.scale_of(use.tensor(0)), use.scale_of(use.output())
    if have is None or want is None or not have.same_as(want):
        return use.result(_mean(use, use.real(0), sides), activation)
    call, x = use.call, use.call[0]
    total = _slide(use, call.cast(x, DType.I32), "sum", sides)
    divisor = call.constant(_window_sizes(use, x, sides))
    half = call.binary("div", divisor, 2)
    up, down = call.binary("add", total, half), call.binary("sub", total, half)
    rounded = call.select(call.compare("gt", total, 0), up, down)
    low, high = use.limits(use.output(), want, activation)
    mean = call.binary("div", rounded, divisor)
    return call.cast(call.binary("min", call.binary("max", mean, low), high), x.type.dtype)


def _window_sizes(use: Use, x: Node, sides: Window) -> np.ndarray:
    """How many elements each window has, i32[1, height, width, 1], or i32[] for all of them."""
    counts = [element_counts(size, sides, axis, False) for axis, size in enumerate(x.shape[1:3])]
    if all((each == each[0]).all() for each in counts):
        return np.asarray(counts[0][0] * counts[1][0], np.int32)
    use.call.expect_indexable(counts[0].size * counts[1].size)
    sizes: np.ndarray = np.multiply.outer(*counts).astype(np.int32)
    return sizes.reshape(1, *sides.extent, 1)


def l2_pool_2d(use: Use) -> Node:
    """The root of the mean square of each window, and activation."""
    options, sides = _sides(use)
    x = use.real(0)
    y = use.call.unary("sqrt", _mean(use, use.call.binary("mul", x, x), sides))
    return use.result(y, options.FusedActivationFunction())


def max_pool_2d(use: Use) -> Node:
    """The largest element of each window, and activation: of stored integers where the result
    stores them alike."""
    options, sides = _sides(use)
    activation = options.FusedActivationFunction()
    have, want = use.scale_of(use.tensor(0)), use.scale_of(use.output())
    alike = have is None or have.same_as(want)
    if alike and have is None:
        return use.result(_slide(use, use.call[0], "max", sides), activation)
    if alike and have is not None:
        low, high = use.limits(use.output(), have, activation)
        y = _slide(use, use.call[0], "max", sides)
        least, most = y.type.dtype.int_range
        y = use.call.binary("max", y, low) if low > least else y
        return use.call.binary("min", y, high) if high < most else y
    return use.result(_slide(use, use.real(0), "max", sides), activation)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "AVERAGE_POOL_2D": average_pool_2d,
        "L2_POOL_2D": l2_pool_2d,
        "MAX_POOL_2D": max_pool_2d,
    }
)
