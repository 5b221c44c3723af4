"""CONTROL groups: Branch and Repeat become steps that hold the steps of their nested graphs.

Results are written where they are wanted: the outputs of both branches into the views of the items,
slices of stacks into their rows, and the next value of a carried tensor over the present one where
nothing reads that any more. Slices of scanned operands are read where they lie.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from aotc.fuse.groups import VIEW_OPS, Group, GroupKind
from aotc.graph import ops
from aotc.graph.ir import Constant, Node, Parameter
from aotc.graph.types import DType, TupleType
from aotc.loop.program import Arg, Counter, If, Loop, Step
from aotc.lower.context import Context, scalar_value
from aotc.lower.pointwise import fill
from aotc.lower.views import View

LowerBlock = Callable[[Context], None]
"""Emits the steps of a context's graph."""


def lower_control(context: Context, group: Group, lower_block: LowerBlock) -> None:
    """Emits the step of a Branch or Repeat; ``lower_block`` does the nested graphs."""
    node = group.anchor
    if isinstance(node.op, ops.Branch):
        _lower_branch(context, node, node.op, lower_block)
    else:
        assert isinstance(node.op, ops.Repeat)
        _Repeat(context, node, node.op).lower(lower_block)


def made_by(node: Node) -> Node:
    """The node that gives ``node`` its values, views and items looked through."""
    while isinstance(node.op, (*VIEW_OPS, ops.Item)):
        (node,) = node.inputs
    return node


def bind_result(context: Context, node: Node, view: View) -> bool:
    """Lets ``node`` be written into ``view``; False when it is not computed here, or has a place
    already."""
    node, view = _computed(node, view)
    foreign = isinstance(node.op, (Parameter, Constant, *VIEW_OPS))
    if foreign or context.is_bound(node):
        return False
    context.bind(node, view)
    return True


def _computed(node: Node, view: View) -> tuple[Node, View]:
    """The node that has the elements of ``node`` in the same order, other types and shapes looked
    through, and how it lies when ``node`` lies as ``view``."""
    while isinstance(node.op, (ops.Relabel, ops.Reshape)):
        (source,) = node.inputs
        same = view.reshape(source.shape)
        if same is None:
            break
        node, view = source, same
    return node, view


def _items(context: Context, node: Node) -> dict[int, Node]:
    """The items of a control node's result that something reads, by index."""
    return {
        user.op.index: user
        for user in context.graph.nodes()
        if isinstance(user.op, ops.Item) and user.inputs[0] is node
    }


def _lower_branch(
    context: Context, node: Node, op: ops.Branch, lower_block: LowerBlock
) -> None:
    items = _items(context, node)
    condition, *operands = [context.view(operand) for operand in node.inputs]
    results = {index: context.view(item) for index, item in items.items()}
    ways: list[tuple[Step, ...]] = []
    for graph in (op.then, op.other):
        inner = context.nested(graph)
        for parameter, view in zip(graph.inputs, operands, strict=True):
            inner.bind(parameter, view)
        late: list[tuple[Node, View]] = []
        for index, view in results.items():
            made = graph.outputs[index][1]
            if made_by(made) in graph.inputs:
                inner.copy(inner.view(made), view)  # before another result takes its place
            elif not bind_result(inner, made, view):
                late.append((made, view))
        lower_block(inner)
        for made, view in late:
            inner.copy(inner.view(made), view)
        ways.append(tuple(inner.steps))
    context.emit(If(condition.arg, ways[0], ways[1]))


@dataclass(frozen=True)
class _Operands:
    """The operands of a Repeat by what they are for."""

    trips: Node
    start: Node
    carried: tuple[Node, ...]
    scanned: tuple[Node, ...]
    captured: tuple[Node, ...]


