"""Re-emission: a graph and what to change go in, an equal graph in a fresh builder comes out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node, Op, Parameter

Emit = Callable[[Builder, Node, Mapping[Node, Node]], Node | None]
"""Given the new builder, an old node and the map from old to new nodes: the new node, or None to
copy."""

Rule = Callable[["RuleBuilder", Op, tuple[Node, ...], str], Node | None]
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
        self._reads: Counter[Node] = Counter()

    def count_reads(self, node: Node, reads: int) -> None:
        """Record that ``node`` stands for a value that the old graph reads ``reads`` times."""
        self._reads[node] += reads

    def is_shared(self, node: Node) -> bool:
        """Whether the old graph reads ``node`` more than once, so that it will be computed
        anyway."""
        return self._reads[node] > 1

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
    for sentence, node in graph.checks:
        builder.check(new[node], sentence)
    return builder.finish(graph.name, ((name, new[node]) for name, node in graph.outputs))


def copy(builder: Builder, node: Node, new: Mapping[Node, Node]) -> None:
    """The `Emit` that changes nothing."""
    return None


def rewrite(graph: Graph, rules: Mapping[type[Op], Sequence[Rule]]) -> Graph:
    """``graph`` with ``rules`` (by kind of op) applied bottom-up until none applies any more."""
    reads = Counter(operand for node in graph.nodes() for operand in node.inputs)
    reads.update(node for _, node in (*graph.outputs, *graph.checks))
    rule_builder = RuleBuilder(rules)

    def emit(builder: Builder, node: Node, new: Mapping[Node, Node]) -> Node:
        made = builder.apply(node.op, *(new[x] for x in node.inputs), origin=node.origin)
        rule_builder.count_reads(made, reads[node])
        return made

    return reemit(graph, emit, rule_builder)
