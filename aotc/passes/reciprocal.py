"""Divisions by something smaller become multiplications by its reciprocal, where a last bit more
or less cannot decide anything."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node, Op
from aotc.passes.constants import stretch, stretched_value
from aotc.passes.rewrite import reemit

#: Unary functions and ops that turn a last bit into a different integer or a different choice.
_ROUNDING = frozenset(["floor", "ceil", "round", "sign", "isinf"])
_CHOOSING: tuple[type[Op], ...] = (ops.Compare, ops.ArgReduce, ops.TopK)
#: Ops that hand the values of their operands on.
_PASSING: tuple[type[Op], ...] = (
    ops.Unary,
    ops.Binary,
    ops.Select,
    ops.Reshape,
    ops.Transpose,
    ops.Broadcast,
    ops.Slice,
    ops.Concat,
    ops.Pad,
)


def reciprocal(graph: Graph) -> Graph:
    """``x / c`` -> ``x * (1/c)`` for a constant, and ``x / broadcast(s)`` -> ``x *
    broadcast(1/s)``, for floats: at most 1.5 ULP instead of 0.5. Left alone when the quotient
    can reach a rounding, a comparison or an integer through elementwise ops."""
    delicate = _delicate_nodes(graph)

    def emit(builder: Builder, node: Node, new: Mapping[Node, Node]) -> Node | None:
        if node.op != ops.Binary("div") or not node.type.dtype.is_float or node in delicate:
            return None
        x, divisor = node.inputs
        value = stretched_value(divisor)
        if value is not None:
            with np.errstate(all="ignore"):
                inverse = np.asarray(1 / value.astype(np.float64), dtype=value.dtype)
            info = np.finfo(value.dtype)
            if not ((np.abs(inverse) >= info.tiny) & (np.abs(inverse) <= info.max)).all():
                return None
            factor = stretch(builder, inverse, divisor.shape)
        elif isinstance(divisor.op, ops.Broadcast):
            small = builder.unary("reciprocal", new[divisor.inputs[0]], node.origin)
            factor = builder.apply(divisor.op, small, origin=node.origin)
        else:
            return None
        return builder.binary("mul", new[x], factor, node.origin)

    return reemit(graph, emit)


def _delicate_nodes(graph: Graph) -> set[Node]:
    """The nodes whose values reach a rounding or a choice through ops that hand values on."""
    users = graph.users()
    delicate: set[Node] = set()
    for node in reversed(list(graph.nodes())):
        for user in users[node]:
            decides = isinstance(user.op, _CHOOSING) or (
                isinstance(user.op, ops.Unary) and user.op.fn in _ROUNDING
            )
            to_int = isinstance(user.op, ops.Cast) and not user.op.dtype.is_float
            narrows = isinstance(user.op, ops.Binary) and user.op.fn in ("mod", "fmod")
            as_bits = isinstance(user.op, ops.Bitcast)
            passes = isinstance(user.op, (*_PASSING, ops.Cast)) and user in delicate
            if decides or to_int or as_bits or narrows or passes:
                delicate.add(node)
                break
    return delicate
