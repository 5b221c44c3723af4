"""Fusion: a Graph becomes Groups; each group is computed by one kernel and yields one tensor.

Reshape, Transpose, Slice and Broadcast join no group (except inside row groups): the lowering
reads through them as strided views, and through the widening of bytes that only products read,
which multiply bytes. A Widen is in no group: products read its codes. Nor is an Item: it names
a result of a control group. Everything else is in exactly one group, and the groups are in
execution order.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from aotc.graph import ops
from aotc.graph.ir import Constant, Graph, Node, Parameter
from aotc.graph.types import DType

#: Ops that only rename elements of a tensor.
VIEW_OPS = (ops.Reshape, ops.Transpose, ops.Slice, ops.Broadcast, ops.Relabel)
#: Ops that compute each element from the same element of operands of the same shape.
POINTWISE_OPS = ops.ELEMENTWISE
_BYTES = (DType.U8, DType.I8)
#: How many pointwise nodes are tried beyond the last point where the group had a single result.
LOOKAHEAD = 12
#: Functions of a single instruction.
LIGHT = frozenset({"add", "sub", "mul", "max", "min"})
#: A product's slices are combined on registers up to so many rows (with more of them, larger tiles
#: of the product alone are worth more: 16 rows of 4 times 64 gates took 0.86 ms together, 0.70 ms
#: apart), slices, results and nodes.
GATE_ROWS = 4
GATE_SLICES = 5
GATE_RESULTS = 3
GATE_NODES = 64


class GroupKind(enum.Enum):
    """What loop structure the group's kernel has."""

    CONTRACT = "contract"  # Dot or Conv, then pointwise ops on the result
    GATES = "gates"  # Dot by constants, equal Slices of its columns, pointwise ops across these
    DEPTHWISE = "depthwise"  # channels-last Conv with one filter per channel, then pointwise ops
    WINDOW = "window"  # ReduceWindow, then pointwise ops
    REDUCE = "reduce"  # pointwise ops, a Reduce that keeps the innermost axis, pointwise ops
    ROWS = "rows"  # any mix of pointwise ops and Reduces over the same innermost axes
    MAP = "map"  # pointwise ops only
    MOVE = "move"  # one data-movement or index primitive
    CONTROL = "control"  # a Branch or Repeat, whose nested graphs have groups of their own


def _name(node: Node) -> str:
    """The function of a node, or else its primitive."""
    name: str = getattr(node.op, "fn", node.op.mnemonic)
    return name


