"""The tables of derivatives: every primitive is in exactly one of `RULES`, `CONTROL`,
`NOT_DIFFERENTIABLE`; `EXPAND` replaces forms that a rule does not know by others that it does."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from aotc.autodiff import elementwise, indexing, movement, reduce, windows
from aotc.autodiff.emit import Emit
from aotc.autodiff.rule import Rule
from aotc.graph import ops
from aotc.graph.ir import Node, Op

Expand = Callable[[Emit, Node], Node | None]

RULES: Mapping[type[Op], Rule] = MappingProxyType(
    {
        **elementwise.RULES,
        **movement.RULES,
        **indexing.RULES,
        **reduce.RULES,
        **windows.RULES,
    }
)
"""The derivative of each primitive of one result, by family."""

CONTROL: tuple[type[Op], ...] = (ops.Branch, ops.Repeat, ops.Item)
"""Differentiated through their nested graphs (control.py)."""

EXPAND: Mapping[type[Op], Expand] = MappingProxyType(
    {
        ops.Conv: windows.expand_channels_last,
        ops.GatherND: indexing.expand_gather_nd,
        ops.Reduce: reduce.expand_product,
        ops.ReduceWindow: windows.expand_max_window,
    }
)
"""Other primitives for an active node, or None to leave it."""

NOT_DIFFERENTIABLE: Mapping[type[Op], str] = MappingProxyType(
    {
        ops.Compare: "its result is true or false",
        ops.ArgReduce: "its result is an index",
        ops.TopK: "its result is an index; gather the values by it",
        ops.Iota: "it has no operand",
        ops.Bitcast: "bits are no numbers",
        ops.Relabel: "it is another name for memory, at the ends of a compiled graph",
        ops.Widen: "passes make it of constants, after derivatives are taken",
        ops.Trees: "the sum of decision trees is constant between its thresholds",
    }
)
"""Why the others have none. Those of whole results are simply where a derivative ends; the rest are
refused."""
