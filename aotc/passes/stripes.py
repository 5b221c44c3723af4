"""Stripes: a graph, a part of it and numbers of rows go in; the graph that computes this part so
many rows at a time comes out.

The first layers of a network for images are the widest, and hold most of its memory at its peak.
Computed a stripe at a time, through all of these layers, only the stripe and the last layer are in
memory at once. Neighbouring stripes both compute the rows that the windows of both reach (J. Lin et
al., "MCUNetV2: Memory-Efficient Patch-based Inference for Tiny Deep Learning", 2021). Each element
is computed by the same operations in the same order as without.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node, Op
from aotc.passes.rewrite import reemit


@dataclass(frozen=True)
class Reach:
    """Rows lo to hi (excluded) of a result need rows lo * ``step`` + ``first`` to (hi - 1) *
    ``step`` + ``first`` + ``span`` of the operand along its ``axis``."""

    axis: int
    step: int = 1
    first: int = 0
    span: int = 1

    def rows(self, of: range) -> range:
        """What of the operand the rows ``of`` need; may lie outside it where a Pad reads."""
        return range(
            of.start * self.step + self.first, (of.stop - 1) * self.step + self.first + self.span
        )


Reaches = tuple[Reach | None, ...]
"""One for each operand; None for those that every row reads as a whole."""


def reaches(node: Node, axis: int) -> Reaches | None:
    """What rows of ``node`` along ``axis`` need of its operands; None when it cannot be cut
    there."""
    op = node.op
    if isinstance(op, (*ops.ELEMENTWISE, ops.Relabel)):
        return tuple(Reach(axis) for _ in node.inputs)
    match op:
        case ops.Broadcast(shape=shape):
            same = node.inputs[0].shape[axis] == shape[axis]
            return (Reach(axis) if same else None,)
        case ops.Transpose(perm=perm):
            return (Reach(perm[axis]),)
        case ops.Reshape(shape=shape):
            return _of_reshape(node.inputs[0].shape, shape, axis)
        case ops.Slice(starts=starts, steps=steps):
            return (Reach(axis, steps[axis], starts[axis]),) if steps[axis] > 0 else None
        case ops.Pad(low=low):
            return (Reach(axis, first=-low[axis]),)
        case ops.Concat(axis=joined):
            return None if axis == joined else tuple(Reach(axis) for _ in node.inputs)
        case ops.Conv():
            return _of_conv(op, node.inputs[1].shape[2:], axis)
        case ops.ReduceWindow():
            if op.low[axis] or op.high[axis]:
                return None
            span = (op.window[axis] - 1) * op.dilation[axis] + 1
            return (Reach(axis, op.strides[axis], span=span),)
    return None


def _of_reshape(before: Sequence[int], after: Sequence[int], axis: int) -> Reaches | None:
    """Of a reshape that leaves the axis as it is, with as many elements in front of it."""
    outer = math.prod(after[:axis])
    for old, size in enumerate(before):
        if size == after[axis] and math.prod(before[:old]) == outer:
            return (Reach(old),)
    return None


def _of_conv(op: ops.Conv, window: Sequence[int], axis: int) -> Reaches | None:
    if axis == 0:
        return Reach(0), None
    spatial = axis - (1 if op.channels_last else 2)
    if not 0 <= spatial < len(window) or op.low[spatial] or op.high[spatial]:
        return None
    span = (window[spatial] - 1) * op.dilation[spatial] + 1
    return Reach(axis, op.strides[spatial], span=span), None


@dataclass(frozen=True, eq=False)
class Region:
    """A part of a graph that can be computed by stripes of its ``result``: everything in it leads
    only there. ``cuts`` has its nodes, users first, with the axis of the rows and the reach of
    each."""

    result: Node
    cuts: dict[Node, tuple[int, Reaches]]

    @property
    def rows(self) -> int:
        """The rows of the result."""
        return self.result.shape[self.cuts[self.result][0]]

    def ranges(self, rows: range) -> dict[Node, range]:
        """The rows of each node that some rows of the result need."""
        needed = {self.result: rows}
        for node, (_, reach_of) in self.cuts.items():
            for operand, reach in zip(node.inputs, reach_of, strict=True):
                if reach is None or operand not in self.cuts:
                    continue
                found = _clipped(reach.rows(needed[node]), operand.shape[reach.axis])
                known = needed.get(operand, found)
                needed[operand] = range(
                    min(known.start, found.start), max(known.stop, found.stop)
                )
        return needed

    def work(self, stripes: Sequence[Mapping[Node, range]]) -> int:
        """The multiply-adds of all ``stripes``, each as ``ranges`` gives it."""
        total = 0
        for node, (axis, _) in self.cuts.items():
            rows = sum(len(stripe[node]) for stripe in stripes)
            total += multiply_adds(node) * rows // node.shape[axis]
        return total


def _clipped(rows: range, size: int) -> range:
    start = min(max(rows.start, 0), size)
    return range(start, max(start, min(rows.stop, size)))


def multiply_adds(node: Node) -> int:
    """How many of them a convolution or product takes, a window as many as it has taps; 0 for all
    else."""
    match node.op:
        case ops.Conv():
            return node.type.elems * math.prod(node.inputs[1].shape[1:])
        case ops.Dot():
            return node.type.elems * node.inputs[0].shape[-1]
        case ops.ReduceWindow(window=window):
            return node.type.elems * math.prod(window)
    return 0


def find_region(
    graph: Graph, result: Node, axis: int, is_fixed: Callable[[Node], bool]
) -> Region | None:
    """The largest part of ``graph`` that ends in ``result``, cut along its ``axis``; None when that
    node itself cannot be cut there. ``is_fixed`` tells of nodes that must stay whole."""
    users = graph.users()
    kept = {node for _, node in (*graph.outputs, *graph.checks)}
    nodes = list(graph.nodes())
    asked: dict[Node, set[int | None]] = {result: {axis}}
    cuts: dict[Node, tuple[int, Reaches]] = {}
    for node in reversed(nodes[: nodes.index(result) + 1]):
        leaves = node in kept or any(user not in cuts for user in users[node])
        if node not in asked or (node is not result and leaves) or is_fixed(node):
            continue
        wanted, *others = asked[node]
        found = None if wanted is None or others else reaches(node, wanted)
        if wanted is None or found is None or not node.inputs:
            continue
        cuts[node] = (wanted, found)
        for operand, reach in zip(node.inputs, found, strict=True):
            asked.setdefault(operand, set()).add(None if reach is None else reach.axis)
    return Region(result, cuts) if result in cuts else None


def split_rows(rows: int, count: int) -> list[range]:
    """``rows`` in ``count`` stripes as even as can be, the higher ones at both ends, where there is
    no neighbour to reach."""
    ends = sorted(range(count), key=lambda index: min(index, count - 1 - index))
    high = set(ends[: rows % count])
    stripes, at = [], 0
    for index in range(count):
        size = rows // count + (index in high)
        stripes.append(range(at, at + size))
        at += size
    return stripes


def compute_by_stripes(
    graph: Graph, region: Region, stripes: Sequence[range]
) -> tuple[Graph, Node]:
    """``graph`` with the result of ``region`` joined from its ``stripes``, and the node that joins
    them."""
    axis = region.cuts[region.result][0]
    joined: list[Node] = []

    def emit(builder: Builder, node: Node, new: Mapping[Node, Node]) -> Node | None:
        if node is not region.result:
            return None
        parts = [_Stripe(builder, region, new, rows).part(node, rows) for rows in stripes]
        joined.append(builder.concat(parts, axis, origin=node.origin))
        return joined[0]

    return reemit(graph, emit), joined[0]


class _Stripe:
    """Emits the nodes of one stripe; ``outside`` are the nodes that are computed as a whole."""

    def __init__(
        self, builder: Builder, region: Region, outside: Mapping[Node, Node], rows: range
    ) -> None:
        self.builder = builder
        self.region = region
        self.outside = outside
        self.ranges = region.ranges(rows)
        self.made: dict[Node, Node] = {}
        for node in reversed(region.cuts):
            self.made[node] = self._emit(node)

    def part(self, node: Node, rows: range, axis: int | None = None) -> Node:
        """The ``rows`` of an old node."""
        if node in self.made:
            axis, _ = self.region.cuts[node]
            whole, first, held = self.made[node], self.ranges[node].start, len(self.ranges[node])
        else:
            assert axis is not None
            whole, first, held = self.outside[node], 0, node.shape[axis]
        if len(rows) == held:
            return whole
        starts = [0] * node.type.rank
        counts = list(whole.shape)
        starts[axis], counts[axis] = rows.start - first, len(rows)
        op = ops.Slice(tuple(starts), tuple(counts), (1,) * node.type.rank)
        return self.builder.apply(op, whole, origin=node.origin)

    def _emit(self, node: Node) -> Node:
        axis, reach_of = self.region.cuts[node]
        rows = self.ranges[node]
        operands = []
        for operand, reach in zip(node.inputs, reach_of, strict=True):
            if reach is None:
                operands.append(self.outside[operand])
                continue
            needed = _clipped(reach.rows(rows), operand.shape[reach.axis])
            operands.append(self.part(operand, needed, reach.axis))
        op = _cut(node, axis, rows)
        return self.builder.apply(op, *operands, origin=node.origin)


def _cut(node: Node, axis: int, rows: range) -> Op:
    """The primitive of ``node`` for some of its rows, given what they need of its operands."""

    def with_rows(sizes: tuple[int, ...], size: int) -> tuple[int, ...]:
        return (*sizes[:axis], size, *sizes[axis + 1 :])

    op = node.op
    match op:
        case ops.Broadcast(shape=shape) | ops.Reshape(shape=shape):
            return replace(op, shape=with_rows(shape, len(rows)))
        case ops.Slice(starts=starts, counts=counts):
            return replace(
                op, starts=with_rows(starts, 0), counts=with_rows(counts, len(rows))
            )
        case ops.Pad(low=low, high=high):
            # of the border, what lies in front of the first element and behind the last
            shifted = range(rows.start - low[axis], rows.stop - low[axis])
            inner = _clipped(shifted, node.inputs[0].shape[axis])
            before = min(len(rows), max(0, low[axis] - rows.start))
            after = len(rows) - before - len(inner)
            return replace(op, low=with_rows(low, before), high=with_rows(high, after))
    return op
