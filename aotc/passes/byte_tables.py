"""Tables of bytes: a graph in which a code is computed from a code by way of costly functions goes
in; out comes one that looks the result up in a table of 256, computed here."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node
from aotc.graph.types import DType
from aotc.passes.constants import splat_value
from aotc.passes.rewrite import reemit

_BYTES = (DType.U8, DType.I8)
#: Functions that take longer than looking a byte up.
_COSTLY = ops.TRANSCENDENTAL | {"sqrt"}
#: Codes that are fewer than this are computed.
_FEWEST = 64


def byte_tables(graph: Graph) -> Graph:
    """``code(f(x))`` -> ``gather(table, x)`` for codes ``x`` and elementwise, costly ``f``.

    Other operands must be constants of one value. Steps in between that round to codes themselves
    are part of the function. """
    finder = _Finder()
    for node in graph.nodes():
        finder.look_at(node)
    if not finder.tables:
        return graph

    def emit(builder: Builder, node: Node, new: Mapping[Node, Node]) -> Node | None:
        table = finder.tables.get(node)
        if table is None:
            return None
        codes = new[finder.source[node]]
        return builder.apply(ops.Gather(0), builder.constant(table), codes, origin=node.origin)

    return reemit(graph, emit)


class _Finder:
    """For each node that is a function of one tensor of codes alone: that tensor, the values for
    all codes, and whether a costly function is among what computes them."""

    def __init__(self) -> None:
        self.source: dict[Node, Node] = {}
        self.values: dict[Node, np.ndarray] = {}
        self.costly: set[Node] = set()
        self.tables: dict[Node, np.ndarray] = {}

    def look_at(self, node: Node) -> None:
        """Finds out about ``node``, whose operands have been looked at."""
        if isinstance(node.op, ops.ELEMENTWISE) and node.inputs and self._follow(node):
            if node.type.dtype in _BYTES and node in self.costly and node.type.elems >= _FEWEST:
                self.tables[node] = self.values[node]
        elif node.type.dtype in _BYTES and node.data is None:
            self._begin(node)

    def _begin(self, node: Node) -> None:
        self.source[node] = node
        # in the order of the bits, so that a negative index counts from the end
        self.values[node] = np.arange(256, dtype=np.uint8).view(node.type.dtype.numpy)

    def _follow(self, node: Node) -> bool:
        """Computes ``node`` for all codes, if it depends on one tensor of them."""
        operands: list[np.ndarray] = []
        sources: dict[Node, None] = {}
        for x in node.inputs:
            if x in self.source:
                sources[self.source[x]] = None
                operands.append(self.values[x])
                continue
            known = splat_value(x)
            if known is None:
                return self._cannot(node)
            operands.append(np.full(256, known, x.type.dtype.numpy))
        if len(sources) != 1:
            return self._cannot(node)
        (self.source[node],) = sources
        with np.errstate(all="ignore"):
            self.values[node] = np.asarray(node.op.evaluate(*operands))
        if getattr(node.op, "fn", "") in _COSTLY or any(x in self.costly for x in node.inputs):
            self.costly.add(node)
        return True

    def _cannot(self, node: Node) -> bool:
        """What depends on more than one tensor of codes may be a tensor of codes itself."""
        if node.type.dtype in _BYTES:
            self._begin(node)
        return False
