"""Explicit padding: padding `Conv`s and windows go in, `Pad`s before unpadded ones come out, each
as large as they need it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

import numpy as np

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node, Op
from aotc.graph.types import DType
from aotc.passes.rewrite import Rule, reemit, rewrite


def explicit_pad(graph: Graph) -> Graph:
    """Give every padding `Conv` and `ReduceWindow` a `Pad` of its data, with the value that changes
    nothing. What no window of them reaches, as steps of more than one leave over, is not padded."""
    return _trim(rewrite(graph, _RULES))


def _pad_conv(builder: Builder, op: Op, operands: tuple[Node, ...], origin: str) -> Node | None:
    assert isinstance(op, ops.Conv)
    if not any(op.low) and not any(op.high):
        return None
    data, weights = operands

    def around(spatial: tuple[int, ...]) -> tuple[int, ...]:
        return (0, *spatial, 0) if op.channels_last else (0, 0, *spatial)

    padded = builder.apply(ops.Pad(around(op.low), around(op.high), 0.0), data, origin=origin)
    none = (0,) * len(op.low)
    return builder.apply(replace(op, low=none, high=none), padded, weights, origin=origin)


def _pad_window(builder: Builder, op: Op, operands: tuple[Node, ...], origin: str) -> Node | None:
    assert isinstance(op, ops.ReduceWindow)
    if not any(op.low) and not any(op.high):
        return None
    (data,) = operands
    value = 0.0 if op.fn == "sum" else _lowest(data.type.dtype)
    padded = builder.apply(ops.Pad(op.low, op.high, value), data, origin=origin)
    none = (0,) * len(op.low)
    return builder.apply(replace(op, low=none, high=none), padded, origin=origin)


def _lowest(dtype: DType) -> float:
    """The identity of max."""
    return float("-inf") if dtype.is_float else float(np.iinfo(dtype.numpy).min)


def _trim(graph: Graph) -> Graph:
    """Takes from each `Pad` the end that none of its readers reads."""
    users = graph.users()
    outside = {node for _, node in (*graph.outputs, *graph.checks)}

    def emit(builder: Builder, node: Node, new: Mapping[Node, Node]) -> Node | None:
        if not isinstance(node.op, ops.Pad) or not any(node.op.high):
            return None
        reached = _reached(node, users, outside)
        ends = zip(node.op.high, node.shape, reached, strict=True)
        high = tuple(max(end - (dim - used), min(end, 0)) for end, dim, used in ends)
        operand = new[node.inputs[0]]
        return builder.apply(replace(node.op, high=high), operand, origin=node.origin)

    return reemit(graph, emit)


def _reached(
    node: Node, users: Mapping[Node, Sequence[Node]], outside: Collection[Node]
) -> tuple[int, ...]:
    """How many elements along each axis of ``node`` somebody reads, counted from the first."""
    if node in outside or not users[node]:
        return node.shape
    reached = (0,) * node.type.rank
    for user in users[node]:
        match user.op:
            case ops.Cast():
                own = _reached(user, users, outside)
            case ops.Conv() | ops.ReduceWindow() if user.inputs[0] is node:
                own = _covered(user)
            case _:
                own = node.shape
        reached = tuple(map(max, reached, own))
    return reached


def _covered(user: Node) -> tuple[int, ...]:
    """The same for one `Conv` or `ReduceWindow` without padding."""
    op, shape = user.op, user.inputs[0].shape
    if any(user.inputs[0] is operand for operand in user.inputs[1:]):
        return shape
    if isinstance(op, ops.Conv):
        window = user.inputs[1].shape[2:]
        first = 1 if op.channels_last else 2
    else:
        assert isinstance(op, ops.ReduceWindow)
        window, first = op.window, 0
    extents = user.shape[first : first + len(window)]
    covered = tuple(
        (extent - 1) * stride + (taps - 1) * step + 1
        for extent, stride, taps, step in zip(extents, op.strides, window, op.dilation, strict=True)
    )
    return (*shape[:first], *covered, *shape[first + len(window) :])


_RULES: dict[type[Op], tuple[Rule, ...]] = {
    ops.Conv: (_pad_conv,),
    ops.ReduceWindow: (_pad_window,),
}
