"""Roundings to short floats end between primitives: a legalized graph goes in, one that computes in
float32 between what it stores in 16 bits comes out.

For targets that hold tensors in 16 bits as they see fit (``--precision f16`` or ``bf16`` of a GPU).
The roundings that ONNX asks for after each primitive of a float16 or bfloat16 model would only cost
time and precision there, and keep softmax, norms and attention from being one kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node
from aotc.graph.types import DType
from aotc.passes.rewrite import reemit

#: Types of products, by the names of ``--precision``.
_PRECISIONS: Mapping[DType, str] = MappingProxyType({DType.F16: "f16", DType.BF16: "bf16"})
_MOVES = (ops.Reshape, ops.Transpose, ops.Slice, ops.Broadcast)


def relax(graph: Graph) -> Graph:
    """``graph`` with each float32 that was rounded to a short float, and is float32 again, as it
    was before. Nested graphs stay as they are."""
    return reemit(graph, _emit)


def _emit(builder: Builder, node: Node, new: Mapping[Node, Node]) -> Node | None:
    if node.type.dtype is not DType.F32:
        return None
    if isinstance(node.op, ops.Bitcast):
        exact = _before_bfloat(node.inputs[0])
        return new[exact] if exact is not None and exact.type.dtype is DType.F32 else None
    if not isinstance(node.op, ops.Cast):
        return None
    moves = []
    (short,) = node.inputs
    while isinstance(short.op, _MOVES):
        moves.append(short.op)
        (short,) = short.inputs
    is_rounded = isinstance(short.op, ops.Cast) and short.type.dtype is DType.F16
    if not is_rounded or short.inputs[0].type.dtype is not DType.F32:
        return None
    number = new[short.inputs[0]]
    for op in reversed(moves):
        number = builder.apply(op, number, origin=node.origin)
    return number


def _before_bfloat(bits: Node) -> Node | None:
    """The number of which ``bits`` are those of the nearest bfloat16 (passes/narrow.py)."""
    if not isinstance(bits.op, ops.Binary) or bits.op.fn != "and":
        return None
    chosen = bits.inputs[0]
    if not isinstance(chosen.op, ops.Select):
        return None
    is_nan, quiet, _ = chosen.inputs
    if not isinstance(is_nan.op, ops.Unary) or is_nan.op.fn != "isnan":
        return None
    (exact,) = is_nan.inputs
    same = isinstance(quiet.op, ops.Binary) and quiet.op.fn == "or"
    return exact if same and quiet.inputs[0].inputs == (exact,) else None


def own_precision(graph: Graph) -> str | None:
    """The ``--precision`` in which a graph from a frontend multiplies, if all its products are of
    float16, or all of bfloat16, cast to float32 or not."""
    products = (node for node in graph.nodes() if isinstance(node.op, (ops.Dot, ops.Conv)))
    found = {_PRECISIONS.get(_source(node.inputs[0]).type.dtype) for node in products}
    return found.pop() if len(found) == 1 else None


def _source(node: Node) -> Node:
    """What ``node`` has its numbers from, moves and a cast looked through."""
    while isinstance(node.op, _MOVES):
        (node,) = node.inputs
    return node.inputs[0] if isinstance(node.op, ops.Cast) else node
