"""Derivatives of control flow: a branch or loop with tangents or cotangents in, another one out.

Nested graphs are differentiated by the same modes, which the caller passes. Forward mode runs
values and tangents in one loop, whatever decides its trips. Reverse mode runs a loop forward with
its carried values stored at the start of each iteration, then backward over the stored ones; so its
trips must be fixed. A branch computes its values again in its backward branch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aotc.autodiff.emit import Emit, Maybe, is_float, not_supported
from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node, Op
from aotc.graph.types import DType, TensorType

Pushforward = Callable[
    [Emit, Graph, Sequence[Node], Sequence[Maybe]], tuple[list[Node], list[Maybe]]
]
Pullback = Callable[
    [Emit, Graph, Sequence[Node], Sequence[Maybe], Sequence[bool]], tuple[list[Node], list[Maybe]]
]
Tuple = tuple[list[Node], list[Maybe]]


class Nested:
    """A nested graph in the making: its parameters have numbers as names."""

    def __init__(self) -> None:
        self.e = Emit(Builder())
        self._count = 0

    def take(self, types: Sequence[TensorType]) -> list[Node]:
        """Parameters of these types."""
        start, self._count = self._count, self._count + len(types)
        return [self.e.builder.parameter(f"p{start + i}", type_) for i, type_ in enumerate(types)]

    def take_where(self, nodes: Sequence[Maybe]) -> list[Maybe]:
        """Parameters in place of the nodes that are there."""
        return [None if node is None else self.take([node.type])[0] for node in nodes]

    def finish(self, name: str, outputs: Sequence[Node]) -> Graph:
        """The graph of these outputs."""
        return self.e.builder.finish(name, [(f"r{i}", node) for i, node in enumerate(outputs)])


def _present(nodes: Sequence[Maybe]) -> list[Node]:
    return [node for node in nodes if node is not None]


def _filled(e: Emit, like: Sequence[Node], nodes: Sequence[Maybe]) -> list[Node]:
    """For each float of ``like`` its entry of ``nodes``, or zeros."""
    pairs = zip(like, nodes, strict=True)
    return [node or e.zeros(x) for x, node in pairs if is_float(x)]


def _types(nodes: Sequence[Node]) -> list[TensorType]:
    return [node.type for node in nodes]


def _spread(flags: Sequence[bool], nodes: Sequence[Node]) -> list[Maybe]:
    """The nodes at the places that are flagged, None elsewhere."""
    rest = iter(nodes)
    return [next(rest) if flag else None for flag in flags]


def jvp(
    e: Emit, op: Op, operands: Sequence[Node], tangents: Sequence[Maybe], push: Pushforward
) -> Tuple:
    """The items of the tuple that ``op`` gives on ``operands``, and their tangents."""
    if isinstance(op, ops.Branch):
        return _branch_jvp(e, op, operands, tangents, push)
    assert isinstance(op, ops.Repeat)
    return _repeat_jvp(e, op, operands, tangents, push)


def vjp(
    e: Emit, node: Node, outers: Sequence[Maybe], wanted: Sequence[bool], pull: Pullback
) -> Sequence[Maybe]:
    """The cotangents of the operands, from those of the items of the tuple."""
    if isinstance(node.op, ops.Branch):
        return _branch_vjp(e, node, outers, wanted, pull)
    return _repeat_vjp(e, node, outers, wanted, pull)


def _branch_jvp(
    e: Emit, op: ops.Branch, operands: Sequence[Node], tangents: Sequence[Maybe], push: Pushforward
) -> Tuple:
    def both(graph: Graph) -> Graph:
        nested = Nested()
        values = nested.take(_types(operands[1:]))
        outputs, moved = push(nested.e, graph, values, nested.take_where(tangents[1:]))
        return nested.finish(graph.name, [*outputs, *_filled(nested.e, outputs, moved)])

    made = ops.Branch(both(op.then), both(op.other))
    items = e.items(e.apply(made, *operands, *_present(tangents)))
    values = items[: len(op.then.outputs)]
    return values, _spread([is_float(x) for x in values], items[len(values) :])


def _branch_vjp(
    e: Emit, node: Node, outers: Sequence[Maybe], wanted: Sequence[bool], pull: Pullback
) -> Sequence[Maybe]:
    operands, flags = node.inputs[1:], wanted[1:]

    def backward(graph: Graph) -> Graph:
        nested = Nested()
        values = nested.take(_types(operands))
        parts = pull(nested.e, graph, values, nested.take_where(outers), flags)[1]
        chosen = [
            part or nested.e.zeros(value)
            for value, part, flag in zip(values, parts, flags, strict=True)
            if flag
        ]
        return nested.finish(graph.name, chosen)

    assert isinstance(node.op, ops.Branch)
    made = ops.Branch(backward(node.op.then), backward(node.op.other))
    items = e.items(e.apply(made, *node.inputs, *_present(outers)))
    return [None, *_spread(flags, items)]


def _repeat_jvp(
    e: Emit, op: ops.Repeat, operands: Sequence[Node], tangents: Sequence[Maybe], push: Pushforward
) -> Tuple:
    first, second = 2 + op.carried, 2 + op.carried + op.scanned
    carried, scanned, captured = operands[2:first], operands[first:second], operands[second:]
    moving = _filled(e, carried, tangents[2:first])
    slid, caught = _present(tangents[first:second]), tangents[second:]
    flags = [is_float(x) for x in carried]
    sliding = [tangent is not None for tangent in tangents[first:second]]

    nested = Nested()
    index = nested.take([TensorType(DType.I64, ())])
    state, moved = nested.take(_types(carried)), nested.take(_types(moving))
    rows = nested.take([_row(x) for x in scanned])
    slid_rows = nested.take([_row(x) for x in slid])
    held, held_moved = nested.take(_types(captured)), nested.take_where(caught)
    outputs, derivatives = push(
        nested.e,
        op.body,
        [*index, *state, *rows, *held],
        [None, *_spread(flags, moved), *_spread(sliding, slid_rows), *held_moved],
    )
    middle = 1 + op.carried
    results = [
        *outputs[:middle],
        *_filled(nested.e, outputs[1:middle], derivatives[1:middle]),
        *outputs[middle:],
        *_filled(nested.e, outputs[middle:], derivatives[middle:]),
    ]
    body = nested.finish(op.body.name, results)
    made = ops.Repeat(body, op.carried + len(moving), op.scanned + len(slid), op.limit)
    items = e.items(
        e.apply(
            made,
            *(*operands[:2], *carried, *moving, *scanned, *slid, *captured, *_present(caught)),
        )
    )
    after = middle + len(moving)
    stacks = items[after : after + op.stacked]
    derived = _spread(flags, items[middle:after])
    stack_flags = [is_float(x) for x in stacks]
    return (
        [*items[:middle], *stacks],
        [None, *derived, *_spread(stack_flags, items[after + op.stacked :])],
    )


def _row(x: Node) -> TensorType:
    """The type of a slice of a scanned tensor."""
    return TensorType(x.type.dtype, x.shape[1:])


def fixed_trips(node: Node) -> int | None:
    """How often a loop runs, where that is known at compile time."""
    op = node.op
    assert isinstance(op, ops.Repeat)
    trips, start, going = node.inputs[0].value, node.inputs[1].value, op.body.outputs[0][1].value
    if trips is None or start is None or going is None or (start and not going):
        return None
    count = min(max(int(trips), 0), op.limit) if start else 0
    return None if count == ops.UNLIMITED else count


def save_states(e: Emit, node: Node) -> Node | None:
    """The loop with the carried values at the start of each iteration as further stacks, the last
    ones; None when its trips are not fixed."""
    op = node.op
    assert isinstance(op, ops.Repeat)
    trips = fixed_trips(node)
    if trips is None:
        return None
    taken = {name for name, _ in op.body.outputs}
    numbers = (i for i in range(len(taken) + op.carried) if f"state{i}" not in taken)
    states = op.body.inputs[1 : 1 + op.carried]
    saved = tuple((f"state{next(numbers)}", state) for state in states)
    body = Graph(op.body.name, op.body.inputs, op.body.outputs + saved, op.body.checks)
    limit = trips if op.limit == ops.UNLIMITED else op.limit
    return e.apply(ops.Repeat(body, op.carried, op.scanned, limit), *node.inputs)


def _repeat_vjp(
    e: Emit, node: Node, outers: Sequence[Maybe], wanted: Sequence[bool], pull: Pullback
) -> Sequence[Maybe]:
    """``node`` is a loop as `save_states` makes it."""
    op, trips = node.op, fixed_trips(node)
    assert isinstance(op, ops.Repeat)
    if trips is None:
        raise not_supported(
            "reverse mode needs a loop whose number of iterations is fixed; this one counts or "
            "stops at run time",
            node,
            "give a constant trip count and no condition, or use forward mode (jvp)",
        )
    first, second = 2 + op.carried, 2 + op.carried + op.scanned
    carried, scanned, captured = (
        node.inputs[2:first],
        node.inputs[first:second],
        node.inputs[second:],
    )
    floats = [is_float(x) for x in carried]
    slid, caught = wanted[first:second], wanted[second:]
    if trips == 0:
        return [None, None, *outers[1 : 1 + op.carried], *[None] * (len(scanned) + len(captured))]

    def backwards(x: Node) -> Node:
        return e.slice_axis(x, 0, trips - 1, trips, -1)

    items = e.items(node)
    states = [backwards(x) for x in items[len(items) - op.carried :]]
    rows = [backwards(x) for x in scanned]
    stack_outers = [None if x is None else backwards(x) for x in outers[1 + op.carried :]]
    turning = _filled(e, carried, outers[1 : 1 + op.carried])
    sums = [e.zeros(x) for x, want in zip(captured, caught, strict=True) if want]
    turned = _Backward(trips, floats, slid, caught, turning, sums, states, rows, stack_outers)
    body = turned.body(op, captured, pull)
    scans = [*states, *rows, *_present(stack_outers)]
    made = ops.Repeat(body, len(turning) + len(sums), len(scans), trips)
    count, going = e.builder.constant(trips, DType.I64), e.builder.constant(True, DType.BOOL)
    found = e.items(e.apply(made, count, going, *turning, *sums, *scans, *captured))[1:]
    by_captured = found[len(turning) : len(turning) + len(sums)]
    by_scanned = [
        e.pad_axis(backwards(x), 0, 0, op.limit - trips) for x in found[len(turning) + len(sums) :]
    ]
    return [
        *(None, None, *_spread(floats, found[: len(turning)])),
        *(*_spread(slid, by_scanned), *_spread(caught, by_captured)),
    ]


@dataclass(frozen=True)
class _Backward:
    """The loop that runs backward over another one of ``trips`` iterations.

    It carries ``turning``, the cotangents of the carried values that are ``floats``, and ``sums``,
    those of the ``caught`` captured values. It scans, last row first, the stored ``states``, the
    ``rows`` that the loop scanned, and the cotangents of its stacks. It stacks the cotangents of
    the ``slid`` rows.
    """

    trips: int
    floats: Sequence[bool]
    slid: Sequence[bool]
    caught: Sequence[bool]
    turning: Sequence[Node]
    sums: Sequence[Node]
    states: Sequence[Node]
    rows: Sequence[Node]
    stack_outers: Sequence[Maybe]

    def body(self, op: ops.Repeat, captured: Sequence[Node], pull: Pullback) -> Graph:
        """One iteration."""
        nested = Nested()
        (index,) = nested.take([TensorType(DType.I64, ())])
        turned, added = nested.take(_types(self.turning)), nested.take(_types(self.sums))
        state, row = (nested.take([_row(x) for x in part]) for part in (self.states, self.rows))
        outers = [None if x is None else nested.take([_row(x)])[0] for x in self.stack_outers]
        held = nested.take(_types(captured))
        last = nested.e.builder.constant(self.trips - 1, DType.I64)
        parts = pull(
            nested.e,
            op.body,
            [nested.e.binary("sub", last, index), *state, *row, *held],
            [None, *_spread(self.floats, turned), *outers],
            [False, *self.floats, *self.slid, *self.caught],
        )[1]
        first, second = 1 + op.carried, 1 + op.carried + op.scanned
        by_held = [x for x, want in zip(parts[second:], self.caught, strict=True) if want]
        slid = zip(row, parts[first:second], self.slid, strict=True)
        results = [
            nested.e.builder.constant(True, DType.BOOL),
            *_filled(nested.e, state, parts[1:first]),
            *(nested.e.add(a, b) or a for a, b in zip(added, by_held, strict=True)),
            *(part or nested.e.zeros(x) for x, part, want in slid if want),
        ]
        return nested.finish(op.body.name, results)
