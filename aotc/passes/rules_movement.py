"""Rules on data movement: an application goes in, an equal cheaper node or None comes out."""

from __future__ import annotations

import numpy as np

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Node, Op
from aotc.passes.shapes import moves_nothing, reshape_groups


def join_broadcasts(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    """``broadcast(broadcast(x))`` -> ``broadcast(x)``; a broadcast to the operand's own shape
    vanishes."""
    assert isinstance(op, ops.Broadcast)
    (x,) = operands
    if x.shape == op.shape:
        return x
    if isinstance(x.op, ops.Broadcast):
        return builder.apply(op, x.inputs[0], origin=origin)
    return None


def join_reshapes(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    """``reshape(reshape(x))`` -> ``reshape(x)``; identity reshapes vanish; constants take the shape
    at once."""
    assert isinstance(op, ops.Reshape)
    (x,) = operands
    if x.shape == op.shape:
        return x
    if x.data is not None:
        return builder.reuse_constant(x, op.shape)
    if isinstance(x.op, ops.Reshape):
        return builder.apply(op, x.inputs[0], origin=origin)
    return None


def sink_reshape_below_broadcast(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    """``reshape(broadcast(x))`` -> ``broadcast(reshape(x))`` when no group of axes that the reshape
    splits or merges is stretched in part."""
    assert isinstance(op, ops.Reshape)
    (x,) = operands
    if not isinstance(x.op, ops.Broadcast):
        return None
    source = x.inputs[0]
    if 0 in op.shape:
        return None
    inner = [1] * len(op.shape)
    for before, after in reshape_groups(x.shape, op.shape):
        kept = [axis for axis in before if source.shape[axis] == x.shape[axis]]
        if len(kept) == len(before):
            for axis in after:
                inner[axis] = op.shape[axis]
        elif kept:
            return None
    reshaped = builder.reshape(source, tuple(inner), origin)
    return builder.apply(ops.Broadcast(op.shape), reshaped, origin=origin)


def join_transposes(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    """``transpose(transpose(x))`` -> one transpose; ``transpose(broadcast(x))`` ->
    ``broadcast(transpose(x))``."""
    assert isinstance(op, ops.Transpose)
    (x,) = operands
    if op.perm == tuple(range(len(op.perm))):
        return x
    if isinstance(x.op, ops.Transpose):
        joined = tuple(x.op.perm[axis] for axis in op.perm)
        return builder.transpose(x.inputs[0], joined, origin)
    if isinstance(x.op, ops.Broadcast):
        shape = tuple(x.shape[axis] for axis in op.perm)
        moved = builder.apply(op, x.inputs[0], origin=origin)
        return builder.apply(ops.Broadcast(shape), moved, origin=origin)
    return None


def transpose_to_reshape(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    """A transpose that moves only axes of size 1 moves no element: it is a reshape."""
    assert isinstance(op, ops.Transpose)
    (x,) = operands
    if not moves_nothing(op.perm, x.shape):
        return None
    return builder.reshape(x, tuple(x.shape[axis] for axis in op.perm), origin)


def join_slices(builder: Builder, op: Op, operands: tuple[Node, ...], origin: str) -> Node | None:
    """``slice(slice(x))`` -> one slice; ``slice(broadcast(x))`` -> ``broadcast(slice(x))``; full
    slices vanish."""
    assert isinstance(op, ops.Slice)
    (x,) = operands
    if op.counts == x.shape and not any(op.starts) and set(op.steps) <= {1}:
        return x
    if isinstance(x.op, ops.Slice):
        starts = (a + b * s for a, b, s in zip(x.op.starts, op.starts, x.op.steps, strict=True))
        steps = (a * b for a, b in zip(x.op.steps, op.steps, strict=True))
        joined = ops.Slice(tuple(starts), op.counts, tuple(steps))
        return builder.apply(joined, x.inputs[0], origin=origin)
    if isinstance(x.op, ops.Broadcast) and 0 not in op.counts:
        inner = x.inputs[0]
        stretched = [a != b for a, b in zip(inner.shape, x.shape, strict=True)]
        fields = zip(op.starts, op.counts, op.steps, stretched, strict=True)
        starts1, counts1, steps1 = zip(
            *((0, 1, 1) if free else (start, count, step) for start, count, step, free in fields),
            strict=True,
        )
        part = builder.apply(ops.Slice(starts1, counts1, steps1), inner, origin=origin)
        return builder.apply(ops.Broadcast(op.counts), part, origin=origin)
    return None


def join_pads(builder: Builder, op: Op, operands: tuple[Node, ...], origin: str) -> Node | None:
    """``pad(pad(x, v), v)`` -> one pad; a pad of nothing vanishes."""
    assert isinstance(op, ops.Pad)
    (x,) = operands
    if not any(op.low) and not any(op.high):
        return x
    if isinstance(x.op, ops.Pad) and (x.op.value == op.value):
        low = tuple(a + b for a, b in zip(x.op.low, op.low, strict=True))
        high = tuple(a + b for a, b in zip(x.op.high, op.high, strict=True))
        return builder.apply(ops.Pad(low, high, op.value), x.inputs[0], origin=origin)
    return None


def join_concat(builder: Builder, op: Op, operands: tuple[Node, ...], origin: str) -> Node | None:
    """Drops empty operands, joins neighbours that are adjacent slices of one tensor, unwraps a
    single operand."""
    assert isinstance(op, ops.Concat)
    parts: list[Node] = []
    for operand in operands:
        if operand.shape[op.axis] == 0 and len(operands) > 1:
            continue
        joined = _adjacent(builder, parts[-1], operand, op.axis, origin) if parts else None
        if joined is not None:
            parts[-1] = joined
        else:
            parts.append(operand)
    if not parts:
        return operands[0]
    if len(parts) == 1:
        return parts[0]
    if len(parts) == len(operands):
        return None
    return builder.apply(op, *parts, origin=origin)


def _adjacent(builder: Builder, a: Node, b: Node, axis: int, origin: str) -> Node | None:
    """The slice that covers the slices ``a`` and ``b`` when b goes on along ``axis`` where a
    stops."""
    first, second = a.op, b.op
    if not isinstance(first, ops.Slice) or not isinstance(second, ops.Slice):
        return None
    if a.inputs != b.inputs or first.steps != second.steps:
        return None
    expected = list(first.starts)
    expected[axis] += first.counts[axis] * first.steps[axis]
    if tuple(expected) != second.starts:
        return None
    counts = list(first.counts)
    counts[axis] += second.counts[axis]
    joined = ops.Slice(first.starts, tuple(counts), first.steps)
    return builder.apply(joined, a.inputs[0], origin=origin)


def gather_to_slice(
    builder: Builder, op: Op, operands: tuple[Node, ...], origin: str
) -> Node | None:
    """A gather at constant, evenly spaced positions is a slice, and a reshape when the indices are
    no vector."""
    assert isinstance(op, ops.Gather)
    data, indices = operands
    extent = data.shape[op.axis]
    if indices.data is None or indices.data.size == 0 or extent == 0:
        return None
    at = indices.data.reshape(-1).astype(np.int64)
    at = np.clip(np.where(at < 0, at + extent, at), 0, extent - 1)
    step = int(at[1] - at[0]) if at.size > 1 else 1
    if step == 0 or (np.diff(at) != step).any():
        return None
    starts, counts, steps = [0] * data.type.rank, list(data.shape), [1] * data.type.rank
    starts[op.axis], counts[op.axis], steps[op.axis] = int(at[0]), int(at.size), step
    part = builder.apply(
        ops.Slice(tuple(starts), tuple(counts), tuple(steps)), data, origin=origin
    )
    shape = data.shape[: op.axis] + indices.shape + data.shape[op.axis + 1 :]
    return builder.reshape(part, shape, origin)


def drop_reduce(builder: Builder, op: Op, operands: tuple[Node, ...], origin: str) -> Node | None:
    """A reduction over axes of size 1 only (or over none) is a reshape."""
    assert isinstance(op, ops.Reduce)
    (x,) = operands
    if any(x.shape[axis] != 1 for axis in op.axes):
        return None
    kept = tuple(dim for axis, dim in enumerate(x.shape) if axis not in op.axes)
    return builder.reshape(x, kept, origin)
