"""Nested graphs: the nodes of a branch or loop body go in, a closed graph and what it takes of the
graph around it come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from aotc.frontend.folding import FoldingBuilder
from aotc.frontend.intervals import interval
from aotc.frontend.values import Value, map_nodes
from aotc.graph import ops
from aotc.graph.ir import Graph, Node
from aotc.graph.types import DType, TensorType


class Body:
    """A nested graph while its nodes are being made in ``builder``; ``around`` makes those of the
    graph around it."""

    def __init__(self, around: FoldingBuilder) -> None:
        self.builder = FoldingBuilder()
        self.builder.copies = around.copies
        self._around = around
        # what is checked inside counts only where what is checked around it does
        self.builder.guards = [partial(self._guard, guard) for guard in around.guards]
        self._fetched: dict[Node, Node] = {}
        self._parameters = 0

    def parameter(self, type: TensorType) -> Node:
        """One more input."""
        self._parameters += 1
        return self.builder.parameter(f"p{self._parameters - 1}", type)

    def fetch(self, value: Value) -> Value:
        """``value`` of the graph around this one as it appears inside: constants are made again,
        whatever else becomes an input."""
        return map_nodes(value, self.fetch_node)

    def fetch_node(self, node: Node) -> Node:
        """`fetch` of one tensor."""
        if node.data is not None:
            return self.builder.reuse_constant(node)
        if isinstance(node.op, ops.Iota):
            return self.builder.apply(node.op)
        if isinstance(node.op, ops.Broadcast) and node.inputs[0].data is not None:
            return self.builder.apply(node.op, self.builder.reuse_constant(node.inputs[0]))
        if node not in self._fetched:
            inside = self._fetched[node] = self.parameter(node.type)
            if node.type == TensorType(DType.I64, ()):
                self._learn(node, inside)
        return self._fetched[node]

    def _guard(self, guard: Callable[[], Node]) -> Node:
        return self.fetch_node(guard())

    def _learn(self, node: Node, inside: Node) -> None:
        """What bounds a size outside bounds it inside."""
        low, high = interval(node, self._around.limits)
        if low is not None and high is not None:
            self.builder.limits[inside] = (low, high)

    @property
    def captured(self) -> tuple[Node, ...]:
        """The tensors of the graph around this one that it takes as inputs."""
        return tuple(self._fetched)

    def finish(
        self, name: str, own: Sequence[Node], captured: Sequence[Node], outputs: Sequence[Node]
    ) -> Graph:
        """The graph from its ``own`` inputs and ``captured`` ones, in that order, to
        ``outputs``."""
        inputs = (*own, *(self.fetch_node(node) for node in captured))
        named = [(f"r{place}", node) for place, node in enumerate(outputs)]
        return replace(self.builder.finish(name, named), inputs=inputs)
