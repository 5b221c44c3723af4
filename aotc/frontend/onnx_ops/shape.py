"""ONNX tensors made of shapes and numbers: a `Call` goes in, mostly constants come out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.onnx_ops import runtime_shapes
from aotc.frontend.onnx_ops.call import KNOWN_ELEMS, Call, Rule
from aotc.frontend.onnx_ops.extents import either
from aotc.frontend.onnx_ops.runtime import ints_or_declared
from aotc.frontend.tensors import dtype_of
from aotc.frontend.text import text_constant
from aotc.frontend.values import Value
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType


def constant(call: Call) -> Value:
    """The tensor in the one attribute that is given."""
    attrs = call.attrs
    if attrs.holds_text("value"):
        return text_constant(call.builder, attrs.text_tensor("value"))
    if "value" in attrs:
        return call.constant(attrs.tensor("value"))
    if "sparse_value" in attrs:
        return call.constant(attrs.sparse_tensor("sparse_value"))
    if "value_int" in attrs:
        return call.constant(np.asarray(attrs.integer("value_int"), dtype=np.int64))
    if "value_ints" in attrs:
        return call.constant(np.asarray(attrs.required_integers("value_ints"), dtype=np.int64))
    if "value_float" in attrs:
        return call.constant(np.asarray(attrs.real("value_float"), dtype=np.float32))
    if "value_floats" in attrs:
        return call.constant(np.asarray(attrs.reals("value_floats"), dtype=np.float32))
    if "value_string" in attrs:
        string = np.asarray(attrs.string("value_string").encode(), dtype=object)
        return text_constant(call.builder, string)
    if "value_strings" in attrs:
        return text_constant(call.builder, np.asarray(attrs.texts("value_strings"), dtype=object))
    raise ModelError("has no value attribute", remedy="export the model again")


def constant_of_shape(call: Call) -> Node:
    """One value (float 0 by default) in the shape that input 0 gives."""
    shape = call.known_ints(0, "shape")
    value = call.attrs.tensor("value") if "value" in call.attrs else np.zeros(1, np.float32)
    if value.size != 1:
        raise ModelError(f"attribute 'value' must hold one element, has {value.size}")
    return call.broadcast(call.constant(value.reshape(())), shape)


def shape(call: Call) -> Node:
    """The sizes of input 0, or those from ``start`` to ``end``."""
    dims = call[0].shape
    start = call.attrs.integer("start", 0)
    end = call.attrs.integer("end", len(dims))
    return call.constant(np.asarray(dims[start:end], dtype=np.int64))


def size(call: Call) -> Node:
    """The number of elements of input 0."""
    return call.constant(np.asarray(call[0].type.elems, dtype=np.int64))


def range_(call: Call) -> Node:
    """``start, start + delta, ...`` below ``limit``."""
    values = [call.known(index, what) for index, what in enumerate(("start", "limit", "delta"))]
    if any(value.size != 1 for value in values):
        raise ModelError("start, limit and delta must be one number each")
    start, limit, delta = (value.reshape(-1)[0].item() for value in values)
    if delta == 0 or not all(map(math.isfinite, (start, limit, delta))):
        raise ModelError(f"no range from {start} to {limit} in steps of {delta}")
    exact = isinstance(start, int)
    count = max(0, -((start - limit) // delta) if exact else math.ceil((limit - start) / delta))
    dtype = call[0].type.dtype
    if count <= KNOWN_ELEMS:
        steps = np.arange(count, dtype=np.int64 if exact else np.float64)
        return call.constant((steps * delta + start).astype(dtype.numpy))
    if not exact:
        raise call.unsupported(f"a range of {count} floats is too long")
    place = call.apply(ops.Iota((count,), 0, dtype))
    return call.binary("add", call.binary("mul", place, delta), start)


def eye_like(call: Call) -> Node:
    """Ones on diagonal ``k`` of a matrix of the shape of input 0."""
    x = call[0]
    if x.type.rank != 2:
        raise ModelError(f"needs two axes, got {x.type}")
    dtype = dtype_of(call.attrs.integer("dtype")) if "dtype" in call.attrs else x.type.dtype
    row = call.apply(ops.Iota(x.shape, 0, DType.I64))
    column = call.apply(ops.Iota(x.shape, 1, DType.I64))
    on = call.compare("eq", call.binary("sub", column, row), call.attrs.integer("k", 0))
    return call.cast(on, dtype)


def one_hot(call: Call) -> Node:
    """``on`` where a new axis of ``depth`` elements meets the index, ``off`` elsewhere."""
    axis = call.axis(call.attrs.integer("axis", -1), call[0].type.rank + 1)
    dims = call.declared_dims(0)
    (depth,) = ints_or_declared(call, 1, "depth", None if dims is None else dims[axis : axis + 1])
    if depth < 1 or call[2].shape != (2,):
        raise ModelError(f"depth {depth} and values {call[2].type}: needs 1 or more, and a pair")
    index = call.cast(call[0], DType.I64)
    index = call.select(call.compare("lt", index, 0), call.binary("add", index, depth), index)
    shape = (*index.shape[:axis], depth, *index.shape[axis:])
    index = call.reshape(index, (*index.shape[:axis], 1, *index.shape[axis:]))
    hit = call.compare("eq", call.apply(ops.Iota(shape, axis, DType.I64)), index)
    off, on = (call.reshape(call.slice_axis(call[2], 0, at, 1), ()) for at in (0, 1))
    return call.select(hit, on, off)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Constant": constant,
        "ConstantOfShape": either(constant_of_shape, runtime_shapes.constant_of_shape, 0),
        "EyeLike": eye_like,
        "OneHot": one_hot,
        "Range": either(range_, runtime_shapes.range_, 0, 1, 2),
        "Shape": shape,
        "Size": size,
    }
)
