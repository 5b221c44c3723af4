"""GATES groups on a GPU: one step of a recurrent cell in one kernel, a warp for each unit.

The product has few rows, so its time is that of its weights. A warp adds up all gates of one unit
for all rows: its threads share the depth, in pieces of up to 16 bytes of each gate's weights, and
join their sums by shuffles; its first thread then computes the formulas. The order of terms is not
that of a processor, so with ``--precision f32`` lower/gates.py has the group.
"""

from __future__ import annotations

import numpy as np

from aotc.fuse.groups import Group
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import (
    Alloc,
    Bin,
    Bind,
    Buffer,
    Expr,
    For,
    Kind,
    Lit,
    Load,
    Shuffle,
    Space,
    Stmt,
    Store,
    Var,
)
from aotc.loop.launch import WARP
from aotc.lower.context import Context
from aotc.lower.contract_kernel import multiply_add
from aotc.lower.gates import combine, gate_of, lower_gates, slices_and_formulas
from aotc.lower.gpu.binding import bind, held_below
from aotc.lower.gpu.vectors import neighbours
from aotc.lower.scope import KernelScope, loop, vector

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
        self.depth = lhs.shape[1]
        self.gates = weights.shape[1] // self.units
        self.slices, self.pointwise = slices_and_formulas(group)
        by_gate = weights.data.reshape(self.depth, self.gates, self.units)
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
        self.wide = neighbours((self.lhs, self.rhs), self.depth)
        self.sums = Buffer(
            "acc", DType.F32, self.rows * self.gates * self.wide, Space.REGISTER
        )

    def emit(self) -> None:
        """Emits the call."""
        block, warp, lane = Var("block"), Var("warp"), Var("lane")
        number = index.add(index.mul(block, WARPS), warp)
        blocks = -(-self.units // WARPS)
        # all threads of a warp shuffle, those beyond the last unit too
        held = number if blocks * WARPS == self.units else held_below(number, self.units)
        zero = Lit(0.0, DType.F32)
        zeros = loop("j", self.sums.elems, lambda j: [Store(self.sums, j, zero)], Kind.UNROLLED)
        body = [*zeros, *bind("unit", held, self.units, lambda unit: self._add(unit, lane))]
        body += self._join(lane)
        last = bind("unit", number, self.units, self._combine)
        body.append(Bind(Var("first"), lane, 1, tuple(last)))
        lanes = For(lane, WARP, (Alloc(self.sums, tuple(body)),), Kind.THREAD)
        nest = For(block, blocks, (For(warp, WARPS, (lanes,), Kind.THREAD),), Kind.BLOCK)
        self.context.emit(self.scope.call(self.group.label, [nest]))

    def _cell(self, row: int, gate: int) -> int:
        """The first accumulator of a gate of a row."""
        return (row * self.gates + gate) * self.wide

    def _add(self, unit: Expr, lane: Expr) -> list[Stmt]:
        """Adds the terms of this thread to its sums."""
        piece = self.wide * WARP

        def terms(first: Expr) -> list[Stmt]:
            def one(v: Expr) -> list[Stmt]:
                k = index.add(first, v)
                weights = [self.rhs.load((unit, index.lit(g), k)) for g in range(self.gates)]
                stmts: list[Stmt] = []
                for row in range(self.rows):
                    x = self.lhs.load((index.lit(row), k))
                    for gate, weight in enumerate(weights):
                        at = index.add(index.lit(self._cell(row, gate)), v)
                        total = multiply_add(x, weight, Load(self.sums, at))
                        stmts.append(Store(self.sums, at, total))
                return stmts

            return [vector("v", self.wide, self.wide, one)]

        def start(i: Expr, place: Expr) -> Expr:
            return index.add(index.mul(i, piece), index.mul(place, self.wide))

        full, rest = divmod(self.depth, piece)
        stmts = loop("i", full, lambda i: terms(start(i, lane))) if full else []
        if rest:
            stmts += bind(
                "last", lane, rest // self.wide, lambda x: terms(start(index.lit(full), x))
            )
        return stmts

    def _join(self, lane: Expr) -> list[Stmt]:
        """Joins the sums of all threads, each in the first of its accumulators."""
        stmts: list[Stmt] = []
        for row in range(self.rows):
            for gate in range(self.gates):
                first = index.lit(self._cell(row, gate))
                total: Expr = Load(self.sums, first)
                for v in range(1, self.wide):
                    total = Bin("add", total, Load(self.sums, index.add(first, v)))
                stmts.append(Store(self.sums, first, total))
                half = WARP // 2
                while half:
                    mine = Load(self.sums, first)
                    other = Shuffle(mine, index.mod(index.add(lane, half), WARP))
                    stmts.append(Store(self.sums, first, Bin("add", mine, other)))
                    half //= 2
        return stmts

    def _combine(self, unit: Expr) -> list[Stmt]:
        """Stores every result of the unit."""
        kept = {
            node: Buffer(f"kept{n}", node.type.dtype, 1, Space.REGISTER)
            for n, node in enumerate(self.group.others)
        }
        stmts: list[Stmt] = []
        for row in range(self.rows):
            where = (index.lit(row), unit)
            values: dict[Node, Expr] = {
                node: Load(self.sums, index.lit(self._cell(row, gate_of(node))))
                for node in self.slices
            }
            values |= {node: leaf.load(where) for node, leaf in self.leaves.items()}
            stmts += combine(self.pointwise, values, kept, self.results, where, index.lit(0))
        for buffer in kept.values():
            stmts = [Alloc(buffer, tuple(stmts))]
        return stmts
