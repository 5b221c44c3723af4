"""Re-emission: a graph and what to change go in, an equal graph in a fresh builder comes out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node, Op, Parameter

Emit = Callable[[Builder, Node, Mapping[Node, Node]], Node | None]
"""Given the new builder, an old node and the map from old to new nodes: the new node, or None to
copy."""

Rule = Callable[[Builder, Op, tuple[Node, ...], str], Node | None]
"""Given the builder, an op, its (new) operands and the origin: an equal node, or None when it does
not apply.

A rule must make progress: it never asks the builder for the very application it was given.
"""


class RuleBuilder(Builder):
    """A builder that tries its rules on every application, so whatever a rule builds is rewritten
    too."""

    def __init__(self, rules: Mapping[type[Op], Sequence[Rule]]) -> None:
        super().__init__()
        self._rules = rules
        self._rewritten: dict[tuple[object, ...], Node] = {}

    def apply(self, op: Op, *operands: Node, origin: str = "") -> Node:
        """The node for ``op(operands)`` after rewriting; the first rule that applies wins."""
        rules = self._rules.get(type(op))
        if not rules:
            return super().apply(op, *operands, origin=origin)
        # The operands are in the value's tuple of inputs or in the interning table: their ids stay
        # theirs.
        key = (op, *map(id, operands))
        known = self._rewritten.get(key)
        if known is not None:
            return known
        for rule in rules:
            node = rule(self, op, operands, origin)
            if node is not None:
                break
        else:
            node = super().apply(op, *operands, origin=origin)
        self._rewritten[key] = node
        return node


def reemit(graph: Graph, emit: Emit, builder: Builder | None = None) -> Graph:
    """``graph`` again, node by node, operands first; ``emit`` replaces the nodes it has an answer
    for.

    Inputs keep their order even when nothing reads them. Constants are shared, never copied or
    hashed. """
    builder = builder or Builder()
    new: dict[Node, Node] = {}
    for node in graph.inputs:
        assert isinstance(node.op, Parameter)
        new[node] = builder.parameter(node.op.name, node.type)
    for node in graph.nodes():
        if node in new:
            continue
        if node.data is not None:
            new[node] = builder.reuse_constant(node)
            continue
        made = emit(builder, node, new)
        if made is None:
            operands = (new[operand] for operand in node.inputs)
            made = builder.apply(node.op, *operands, origin=node.origin)
        new[node] = made
    return builder.finish(graph.name, ((name, new[node]) for name, node in graph.outputs))


def copy(builder: Builder, node: Node, new: Mapping[Node, Node]) -> None:
    """The `Emit` that changes nothing."""
    return None


def rewrite(graph: Graph, rules: Mapping[type[Op], Sequence[Rule]]) -> Graph:
    """``graph`` with ``rules`` (by kind of op) applied bottom-up until none applies any more."""
    return reemit(graph, copy, RuleBuilder(rules))
