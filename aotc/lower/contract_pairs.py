"""Contractions of bytes by products of pairs of int16: operands and a recipe go in, a kernel call
comes out.

Where the instructions multiply pairs of int16, bytes must be widened first. A tile's share of the
left-hand side is widened once, into scratch memory, and then read by all panels of weights. The
weights are widened as they are loaded, for all pixels of the tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from aotc.fuse.groups import Group
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import (
    Alloc,
    Buffer,
    Expr,
    Kind,
    Load,
    QuadProduct,
    Space,
    Stmt,
    Store,
    Widened,
)
from aotc.loop.program import Call
from aotc.lower.context import Context
from aotc.lower.contract_kernel import Bytes, ContractWriter, Operands, Tile
from aotc.lower.scope import loop
from aotc.lower.views import View
from aotc.schedule.recipe import ContractRecipe, Segment


class PairWriter(ContractWriter):
    """Writes the kernel; the arguments are those of `ContractWriter`, with ``bytes_`` and weights
    packed in groups of bytes. The scratch memory lies in the arena: [group][pixel],
    four int16 each."""

    def __init__(
        self,
        context: Context,
        group: Group,
        epilogue: tuple[Node, ...],
        leaf_nodes: Sequence[Node],
        operands: Operands,
        recipe: ContractRecipe,
        packed: View,
        bytes_: Bytes,
    ) -> None:
        recipe = replace(recipe, panel_outer=False)  # what is widened serves all panels
        super().__init__(group, epilogue, leaf_nodes, operands, recipe, packed, bytes_=bytes_)
        rows, columns = (max(s.size for s in axis) for axis in (recipe.rows, recipe.columns))
        groups = (math.prod(self.depth) * rows * columns,)
        scratch = context.temporary(DType.I64, groups, "widened")
        self.scope.reserve(scratch)
        self.wide = self.scope.access(scratch, write=True)

    def call(self, recipe: str) -> Call:
        body = self.body()  # not independent: all tiles use the same scratch memory
        return self.scope.call(self.group.label, body, self._reusable(), recipe)

    def _pixel_tile(
        self, at: tuple[Expr, ...], row: Segment, column: Segment, r0: Expr, c0: Expr
    ) -> list[Stmt]:
        """Widens the left-hand side of these pixels, then computes them for all panels."""
        bytes_ = self.bytes
        assert bytes_ is not None
        multiply = super()._pixel_tile(at, row, column, r0, c0)

        def widen(i: Expr, j: Expr) -> list[Stmt]:
            pixel = (*at, index.add(r0, i), index.add(c0, j))
            number = index.add(index.mul(i, column.size), j)

            def group(k: tuple[Expr, ...]) -> list[Stmt]:
                first = self.lhs.index((*pixel, *k[:-1], bytes_.first(k[-1])))
                place = self._place(k, row.size * column.size, number)
                return [Store(self.wide.buffer, place, Widened(self.lhs.buffer, first))]

            return self._depth((), self.depth, group, None)

        stmts = loop(
            "i", row.size, lambda i: loop("j", column.size, lambda j: widen(i, j))
        )
        return [*stmts, *multiply]

    def _place(self, k: tuple[Expr, ...], pixels: int, pixel: Expr) -> Expr:
        """Where the scratch memory of a tile of ``pixels`` holds group ``k`` of one."""
        group: Expr = index.lit(0)
        for position, extent in zip(k, self.depth, strict=True):
            group = index.add(index.mul(group, extent), position)
        return index.add(index.mul(group, pixels), pixel)

    def _step(
        self, at: tuple[Expr, ...], tile: Tile, acc: Buffer, k: tuple[Expr, ...]
    ) -> list[Stmt]:
        """One depth step: the groups of the operand that the tile has fewer of stay in registers
        while those of the other pass."""
        panel, pixels = range(tile.panel.size), range(tile.pixels)

        def weight(w: int) -> Expr:
            cell = self._weight(at, tile, k, w, index.lit(0))
            return Widened(cell.buffer, cell.index)

        def data(number: Expr) -> Expr:
            return Load(self.wide.buffer, self._place(k, tile.pixels, number))

        def term(number: Expr, w: int, a: Expr, b: Expr) -> Stmt:
            place = index.add(index.mul(number, tile.panel.size), index.lit(w))
            return Store(acc, place, QuadProduct(a, b, Load(acc, place)))

        by_pixel = len(pixels) > len(panel)
        values = [weight(w) for w in panel] if by_pixel else [data(index.lit(i)) for i in pixels]
        kept = Buffer("kept", DType.I64, len(values), Space.REGISTER)
        load = [Store(kept, index.lit(i), value) for i, value in enumerate(values)]
        if by_pixel:
            terms = loop(
                "i",
                tile.pixels,
                lambda i: [term(i, w, data(i), Load(kept, index.lit(w))) for w in panel],
                Kind.UNROLLED,
            )
        else:
            terms = []
            for w in panel:
                terms += [
                    term(index.lit(i), w, Load(kept, index.lit(i)), weight(w)) for i in pixels
                ]
        return [Alloc(kept, (*load, *terms))]
