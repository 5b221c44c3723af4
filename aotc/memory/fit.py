"""A graph and a limit of memory in; the graph whose arena keeps within it out, and what that costs.

The plain graph if it fits. Otherwise part of it is computed by stripes (passes/stripes.py): of all
ends of that part and numbers of stripes, the one that takes the least additional work. Which may
fit is estimated from the groups; whether one does, its plan must say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from aotc.errors import UsageError
from aotc.fuse.groups import VIEW_OPS, Group, GroupKind, Groups, fuse
from aotc.graph import ops
from aotc.graph.ir import Constant, Graph, Node, Parameter
from aotc.lower.program import lower
from aotc.lower.winograd import convolution_tile
from aotc.memory.order import plan_in_order
from aotc.passes.stripes import Region, compute_by_stripes, find_region, multiply_adds, split_rows
from aotc.target import Target

#: More stripes, or more additional work than this share, are not tried.
_MOST_STRIPES = 64
_MOST_WORK = 2.0
#: How many candidates are lowered and planned: the cheapest that should fit, then the smallest.
_TRIALS = 24
_LAST_TRIALS = 3
#: Estimates leave out alignment and scratch memory.
_SLACK = 1.02


@dataclass(frozen=True)
class Fit:
    """How a graph was made to fit: ``plain_bytes`` of arena without stripes and ``arena_bytes``
    with them. ``stripes`` is 0 if it fits anyway; ``last`` names the end of what is computed by
    stripes, ``extra_work`` is the share of multiply-adds that are computed again."""

    plain_bytes: int
    arena_bytes: int
    stripes: int = 0
    last: str = ""
    extra_work: float = 0.0

    def __str__(self) -> str:
        if not self.stripes:
            return "fits without stripes"
        return (
            f"{self.stripes} stripes up to {self.last}: {self.arena_bytes} bytes instead of "
            f"{self.plain_bytes}, {self.extra_work:.1%} more multiply-adds"
        )


@dataclass(frozen=True, eq=False)
class _Candidate:
    region: Region
    stripes: list[range]
    extra_work: float
    estimate: float


def fit(graph: Graph, target: Target, limit_bytes: int) -> tuple[Graph, Fit]:
    """``graph``, part of it computed by stripes if its arena is above ``limit_bytes`` otherwise.

    The outputs are the same bytes. UsageError says by how much the best that was found misses.
    """

    def arena_of(striped: Graph) -> int:
        program = lower(fuse(striped), target, striped.name)  # recipes take no memory
        return plan_in_order(program)[1].arena_bytes

    plain_bytes = arena_of(graph)
    if plain_bytes <= limit_bytes:
        return graph, Fit(plain_bytes, plain_bytes)
    found = _candidates(graph, target)
    likely = [one for one in found if one.estimate <= limit_bytes * _SLACK][:_TRIALS]
    best = Fit(plain_bytes, plain_bytes)
    smallest = sorted(found, key=lambda one: one.estimate)[:_LAST_TRIALS]
    for candidate in [*likely, *(one for one in smallest if one not in likely)]:
        striped = compute_by_stripes(graph, candidate.region, candidate.stripes)
        if _transformed(striped, target) > _transformed(graph, target):
            continue  # by another algorithm the bytes would change
        last = candidate.region.result
        made = Fit(
            plain_bytes,
            arena_of(striped),
            len(candidate.stripes),
            f"'{last.origin}' {list(last.shape)}" if last.origin else f"{list(last.shape)}",
            candidate.extra_work,
        )
        if made.arena_bytes <= limit_bytes:
            return striped, made
        best = min(best, made, key=lambda one: one.arena_bytes)
    raise _too_small(limit_bytes, best, target)


def _too_small(limit_bytes: int, best: Fit, target: Target) -> UsageError:
    how = str(best) if best.stripes else "nothing of the model can be computed by stripes"
    remedy = f"allow --ram {best.arena_bytes}, or make the input smaller"
    if not target.compact:
        remedy += ", or try --opt size, which needs no scratch memory for convolutions"
    return UsageError(
        f"the workspace needs {best.arena_bytes} bytes at least, {best.arena_bytes - limit_bytes} "
        f"more than the {limit_bytes} of --ram; best found: {how}",
        remedy=remedy,
    )


def _transformed(graph: Graph, target: Target) -> int:
    """How many convolutions go by Winograd's algorithm, which computes tiles of rows."""
    return sum(convolution_tile(node, target) > 0 for node in graph.nodes())


