"""The order of import: one ONNX graph and the names wanted go in, the nodes to import come out.

Only what the wanted names need is imported, so an unsupported node in a dead part does no harm.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import onnx

from aotc.errors import ModelError

MAX_DEPTH = 16
"""Subgraphs within subgraphs, and functions calling functions, at most this deep."""


@dataclass(frozen=True)
class Order:
    """``nodes`` to import, operands before users; ``used``: every name that one of them or the
    caller reads; ``cyclic``: nodes that need their own result."""

    nodes: tuple[onnx.NodeProto, ...]
    used: frozenset[str]
    cyclic: tuple[onnx.NodeProto, ...]


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs among the attributes of ``node``."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def reads(node: onnx.NodeProto, depth: int = 0) -> list[str]:
    """The names that ``node`` reads, those that its subgraphs capture included."""
    names = [name for name in node.input if name]
    for graph in subgraphs(node):
        if depth >= MAX_DEPTH:
            raise ModelError(
                f"subgraphs are nested more than {MAX_DEPTH} deep", remedy="flatten the model"
            )
        own = {info.name for info in graph.input} | {tensor.name for tensor in graph.initializer}
        own |= {sparse.values.name for sparse in graph.sparse_initializer}
        own |= {name for inner in graph.node for name in inner.output}
        inside = [name for inner in graph.node for name in reads(inner, depth + 1)]
        inside += [info.name for info in graph.output]
        names += [name for name in inside if name not in own]
    return names


def named_operands(node: onnx.NodeProto) -> onnx.NodeProto:
    """``node`` with the tensors as inputs that it names in attributes: only Gradient does, which
    names what it derives (``y``) and by what (``xs``, ``zs``)."""
    if (node.domain, node.op_type) != ("ai.onnx.preview.training", "Gradient"):
        return node
    names = {entry.name: entry for entry in node.attribute}
    explicit = onnx.NodeProto()
    explicit.CopyFrom(node)
    for key in ("xs", "zs"):
        if key in names:
            explicit.input.extend(text.decode("utf-8", "replace") for text in names[key].strings)
    explicit.input.append(names["y"].s.decode("utf-8", "replace") if "y" in names else "")
    return explicit


def import_order(nodes: Sequence[onnx.NodeProto], wanted: Sequence[str]) -> Order:
    """What ``wanted`` needs among ``nodes``, in topological order; the file's own order need not be
    one.

    ModelError when two nodes define one name.
    """
    nodes = [named_operands(node) for node in nodes]
    producer: dict[str, int] = {}
    for place, node in enumerate(nodes):
        for name in node.output:
            if name and producer.setdefault(name, place) != place:
                raise ModelError(
                    f"'{name}' is defined twice, the second time by a node of type {node.op_type}",
                    remedy="every tensor needs its own name: export the model again",
                )
    needs = [reads(node) for node in nodes]
    ordered: list[int] = []
    cyclic: dict[int, None] = {}
    state: dict[int, str] = {}
    for root in (producer[name] for name in wanted if name in producer):
        stack = [(root, False)]
        while stack:
            place, ready = stack.pop()
            if ready:
                state[place] = "done"
                ordered.append(place)
            elif place not in state:
                state[place] = "open"
                stack.append((place, True))
                for name in reversed(needs[place]):
                    operand = producer.get(name)
                    if operand is not None and state.get(operand) == "open":
                        cyclic[operand] = None
                    elif operand is not None:
                        stack.append((operand, False))
    used = frozenset(wanted).union(*(needs[place] for place in ordered))
    return Order(
        tuple(nodes[place] for place in ordered), used, tuple(nodes[place] for place in cyclic)
    )
