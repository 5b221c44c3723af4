"""Primitives that move elements in, ONNX nodes out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from aotc.export.emitter import Emitter, Value
from aotc.export.rules_elementwise import Rule, op_of
from aotc.graph import ops
from aotc.graph.ir import Node, Op
from aotc.graph.types import DType

_BEFORE_THE_FIRST = -(2**63)
"""The end of a slice down to element 0."""


def broadcast(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    return emitter.expand(operands[0], node.shape)


def reshape(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    return emitter.reshape(operands[0], node.shape)


def transpose(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    perm = op_of(node, ops.Transpose).perm
    if not perm:
        return emitter.raw("Identity", operands[0].dtype, *operands)
    return emitter.move("Transpose", operands, perm=perm)


def slice_(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    op = op_of(node, ops.Slice)
    starts, ends = [], []
    for start, count, step in zip(op.starts, op.counts, op.steps, strict=True):
        end = start + count * step
        starts.append(start if count else 0)
        ends.append((_BEFORE_THE_FIRST if end < 0 else end) if count else 0)
    steps = [step if count else 1 for count, step in zip(op.counts, op.steps, strict=True)]
    axes = [
        axis
        for axis, size in enumerate(node.inputs[0].shape)
        if (starts[axis], op.counts[axis], steps[axis]) != (0, size, 1)
    ]
    if not axes:
        return emitter.raw("Identity", operands[0].dtype, operands[0])
    picked = ([values[axis] for axis in axes] for values in (starts, ends))
    vectors = [emitter.ints(*values) for values in picked]
    every = emitter.ints(*(steps[axis] for axis in axes))
    return emitter.move("Slice", operands, *vectors, emitter.ints(*axes), every)


def pad(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    op = op_of(node, ops.Pad)
    (x,) = operands
    with np.errstate(all="ignore"):
        value = op.value if x.dtype.is_float else int(op.value)
        fill = emitter.constant(np.asarray(value).astype(x.dtype.numpy))
    if emitter.allows("Pad", x.dtype):
        return emitter.raw("Pad", x.dtype, x, emitter.ints(*op.low, *op.high), fill)
    # a type that Pad lacks: both travel as one that it has
    parts = emitter.move("Concat", [emitter.reshape(v, (-1,)) for v in (x, fill)], axis=0)
    size = node.inputs[0].type.elems
    places = np.full(node.shape, size, np.int64)
    inside = tuple(
        slice(low, low + count)
        for low, count in zip(op.low, node.inputs[0].shape, strict=True)
    )
    places[inside] = np.arange(size).reshape(node.inputs[0].shape)
    return emitter.move("Gather", [parts], emitter.constant(places), axis=0)


def concat(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    return emitter.move("Concat", operands, axis=op_of(node, ops.Concat).axis)


def whole_indices(emitter: Emitter, indices: Value, size: int) -> Value:
    """Indices as int64; those of uint64 that int64 does not hold are beyond any axis."""
    if indices.dtype in (DType.I32, DType.I64):
        return indices
    if indices.dtype is DType.U64:
        indices = emitter.apply("Min", indices, emitter.number(size, DType.U64))
    return emitter.convert(indices, DType.I64)


def gather(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    axis = op_of(node, ops.Gather).axis
    places = whole_indices(emitter, operands[1], node.inputs[0].shape[axis])
    return emitter.move("Gather", operands[:1], places, axis=axis)


def gather_elements(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    axis = op_of(node, ops.GatherElements).axis
    places = whole_indices(emitter, operands[1], node.inputs[0].shape[axis])
    return emitter.move("GatherElements", operands[:1], places, axis=axis)


def gather_nd(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    batch = op_of(node, ops.GatherND).batch_dims
    return emitter.move("GatherND", operands[:1], operands[1], batch_dims=batch)


_SCATTER = MappingProxyType({"set": "none", "add": "add", "mul": "mul", "min": "min", "max": "max"})


def _scattered(
    emitter: Emitter, operator: str, fn: str, operands: tuple[Value, ...], **attrs: int
) -> Value:
    data, places, updates = operands
    kind = data.dtype
    if fn == "set" and not emitter.allows(operator, kind):
        work = DType.U8 if kind.is_float and kind.size_bits == 8 else DType.F32
        work = work if kind.is_float else DType.I8 if kind.is_signed else DType.U8
    else:
        # updates add up without rounding to a short type in between
        work = DType.F32 if fn != "set" and kind.is_float and kind.size_bytes < 4 else kind
    moved = (emitter.cast(x, work) for x in (data, updates))
    first, second = moved
    made = emitter.raw(operator, work, first, places, second, reduction=_SCATTER[fn], **attrs)
    return emitter.cast(made, kind)


def scatter_nd(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    return _scattered(emitter, "ScatterND", op_of(node, ops.ScatterND).fn, operands)


def scatter_elements(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    op = op_of(node, ops.ScatterElements)
    places = whole_indices(emitter, operands[1], node.inputs[0].shape[op.axis])
    given = (operands[0], places, operands[2])
    return _scattered(emitter, "ScatterElements", op.fn, given, axis=op.axis)


def iota(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    op = op_of(node, ops.Iota)
    size = op.shape[op.axis]
    numbers = [emitter.number(value, DType.I64) for value in (0, size, 1)]
    column = emitter.convert(emitter.raw("Range", DType.I64, *numbers), op.dtype)
    shape = (size, *(1,) * (len(op.shape) - op.axis - 1))
    return emitter.expand(emitter.reshape(column, shape), op.shape)


RULES: Mapping[type[Op], Rule] = MappingProxyType(
    {
        ops.Broadcast: broadcast,
        ops.Reshape: reshape,
        ops.Transpose: transpose,
        ops.Slice: slice_,
        ops.Pad: pad,
        ops.Concat: concat,
        ops.Gather: gather,
        ops.GatherElements: gather_elements,
        ops.GatherND: gather_nd,
        ops.ScatterND: scatter_nd,
        ops.ScatterElements: scatter_elements,
        ops.Iota: iota,
    }
)
