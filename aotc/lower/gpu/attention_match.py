"""Attention in a graph: the group of a softmax goes in, the groups that one kernel can take the
place of come out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from aotc.fuse.groups import VIEW_OPS, Group, GroupKind, Groups
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop.launch import MAX_GRID
from aotc.loop.mma import COLUMNS
from aotc.lower.context import Held
from aotc.lower.gpu.attention_heads import Heads, heads_of, without_factor
from aotc.lower.gpu.attention_scores import Scores, scores_of
from aotc.lower.gpu.attention_softmax import Empty, softmax_of
from aotc.schedule.attention import AttentionSizes, AttentionTile, choose_attention
from aotc.target import SHARED_BYTES, Target

#: The widest queries, keys and values; widths are multiples of COLUMNS.
MOST_WIDTH = 256
#: Shared memory that every architecture has for a block.
MOST_BYTES = min(SHARED_BYTES.values())
#: The kind of products of what lies in memory in 16 bits.
_KIND_OF = MappingProxyType({DType.F16: "f16", DType.U16: "bf16"})


@dataclass(frozen=True)
class Operands:
    """``queries`` [*batch, rows, width], ``keys`` [*batch, width, keys], ``values`` [*batch, keys,
    width of values]; with ``heads``, keys and values are better read as that says. ``decoded`` are
    nodes of these that have no kernel, with those whose float16 they show as float32."""

    queries: Node
    keys: Node
    values: Node
    heads: Heads | None
    decoded: Mapping[Node, Node]


@dataclass(frozen=True)
class Attention:
    """``product`` is that of queries with keys, ``scores`` what is computed between it and the
    softmax, of which rows may be ``empty``; ``sums`` is the product of the softmax with the values,
    ``tail`` is pointwise after it. ``groups`` are the groups of all of that, ``tile`` is what a
    block computes."""

    groups: tuple[Group, ...]
    operands: Operands
    product: Node
    scores: Scores
    empty: Empty | None
    sums: Node
    tail: tuple[Node, ...]
    sizes: AttentionSizes
    tile: AttentionTile

    @property
    def result(self) -> Node:
        return self.groups[-1].result

    @property
    def label(self) -> str:
        """The name of its kernel."""
        queries = self.operands.queries.shape
        sizes = (*queries[:-1], self.sizes.keys, self.sizes.width)
        return f"attention_{'x'.join(map(str, sizes))}"


def find_attention(groups: Groups, target: Target, held: Held) -> dict[Group, Attention]:
    """Every attention of the graph that tensor cores can compute, by each of its groups. Products
    are computed in the type in which memory holds queries, keys and values, if that is one of 16
    bits, or else in that of the target."""
    found: dict[Group, Attention] = {}
    if target.precision == "f32":
        return found
    owner = {node: group for group in groups.groups for node in group.nodes}
    users = _users(groups)
    kept = {node for _, node in groups.graph.outputs} | {n for _, n in groups.graph.checks}
    for group in groups.groups:
        if group.kind is not GroupKind.ROWS:
            continue
        attention = _around(group, owner, users, kept, target.precision, held)
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
    precision: str,
    held: Held,
) -> Attention | None:
    """The attention whose softmax is ``rows``, if it is one."""
    softmax = softmax_of(rows)
    if softmax is None or softmax.scores not in owner or rows.others:
        return None
    scored = softmax.scores
    first = owner[scored]
    after = users.get(rows.result, [])
    if len(after) != 1 or rows.result in kept or scored in kept or after[0] not in owner:
        return None
    second = owner[after[0]]
    if any(owner.get(user) is not rows for user in users[scored]):
        return None
    if not all(_is_product(group) for group in (first, second)):
        return None
    if second.anchor is not after[0] or second.anchor.inputs[0] is not rows.result:
        return None
    if scored.type.dtype is not DType.F32 or first.result is not scored:
        return None
    if second.anchor.inputs[1] is rows.result:
        return None
    factors = [without_factor(node, owner, users, kept) for node in first.anchor.inputs]
    scale = factors[0].factor * factors[1].factor
    scores = scores_of(first.anchor, [n for n in first.nodes if n is not first.anchor], scale)
    queries, keys = (factor.node for factor in factors)
    values = second.anchor.inputs[1]
    heads = heads_of(keys, values, may_be_rows=queries.shape[-2] == 1 and scores.causal is None)
    decoded = {node: code for factor in factors for node, code in factor.decoded.items()}
    held = replace(held, decoded={**held.decoded, **decoded})
    stored = {_stored(node, held) for node in (queries, keys, values)}
    kind = _KIND_OF.get(stored.pop(), precision) if len(stored) == 1 else precision
    sizes = _sizes(queries, values, heads, kind)
    tile = choose_attention(sizes) if sizes else None
    if sizes is None or tile is None or sizes.batch * tile.splits > MAX_GRID[1]:
        return None
    before = [group for factor in factors for group in factor.groups]
    tail = tuple(node for node in second.nodes if node is not second.anchor)
    return Attention(
        (*before, first, rows, second),
        Operands(queries, keys, values, heads, decoded),
        first.anchor,
        scores,
        softmax.empty,
        second.anchor,
        tail,
        sizes,
        tile,
    )


def _stored(node: Node, held: Held) -> DType:
    """The type in which the numbers of ``node`` lie in memory."""
    while isinstance(node.op, VIEW_OPS):
        node = node.inputs[0]
    code = held.decoded.get(node)
    return held.stored.get(node, node.type.dtype) if code is None else code.type.dtype


def _is_product(group: Group) -> bool:
    """Whether the group is a product of matrices of float32, with nothing beside its result."""
    types = [node.type.dtype for node in (group.anchor, *group.anchor.inputs)]
    single = all(dtype is DType.F32 for dtype in types)
    is_dot = group.kind is GroupKind.CONTRACT and isinstance(group.anchor.op, ops.Dot)
    return is_dot and single and not group.others


def _sizes(queries: Node, values: Node, heads: Heads | None, kind: str) -> AttentionSizes | None:
    """The sizes as the kernel has them; None of widths that it has no code for."""
    widths = queries.shape[-1], values.shape[-1]
    if any(width % COLUMNS or width > MOST_WIDTH for width in widths):
        return None
    batch, rows = queries.shape[:-2], queries.shape[-2]
    if heads is not None and heads.as_rows:
        batch, rows = heads.batch[:-1], heads.group
    return AttentionSizes(math.prod(batch), rows, values.shape[-2], *widths, kind, MOST_BYTES)
