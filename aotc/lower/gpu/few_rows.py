"""Products of a few rows with constants on a GPU: canonical operands in, one kernel out.

The time of such a product is that of its weights, which tensor cores do not shorten: they multiply
sixteen rows at once. So a warp adds up one column for all rows, its threads along the depth, and
needs no second kernel that adds parts. With ``--precision f32`` sums keep their order, which this
one is not. Weights are in 16 bits where the precision says so; all sums are float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from aotc.fuse.groups import Group
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import Expr, Stmt
from aotc.lower.context import Context
from aotc.lower.contract_kernel import Operands
from aotc.lower.gpu.operands import packed_weights, product_kind
from aotc.lower.gpu.vectors import neighbours
from aotc.lower.gpu.warp_sums import WarpSums, warp_nest
from aotc.lower.pointwise import evaluate_nodes
from aotc.lower.scope import KernelScope
from aotc.lower.views import View

#: Rows up to which this is faster than a tile of sixteen, and warps of a block.
MOST_ROWS, WARPS = 4, 4


def lower_few_rows(
    context: Context,
    group: Group,
    epilogue: tuple[Node, ...],
    leaf_nodes: Sequence[Node],
    operands: Operands,
) -> bool:
    """Emits the kernel, if the product is of that kind."""
    kind = product_kind(operands, group.anchor, context.target.precision)
    *pixels, columns = operands.result.shape
    rows = math.prod(pixels)
    if kind == "fma" or rows > MOST_ROWS or not operands.rhs.is_constant:
        return False
    if math.prod(pixels[: operands.batch]) > 1:
        return False
    depth = math.prod(operands.lhs.shape[operands.batch + 2 :])
    left = operands.lhs.reshape((rows, depth))
    views = [view.reshape((rows, columns)) for view in (operands.result, *operands.leaves)]
    result, *leaves = (view for view in views if view is not None)
    if left is None or len(leaves) < len(operands.leaves):
        return False
    weights = packed_weights(operands, "fma" if kind == "tf32" else kind)
    packed = context.constant(weights.reshape(columns, depth), "packed")
    if packed.dtype is not DType.F32:
        packed = replace(packed, value=DType.F32)
    beside = dict(zip(leaf_nodes, leaves, strict=True))
    _emit(context, group, epilogue, beside, left, packed, result)
    return True


def _emit(
    context: Context,
    group: Group,
    epilogue: tuple[Node, ...],
    leaves: dict[Node, View],
    left: View,
    packed: View,
    result: View,
) -> None:
    scope = KernelScope(aligned=True)
    scope.reserve(left, packed, result, *leaves.values())
    lhs, rhs = scope.access(left), scope.access(packed)
    others = {node: scope.access(view) for node, view in leaves.items()}
    target = scope.access(result, write=True)
    rows, depth = left.shape
    sums = WarpSums.of(rows, 1, depth, neighbours((lhs, rhs), depth))

    def add(column: Expr, lane: Expr) -> list[Stmt]:
        return sums.add(
            lane,
            lambda row, k: lhs.load((index.lit(row), k)),
            lambda _, k: rhs.load((column, k)),
        )

    def finish(column: Expr) -> list[Stmt]:
        stmts: list[Stmt] = []
        for row in range(rows):
            at = (index.lit(row), column)
            values = {group.anchor: sums.total(row, 0)}
            values |= {node: other.load(at) for node, other in others.items()}
            value = evaluate_nodes(epilogue, values)[group.result]
            stmts.append(target.store(at, value))
        return stmts

    nest = warp_nest(WARPS, packed.shape[0], sums, add, finish)
    context.emit(scope.call(group.label, [nest], recipe=f"warps {WARPS}"))
