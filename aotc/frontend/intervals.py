"""How large a size of run time can be: a node goes in, an interval that holds its values comes out.

What bounds sizes is known where a box is made; arithmetic on such sizes carries the bounds on.
"""

from __future__ import annotations

from collections.abc import Mapping

from aotc.frontend.folding import known_value
from aotc.graph import ops
from aotc.graph.ir import Node

Interval = tuple[int | None, int | None]
"""The least and the largest value; None where there is no bound."""

MOST_STEPS = 48
"""Longer chains of arithmetic are not followed."""

LARGEST = 2**31 - 1
"""Beyond this a bound is none: int32 holds what is within, int64 does not overflow on the way."""


def interval(node: Node, limits: Mapping[Node, tuple[int, int]]) -> Interval:
    """The interval of all elements of ``node`` (integers); ``limits`` has what is known of
    some nodes."""
    return _interval(node, limits, MOST_STEPS, {})


def _interval(
    node: Node, limits: Mapping[Node, tuple[int, int]], steps: int, seen: dict[Node, Interval]
) -> Interval:
    if node not in seen:
        seen[node] = _computed(node, limits, steps, seen)
    return seen[node]


def _computed(
    node: Node, limits: Mapping[Node, tuple[int, int]], steps: int, seen: dict[Node, Interval]
) -> Interval:
    value = known_value(node)
    if value is not None:
        whole = value.size > 0 and value.dtype.kind in "iu"
        return _kept((int(value.min()), int(value.max()))) if whole else (None, None)
    if node in limits:
        return limits[node]
    if steps == 0:
        return (None, None)
    found = [_interval(operand, limits, steps - 1, seen) for operand in node.inputs]
    return _kept(_result(node, found))


def _kept(bounds: Interval) -> Interval:
    low, high = bounds
    return (
        None if low is None or low < -LARGEST else low,
        None if high is None or high > LARGEST else high,
    )


def _result(node: Node, found: list[Interval]) -> Interval:
    """The interval of an operator's result from those of its operands."""
    match node.op:
        case ops.Reshape() | ops.Broadcast() | ops.Slice() | ops.Gather() | ops.Transpose():
            return found[0]
        case ops.Cast(dtype=dtype):
            exact = dtype.is_int and dtype.size_bytes >= 4 and node.inputs[0].type.dtype.is_int
            return found[0] if exact else (None, None)
        case ops.Concat():
            return _union(found)
        case ops.Select():
            return _union(found[1:])
        case ops.Reduce(fn="max" | "min"):
            return found[0]
        case ops.ArgReduce(axis=axis):
            return (0, node.inputs[0].shape[axis] - 1)
        case ops.Binary(fn=fn):
            return _binary(fn, found[0], found[1])
    return (None, None)


def _union(found: list[Interval]) -> Interval:
    lows = [low for low, _ in found if low is not None]
    highs = [high for _, high in found if high is not None]
    return (
        min(lows) if len(lows) == len(found) else None,
        max(highs) if len(highs) == len(found) else None,
    )


def _binary(fn: str, a: Interval, b: Interval) -> Interval:
    (low_a, high_a), (low_b, high_b) = a, b
    lows = [low for low in (low_a, low_b) if low is not None]
    highs = [high for high in (high_a, high_b) if high is not None]
    positive = len(lows) == 2 and min(lows) >= 0
    if fn == "min":
        return (min(lows) if len(lows) == 2 else None, min(highs, default=None))
    if fn == "max":
        return (max(lows, default=None), max(highs) if len(highs) == 2 else None)
    if fn == "add":
        return (sum(lows) if len(lows) == 2 else None, sum(highs) if len(highs) == 2 else None)
    if fn == "sub":
        return (
            None if low_a is None or high_b is None else low_a - high_b,
            None if high_a is None or low_b is None else high_a - low_b,
        )
    if fn == "mul" and positive:
        assert low_a is not None and low_b is not None
        high = None if high_a is None or high_b is None else high_a * high_b
        return (low_a * low_b, high)
    if fn == "div" and positive and low_b:
        return (0, None if high_a is None else high_a // low_b)
    return (None, None)
