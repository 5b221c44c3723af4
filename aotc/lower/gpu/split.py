"""Products whose depth is split over blocks: their sums over parts of it go in, a kernel that adds
them comes out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aotc.fuse.groups import Group
from aotc.graph.ir import Node
from aotc.loop.ir import Bin, Expr
from aotc.lower.context import Context
from aotc.lower.contract_kernel import Operands
from aotc.lower.pointwise import evaluate_nodes, sweep
from aotc.lower.views import View


def join_parts(
    context: Context,
    group: Group,
    epilogue: tuple[Node, ...],
    leaf_nodes: Sequence[Node],
    operands: Operands,
    parts: View,
) -> None:
    """Emits the kernel that adds the sums over parts of the depth, in order, through the epilogue.
    ``parts`` is [parts, *shape of the result]."""
    count = parts.shape[0]
    first = replace(parts, shape=parts.shape[1:], strides=parts.strides[1:])
    each = [replace(first, offset=first.offset + i * parts.strides[0]) for i in range(count)]

    def compute(loads: Sequence[Expr]) -> Expr:
        total = loads[0]
        for part in loads[1:count]:
            total = Bin("add", total, part)
        values = dict(zip(leaf_nodes, loads[count:], strict=True))
        found = evaluate_nodes(epilogue, {**values, group.anchor: total})
        return found[group.result] if epilogue else total

    sweep(context, f"{group.label}_join", operands.result, [*each, *operands.leaves], compute, 1)
