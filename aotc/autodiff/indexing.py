"""Derivatives of gathers and scatters: what is read adds up where it was read, and the reverse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from aotc.autodiff.emit import Emit, Maybe, is_float
from aotc.autodiff.rule import Rule, linear, same_op
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType, TensorType


def _gather(e: Emit, node: Node, outer: Node) -> Node:
    assert isinstance(node.op, ops.Gather)
    data, indices = node.inputs
    axis, rank = node.op.axis, data.type.rank
    places = range(axis, axis + indices.type.rank)
    order = (*places, *(at for at in range(outer.type.rank) if at not in places))
    rows = e.builder.transpose(outer, order)
    front = [axis, *(at for at in range(rank) if at != axis)]
    zeros = e.full(0.0, TensorType(data.type.dtype, tuple(data.shape[at] for at in front)))
    index = e.builder.reshape(e.indices(indices), (*indices.shape, 1))
    return e.untransposed(e.apply(ops.ScatterND("add"), zeros, index, rows), front)


def _gather_elements(e: Emit, node: Node, outer: Node) -> Node:
    assert isinstance(node.op, ops.GatherElements)
    data, indices = node.inputs
    return e.apply(ops.ScatterElements(node.op.axis, "add"), e.zeros(data), indices, outer)


def _gather_nd(e: Emit, node: Node, outer: Node) -> Node:
    data, indices = node.inputs
    return e.apply(ops.ScatterND("add"), e.zeros(data), indices, outer)


def expand_gather_nd(e: Emit, node: Node) -> Node | None:
    """GatherND of a batch as one that addresses the batch axes as well; None without a batch."""
    assert isinstance(node.op, ops.GatherND)
    data, indices = node.inputs
    if node.op.batch_dims == 0 or not is_float(node):
        return None
    whole = with_batch_index(e, indices, node.op.batch_dims)
    return e.apply(ops.GatherND(0), data, whole)


def with_batch_index(e: Emit, indices: Node, batch_dims: int) -> Node:
    """Indices [*batch, ..., depth] with the place in the batch in front: depth grows by
    ``batch_dims``."""
    shape = (*indices.shape[:-1], 1)
    axes = [e.apply(ops.Iota(shape, axis, DType.I64)) for axis in range(batch_dims)]
    return e.builder.concat([*axes, indices], len(shape) - 1)


def _parts(node: Node) -> tuple[str, ops.Op]:
    """The function of a scatter, and the gather that reads what it writes."""
    if isinstance(node.op, ops.ScatterElements):
        return node.op.fn, ops.GatherElements(node.op.axis)
    assert isinstance(node.op, ops.ScatterND)
    return node.op.fn, ops.GatherND(0)


def _scatter(e: Emit, node: Node, fn: str, data: Node, updates: Node) -> Node:
    """The scatter of ``node`` with another function and other values."""
    op = node.op
    made = ops.ScatterElements(op.axis, fn) if isinstance(op, ops.ScatterElements) else None
    return e.apply(made or ops.ScatterND(fn), data, node.inputs[1], updates)


def _weights(e: Emit, node: Node) -> tuple[Node, Node]:
    """The slope of each element of the result by its element of data, and of each update's element
    of the result by that update."""
    data, _, updates = node.inputs
    match _parts(node)[0]:
        case "add":
            return e.full(1.0, data.type), e.full(1.0, updates.type)
        case "set":
            return _set_weights(e, node)
        case "mul":
            return _mul_weights(e, node)
    # min and max: those that reach the extreme share it
    first = e.builder.cast(e.compare("eq", data, node), data.type.dtype)
    reached = e.compare("eq", updates, e.apply(_parts(node)[1], node, node.inputs[1]))
    each = e.builder.cast(reached, data.type.dtype)
    count = _scatter(e, node, "add", first, each)
    counts = e.apply(_parts(node)[1], count, node.inputs[1])
    return e.binary("div", first, count), e.binary("div", each, counts)


def _set_weights(e: Emit, node: Node) -> tuple[Node, Node]:
    """Of several updates of one place only the last one counts."""
    data, indices, updates = node.inputs
    ones = e.full(1.0, data.type)
    kept = _scatter(e, node, "set", ones, e.zeros(updates))
    number = e.builder.constant(np.arange(updates.type.elems).reshape(updates.shape))
    table = e.full(-1, TensorType(DType.I64, data.shape))
    last = e.apply(_parts(node)[1], _scatter(e, node, "set", table, number), indices)
    return kept, e.builder.cast(e.compare("eq", last, number), data.type.dtype)


def _mul_weights(e: Emit, node: Node) -> tuple[Node, Node]:
    """Products of all other factors; zeros are counted rather than divided by."""
    data, indices, updates = node.inputs
    gather = _parts(node)[1]
    ones = e.full(1.0, data.type)
    zero = e.compare("eq", updates, 0.0)
    nonzero = e.select(zero, e.full(1.0, updates.type), updates)
    product = e.apply(gather, _scatter(e, node, "mul", ones, nonzero), indices)
    flags = e.builder.cast(zero, data.type.dtype)
    zeros = e.apply(gather, _scatter(e, node, "add", e.zeros(data), flags), indices)
    others = e.compare("eq", e.binary("sub", zeros, flags), 0.0)
    rest = e.select(others, e.binary("div", product, nonzero), 0.0)
    by_update = e.binary("mul", rest, e.apply(gather, data, indices))
    return _scatter(e, node, "mul", ones, updates), by_update


def _scatter_jvp(e: Emit, node: Node, tangents: Sequence[Maybe]) -> Maybe:
    by_data, by_updates = _weights(e, node)
    start = e.zeros(node) if tangents[0] is None else e.binary("mul", tangents[0], by_data)
    if tangents[2] is None:
        return start
    return _scatter(e, node, "add", start, e.binary("mul", tangents[2], by_updates))


def _scatter_vjp(e: Emit, node: Node, outer: Node, wanted: Sequence[bool]) -> Sequence[Maybe]:
    by_data, by_updates = _weights(e, node)
    read = e.apply(_parts(node)[1], outer, node.inputs[1])
    return [
        e.binary("mul", outer, by_data) if wanted[0] else None,
        None,
        e.binary("mul", read, by_updates) if wanted[2] else None,
    ]


RULES: Mapping[type[ops.Op], Rule] = MappingProxyType(
    {
        ops.Gather: linear(same_op, _gather),
        ops.GatherElements: linear(same_op, _gather_elements),
        ops.GatherND: linear(same_op, _gather_nd),
        ops.ScatterND: Rule(_scatter_jvp, _scatter_vjp),
        ops.ScatterElements: Rule(_scatter_jvp, _scatter_vjp),
    }
)
