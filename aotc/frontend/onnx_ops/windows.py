"""Weights for spectra of ONNX (windows, mel scale): a `Call` goes in, constants or their formula
come out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.folding import known_value
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.runtime import ints_or_declared, scalar_operand
from aotc.frontend.tensors import dtype_of
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType

FLOAT = 1
"""The number of float32 among ONNX's element types, the default of these operators."""


def cosine_window(*weights: float) -> Rule:
    """The rule of a window ``sum of weights[k] cos(2 pi k n / N)``; N is one less when the window
    is symmetric instead of periodic."""

    def rule(call: Call) -> Node:
        (size,) = ints_or_declared(call, 0, "size", call.declared_dims(0))
        if size < 0:
            raise ModelError(f"a window of {size} elements")
        call.expect_indexable(size)
        period = max(1, size if call.attrs.flag("periodic", True) else size - 1)
        angle = 2 * np.pi / period * np.arange(size)
        values = sum(weight * np.cos(k * angle) for k, weight in enumerate(weights))
        dtype = dtype_of(call.attrs.integer("output_datatype", FLOAT))
        return call.constant(np.asarray(values).astype(dtype.numpy))

    return rule


def mel_weight_matrix(call: Call) -> Node:
    """Triangles over the bins of a spectrum, [bins, num_mel_bins]: each rises from the place of one
    frequency to that of the next, and falls to that of the one after; the frequencies lie evenly on
    the mel scale ``2595 log10(1 + f / 700)``."""
    dims = call.declared_dims(0)
    declared = dims if dims is not None and len(dims) == 2 else None
    (count,) = ints_or_declared(call, 0, "number of mel bins", declared and declared[1:])
    length = scalar_operand(call, 1)
    if known_value(call[1]) is not None or declared is None:
        rows = call.known_int(1, "length") // 2 + 1
    else:
        rows = declared[0]
        fits = call.compare("eq", call.binary("add", call.binary("div", length, 2), 1), rows)
        call.builder.check(fits, f"{call.origin}: its length must give {rows} bins, as declared")
    if count < 1 or rows < 1:
        raise ModelError(f"{rows} bins and {count} mel bins: needs 1 or more")
    # whole numbers in float64, so that they divide as such
    edges = call.cast(_edges(call, count, length), DType.F64)
    place = call.apply(ops.Iota((rows, count), 0, DType.F64))
    low, centre, high = (call.slice_axis(edges, 0, at, count) for at in range(3))
    value = _slope(call, place, low, centre)
    value = call.select(call.compare("le", place, centre), value, call.scalar(0.0, value))
    value = call.select(call.compare("ge", place, low), value, call.scalar(0.0, value))
    at_centre = call.cast(call.compare("eq", place, centre), DType.F64)
    value = call.select(call.compare("eq", low, centre), at_centre, value)
    falls = call.binary("and", call.compare("ge", place, centre), call.compare("lt", place, high))
    value = call.select(falls, _slope(call, place, high, centre), value)
    return call.cast(value, dtype_of(call.attrs.integer("output_datatype", FLOAT)))


def _slope(call: Call, place: Node, zero: Node, one: Node) -> Node:
    """A line through 0 at ``zero`` and 1 at ``one``."""
    return call.binary("div", call.binary("sub", place, zero), call.binary("sub", one, zero))


def _edges(call: Call, count: int, length: Node) -> Node:
    """The bins [count + 2] in which the triangles start, peak and end, as whole float64 numbers."""
    low, high = (_mel(call, scalar_operand(call, at, DType.F64)) for at in (3, 4))
    step = call.binary("mul", call.binary("sub", high, low), 1.0 / (count + 2))
    place = call.apply(ops.Iota((count + 2,), 0, DType.F64))
    mel = call.binary("add", call.binary("mul", place, step), low)
    power = call.unary("exp", call.binary("mul", mel, np.log(10) / 2595))
    hertz = call.binary("mul", call.binary("sub", power, 1.0), 700.0)
    bins = call.binary("mul", hertz, call.binary("add", call.cast(length, DType.F64), 1.0))
    return call.unary("floor", call.binary("div", bins, scalar_operand(call, 2, DType.F64)))


def _mel(call: Call, hertz: Node) -> Node:
    ratio = call.binary("add", call.binary("mul", hertz, 1 / 700), 1.0)
    return call.binary("mul", call.unary("log", ratio), 2595 / np.log(10))


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "BlackmanWindow": cosine_window(0.42, -0.5, 0.08),
        "HammingWindow": cosine_window(25 / 46, -21 / 46),
        "HannWindow": cosine_window(0.5, -0.5),
        "MelWeightMatrix": mel_weight_matrix,
    }
)
