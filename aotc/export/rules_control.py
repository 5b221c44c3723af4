"""Branches and loops in, If and Loop of ONNX out; and trees as the arithmetic that they are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

import numpy as np
import onnx
from onnx import helper

from aotc.export.emitter import Emitter, Value
from aotc.export.rules_elementwise import Rule, op_of
from aotc.frontend.tensors import ONNX_TYPES
from aotc.graph import ops
from aotc.graph.ir import Graph, Node, Op
from aotc.graph.ops_control import output_types
from aotc.graph.types import DType, TensorType

Write = Callable[[Emitter, Graph, Sequence[Value]], list[Value]]
"""Writes the nodes of a graph for values of its inputs; gives its outputs."""


def info(value: Value, type: TensorType) -> onnx.ValueInfoProto:
    """How a graph declares an input or output."""
    return helper.make_tensor_value_info(value.name, ONNX_TYPES[value.dtype], type.dims)


def _named(emitter: Emitter, values: Sequence[Value]) -> list[Value]:
    """Results of a nested graph must be made in it, each under a name of its own."""
    return [emitter.raw("Identity", value.dtype, value) for value in values]


def branch(emitter: Emitter, node: Node, operands: tuple[Value, ...], write: Write) -> (
    tuple[Value, ...]
):
    op = op_of(node, ops.Branch)
    types = output_types(op.then)
    graphs = []
    for graph in (op.then, op.other):
        inner = emitter.inner()
        results = _named(inner, write(inner, graph, operands[1:]))
        infos = [info(value, type_) for value, type_ in zip(results, types, strict=True)]
        graphs.append(helper.make_graph(inner.nodes, graph.name or "branch", [], infos))
    kinds = [type_.dtype for type_ in types]
    return emitter.many(
        "If", operands[:1], kinds, then_branch=graphs[0], else_branch=graphs[1]
    )


def repeat(emitter: Emitter, node: Node, operands: tuple[Value, ...], write: Write) -> (
    tuple[Value, ...]
):
    """A Loop that counts its iterations. Rows are its scan outputs where all iterations run for
    sure; else they are written into tensors that it carries, where the rest stays zero."""
    op = op_of(node, ops.Repeat)
    trips, going = operands[:2]
    rest = operands[2:]
    state, scanned = rest[: op.carried], rest[op.carried : op.carried + op.scanned]
    captured = rest[op.carried + op.scanned :]
    types = output_types(op.body)[1:]
    whole = op.limit > 0 and _always_runs(node, op)
    rows = [TensorType(t.dtype, (op.limit, *t.dims)) for t in types[op.carried :]]
    stacks = [] if whole else [
        emitter.expand(emitter.number(0, row.dtype), row.dims) for row in rows
    ]
    if op.limit == 0:
        return (emitter.number(0, DType.I64), *state, *stacks)
    if op.limit != ops.UNLIMITED:
        trips = emitter.apply("Min", trips, emitter.number(op.limit, DType.I64))
    inner = emitter.inner()
    fresh = [Value(inner.shared.name(name), kind) for name, kind in (
        ("iteration", DType.I64), ("going", DType.BOOL), ("count", DType.I64),
        *(("state", value.dtype) for value in (*state, *stacks)),
    )]  # fmt: skip
    index, carried, kept = fresh[0], fresh[3 : 3 + len(state)], fresh[3 + len(state) :]
    slices = [inner.move("Gather", [value], index, axis=0) for value in scanned]
    found = write(inner, op.body, [index, *carried, *slices, *captured])
    count = inner.apply("Add", fresh[2], inner.number(1, DType.I64))
    after, made = found[1 : 1 + op.carried], found[1 + op.carried :]
    if not whole:
        made = [
            _put(inner, stack, index, row, type_.dims)
            for stack, row, type_ in zip(kept, made, types[op.carried :], strict=True)
        ]
    results = _named(inner, [found[0], count, *after, *made])
    flag, number = TensorType(DType.BOOL, ()), TensorType(DType.I64, ())
    held = [*types[: op.carried], *([] if whole else rows)]
    inside = [number, flag, number, *held]
    outside = [flag, number, *types[: op.carried], *(types[op.carried :] if whole else rows)]
    body = helper.make_graph(
        inner.nodes, op.body.name or "body",
        [info(value, type_) for value, type_ in zip(fresh, inside, strict=True)],
        [info(value, type_) for value, type_ in zip(results, outside, strict=True)],
    )  # fmt: skip
    start = emitter.number(0, DType.I64)
    kinds = [DType.I64, *(t.dtype for t in types)]
    return emitter.many("Loop", (trips, going, start, *state, *stacks), kinds, body=body)


def _always_runs(node: Node, op: ops.Repeat) -> bool:
    """Whether ``limit`` iterations run whatever the data are."""
    trips, going = node.inputs[0].data, node.inputs[1].data
    last = op.body.outputs[0][1].data
    return (
        trips is not None and int(trips) >= op.limit
        and going is not None and bool(going)
        and last is not None and bool(last)
    )  # fmt: skip


def _put(
    emitter: Emitter, stack: Value, index: Value, row: Value, dims: Sequence[int]
) -> Value:
    place = emitter.reshape(index, (1, 1))
    whole = emitter.reshape(row, (1, *dims))
    if emitter.allows("ScatterND", stack.dtype):
        return emitter.raw("ScatterND", stack.dtype, stack, place, whole)
    work = DType.U8 if stack.dtype.is_float and stack.dtype.size_bits == 8 else DType.F32
    work = work if stack.dtype.is_float else DType.I8
    moved = (emitter.cast(value, work) for value in (stack, whole))
    first, second = moved
    return emitter.cast(emitter.raw("ScatterND", work, first, place, second), stack.dtype)


def trees(emitter: Emitter, node: Node, operands: tuple[Value, ...]) -> Value:
    """All walks side by side, [rows, trees], step by step; then the values of the ends are put
    together in the order of the trees."""
    op = op_of(node, ops.Trees)
    x, feature, threshold, child, values, roots, column = operands[:7]
    rows, features = node.inputs[0].shape
    nodes, width = node.inputs[4].shape
    count = node.inputs[5].shape[0]
    # the place behind the largest int32 is one as well
    wide = (emitter.convert(table, DType.I64) for table in (feature, child, roots, column))
    feature, child, roots, column = wide
    one = emitter.number(1, DType.I64)

    def held(places: Value, most: int) -> Value:
        low = emitter.apply("Max", places, emitter.number(0, DType.I64))
        return emitter.apply("Min", low, emitter.number(most, DType.I64))

    feature = held(feature, features - 1)
    at = emitter.expand(held(roots, nodes - 1), (rows, count))
    for _ in range(op.depth):
        chosen = emitter.raw("Gather", DType.I64, feature, at, axis=0)
        value = emitter.raw("GatherElements", x.dtype, x, chosen, axis=1)
        limit = emitter.raw("Gather", x.dtype, threshold, at, axis=0)
        left = emitter.raw("LessOrEqual", DType.BOOL, value, limit)
        if len(operands) == 8:
            lost = emitter.raw("IsNaN", DType.BOOL, value)
            free = emitter.raw("Gather", DType.BOOL, operands[7], at, axis=0)
            both = emitter.raw("And", DType.BOOL, lost, free)
            left = emitter.raw("Or", DType.BOOL, left, both)
        first = emitter.raw("Gather", DType.I64, child, at, axis=0)
        at = held(emitter.where(left, first, emitter.apply("Add", first, one)), nodes - 1)
    ends = emitter.raw("Gather", x.dtype, values, at, axis=0)
    ends = emitter.reshape(ends, (rows, count * width))
    first = emitter.reshape(held(column, op.columns - width), (count, 1))
    every = emitter.apply("Add", first, emitter.constant(np.arange(width)))
    places = emitter.reshape(every, (1, count * width))
    places = emitter.expand(places, (rows, count * width))
    start = {"sum": 0.0, "min": np.inf, "max": -np.inf}[op.fn]
    result = emitter.expand(emitter.number(start, x.dtype), (rows, op.columns))
    how = "add" if op.fn == "sum" else op.fn
    return emitter.raw(
        "ScatterElements", x.dtype, result, places, ends, axis=1, reduction=how
    )


RULES: Mapping[type[Op], Rule] = MappingProxyType({ops.Trees: trees})
CONTROL: Mapping[
    type[Op], Callable[[Emitter, Node, tuple[Value, ...], Write], tuple[Value, ...]]
] = MappingProxyType({ops.Branch: branch, ops.Repeat: repeat})
