"""Loops of any kind: a `Plan` goes in, the carried values after the loop and what it collected come
out of a `Repeat`, or of the iterations one after the other.

A `Repeat` needs one form for the carried values of all iterations. Iterations imported one by one
do not: sequences grow, shapes change, and what an iteration computes from its own number is
constant. That is the way out where the number of iterations is bounded and small.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx

from aotc.errors import AotcError, ModelError, UnsupportedError
from aotc.frontend.bodies import Body
from aotc.frontend.folding import FoldingBuilder, known_value
from aotc.frontend.layouts import (
    FLAG,
    SIZE,
    Layout,
    SequenceLayout,
    TensorLayout,
    assemble,
    assemble_all,
    bounded,
    choose,
    describe,
    join,
    layout_of,
    parts,
    types,
)
from aotc.frontend.onnx_ops.call import Call
from aotc.frontend.order import subgraphs
from aotc.frontend.values import Ragged, Value
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType, TensorType

MAX_UNROLLED = 10_000
"""As many ONNX nodes may be imported for a loop whose iterations come one after the other, times
those of the loops around it that do too."""

FEW = 2
"""So many iterations always come one after the other: a loop around them costs more."""

ROUNDS = 5
"""How often the carried values may find a larger form."""


@dataclass(frozen=True)
class Plan:
    """One loop around ``graph``, an attribute of the node ``call``.

    It goes on until ``trips`` iterations (i64[]) are done or the condition fails; ``going``
    (bool[]) is the condition before the first. ``limit`` is the most iterations (None: unknown).
    ``carried`` are the initial values, ``scanned`` tensors whose first axis is the iteration,
    ``collected`` says for each further output of the graph whether somebody reads its rows.
    ``conditional``: the graph takes the iteration and the condition first, and gives the condition
    first. ``padded``: rows of iterations that do not run are zeros, not cut off.
    """

    call: Call
    graph: onnx.GraphProto
    trips: Node
    going: Node
    limit: int | None
    carried: tuple[Value, ...]
    scanned: tuple[Node, ...]
    collected: tuple[bool, ...]
    conditional: bool
    padded: bool = False

    @property
    def exact(self) -> bool:
        """Whether ``limit`` iterations run as long as the condition holds."""
        trips = known_value(self.trips)
        return trips is not None and self.limit is not None and int(trips) <= self.limit

    def step(
        self, index: Node, carried: Sequence[Value], slices: Sequence[Node], body: Body | None
    ) -> tuple[Node, list[Value], list[Value]]:
        """One iteration, here or in ``body``: the condition after it, the carried values, the rows
        that somebody reads."""
        builder = self.call.builder if body is None else body.builder
        yes = builder.constant(True, DType.BOOL)
        # the graph runs only while the condition holds
        first = [index, yes] if self.conditional else []
        names = [info.name for info in self.graph.output]
        fixed = len(names) - len(self.collected)
        used = zip(names[fixed:], self.collected, strict=True)
        names = [*names[:fixed], *(name for name, read in used if read)]
        values = self.call.subgraph(self.graph, [*first, *carried, *slices], names, body)
        going: Value = yes
        if self.conditional:
            going, *values = values
        if not isinstance(going, Node) or (going.type.dtype, going.type.elems) != (DType.BOOL, 1):
            raise ModelError("its body must give one bool as the condition")
        count = len(self.carried)
        return builder.reshape(going, ()), values[:count], values[count:]


def iterate(plan: Plan) -> tuple[list[Value], list[Value]]:
    """The carried values after the loop, and the collected rows, one value for each that somebody
    reads. AotcError says what stands in the way."""
    weight = _weight(plan.graph) * plan.call.builder.copies
    affordable = plan.limit is not None and weight * plan.limit <= MAX_UNROLLED
    if plan.limit == 0 or _is(plan.going, False):
        return _nothing(plan)
    if affordable and plan.exact and plan.limit is not None and plan.limit <= FEW:
        return _unrolled(plan, plan.limit)
    if not affordable or plan.limit is None:
        return _repeated(plan)
    try:
        with plan.call.trial():
            return _repeated(plan)
    except AotcError:
        return _unrolled(plan, plan.limit)


def _is(node: Node, value: bool) -> bool:
    return node.data is not None and bool(node.data) is value


def _weight(graph: onnx.GraphProto) -> int:
    """How many nodes one import of ``graph`` takes."""
    return 1 + sum(1 + sum(map(_weight, subgraphs(node))) for node in graph.node)


def _nothing(plan: Plan) -> tuple[list[Value], list[Value]]:
    """No iteration at all: rows of the right kind, none of them."""
    *_, rows = _in_body(plan, [layout_of(value) for value in plan.carried])
    builder = plan.call.builder
    empty: list[Value] = []
    for row in rows:
        (type_, *_) = _row_types(row)
        count = plan.scanned[0].shape[0] if plan.padded else 0
        zero = builder.constant(0, type_.dtype)
        empty.append(builder.broadcast(zero, (count, *type_.dims)))
    return list(plan.carried), empty


def _row_types(row: Value) -> list[TensorType]:
    layout = layout_of(row)
    if not isinstance(layout, TensorLayout):
        raise UnsupportedError(
            f"it collects {describe(layout)} from each iteration",
            remedy="only tensors can be collected: rewrite this part of the model",
        )
    return types(layout)


# One body for all iterations.


def _in_body(
    plan: Plan, layouts: Sequence[Layout]
) -> tuple[Body, list[Node], Node, list[Value], list[Value]]:
    """The loop's graph as a body: its own inputs (the iteration, the carried values, the slices),
    the condition, the carried values, the rows."""
    body = Body(plan.call.builder)
    index = body.parameter(SIZE)
    if plan.limit:
        body.builder.limits[index] = (0, plan.limit - 1)
    carried = [body.parameter(type_) for layout in layouts for type_ in types(layout)]
    slices = [body.parameter(TensorType(x.type.dtype, x.shape[1:])) for x in plan.scanned]
    state = assemble_all(body.builder, layouts, carried)
    going, after, rows = plan.step(index, state, slices, body)
    return body, [index, *carried, *slices], going, after, rows


def _repeated(plan: Plan) -> tuple[list[Value], list[Value]]:
    call = plan.call
    if plan.limit is None and (any(plan.collected) or plan.scanned):
        raise unbounded(call, "the number of its iterations is known at run time only")
    layouts = [layout_of(value) for value in plan.carried]
    for round_ in range(ROUNDS):
        importing = _again if round_ else _in_body
        body, own, going, after, rows = importing(plan, layouts)
        joint = [join(a, layout_of(b)) for a, b in zip(layouts, after, strict=True)]
        if round_ > 2:
            joint = [_clipped(a, b) for a, b in zip(joint, layouts, strict=True)]
        if joint == layouts:
            break
        if round_ == 2:
            pairs = enumerate(zip(layouts, joint, strict=True))
            joint = [_widened(plan, place, *pair) for place, pair in pairs]
        layouts = joint
    else:
        raise UnsupportedError(
            "a value that it carries has a different form after each iteration",
            remedy="make its shape the same in all iterations",
        )
    return _finish(plan, layouts, body, own, going, after, rows)


def _again(
    plan: Plan, layouts: Sequence[Layout]
) -> tuple[Body, list[Node], Node, list[Value], list[Value]]:
    """`_in_body` with carried values in a larger form than they have at first."""
    call = plan.call
    try:
        with call.trial():
            return _in_body(plan, layouts)
    except UnsupportedError as error:
        raise UnsupportedError(
            f"the form of a value that it carries changes between iterations, and inside: "
            f"{error.message}",
            remedy=f"give the most iterations, if they are few: --max {call.origin}=N",
        ) from None


def _finish(
    plan: Plan,
    layouts: Sequence[Layout],
    body: Body,
    own: list[Node],
    going: Node,
    after: Sequence[Value],
    rows: Sequence[Value],
) -> tuple[list[Value], list[Value]]:
    call, builder = plan.call, plan.call.builder
    keeps = bool(rows or plan.scanned or plan.exact)
    limit = plan.limit if keeps and plan.limit is not None else ops.UNLIMITED
    endless = _is(going, True)
    # a loop that may be cut off at its limit carries its last condition, which tells
    watched = limit != ops.UNLIMITED and not plan.exact and not endless
    state = [x for pair in zip(after, layouts, strict=True) for x in parts(body.builder, *pair)]
    initial = [x for pair in zip(plan.carried, layouts, strict=True) for x in parts(builder, *pair)]
    if watched:
        initial.append(plan.going)
        own.insert(1 + len(state), body.parameter(FLAG))
        state.append(going)
    collected = [x for row in rows for x in _row_parts(body.builder, row)]
    captured = body.captured
    graph = body.finish(f"{call.origin}/body", own, captured, [going, *state, *collected])
    op = ops.Repeat(graph, len(state), len(plan.scanned), limit)
    loop = call.apply(op, plan.trips, plan.going, *initial, *plan.scanned, *captured)
    count = 1 + len(state) + len(collected)
    done, *items = [call.apply(ops.Item(place), loop) for place in range(count)]
    if limit != ops.UNLIMITED and not plan.exact:
        last = items[len(state) - 1] if watched else plan.going
        _expect_within(builder, plan, limit, last)
    exact = plan.exact and endless and _is(plan.going, True)
    stacks = iter(items[len(state) :])
    results = [_stacked(call, plan, row, stacks, limit if exact else done) for row in rows]
    return assemble_all(builder, layouts, items[: len(state)]), results


def _expect_within(builder: FoldingBuilder, plan: Plan, limit: int, last: Node) -> None:
    """The loop must not have more to do than ``limit`` iterations when ``last`` holds."""
    most = builder.constant(limit, DType.I64)
    fits = builder.compare("le", plan.trips, most)
    within = fits if _is(last, True) else builder.binary("or", fits, builder.unary("not", last))
    builder.check(within, f"node '{plan.call.origin}' needs more than {limit} iterations")


def _row_parts(builder: FoldingBuilder, row: Value) -> list[Node]:
    _row_types(row)
    return parts(builder, row, layout_of(row))


def _stacked(
    call: Call, plan: Plan, row: Value, stacks: Iterator[Node], done: int | Node
) -> Value:
    """The tensor of all rows from the stacks of their parts: ``done`` of them are real."""
    node = next(stacks)
    assert isinstance(row, Node | Ragged)
    inner = row.extents if isinstance(row, Ragged) else row.shape
    sizes: list[int | Node] = [node.shape[0] if plan.padded else done]
    for size in inner:
        if isinstance(size, Node):
            # all rows have one shape: that of the first
            first = call.slice_axis(next(stacks), 0, 0, 1)
            size = call.reshape(first, ())
        sizes.append(size)
    if all(isinstance(size, int) for size in sizes):
        return node
    return bounded(call.builder, Ragged(node, tuple(sizes)))


def _clipped(joint: Layout, layout: Layout) -> Layout:
    """``joint`` where a ragged size may be cut to that of ``layout``: a check sees to it."""
    if not isinstance(joint, TensorLayout) or not isinstance(layout, TensorLayout):
        return joint
    triples = zip(joint.type.dims, layout.type.dims, layout.ragged, strict=True)
    dims = tuple(most if ragged else size for size, most, ragged in triples)
    return TensorLayout(TensorType(joint.type.dtype, dims), joint.ragged)


def _widened(plan: Plan, place: int, before: Layout, after: Layout) -> Layout:
    """``after`` with room for as much growth as all iterations bring, as from ``before`` to
    ``after`` in each."""
    call = plan.call
    if before == after:
        return after
    if isinstance(after, SequenceLayout):
        raise UnsupportedError(
            "a sequence that it carries grows with each iteration",
            remedy=f"give the most iterations: --max {call.origin}=N",
        )
    if not isinstance(before, TensorLayout) or not isinstance(after, TensorLayout):
        return after
    declared = call.declared_dims(place)
    sizes = []
    for axis, (old, new) in enumerate(zip(before.type.dims, after.type.dims, strict=True)):
        size = new
        if new > old:
            named = call.bounds.get(call.outputs[place]) if place < len(call.outputs) else None
            if named is not None:
                size = max(old, named)
            elif declared is not None and len(declared) == after.type.rank:
                size = max(old, declared[axis])
            elif plan.limit is not None:
                size = old + (new - old) * plan.limit
            else:
                raise unbounded(call, "the shape of a value that it carries grows", place)
        sizes.append(size)
    return TensorLayout(TensorType(after.type.dtype, tuple(sizes)), after.ragged)


def unbounded(call: Call, reason: str, output: int | None = None) -> UnsupportedError:
    """The refusal of a loop without a bound."""
    name = call.origin if output is None else call.outputs[output]
    return UnsupportedError(reason, remedy=f"give the most that it can be: --max {name}=N")


# One iteration after the other.


def _unrolled(plan: Plan, limit: int) -> tuple[list[Value], list[Value]]:
    builder = plan.call.builder
    copies = builder.copies
    builder.copies = copies * limit
    try:
        return _one_by_one(plan, limit)
    finally:
        builder.copies = copies


def _one_by_one(plan: Plan, limit: int) -> tuple[list[Value], list[Value]]:
    call, builder = plan.call, plan.call.builder
    active = _both(builder, plan.going, _reaches(plan, 0))
    actives: list[Node] = []
    states = [list(plan.carried)]
    rows: list[list[Value]] = []
    for step in range(limit):
        if _is(active, False):
            break
        index = builder.constant(step, DType.I64)
        with builder.guarded(active):
            slices = [
                call.reshape(call.slice_axis(x, 0, step, 1), x.shape[1:]) for x in plan.scanned
            ]
            going, state, row = plan.step(index, states[-1], slices, None)
        actives.append(active)
        states.append(state)
        rows.append(row)
        active = _both(builder, active, _both(builder, going, _reaches(plan, step + 1)))
    if not _is(active, False):
        ended = builder.unary("not", active)
        builder.check(ended, f"node '{call.origin}' needs more than {limit} iterations")
    results = states[0]
    for active, state in zip(actives, states[1:], strict=True):
        # the last iteration that runs has the final values, and all before it run
        pairs = zip(state, results, strict=True)
        results = [choose(builder, active, new, old) for new, old in pairs]
    done = _count(builder, actives)
    columns = list(zip(*rows, strict=True))
    return results, [_joined(plan, column, actives, done) for column in columns]


def _both(builder: FoldingBuilder, a: Node, b: Node) -> Node:
    """``a and b``, without a node where one of them is known."""
    for known, other in ((a, b), (b, a)):
        if known.data is not None:
            return other if known.data else known
    return builder.binary("and", a, b)


def _reaches(plan: Plan, step: int) -> Node:
    """Whether the trip count lets iteration ``step`` run."""
    builder = plan.call.builder
    return builder.compare("gt", plan.trips, builder.constant(step, DType.I64))


def _count(builder: FoldingBuilder, actives: Sequence[Node]) -> int | Node:
    """How many of ``actives`` hold."""
    sure = sum(_is(active, True) for active in actives)
    open_ = [active for active in actives if active.data is None]
    if not open_:
        return sure
    flags = [builder.reshape(active, (1,)) for active in open_]
    ones = builder.cast(builder.concat(flags, 0), DType.I64)
    total = builder.reduce("sum", ones, (0,), False)
    return builder.binary("add", total, builder.constant(sure, DType.I64)) if sure else total


def _joined(
    plan: Plan, column: Sequence[Value], actives: Sequence[Node], done: int | Node
) -> Value:
    """The tensor of the rows in ``column``, each real while its iteration is active."""
    call, builder = plan.call, plan.call.builder
    for row in column:
        _row_types(row)
    layout = layout_of(column[0])
    for row in column[1:]:
        layout = join(layout, layout_of(row))
    assert isinstance(layout, TensorLayout)
    stacks = [parts(builder, row, layout) for row in column]
    for active, nodes in zip(actives, stacks, strict=True):
        for size, first in zip(nodes[1:], stacks[0][1:], strict=True):
            with builder.guarded(active):
                same = builder.compare("eq", size, first)
                builder.check(same, f"node '{call.origin}' collects tensors of different shapes")
    boxes = [nodes[0] for nodes in stacks]
    count = plan.scanned[0].shape[0] if plan.padded else len(boxes)
    if plan.padded:
        zero = call.scalar(0, boxes[0])
        pairs = zip(actives, boxes, strict=True)
        boxes = [x if _is(active, True) else call.select(active, x, zero) for active, x in pairs]
        rest = call.broadcast(zero, boxes[0].shape)
        boxes += [rest] * (count - len(boxes))
    node = call.concat([call.reshape(x, (1, *x.shape)) for x in boxes], 0)
    sizes = assemble(layout, iter(stacks[0]))
    inner: tuple[int | Node, ...] = layout.type.dims
    if isinstance(sizes, Ragged):
        inner = sizes.extents
    extents = (count if plan.padded or done == count else done, *inner)
    if all(isinstance(size, int) for size in extents):
        return node
    return bounded(builder, Ragged(node, extents))