@dataclass(frozen=True, eq=False)
class Group:
    """``nodes`` in execution order. ``anchor`` is the node that gives the group its kind,
    ``result`` the only node that anything outside the group reads, but for the ``others`` that
    GATES may have."""

    kind: GroupKind
    nodes: tuple[Node, ...]
    anchor: Node
    result: Node
    others: tuple[Node, ...] = ()

    @property
    def results(self) -> tuple[Node, ...]:
        """All nodes that anything outside the group reads."""
        return (*self.others, self.result)

    @property
    def label(self) -> str:
        """A short name that says what the kernel computes, for symbols and profiles."""
        if self.kind is GroupKind.MAP:
            names = [_name(node) for node in self.nodes]
        else:
            others = [node for node in self.nodes if node is not self.anchor]
            names = [self.anchor.op.mnemonic]
            names += [_name(node) for node in others if not isinstance(node.op, VIEW_OPS)]
        shape = "x".join(str(dim) for dim in self.result.shape if dim != 1)
        return "_".join([*names[:4], shape]) if shape else "_".join(names[:4])


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of one graph in execution order; nested graphs are partitioned when they are
    lowered."""

    graph: Graph
    groups: tuple[Group, ...]
    widened: frozenset[Node] = frozenset()
    """Casts of bytes to int32 that are in no group: who reads them reads the bytes."""

    def as_text(self) -> str:
        """One line a group: kind, result and the ops in it."""
        lines = []
        for i, group in enumerate(self.groups):
            inside = " ".join(map(_name, group.nodes))
            lines.append(f"g{i:03d} {group.kind.value:9} {group.result.type}  {inside}")
        return "\n".join(lines) + "\n"


def fuse(graph: Graph) -> Groups:
    """Partitions the nodes of ``graph`` into groups."""
    return _Fuser(graph).run()


def is_depthwise(node: Node) -> bool:
    """Whether a Conv has one input and one output channel per group and lanes can run along
    channels."""
    op = node.op
    if not isinstance(op, ops.Conv) or not op.channels_last or op.groups == 1:
        return False
    return op.groups == node.inputs[1].shape[0] and node.inputs[1].shape[1] == 1


def is_gated(node: Node, users: Sequence[Node]) -> bool:
    """Whether ``node`` is a product of a few rows with constants, and ``users``, who alone read it,
    slice its columns into gates of one width."""
    if not isinstance(node.op, ops.Dot) or node.type.rank != 2:
        return False
    if node.type.dtype not in (DType.F32, DType.F64):
        return False
    rows, columns = node.shape
    if node.inputs[1].data is None or not 0 < rows <= GATE_ROWS or 0 in node.inputs[0].shape:
        return False
    starts = set()
    width = users[0].shape[-1] if users and users[0].shape else 0
    for user in users:
        if not isinstance(user.op, ops.Slice) or user.shape != (rows, width):
            return False
        if user.op.steps != (1, 1):
            return False
        starts.add(user.op.starts[1])
    return 1 < len(starts) <= GATE_SLICES and starts == set(range(0, columns, width))


def widened_bytes(graph: Graph) -> frozenset[Node]:
    """The casts of bytes to int32 whose only readers, looking through views, are matrix products,
    sums, and convolutions of them with constants."""
    users = graph.users()
    kept = {node for _, node in (*graph.outputs, *graph.checks)}
    found: dict[Node, bool] = {}

    def reads_bytes(user: Node, operand: Node) -> bool:
        match user.op:
            case ops.Dot():
                return True
            case ops.Reduce(fn="sum"):
                return not _reduces_nothing(user)
            case ops.Conv():
                return user.inputs[0] is operand and user.inputs[1].data is not None
        return isinstance(user.op, VIEW_OPS) and found.get(user, False)

    for node in reversed(list(graph.nodes())):
        is_cast = node.op == ops.Cast(DType.I32) and node.inputs[0].type.dtype in _BYTES
        if node.type.dtype is DType.I32 and (is_cast or isinstance(node.op, VIEW_OPS)):
            only = all(reads_bytes(user, node) for user in users[node])
            found[node] = only and node not in kept
    return frozenset(n for n, only in found.items() if only and isinstance(n.op, ops.Cast))


class _Fuser:
    """The state of one partition: which group each node went to so far."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.order = {node: i for i, node in enumerate(graph.nodes())}
        self.users = graph.users()
        self.output_nodes = {node for _, node in (*graph.outputs, *graph.checks)}
        self.widened = widened_bytes(graph)
        self.taken: set[Node] = set(self.widened)
        self.groups: list[Group] = []

    def run(self) -> Groups:
        for node in self.order:
            kind = _anchor_kind(node)
            if kind is not None and node not in self.taken:
                self._anchored(kind, node)
        for node in reversed(self.order):
            if isinstance(node.op, POINTWISE_OPS) and node not in self.taken:
                self._close(GroupKind.MAP, self._absorb_producers({node}, node.shape), node, node)
        self.groups.sort(key=lambda group: self.order[group.result])
        return Groups(self.graph, tuple(_toposorted(self.groups, self.order)), self.widened)

    def _anchored(self, kind: GroupKind, anchor: Node) -> None:
        if kind in (GroupKind.MOVE, GroupKind.CONTROL) or _reduces_nothing(anchor):
            self._close(kind, {anchor}, anchor, anchor)
            return
        if is_gated(anchor, self.users[anchor]) and self._gates(anchor):
            return
        members = {anchor}
        if kind is GroupKind.ROWS:
            members = self._absorb_producers(members, anchor.inputs[0].shape)
            fits = _row_rule(anchor)
        else:
            if kind is GroupKind.REDUCE:
                members = self._absorb_producers(members, anchor.inputs[0].shape)
            fits = _pointwise_rule(anchor.shape)
        members, result = self._absorb_users(members, anchor, fits)
        if kind is GroupKind.ROWS:
            members = self._absorb_producers(members, anchor.inputs[0].shape)
        elif kind is not GroupKind.REDUCE:
            members |= self._light_operands(members, anchor)
        self._close(kind, members, anchor, result)

    def _gates(self, anchor: Node) -> bool:
        """Makes a group of a product, its slices and what combines these, if anything does."""
        gates = set(self.users[anchor])
        shape = next(iter(gates)).shape
        fits = _pointwise_rule(shape)
        members = {anchor, *gates}
        best: tuple[set[Node], list[Node]] | None = None
        while len(members) < GATE_NODES:
            live = self._live_out(members)
            if not live & {anchor, *gates} and (best is None or len(live) <= len(best[1])):
                best = set(members), sorted(live, key=self.order.__getitem__)
            ready = self._ready(members, anchor, fits)
            if not ready:
                break
            members.add(min(ready, key=self.order.__getitem__))
        if best is None or len(best[1]) > GATE_RESULTS:
            return False
        members, results = best
        self._close(GroupKind.GATES, members, anchor, results[-1], tuple(results[:-1]))
        return True

    def _ready(
        self, members: set[Node], anchor: Node, fits: Callable[[Node], bool]
    ) -> list[Node]:
        """Users of the group that fit and whose other operands exist before it."""
        candidates = {
            user
            for node in members
            for user in self.users[node]
            if user not in members and user not in self.taken and fits(user)
        }
        return [node for node in candidates if self._independent(node, members, anchor)]

    def _close(
        self,
        kind: GroupKind,
        members: set[Node],
        anchor: Node,
        result: Node,
        others: tuple[Node, ...] = (),
    ) -> None:
        self.taken |= members
        nodes = tuple(sorted(members, key=self.order.__getitem__))
        self.groups.append(Group(kind, nodes, anchor, result, others))

    def _absorb_producers(self, members: set[Node], shape: tuple[int, ...]) -> set[Node]:
        """Adds pointwise operands of ``shape`` that only the group reads."""
        members = set(members)
        work = [operand for node in members for operand in node.inputs]
        while work:
            node = work.pop()
            if (
                isinstance(node.op, POINTWISE_OPS)
                and node not in members
                and node not in self.taken
                and node not in self.output_nodes
                and node.shape == shape
                and all(user in members for user in self.users[node])
            ):
                members.add(node)
                work.extend(node.inputs)
        return members

    def _light_operands(self, members: set[Node], anchor: Node) -> set[Node]:
        """Casts and sums of other tensors that only the epilogue reads: what makes numbers of codes
        is cheaper than storing the numbers. What makes codes of numbers stays with the numbers."""
        found: set[Node] = set()
        work = [x for node in members if node is not anchor for x in node.inputs]
        while work:
            node = work.pop()
            light = isinstance(node.op, POINTWISE_OPS) and not _narrows(node)
            light &= isinstance(node.op, ops.Cast) or getattr(node.op, "fn", "") in LIGHT
            if (
                light
                and node.shape == anchor.shape
                and len(found) < LOOKAHEAD
                and node not in members | found | self.taken | self.output_nodes
                and all(user in members | found for user in self.users[node])
                and anchor not in self.users[node]
            ):
                found.add(node)
                work.extend(node.inputs)
        return found

    def _absorb_users(
        self, members: set[Node], anchor: Node, fits: Callable[[Node], bool]
    ) -> tuple[set[Node], Node]:
        """Adds users of the group for which ``fits`` holds, as long as it ends in a single
        result."""
        members = set(members)
        best, result = set(members), anchor
        while len(members) < len(best) + LOOKAHEAD:
            if self._live_out(members) & self.output_nodes:
                break
            ready = self._ready(members, anchor, fits)
            if not ready:
                break
            members.add(min(ready, key=self.order.__getitem__))
            live = self._live_out(members)
            last = next(iter(live))
            # a stretched value is read through a view, never stored
            if len(live) == 1 and not isinstance(last.op, ops.Broadcast):
                best, result = set(members), last
        return best, result

    def _live_out(self, members: set[Node]) -> set[Node]:
        return {
            node
            for node in members
            if node in self.output_nodes or any(user not in members for user in self.users[node])
        }

    def _independent(self, node: Node, members: set[Node], anchor: Node) -> bool:
        """Whether the operands of ``node`` outside the group can be computed before the group."""
        first = min(self.order[member] for member in members)
        seen: set[Node] = set()
        work = [operand for operand in node.inputs if operand not in members]
        while work:
            at = work.pop()
            if at in members:
                return False
            if at not in seen and self.order[at] > first:
                seen.add(at)
                work.extend(at.inputs)
        return True


