"""What is computed between the product of queries and keys and the softmax: pointwise nodes go in,
a scale, a causal mask and the rest come out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aotc.graph import ops
from aotc.graph.ir import Constant, Node
from aotc.loop.ir import Bin, Expr, Fma, Lit
from aotc.lower.context import scalar_value
from aotc.lower.pointwise import expression

#: What a mask adds or puts in place of a score so that its weight is nothing: beside it no score
#: of float32 has a digit left before the point.
HIDES = -1e9


@dataclass(frozen=True)
class Scores:
    """The scores of ``product``, computed by ``members``. Of these only ``nodes``, operands first,
    need to be computed on the way; those in ``same_as`` are as good as the node there. Weights are
    e^(score * ``scale``), the largest of a row set to 1. With ``causal`` row i sees the keys up to
    i + causal alone. ``factor`` is what the product still has to be multiplied by where ``nodes``
    are computed."""

    product: Node
    members: tuple[Node, ...]
    nodes: tuple[Node, ...]
    same_as: Mapping[Node, Node]
    scale: float
    causal: int | None
    factor: float = 1.0

    def value(self, raw: Expr, leaves: Mapping[Node, Expr]) -> Expr:
        """The score, of the product ``raw`` and the operands of ``nodes``."""
        scaled_raw = raw if self.factor == 1 else Bin("mul", raw, Lit(self.factor, raw.dtype))
        values: dict[Node, Expr] = {**leaves, self.product: scaled_raw}
        factors = {self.product: self.factor}
        for node in self.members:
            scaled = _scaled(node, factors)
            if node in self.same_as:
                values[node] = values[self.same_as[node]]
                if self.same_as[node] in factors:
                    factors[node] = factors[self.same_as[node]]
            elif scaled is not None:
                factors[node] = scaled
                values[node] = expression(node, values)
            else:
                values[node] = _sum_of_scaled(node, factors, raw, values) or expression(
                    node, values
                )
        return values[self.members[-1]]


def scores_of(product: Node, members: Sequence[Node], factor: float) -> Scores:
    """What ``members``, pointwise nodes after ``product`` in order, make of it, if the kernel's
    product is still to be multiplied by ``factor``."""
    same_as: dict[Node, Node] = {}
    causal = None
    factors = {product: factor}
    for at, node in enumerate(members):
        scaled = _scaled(node, factors)
        if scaled is not None:
            factors[node] = scaled
            continue
        found = _causal_mask(node, {product, *members[:at]})
        if found is None or causal is not None or not _keeps_hidden(members[at:]):
            continue
        same_as[node], causal = found
        if same_as[node] in factors:
            factors[node] = factors[same_as[node]]
    last = members[-1] if members else product
    if last in factors and _is_plain(factors[last]):
        return Scores(product, tuple(members), (), same_as, factors[last], causal)
    nodes = tuple(node for node in members if node not in same_as)
    return Scores(product, tuple(members), nodes, same_as, 1.0, causal, factor)


def _is_plain(factor: float) -> bool:
    """Whether e^(x * factor) can be taken as powers of 2 with a factor."""
    return 2.0**-60 < factor < 2.0**60


def _scaled(node: Node, factors: Mapping[Node, float]) -> float | None:
    """The factor of the product that ``node`` is, if it multiplies one by a number."""
    if not isinstance(node.op, ops.Binary) or node.op.fn not in ("mul", "div"):
        return None
    for x, other in (node.inputs, node.inputs[::-1]):
        value = scalar_value(other)
        if x in factors and value is not None and math.isfinite(value):
            if node.op.fn == "mul":
                return factors[x] * float(value)
            return factors[x] / float(value) if x is node.inputs[0] and value else None
    return None


def _sum_of_scaled(
    node: Node, factors: Mapping[Node, float], raw: Expr, values: Mapping[Node, Expr]
) -> Expr | None:
    """One multiply-add, where ``node`` adds something to a scaled product."""
    if not isinstance(node.op, ops.Binary) or node.op.fn != "add":
        return None
    for x, other in (node.inputs, node.inputs[::-1]):
        if x in factors and other in values:
            return Fma(raw, Lit(factors[x], raw.dtype), values[other])
    return None


def _keeps_hidden(nodes: Sequence[Node]) -> bool:
    """Whether what the first of ``nodes`` hides stays hidden by the others: they add or scale."""
    for node in nodes[1:]:
        if not isinstance(node.op, ops.Binary):
            return False
        factor = [scalar_value(operand) for operand in node.inputs]
        scales = node.op.fn == "mul" and any(value is not None and value > 0 for value in factor)
        if node.op.fn != "add" and not scales:
            return False
    return True


def _causal_mask(node: Node, inside: set[Node]) -> tuple[Node, int] | None:
    """What ``node`` hides keys of, and how many keys beyond its own number the first row sees, if
    that is all it does."""
    visible: np.ndarray | None = None
    match node.op:
        case ops.Binary(fn="add"):
            for x, other in (node.inputs, node.inputs[::-1]):
                mask = _matrix(other)
                if x in inside and mask is not None and np.all((mask == 0) | (mask <= HIDES)):
                    return _triangle(x, mask == 0)
        case ops.Select():
            condition, yes, no = node.inputs
            visible = _matrix(condition)
            for x, other, sense in ((yes, no, True), (no, yes, False)):
                value = scalar_value(other)
                if visible is not None and x in inside and value is not None and value <= HIDES:
                    return _triangle(x, visible.astype(bool) == sense)
    return None


def _triangle(x: Node, visible: np.ndarray) -> tuple[Node, int] | None:
    rows, keys = visible.shape
    first = int(visible[0].sum()) - 1
    if first >= 0 and np.array_equal(visible, np.tri(rows, keys, first, dtype=bool)):
        return x, first
    return None


def _matrix(node: Node) -> np.ndarray | None:
    """The constant [rows, keys] that ``node`` repeats along all other axes, if it does."""
    rows, keys = node.shape[-2:]
    while isinstance(node.op, (ops.Broadcast, ops.Reshape)):
        node = node.inputs[0]
    if not isinstance(node.op, Constant) or node.data is None:
        return None
    if node.data.size != rows * keys or node.shape[-2:] != (rows, keys):
        return None
    return node.data.reshape(rows, keys)
