"""Cleanup: a graph goes in, the graph without dead nodes and without duplicates comes out."""

from __future__ import annotations

from aotc.graph.ir import Graph
from aotc.passes.rewrite import copy, reemit


def cleanup(graph: Graph) -> Graph:
    """Dead-node removal and common-subexpression elimination: plain re-emission into an interning
    builder."""
    return reemit(graph, copy)
