"""Scale folding: a graph goes in, constant per-channel scales move into the weights of
contractions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node
from aotc.passes.constants import squeezed_value, stretch
from aotc.passes.rewrite import reemit


def fold_scales(graph: Graph) -> Graph:
    """Fold constant per-channel scales and shifts around `Conv` and `Dot` with constant weights.

    ``(conv(x, W) + c1) * s + c2`` becomes ``conv(x, W*s) + (c1*s + c2)`` (batch norm is of this
    form), and ``conv(x*s, W)`` becomes ``conv(x, W*s)``: a scale commutes with zero padding, a
    shift of the data does not and stays. The arithmetic is done in float64 and rounded once. A
    value with another reader stays. """
    return _fold_into_data_side(_fold_into_result_side(graph))


@dataclass(frozen=True)
class _Affine:
    """``contraction * scale + shift``, both float64[channels], the channels along ``axis``."""

    contraction: Node
    axis: int
    scale: np.ndarray
    shift: np.ndarray


def _fold_into_result_side(graph: Graph) -> Graph:
    users = graph.users()
    kept = {node for _, node in graph.outputs}
    plans: dict[Node, _Affine] = {}
    for node in graph.nodes():
        if _has_constant_weights(node):
            found = _follow_affine(node, users, kept)
            if found is not None:
                plans[found[0]] = found[1]

    def emit(builder: Builder, node: Node, new: Mapping[Node, Node]) -> Node | None:
        plan = plans.get(node)
        return None if plan is None else _emit_affine(builder, node, plan, new)

    return reemit(graph, emit) if plans else graph


def _has_constant_weights(node: Node) -> bool:
    if not node.type.dtype.is_float or not isinstance(node.op, (ops.Conv, ops.Dot)):
        return False
    return node.inputs[1].data is not None


def _channel_axis(node: Node) -> int:
    """The result axis of a contraction along which each weight column or filter has its own
    place."""
    first = isinstance(node.op, ops.Conv) and not node.op.channels_last
    return 1 if first else node.type.rank - 1


def _follow_affine(
    contraction: Node, users: Mapping[Node, list[Node]], kept: set[Node]
) -> tuple[Node, _Affine] | None:
    """The last node of the chain of affine steps on ``contraction``, and what the chain
    computes."""
    channels = contraction.shape[_channel_axis(contraction)]
    scale, shift = np.ones(channels), np.zeros(channels)
    axis = _channel_axis(contraction)
    node, steps = contraction, 0
    end, last = None, None
    while node not in kept and len(users[node]) == 1:
        user = users[node][0]
        if _keeps_channels(user, axis):
            axis = user.type.rank - 1
        else:
            step = _affine_step(user, node, axis)
            if step is None:
                break
            factor, term = step
            scale, shift = scale * factor, shift * factor + term
            steps += 1
            # One shift alone is as good as it gets.
            if steps > 1 or not (scale == 1).all():
                end, last = user, _Affine(contraction, axis, scale, shift)
        node = user
    if end is None or last is None or not np.isfinite(last.scale).all():
        return None
    return end, last


def _keeps_channels(user: Node, axis: int) -> bool:
    """Whether ``user`` is a reshape of its operand that leaves the last axis, which holds the
    channels, alone."""
    if not isinstance(user.op, ops.Reshape):
        return False
    shape = user.inputs[0].shape
    return axis == len(shape) - 1 and bool(user.op.shape) and user.op.shape[-1] == shape[-1]


def _affine_step(
    user: Node, node: Node, axis: int
) -> tuple[np.ndarray | float, np.ndarray | float] | None:
    """(factor, term) when ``user`` is ``node * factor + term`` with constants that vary along
    ``axis`` only."""
    if user.op == ops.Unary("neg"):
        return -1.0, 0.0
    if not isinstance(user.op, ops.Binary) or user.op.fn not in ("add", "sub", "mul", "div"):
        return None
    first = user.inputs[0] is node
    others = tuple(other for other in range(user.type.rank) if other != axis)
    value = squeezed_value(user.inputs[1 if first else 0], others)
    if value is None:
        return None
    vector = np.broadcast_to(value.reshape(-1).astype(np.float64), (node.shape[axis],))
    match user.op.fn:
        case "add":
            return 1.0, vector
        case "mul":
            return vector, 0.0
        case "sub":
            return (1.0, -vector) if first else (-1.0, vector)
        case _ if first and (vector != 0).all():
            return 1.0 / vector, 0.0
    return None


def _emit_affine(builder: Builder, end: Node, plan: _Affine, new: Mapping[Node, Node]) -> Node:
    contraction = plan.contraction
    weights = contraction.inputs[1].data
    assert weights is not None
    if isinstance(contraction.op, ops.Conv):
        scale = plan.scale.reshape(-1, *(1,) * (weights.ndim - 1))
    else:
        scale = plan.scale
    scaled = builder.constant(_scaled(weights, scale))
    data = new[contraction.inputs[0]]
    result = builder.apply(contraction.op, data, scaled, origin=contraction.origin)
    result = builder.reshape(result, end.shape, contraction.origin)
    if not plan.shift.any():
        return result
    along = [1] * end.type.rank
    along[plan.axis] = -1
    shift = plan.shift.astype(weights.dtype).reshape(along)
    bias = stretch(builder, shift, end.shape, end.origin)
    return builder.apply(ops.Binary("add"), result, bias, origin=end.origin)


def _scaled(weights: np.ndarray, scale: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(np.multiply(weights, scale, dtype=np.float64), dtype=weights.dtype)


def _fold_into_data_side(graph: Graph) -> Graph:
    users = graph.users()
    kept = {node for _, node in graph.outputs}

    def emit(builder: Builder, node: Node, new: Mapping[Node, Node]) -> Node | None:
        if not _has_constant_weights(node):
            return None
        data, weights = node.inputs
        if data.op != ops.Binary("mul") or data in kept or len(users[data]) != 1:
            return None
        found = _scaled_data(data, _channel_axis(node))
        if found is None:
            return None
        source, scale = found
        assert weights.data is not None
        per_weight = _along_inputs(node, weights.data, scale)
        scaled = builder.constant(_scaled(weights.data, per_weight))
        return builder.apply(node.op, new[source], scaled, origin=node.origin)

    return reemit(graph, emit)


def _scaled_data(data: Node, axis: int) -> tuple[Node, np.ndarray] | None:
    """(x, s) when the product ``data`` is ``x * s`` with a constant s that varies along ``axis``
    only."""
    others = tuple(other for other in range(data.type.rank) if other != axis)
    for source, factor in (data.inputs, data.inputs[::-1]):
        value = squeezed_value(factor, others)
        if value is not None:
            scale = value.reshape(-1).astype(np.float64)
            return source, np.broadcast_to(scale, (data.shape[axis],))
    return None


def _along_inputs(node: Node, weights: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """``scale`` per input channel, shaped to multiply ``weights``."""
    if not isinstance(node.op, ops.Conv):
        return scale.reshape(-1, 1)
    groups = node.op.groups
    per_group = scale.reshape(groups, -1)
    per_filter = np.repeat(per_group, weights.shape[0] // groups, axis=0)
    return per_filter.reshape(per_filter.shape + (1,) * (weights.ndim - 2))
