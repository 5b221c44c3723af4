"""Operands as ONNX had them before opset 7: a rule for today's form goes in, one that reads both
comes out."""

from __future__ import annotations

from dataclasses import replace

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.graph.ir import Node


def with_broadcast_attributes(rule: Rule) -> Rule:
    """``rule`` of two operands, of which the second stretches as the attributes ``broadcast`` and
    ``axis`` say before opset 7 (docs/Changelog.md of ONNX, Add-6)."""

    def adapted(call: Call) -> Node:
        second = _placed(call, call[0], call[1]) if call.version < 7 else call[1]
        result = rule(replace(call, inputs=(call[0], second)))
        assert isinstance(result, Node)
        return result

    return adapted


def _placed(call: Call, a: Node, b: Node) -> Node:
    """``b`` with axes of size 1 appended, so that numpy's rules put it at ``axis`` of ``a``."""
    if a.shape == b.shape:
        return b
    if not call.attrs.flag("broadcast"):
        raise ModelError(f"{a.type} and {b.type} differ, and attribute 'broadcast' is not set")
    if b.type.elems == 1:
        return call.reshape(b, ())
    first = a.type.rank - b.type.rank
    at = call.axis(call.attrs.integer("axis"), a.type.rank) if "axis" in call.attrs else first
    after = first - at
    sizes = a.shape[at : at + b.type.rank]
    if min(first, after) < 0 or any(
        size not in (1, whole) for size, whole in zip(b.shape, sizes, strict=True)
    ):
        raise ModelError(f"{b.type} does not stretch to {a.type} from axis {at} on")
    return call.reshape(b, (*b.shape, *(1,) * after))