class _Repeat:
    """One loop under construction.

    A carried tensor lives in one place, where the loop also leaves its final value. What an output
    of the body shows of a carried tensor's present value is copied before the body runs, everything
    else that is not computed in its place after it; so the copies may come in any order.
    """

    def __init__(self, context: Context, node: Node, op: ops.Repeat) -> None:
        self.context = context
        self.op = op
        self.body = op.body
        split = 2 + op.carried
        trips, start, *rest = node.inputs
        self.operands = _Operands(
            trips,
            start,
            tuple(rest[: op.carried]),
            tuple(rest[op.carried : op.carried + op.scanned]),
            tuple(rest[split - 2 + op.scanned :]),
        )
        self.items = _items(context, node)
        assert isinstance(node.type, TupleType)
        self.types = node.type.items
        self.counter = Counter(f"i{next(context.numbers)}")
        known = scalar_value(trips)
        self.limit = op.limit if known is None else max(0, min(op.limit, int(known)))
        self.trips = None if known is not None else context.view(trips).arg
        self.inner = context.nested(self.body)
        self.state = [self._place(1 + k) for k in range(op.carried)]
        self.stacks = [self._place(1 + op.carried + k) for k in range(op.stacked)]

    def _place(self, index: int) -> View:
        """Where item ``index`` of the result lies."""
        if index in self.items:
            return self.context.view(self.items[index])
        type_ = self.types[index]
        return self.context.temporary(type_.dtype.machine, type_.dims, "unread")

    def lower(self, lower_block: LowerBlock) -> None:
        going = self._start()
        index: Arg | None = None
        body: tuple[Step, ...] = ()
        if self.limit:  # without iterations there may be no rows that a step could speak of
            index = self._bind_parameters()
            body = self._lower_body(going, lower_block)
        done = self._place(0).arg if 0 in self.items else None
        self.context.emit(
            Loop(
                self.counter,
                self.limit,
                body,
                self.trips,
                None if going is None else going.arg,
                index,
                done,
            )
        )

    def _start(self) -> View | None:
        """Emits what comes before the loop: initial values, zeros where rows may stay unwritten.
        Gives where the condition lies, if there is one."""
        context = self.context
        for operand, place in zip(self.operands.carried, self.state, strict=True):
            context.copy(context.view(operand), place)
        start = scalar_value(self.operands.start)
        proceed = scalar_value(self.body.outputs[0][1])
        going = None
        if not proceed:
            going = context.temporary(DType.BOOL, (), "going")
            context.copy(context.view(self.operands.start), going)
        elif not start:
            going = context.view(self.operands.start)
        first = self.limit if self.trips is None and going is None else 0
        for stack in self.stacks:
            if first < stack.shape[0]:
                rest = (stack.shape[0] - first, *stack.shape[1:])
                starts = (first, *(0 for _ in stack.shape[1:]))
                fill(context, stack.interior(starts, rest), 0)
        return going

    def _bind_parameters(self) -> Arg | None:
        """Binds the inputs of the body; gives where the number of the iteration is stored, if
        anything reads it."""
        index, *others = self.body.inputs
        slices = [self.context.view(x).row(self.counter) for x in self.operands.scanned]
        views = [*self.state, *slices, *(self.context.view(x) for x in self.operands.captured)]
        for parameter, view in zip(others, views, strict=True):
            self.inner.bind(parameter, view)
        ends = [node for _, node in (*self.body.outputs, *self.body.checks)]
        if index not in ends and not self.body.users()[index]:
            return None
        place = self.context.temporary(DType.I64, (), "iteration")
        self.inner.bind(index, place)
        return place.arg

    def _lower_body(self, going: View | None, lower_block: LowerBlock) -> tuple[Step, ...]:
        inner, op = self.inner, self.op
        (_, condition), *others = self.body.outputs
        nodes = [node for _, node in others]
        present = self.body.inputs[1 : 1 + op.carried]
        rows = [stack.row(self.counter) for stack in self.stacks]
        late: list[tuple[Node, View]] = []
        staged: list[tuple[View, View]] = []
        for node, place, parameter in zip(nodes, self.state, present, strict=False):
            if node is parameter:
                continue
            if made_by(node) in present:
                kept = inner.temporary(place.dtype, place.shape, "next")
                inner.copy(inner.view(node), kept)
                staged.append((kept, place))
            elif not _may_replace(inner, node, parameter, place) or not bind_result(
                inner, node, place
            ):
                late.append((node, place))
        wanted = list(zip(nodes[op.carried :], rows, strict=True))
        if scalar_value(condition) is None or not scalar_value(condition):
            assert going is not None
            wanted.append((condition, going))
        for node, place in wanted:
            if made_by(node) in present:
                inner.copy(inner.view(node), place)
            elif not bind_result(inner, node, place):
                late.append((node, place))
        lower_block(inner)
        for node, place in late:
            inner.copy(inner.view(node), place)
        for kept, place in staged:
            inner.copy(kept, place)
        return tuple(inner.steps)


