"""Primitives that combine many elements in, ONNX nodes out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from aotc.export.emitter import Emitter, Value
from aotc.export.rules_elementwise import Rule, op_of
from aotc.graph import ops
from aotc.graph.ir import Node, Op
from aotc.graph.types import DType

_REDUCE = MappingProxyType(
    {"sum": "ReduceSum", "prod": "ReduceProd", "max": "ReduceMax", "min": "ReduceMin",
     "and": "ReduceMin", "or": "ReduceMax"}
)  # fmt: skip
_EMPTY = MappingProxyType({"sum": 0, "prod": 1, "and": 1, "or": 0})
"""What nothing adds up to."""


def reduce(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    op = op_of(node, ops.Reduce)
    (x,) = operands
    if not op.axes:
        return emitter.raw("Identity", x.dtype, x)
    if not math.prod(node.inputs[0].shape[axis] for axis in op.axes):
        return emitter.expand(emitter.number(_EMPTY[op.fn], x.dtype), node.shape)
    work = DType.F32 if x.dtype.is_float and x.dtype.size_bytes < 4 else x.dtype
    axes = emitter.ints(*op.axes)
    operator = _REDUCE[op.fn]
    work = work if emitter.allows(operator, work) else (
        DType.I32 if work.size_bytes < 4 else DType.I64
    )
    made = emitter.raw(operator, work, emitter.cast(x, work), axes, keepdims=0)
    return emitter.cast(made, x.dtype)


def arg_reduce(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    op = op_of(node, ops.ArgReduce)
    return emitter.apply(
        "ArgMax" if op.fn == "max" else "ArgMin", *operands, result=DType.I64, axis=op.axis,
        keepdims=0, select_last_index=int(op.last),
    )  # fmt: skip


def cum_sum(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    op = op_of(node, ops.CumSum)
    (x,) = operands
    work = DType.F32 if x.dtype.is_float and x.dtype.size_bytes < 4 else x.dtype
    work = work if emitter.allows("CumSum", work) else DType.I32
    axis = emitter.number(op.axis, DType.I64)
    made = emitter.raw(
        "CumSum", work, emitter.cast(x, work), axis, exclusive=int(op.exclusive),
        reverse=int(op.reverse),
    )  # fmt: skip
    return emitter.cast(made, x.dtype)


def reduce_window(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    """A pool of ONNX where the axes that slide allow one: the largest of floats by MaxPool, sums of
    floats by a convolution with ones. All else goes axis by axis, one slice for each tap."""
    op = op_of(node, ops.ReduceWindow)
    (x,) = operands
    shape = node.inputs[0].shape
    fields = zip(op.window, op.strides, op.low, op.high, op.dilation, strict=True)
    slides = [axis for axis, each in enumerate(fields) if each[:4] != (1, 1, 0, 0)]
    floats = x.dtype in (DType.F16, DType.F32, DType.F64)
    reach = max((max(op.low[i], op.high[i]) - op.window[i] + 1 for i in slides), default=1)
    if not slides or len(slides) > 3 or not floats or (op.fn == "max" and reach > 0):
        return _by_axis(emitter, op, x, shape, slides)
    rest = [axis for axis in range(len(shape)) if axis not in slides]
    order = [*rest, *slides]
    flat = emitter.raw("Transpose", x.dtype, x, perm=order)
    count = math.prod(shape[axis] for axis in rest)
    flat = emitter.reshape(flat, (count, 1, *(shape[axis] for axis in slides)))
    attrs: dict[str, Any] = {
        "kernel_shape": [op.window[i] for i in slides],
        "strides": [op.strides[i] for i in slides],
        "dilations": [op.dilation[i] for i in slides],
        "pads": [*(op.low[i] for i in slides), *(op.high[i] for i in slides)],
    }
    if op.fn == "max":
        made = emitter.apply("MaxPool", flat, **attrs)
    else:
        ones = emitter.constant(np.ones((1, 1, *attrs["kernel_shape"]), x.dtype.numpy))
        made = emitter.raw("Conv", x.dtype, flat, ones, **attrs)
    moved = [node.shape[axis] for axis in order]
    made = emitter.reshape(made, moved)
    back = [order.index(axis) for axis in range(len(shape))]
    return emitter.raw("Transpose", x.dtype, made, perm=back)


def _by_axis(
    emitter: Emitter, op: ops.ReduceWindow, x: Value, shape: Sequence[int], slides: Sequence[int]
) -> Value:
    kind = x.dtype
    work = DType.F32 if kind.is_float and kind.size_bytes < 4 else kind
    x = emitter.cast(x, work)
    sizes = list(shape)
    lowest = -math.inf if kind.is_float else kind.int_range[0]
    fill = emitter.constant(np.asarray(lowest if op.fn == "max" else 0).astype(work.numpy))
    for axis in slides:
        sides = emitter.ints(op.low[axis], op.high[axis])
        x = emitter.raw("Pad", work, x, sides, fill, emitter.ints(axis))
        padded = sizes[axis] + op.low[axis] + op.high[axis]
        span = (op.window[axis] - 1) * op.dilation[axis]
        sizes[axis] = (padded - span - 1) // op.strides[axis] + 1
        total: Value | None = None
        for tap in range(op.window[axis]):
            start = tap * op.dilation[axis]
            last = start + (sizes[axis] - 1) * op.strides[axis] + 1
            vectors = (emitter.ints(v) for v in (start, last, axis, op.strides[axis]))
            part = emitter.raw("Slice", work, x, *vectors)
            operator = "Max" if op.fn == "max" else "Add"
            total = part if total is None else emitter.apply(operator, total, part)
        assert total is not None
        x = total
    return emitter.cast(x, kind)


def dot(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    if not node.inputs[0].shape[-1]:
        return emitter.expand(emitter.number(0, operands[0].dtype), node.shape)
    return emitter.apply("MatMul", *operands)


def conv(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    op = op_of(node, ops.Conv)
    x, weights = operands
    rank = node.type.rank
    shape, result = list(node.inputs[0].shape), list(node.shape)
    if op.channels_last:
        perm = [0, rank - 1, *range(1, rank - 1)]
        x = emitter.move("Transpose", [x], perm=perm)
        shape, result = [shape[i] for i in perm], [result[i] for i in perm]
    if not x.dtype.is_float or 0 in shape:
        made = _conv_by_products(emitter, op, x, weights, shape, node.inputs[1].shape, result)
    else:
        made = emitter.apply(
            "Conv", x, weights, strides=op.strides, pads=[*op.low, *op.high],
            dilations=op.dilation, group=op.groups,
        )  # fmt: skip
    if op.channels_last:
        made = emitter.move("Transpose", [made], perm=[0, *range(2, rank), 1])
    return made


def _conv_by_products(
    emitter: Emitter, op: ops.Conv, x: Value, weights: Value,
    shape: Sequence[int], kernel: Sequence[int], result: Sequence[int],
) -> Value:  # fmt: skip
    """A convolution of integers, which ONNX lacks: all windows as columns, and one product."""
    spatial = [
        low + size + high for low, size, high in zip(op.low, shape[2:], op.high, strict=True)
    ]
    if any((*op.low, *op.high)):
        sides = emitter.ints(0, 0, *op.low, 0, 0, *op.high)
        x = emitter.raw("Pad", x.dtype, x, sides, emitter.number(0, x.dtype))
    places = np.arange(math.prod(spatial)).reshape(spatial)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel[2:], op.dilation, strict=True)]
    views = sliding_window_view(places, reach)
    steps = tuple(slice(None, None, s) for s in (*op.strides, *op.dilation))
    axes = len(spatial)
    taps = views[steps].transpose(*range(axes, 2 * axes), *range(axes))
    window, positions = math.prod(kernel[2:]), math.prod(result[2:])
    flat = emitter.reshape(x, (*shape[:2], math.prod(spatial)))
    columns = emitter.raw(
        "Gather", x.dtype, flat, emitter.constant(taps.reshape(window, positions)), axis=2
    )
    depth = shape[1] // op.groups * window
    columns = emitter.reshape(columns, (shape[0], op.groups, depth, positions))
    rows = emitter.reshape(weights, (op.groups, kernel[0] // op.groups, depth))
    return emitter.reshape(emitter.apply("MatMul", rows, columns), result)


def top_k(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    op = op_of(node, ops.TopK)
    x = operands[0]
    x = emitter.cast(x, DType.F32) if not emitter.allows("TopK", x.dtype) else x
    kinds = [x.dtype, DType.I64]
    return emitter.many(
        "TopK", (x, emitter.ints(op.k)), kinds, axis=op.axis, largest=int(op.largest)
    )[1]


def widen(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    """The numbers that codes stand for, less the zero point, times the scale."""
    op = op_of(node, ops.Widen)
    codes, *parts = operands
    if op.stored is DType.BF16:
        codes = emitter.bits(codes, DType.BF16)
    elif op.stored.size_bits == 4:
        codes = emitter.convert(codes, DType.I32)
        sixteen, eight = (emitter.number(value, DType.I32) for value in (16, 8))
        codes = emitter.apply("Mod", codes, sixteen)
        if op.stored.is_signed:
            negative = emitter.apply("GreaterOrEqual", codes, eight, result=DType.BOOL)
            codes = emitter.where(negative, emitter.apply("Sub", codes, sixteen), codes)
    numbers = emitter.convert(codes, DType.F32)
    if not parts:
        return numbers
    places = emitter.ints(*(i // op.block for i in range(node.shape[op.axis])))
    scale, *zero = (emitter.move("Gather", [part], places, axis=op.axis) for part in parts)
    if zero:
        numbers = emitter.apply("Sub", numbers, zero[0])
    return emitter.apply("Mul", numbers, scale)


RULES: Mapping[type[Op], Rule] = MappingProxyType(
    {
        ops.Widen: widen,
        ops.Reduce: reduce,
        ops.ArgReduce: arg_reduce,
        ops.CumSum: cum_sum,
        ops.ReduceWindow: reduce_window,
        ops.Dot: dot,
        ops.Conv: conv,
        ops.TopK: top_k,
    }
)
