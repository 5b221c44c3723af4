"""Forward and reverse mode on a graph: nodes for its inputs and tangents or cotangents in, nodes
for its outputs and theirs out.

First every active primitive that has no rule of its own becomes primitives that have one. Then
forward mode walks the graph once and carries tangents along; reverse mode emits the values, walks
back and adds up cotangents. What is zero everywhere stays None and costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from aotc.autodiff import control
from aotc.autodiff.emit import Emit, Maybe, is_float, not_supported, parameters
from aotc.autodiff.rule import Rule
from aotc.autodiff.tables import EXPAND, NOT_DIFFERENTIABLE, RULES, Expand
from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Constant, Graph, Node, Op
from aotc.graph.types import TupleType

Back = Callable[[Sequence[Maybe]], list[Maybe]]
"""Cotangents of the outputs in, those of the inputs out; None where they are zero or not asked
for."""


def active_nodes(graph: Graph, wanted: Sequence[bool]) -> set[Node]:
    """What depends on a wanted input by way of floats (and of tuples, which may hold some)."""
    chosen = zip(graph.inputs, wanted, strict=True)
    active = {node for node, want in chosen if want and is_float(node)}
    for node in graph.nodes():
        carries = isinstance(node.type, TupleType) or is_float(node)
        if carries and any(operand in active for operand in node.inputs):
            active.add(node)
    return active


def _expanded(
    graph: Graph, wanted: Sequence[bool], expand: Mapping[type[Op], Expand]
) -> tuple[Graph, set[Node]]:
    """``graph`` with its active nodes as ``expand`` makes them, and what is active in the result.
    Nested graphs are not entered."""
    e = Emit(Builder())
    active = active_nodes(graph, wanted)
    places: dict[Node, Node] = dict(zip(graph.inputs, parameters(e.builder, graph), strict=True))
    for node in e.from_each(graph.nodes()):
        if node in places:
            continue
        made = e.leaf_or_apply(node, [places[x] for x in node.inputs])
        rule = expand.get(type(node.op)) if node in active else None
        places[node] = (rule(e, made) if rule else None) or made
    for sentence, node in graph.checks:
        e.builder.check(places[node], sentence)
    result = e.builder.finish(graph.name, [(name, places[x]) for name, x in graph.outputs])
    return result, active_nodes(result, wanted)


def _rule_of(node: Node) -> Rule:
    rule = RULES.get(type(node.op))
    if rule is None:
        reason = NOT_DIFFERENTIABLE[type(node.op)]
        raise not_supported(
            f"it has no derivative: {reason}", node, "differentiate by inputs it does not depend on"
        )
    return rule


def pushforward(
    e: Emit, graph: Graph, operands: Sequence[Node], tangents: Sequence[Maybe]
) -> tuple[list[Node], list[Maybe]]:
    """The outputs of ``graph`` on ``operands`` and their tangents, emitted by ``e``.

    ``tangents`` has one entry for each input, of its type. UnsupportedError when the outputs depend
    on a primitive that has no derivative."""
    wanted = [tangent is not None for tangent in tangents]
    graph, active = _expanded(graph, wanted, EXPAND)
    places = dict(zip(graph.inputs, operands, strict=True))
    moved: dict[Node, Maybe] = dict(zip(graph.inputs, tangents, strict=True))
    tuples: dict[Node, tuple[list[Node], list[Maybe]]] = {}
    for node in e.from_each(graph.nodes()):
        if node in places:
            continue
        if isinstance(node.op, ops.Item) and node.inputs[0] in tuples:
            values, derivatives = tuples[node.inputs[0]]
            places[node], moved[node] = values[node.op.index], derivatives[node.op.index]
            continue
        here = [places[x] for x in node.inputs]
        given = [moved.get(x) for x in node.inputs]
        if node in active and isinstance(node.type, TupleType):
            tuples[node] = control.jvp(e, node.op, here, given, pushforward)
            continue
        places[node] = e.leaf_or_apply(node, here)
        if node in active and any(tangent is not None for tangent in given):
            moved[node] = _rule_of(node).jvp(e, places[node], given)
    _emit_checks(e, graph, places)
    outputs = [node for _, node in graph.outputs]
    return [places[node] for node in outputs], [moved.get(node) for node in outputs]


def pullback(
    e: Emit,
    graph: Graph,
    operands: Sequence[Node],
    cotangents: Sequence[Maybe],
    wanted: Sequence[bool],
) -> tuple[list[Node], list[Maybe]]:
    """The outputs of ``graph`` on ``operands``, and the cotangents of its ``wanted`` inputs,
    emitted by ``e``.

    ``cotangents`` has one entry for each output, of its type. UnsupportedError when the outputs
    depend on a primitive that has no derivative, or on a loop whose trips are counted at run
    time."""
    outputs, back = reverse(e, graph, operands, wanted)
    return outputs, back(cotangents)


def reverse(
    e: Emit, graph: Graph, operands: Sequence[Node], wanted: Sequence[bool]
) -> tuple[list[Node], Back]:
    """The outputs of ``graph`` on ``operands``, emitted by ``e``, and what emits the cotangents of
    its ``wanted`` inputs for those of its outputs, any number of times; see `pullback`."""
    graph, active = _expanded(graph, wanted, {**EXPAND, ops.Repeat: control.save_states})
    places = dict(zip(graph.inputs, operands, strict=True))
    order = list(graph.nodes())
    for node in order:
        if node not in places:
            places[node] = e.leaf_or_apply(node, [places[x] for x in node.inputs])
    _emit_checks(e, graph, places)

    def back(cotangents: Sequence[Maybe]) -> list[Maybe]:
        found: dict[Node, list[Maybe]] = {}
        for (_, node), outer in zip(graph.outputs, cotangents, strict=True):
            found.setdefault(node, []).append(outer)
        _walk_back(e, order, active, places, found)
        chosen = zip(graph.inputs, wanted, strict=True)
        return [e.total(found.get(x, ())) if want else None for x, want in chosen]

    return [places[node] for _, node in graph.outputs], back


def _walk_back(
    e: Emit,
    order: Sequence[Node],
    active: set[Node],
    places: Mapping[Node, Node],
    back: dict[Node, list[Maybe]],
) -> None:
    """Adds to ``back``, which has the cotangents of the outputs, those of all active nodes: for
    each what its readers send, to be summed up."""
    tuples: dict[Node, list[list[Maybe]]] = {}
    for node in e.from_each(reversed(order)):
        if node not in active or not node.inputs:
            continue
        mask = [x in active for x in node.inputs]
        if isinstance(node.type, TupleType):
            outers = [e.total(sent) for sent in tuples.get(node, [])]
            parts: Sequence[Maybe] = []
            if any(outer is not None for outer in outers):
                parts = control.vjp(e, places[node], outers, mask, pullback)
        else:
            outer = e.total(back.get(node, ()))
            if outer is None:
                continue
            if isinstance(node.op, ops.Item):
                _into_tuple(tuples, node, outer)
                continue
            parts = _rule_of(node).vjp(e, places[node], outer, mask)
        for operand, part, want in zip(node.inputs, parts, mask, strict=bool(parts)):
            if want and part is not None:
                back.setdefault(operand, []).append(part)


def _into_tuple(tuples: dict[Node, list[list[Maybe]]], node: Node, outer: Node) -> None:
    """Adds the cotangent of an item to those of its tuple."""
    assert isinstance(node.op, ops.Item)
    (source,) = node.inputs
    assert isinstance(source.type, TupleType)
    tuples.setdefault(source, [[] for _ in source.type.items])[node.op.index].append(outer)


def _emit_checks(e: Emit, graph: Graph, places: Mapping[Node, Node]) -> None:
    for sentence, node in graph.checks:
        e.builder.check(places[node], sentence)


def cut(outputs: Sequence[Node], inputs: Sequence[Node]) -> tuple[Graph, list[Node]]:
    """The part of a larger graph between ``inputs`` and ``outputs`` as a graph of its own, whose
    inputs are ``inputs`` and then the returned nodes, which it reads and which do not depend on
    them.

    Constants come along. ``inputs`` may be any nodes.
    """
    builder = Builder()
    e = Emit(builder)
    places = {node: builder.parameter(f"x{i}", node.type) for i, node in enumerate(inputs)}
    whole = Graph("cut", (), tuple((f"y{i}", node) for i, node in enumerate(outputs)))
    order = list(whole.nodes())
    depends = set(places)
    for node in order:
        if any(operand in depends for operand in node.inputs):
            depends.add(node)
    captured: list[Node] = []
    seen = set(outputs)
    for node in reversed(order):  # only what a path from the inputs passes, or reads
        if node in seen and node in depends and node not in places:
            seen.update(node.inputs)
    for node in order:
        if node not in seen or node in places:
            continue
        if node in depends or isinstance(node.op, Constant):
            places[node] = e.leaf_or_apply(node, [places[x] for x in node.inputs])
        else:
            places[node] = builder.parameter(f"c{len(captured)}", node.type)
            captured.append(node)
    graph = builder.finish("cut", [(f"y{i}", places[node]) for i, node in enumerate(outputs)])
    return graph, captured


def inline(e: Emit, graph: Graph, operands: Sequence[Node]) -> list[Node]:
    """The outputs of ``graph`` on ``operands``, emitted by ``e``, and its checks."""
    places = dict(zip(graph.inputs, operands, strict=True))
    for node in graph.nodes():
        if node not in places:
            places[node] = e.leaf_or_apply(node, [places[x] for x in node.inputs])
    _emit_checks(e, graph, places)
    return [places[node] for _, node in graph.outputs]