def _may_replace(context: Context, node: Node, parameter: Node, place: View) -> bool:
    """Whether ``node``, the next value of ``parameter``, may be written over its present one, which
    lies at ``place``: nothing reads that later, and nothing but an elementwise kernel, or a branch
    that keeps to this itself, at the same time."""
    groups = context.groups.groups
    node, place = _computed(node, place)
    source = made_by(node) if isinstance(node.op, ops.Item) else node
    made = next((i for i, group in enumerate(groups) if source in group.results), None)
    readers = [i for i, group in enumerate(groups) if parameter in _read_by(group)]
    if not readers:
        return True
    if made is None or max(readers) > made or isinstance(node.op, (ops.Pad, ops.Concat)):
        return False  # the operands of the last two are written into their places early
    if max(readers) < made:
        return True
    group = groups[made]
    if isinstance(source.op, ops.Branch):
        return _ways_may_replace(context, node, source, parameter, place)
    operands = context.operands(group.nodes, group.nodes)
    views = [context.view(x) for x in operands if made_by(x) is parameter]
    return _is_elementwise(group, node, parameter) and all(view == place for view in views)


def _ways_may_replace(
    context: Context, item: Node, branch: Node, parameter: Node, place: View
) -> bool:
    """Whether both graphs of ``branch`` may write their output ``item`` over ``parameter``."""
    assert isinstance(branch.op, ops.Branch) and isinstance(item.op, ops.Item)
    entries = [i for i, x in enumerate(branch.inputs) if made_by(x) is parameter]
    if len(entries) != 1 or not entries[0] or branch.inputs[entries[0]] is not parameter:
        return False
    for graph in (branch.op.then, branch.op.other):
        inside, end = graph.inputs[entries[0] - 1], graph.outputs[item.op.index][1]
        if end is inside:
            continue
        if made_by(end) in graph.inputs:
            return False  # it is copied early, while the other may still be read
        trial = context.nested(graph)
        trial.bind(inside, place)
        if not _may_replace(trial, end, inside, place):
            return False
    return True


def _is_elementwise(group: Group, node: Node, parameter: Node) -> bool:
    """Whether the group's kernel reads each element of ``parameter`` for the last time before it
    stores the same element of ``node``, one of its results."""
    if group.kind is GroupKind.GATES:
        order = {member: i for i, member in enumerate(group.nodes)}
        if made_by(group.anchor.inputs[0]) is parameter:
            return False
        # Results are stored in order; what a later one is made of is read again for it, down to the
        # results before.
        seen: set[Node] = set()
        work = [result for result in group.results if order[result] > order[node]]
        while work:
            for operand in work.pop().inputs:
                if made_by(operand) is parameter:
                    return False
                if operand in order and operand not in (*seen, *group.others):
                    seen.add(operand)
                    work.append(operand)
        return True
    if isinstance(group.anchor.op, (ops.ScatterElements, ops.ScatterND)):
        # the data stay where they are, and the updates are stored
        return all(made_by(x) is not parameter for x in group.anchor.inputs[1:])
    return group.kind is GroupKind.MAP


def _read_by(group: Group) -> set[Node]:
    """What makes the operands of a group, views and items looked through."""
    return {made_by(operand) for node in group.nodes for operand in node.inputs}
