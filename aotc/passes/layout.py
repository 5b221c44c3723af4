"""Layout: a graph with channels-first convolutions goes in, one with channels-last ones comes out.

Between two convolutions no transpose remains: every value is carried as a tensor in whatever axis
order it was computed, together with the permutation that leads back to the order the graph speaks
of. Operators that do not care about the order are applied to the tensor as it is; a `Transpose` is
made only where an operator does care. """

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node, Parameter
from aotc.graph.types import DType
from aotc.passes.shapes import inverse, moves_nothing, reshape_groups

Perm = tuple[int, ...]
Item = TypeVar("Item")


def layout(graph: Graph) -> Graph:
    """Make every `Conv` channels-last. Graphs without a channels-first `Conv` are returned as they
    are.

    Of three placements the one that moves the fewest bytes wins: transposes as late as possible,
    with some of them done early, and around each convolution; the last bounds what can happen. """
    if not any(_is_channels_first(node) for node in graph.nodes()):
        return graph
    wanted = _wanted(graph)
    late = _Placer(graph, frozenset(), wanted)
    placed_late = late.run()
    some = _early_reads(graph, late.placed, wanted)
    others = [
        (operand, node)
        for node in graph.nodes()
        for operand in node.inputs
        if not _is_channels_first(node)
    ]
    early = _Placer(graph, some, wanted).run()
    around = _Placer(graph, frozenset(others), {}).run()
    return min((placed_late, early, around), key=_transposed_bytes)


def _transposed_bytes(graph: Graph) -> int:
    """What the run-time transposes of ``graph`` move."""
    return sum(
        node.type.size_bytes
        for node in graph.nodes()
        if isinstance(node.op, ops.Transpose) and node.inputs[0].data is None
    )


def _is_channels_first(node: Node) -> bool:
    return isinstance(node.op, ops.Conv) and not node.op.channels_last


def is_widened(node: Node) -> bool:
    """Whether ``node`` is bytes as integers of 32 bits."""
    return node.op == ops.Cast(DType.I32) and node.inputs[0].type.dtype is DType.U8


def channels_last(rank: int) -> Perm:
    """The permutation from [N, *spatial, C] to [N, C, *spatial]."""
    return (0, rank - 1, *range(1, rank - 1))


@dataclass(frozen=True)
class _Placed:
    """A value of the graph: axis i of the value is axis ``perm[i]`` of ``node``."""

    node: Node
    perm: Perm

    @property
    def is_plain(self) -> bool:
        return self.perm == tuple(range(len(self.perm)))


def _plain(node: Node) -> _Placed:
    return _Placed(node, tuple(range(node.type.rank)))


def _physical(items: Sequence[Item], perm: Perm) -> tuple[Item, ...]:
    """One item per axis of the value, put in the axis order of the tensor."""
    return tuple(items[axis] for axis in inverse(perm))


def _carry_reshape(before: Sequence[int], perm: Perm, after: Sequence[int]) -> Perm | None:
    """The permutation of a value of shape ``after`` that is a reshape of one of shape ``before``
    placed by ``perm``, when both tensors hold their elements in one order; None when that cannot
    be."""
    if 0 in before:
        return None
    groups = reshape_groups(tuple(before), tuple(after))
    groups_in_place = sorted(groups, key=lambda group: perm[group[0][0]])
    in_place = sorted((axis for axis, dim in enumerate(before) if dim != 1), key=lambda a: perm[a])
    if [axis for old, _ in groups_in_place for axis in old] != in_place:
        return None
    if groups_in_place == groups:
        return tuple(range(len(after)))
    order = [axis for _, new in groups_in_place for axis in new]
    for axis, dim in enumerate(after):
        if dim == 1:
            order.insert(order.index(axis - 1) + 1 if axis else 0, axis)
    return inverse(tuple(order))


def _wanted(graph: Graph) -> dict[Node, Perm]:
    """For each value that leads to a `Conv`, or else to a `Dot`, the placement in which it is read
    there."""
    nodes = list(graph.nodes())
    by_conv = {
        node.inputs[0]: channels_last(node.type.rank) for node in nodes if _is_channels_first(node)
    }
    by_dot = {
        operand: tuple(range(operand.type.rank))
        for node in nodes
        if isinstance(node.op, ops.Dot)
        for operand in node.inputs
    }
    _spread(nodes, by_conv)
    _spread(nodes, by_dot)
    return by_dot | by_conv


