"""Products of quantised tensors as the reference computes them: operands in, stored integers out.

Data and constant weights of 8 bits are multiplied as they are stored and added up in 32 bits; the
sums are brought to the scale of the result in fixed point. The formulas are those of TFLite's
quantisation specification and of gemmlowp's fixed-point multiplication: a scale is a number of 31
bits and a shift. The product is rounded once (halves up) in fully connected layers; in convolutions
to an integer first (halves up), then shifted and rounded again (halves away from zero). Codes are
kept without a sign, which is what the kernels multiply.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.folding import known_value
from aotc.frontend.tflite.schema import Quantization
from aotc.frontend.tflite.use import ENDS, Use
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType

BYTES = frozenset({DType.I8, DType.U8})
SIGN = 128
"""What tells a code with a sign from the same one without."""
FAR = 1 << 30
"""Sums up to this size can be rounded in 32 bits."""


@dataclass(frozen=True)
class Layer:
    """The operands of a quantised product: ``codes`` (u8) with ``zero``, ``weights`` (i32, less
    their zero points, in the order of the primitive), one ``scale`` (float64) and one ``bias``
    (int64) for each output channel."""

    codes: Node
    zero: int
    weights: np.ndarray
    scale: np.ndarray
    bias: np.ndarray

    def constant(self, totals: np.ndarray) -> np.ndarray:
        """What is added to the sums of each channel, whose weights add up to ``totals``."""
        return np.asarray(self.bias - self.zero * totals)

    def reach(self, sizes: np.ndarray) -> int:
        """No sum is larger; the magnitudes of a channel's weights add up to ``sizes``."""
        return int((255 * sizes + np.abs(self.bias)).max(initial=0))


def layer_of(use: Use, perm: Sequence[int], channels: int, activation: int) -> Layer | None:
    """The operands data, weights (their axes in the order ``perm``, channels along ``channels`` of
    that) and bias, when all of it is integer arithmetic; None when some of it is not."""
    data, result = use.scale_of(use.tensor(0)), use.scale_of(use.output())
    own = use.scale_of(use.tensor(1))
    stored = known_value(use.call[1])
    if data is None or result is None or own is None or stored is None:
        return None
    types = {use.tensor(0).dtype, use.output().dtype, use.tensor(1).dtype}
    one_scale = max(data.scales.size, result.scales.size) == 1
    if not (types <= BYTES and one_scale and (activation in ENDS or not activation)):
        return None
    if stored.ndim != len(perm):
        raise ModelError(f"its weights must have {len(perm)} axes, are {use.call[1].type}")
    along = [1] * stored.ndim
    along[own.axis if own.scales.size > 1 else 0] = -1
    weights = (stored.astype(np.int32) - own.zero_points.astype(np.int32).reshape(along)).transpose(
        perm
    )
    count = weights.shape[channels]
    if own.scales.size > 1 and perm.index(own.axis) != channels:
        return None
    bias = _bias(use, count)
    if bias is None:
        return None
    codes_type = use.tensor(0).dtype
    codes, zero = _unsigned(use, use.call[0], int(data.zero_points[0]))
    scale = np.broadcast_to(_real_scale(data, own, result, codes_type), (count,))
    return Layer(codes, zero, np.ascontiguousarray(weights), scale, bias)


def centred(weights: np.ndarray) -> tuple[np.ndarray, int]:
    """``weights`` as numbers of int8 and what is to be added to each: weights of uint8 less their
    zero point need nine bits, but no kernel multiplies these fast."""
    least, most = int(weights.min(initial=0)), int(weights.max(initial=0))
    if least >= -128 and most <= 127:
        return weights, 0
    middle = (least + most + 1) // 2
    return weights - np.int32(middle), middle


def _bias(use: Use, count: int) -> np.ndarray | None:
    """One integer for each channel; None when it is computed, or no integer."""
    if not use.has(2):
        return np.zeros(count, np.int64)
    bias = known_value(use.call[2])
    if bias is None or bias.dtype.kind != "i":
        return None
    if bias.shape != (count,):
        raise ModelError(f"its bias is {use.call[2].type}, but there are {count} channels")
    return bias.astype(np.int64)


def _real_scale(
    data: Quantization, weights: Quantization, result: Quantization, dtype: DType
) -> np.ndarray:
    """What a sum counts for in steps of the result, in float64; of uint8 the product of the scales
    is rounded to float32, as the reference does."""
    own = weights.scales if dtype is DType.U8 else weights.scales.astype(np.float64)
    product = (own * data.scales.astype(own.dtype)).astype(np.float64)
    return np.asarray(product / float(result.scales[0]))


def _unsigned(use: Use, node: Node, zero: int) -> tuple[Node, int]:
    """The codes of ``node`` and their zero point without a sign."""
    if node.type.dtype is DType.U8:
        return node, zero
    made = node.inputs[0] if node.op == ops.Bitcast(DType.I8) else None
    if made is not None and made.op == ops.Binary("xor"):
        codes, sign = made.inputs
        value = known_value(sign)
        if value is not None and (value == SIGN).all():
            return codes, zero + SIGN
    bits = use.call.apply(ops.Bitcast(DType.U8), node)
    return use.call.binary("xor", bits, SIGN), zero + SIGN


