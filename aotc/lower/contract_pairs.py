"""Contractions of bytes by products of pairs of int16: operands and a recipe go in, a kernel call
comes out.

Where the instructions multiply pairs of int16, bytes must be widened first. A tile's share of the
left-hand side is widened once, into scratch memory, and then read by all panels of weights. The
weights are widened as they are loaded, for all pixels of the tile.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from aotc.fuse.groups import Group
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import (
    Alloc,
    Buffer,
    Expr,
    Kind,
    Load,
    ShortProducts,
    Space,
    Stmt,
    Store,
    Widened,
)
from aotc.loop.program import Call
from aotc.lower.context import Context
from aotc.lower.contract_kernel import Bytes, ContractWriter, Operands, Tile
from aotc.lower.pointwise import evaluate_nodes
from aotc.lower.scope import loop
from aotc.lower.views import View
from aotc.schedule.recipe import ContractRecipe, Segment

#: Groups up to which the results of a pixel are finished with its last group (48x48 pixels by 16
#: channels, depth 8: a seventh fewer instructions; with twice this many groups 4 % more).
IN_LINE = 4


def first_addend(
    anchor: Node, epilogue: Sequence[Node], leaf_nodes: Sequence[Node], leaves: Sequence[View]
) -> int | None:
    """Which of ``leaves``, the views of ``leaf_nodes``, is a constant that the first node of
    ``epilogue`` adds to the sums ``anchor``, if nothing else reads those: they may begin with it.
    """
    if sum(anchor in node.inputs for node in epilogue) != 1:
        return None
    first = epilogue[0]
    if first.op != ops.Binary("add") or anchor not in first.inputs:
        return None
    for number, (node, view) in enumerate(zip(leaf_nodes, leaves, strict=True)):
        if node in first.inputs and view.is_constant and view.dtype is anchor.type.dtype:
            return number
    return None


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
        first = first_addend(group.anchor, epilogue, leaf_nodes, operands.leaves)
        self.bias = None if first is None else self.leaves[first]
        if first is not None:
            self.summed, *rest = epilogue
            self.epilogue = tuple(rest)
        rows, columns = (max(s.size for s in axis) for axis in (recipe.rows, recipe.columns))
        groups = (math.prod(self.depth) * rows * columns,)
        scratch = context.temporary(DType.I64, groups, "widened")
        self.scope.reserve(scratch)
        self.wide = self.scope.access(scratch, write=True)

    def _initial(self, where: tuple[Expr, ...]) -> Expr:
        return self.bias.load(where) if self.bias else super()._initial(where)

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

    def _tile(self, at: tuple[Expr, ...], tile: Tile) -> list[Stmt]:
        """Of few groups, a pixel is finished as soon as its last one is done. Else the last
        products would wait for each other, and their operands on the stack."""
        in_line = math.prod(self.depth) <= min(IN_LINE, self.recipe.depth_unroll)
        by_pixel = tile.pixels > tile.panel.size and tile.row.size == 1
        if self.two_phase or not (in_line and by_pixel):
            return super()._tile(at, tile)
        acc = Buffer("acc", self.dtype, tile.pixels * tile.panel.size, Space.REGISTER)
        kept = [
            None
            if any(view.strides[:-1])
            else Buffer("leaf", view.dtype, tile.panel.size, Space.REGISTER)
            for view in self.operands.leaves
        ]
        zero = index.lit(0)
        body: list[Stmt] = []
        for w in range(tile.panel.size):
            where = self._where(at, tile, zero, zero, w, zero)
            for register, leaf in zip(kept, self.leaves, strict=True):
                if register is not None:
                    body.append(Store(register, index.lit(w), leaf.load(where)))
            body += [
                Store(acc, self._cell(tile, zero, index.lit(i), w, zero), self._initial(where))
                for i in range(tile.pixels)
            ]
        groups = [
            tuple(map(index.lit, k)) for k in itertools.product(*map(range, self.depth))
        ]
        for k in groups[:-1]:
            body += self._step(at, tile, acc, k)
        finish = functools.partial(self._finish_pixel, at, tile, acc, kept)
        body += self._step(at, tile, acc, groups[-1], finish)
        body = [Alloc(acc, tuple(body))]
        for register in kept:
            if register is not None:
                body = [Alloc(register, tuple(body))]
        return body

    def _finish_pixel(
        self,
        at: tuple[Expr, ...],
        tile: Tile,
        acc: Buffer,
        kept: Sequence[Buffer | None],
        pixel: Expr,
    ) -> list[Stmt]:
        """Stores the results of one pixel; ``kept`` has what leaves hold for each channel."""
        stmts: list[Stmt] = []
        zero = index.lit(0)
        for w in range(tile.panel.size):
            where = self._where(at, tile, zero, pixel, w, zero)
            values: dict[Node, Expr] = {
                node: leaf.load(where) if register is None else Load(register, index.lit(w))
                for node, leaf, register in zip(self.leaf_nodes, self.leaves, kept, strict=True)
            }
            raw = Load(acc, self._cell(tile, zero, pixel, w, zero))
            values = evaluate_nodes(self.epilogue, {**values, self.summed: raw})
            stmts.append(self.result.store(where, values[self.group.result]))
        return stmts

    def _step(
        self,
        at: tuple[Expr, ...],
        tile: Tile,
        acc: Buffer,
        k: tuple[Expr, ...],
        after: Callable[[Expr], list[Stmt]] = lambda _: [],
    ) -> list[Stmt]:
        """One depth step: the groups of the operand that the tile has fewer of stay in registers
        while those of the other pass. ``after`` each of the pixels, if those pass, comes more."""
        size = self.recipe.stored_size(tile.panel.start)
        first = [
            self._weight(at, tile, k, w, index.lit(0)) for w in range(0, tile.panel.size, size)
        ]

        def weight(number: int, w: Expr) -> Expr:
            """That of vector ``w`` of stored panel ``number``."""
            cell = index.add(first[number].index, index.mul(w, self.cell))
            return Widened(first[number].buffer, cell)

        def data(pixel: Expr) -> Expr:
            return Load(self.wide.buffer, self._place(k, tile.pixels, pixel))

        def term(pixel: Expr, w: Expr, a: Expr, b: Expr) -> Stmt:
            place = index.add(index.mul(pixel, tile.panel.size), w)
            return Store(acc, place, ShortProducts(a, b, Load(acc, place)))

        kept = Buffer("kept", DType.I64, min(tile.pixels, tile.panel.size), Space.REGISTER)
        places = [index.lit(i) for i in range(kept.elems)]
        if tile.pixels > tile.panel.size:
            values = [weight(i // size, index.lit(i % size)) for i in range(kept.elems)]
            terms = _unrolled(
                tile.pixels,
                lambda i: [*(term(i, w, data(i), Load(kept, w)) for w in places), *after(i)],
            )
        else:
            values = [data(i) for i in places]
            terms = []
            for number in range(len(first)):
                start = index.lit(number * size)
                terms += _unrolled(
                    size,
                    lambda w, n=number, s=start: [  # type: ignore[misc]
                        term(i, index.add(s, w), Load(kept, i), weight(n, w)) for i in places
                    ],
                )
        load = [Store(kept, i, value) for i, value in zip(places, values, strict=True)]
        return [Alloc(kept, (*load, *terms))]


def _unrolled(extent: int, body: Callable[[Expr], list[Stmt]]) -> list[Stmt]:
    return loop("i", extent, body, Kind.UNROLLED)
