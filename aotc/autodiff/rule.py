"""What a derivative rule is: a primitive on given operands in, its tangent or the cotangents of its
operands out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aotc.autodiff.emit import Emit, Maybe
from aotc.graph.ir import Node


@dataclass(frozen=True)
class Rule:
    """Both directions of the derivative of one primitive.

    ``jvp(emit, node, tangents)`` takes one tangent (or None for zero) for each operand and gives
    that of the result. ``vjp(emit, node, outer, wanted)`` takes the cotangent of the result and
    gives those of the operands, None for zero and where ``wanted`` is false. Each tangent has the
    type of its tensor.
    """

    jvp: Callable[[Emit, Node, Sequence[Maybe]], Maybe]
    vjp: Callable[[Emit, Node, Node, Sequence[bool]], Sequence[Maybe]]


def linear(
    apply: Callable[[Emit, Node, Node], Node], transpose: Callable[[Emit, Node, Node], Maybe]
) -> Rule:
    """The rule of a primitive that is linear in its first operand, the others being no floats:
    ``apply`` is the primitive on another first operand."""

    def jvp(e: Emit, node: Node, tangents: Sequence[Maybe]) -> Maybe:
        return None if tangents[0] is None else apply(e, node, tangents[0])

    def vjp(e: Emit, node: Node, outer: Node, wanted: Sequence[bool]) -> Sequence[Maybe]:
        return [transpose(e, node, outer), *[None] * (len(node.inputs) - 1)]

    return Rule(jvp, vjp)


def same_op(e: Emit, node: Node, x: Node) -> Node:
    """The primitive of ``node`` with ``x`` as its first operand."""
    return e.apply(node.op, x, *node.inputs[1:])
