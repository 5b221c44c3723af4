"""Conversions of narrow types as integer arithmetic: stored codes in, machine numbers out, and
back.

The formats are those of ONNX (IEEE's bfloat16; OFP8 and its `fnuz` variants; the OCP microscaling
types). A float becomes a code by rounding to nearest even, once, from float32; the results are
those of `ops.Cast` bit by bit, except for the payload of a NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Node
from aotc.graph.types import DType

_F32_BIAS = 127
_F32_MANTISSA = 23
_F32_INF = 0x7F800000
_F32_SIGN = -(1 << 31)


@dataclass(frozen=True)
class Format:
    """A float of one byte or less: sign, exponent, mantissa. ``largest`` is the code of the largest
    number; what rounds to more becomes ``beyond``, a NaN becomes ``nan`` (both without sign).
    ``unsigned_zero`` says that the sign on zero is the only NaN (the `fnuz` types)."""

    width: int
    mantissa: int
    bias: int
    largest: int
    beyond: int
    nan: int
    unsigned_zero: bool = False

    @property
    def shift(self) -> int:
        """How much longer the mantissa of a float32 is."""
        return _F32_MANTISSA - self.mantissa

    @property
    def smallest(self) -> float:
        """The smallest number above zero."""
        return float(2.0 ** (1 - self.bias - self.mantissa))


FORMATS: Mapping[DType, Format] = MappingProxyType(
    {
        DType.F8E4M3FN: Format(8, 3, 7, largest=0x7E, beyond=0x7F, nan=0x7F),
        DType.F8E4M3FNUZ: Format(8, 3, 8, 0x7F, beyond=0x80, nan=0x80, unsigned_zero=True),
        DType.F8E5M2: Format(8, 2, 15, largest=0x7B, beyond=0x7C, nan=0x7E),
        DType.F8E5M2FNUZ: Format(8, 2, 16, 0x7F, beyond=0x80, nan=0x80, unsigned_zero=True),
        # It has no NaN: ml_dtypes and ONNX make it -0, and the negative one +0.
        DType.F4E2M1: Format(4, 1, 1, largest=7, beyond=7, nan=8),
    }
)


@dataclass(frozen=True)
class Narrow:
    """Emits conversions into one builder; ``origin`` is the node that they belong to.

    ``rounded`` has the numbers of the codes that were made by rounding: whoever computes with one
    takes it from the registers, where it is, and not apart from its code.
    """

    builder: Builder
    origin: str
    rounded: dict[Node, Node]

    def decode(self, code: Node, dtype: DType) -> Node:
        """The numbers that the integers ``code`` store: float32, or int8 or uint8."""
        if dtype is DType.BF16:
            return self._real(self._apply("shl", self._cast(code, DType.I32), 16))
        if dtype is DType.F8E8M0:
            return self._decode_scale(code)
        if dtype.is_float:
            return self._decode_float(code, FORMATS[dtype])
        if not dtype.is_signed:
            return self._apply("and", code, (1 << dtype.size_bits) - 1)
        spare = 8 - dtype.size_bits
        return self._apply("shr", self._apply("shl", code, spare), spare)

    def encode(self, x: Node, dtype: DType) -> Node:
        """The integers that store ``x``, of any machine type, as ``dtype``: what `ops.Cast`
        gives."""
        if dtype.is_int:
            whole = self._cast(x, DType.I32) if x.type.dtype.is_float else x
            return self.decode(self._cast(whole, dtype.machine), dtype)
        x = self._cast(x, DType.F32)
        if dtype is DType.BF16:
            return self._encode_bfloat(x)
        if dtype is DType.F8E8M0:
            return self._cast(self._encode_scale(x), DType.U8)
        return self._cast(self._encode_float(x, FORMATS[dtype]), DType.U8)

    def _encode_bfloat(self, x: Node) -> Node:
        bits = self._bits(x)
        quiet = self._apply("or", bits, 0x400000)
        bits = self._select(self._unary("isnan", x), quiet, self._carried(bits, 16))
        code = self._cast(self._apply("shr", bits, 16), DType.U16)
        self.rounded[code] = self._real(self._apply("and", bits, -(1 << 16)))
        return code

    def _decode_float(self, code: Node, form: Format) -> Node:
        whole = self._cast(code, DType.I32)
        size = self._apply("and", whole, (1 << (form.width - 1)) - 1)
        sign = self._apply("and", self._apply("shl", whole, 32 - form.width), _F32_SIGN)
        high = self._apply("shl", size, form.shift)
        normal = self._apply("add", high, (_F32_BIAS - form.bias) << _F32_MANTISSA)
        tiny = self._apply("mul", self._cast(size, DType.F32), form.smallest)
        is_tiny = self._compare("lt", size, 1 << form.mantissa)
        bits = self._select(is_tiny, self._bits(tiny), normal)
        if form.unsigned_zero:
            bits = self._select(self._compare("eq", whole, form.nan), 0x7FC00000, bits)
        elif form.largest < (1 << (form.width - 1)) - 1:
            special = self._apply("or", high, _F32_INF)
            bits = self._select(self._compare("gt", size, form.largest), special, bits)
        return self._real(self._apply("xor", bits, sign))

    def _encode_float(self, x: Node, form: Format) -> Node:
        bits = self._bits(x)
        size = self._apply("and", bits, 0x7FFFFFFF)
        rebias = (_F32_BIAS - form.bias) << form.mantissa
        normal = self._apply("sub", self._round(size, form.shift), rebias)
        # Adding a power of two whose last bit is the smallest number rounds to a multiple of that.
        unit = form.smallest * 2.0**_F32_MANTISSA
        sum_bits = self._bits(self._apply("add", self._real(size), unit))
        tiny = self._apply("sub", sum_bits, _bits_of(unit))
        least_normal = (_F32_BIAS + 1 - form.bias) << _F32_MANTISSA
        code = self._select(self._compare("lt", size, least_normal), tiny, normal)
        sign = self._apply("and", self._apply("shr", bits, 31), 1 << (form.width - 1))
        too_large = self._compare("gt", code, form.largest)
        is_nan = self._compare("gt", size, _F32_INF)
        if form.unsigned_zero:
            signed = self._select(self._compare("eq", code, 0), 0, self._apply("xor", code, sign))
            return self._select(self._apply("or", too_large, is_nan), form.nan, signed)
        code = self._select(is_nan, form.nan, self._select(too_large, form.beyond, code))
        return self._apply("xor", code, sign)

    def _decode_scale(self, code: Node) -> Node:
        whole = self._cast(code, DType.I32)
        bits = self._apply("shl", whole, _F32_MANTISSA)
        bits = self._select(self._compare("eq", whole, 0), 1 << (_F32_MANTISSA - 1), bits)
        return self._real(self._select(self._compare("eq", whole, 0xFF), 0x7FC00000, bits))

    def _encode_scale(self, x: Node) -> Node:
        """The nearest power of two, of two equally near the larger; what is not positive, or too
        large, is NaN."""
        bits, half = self._bits(x), 1 << (_F32_MANTISSA - 1)
        code = self._apply("shr", self._apply("add", bits, half), _F32_MANTISSA)
        code = self._select(self._compare("le", bits, half), 0, code)
        outside = self._apply(
            "or", self._compare("le", bits, 0), self._compare("ge", bits, _F32_INF - half)
        )
        return self._select(outside, 0xFF, code)

    def _round(self, bits: Node, drop: int) -> Node:
        """``bits`` without its last ``drop`` bits, rounded to nearest even."""
        return self._apply("shr", self._carried(bits, drop), drop)

    def _carried(self, bits: Node, drop: int) -> Node:
        """``bits`` plus what makes the bits above the last ``drop`` those of rounding to nearest
        even."""
        odd = self._apply("and", self._apply("shr", bits, drop), 1)
        return self._apply("add", bits, self._apply("add", odd, (1 << (drop - 1)) - 1))

    # Short forms; a number takes the type of the other operand.

    def _apply(self, fn: str, a: Node, b: Node | float) -> Node:
        right = b if isinstance(b, Node) else self.builder.scalar_like(b, a)
        return self.builder.binary(fn, a, right, self.origin)

    def _compare(self, fn: str, a: Node, b: float) -> Node:
        return self.builder.compare(fn, a, self.builder.scalar_like(b, a), self.origin)

    def _select(self, condition: Node, a: Node | int, b: Node) -> Node:
        left = a if isinstance(a, Node) else self.builder.scalar_like(a, b)
        return self.builder.select(condition, left, b, self.origin)

    def _unary(self, fn: str, x: Node) -> Node:
        return self.builder.unary(fn, x, self.origin)

    def _cast(self, x: Node, dtype: DType) -> Node:
        return self.builder.cast(x, dtype, self.origin)

    def _bits(self, x: Node) -> Node:
        return self.builder.apply(ops.Bitcast(DType.I32), x, origin=self.origin)

    def _real(self, bits: Node) -> Node:
        return self.builder.apply(ops.Bitcast(DType.F32), bits, origin=self.origin)


def _bits_of(value: float) -> int:
    return int(np.float32(value).view(np.int32))
