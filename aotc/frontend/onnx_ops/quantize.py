"""ONNX quantisation: a `Call` goes in, float arithmetic, rounding and saturating casts come out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.conv import convolve
from aotc.frontend.onnx_ops.convert import LARGEST, narrow_float
from aotc.frontend.onnx_ops.grids import expect_scale, expect_zero_point
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


_QUANTISED = frozenset(
    {DType.I8, DType.U8, DType.I16, DType.U16, DType.I4, DType.U4, DType.I2, DType.U2}
    | {DType.F4E2M1, *LARGEST}
)


def _quantized(
    call: Call,
    quotient: Node,
    zero: Node | None,
    dtype: DType,
    saturate: bool = True,
    limits: tuple[int, int] | None = None,
) -> Node:
    """A quotient as ``dtype``: to the nearest (even) integer, plus the zero point, limited to the
    range, or to ``limits`` within it; to a float8 or float4 rounded once, with the zero point
    before that."""
    if dtype not in _QUANTISED:
        raise call.unsupported(f"quantisation to {dtype.value} is not supported")
    whole = call.unary("round", quotient) if dtype.is_int else quotient
    # float16 and bfloat16 hold integers, but not their sums with a zero point
    wide = whole if whole.type.dtype in (DType.F32, DType.F64) else call.cast(whole, DType.F32)
    if zero is not None:
        wide = call.binary("add", wide, call.cast(zero, wide.type.dtype))
    if dtype.is_float:
        return narrow_float(call, wide, dtype, saturate)
    low, high = limits or dtype.int_range
    return call.cast(call.binary("min", call.binary("max", wide, low), high), dtype)


def _numeric(dtype: DType) -> bool:
    """Whether divisions can be done in ``dtype``: a scale may be an integer or a power of two."""
    return dtype.is_float and dtype is not DType.F8E8M0


def quantize_linear(call: Call, limits: tuple[int, int] | None = None) -> Node:
    """``saturate(round(x / scale) + zero_point)``; the division is done in the type of the scale
    unless ``precision`` names another. ``limits`` are those of the result instead of its type's."""
    x, scale, zero = call[0], call[1], call.optional(2)
    if x.type.dtype.is_float:  # integers have steps that are integers
        expect_scale(scale)
    dtype = DType.U8 if zero is None else zero.type.dtype
    if zero is None and call.attrs.integer("output_dtype", 0):
        dtype = dtype_of(call.attrs.integer("output_dtype"))
    types = [scale.type.dtype, x.type.dtype, DType.F32]
    if call.attrs.integer("precision", 0):
        types.insert(0, dtype_of(call.attrs.integer("precision")))
    precision = next(filter(_numeric, types))
    divisor = _along(call, call.cast(scale, precision), x)
    quotient = call.binary("div", call.cast(x, precision), divisor)
    point = None if zero is None else _along(call, zero, x)
    saturate = call.attrs.flag("saturate", True)
    return _quantized(call, quotient, point, dtype, saturate, limits)


def dequantize_linear(call: Call) -> Node:
    """``(x - zero_point) * scale`` in float32, rounded once to the type of the result."""
    x, scale, zero = call[0], call[1], call.optional(2)
    expect_scale(scale)
    expect_zero_point(zero, x)
    dtype = scale.type.dtype if _numeric(scale.type.dtype) else DType.F32
    if call.attrs.integer("output_dtype", 0):
        dtype = dtype_of(call.attrs.integer("output_dtype"))
    wide = call.cast(x, DType.F64 if dtype is DType.F64 else DType.F32)
    if zero is not None:
        wide = call.binary("sub", wide, call.cast(_along(call, zero, x), wide.type.dtype))
    factor = call.cast(_along(call, scale, x), wide.type.dtype)
    return call.cast(call.binary("mul", wide, factor), dtype)


def _less_zero(call: Call, x: Node, zero: Node, last_axis: bool, wide: DType) -> Node:
    """``x - zero`` in the type ``wide``; a vector of zero points runs along the last axis but one,
    or the last."""
    point = call.cast(zero, wide)
    if point.type.elems == 1:
        point = call.reshape(point, ())
    elif point.type.rank == 1 and not last_axis:
        point = call.reshape(point, (*point.shape, 1))
    return call.binary("sub", call.cast(x, wide), point)


def _rescaled(
    call: Call, total: Node, scale_a: Node, scale_b: Node, scale_y: Node, zero: Node
) -> Node:
    """Sums of products back to the quantised type of ``zero``: times ``scale_a * scale_b /
    scale_y`` in float32."""
    scales = []
    named = {"first": scale_a, "second": scale_b, "last": scale_y}
    for name, scale in named.items():
        expect_scale(scale, f"{name} scale")
        one = call.reshape(scale, ()) if scale.type.elems == 1 else scale
        scales.append(call.cast(one, DType.F32))
    factor = call.binary("div", call.binary("mul", scales[0], scales[1]), scales[2])
    real = call.binary("mul", call.cast(total, DType.F32), factor)
    point = call.reshape(zero, ()) if zero.type.elems == 1 else zero
    return _quantized(call, real, point, zero.type.dtype)


def qlinear_matmul(call: Call) -> Node:
    """The product of quantised matrices, quantised: inputs a, scale, zero, b, scale, zero, scale,
    zero. Integers are multiplied exactly, float8 numbers in float32."""
    scale_a = call[1]
    expect_zero_point(call[2], call[0], "first zero point")
    expect_zero_point(call[5], call[3], "second zero point")
    wide = DType.F32 if call[0].type.dtype.is_float or call[3].type.dtype.is_float else DType.I32
    total = matrix_product(
        call,
        _less_zero(call, call[0], call[2], False, wide),
        _less_zero(call, call[3], call[5], True, wide),
    )
    if scale_a.type.elems > 1 and scale_a.type.rank == 1:
        scale_a = call.reshape(scale_a, (*scale_a.shape, 1))
    return _rescaled(call, total, scale_a, call[4], call[6], call[7])


def qlinear_conv(call: Call) -> Node:
    """The convolution of quantised data, quantised: inputs as in QLinearMatMul, then an int32
    bias."""
    x, weights = call[0], call[3]
    expect_zero_point(call[2], x, "first zero point")
    expect_zero_point(call[5], weights, "second zero point")
    column = (weights.shape[0], *(1,) * (x.type.rank - 2))
    zero_w = call.cast(call[5], DType.I32)
    per_output = zero_w.type.elems > 1
    kernel_shape = (weights.shape[0], *(1,) * (weights.type.rank - 1))
    zero_w = call.reshape(zero_w, kernel_shape if per_output else ())
    kernels = call.binary("sub", call.cast(weights, DType.I32), zero_w)
    total = convolve(call, _less_zero(call, x, call[2], True, DType.I32), kernels)
    bias = call.optional(8)
    if bias is not None:
        total = call.binary("add", total, call.reshape(bias, column))
    scale_w = call.reshape(call[4], column) if call[4].type.elems > 1 else call[4]
    return _rescaled(call, total, call[1], scale_w, call[6], call[7])


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "DequantizeLinear": dequantize_linear,
        "QLinearConv": qlinear_conv,
        "QLinearMatMul": qlinear_matmul,
        "QuantizeLinear": quantize_linear,
    }
)
