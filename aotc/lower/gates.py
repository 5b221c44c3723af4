"""GATES groups: a product whose columns are several gates of as many units each, combined on
registers. A group goes in, one kernel call comes out.

Seen as gate[g][row, unit] = sum over depth of lhs[row, depth] * rhs[depth, g, unit], lanes along
the units. A tile holds the accumulators of all gates for its rows and units, so what follows
pointwise, a whole step of a recurrent cell, needs nothing from memory but its other operands. The
weights are packed in that order. Each gate adds its terms in depth order with one fused
multiply-add each, as every contraction does (lower/contract.py), so the bytes are those of the
product on its own.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aotc.fuse.groups import Group
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.loop import index
from aotc.loop.ir import Alloc, Buffer, Expr, Kind, Lit, Load, Prefetch, Space, Stmt, Store
from aotc.loop.program import Call
from aotc.lower.context import Context
from aotc.lower.contract_kernel import multiply_add
from aotc.lower.pointwise import expression
from aotc.lower.scope import Access, KernelScope, loop, vector
from aotc.schedule.cpu import GateSizes, choose_gates
from aotc.schedule.recipe import GateRecipe, Segment

#: Cells (a row's vector of units) of a tile up to which the formulas are written for each.
COMBINED_IN_LINE = 2


def lower_gates(context: Context, group: Group) -> None:
    """Emits the kernel of a GATES group."""
    context.emit(_Writer(context, group).call())


def pack_gates(weights: np.ndarray, gates: int, recipe: GateRecipe) -> np.ndarray:
    """Constant weights [depth, gates * units] as [vector][depth][gate][lane], zero beyond the last
    unit: the same for all tiles, so that the sizes of a model share them."""
    depth, columns = weights.shape
    lanes, units = recipe.lanes, columns // gates
    vectors = recipe.panels[-1].stop
    padded = np.zeros((depth, gates, vectors * lanes), weights.dtype)
    padded[:, :, :units] = weights.reshape(depth, gates, units)
    return padded.reshape(depth, gates, vectors, lanes).transpose(2, 0, 1, 3).reshape(-1)


@dataclass(frozen=True)
class _Tile:
    """The accumulators of ``row.size`` rows from ``first`` and of panel number ``p``, which has
    ``panel.size`` vectors of each gate."""

    row: Segment
    panel: Segment
    first: Expr
    p: Expr


class _Writer:
    """Writes the kernel of one group."""

    def __init__(self, context: Context, group: Group) -> None:
        self.group = group
        self.rows, self.units = group.result.shape
        lhs, weights = group.anchor.inputs
        self.depth = lhs.shape[1]
        self.dtype = group.anchor.type.dtype
        self.gates = weights.shape[1] // self.units
        lanes = context.lanes_for(self.dtype)
        item = self.dtype.size_bytes
        sizes = GateSizes(self.rows, self.units, self.gates, self.depth, lanes, item)
        self.recipe = choose_gates(sizes, context.target)
        assert weights.data is not None
        packed = context.constant(pack_gates(weights.data, self.gates, self.recipe), "packed")
        self.slices, self.pointwise = slices_and_formulas(group)
        read = context.operands(self.pointwise, group.nodes)
        leaves = {node: context.view(node) for node in read}
        results = {node: context.view(node) for node in group.results}
        self.scope = KernelScope()
        self.scope.reserve(context.view(lhs), packed, *leaves.values(), *results.values())
        self.lhs = self.scope.access(context.view(lhs))
        self.rhs = self.scope.access(packed)
        self.leaves = {node: self.scope.access(view) for node, view in leaves.items()}
        self.results = {
            node: self.scope.access(view, write=True) for node, view in results.items()
        }
        self.slices_ahead = [
            (self.leaves[node] if node in self.leaves else self.results[node], view.moves[-1][1])
            for node, view in (leaves | results).items()
            if view.moves and view.storage.size_bytes > context.target.l2_bytes
        ]

    def call(self) -> Call:
        """The kernel and its call."""
        body: list[Stmt] = []
        for panel in self.recipe.panels:
            body += loop("p", panel.count, functools.partial(self._panel, panel))
        return self.scope.call(self.group.label, body, (), str(self.recipe), True)

    def _panel(self, panel: Segment, p: Expr) -> list[Stmt]:
        def rows(row: Segment, r: Expr) -> list[Stmt]:
            first = index.add(index.mul(r, row.size), index.lit(row.start))
            return self._tile(_Tile(row, panel, first, p))

        stmts: list[Stmt] = []
        for row in self.recipe.rows:
            stmts += loop("r", row.count, functools.partial(rows, row))
        return stmts

    def _tile(self, tile: _Tile) -> list[Stmt]:
        """Clear the accumulators, add the products, combine the gates."""
        lanes, cells = self.recipe.lanes, tile.row.size * tile.panel.size
        sums = Buffer("acc", self.dtype, cells * self.gates * lanes, Space.REGISTER)

        def clear(i: Expr, w: int, g: int, v: Expr) -> Stmt:
            return Store(sums, self._cell(tile, i, w, g, v), Lit(0, self.dtype))

        body = [*self._ahead(tile), *self._each(tile, clear), *self._products(tile, sums)]
        if cells <= COMBINED_IN_LINE:
            combined = self._combine(tile, sums, Kind.UNROLLED)
            return [Alloc(sums, (*body, *combined))]
        # in line for every cell, a cell's formulas would bloat the code and spill
        beside = Buffer("sums", self.dtype, sums.elems, Space.STACK)

        def keep(i: Expr, w: int, g: int, v: Expr) -> Stmt:
            at = self._cell(tile, i, w, g, v)
            return Store(beside, at, Load(sums, at))

        body += self._each(tile, keep)
        combined = self._combine(tile, beside, Kind.SERIAL)
        return [Alloc(beside, (Alloc(sums, tuple(body)), *combined))]

    def _ahead(self, tile: _Tile) -> list[Stmt]:
        """Asks for what the next iteration of the loop around reads and writes in this place, a
        slice further on, if the sequence is too long for the caches: the products of a step take
        longer than memory takes, but hide it only from what was asked for before them."""
        lanes = self.recipe.lanes

        def pixel(i: Expr) -> list[Stmt]:
            hints: list[Stmt] = []
            for access, step in self.slices_ahead:
                for w in range(tile.panel.size):
                    unit = index.mul(tile.p, tile.panel.size * lanes)
                    unit = index.add(unit, index.lit((tile.panel.start + w) * lanes))
                    first = access.index((index.add(tile.first, i), unit))
                    hints.append(Prefetch(access.buffer, index.add(first, step), 1))
            return hints

        return loop("i", tile.row.size, pixel, Kind.UNROLLED)

    def _each(
        self, tile: _Tile, body: Callable[[Expr, int, int, Expr], Stmt]
    ) -> list[Stmt]:
        """``body(row of the tile, vector, gate, lane)`` for every accumulator, in line."""
        lanes = self.recipe.lanes

        def pixel(i: Expr) -> list[Stmt]:
            return [
                vector("v", lanes, lanes, lambda v, w=w, g=g: [body(i, w, g, v)])  # type: ignore[misc]
                for w in range(tile.panel.size)
                for g in range(self.gates)
            ]

        return loop("i", tile.row.size, pixel, Kind.UNROLLED)

    def _cell(self, tile: _Tile, i: Expr, w: int, g: int, v: Expr) -> Expr:
        """Lane v of the accumulator of row i, vector w and gate g."""
        lanes = self.recipe.lanes
        first = index.mul(i, tile.panel.size * self.gates * lanes)
        return index.add(index.add(first, index.lit((w * self.gates + g) * lanes)), v)

    def _products(self, tile: _Tile, sums: Buffer) -> list[Stmt]:
        """The loop over the depth, by the recipe's factor in line."""
        unroll = min(self.recipe.depth_unroll, self.depth)
        chunks, rest = divmod(self.depth, unroll)

        def step(k: Expr) -> list[Stmt]:
            def term(i: Expr, w: int, g: int, v: Expr) -> Stmt:
                a = self.lhs.load((index.add(tile.first, i), k))
                b = self.rhs.load((index.add(self._weight(tile, k, w, g), v),))
                at = self._cell(tile, i, w, g, v)
                return Store(sums, at, multiply_add(a, b, Load(sums, at)))

            return self._each(tile, term)

        def steps(first: Expr, count: int) -> list[Stmt]:
            return loop("u", count, lambda u: step(index.add(first, u)), Kind.UNROLLED)

        stmts = loop("k", chunks, lambda k: steps(index.mul(k, unroll), unroll))
        return stmts + (steps(index.lit(chunks * unroll), rest) if rest else [])

    def _weight(self, tile: _Tile, k: Expr, w: int, g: int) -> Expr:
        """Where the packed weights of depth k, vector w and gate g of the tile begin."""
        width = self.recipe.lanes * self.gates
        first: Expr = index.lit((tile.panel.start + w) * self.depth * width)
        start = index.add(first, index.mul(tile.p, tile.panel.size * self.depth * width))
        start = index.add(start, index.mul(k, width))
        return index.add(start, index.lit(g * self.recipe.lanes))

    def _combine(self, tile: _Tile, sums: Buffer, kind: Kind) -> list[Stmt]:
        """Stores every result of the tile's cells; rows in a loop of ``kind``."""

        def pixel(i: Expr) -> list[Stmt]:
            return [stmt for w in range(tile.panel.size) for stmt in self._unit(tile, sums, i, w)]

        return loop("i", tile.row.size, pixel, kind)

    def _unit(self, tile: _Tile, sums: Buffer, i: Expr, w: int) -> list[Stmt]:
        """The formulas for vector w of units in row i of the tile."""
        lanes = self.recipe.lanes
        kept = {
            node: Buffer(f"kept{n}", node.type.dtype, lanes, Space.REGISTER)
            for n, node in enumerate(self.group.others)
        }

        def lane(v: Expr) -> list[Stmt]:
            unit = index.mul(tile.p, tile.panel.size * lanes)
            unit = index.add(index.add(unit, index.lit((tile.panel.start + w) * lanes)), v)
            where = (index.add(tile.first, i), unit)
            values: dict[Node, Expr] = {
                node: Load(sums, self._cell(tile, i, w, gate_of(node), v)) for node in self.slices
            }
            values |= {node: leaf.load(where) for node, leaf in self.leaves.items()}
            return combine(self.pointwise, values, kept, self.results, where, v)

        active = min(lanes, self.units - (tile.panel.start + w) * lanes)
        full = tile.panel.count > 1
        stmts: tuple[Stmt, ...] = (vector("v", lanes if full else active, lanes, lane),)
        for buffer in kept.values():
            stmts = (Alloc(buffer, stmts),)
        return list(stmts)


