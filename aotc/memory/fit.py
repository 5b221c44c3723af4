"""A graph and a limit of memory in; the graph whose arena keeps within it out, and what that costs.

The plain graph if it fits. Otherwise a part of it is computed by stripes (passes/stripes.py): of
all ends of that part and numbers of stripes, the one that takes the least additional work. Which
may fit is estimated from the groups; whether one does, its plan must say.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

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
#: How many candidates are lowered and planned: the cheapest that should fit, then the smallest; and
#: a few that are cheaper and fit if results overlap operands.
_TRIALS = 24
_LAST_TRIALS = 3
_GUESSES = 4
#: Estimates leave out alignment and scratch memory.
_SLACK = 1.02
#: Nor do they know of better orders, so a limit is given up only if they miss it by as much.
_HOPELESS = 1.25
#: What takes no room in the arena.
_GIVEN = (Parameter, Constant, ops.Widen)


@dataclass(frozen=True)
class Fit:
    """How a graph was made to fit: ``plain_bytes`` of arena without stripes and ``arena_bytes``
    with them. ``parts`` are the numbers of stripes and the ends of what is computed by them, in
    order; ``extra_work`` is the share of multiply-adds that are computed again."""

    plain_bytes: int
    arena_bytes: int
    parts: tuple[tuple[int, str], ...] = ()
    extra_work: float = 0.0

    @property
    def rank(self) -> tuple[int, float]:
        """Less is better."""
        return self.arena_bytes, self.extra_work

    def __str__(self) -> str:
        if not self.parts:
            return "fits without stripes"
        stripes = ", then ".join(f"{count} stripes up to {end}" for count, end in self.parts)
        return (
            f"{stripes}: {self.arena_bytes} bytes instead of {self.plain_bytes}, "
            f"{self.extra_work:.1%} more multiply-adds"
        )


@dataclass(frozen=True, eq=False)
class _Candidate:
    """``inside`` and ``outside`` estimate the bytes alive at once while the stripes are computed,
    and before and after that; ``overlapped`` at any time if results overlap operands wherever they
    might."""

    region: Region
    stripes: list[range]
    extra_work: float
    inside: float
    outside: float
    overlapped: float

    @property
    def estimate(self) -> float:
        return max(self.inside, self.outside)

    def misses(self, limit_bytes: int) -> tuple[float, float, float]:
        """Less for a part that itself keeps within the limit and leaves less to do for another."""
        return max(self.inside, limit_bytes), max(self.outside, limit_bytes), self.extra_work

    @property
    def title(self) -> tuple[int, str]:
        """The number of stripes, and the name and shape of the end."""
        last = self.region.result
        name = f"'{last.origin}' " if last.origin else ""
        return len(self.stripes), f"{name}{list(last.shape)}"


def fit(graph: Graph, target: Target, limit_bytes: int) -> tuple[Graph, Fit]:
    """``graph``, parts of it computed by stripes if its arena is above ``limit_bytes`` otherwise.

    A second part follows where the best of the first is not enough. The outputs are the same bytes.
    UsageError says by how much the best that was found misses.
    """
    plain_bytes = _arena_bytes(graph, target)
    fitted = Fit(plain_bytes, plain_bytes)
    if plain_bytes > limit_bytes:
        hopeless = least_possible(graph, target) > limit_bytes * _HOPELESS
        search = _Search(target, limit_bytes, sum(map(multiply_adds, graph.nodes())), hopeless)
        joined = None
        for parts in range(2):
            if fitted.arena_bytes > limit_bytes and len(fitted.parts) == parts:
                graph, joined, fitted = _one_part(graph, joined, search, fitted)
    if fitted.arena_bytes > limit_bytes:
        raise _too_small(limit_bytes, fitted, target)
    return graph, fitted


def _arena_bytes(graph: Graph, target: Target) -> int:
    program = lower(fuse(graph), target, graph.name)  # recipes take no memory
    return plan_in_order(program)[1].arena_bytes


@dataclass(frozen=True)
class _Search:
    """What is searched for. ``work`` are the multiply-adds of the plain graph; a search that is
    ``hopeless`` is for the message, which tells the least that was found."""

    target: Target
    limit_bytes: int
    work: int
    hopeless: bool

    def trials(self, found: Sequence[_Candidate]) -> list[_Candidate]:
        """The candidates to be lowered, each once."""
        smallest = sorted(found, key=lambda one: one.estimate)
        if self.hopeless:
            return smallest[:1]
        limit = self.limit_bytes * _SLACK
        fitting = [one for one in found if one.estimate <= limit]
        hopeful = [one for one in found if one.overlapped <= limit < one.estimate]
        if fitting:  # what would be cheaper, if only it fitted
            hopeful = [one for one in hopeful if one.extra_work < fitting[0].extra_work]
            hopeful = hopeful[:: -(-len(hopeful) // _GUESSES) or 1]
        nearest = sorted(found, key=lambda one: one.misses(self.limit_bytes))
        last = [*nearest[:_LAST_TRIALS], *smallest[:_LAST_TRIALS]]
        return list(dict.fromkeys([*hopeful[:_TRIALS], *fitting[:_TRIALS], *last]))


def least_possible(graph: Graph, target: Target) -> float:
    """About how many bytes are alive at once at least, whichever two parts of ``graph`` are
    computed by however many stripes: as if each part were a stripe of its middle row only."""
    groups = fuse(graph)
    footprint = _Footprint(groups)
    plain = np.array(footprint.loads(None, {})[1])
    choices = [(np.zeros(len(plain), bool), plain)]
    for region in _regions(groups, lambda node: convolution_tile(node, target) > 0):
        middle = region.rows // 2
        rows = {node: len(part) for node, part in region.ranges(range(middle, middle + 1)).items()}
        inside = footprint.positions(region)
        mask = np.zeros(len(plain), bool)
        mask[inside[0] : inside[-1] + 1] = True
        choices.append((mask, np.array(footprint.loads(region, rows)[1])))
    best = float(plain.max())
    for mask, loads in choices:
        first = np.where(mask, loads, plain)
        for other, its in choices:
            best = min(best, float(np.where(other & ~mask, its, first).max()))
    return best


def _one_part(
    graph: Graph, joined: Node | None, search: _Search, before: Fit
) -> tuple[Graph, Node | None, Fit]:
    """``graph`` with one more part computed by stripes: the cheapest that fits, or the smallest;
    the node that joins them, and the fit so far. ``joined`` is that of a part before."""
    target, limit_bytes = search.target, search.limit_bytes
    best = graph, joined, before
    for candidate in search.trials(_candidates(graph, joined, target, search.work)):
        striped, join = compute_by_stripes(graph, candidate.region, candidate.stripes)
        if _transformed(striped, target) > _transformed(graph, target):
            continue  # by another algorithm the bytes would change
        made = Fit(
            before.plain_bytes,
            _arena_bytes(striped, target),
            (*before.parts, candidate.title),
            before.extra_work + candidate.extra_work,
        )
        if made.arena_bytes <= limit_bytes:
            return striped, join, made
        if made.rank < best[2].rank:
            best = striped, join, made
    return best


def _too_small(limit_bytes: int, best: Fit, target: Target) -> UsageError:
    how = str(best) if best.parts else "no part of the model needs less by stripes"
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


def _candidates(
    graph: Graph, joined: Node | None, target: Target, work: int
) -> list[_Candidate]:
    """What can be computed by stripes behind ``joined``, and by how many: least additional work
    first, as a share of ``work``."""
    groups = fuse(graph)
    footprint = _Footprint(groups)
    done = _leading_to(joined)

    def is_fixed(node: Node) -> bool:
        return node in done or convolution_tile(node, target) > 0

    found = []
    for region in _regions(groups, is_fixed):
        plain = region.work([region.ranges(range(region.rows))])
        for count in _counts(region.rows):
            stripes = split_rows(region.rows, count)
            ranges = [region.ranges(rows) for rows in stripes]
            extra_work = (region.work(ranges) - plain) / max(work, 1)
            if extra_work > _MOST_WORK:
                break
            if not all(len(rows) for each in ranges for rows in each.values()):
                continue  # a stripe of nothing but padding
            highest = {node: max(len(each[node]) for each in ranges) for node in region.cuts}
            found.append(
                _Candidate(region, stripes, extra_work, *footprint.peaks(region, highest))
            )
    return sorted(found, key=lambda one: (one.extra_work, len(one.stripes)))


def _leading_to(joined: Node | None) -> set[Node]:
    """A node and all that it is computed from."""
    found: set[Node] = set()
    work = [] if joined is None else [joined]
    while work:
        node = work.pop()
        if node not in found:
            found.add(node)
            work.extend(node.inputs)
    return found


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
            if result.shape[axis] > 1 and not is_fixed(result):
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
                    if not isinstance(operand.op, (*_GIVEN, *VIEW_OPS)):
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
                return None if isinstance(node.op, _GIVEN) else node
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

    def positions(self, region: Region) -> list[int]:
        """The groups that are computed by stripes, by number."""
        return [
            position for position, group in enumerate(self._groups) if group.result in region.cuts
        ]

    def peaks(self, region: Region, rows: dict[Node, int]) -> tuple[float, float, float]:
        """Bytes alive at once at most, with ``rows`` at a time of each node of ``region``: while it
        is computed, and before and after that; and at any time if results overlap operands."""
        inside = self.positions(region)
        first, last = inside[0], inside[-1]
        loads, overlapped = self.loads(region, rows)
        inside_most, outside_most = loads[first : last + 1], (*loads[:first], *loads[last + 1 :])
        return max(inside_most), max(outside_most), max(overlapped)

    def loads(
        self, region: Region | None, rows: Mapping[Node, int]
    ) -> tuple[list[float], list[float]]:
        """Bytes alive at each group and at the end, with ``rows`` at a time of each node of
        ``region``, if there is one; and the same if what a group makes overlaps what it is the last
        to use, as far as their sizes allow (memory/overlap.py)."""
        inside = [] if region is None else self.positions(region)
        first, last = (inside[0], inside[-1]) if inside else (0, -1)
        cuts = {} if region is None else region.cuts
        result = None if region is None else region.result
        shared = {root for position in inside for root in self._touched[position]}
        whole = [0.0] * (len(self._groups) + 1)
        made, used, saved = whole.copy(), whole.copy(), whole.copy()
        for root, (born, dies) in self._spans.items():
            size = float(root.type.size_bytes)
            if root in cuts and root is not result:
                size *= rows[root] / root.shape[cuts[root][0]]
            elif root in shared:
                born, dies = min(born, first), max(dies, last)
            for position in range(born, dies + 1):
                whole[position] += size
            if born < dies:
                made[born] += size
                used[dies] += size
            if root in self._in_place:
                position = self._in_place.index(root)
                saved[position] += size if position == dies else 0
        overlapped = [a - min(b, c) for a, b, c in zip(whole, made, used, strict=True)]
        return [a - b for a, b in zip(whole, saved, strict=True)], overlapped


def _computed(node: Node) -> Node:
    """The node that has the elements of an output, other types and shapes looked through."""
    while isinstance(node.op, (ops.Relabel, ops.Reshape)):
        node = node.inputs[0]
    return node
