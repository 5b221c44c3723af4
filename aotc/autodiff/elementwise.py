"""Derivatives of elementwise primitives: a node and a tangent or cotangent in, the product with its
slope out.

The Jacobian of an elementwise function is diagonal, so one rule serves both directions. At a corner
the slope is that of one side: where min and max tie that of a constant operand, else of the first
one; 0 for abs at 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from aotc.autodiff.emit import ROOT_OF_PI, Emit, Maybe, is_constant
from aotc.autodiff.rule import Rule
from aotc.graph import ops
from aotc.graph.ir import Node

FLAT = frozenset({"sign", "floor", "ceil", "round"})
"""Functions that are constant between their jumps: their derivative is 0."""


def _square(e: Emit, x: Node) -> Node:
    return e.binary("mul", x, x)


def _one_minus(e: Emit, x: Node) -> Node:
    return e.binary("add", e.unary("neg", x), 1.0)


def _inverse_root(e: Emit, x: Node) -> Node:
    return e.unary("reciprocal", e.unary("sqrt", x))


def _bell(e: Emit, x: Node, y: Node) -> Node:
    return e.binary("mul", e.unary("exp", e.unary("neg", _square(e, x))), 2 / ROOT_OF_PI)


def _inverse_circle(e: Emit, x: Node) -> Node:
    return _inverse_root(e, _one_minus(e, _square(e, x)))


SLOPES: Mapping[str, Callable[[Emit, Node, Node], Node]] = MappingProxyType(
    {
        "abs": lambda e, x, y: e.unary("sign", x),
        "exp": lambda e, x, y: y,
        "log": lambda e, x, y: e.unary("reciprocal", x),
        "sqrt": lambda e, x, y: e.unary("reciprocal", e.binary("add", y, y)),
        "reciprocal": lambda e, x, y: e.unary("neg", _square(e, y)),
        "tanh": lambda e, x, y: _one_minus(e, _square(e, y)),
        "erf": _bell,
        "sigmoid": lambda e, x, y: e.binary("mul", y, _one_minus(e, y)),
        "sin": lambda e, x, y: e.unary("cos", x),
        "cos": lambda e, x, y: e.unary("neg", e.unary("sin", x)),
        "tan": lambda e, x, y: e.binary("add", _square(e, y), 1.0),
        "asin": lambda e, x, y: _inverse_circle(e, x),
        "acos": lambda e, x, y: e.unary("neg", _inverse_circle(e, x)),
        "atan": lambda e, x, y: e.unary("reciprocal", e.binary("add", _square(e, x), 1.0)),
        "sinh": lambda e, x, y: e.unary("cosh", x),
        "cosh": lambda e, x, y: e.unary("sinh", x),
        "asinh": lambda e, x, y: _inverse_root(e, e.binary("add", _square(e, x), 1.0)),
        "acosh": lambda e, x, y: _inverse_root(e, e.binary("sub", _square(e, x), 1.0)),
        "atanh": lambda e, x, y: e.unary("reciprocal", _one_minus(e, _square(e, x))),
    }
)
"""The slope of each function of ``x`` with result ``y``."""


def _unary(e: Emit, node: Node, index: int, outer: Node) -> Maybe:
    assert isinstance(node.op, ops.Unary)
    if node.op.fn in FLAT:
        return None
    if node.op.fn == "neg":
        return e.unary("neg", outer)
    return e.binary("mul", outer, SLOPES[node.op.fn](e, node.inputs[0], node))


def _binary(e: Emit, node: Node, index: int, outer: Node) -> Maybe:
    assert isinstance(node.op, ops.Binary)
    a, b = node.inputs
    match node.op.fn:
        case "add":
            return outer
        case "sub":
            return e.unary("neg", outer) if index else outer
        case "mul":
            return e.binary("mul", outer, a if index else b)
        case "div":
            by_a = e.binary("div", outer, b)
            return e.unary("neg", e.binary("mul", by_a, node)) if index else by_a
        case "pow":
            return e.binary("mul", outer, _power_slope(e, node, index))
        case "min" | "max":
            if is_constant(a if index else b):  # needs the result alone: the operand may go
                beyond = e.compare("gt" if node.op.fn == "max" else "lt", node, a if index else b)
                return e.select(beyond, outer, 0.0)
            first = e.compare("eq", a, node)
            return e.select(first, 0.0, outer) if index else e.select(first, outer, 0.0)
        case _:  # mod and fmod: a - b * n with a whole number n that is constant between jumps
            if not index:
                return outer
            whole = e.unary("round", e.binary("div", e.binary("sub", node, a), b))
            return e.binary("mul", outer, whole)


def _power_slope(e: Emit, node: Node, index: int) -> Node:
    """b * a**(b-1), which is 0 for b = 0; a**b * log(a), which is 0 for a = 0."""
    a, b = node.inputs
    if index:
        zero = e.compare("eq", a, 0.0)
        log = e.unary("log", e.select(zero, e.full(1.0, a.type), a))
        return e.binary("mul", node, log)
    constant = e.compare("eq", b, 0.0)
    lower = e.binary("sub", e.select(constant, e.full(1.0, b.type), b), 1.0)
    return e.binary("mul", b, e.binary("pow", a, lower))


def _select(e: Emit, node: Node, index: int, outer: Node) -> Maybe:
    condition = node.inputs[0]
    return e.select(condition, outer, 0.0) if index == 1 else e.select(condition, 0.0, outer)


Partial = Callable[[Emit, Node, int, Node], Maybe]


def _diagonal(partial: Partial) -> Rule:
    """The rule of a primitive whose Jacobian by each operand is diagonal."""

    def jvp(e: Emit, node: Node, tangents: Sequence[Maybe]) -> Maybe:
        present = ((i, tangent) for i, tangent in enumerate(tangents) if tangent is not None)
        return e.total(partial(e, node, i, tangent) for i, tangent in present)

    def vjp(e: Emit, node: Node, outer: Node, wanted: Sequence[bool]) -> Sequence[Maybe]:
        return [partial(e, node, i, outer) if want else None for i, want in enumerate(wanted)]

    return Rule(jvp, vjp)


def _cast_jvp(e: Emit, node: Node, tangents: Sequence[Maybe]) -> Maybe:
    return e.builder.cast(tangents[0], node.type.dtype) if tangents[0] is not None else None


def _cast_vjp(e: Emit, node: Node, outer: Node, wanted: Sequence[bool]) -> Sequence[Maybe]:
    return [e.builder.cast(outer, node.inputs[0].type.dtype)]


RULES: Mapping[type[ops.Op], Rule] = MappingProxyType(
    {
        ops.Unary: _diagonal(_unary),
        ops.Binary: _diagonal(_binary),
        ops.Select: _diagonal(_select),
        ops.Cast: Rule(_cast_jvp, _cast_vjp),
    }
)