def slices_and_formulas(group: Group) -> tuple[list[Node], list[Node]]:
    """The gates of a GATES group, and the pointwise nodes that combine them."""
    slices = [node for node in group.nodes if node.inputs[0] is group.anchor]
    members = {group.anchor, *slices}
    return slices, [node for node in group.nodes if node not in members]


def gate_of(node: Node) -> int:
    """Which gate a slice of the product is."""
    assert isinstance(node.op, ops.Slice)
    return node.op.starts[1] // node.shape[1]


def combine(
    pointwise: Sequence[Node],
    values: dict[Node, Expr],
    kept: Mapping[Node, Buffer],
    results: Mapping[Node, Access],
    where: tuple[Expr, Expr],
    v: Expr,
) -> list[Stmt]:
    """Stores the ``results`` at [row, unit] ``where``, given the ``values`` of gates and other
    operands there. Those of ``kept``, which others need too, wait in its element ``v``."""
    stmts: list[Stmt] = []
    for node in pointwise:
        values[node] = expression(node, values)
        if node in kept:
            # further results are read again: computed once, whatever comes of them
            stmts.append(Store(kept[node], v, values[node]))
            values[node] = Load(kept[node], v)
        if node in results:
            stmts.append(results[node].store(where, values[node]))
    return stmts
