"""GATES groups on a GPU: one step of a recurrent cell in one kernel, a warp for each unit.

The product has few rows, so its time is that of its weights. A warp adds up all gates of one unit
for all rows: its threads share the depth, in pieces of up to 16 bytes of each gate's weights, and
join their sums by shuffles; its first thread then computes the formulas. The order of terms is not
that of a processor, so with ``--precision f32`` lower/gates.py has the group.
"""

from __future__ import annotations

import numpy as np

from aotc.fuse.groups import Group
from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import Alloc, Buffer, Expr, Space, Stmt
from aotc.lower.context import Context
from aotc.lower.gates import combine, gate_of, lower_gates, slices_and_formulas
from aotc.lower.gpu.vectors import neighbours
from aotc.lower.gpu.warp_sums import WarpSums, warp_nest
from aotc.lower.scope import KernelScope

#: Warps of a block.
WARPS = 4


def lower_gpu_gates(context: Context, group: Group) -> None:
    """Emits the kernel of a GATES group."""
    if context.target.precision == "f32" or group.anchor.type.dtype is not DType.F32:
        lower_gates(context, group)
    else:
        _Writer(context, group).emit()


class _Writer:
    """Writes the kernel of one group."""

    def __init__(self, context: Context, group: Group) -> None:
        self.context = context
        self.group = group
        self.rows, self.units = group.result.shape
        lhs, weights = group.anchor.inputs
        assert weights.data is not None
        depth, gates = lhs.shape[1], weights.shape[1] // self.units
        self.slices, self.pointwise = slices_and_formulas(group)
        by_gate = weights.data.reshape(depth, gates, self.units)
        packed = context.constant(np.ascontiguousarray(by_gate.transpose(2, 1, 0)), "packed")
        leaves = {
            node: context.view(node) for node in context.operands(self.pointwise, group.nodes)
        }
        results = {node: context.view(node) for node in group.results}
        self.scope = KernelScope(aligned=True)
        self.scope.reserve(context.view(lhs), packed, *leaves.values(), *results.values())
        self.lhs = self.scope.access(context.view(lhs))
        self.rhs = self.scope.access(packed)
        self.leaves = {node: self.scope.access(view) for node, view in leaves.items()}
        self.results = {
            node: self.scope.access(view, write=True) for node, view in results.items()
        }
        wide = neighbours((self.lhs, self.rhs), depth)
        self.sums = WarpSums.of(self.rows, gates, depth, wide)

    def emit(self) -> None:
        """Emits the call."""

        def add(unit: Expr, lane: Expr) -> list[Stmt]:
            return self.sums.add(
                lane,
                lambda row, k: self.lhs.load((index.lit(row), k)),
                lambda gate, k: self.rhs.load((unit, index.lit(gate), k)),
            )

        nest = warp_nest(WARPS, self.units, self.sums, add, self._combine)
        self.context.emit(self.scope.call(self.group.label, [nest]))

    def _combine(self, unit: Expr) -> list[Stmt]:
        """Stores every result of the unit."""
        kept = {
            node: Buffer(f"kept{n}", node.type.dtype, 1, Space.REGISTER)
            for n, node in enumerate(self.group.others)
        }
        stmts: list[Stmt] = []
        for row in range(self.rows):
            where = (index.lit(row), unit)
            values = {node: self.sums.total(row, gate_of(node)) for node in self.slices}
            values |= {node: leaf.load(where) for node, leaf in self.leaves.items()}
            stmts += combine(self.pointwise, values, kept, self.results, where, index.lit(0))
        for buffer in kept.values():
            stmts = [Alloc(buffer, tuple(stmts))]
        return stmts