def _spread(nodes: list[Node], wanted: dict[Node, Perm]) -> None:
    """Extend ``wanted`` from results to operands, through the operators that keep axes
    recognisable."""
    for node in reversed(nodes):
        perm = wanted.get(node)
        if perm is None:
            continue
        for operand in node.inputs:
            moved: Perm | None = None
            if isinstance(node.op, ops.Transpose):
                back = inverse(node.op.perm)
                moved = tuple(perm[axis] for axis in back)
            elif isinstance(node.op, ops.Reshape):
                moved = _carry_reshape(node.shape, perm, operand.shape)
            elif isinstance(
                node.op,
                (
                    *ops.ELEMENTWISE, ops.Broadcast, ops.Pad, ops.Slice, ops.Concat,
                    ops.ReduceWindow,
                ),  # fmt: skip
            ):
                moved = perm
            if moved is not None:
                wanted.setdefault(operand, moved)


def _early_reads(
    graph: Graph, placed: Mapping[Node, _Placed], wanted: Mapping[Node, Perm]
) -> frozenset[tuple[Node, Node]]:
    """The pairs (value, reader) for which the value had better be transposed at once than further
    down.

    Transposes sink towards the outputs as long as they can. Where the readers of one value would
    pay for several transposes in the end, or the value itself is transposed anyway, one transpose
    of the value serves all readers that do not lead to a convolution. """
    users = graph.users()
    kept = {node for _, node in graph.outputs}
    cost_bytes: dict[Node, int] = {}
    reads: set[tuple[Node, Node]] = set()
    for node in reversed(list(graph.nodes())):
        value = placed[node]
        cost_bytes[node] = 0
        if moves_nothing(value.perm, value.node.shape):
            continue
        size_bytes = node.type.size_bytes
        readers = [
            user
            for user in dict.fromkeys(users[node])
            if cost_bytes[user] and wanted.get(user, ()) == tuple(sorted(wanted.get(user, ())))
        ]
        settled = node in kept or any(_moves(user, node, placed) for user in users[node])
        later_bytes = sum(cost_bytes[user] for user in readers)
        if settled or later_bytes > size_bytes:
            reads.update((node, user) for user in readers)
            cost_bytes[node] = size_bytes
        else:
            cost_bytes[node] = later_bytes
    return frozenset(reads)


def _moves(user: Node, node: Node, placed: Mapping[Node, _Placed]) -> bool:
    """Whether ``user`` needed a transposed copy of its operand ``node``, which is not placed
    plainly."""
    if not placed[user].is_plain:
        return False
    if isinstance(user.op, ops.Reshape):
        return _carry_reshape(node.shape, placed[node].perm, user.op.shape) is None
    return not isinstance(
        user.op, (ops.Conv, ops.Transpose, ops.Reduce, ops.ArgReduce, ops.Gather)
    )


