"""Graphs over batches: a graph of one sample in, the graph of many samples at once out.

What does not depend on a batched input is computed once. A batch stands in the first axis of every
tensor that has one.
"""

from __future__ import annotations

from collections.abc import Sequence

from aotc.autodiff.batch_rules import BATCHED, Batch
from aotc.autodiff.control import Nested
from aotc.autodiff.emit import Emit, name_of, not_supported, require_static
from aotc.errors import UsageError
from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node
from aotc.graph.types import DType, TensorType, TupleType

Many = tuple[list[Node], list[bool]]
"""Nodes, and for each whether it has the axis of the batch in front."""


def vmap(graph: Graph, size: int, axes: int | None | Sequence[int | None] = 0) -> Graph:
    """``graph`` on each of ``size`` samples.

    ``axes`` says for each input (or for all) which axis of the new input counts the samples, None
    for an input that is the same for all of them. The new inputs have their names and types with
    that axis added, the outputs theirs with the axis in front. UsageError when an axis does not fit
    or a size is not known; UnsupportedError for a branch or loop that may fail and that samples
    would take differently.
    """
    require_static(graph)
    chosen = list(axes) if isinstance(axes, Sequence) else [axes] * len(graph.inputs)
    if len(chosen) != len(graph.inputs) or size < 1:
        raise UsageError(
            f"{len(chosen)} axes for {len(graph.inputs)} inputs, {size} samples",
            where=f"graph '{graph.name}'",
            remedy="give one axis for each input, and at least one sample",
        )
    batch = Batch(Emit(Builder()), size)
    operands = [_input(batch, x, axis) for x, axis in zip(graph.inputs, chosen, strict=True)]
    outputs, flags = run(batch, graph, operands, [axis is not None for axis in chosen])
    results = batch.spread_all(outputs, flags)
    names = [name for name, _ in graph.outputs]
    return batch.e.builder.finish(graph.name, zip(names, results, strict=True))


def _input(batch: Batch, node: Node, axis: int | None) -> Node:
    """The new input, with its batch moved to the front."""
    name, shape = name_of(node), node.shape
    if axis is None:
        return batch.e.builder.parameter(name, node.type)
    if not 0 <= axis <= len(shape):
        raise UsageError(
            f"input '{name}' of type {node.type} has no room for axis {axis}",
            remedy=f"give an axis from 0 to {len(shape)}, or None",
        )
    type_ = TensorType(node.type.dtype, (*shape[:axis], batch.size, *shape[axis:]))
    return batch.e.move_axis(batch.e.builder.parameter(name, type_), axis, 0)


def run(batch: Batch, graph: Graph, operands: Sequence[Node], flags: Sequence[bool]) -> Many:
    """The outputs of ``graph`` on operands of which the flagged ones have a batch."""
    places: dict[Node, tuple[Node, bool]] = {
        x: pair for x, pair in zip(graph.inputs, zip(operands, flags, strict=True), strict=True)
    }
    tuples: dict[Node, Many] = {}
    for node in batch.e.from_each(graph.nodes()):
        if node in places:
            continue
        if isinstance(node.op, ops.Item) and node.inputs[0] in tuples:
            items, of_items = tuples[node.inputs[0]]
            places[node] = items[node.op.index], of_items[node.op.index]
            continue
        here = [places[x][0] for x in node.inputs]
        mask = [places[x][1] for x in node.inputs]
        if any(mask) and isinstance(node.type, TupleType):
            control = _branch if isinstance(node.op, ops.Branch) else _repeat
            tuples[node] = control(batch, node, here, mask)
        elif any(mask):
            places[node] = BATCHED[type(node.op)](batch, node.op, here, mask), True
        else:
            places[node] = batch.e.leaf_or_apply(node, here), False
    for sentence, node in graph.checks:
        condition, batched = places[node]
        every = batch.e.apply(ops.Reduce("and", (0,)), condition) if batched else condition
        batch.e.builder.check(every, sentence)
    found = [places[node] for _, node in graph.outputs]
    return [node for node, _ in found], [flag for _, flag in found]


def _branch(batch: Batch, node: Node, operands: Sequence[Node], flags: Sequence[bool]) -> Many:
    """One branch for all samples where they share the condition; else both and a choice."""
    op, (condition, *values) = node.op, operands
    assert isinstance(op, ops.Branch)
    e = batch.e
    count = len(op.then.outputs)
    if flags[0]:
        if op.then.checks or op.other.checks:
            raise not_supported(
                "the samples of a batch would take different branches, one of which may fail",
                node,
                "give it a condition that is the same for all samples",
            )
        pairs = [
            batch.spread_all(*run(batch, graph, values, flags[1:])) for graph in (op.then, op.other)
        ]
        chosen = [batch.chosen(condition, a, b) for a, b in zip(*pairs, strict=True)]
        return chosen, [True] * count

    def nested(graph: Graph) -> Graph:
        inner = Nested()
        taken = inner.take([x.type for x in values])
        own = Batch(inner.e, batch.size)
        return inner.finish(graph.name, own.spread_all(*run(own, graph, taken, flags[1:])))

    made = e.apply(ops.Branch(nested(op.then), nested(op.other)), condition, *values)
    return e.items(made), [True] * count


