"""The softmax of an attention: the group of a softmax goes in, what it is the softmax of and which
rows it leaves empty come out.
"""

from __future__ import annotations

from dataclasses import dataclass

from aotc.fuse.groups import Group
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.lower.context import scalar_value


@dataclass(frozen=True)
class Empty:
    """Rows of which all weights are zero: where ``condition``, which does not change along a row,
    is ``sense``; without one, where the softmax has no numbers."""

    condition: Node | None
    sense: bool


@dataclass(frozen=True)
class Softmax:
    """The softmax of ``scores`` along the last axis, but for ``empty`` rows."""

    scores: Node
    empty: Empty | None


def softmax_of(group: Group) -> Softmax | None:
    """What ``group`` is the softmax of, if it is one and nothing more."""
    inside = set(group.nodes)
    empty, result, steps = None, group.result, set[Node]()
    if isinstance(result.op, ops.Select):
        found = _emptied(result, inside)
        if found is None:
            return None
        empty, weights = found
        steps = {result} if empty.condition else {result, result.inputs[0]}
        result = weights
    scored = _softmax(result, steps)
    views = (ops.Reshape, ops.Broadcast)
    whole = all(node in steps or isinstance(node.op, views) for node in inside)
    return Softmax(scored, empty) if scored and whole and steps <= inside else None


def _emptied(result: Node, inside: set[Node]) -> tuple[Empty, Node] | None:
    """Which rows a choice between weights and zero leaves empty, and the weights."""
    condition, yes, no = result.inputs
    for weights, other, sense in ((no, yes, True), (yes, no, False)):
        if weights not in inside or scalar_value(other) != 0:
            continue
        tests = isinstance(condition.op, ops.Unary) and condition.op.fn == "isnan"
        if tests and condition.inputs[0] is weights and sense:
            return Empty(None, sense), weights
        if condition not in inside and _repeats(condition):
            return Empty(condition, sense), weights
    return None


def _repeats(node: Node) -> bool:
    """Whether ``node`` is the same all along its last axis."""
    if not isinstance(node.op, ops.Broadcast) or node.shape[-1] == 1:
        return node.shape[-1] == 1
    return node.inputs[0].shape[-1] == 1


def _softmax(result: Node, steps: set[Node]) -> Node | None:
    """What ``result`` is the softmax of; the nodes on the way join ``steps``."""
    if not isinstance(result.op, ops.Binary) or result.op.fn not in ("div", "mul"):
        return None
    powers, below = result.inputs
    divisor = _bare(below)
    steps |= {result, powers}
    if result.op.fn == "mul":
        if not (isinstance(divisor.op, ops.Unary) and divisor.op.fn == "reciprocal"):
            return None
        steps.add(divisor)
        divisor = _bare(divisor.inputs[0])
    if not isinstance(powers.op, ops.Unary) or powers.op.fn != "exp":
        return None
    shifted = powers.inputs[0]
    if not isinstance(shifted.op, ops.Binary) or shifted.op.fn != "sub":
        return None
    scored, largest = shifted.inputs[0], _bare(shifted.inputs[1])
    last = (len(result.shape) - 1,)
    for node, fn, source in ((largest, "max", scored), (divisor, "sum", powers)):
        if not isinstance(node.op, ops.Reduce) or (node.op.fn, node.op.axes) != (fn, last):
            return None
        if node.inputs[0] is not source:
            return None
    steps |= {shifted, largest, divisor}
    return scored


def _bare(node: Node) -> Node:
    """What ``node`` repeats along the rows."""
    while isinstance(node.op, (ops.Reshape, ops.Broadcast)):
        node = node.inputs[0]
    return node
