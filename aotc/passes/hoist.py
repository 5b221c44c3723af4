"""Hoisting: a loop goes in; what all its iterations compute alike is computed once before it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node, Parameter

_VIEWS = (ops.Reshape, ops.Transpose, ops.Slice, ops.Broadcast, ops.Iota)


def hoist(
    builder: Builder, op: ops.Repeat, values: Sequence[Node], is_known: Callable[[Node], bool]
) -> tuple[ops.Repeat, list[Node]]:
    """The loop with more captured values, and its operands after the trip count and the condition.

    What depends on nothing but captured values, and on carried ones that never change, moves out;
    not control flow, which may not end, not views, which cost nothing inside, and not what
    ``is_known`` operands alone decide, which will be constants inside. A loop that does not run has
    computed in vain, but nothing that it computes can fail.
    """
    body = op.body
    alike = _alike(op)
    constants = {x for x, value in zip(body.inputs[1:], values, strict=True) if is_known(value)}
    frontier = _frontier(body, alike, constants & alike)
    if not frontier:
        return op, list(values)
    new = {node: values[i - 1] for i, node in enumerate(body.inputs) if i and node in alike}
    wanted = Graph(body.name, (), tuple(("", node) for node in frontier))
    copy_into(builder, wanted, new)
    inside = Builder()
    inner: dict[Node, Node] = {}
    taken = set()
    for node in body.inputs:
        assert isinstance(node.op, Parameter)
        inner[node] = inside.parameter(node.op.name, node.type)
        taken.add(node.op.name)
    number = 0
    for node in frontier:
        while f"hoisted{number}" in taken:
            number += 1
        inner[node] = inside.parameter(f"hoisted{number}", node.type)
        number += 1
    copy_into(inside, body, inner)
    for sentence, node in body.checks:
        inside.check(inner[node], sentence)
    rebuilt = inside.finish(body.name, ((name, inner[node]) for name, node in body.outputs))
    moved = ops.Repeat(rebuilt, op.carried, op.scanned, op.limit)
    return moved, [*values, *(new[node] for node in frontier)]


def copy_into(builder: Builder, graph: Graph, new: dict[Node, Node]) -> None:
    """Emits every node of ``graph`` that is not in ``new`` yet."""
    for node in graph.nodes():
        if node in new:
            continue
        if node.data is not None:
            new[node] = builder.reuse_constant(node)
        else:
            operands = (new[operand] for operand in node.inputs)
            new[node] = builder.apply(node.op, *operands, origin=node.origin)


def _alike(op: ops.Repeat) -> set[Node]:
    """The nodes of the body that have one value in all iterations, constants among them."""
    body = op.body
    ends = [node for _, node in body.outputs]
    fixed = [x for k, x in enumerate(body.inputs[1 : 1 + op.carried]) if ends[1 + k] is x]
    alike = {*fixed, *body.inputs[1 + op.carried + op.scanned :]}
    varying = set(body.inputs) - alike
    for node in body.nodes():
        if node in varying:
            continue
        control = isinstance(node.op, (ops.Branch, ops.Repeat, ops.Item))
        if not control and all(operand in alike for operand in node.inputs):
            alike.add(node)
    return alike


def _frontier(body: Graph, alike: set[Node], constants: set[Node]) -> list[Node]:
    """What is computed alike, not of ``constants`` alone, and read, views looked through, by
    something that is not alike."""
    known = set(constants)
    for node in body.nodes():
        if node.data is not None or (node.inputs and all(x in known for x in node.inputs)):
            known.add(node)
    roots = [node for _, node in (*body.outputs, *body.checks)]
    roots += [x for node in body.nodes() if node not in alike for x in node.inputs]
    found: dict[Node, None] = {}
    seen: set[Node] = set()
    while roots:
        node = roots.pop()
        if node not in alike or node in known or node in seen:
            continue
        seen.add(node)
        if isinstance(node.op, _VIEWS):
            roots += node.inputs
        elif node.inputs:
            found[node] = None
    order = {node: i for i, node in enumerate(body.nodes())}
    return sorted(found, key=order.__getitem__)
