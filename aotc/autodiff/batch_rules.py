"""How each primitive acts on a batch: operands with or without a first axis for the batch in, the
result with that axis out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from aotc.autodiff.emit import Emit
from aotc.autodiff.indexing import with_batch_index
from aotc.errors import UnsupportedError
from aotc.graph import ops
from aotc.graph.ir import Node, Op


@dataclass(frozen=True)
class Batch:
    """A batch of ``size``, and what writes the graph."""

    e: Emit
    size: int

    def spread(self, x: Node, batched: bool) -> Node:
        """``x`` with the axis of the batch, stretched along it where it has none."""
        if batched:
            return x
        apart = self.e.builder.reshape(x, (1, *x.shape))
        return self.e.builder.broadcast(apart, (self.size, *x.shape))

    def spread_all(self, operands: Sequence[Node], batched: Sequence[bool]) -> list[Node]:
        """Every operand with the axis of the batch."""
        return [self.spread(x, flag) for x, flag in zip(operands, batched, strict=True)]

    def chosen(self, flags: Node, a: Node, b: Node | float) -> Node:
        """For each sample ``a`` or ``b``, as its flag says."""
        shaped = self.e.builder.reshape(flags, (self.size, *[1] * (a.type.rank - 1)))
        return self.e.select(shaped, a, b)


Batched = Callable[[Batch, Op, Sequence[Node], Sequence[bool]], Node]
"""Applies a primitive to operands of which at least one is batched."""


def _everywhere(batch: Batch, op: Op, operands: Sequence[Node], batched: Sequence[bool]) -> Node:
    """Elementwise primitives, and a matrix product: the same on operands that all have the axis."""
    return batch.e.apply(op, *batch.spread_all(operands, batched))


def _shape(batch: Batch, op: Op, operands: Sequence[Node], batched: Sequence[bool]) -> Node:
    assert isinstance(op, ops.Broadcast | ops.Reshape)
    return batch.e.apply(type(op)((batch.size, *op.shape)), operands[0])


def _transpose(batch: Batch, op: Op, operands: Sequence[Node], batched: Sequence[bool]) -> Node:
    assert isinstance(op, ops.Transpose)
    return batch.e.apply(ops.Transpose((0, *(axis + 1 for axis in op.perm))), operands[0])


def _slice(batch: Batch, op: Op, operands: Sequence[Node], batched: Sequence[bool]) -> Node:
    assert isinstance(op, ops.Slice)
    wider = ops.Slice((0, *op.starts), (batch.size, *op.counts), (1, *op.steps))
    return batch.e.apply(wider, operands[0])


def _pad(batch: Batch, op: Op, operands: Sequence[Node], batched: Sequence[bool]) -> Node:
    assert isinstance(op, ops.Pad)
    return batch.e.apply(ops.Pad((0, *op.low), (0, *op.high), op.value), operands[0])


def _next_axis(batch: Batch, op: Op, operands: Sequence[Node], batched: Sequence[bool]) -> Node:
    """Primitives along one axis, which is one further back."""
    assert isinstance(
        op,
        ops.Concat
        | ops.ArgReduce
        | ops.CumSum
        | ops.TopK
        | ops.GatherElements
        | ops.ScatterElements,
    )
    moved = dataclasses.replace(op, axis=op.axis + 1)
    return batch.e.apply(moved, *batch.spread_all(operands, batched))


def _reduce(batch: Batch, op: Op, operands: Sequence[Node], batched: Sequence[bool]) -> Node:
    assert isinstance(op, ops.Reduce)
    return batch.e.apply(ops.Reduce(op.fn, tuple(axis + 1 for axis in op.axes)), operands[0])


def _window(batch: Batch, op: Op, operands: Sequence[Node], batched: Sequence[bool]) -> Node:
    assert isinstance(op, ops.ReduceWindow)
    wider = ops.ReduceWindow(
        op.fn,
        (1, *op.window),
        (1, *op.strides),
        (0, *op.low),
        (0, *op.high),
        (1, *op.dilation),
    )
    return batch.e.apply(wider, operands[0])


def _dot(batch: Batch, op: Op, operands: Sequence[Node], batched: Sequence[bool]) -> Node:
    """A batch of rows for one matrix is one product with more rows."""
    e, (lhs, rhs) = batch.e, operands
    if batched[1] or rhs.type.rank != 2:
        return _everywhere(batch, op, operands, batched)
    rows, depth = lhs.shape[1:]
    flat = e.builder.reshape(lhs, (batch.size * rows, depth))
    return e.builder.reshape(e.apply(op, flat, rhs), (batch.size, rows, rhs.shape[1]))


def _conv(batch: Batch, op: Op, operands: Sequence[Node], batched: Sequence[bool]) -> Node:
    """Batches of data are further samples; of weights, further groups of channels."""
    assert isinstance(op, ops.Conv)
    e, (data, weights) = batch.e, operands
    if not batched[1]:
        samples, *rest = data.shape[1:]
        result = e.apply(op, e.builder.reshape(data, (batch.size * samples, *rest)), weights)
        return e.builder.reshape(result, (batch.size, samples, *result.shape[1:]))
    data = batch.spread(data, batched[0])
    last = data.type.rank - 2 if op.channels_last else 1
    inside = e.move_axis(data, 0, last)  # in front of the channels
    channels = (batch.size * inside.shape[last + 1],)
    joined = (*inside.shape[:last], *channels, *inside.shape[last + 2 :])
    kernels = e.builder.reshape(weights, (batch.size * weights.shape[1], *weights.shape[2:]))
    wide = dataclasses.replace(op, groups=batch.size * op.groups)
    result = e.apply(wide, e.builder.reshape(inside, joined), kernels)
    apart = (*result.shape[:last], batch.size, weights.shape[1], *result.shape[last + 1 :])
    return e.move_axis(e.builder.reshape(result, apart), last, 0)


def _gather(batch: Batch, op: Op, operands: Sequence[Node], batched: Sequence[bool]) -> Node:
    assert isinstance(op, ops.Gather)
    e, (data, indices) = batch.e, operands
    if not batched[1]:
        return e.apply(ops.Gather(op.axis + 1), data, indices)
    if not batched[0]:
        return e.move_axis(e.apply(op, data, indices), op.axis, 0)
    rows = e.move_axis(data, op.axis + 1, 1)
    index = e.builder.reshape(e.indices(indices), (*indices.shape, 1))
    found = e.apply(ops.GatherND(1), rows, index)
    count = indices.type.rank - 1
    before = range(1 + count, 1 + count + op.axis)
    behind = range(1 + count + op.axis, found.type.rank)
    return e.builder.transpose(found, (0, *before, *range(1, 1 + count), *behind))


def _gather_nd(batch: Batch, op: Op, operands: Sequence[Node], batched: Sequence[bool]) -> Node:
    assert isinstance(op, ops.GatherND)
    if op.batch_dims == 0 and not batched[0]:
        return batch.e.apply(op, *operands)
    return batch.e.apply(ops.GatherND(op.batch_dims + 1), *batch.spread_all(operands, batched))


def _scatter_nd(batch: Batch, op: Op, operands: Sequence[Node], batched: Sequence[bool]) -> Node:
    """The place in the batch becomes a part of the index."""
    data, indices, updates = batch.spread_all(operands, batched)
    return batch.e.apply(op, data, with_batch_index(batch.e, indices, 1), updates)


def _trees(batch: Batch, op: Op, operands: Sequence[Node], batched: Sequence[bool]) -> Node:
    e, x = batch.e, operands[0]
    if any(batched[1:]):
        raise UnsupportedError(
            "a batch of ensembles of trees is not supported", remedy="map over the rows alone"
        )
    _, rows, features = x.shape
    flat = e.builder.reshape(x, (batch.size * rows, features))
    result = e.apply(op, flat, *operands[1:])
    return e.builder.reshape(result, (batch.size, rows, result.shape[1]))


BATCHED: Mapping[type[Op], Batched] = MappingProxyType(
    {
        **dict.fromkeys((*ops.ELEMENTWISE, ops.Relabel), _everywhere),
        **dict.fromkeys((ops.Broadcast, ops.Reshape), _shape),
        **dict.fromkeys((ops.Concat, ops.ArgReduce, ops.CumSum, ops.TopK), _next_axis),
        **dict.fromkeys((ops.GatherElements, ops.ScatterElements), _next_axis),
        ops.Transpose: _transpose,
        ops.Slice: _slice,
        ops.Pad: _pad,
        ops.Reduce: _reduce,
        ops.ReduceWindow: _window,
        ops.Dot: _dot,
        ops.Conv: _conv,
        ops.Gather: _gather,
        ops.GatherND: _gather_nd,
        ops.ScatterND: _scatter_nd,
        ops.Trees: _trees,
    }
)
"""The primitives of one result that take operands."""
