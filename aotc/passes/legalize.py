"""Legalisation: a graph of any types goes in, one that computes in machine types comes out.

Inside the graph every tensor of a narrow type becomes the integers that store it. Data movement
moves those; a conversion is integer arithmetic (passes/narrow.py). What computes with floats
shorter than float32, float16 among them, does so in float32 and rounds once per primitive: sums and
products thus add up in float32. Inputs and outputs keep their types: a `Relabel` stands behind each
that is narrow.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node, Op, Parameter
from aotc.graph.types import DType, TensorType
from aotc.passes.narrow import Narrow

_MOVING: tuple[type[Op], ...] = (
    *(ops.Select, ops.Broadcast, ops.Reshape, ops.Transpose, ops.Slice, ops.Concat, ops.Item),
    *(ops.Pad, ops.Gather, ops.GatherElements, ops.GatherND),
)
_SCATTERS = (ops.ScatterND, ops.ScatterElements)


def legalize(graph: Graph) -> Graph:
    """``graph`` without narrow types but at its ends, and without arithmetic on short floats; a
    graph of none of these types is returned as it is."""
    return _rebuild(graph, outermost=True) if _has_short(graph) else graph


def _has_short(graph: Graph) -> bool:
    return any(
        _is_short(node.type.dtype) or any(map(_has_short, ops.nested_graphs(node)))
        for node in graph.nodes()
    )


def _is_short(dtype: DType) -> bool:
    """Whether nothing computes in ``dtype`` itself."""
    return dtype.arithmetic is not dtype


def _rebuild(graph: Graph, outermost: bool) -> Graph:
    """``graph`` in machine types; a nested one changes the types of its inputs and outputs too."""
    builder = Builder()
    new: dict[Node, Node] = {}
    rounded: dict[Node, Node] = {}
    for node in graph.inputs:
        assert isinstance(node.op, Parameter)
        type_ = node.type
        if type_.dtype.is_narrow and not outermost:
            type_ = TensorType(type_.dtype.machine, type_.shape)
        parameter = builder.parameter(node.op.name, type_)
        new[node] = _relabelled(builder, parameter, type_.dtype.machine)
    for node in graph.nodes():
        if node.data is not None and node.type.dtype.is_narrow:
            new[node] = builder.constant(node.data.view(node.type.dtype.machine.numpy))
        elif node.data is not None:
            new[node] = builder.reuse_constant(node)
        elif node not in new:
            new[node] = _emit(Narrow(builder, node.origin, rounded), node, new)
    for sentence, node in graph.checks:
        builder.check(new[node], sentence)
    outputs = [
        (name, _relabelled(builder, new[node], node.type.dtype) if outermost else new[node])
        for name, node in graph.outputs
    ]
    return builder.finish(graph.name, outputs)


def _relabelled(builder: Builder, x: Node, dtype: DType) -> Node:
    if x.type.dtype is dtype or not (x.type.dtype.is_narrow or dtype.is_narrow):
        return x
    return builder.apply(ops.Relabel(dtype), x, origin=x.origin)


def _emit(narrow: Narrow, node: Node, new: Mapping[Node, Node]) -> Node:
    """``node`` over operands in machine types, itself in one."""
    builder, op, origin = narrow.builder, node.op, node.origin
    operands = [new[operand] for operand in node.inputs]
    sources = [operand.type.dtype for operand in node.inputs]
    if ops.nested_graphs(node):
        return builder.apply(_nested(op), *operands, origin=origin)
    if not any(map(_is_short, (node.type.dtype, *sources))):
        return builder.apply(op, *operands, origin=origin)
    match op:
        case ops.Cast(dtype=dtype):
            return _convert(narrow, operands[0], sources[0], dtype)
        case ops.Relabel():
            return operands[0]
        case ops.Widen():
            return builder.apply(op, *operands, origin=origin)
        case ops.Bitcast(dtype=dtype):
            same = operands[0].type.dtype is dtype.machine
            bits = operands[0]
            return bits if same else builder.apply(ops.Bitcast(dtype.machine), bits, origin=origin)
        case ops.Iota(shape=shape, axis=axis, dtype=dtype):
            counted = builder.apply(ops.Iota(shape, axis, dtype.arithmetic), origin=origin)
            return _convert(narrow, counted, counted.type.dtype, dtype)
    if isinstance(op, _MOVING) or (isinstance(op, _SCATTERS) and op.fn == "set"):
        return _move(narrow, node, operands, sources)
    return _compute(narrow, node, operands, sources)


def _move(narrow: Narrow, node: Node, operands: Sequence[Node], sources: Sequence[DType]) -> Node:
    """Data movement, on what is stored. Where the numbers are at hand they move too: of the two
    results the one that nobody reads disappears."""
    builder, op, dtype = narrow.builder, node.op, node.type.dtype
    plain = op
    if isinstance(op, ops.Pad) and _is_short(dtype):
        code, number = _stored(op.value, dtype)
        op, plain = dataclasses.replace(op, value=code), dataclasses.replace(op, value=number)
    moved = builder.apply(op, *operands, origin=node.origin)
    numbers = [
        narrow.rounded.get(operand) if source is dtype else operand
        for operand, source in zip(operands, sources, strict=True)
    ]
    known = [number for number in numbers if number is not None]
    # what a loop or branch gives has no numbers beside it
    if _is_short(dtype) and not isinstance(op, ops.Item) and len(known) == len(numbers):
        narrow.rounded[moved] = builder.apply(plain, *known, origin=node.origin)
    return moved


def _compute(
    narrow: Narrow, node: Node, operands: Sequence[Node], sources: Sequence[DType]
) -> Node:
    """Any primitive, on the numbers that its operands stand for."""
    numbers = [
        _convert(narrow, operand, dtype, dtype.arithmetic)
        for operand, dtype in zip(operands, sources, strict=True)
    ]
    result = narrow.builder.apply(node.op, *numbers, origin=node.origin)
    return _convert(narrow, result, result.type.dtype, node.type.dtype)


def _convert(narrow: Narrow, x: Node, source: DType, target: DType) -> Node:
    if source is target:
        return x
    number = narrow.rounded.get(x) if _is_short(source) else x
    if number is None:
        number = narrow.decode(x, source) if source.is_narrow else x
    if target.is_narrow:
        return narrow.encode(number, target)
    result = narrow.builder.cast(number, target, narrow.origin)
    if target is DType.F16 and number.type.dtype is DType.F32:
        narrow.rounded[result] = narrow.builder.cast(result, DType.F32, narrow.origin)
    return result


def _nested(op: Op) -> Op:
    changed = {
        field.name: _rebuild(value, outermost=False)
        for field in dataclasses.fields(op)
        if isinstance(value := getattr(op, field.name), Graph)
    }
    return dataclasses.replace(op, **changed)


def _stored(value: float, dtype: DType) -> tuple[float, float]:
    """What a tensor of ``dtype`` holds for ``value``, and the number that this stands for."""
    with np.errstate(all="ignore"):
        stored = np.asarray(value, np.float32).astype(dtype.numpy)
        return stored.view(dtype.machine.numpy).item(), stored.astype(np.float32).item()