def _repeat(batch: Batch, node: Node, operands: Sequence[Node], flags: Sequence[bool]) -> Many:
    """All samples go through one loop together; what depends on the sample has the batch."""
    op, e = node.op, batch.e
    assert isinstance(op, ops.Repeat)
    first, second = 2 + op.carried, 2 + op.carried + op.scanned
    scanned = [
        e.move_axis(x, 0, 1) if flag else x
        for x, flag in zip(operands[first:second], flags[first:second], strict=True)
    ]
    rows = [TensorType(x.type.dtype, x.shape[1:]) for x in scanned]
    inside = [*rows, *(x.type for x in operands[second:])]
    of_state = list(flags[2:first])
    while True:  # a carried value that an iteration makes depend on the sample has the batch too
        carried = [
            batch.spread(x, was) if flag else x
            for x, was, flag in zip(operands[2:first], flags[2:first], of_state, strict=True)
        ]
        inner = Nested()
        index = TensorType(DType.I64, ())
        taken = inner.take([index, *(x.type for x in carried), *inside])
        own = Batch(inner.e, batch.size)
        outputs, found = run(own, op.body, taken, [False, *of_state, *flags[first:]])
        after = [a or b for a, b in zip(of_state, found[1 : 1 + op.carried], strict=True)]
        if after == of_state:
            break
        of_state = after
    if any(flags[:2]) or found[0]:
        return _parting(batch, node, operands, flags)
    last = 1 + op.carried
    state = [
        own.spread(x, had) if flag else x
        for x, had, flag in zip(outputs[1:last], found[1:last], of_state, strict=True)
    ]
    body = inner.finish(op.body.name, [outputs[0], *state, *outputs[last:]])
    made = ops.Repeat(body, op.carried, op.scanned, op.limit)
    items = e.items(e.apply(made, *operands[:2], *carried, *scanned, *operands[second:]))
    stacks = [
        e.move_axis(x, 1, 0) if flag else x
        for x, flag in zip(items[last:], found[last:], strict=True)
    ]
    return [*items[:last], *stacks], [False, *of_state, *found[last:]]


def _parting(batch: Batch, node: Node, operands: Sequence[Node], flags: Sequence[bool]) -> Many:
    """A loop that samples leave at iterations of their own: it runs as long as one of them does,
    and whoever has left keeps its values. Carried in front: who goes on, and for how long each
    did."""
    op, e = node.op, batch.e
    assert isinstance(op, ops.Repeat)
    if op.body.checks:
        raise not_supported(
            "the samples of a batch would leave this loop, which may fail, at different iterations",
            node,
            "give it a trip count and a condition that are the same for all samples",
        )
    first, second = 2 + op.carried, 2 + op.carried + op.scanned
    trips, start = batch.spread_all(operands[:2], flags[:2])
    alive = e.binary("and", start, e.compare("gt", trips, 0))
    state = batch.spread_all(operands[2:first], flags[2:first])
    carried = [alive, e.full(0, trips.type), *state]
    scanned = [
        e.move_axis(x, 0, 1) if flag else x
        for x, flag in zip(operands[first:second], flags[first:second], strict=True)
    ]
    rows = [TensorType(x.type.dtype, x.shape[1:]) for x in scanned]
    captured = [trips, *operands[second:]]

    inner = Nested()
    own = Batch(inner.e, batch.size)
    (index,) = inner.take([TensorType(DType.I64, ())])
    going, done, *before = inner.take([x.type for x in carried])
    slices, (ends, *held) = inner.take(rows), inner.take([x.type for x in captured])
    inside = [index, *before, *slices, *held]
    outputs, found = run(own, op.body, inside, [False, *[True] * op.carried, *flags[first:]])
    more, *results = own.spread_all(outputs, found)
    here = inner.e
    after = [own.chosen(going, x, old) for x, old in zip(results, before, strict=False)]
    stacked = [own.chosen(going, x, 0.0) for x in results[op.carried :]]
    counted = here.binary("add", done, here.builder.cast(going, DType.I64))
    later = here.compare("lt", here.binary("add", index, 1), ends)
    going = here.binary("and", going, here.binary("and", more, later))
    some = here.builder.reduce("or", going, [0], keep=False)
    body = inner.finish(op.body.name, [some, going, counted, *after, *stacked])
    longest = e.builder.reduce("max", trips, [0], keep=False)
    begin = e.builder.reduce("or", alive, [0], keep=False)
    made = ops.Repeat(body, 2 + op.carried, op.scanned, op.limit)
    _, _, *items = e.items(e.apply(made, longest, begin, *carried, *scanned, *captured))
    stacks = [e.move_axis(x, 1, 0) for x in items[1 + op.carried :]]
    return [*items[: 1 + op.carried], *stacks], [True] * len(items)