def stored_sums(
    use: Use, sums: Node, layer: Layer, totals: np.ndarray, activation: int, twice: bool
) -> Node:
    """``sums`` (i32, channels last) of codes times weights, as the result stores them. ``totals``
    has the sum and the sum of magnitudes of each channel's weights, [2, channels]; ``twice`` says
    how often is rounded."""
    call = use.call
    addend = layer.constant(totals[0])
    if addend.any():
        # as the reference's sums, these wrap
        wrapped = addend.astype(np.uint64).astype(np.uint32).view(np.int32)
        sums = call.binary("add", sums, call.constant(wrapped))
    scaled = _rounded_twice if twice else _rounded_once
    steps = scaled(use, sums, *fixed_point(layer.scale), layer.reach(totals[1]))
    return _stored(use, steps, activation)


def stored_mean(use: Use, axes: Sequence[int], keep: bool) -> Node | None:
    """The mean of operand 0 over ``axes`` as the result stores it; None unless both are quantised
    to 8 bits. The reference divides the scale by the number of elements, in fixed point."""
    x, data, result = use.call[0], use.scale_of(use.tensor(0)), use.scale_of(use.output())
    types = {x.type.dtype, use.output().dtype}
    if data is None or result is None or not types <= BYTES or not x.type.elems:
        return None
    if max(data.scales.size, result.scales.size) > 1:
        return None
    count = math.prod(x.shape[axis] for axis in axes)
    if 255 * count >= FAR:
        raise use.call.unsupported(f"a mean of {count} elements is too long")
    wide = use.call.cast(x, DType.I32)
    total = use.call.reduce("sum", wide, axes, keep)
    offset = int(data.zero_points[0]) * count
    total = use.call.binary("sub", total, offset) if offset else total
    scale = float(data.scales[0]) / float(result.scales[0])
    factors, shifts = fixed_point(np.asarray([scale]))
    more = np.minimum(count.bit_length() - 1, 31 + shifts)
    steps = _rounded_twice(use, total, (factors << more) // count, shifts - more, 255 * count)
    return _stored(use, steps, 0)


def _stored(use: Use, steps: Node, activation: int) -> Node:
    """A whole number of steps from zero, as the result stores it."""
    call, tensor = use.call, use.output()
    scale = use.scale_of(tensor)
    assert scale is not None
    low, high = use.limits(tensor, scale, activation)
    shift = 0 if tensor.dtype is DType.U8 else SIGN
    y = call.binary("add", steps, int(scale.zero_points[0]) + shift)
    y = call.binary("min", call.binary("max", y, low + shift), high + shift)
    y = call.cast(y, DType.U8)
    if tensor.dtype is DType.U8:
        return y
    return call.apply(ops.Bitcast(DType.I8), call.binary("xor", y, SIGN))


def _rounded_once(
    use: Use, sums: Node, factors: np.ndarray, shifts: np.ndarray, reach: int
) -> Node:
    """``sums`` times scales as of `fixed_point`, one for each channel; no sum is beyond
    ``reach``."""
    call = use.call
    bits = 31 - shifts
    product = call.binary("mul", call.cast(sums, DType.I64), _vector(use, factors))
    product = call.binary("add", product, _vector(use, (1 << bits) >> 1))
    steps = call.binary("shr", product, _vector(use, bits))
    fits = reach * 2.0 ** float(shifts.max(initial=0)) < FAR
    return call.cast(steps, DType.I32) if fits else steps


def _rounded_twice(
    use: Use, sums: Node, factors: np.ndarray, shifts: np.ndarray, reach: int
) -> Node:
    """`_rounded_once`, but first to an integer and then to the scale."""
    call = use.call
    left, right = np.maximum(shifts, 0), np.maximum(-shifts, 0)
    product = call.binary("mul", call.cast(sums, DType.I64), _vector(use, factors << left))
    product = call.binary("shr", call.binary("add", product, 1 << 30), 31)
    if (right == 0).all():
        return product
    wide = reach << int(left.max()) >= FAR or int(right.max()) >= 31
    dtype, bits = (DType.I64, 63) if wide else (DType.I32, 31)
    whole = call.cast(product, dtype)
    half = np.where(right > 0, (1 << right) >> 1, 0)
    # halves of negative numbers go down
    down = call.binary("shr", whole, bits)
    if (right == 0).any():
        down = call.binary("and", down, _vector(use, np.where(right > 0, -1, 0), dtype))
    whole = call.binary("add", call.binary("add", whole, down), _vector(use, half, dtype))
    return call.binary("shr", whole, _vector(use, right, dtype))


def _vector(use: Use, values: np.ndarray, dtype: DType = DType.I64) -> Node:
    """One number for each channel, a scalar if they are equal."""
    same = bool((values == values[0]).all())
    return use.call.constant((values[0] if same else values).astype(dtype.numpy))


def fixed_point(scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each scale as ``factor * 2 ** (shift - 31)`` with a factor (int64) of 2**30 up to 2**31; a
    scale too small for any sum to count is 0. ModelError for one too large."""
    factors, shifts = [], []
    for value in scale.tolist():
        part, shift = math.frexp(value)
        factor = math.floor(part * (1 << 31) + 0.5)
        if factor == 1 << 31:
            factor, shift = factor // 2, shift + 1
        if shift < -31:
            factor, shift = 0, 0
        if shift > 30:
            raise ModelError(
                f"its scales make a factor of {value}",
                remedy="quantise the model again with representative data",
            )
        factors.append(factor)
        shifts.append(shift)
    return np.asarray(factors, np.int64), np.asarray(shifts, np.int64)
