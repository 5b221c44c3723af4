"""Random operators of ONNX: a `Call` goes in, a hash of each element's index comes out.

A compiled program has no state, so that the same inputs always give the same outputs. Element i of
a node draws the 64 bits ``mix(key + (i + 1) g)`` with g = 0x9E3779B97F4A7C15, modulo 2^64, where
``mix`` is the finaliser of SplitMix64 (Steele, Lea and Flood, Fast splittable pseudorandom number
generators, 2014). The key is a hash of the attribute ``seed``; of the node's name where the seed is
left out, so that nodes differ. A uniform number is the top 24 bits (53 for float64) over 2^24
(2^53).
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.tensors import dtype_of
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType

GOLDEN = 0x9E3779B97F4A7C15
"""2^64 over the golden ratio, odd."""

MIX = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
"""Shifts and factors of the finaliser; a shift by 31 follows."""

FLOAT = 1
"""The number of float32 among ONNX's element types."""


def _key(call: Call, draw: int) -> int:
    """The key of draw number ``draw`` of each element."""
    text = f"{draw}:".encode()
    if "seed" not in call.attrs:
        text += b"name:" + call.origin.encode()
    elif call.operator == "Dropout":
        text += b"seed:" + struct.pack("<d", call.attrs.integer("seed"))
    else:
        text += b"seed:" + struct.pack("<d", call.attrs.real("seed"))
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def random_bits(call: Call, count: int, draw: int = 0) -> Node:
    """64 random bits for each of ``count`` elements, u64[count]."""
    index = call.apply(ops.Iota((count,), 0, DType.U64))
    start = (_key(call, draw) + GOLDEN) % (1 << 64)
    z = call.binary("add", call.binary("mul", index, _word(call, GOLDEN)), _word(call, start))
    for shift, factor in MIX:
        z = call.binary("mul", _folded(call, z, shift), _word(call, factor))
    return _folded(call, z, 31)


def _word(call: Call, value: int) -> Node:
    return call.constant(np.asarray(value, dtype=np.uint64))


def _folded(call: Call, z: Node, shift: int) -> Node:
    return call.binary("xor", z, call.binary("shr", z, _word(call, shift)))


def uniform(call: Call, shape: Sequence[int], dtype: DType, draw: int = 0) -> Node:
    """Numbers from 0 up to but without 1; ``dtype`` is float32 or float64."""
    digits = 53 if dtype is DType.F64 else 24
    bits = call.binary("shr", random_bits(call, math.prod(shape), draw), _word(call, 64 - digits))
    # through a signed type, whose conversion to float every machine has
    number = call.cast(call.cast(bits, DType.I64), dtype)
    return call.reshape(call.binary("mul", number, 2.0**-digits), shape)


def normal(call: Call, shape: Sequence[int], dtype: DType) -> Node:
    """Numbers of mean 0 and deviation 1 (Box and Muller, 1958)."""
    # 1 - u is never 0
    first = call.binary("add", call.unary("neg", uniform(call, shape, dtype)), 1.0)
    radius = call.unary("sqrt", call.binary("mul", call.unary("log", first), -2.0))
    angle = call.binary("mul", uniform(call, shape, dtype, draw=1), 2 * math.pi)
    return call.binary("mul", radius, call.unary("cos", angle))


def _wide(dtype: DType) -> DType:
    """The type in which numbers for a result of ``dtype`` are drawn."""
    return DType.F64 if dtype is DType.F64 else DType.F32


def _shape_and_type(call: Call) -> tuple[tuple[int, ...], DType]:
    """From the attributes, or like input 0."""
    if not call.inputs:
        shape = call.attrs.required_integers("shape")
        if min(shape, default=0) < 0:
            raise ModelError(f"shape {shape} has a negative size")
        dtype = dtype_of(call.attrs.integer("dtype", FLOAT))
    else:
        shape = call[0].shape
        given = "dtype" in call.attrs
        dtype = dtype_of(call.attrs.integer("dtype")) if given else call[0].type.dtype
    if not dtype.is_float:
        raise ModelError(f"random numbers of type {dtype.value}: needs a float type")
    return shape, dtype


def random_uniform(call: Call) -> Node:
    """Uniform from ``low`` to ``high``."""
    shape, dtype = _shape_and_type(call)
    low, high = call.attrs.real("low", 0.0), call.attrs.real("high", 1.0)
    drawn = uniform(call, shape, _wide(dtype))
    return call.cast(call.binary("add", call.binary("mul", drawn, high - low), low), dtype)


def random_normal(call: Call) -> Node:
    """Normal of ``mean`` and deviation ``scale``."""
    shape, dtype = _shape_and_type(call)
    mean, scale = call.attrs.real("mean", 0.0), call.attrs.real("scale", 1.0)
    drawn = normal(call, shape, _wide(dtype))
    return call.cast(call.binary("add", call.binary("mul", drawn, scale), mean), dtype)


def bernoulli(call: Call) -> Node:
    """One with the probability that input 0 gives, else zero."""
    p = call[0]
    given = "dtype" in call.attrs
    dtype = dtype_of(call.attrs.integer("dtype")) if given else p.type.dtype
    wide = _wide(p.type.dtype)
    drawn = uniform(call, p.shape, wide)
    return call.cast(call.compare("lt", drawn, call.cast(p, wide)), dtype)


def multinomial(call: Call) -> Node:
    """``sample_size`` classes for each row of logarithms of probabilities, which need not sum to
    1."""
    x, count = call[0], call.attrs.integer("sample_size", 1)
    if x.type.rank != 2 or count < 0 or x.shape[1] == 0:
        raise ModelError(f"needs [batch, classes] and a sample size, got {x.type} and {count}")
    dtype = dtype_of(call.attrs.integer("dtype", 6))
    wide = call.cast(x, _wide(x.type.dtype))
    weight = call.unary("exp", call.binary("sub", wide, call.reduce("max", wide, [1])))
    sums = call.apply(ops.CumSum(1, exclusive=False, reverse=False), weight)
    total = call.slice_axis(sums, 1, x.shape[1] - 1, 1)
    drawn = call.binary("mul", uniform(call, (x.shape[0], count), wide.type.dtype), total)
    if x.shape[1] == 1:
        return call.broadcast(call.constant(np.zeros((), dtype.numpy)), drawn.shape)
    # the class is the number of sums that the drawn number has reached; the last needs no test
    sums = call.slice_axis(sums, 1, 0, x.shape[1] - 1)
    sums = call.reshape(sums, (x.shape[0], 1, x.shape[1] - 1))
    reached = call.compare("le", sums, call.reshape(drawn, (*drawn.shape, 1)))
    return call.cast(call.reduce("sum", call.cast(reached, DType.I32), [2], keep=False), dtype)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Bernoulli": bernoulli,
        "Multinomial": multinomial,
        "RandomNormal": random_normal,
        "RandomNormalLike": random_normal,
        "RandomUniform": random_uniform,
        "RandomUniformLike": random_uniform,
    }
)
