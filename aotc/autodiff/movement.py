"""Derivatives of data movement: a tangent moves as its tensor does, a cotangent moves back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from aotc.autodiff.emit import Emit, Maybe
from aotc.autodiff.rule import Rule, linear, same_op
from aotc.graph import ops
from aotc.graph.ir import Node


def _broadcast(e: Emit, node: Node, outer: Node) -> Node:
    old = node.inputs[0].shape
    axes = [at for at, size in enumerate(old) if size != node.shape[at]]
    return e.builder.reduce("sum", outer, axes, keep=True) if axes else outer


def _reshape(e: Emit, node: Node, outer: Node) -> Node:
    return e.builder.reshape(outer, node.inputs[0].shape)


def _transpose(e: Emit, node: Node, outer: Node) -> Node:
    assert isinstance(node.op, ops.Transpose)
    return e.untransposed(outer, node.op.perm)


def _slice(e: Emit, node: Node, outer: Node) -> Maybe:
    """Each element back to where it came from, zeros elsewhere."""
    assert isinstance(node.op, ops.Slice)
    if node.type.elems == 0:
        return None
    for axis, size in enumerate(node.inputs[0].shape):
        start, step, count = node.op.starts[axis], node.op.steps[axis], node.op.counts[axis]
        if step < 0:
            outer = e.slice_axis(outer, axis, count - 1, count, -1)
            start, step = start + (count - 1) * step, -step
        outer = e.spread_axis(outer, axis, step)
        outer = e.pad_axis(outer, axis, start, size - start - outer.shape[axis])
    return outer


def _pad_tangent(e: Emit, node: Node, tangent: Node) -> Node:
    assert isinstance(node.op, ops.Pad)
    return e.pad(tangent, node.op.low, node.op.high)


def _pad(e: Emit, node: Node, outer: Node) -> Node:
    assert isinstance(node.op, ops.Pad)
    for axis, size in enumerate(node.inputs[0].shape):
        outer = e.slice_axis(outer, axis, node.op.low[axis], size)
    return outer


def _concat_jvp(e: Emit, node: Node, tangents: Sequence[Maybe]) -> Maybe:
    pairs = zip(node.inputs, tangents, strict=True)
    return e.apply(node.op, *(e.zeros(x) if tangent is None else tangent for x, tangent in pairs))


def _concat_vjp(e: Emit, node: Node, outer: Node, wanted: Sequence[bool]) -> Sequence[Maybe]:
    assert isinstance(node.op, ops.Concat)
    axis = node.op.axis
    sizes = [operand.shape[axis] for operand in node.inputs]
    starts = np.cumsum([0, *sizes[:-1]]).tolist()
    return [
        e.slice_axis(outer, axis, start, size) if want else None
        for start, size, want in zip(starts, sizes, wanted, strict=True)
    ]


RULES: Mapping[type[ops.Op], Rule] = MappingProxyType(
    {
        ops.Broadcast: linear(same_op, _broadcast),
        ops.Reshape: linear(same_op, _reshape),
        ops.Transpose: linear(same_op, _transpose),
        ops.Slice: linear(same_op, _slice),
        ops.Pad: linear(_pad_tangent, _pad),
        ops.Concat: Rule(_concat_jvp, _concat_vjp),
    }
)