def _anchor_kind(node: Node) -> GroupKind | None:
    match node.op:
        case Parameter() | Constant() | ops.Item() | ops.Widen():
            return None
        case ops.Branch() | ops.Repeat():
            return GroupKind.CONTROL
        case ops.Dot():
            return GroupKind.CONTRACT
        case ops.Conv():
            return GroupKind.DEPTHWISE if is_depthwise(node) else GroupKind.CONTRACT
        case ops.ReduceWindow():
            return GroupKind.WINDOW
        case ops.Reduce(axes=axes):
            rank = node.inputs[0].type.rank
            trailing = axes == tuple(range(rank - len(axes), rank))
            return GroupKind.ROWS if trailing else GroupKind.REDUCE
    if isinstance(node.op, (*VIEW_OPS, *POINTWISE_OPS)):
        return None
    return GroupKind.MOVE


def _narrows(node: Node) -> bool:
    """Whether ``node`` is a cast to a smaller type."""
    is_cast = isinstance(node.op, ops.Cast)
    return is_cast and node.type.dtype.size_bytes < node.inputs[0].type.dtype.size_bytes


def _reduces_nothing(node: Node) -> bool:
    """Whether a Reduce has one element to a result: rows then look like results, so nothing can
    join."""
    return isinstance(node.op, ops.Reduce) and node.inputs[0].type.elems == node.type.elems


