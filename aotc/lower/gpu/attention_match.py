"""Attention in a graph: the group of a softmax goes in, the groups that one kernel can take the
place of come out."""

from __future__ import annotations

import math
from dataclasses import dataclass

from aotc.fuse.groups import Group, GroupKind, Groups
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop.launch import MAX_GRID
from aotc.loop.mma import COLUMNS
from aotc.lower.gpu.attention_scores import Scores, scores_of
from aotc.schedule.attention import AttentionSizes, AttentionTile, choose_attention
from aotc.target import SHARED_BYTES, Target

#: The widest queries, keys and values; widths are multiples of COLUMNS.
MOST_WIDTH = 256
#: Shared memory that every architecture has for a block.
MOST_BYTES = min(SHARED_BYTES.values())


@dataclass(frozen=True)
class Attention:
    """``product`` is that of ``queries`` [*batch, rows, width] with ``keys`` [*batch, width,
    keys], ``scores`` what is computed between it and the softmax, ``sums`` the product of the
    softmax with ``values`` [*batch, keys, width of values], ``tail`` is pointwise after it.
    ``groups`` are the three groups, ``tile`` is what a block computes."""

    groups: tuple[Group, Group, Group]
    queries: Node
    keys: Node
    product: Node
    scores: Scores
    values: Node
    sums: Node
    tail: tuple[Node, ...]
    sizes: AttentionSizes
    tile: AttentionTile

    @property
    def result(self) -> Node:
        return self.groups[2].result

    @property
    def label(self) -> str:
        """The name of its kernel."""
        rows, width = self.queries.shape[-2:]
        sizes = (*self.queries.shape[:-2], rows, self.values.shape[-2], width)
        return f"attention_{'x'.join(map(str, sizes))}"


def find_attention(groups: Groups, target: Target) -> dict[Group, Attention]:
    """Every attention of the graph that tensor cores can compute, by each of its groups."""
    found: dict[Group, Attention] = {}
    if target.precision == "f32":
        return found
    owner = {node: group for group in groups.groups for node in group.nodes}
    users = _users(groups)
    kept = {node for _, node in groups.graph.outputs} | {n for _, n in groups.graph.checks}
    for group in groups.groups:
        if group.kind is not GroupKind.ROWS:
            continue
        attention = _around(group, owner, users, kept, target.precision)
        if attention is not None and not any(part in found for part in attention.groups):
            found |= dict.fromkeys(attention.groups, attention)
    return found


def _users(groups: Groups) -> dict[Node, list[Node]]:
    users: dict[Node, list[Node]] = {}
    for node in groups.graph.nodes():
        for operand in node.inputs:
            users.setdefault(operand, []).append(node)
    return users


def _around(
    rows: Group,
    owner: dict[Node, Group],
    users: dict[Node, list[Node]],
    kept: set[Node],
    kind: str,
) -> Attention | None:
    """The attention whose softmax is ``rows``, if it is one."""
    scored = _softmax_of(rows)
    if scored is None or scored not in owner or rows.others:
        return None
    first = owner[scored]
    after = users.get(rows.result, [])
    if len(after) != 1 or rows.result in kept or scored in kept or after[0] not in owner:
        return None
    second = owner[after[0]]
    if any(owner.get(user) is not rows for user in users[scored]):
        return None
    products = (first, second)
    if any(
        group.kind is not GroupKind.CONTRACT
        or not isinstance(group.anchor.op, ops.Dot)
        or group.others
        or any(node.type.dtype is not DType.F32 for node in (group.anchor, *group.anchor.inputs))
        for group in products
    ):
        return None
    if second.anchor is not after[0] or second.anchor.inputs[0] is not rows.result:
        return None
    if scored.type.dtype is not DType.F32:
        return None
    if first.result is not scored or second.anchor.inputs[1] is rows.result:
        return None
    queries, keys = first.anchor.inputs
    values = second.anchor.inputs[1]
    widths = queries.shape[-1], values.shape[-1]
    if any(width % COLUMNS or width > MOST_WIDTH for width in widths):
        return None
    (rows_of, _), count = queries.shape[-2:], values.shape[-2]
    batch = math.prod(queries.shape[:-2])
    sizes = AttentionSizes(batch, rows_of, count, *widths, kind, MOST_BYTES)
    tile = choose_attention(sizes)
    if tile is None or batch * tile.splits > MAX_GRID[1]:
        return None
    between = tuple(node for node in first.nodes if node is not first.anchor)
    return Attention(
        (first, rows, second),
        queries,
        keys,
        first.anchor,
        scores_of(first.anchor, between),
        values,
        second.anchor,
        tuple(node for node in second.nodes if node is not second.anchor),
        sizes,
        tile,
    )


def _softmax_of(group: Group) -> Node | None:
    """The node of which ``group`` is the softmax along the last axis."""
    result = group.result
    inside = set(group.nodes)
    if not isinstance(result.op, ops.Binary) or result.op.fn not in ("div", "mul"):
        return None
    powers, below = result.inputs
    divisor = _bare(below)
    steps = {result, powers}
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
    views = (ops.Reshape, ops.Broadcast)
    whole = all(node in steps or isinstance(node.op, views) for node in inside)
    return scored if whole and steps <= inside else None


def _bare(node: Node) -> Node:
    """What ``node`` repeats along the rows."""
    while isinstance(node.op, (ops.Reshape, ops.Broadcast)):
        node = node.inputs[0]
    return node
