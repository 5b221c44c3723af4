"""ONNX conversions between element types: a `Call` goes in, casts come out.

What a float out of the range of a float8 becomes is an attribute; the saturation is arithmetic
before the cast, which itself does what IEEE conversions do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import onnx

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.tensors import dtype_of
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType

LARGEST: Mapping[DType, float] = MappingProxyType(
    {
        DType.F8E4M3FN: 448.0,
        DType.F8E4M3FNUZ: 240.0,
        DType.F8E5M2: 57344.0,
        DType.F8E5M2FNUZ: 57344.0,
    }
)
"""The types for which ONNX has the attribute ``saturate`` (true when left out), and the largest
number of each."""

_LARGEST_SCALE, _SMALLEST_SCALE = 2.0**127, 2.0**-127


def narrow_float(call: Call, x: Node, dtype: DType, saturate: bool) -> Node:
    """``x`` as ``dtype``; with ``saturate`` what is beyond the range of a float8, infinities
    too, becomes its largest number (the first table of ONNX Cast), else NaN or infinity (the
    second)."""
    largest = LARGEST.get(dtype)
    if saturate and largest is not None:
        wide = x if x.type.dtype is DType.F64 else call.cast(x, DType.F32)
        x = call.binary("min", call.binary("max", wide, -largest), largest)
    return call.cast(x, dtype)


def power_of_two(call: Call, x: Node, mode: str, saturate: bool) -> Node:
    """``x`` as float8e8m0, which holds powers of two: the next above, below, or the nearest (of
    two the larger). The sign is dropped, as the reference does; ONNX leaves it open. With
    ``saturate`` all numbers become one of the range, else what is outside becomes NaN."""
    if mode not in ("up", "down", "nearest"):
        raise ModelError(f"attribute 'round_mode' must be up, down or nearest, is '{mode}'")
    x = call.unary("abs", call.cast(x, DType.F32))
    rounded = x
    if mode != "nearest":
        bits = call.apply(ops.Bitcast(DType.I32), x)
        if mode == "up":
            bits = call.binary("add", bits, 0x7FFFFF)
        power = call.apply(ops.Bitcast(DType.F32), call.binary("and", bits, 0x7F800000))
        # The smallest is a denormal float32, where bits are no logarithm.
        smallest = call.compare("le", x, _SMALLEST_SCALE)
        rounded = call.select(smallest, x, call.binary("max", power, _SMALLEST_SCALE))
        rounded = call.select(call.unary("isnan", x), x, rounded)
    if saturate:
        rounded = call.binary("min", call.binary("max", rounded, _SMALLEST_SCALE), _LARGEST_SCALE)
    else:
        below = call.compare("lt", x, _SMALLEST_SCALE)
        rounded = call.select(below, call.scalar(math.nan, x), rounded)
    return call.cast(rounded, DType.F8E8M0)


def _converted(call: Call, dtype: DType) -> Node:
    """The first input as ``dtype``, by the attributes of Cast and CastLike."""
    saturate = call.attrs.flag("saturate", True)
    if dtype is DType.F8E8M0 and call[0].type.dtype is not dtype:
        return power_of_two(call, call[0], call.attrs.string("round_mode", "up"), saturate)
    return narrow_float(call, call[0], dtype, saturate)


def cast(call: Call) -> Node:
    """Conversion to the element type ``to``, a name before opset 6."""
    if call.version >= 6:
        return _converted(call, dtype_of(call.attrs.integer("to")))
    name = call.attrs.string("to")
    number = dict(onnx.TensorProto.DataType.items()).get(name)
    if number is None:
        raise ModelError(f"attribute 'to' names no element type: '{name}'")
    return _converted(call, dtype_of(number))


def cast_like(call: Call) -> Node:
    """Conversion to the element type of the second input."""
    return _converted(call, call[1].type.dtype)


def bit_cast(call: Call) -> Node:
    """The same bits as the type ``to``; a bool is the byte 0 or 1, and any other byte is true."""
    x, dtype = call[0], dtype_of(call.attrs.integer("to"))
    source = x.type.dtype
    if source is dtype:
        return x
    if source.size_bits != dtype.size_bits:
        raise ModelError(f"{x.type} and {dtype.value} differ in size")
    if source is DType.BOOL:
        x = call.cast(x, DType.U8)
    target = DType.U8 if dtype is DType.BOOL else dtype
    if x.type.dtype is not target:
        x = call.apply(ops.Bitcast(target), x)
    return call.cast(x, dtype)


RULES: Mapping[str, Rule] = MappingProxyType(
    {"BitCast": bit_cast, "Cast": cast, "CastLike": cast_like}
)