def _pointwise_rule(shape: tuple[int, ...]) -> Callable[[Node], bool]:
    """Accepts pointwise ops on tensors of ``shape``."""
    return lambda node: isinstance(node.op, POINTWISE_OPS) and node.shape == shape


def _row_rule(anchor: Node) -> Callable[[Node], bool]:
    """Accepts what a row kernel can compute: full rows, one value per row, and the way between
    both."""
    op = anchor.op
    assert isinstance(op, ops.Reduce)
    full = anchor.inputs[0].shape
    kept = anchor.shape
    keepdims = kept + (1,) * len(op.axes)

    def fits(node: Node) -> bool:
        match node.op:
            case ops.Reduce(axes=axes):
                return axes == op.axes and node.inputs[0].shape == full
            case ops.Reshape(shape=shape):
                return {shape, node.inputs[0].shape} == {kept, keepdims}
            case ops.Broadcast(shape=shape):
                return shape == full and node.inputs[0].shape == keepdims
        return isinstance(node.op, POINTWISE_OPS) and node.shape in (full, kept, keepdims)

    return fits


def _toposorted(groups: Iterable[Group], order: dict[Node, int]) -> list[Group]:
    """Groups so that each comes after the groups whose results it reads, views looked through."""
    groups = list(groups)
    home = {node: group for group in groups for node in group.nodes}
    done: set[int] = set()
    result: list[Group] = []

    def needed(group: Group) -> list[Group]:
        found: dict[int, Group] = {}
        seen: set[Node] = set()
        work = [operand for node in group.nodes for operand in node.inputs]
        while work:
            node = work.pop()
            if node in seen:
                continue
            seen.add(node)
            producer = home.get(node)
            if producer is None:
                work.extend(node.inputs)
            elif producer is not group:
                found[id(producer)] = producer
        return sorted(found.values(), key=lambda other: order[other.result])

    for root in groups:
        stack = [(root, False)]
        while stack:
            group, ready = stack.pop()
            if ready:
                if id(group) not in done:
                    done.add(id(group))
                    result.append(group)
            elif id(group) not in done:
                stack.append((group, True))
                stack.extend((other, False) for other in reversed(needed(group)))
    return result
