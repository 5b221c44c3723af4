"""ONNX quantisation: a `Call` goes in, float arithmetic, rounding and saturating casts come out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.conv import convolve
from aotc.frontend.onnx_ops.linalg import matrix_product
from aotc.frontend.tensors import dtype_of
from aotc.graph.ir import Node
from aotc.graph.types import DType


def _along(call: Call, values: Node, x: Node) -> Node:
    """Scales or zero points shaped to broadcast over ``x``: one, one per slice, or one per
    block."""
    if values.type.elems == 1 and values.type.rank <= 1:
        return call.reshape(values, ())
    axis = call.axis(call.attrs.integer("axis", 1), x.type.rank)
    if values.type.rank == 1:
        if values.shape != (x.shape[axis],):
            raise ModelError(f"{values.type} does not fit axis {axis} of {x.type}")
        return call.reshape(values, (x.shape[axis], *(1,) * (x.type.rank - axis - 1)))
    block = call.attrs.integer("block_size", 0)
    if block < 1 or values.type.rank != x.type.rank:
        raise ModelError(f"{values.type} with block_size {block} does not fit {x.type}")
    dims = values.shape
    apart = call.reshape(values, (*dims[: axis + 1], 1, *dims[axis + 1 :]))
    wide = call.broadcast(apart, (*dims[: axis + 1], block, *dims[axis + 1 :]))
    whole = call.reshape(wide, (*dims[:axis], dims[axis] * block, *dims[axis + 1 :]))
    if whole.shape[axis] < x.shape[axis]:
        raise ModelError(f"{values.type} in blocks of {block} does not cover {x.type}")
    # the last block may be cut short
    return call.slice_axis(whole, axis, 0, x.shape[axis])


def _saturated(call: Call, x: Node, dtype: DType) -> Node:
    """Whole floats as integers of ``dtype``, at the end of its range when beyond it."""
    if dtype not in (DType.I8, DType.U8, DType.I16, DType.U16):
        raise call.unsupported(f"quantisation to {dtype.value} is not supported")
    info = np.iinfo(dtype.numpy)
    clamped = call.binary("min", call.binary("max", x, float(info.min)), float(info.max))
    return call.cast(clamped, dtype)


def _quantized(call: Call, x: Node, scale: Node, zero: Node | None, dtype: DType) -> Node:
    """``saturate(round(x / scale) + zero)``."""
    whole = call.unary("round", call.binary("div", x, scale))
    if zero is not None:
        whole = call.binary("add", whole, call.cast(zero, whole.type.dtype))
    return _saturated(call, whole, dtype)


def quantize_linear(call: Call) -> Node:
    """``saturate(round(x / scale) + zero_point)``."""
    x = call[0]
    wide = x if x.type.dtype.is_float else call.cast(x, DType.F32)
    scale = _along(call, call.cast(call[1], wide.type.dtype), x)
    zero = call.optional(2)
    dtype = DType.U8 if zero is None else zero.type.dtype
    if zero is None and call.attrs.integer("output_dtype", 0):
        dtype = dtype_of(call.attrs.integer("output_dtype"))
    return _quantized(call, wide, scale, None if zero is None else _along(call, zero, x), dtype)


def dequantize_linear(call: Call) -> Node:
    """``(x - zero_point) * scale``."""
    x, scale, zero = call[0], call[1], call.optional(2)
    dtype = scale.type.dtype
    if call.attrs.integer("output_dtype", 0):
        dtype = dtype_of(call.attrs.integer("output_dtype"))
    wide = call.cast(x, DType.F32 if dtype is DType.F16 else dtype)
    if zero is not None:
        wide = call.binary("sub", wide, call.cast(_along(call, zero, x), wide.type.dtype))
    factor = call.cast(_along(call, scale, x), wide.type.dtype)
    return call.cast(call.binary("mul", wide, factor), dtype)


def _less_zero(call: Call, x: Node, zero: Node, last_axis: bool) -> Node:
    """``x - zero`` in int32; a vector of zero points runs along the last axis but one, or the
    last."""
    wide = call.cast(zero, DType.I32)
    if wide.type.elems == 1:
        wide = call.reshape(wide, ())
    elif wide.type.rank == 1 and not last_axis:
        wide = call.reshape(wide, (*wide.shape, 1))
    return call.binary("sub", call.cast(x, DType.I32), wide)


def _rescaled(call: Call, total: Node, factor: Node, scale: Node, zero: Node) -> Node:
    """int32 sums of products back to the 8-bit type of ``zero``."""
    real = call.binary("mul", call.cast(total, factor.type.dtype), factor)
    one = call.reshape(scale, ()) if scale.type.elems == 1 else scale
    point = call.reshape(zero, ()) if zero.type.elems == 1 else zero
    return _quantized(call, real, one, point, zero.type.dtype)


def qlinear_matmul(call: Call) -> Node:
    """The product of quantised matrices, quantised: inputs a, scale, zero, b, scale, zero, scale,
    zero."""
    scale_a, scale_b = call[1], call[4]
    total = matrix_product(
        call,
        _less_zero(call, call[0], call[2], last_axis=False),
        _less_zero(call, call[3], call[5], last_axis=True),
    )
    if scale_a.type.elems == 1:
        scale_a = call.reshape(scale_a, ())
    elif scale_a.type.rank == 1:
        scale_a = call.reshape(scale_a, (*scale_a.shape, 1))
    if scale_b.type.elems == 1:
        scale_b = call.reshape(scale_b, ())
    factor = call.binary("mul", scale_a, scale_b)
    return _rescaled(call, total, factor, call[6], call[7])


def qlinear_conv(call: Call) -> Node:
    """The convolution of quantised data, quantised: inputs as in QLinearMatMul, then an int32
    bias."""
    x, weights = call[0], call[3]
    column = (weights.shape[0], *(1,) * (x.type.rank - 2))
    zero_w = call.cast(call[5], DType.I32)
    per_output = zero_w.type.elems > 1
    kernel_shape = (weights.shape[0], *(1,) * (weights.type.rank - 1))
    zero_w = call.reshape(zero_w, kernel_shape if per_output else ())
    kernels = call.binary("sub", call.cast(weights, DType.I32), zero_w)
    total = convolve(call, _less_zero(call, x, call[2], last_axis=True), kernels)
    bias = call.optional(8)
    if bias is not None:
        total = call.binary("add", total, call.reshape(bias, column))
    scale_w = call.reshape(call[4], column if call[4].type.elems > 1 else ())
    factor = call.binary("mul", call.reshape(call[1], ()), scale_w)
    return _rescaled(call, total, factor, call[6], call[7])


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "DequantizeLinear": dequantize_linear,
        "QLinearConv": qlinear_conv,
        "QLinearMatMul": qlinear_matmul,
        "QuantizeLinear": quantize_linear,
    }
)