def _candidates(graph: Graph, target: Target) -> list[_Candidate]:
    """What can be computed by stripes, and by how many: least additional work first."""
    groups = fuse(graph)
    footprint = _Footprint(groups)
    total = sum(map(multiply_adds, graph.nodes()))
    found = []
    for region in _regions(groups, lambda node: convolution_tile(node, target) > 0):
        plain = region.work([region.ranges(range(region.rows))])
        for count in _counts(region.rows):
            stripes = split_rows(region.rows, count)
            ranges = [region.ranges(rows) for rows in stripes]
            extra_work = (region.work(ranges) - plain) / max(total, 1)
            if extra_work > _MOST_WORK:
                break
            if not all(len(rows) for each in ranges for rows in each.values()):
                continue  # a stripe of nothing but padding
            highest = {node: max(len(each[node]) for each in ranges) for node in region.cuts}
            estimate = footprint.peak(region, highest)
            found.append(_Candidate(region, stripes, extra_work, estimate))
    return sorted(found, key=lambda one: (one.extra_work, len(one.stripes)))


def _counts(rows: int) -> list[int]:
    """Numbers of stripes, without those that leave the highest stripe as high as fewer would."""
    return [
        count
        for count in range(2, min(rows, _MOST_STRIPES) + 1)
        if -(-rows // count) < -(-rows // (count - 1))
    ]


def _regions(groups: Groups, is_fixed: Callable[[Node], bool]) -> Iterator[Region]:
    """The parts that end in the result of some group and hold a convolution or a window."""
    graph = groups.graph
    for group in groups.groups:
        result = group.result
        if group.kind in (GroupKind.MOVE, GroupKind.CONTROL):
            continue
        for axis in range(result.type.rank - 1):
            if result.shape[axis] > 1:
                region = find_region(graph, result, axis, is_fixed)
                if region is not None and any(map(multiply_adds, region.cuts)):
                    yield region


class _Footprint:
    """Estimates the arena of a graph from its groups: which tensors they store, where operands of
    Pad and Concat lie in the result, and from which group to which each storage is alive."""

    def __init__(self, groups: Groups) -> None:
        self._graph = groups.graph
        self._groups = groups.groups
        self._homes: dict[Node, Node] = {}
        self._elsewhere = {_computed(node) for _, node in self._graph.outputs}
        for node in reversed(list(self._graph.nodes())):
            if isinstance(node.op, (ops.Pad, ops.Concat)):
                for operand in node.inputs:
                    if not isinstance(operand.op, (Parameter, Constant, *VIEW_OPS)):
                        self._homes.setdefault(operand, node)
        self._touched = [self._touches(group) for group in self._groups]
        self._spans: dict[Node, tuple[int, int]] = {}
        for position, roots in enumerate(self._touched):
            for root in roots:
                first, _ = self._spans.get(root, (position, position))
                self._spans[root] = (first, position)
        self._in_place = [
            self._shared(position, group) for position, group in enumerate(self._groups)
        ]

    def _root(self, node: Node) -> Node | None:
        """The node in whose storage ``node`` lies; None if that is no part of the arena."""
        while node not in self._elsewhere:
            if isinstance(node.op, VIEW_OPS):
                node = node.inputs[0]
            elif node in self._homes:
                node = self._homes[node]
            else:
                return None if isinstance(node.op, (Parameter, Constant)) else node
        return None

    def _touches(self, group: Group) -> list[Node]:
        members = set(group.nodes)
        nodes = [*group.results, *(x for node in group.nodes for x in node.inputs)]
        roots = (self._root(node) for node in nodes if node in group.results or node not in members)
        return list(dict.fromkeys(root for root in roots if root is not None))

    def _shared(self, position: int, group: Group) -> Node | None:
        """The storage that the result of a group takes over from an operand, if any."""
        born = self._root(group.result)
        if born is None or self._spans[born][0] != position:
            return None
        pointwise = [node for node in group.nodes if isinstance(node.op, ops.ELEMENTWISE)]
        for root in (self._root(x) for node in pointwise for x in node.inputs):
            if root is None or root is born or self._spans.get(root, (0, -1))[1] != position:
                continue
            if root.shape == born.shape and root.type.size_bytes == born.type.size_bytes:
                return root
        return None

    def peak(self, region: Region, rows: dict[Node, int]) -> float:
        """Bytes alive at once at most, with ``rows`` at a time of each node of ``region``."""
        inside = [
            position for position, group in enumerate(self._groups) if group.result in region.cuts
        ]
        first, last = inside[0], inside[-1]
        shared = {root for position in inside for root in self._touched[position]}
        loads = [0.0] * (len(self._groups) + 1)
        for root, (born, dies) in self._spans.items():
            size = float(root.type.size_bytes)
            if root in region.cuts and root is not region.result:
                size *= rows[root] / root.shape[region.cuts[root][0]]
            elif root in shared:
                born, dies = min(born, first), max(dies, last)
            for position in range(born, dies + 1):
                loads[position] += size
            if root in self._in_place:
                position = self._in_place.index(root)
                loads[position] -= size if position == dies else 0
        return max(loads)


def _computed(node: Node) -> Node:
    """The node that has the elements of an output, other types and shapes looked through."""
    while isinstance(node.op, (ops.Relabel, ops.Reshape)):
        node = node.inputs[0]
    return node