class _Placer:
    """Re-emits one graph; ``placed`` knows where each old value lies now.

    ``early`` are the (value, reader) pairs where the reader gets the value in the graph's own
    order, ``wanted`` the placements in which values are read further down. """

    def __init__(
        self,
        graph: Graph,
        early: frozenset[tuple[Node, Node]],
        wanted: Mapping[Node, Perm],
    ) -> None:
        self.graph = graph
        self.early = early
        self.builder = Builder()
        self.wanted = wanted
        self.placed: dict[Node, _Placed] = {}

    def run(self) -> Graph:
        for node in self.graph.inputs:
            assert isinstance(node.op, Parameter)
            self.placed[node] = _plain(self.builder.parameter(node.op.name, node.type))
        for node in self.graph.nodes():
            if node in self.placed:
                continue
            if node.data is not None:
                self.placed[node] = _plain(self.builder.reuse_constant(node))
            else:
                self.placed[node] = self._place(node, [self._read(x, node) for x in node.inputs])
        outputs = [(name, self._unmoved(self.placed[node])) for name, node in self.graph.outputs]
        for sentence, node in self.graph.checks:
            self.builder.check(self.placed[node].node, sentence)
        return self.builder.finish(self.graph.name, outputs)

    def _read(self, operand: Node, reader: Node) -> _Placed:
        value = self.placed[operand]
        return _plain(self._unmoved(value)) if (operand, reader) in self.early else value

    # Moving a value to another axis order.

    def _move(self, node: Node, perm: Perm) -> Node:
        """``node`` transposed by ``perm``, through broadcasts and earlier transposes."""
        if perm == tuple(range(len(perm))):
            return node
        if isinstance(node.op, ops.Transpose):
            return self._move(node.inputs[0], tuple(node.op.perm[axis] for axis in perm))
        if node.type.dtype is DType.I32 and is_widened(node):
            # Bytes that are multiplied: moved as bytes, into their padding at once.
            inner = self._move(node.inputs[0], perm)
            return self.builder.apply(node.op, inner, origin=node.origin)
        if node.type.dtype is DType.U8 and isinstance(node.op, ops.Pad):
            low, high = (tuple(side[axis] for axis in perm) for side in (node.op.low, node.op.high))
            inner = self._move(node.inputs[0], perm)
            pad = replace(node.op, low=low, high=high)
            return self.builder.apply(pad, inner, origin=node.origin)
        shape = tuple(node.shape[axis] for axis in perm)
        if moves_nothing(perm, node.shape):
            return self.builder.reshape(node, shape, node.origin)
        if isinstance(node.op, ops.Broadcast):
            inner = self._move(node.inputs[0], perm)
            return self.builder.apply(ops.Broadcast(shape), inner, origin=node.origin)
        return self.builder.apply(ops.Transpose(perm), node, origin=node.origin)

    def _cost(self, node: Node, perm: Perm) -> int:
        """The elements that a run-time transpose has to move to transpose ``node`` by ``perm``; not
        the bytes, because what is narrow here may well be moved for the sake of a reader of
        something wide that is never stored."""
        if node.data is not None or moves_nothing(perm, node.shape):
            return 0
        if isinstance(node.op, ops.Transpose):
            return self._cost(node.inputs[0], tuple(node.op.perm[axis] for axis in perm))
        if isinstance(node.op, ops.Broadcast):
            return self._cost(node.inputs[0], perm)
        return node.type.elems

    def _at(self, value: _Placed, perm: Perm) -> Node:
        """The tensor that holds ``value`` placed by ``perm``."""
        return self._move(value.node, _physical(value.perm, perm))

    def _unmoved(self, value: _Placed) -> Node:
        return self._at(value, tuple(range(len(value.perm))))

    def _common_perm(self, node: Node, values: Iterable[_Placed]) -> Perm:
        """The placement for an operator on several values that moves the fewest elements now and
        after it."""
        values = list(values)
        plain = tuple(range(node.type.rank))
        target = self.wanted.get(node, plain)

        def moved(perm: Perm) -> int:
            now = sum(self._cost(value.node, _physical(value.perm, perm)) for value in values)
            shape = _physical(node.shape, perm)
            after = 0 if moves_nothing(_physical(perm, target), shape) else node.type.elems
            return now + after

        return min([*(value.perm for value in values), target, plain], key=moved)

    # One operator.

    def _place(self, node: Node, values: list[_Placed]) -> _Placed:
        op = node.op
        if isinstance(op, ops.Conv):
            return self._place_conv(node, op, values)
        if isinstance(op, ops.Transpose):
            return self._place_transpose(node, op, values[0])
        if isinstance(op, ops.Reshape):
            return self._place_reshape(node, op, values[0])
        if isinstance(op, (*ops.ELEMENTWISE, ops.Concat)) and values:
            perm = self._common_perm(node, values)
            tensors = [self._at(value, perm) for value in values]
            if isinstance(op, ops.Concat):
                op = ops.Concat(perm[op.axis])
            return _Placed(self.builder.apply(op, *tensors, origin=node.origin), perm)
        if values and not values[0].is_plain:
            made = self._place_along_axes(node, values)
            if made is not None:
                return made
        tensors = [self._unmoved(value) for value in values]
        return _plain(self.builder.apply(op, *tensors, origin=node.origin))

    def _place_conv(self, node: Node, op: ops.Conv, values: list[_Placed]) -> _Placed:
        data, weights = values
        kernel = self._unmoved(weights)
        if op.channels_last:
            tensor = self._unmoved(data)
            return _plain(self.builder.apply(op, tensor, kernel, origin=node.origin))
        perm = channels_last(node.type.rank)
        turned = replace(op, channels_last=True)
        tensor = self._at(data, perm)
        return _Placed(self.builder.apply(turned, tensor, kernel, origin=node.origin), perm)

    def _place_transpose(self, node: Node, op: ops.Transpose, value: _Placed) -> _Placed:
        moved = _Placed(value.node, tuple(value.perm[axis] for axis in op.perm))
        if not value.is_plain:
            return moved
        # A transpose of the model's own moves its elements here, at once to where the reader wants
        # them.
        wanted = self.wanted.get(node, tuple(range(len(op.perm))))
        return _Placed(self._at(moved, wanted), wanted)

    def _place_reshape(self, node: Node, op: ops.Reshape, value: _Placed) -> _Placed:
        before = node.inputs[0].shape
        perm = _carry_reshape(before, value.perm, op.shape)
        tensor = value.node
        if perm is None:
            # The elements have to move: move them to where the reader wants them.
            perm = self.wanted.get(node, tuple(range(len(op.shape))))
            source = _carry_reshape(op.shape, perm, before)
            if source is None:
                source, perm = tuple(range(len(before))), tuple(range(len(op.shape)))
            tensor = self._at(value, source)
        shape = _physical(op.shape, perm)
        return _Placed(self.builder.reshape(tensor, shape, node.origin), perm)

    def _place_along_axes(self, node: Node, values: list[_Placed]) -> _Placed | None:
        """Operators whose attributes name axes of their first operand: the attributes are permuted
        instead."""
        value, perm = values[0], values[0].perm
        match node.op:
            case ops.Broadcast(shape):
                turned: ops.Op = ops.Broadcast(_physical(shape, perm))
            case ops.Slice(starts, counts, steps):
                fields = (_physical(each, perm) for each in (starts, counts, steps))
                turned = ops.Slice(*fields)
            case ops.Pad(low, high, number):
                turned = ops.Pad(_physical(low, perm), _physical(high, perm), number)
            case ops.ReduceWindow(fn) as window:
                each = (window.window, window.strides, window.low, window.high, window.dilation)
                turned = ops.ReduceWindow(fn, *(_physical(field, perm) for field in each))
            case ops.CumSum(axis=axis):
                turned = replace(node.op, axis=perm[axis])
            case ops.Reduce(fn, axes):
                turned = ops.Reduce(fn, tuple(sorted(perm[axis] for axis in axes)))
                perm = _without(perm, axes)
            case ops.ArgReduce(axis=axis):
                turned = replace(node.op, axis=perm[axis])
                perm = _without(perm, (axis,))
            case ops.Gather(axis=axis):
                turned = ops.Gather(perm[axis])
                perm = _with_indices(perm, axis, len(values[1].perm))
            case _:
                return None
        rest = (self._unmoved(other) for other in values[1:])
        return _Placed(self.builder.apply(turned, value.node, *rest, origin=node.origin), perm)


def _without(perm: Perm, axes: tuple[int, ...]) -> Perm:
    """The placement that remains when ``axes`` of the value disappear."""
    kept = [place for axis, place in enumerate(perm) if axis not in axes]
    places = sorted(kept)
    return tuple(places.index(place) for place in kept)


def _with_indices(perm: Perm, axis: int, count: int) -> Perm:
    """The placement after a gather replaced ``axis`` of the value by ``count`` axes in its
    place."""
    place = perm[axis]

    def shifted(other: int) -> int:
        return other if other < place else other + count - 1

    indices = range(place, place + count)
    return (*map(shifted, perm[:axis]), *indices, *map(shifted, perm[axis + 1 :]))


