"""Quantised operators of com.microsoft: a `Call` goes in; numbers as they are meant, the operator
on them and the rounding back come out.

The formulas are those of ONNX Runtime's page of contributed operators (docs/ContribOperators.md).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.attributes import Attributes
from aotc.frontend.onnx_ops.activation import softmax_over
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.linalg import matrix_product
from aotc.frontend.onnx_ops.pool import average_pool
from aotc.frontend.onnx_ops.quantize import dequantize_linear, quantize_linear
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType


def _plain(call: Call, *inputs: Node | None) -> Call:
    """The call with other inputs and no attributes."""
    return replace(call, inputs=inputs, attrs=Attributes({}, None))


def _real(call: Call, at: int) -> Node:
    """The numbers that inputs ``at`` (values), ``at + 1`` (scale), ``at + 2`` (zero point or
    nothing) stand for, in float32."""
    return dequantize_linear(_plain(call, call[at], call[at + 1], call.optional(at + 2)))


def _quantised(call: Call, real: Node, at: int, dtype: DType) -> Node:
    """``real`` with the scale in input ``at`` and the zero point in the next, or none."""
    zero = call.optional(at + 1)
    if zero is None:
        zero = call.constant(np.zeros((), dtype.numpy))
    elif zero.type.dtype is not dtype:
        raise ModelError(f"the zero point is {zero.type}, the operator gives {dtype.value}")
    return quantize_linear(_plain(call, real, call[at], zero))


def _binary(fn: str) -> Rule:
    """``fn`` of two quantised operands: inputs a, scale, zero, b, scale, zero, scale, zero."""

    def rule(call: Call) -> Node:
        real = call.binary(fn, _real(call, 0), _real(call, 3))
        return _quantised(call, real, 6, call[0].type.dtype)

    return rule


def _unary(formula: Callable[[Call, Node], Node]) -> Rule:
    """``formula`` of a quantised operand: inputs x, scale, zero, scale, zero."""

    def rule(call: Call) -> Node:
        return _quantised(call, formula(call, _real(call, 0)), 3, call[0].type.dtype)

    return rule


def _leaky_relu(call: Call, x: Node) -> Node:
    below = call.binary("mul", x, call.attrs.real("alpha", 0.01))
    return call.select(call.compare("lt", x, 0.0), below, x)


def _softmax(call: Call, x: Node) -> Node:
    """Over ``axis``; before opset 13 over all axes from ``axis`` on."""
    axis = call.axis(call.attrs.integer("axis", -1), x.type.rank)
    if call.attrs.integer("opset") >= 13:
        return softmax_over(call, x, axis)
    outer = int(np.prod(x.shape[:axis], dtype=np.int64))
    flat = call.reshape(x, (outer, x.type.elems // outer if outer else 0))
    return call.reshape(softmax_over(call, flat, 1), x.shape)


def _channels_first(call: Call, x: Node, pool: Callable[[Call, Node], Node]) -> Node:
    """``pool`` of data whose channels come last if the attribute says so."""
    if not call.attrs.flag("channels_last"):
        return pool(call, x)
    rank = x.type.rank
    y = pool(call, call.transpose(x, (0, rank - 1, *range(1, rank - 1))))
    return call.transpose(y, (0, *range(2, rank), 1))


def _global_average(call: Call, x: Node) -> Node:
    return call.mean(x, tuple(range(2, x.type.rank)))


def _average(call: Call, x: Node) -> Node:
    return average_pool(replace(call, inputs=(x,)))


def qlinear_concat(call: Call) -> Node:
    """Inputs scale and zero point of the result, then tensor, scale and zero point of each part."""
    count, rest = divmod(len(call.inputs) - 2, 3)
    if rest or not count:
        raise ModelError(f"{len(call.inputs)} inputs are not a scale, a zero point and triples")
    parts = [_real(call, 2 + 3 * i) for i in range(count)]
    axis = call.axis(call.attrs.integer("axis"), parts[0].type.rank)
    return _quantised(call, call.concat(parts, axis), 0, call[2].type.dtype)


def qlinear_where(call: Call) -> Node:
    """Inputs condition, then x and y with scale and zero point, then those of the result."""
    real = call.select(call[0], _real(call, 1), _real(call, 4))
    return _quantised(call, real, 7, call[1].type.dtype)


def dynamic_codes(call: Call, x: Node) -> tuple[Node, Node, Node]:
    """``x`` as uint8 codes, their zero point and their scale: 256 steps from the least to the
    greatest value, 0 among them, as in DynamicQuantizeLinear."""
    axes = range(x.type.rank)
    low = call.binary("min", call.reduce("min", x, axes, False), 0.0)
    high = call.binary("max", call.reduce("max", x, axes, False), 0.0)
    spread = call.binary("sub", high, low)
    scale = call.binary("div", spread, 255.0)
    safe = call.select(call.compare("eq", scale, 0.0), call.scalar(1.0, scale), scale)
    zero = call.unary("round", call.binary("div", call.unary("neg", low), safe))
    zero = call.binary("min", call.binary("max", zero, 0.0), 255.0)
    steps = call.binary("add", call.unary("round", call.binary("div", x, safe)), zero)
    steps = call.binary("min", call.binary("max", steps, 0.0), 255.0)
    return call.cast(steps, DType.U8), call.cast(zero, DType.U8), safe


def _integers(call: Call, x: Node, zero: Node | None) -> Node:
    """8-bit integers less their zero point (one, or one a column), as int32."""
    wide = call.cast(x, DType.I32)
    if zero is None:
        return wide
    point = call.cast(zero, DType.I32)
    return call.binary("sub", wide, call.reshape(point, ()) if point.type.elems == 1 else point)


def _one_or_columns(call: Call, values: Node) -> Node:
    return call.reshape(values, ()) if values.type.elems == 1 else values


def dynamic_quantize_matmul(call: Call) -> Node:
    """``A B + bias`` with A quantised at run time and B (scale, zero point) beforehand."""
    codes, zero, scale = dynamic_codes(call, call[0])
    whole = _integers(call, codes, zero)
    total = matrix_product(call, whole, _integers(call, call[1], call.optional(3)))
    factor = call.binary("mul", scale, _one_or_columns(call, call[2]))
    return _floats(call, total, factor, call.optional(4))


def _floats(call: Call, total: Node, factor: Node, bias: Node | None) -> Node:
    y = call.binary("mul", call.cast(total, factor.type.dtype), factor)
    return y if bias is None else call.binary("add", y, bias)


def matmul_integer_to_float(call: Call) -> Node:
    """``A B + bias`` of quantised matrices: inputs A, B, both scales, both zero points, bias."""
    a = _integers(call, call[0], call.optional(4))
    b = _integers(call, call[1], call.optional(5))
    factor = call.binary("mul", call.reshape(call[2], ()), _one_or_columns(call, call[3]))
    return _floats(call, matrix_product(call, a, b), factor, call.optional(6))


def qgemm(call: Call) -> Node:
    """``alpha A B + C`` of quantised matrices, quantised again where a scale is given."""
    a = _integers(call, call[0], call.optional(2))
    b = _integers(call, call[3], call.optional(5))
    a = call.transpose(a, (1, 0)) if call.attrs.flag("transA") else a
    if call.attrs.flag("transB"):
        b = call.transpose(b, (1, 0))
    total = matrix_product(call, a, b)
    bias = call.optional(6)
    total = total if bias is None else call.binary("add", total, bias)
    factor = call.binary("mul", call.reshape(call[1], ()), _one_or_columns(call, call[4]))
    factor = call.binary("mul", factor, call.attrs.real("alpha", 1.0))
    y = _floats(call, total, factor, None)
    return y if call.optional(7) is None else _quantised(call, y, 7, call[0].type.dtype)


def unpacked(values: np.ndarray, bits: int) -> np.ndarray:
    """The numbers of ``bits`` bits in bytes, the low ones first, along the last axis."""
    each = 8 // bits
    shifts = np.arange(each, dtype=np.uint8) * np.uint8(bits)
    apart = (values[..., None] >> shifts) & np.uint8((1 << bits) - 1)
    return np.reshape(apart, (*values.shape[:-1], values.shape[-1] * each))


def matmul_nbits(call: Call) -> Node:
    """``A B^T + bias``; B has numbers of a few bits, a scale and a zero point for each block."""
    bits, block = call.attrs.integer("bits", 4), call.attrs.integer("block_size")
    columns, depth = call.attrs.integer("N"), call.attrs.integer("K")
    if bits not in (2, 4, 8) or block < 16 or block & (block - 1):
        raise call.unsupported(f"weights of {bits} bits in blocks of {block} are not supported")
    if call.optional(4) is not None or call.attrs.flag("weight_prepacked"):
        raise call.unsupported("permuted or prepacked weights are not supported")
    blocks = -(-depth // block)
    packed = call.known(1, "weights")
    if packed.dtype != np.uint8 or packed.size != columns * blocks * block * bits // 8:
        raise ModelError(f"weights {call[1].type} do not fit {columns} by {depth}")
    scales = call.known(2, "scales").astype(np.float32)
    if scales.size != columns * blocks:
        raise ModelError(f"scales {call[2].type} do not fit {columns} times {blocks} blocks")
    codes = unpacked(packed.reshape(columns, blocks, -1), bits).reshape(columns, -1)[:, :depth]
    stored = DType.U8 if bits == 8 else DType.U4
    parts = [scales.reshape(columns, blocks)]
    zero = _block_zeros(call, columns, blocks, bits)
    if (zero == 1 << (bits - 1)).all():
        stored = DType.I8 if bits == 8 else DType.I4
        codes = (codes ^ 128 if bits == 8 else codes - np.uint8(1 << (bits - 1))).view(np.int8)
    else:
        parts.append(zero)
    matrix = call.apply(
        ops.Widen(stored, 0, block),
        *(call.constant(np.ascontiguousarray(x.T)) for x in (codes, *parts)),
    )
    y = matrix_product(call, call.cast(call[0], DType.F32), matrix)
    y = call.cast(y, call[0].type.dtype)
    bias = call.optional(5)
    return y if bias is None else call.binary("add", y, bias)


def _block_zeros(call: Call, columns: int, blocks: int, bits: int) -> np.ndarray:
    """The zero point of each block as float32 [columns, blocks]: the middle, floats, or packed."""
    if call.optional(3) is None:
        return np.full((columns, blocks), 1 << (bits - 1), np.float32)
    zeros = call.known(3, "zero points")
    if zeros.dtype != np.uint8:
        return np.asarray(zeros.reshape(columns, blocks), np.float32)
    flat = unpacked(zeros.reshape(columns, -1), bits)
    if flat.shape[1] < blocks:
        raise ModelError(f"zero points {call[3].type} do not fit {columns} times {blocks} blocks")
    return flat[:, :blocks].astype(np.float32)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "DynamicQuantizeMatMul": dynamic_quantize_matmul,
        "MatMulIntegerToFloat": matmul_integer_to_float,
        "MatMulNBits": matmul_nbits,
        "QGemm": qgemm,
        "QLinearAdd": _binary("add"),
        "QLinearAveragePool": _unary(lambda call, x: _channels_first(call, x, _average)),
        "QLinearConcat": qlinear_concat,
        "QLinearGlobalAveragePool": _unary(
            lambda call, x: _channels_first(call, x, _global_average)
        ),
        "QLinearLeakyRelu": _unary(_leaky_relu),
        "QLinearMul": _binary("mul"),
        "QLinearSigmoid": _unary(lambda call, x: call.unary("sigmoid", x)),
        "QLinearSoftmax": _unary(_softmax),
        "QLinearWhere": qlinear_where,
    }
)
