"""Explicit padding: padding `Conv`s and windows go in, `Pad`s before unpadded ones come out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node, Op
from aotc.graph.types import DType
from aotc.passes.rewrite import Rule, rewrite


def explicit_pad(graph: Graph) -> Graph:
    """Give every padding `Conv` and `ReduceWindow` a `Pad` of its data, with the value that changes
    nothing."""
    return rewrite(graph, _RULES)


def _pad_conv(builder: Builder, op: Op, operands: tuple[Node, ...], origin: str) -> Node | None:
    assert isinstance(op, ops.Conv)
    if not any(op.low) and not any(op.high):
        return None
    data, weights = operands

    def around(spatial: tuple[int, ...]) -> tuple[int, ...]:
        return (0, *spatial, 0) if op.channels_last else (0, 0, *spatial)

    padded = builder.apply(ops.Pad(around(op.low), around(op.high), 0.0), data, origin=origin)
    none = (0,) * len(op.low)
    return builder.apply(replace(op, low=none, high=none), padded, weights, origin=origin)


def _pad_window(builder: Builder, op: Op, operands: tuple[Node, ...], origin: str) -> Node | None:
    assert isinstance(op, ops.ReduceWindow)
    if not any(op.low) and not any(op.high):
        return None
    (data,) = operands
    value = 0.0 if op.fn == "sum" else _lowest(data.type.dtype)
    padded = builder.apply(ops.Pad(op.low, op.high, value), data, origin=origin)
    none = (0,) * len(op.low)
    return builder.apply(replace(op, low=none, high=none), padded, origin=origin)


def _lowest(dtype: DType) -> float:
    """The identity of max."""
    return float("-inf") if dtype.is_float else float(np.iinfo(dtype.numpy).min)


_RULES: dict[type[Op], tuple[Rule, ...]] = {
    ops.Conv: (_pad_conv,),
    ops.ReduceWindow: (_pad_window,),
}
