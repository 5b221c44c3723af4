"""Bodies: a graph goes in; one comes out whose nested graphs take and give only what is needed.

What is constant outside becomes a constant inside, so that weights are packed and arithmetic on
them is folded there too; a condition or a trip count that is known ends the control flow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node, Parameter
from aotc.graph.types import DType, TensorType, TupleType
from aotc.passes.hoist import copy_into, hoist
from aotc.passes.rewrite import reemit

_MOVABLE = (ops.Broadcast, ops.Reshape, ops.Transpose, ops.Slice)


def specialize_bodies(graph: Graph) -> Graph:
    """``graph`` with each Branch and Repeat reduced to what is read of it.

    Constants move into the nested graphs, what all iterations compute alike out of them; operands,
    carried values and results that nothing needs are dropped; a carried value that never changes is
    captured instead. A Branch on a known condition becomes its graph, a Repeat of no or one known
    iteration its operands or its body.
    """
    read: dict[Node, set[int]] = {}
    for node in graph.nodes():
        if isinstance(node.op, ops.Item):
            read.setdefault(node.inputs[0], set()).add(node.op.index)
    results: dict[Node, Mapping[int, Node]] = {}

    def emit(builder: Builder, node: Node, new: Mapping[Node, Node]) -> Node | None:
        if isinstance(node.op, ops.Item) and node.inputs[0] in results:
            return results[node.inputs[0]][node.op.index]
        operands = [new[operand] for operand in node.inputs]
        wanted = sorted(read.get(node, ()))
        if isinstance(node.op, ops.Branch):
            results[node] = _branch(builder, node, node.op, operands, wanted)
        elif isinstance(node.op, ops.Repeat):
            results[node] = _repeat(builder, node, node.op, operands, wanted)
        else:
            return None
        return operands[0]  # stands for the tuple, which nothing reads any more

    return reemit(graph, emit)


def map_nested(graph: Graph, change: Callable[[Graph], Graph]) -> Graph:
    """``graph`` with every graph directly inside it changed; types must stay."""

    def emit(builder: Builder, node: Node, new: Mapping[Node, Node]) -> Node | None:
        match node.op:
            case ops.Branch(then=then, other=other):
                op: ops.Op = ops.Branch(change(then), change(other))
            case ops.Repeat(body=body):
                op = replace(node.op, body=change(body))
            case _:
                return None
        return builder.apply(op, *(new[x] for x in node.inputs), origin=node.origin)

    return reemit(graph, emit) if any(map(ops.nested_graphs, graph.nodes())) else graph


def _branch(
    builder: Builder, node: Node, op: ops.Branch, operands: Sequence[Node], wanted: list[int]
) -> dict[int, Node]:
    condition, *values = operands
    if condition.data is not None:
        return dict(enumerate(_inline(builder, op.then if condition.data else op.other, values)))
    found: dict[int, Node] = {}
    checked = op.then.checks or op.other.checks  # somebody has to run them
    for index in () if checked else wanted:
        ends = [graph.outputs[index][1] for graph in (op.then, op.other)]
        places = [
            graph.inputs.index(end) if end in graph.inputs else -1
            for graph, end in zip((op.then, op.other), ends, strict=True)
        ]
        if places[0] >= 0 and values[places[0]] is values[places[1]] and places[1] >= 0:
            found[index] = values[places[0]]
    left = [index for index in wanted if index not in found]
    if not left:
        return found
    needed = {
        i for graph in (op.then, op.other) for i in _reached(graph, _ends(graph, left))
    }
    wiring = _Wiring.of(values, needed)
    then, other = (wiring.rebuild(graph, left) for graph in (op.then, op.other))
    outer = [values[i] for i in wiring.kept]
    made = builder.apply(ops.Branch(then, other), condition, *outer, origin=node.origin)
    return found | _items(builder, made, left, node.origin)


def _repeat(
    builder: Builder, node: Node, op: ops.Repeat, operands: Sequence[Node], wanted: list[int]
) -> dict[int, Node]:
    trips, start, *values = operands
    carried = op.carried
    known = None if trips.data is None else max(0, min(int(trips.data), op.limit))
    known = known if op.limit else 0
    if known == 0 or (start.data is not None and not start.data):
        return _never(builder, node, values)
    if known == 1 and start.data is not None and (op.limit == 1 or not op.stacked):
        return _once(builder, op, values)
    op, values = hoist(builder, op, values, _is_movable)
    body = op.body
    # Carried values: those that stay as they are, then those that something needs.
    ends = [end for _, end in body.outputs]
    fixed = {
        k
        for k in range(carried)
        if (ends[1 + k] is body.inputs[1 + k] and not body.checks) or 0 in values[k].shape
    }
    live = {0, *(1 + k for k in range(carried) if 1 + k in wanted and k not in fixed)}
    live |= {index for index in wanted if index > carried}
    while True:
        needed = _reached(body, [*(ends[i] for i in sorted(live)), *_checked(body)])
        more = {i for i in needed if 1 <= i <= carried and i - 1 not in fixed} - live
        if not more:
            break
        live |= more
    found = {1 + k: values[k] for k in fixed}
    moving = [i for i in sorted(live) if 1 <= i <= carried]
    stacks = [i for i in sorted(live) if i > carried]
    slices = range(carried + 1, carried + op.scanned + 1)
    scanned = [i for i in slices if i in needed and 0 not in values[i - 1].shape]
    # Inputs of the body: the iteration stays, the moving and the scanned stay parameters, and the
    # rest is captured; entry 0 has no operand outside.
    outside: list[Node | None] = [None, *values]
    captured = [i for i in range(1, len(outside)) if i in needed and i not in moving + scanned]
    wiring = _Wiring.of(outside, captured, (0, *moving, *scanned))
    rebuilt = wiring.rebuild(body, sorted(live))
    made = builder.apply(
        ops.Repeat(rebuilt, len(moving), len(scanned), op.limit),
        *(trips, start, *(values[i - 1] for i in wiring.kept[1:])),
        origin=node.origin,
    )
    return found | _items(builder, made, [0, *moving, *stacks], node.origin)


def _never(builder: Builder, node: Node, values: Sequence[Node]) -> dict[int, Node]:
    """The results of a loop that does not run."""
    op, type_ = node.op, node.type
    assert isinstance(op, ops.Repeat) and isinstance(type_, TupleType)
    found = {0: builder.constant(0, DType.I64)}
    found |= {1 + k: values[k] for k in range(op.carried)}
    for index in range(1 + op.carried, len(type_.items)):
        item = type_.items[index]
        zero = builder.constant(np.zeros((), item.dtype.numpy))
        found[index] = builder.broadcast(zero, item.dims)
    return found


def _once(builder: Builder, op: ops.Repeat, values: Sequence[Node]) -> dict[int, Node]:
    """The results of a loop with one iteration: its body."""
    scanned = range(op.carried, op.carried + op.scanned)
    taken = []
    for i, value in enumerate(values):
        if i in scanned:
            rank = value.type.rank
            counts = (1, *value.shape[1:])
            value = builder.apply(ops.Slice((0,) * rank, counts, (1,) * rank), value)
            value = builder.reshape(value, value.shape[1:])
        taken.append(value)
    made = _inline(builder, op.body, [builder.constant(0, DType.I64), *taken])
    found = {0: builder.constant(1, DType.I64)}
    for index, value in enumerate(made[1:], 1):
        stacked = index > op.carried
        found[index] = builder.reshape(value, (1, *value.shape)) if stacked else value
    return found


def _items(
    builder: Builder, made: Node, indices: Sequence[int], origin: str
) -> dict[int, Node]:
    """The items of ``made`` by the index that they had before."""
    return {
        old: builder.apply(ops.Item(new), made, origin=origin) for new, old in enumerate(indices)
    }


def _checked(graph: Graph) -> list[Node]:
    return [node for _, node in graph.checks]


def _ends(graph: Graph, indices: Iterable[int]) -> list[Node]:
    return [*(graph.outputs[index][1] for index in indices), *_checked(graph)]


def _reached(graph: Graph, ends: Sequence[Node]) -> set[int]:
    """The numbers of the inputs that ``ends`` depend on."""
    part = Graph(graph.name, (), tuple(("", end) for end in ends))
    seen = set(part.nodes())
    return {i for i, node in enumerate(graph.inputs) if node in seen}


@dataclass(frozen=True)
class _Wiring:
    """What becomes of the inputs of a nested graph, by number: ``kept`` stay, in this order;
    ``sunk`` are made inside; ``merged`` are the same as another that is kept."""

    kept: tuple[int, ...]
    sunk: Mapping[int, Node]
    merged: Mapping[int, int]

    @classmethod
    def of(
        cls, outside: Sequence[Node | None], captured: Iterable[int], first: tuple[int, ...] = ()
    ) -> _Wiring:
        """Sorts out the ``captured`` inputs; those in ``first`` are kept before them."""
        kept = list(first)
        sunk: dict[int, Node] = {}
        merged: dict[int, int] = {}
        known: dict[Node, int] = {}
        for i in sorted(captured):
            node = outside[i]
            assert node is not None
            if _is_movable(node):
                sunk[i] = node
            elif node in known:
                merged[i] = known[node]
            else:
                known[node] = i
                kept.append(i)
        return cls(tuple(kept), sunk, merged)

    def rebuild(self, graph: Graph, outputs: Sequence[int]) -> Graph:
        """``graph`` with these inputs and with ``outputs`` only."""
        builder = Builder()
        new: dict[Node, Node] = {}
        for i in self.kept:
            node = graph.inputs[i]
            assert isinstance(node.op, Parameter)
            new[node] = builder.parameter(node.op.name, node.type)
        for i, constant in self.sunk.items():
            node = graph.inputs[i]
            nothing = 0 in node.shape
            new[node] = _nothing(builder, node.type) if nothing else _move(builder, constant)
        for i, other in self.merged.items():
            new[graph.inputs[i]] = new[graph.inputs[other]]
        kept = tuple(graph.outputs[index] for index in outputs)
        _copy_all(builder, Graph(graph.name, (), kept, graph.checks), new)
        return builder.finish(graph.name, ((name, new[node]) for name, node in kept))


def _is_movable(node: Node) -> bool:
    """Whether ``node`` is a constant, or moves the elements of one, or has none."""
    if 0 in node.shape:
        return True
    while isinstance(node.op, _MOVABLE):
        (node,) = node.inputs
    return node.data is not None or isinstance(node.op, ops.Iota)


def _nothing(builder: Builder, type_: TensorType) -> Node:
    return builder.constant(np.zeros(type_.dims, type_.dtype.numpy))


def _move(builder: Builder, node: Node) -> Node:
    """A movable node again in another graph."""
    if node.data is not None:
        return builder.reuse_constant(node)
    operands = (_move(builder, operand) for operand in node.inputs)
    return builder.apply(node.op, *operands, origin=node.origin)


def _inline(builder: Builder, graph: Graph, operands: Sequence[Node]) -> list[Node]:
    """The outputs of ``graph`` on ``operands`` as nodes of ``builder``."""
    new = dict(zip(graph.inputs, operands, strict=True))
    _copy_all(builder, graph, new)
    return [new[node] for _, node in graph.outputs]


def _copy_all(builder: Builder, graph: Graph, new: dict[Node, Node]) -> None:
    """Emits every node of ``graph`` that is not in ``new`` yet, and its checks."""
    copy_into(builder, graph, new)
    for sentence, node in graph.checks:
        builder.check(new[node], sentence)
