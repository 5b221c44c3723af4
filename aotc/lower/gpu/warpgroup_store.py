"""The end of a product by warpgroups: sums in registers go in, statements that store the results,
through what follows pointwise, come out.

The fragments of a product leave two neighbours to a thread. So the sums go through a panel of
shared memory, some rows and columns at a time, from which a thread takes as many neighbours as
memory moves at once: of what else is read, and of the results.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from aotc.fuse.groups import Group
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import Barrier, Buffer, Expr, For, Kind, Lit, Load, Space, Stmt, Store, Var
from aotc.loop.ir_async import WARPGROUP
from aotc.loop.launch import SHARED_ALIGNMENT
from aotc.lower.contract_kernel import Operands
from aotc.lower.gpu.binding import bind, digits
from aotc.lower.gpu.tile_maps import Box
from aotc.lower.gpu.vectors import neighbours
from aotc.lower.pointwise import evaluate_nodes, weight_of
from aotc.lower.scope import STORAGE_ALIGNMENT, KernelScope, loop, vector
from aotc.schedule.gpu_warpgroup import PANEL_GAP, PANEL_ROWS, ROWS, WarpgroupTile

#: Rows of a warp in one product; those of a thread are half of them apart.
_WARP_ROWS = 16
_HALF = _WARP_ROWS // 2


class WarpgroupStore:
    """Stores the results of one thread's warpgroup. ``merged`` are for each axis of boxes the axes
    of the result that it stands for; ``sums`` are those of the thread."""

    def __init__(
        self,
        group: Group,
        epilogue: tuple[Node, ...],
        leaf_nodes: Sequence[Node],
        operands: Operands,
        scope: KernelScope,
        tile: WarpgroupTile,
        box: Box,
        merged: tuple[tuple[int, ...], ...],
        sums: Buffer,
    ) -> None:
        self._group, self._epilogue, self._leaf_nodes = group, epilogue, leaf_nodes
        self._tile, self._box, self._merged, self._sums = tile, box, merged, sums
        self._leaves = [scope.access(leaf) for leaf in operands.leaves]
        self._result = scope.access(operands.result, write=True)
        self._columns = operands.result.shape[-1]
        self._lanes = self._most_lanes()
        self._width, self._stride = self._panel_sizes()
        elems = tile.groups * PANEL_ROWS * self._stride
        self.panel = Buffer("panel", DType.F32, elems, Space.SHARED, SHARED_ALIGNMENT)
        self._part: tuple[Expr, ...] = ()
        self._at: tuple[Expr, ...] = ()
        self._down: Expr = Lit(0)
        self._across: Expr = Lit(0)

    def _panel_sizes(self) -> tuple[int, int]:
        """Columns of the panel, and elements from one row to the next."""
        return self._tile.panel_columns, self._tile.panel_columns + PANEL_GAP

    def _most_lanes(self) -> int:
        """Neighbours that a thread stores: 16 bytes of the result, in however many accesses what is
        read takes."""
        lanes = neighbours([self._result], self._columns)
        for leaf in self._leaves:
            found = neighbours([leaf], self._columns)
            if found * leaf.buffer.dtype.size_bytes < STORAGE_ALIGNMENT:
                lanes = min(lanes, found)
        return lanes

    def statements(
        self,
        group: Expr,
        inside: Expr,
        part: tuple[Expr, ...],
        at: tuple[Expr, ...],
        down: Expr,
        across: Expr,
    ) -> list[Stmt]:
        """What the thread ``inside`` a warpgroup, the ``group`` of the block, does for the tile
        ``down`` and ``across`` of the product ``at`` the batch, of a ``part`` of the depth."""
        self._part, self._at, self._down, self._across = part, at, down, across
        first = index.mul(group, PANEL_ROWS * self._stride)

        def placed(place: tuple[Expr, ...]) -> list[Stmt]:
            return self._panels(first, group, inside, place)

        return digits("lane", inside, (WARPGROUP // 32, 8, 4), placed)

    def _panels(
        self, first: Expr, group: Expr, inside: Expr, place: tuple[Expr, ...]
    ) -> list[Stmt]:
        """All results, a panel of them at a time, by the thread at ``place``: its warp, row and
        pair of columns. The panel of its warpgroup begins at ``first``."""
        warp, row, pair = place
        to = index.linear(
            0, ((first, 1), (warp, _HALF * self._stride), (row, self._stride), (pair, 2))
        )
        stmts: list[Stmt] = []
        for product in range(self._tile.products):
            for half in range(2):
                for panel in range(self._tile.columns // self._width):
                    if stmts:
                        stmts.append(Barrier())
                    stmts += [
                        *self._lay_out(to, product, half, panel),
                        Barrier(),
                        *self._pick_up(first, group, inside, product, half, panel),
                    ]
        return stmts

    def _lay_out(self, to: Expr, product: int, half: int, panel: int) -> list[Stmt]:
        """Puts the thread's sums of half of the rows of a product into the panel."""
        begin = product * self._tile.columns * ROWS // WARPGROUP
        begin += panel * self._width // 8 * 4 + half * 2
        stmts: list[Stmt] = []
        for j in range(self._width // 8):
            v = Var("v")
            held = Load(self._sums, index.add(v, begin + 4 * j))
            store = Store(self.panel, index.add(index.add(to, 8 * j), v), held)
            stmts.append(For(v, 2, (store,), Kind.VECTOR, 2))
        return stmts

    def _pick_up(
        self, first: Expr, group: Expr, inside: Expr, product: int, half: int, panel: int
    ) -> list[Stmt]:
        """Stores the results of the panel."""
        tile, lanes = self._tile, self._lanes
        across = self._width // lanes
        pieces = PANEL_ROWS * across

        def piece(number: Expr) -> list[Stmt]:
            return digits("piece", number, (PANEL_ROWS // _HALF, _HALF, across), located)

        def located(at: tuple[Expr, ...]) -> list[Stmt]:
            warp, row, place = at
            begin = (product * ROWS) + half * _HALF
            in_tile = index.linear(
                begin, ((group, tile.products * ROWS), (warp, _WARP_ROWS), (row, 1))
            )
            source = index.linear(
                0,
                (
                    (first, 1),
                    (warp, _HALF * self._stride),
                    (row, self._stride),
                    (place, lanes),
                ),
            )
            column = index.linear(
                panel * across, ((self._across, tile.columns // lanes), (place, 1))
            )
            return bind(
                "column",
                column,
                self._columns // lanes,
                lambda c: self._row(in_tile, lambda pixel: self._vector(source, pixel, c)),
            )

        return self._shared(inside, pieces, piece)

    def _shared(
        self, inside: Expr, pieces: int, piece: Callable[[Expr], list[Stmt]]
    ) -> list[Stmt]:
        """``piece`` for the numbers below ``pieces`` that are the thread's."""

        def turn(i: Expr) -> list[Stmt]:
            return bind("number", index.add(index.mul(i, WARPGROUP), inside), pieces, piece)

        # the loads of all turns overlap, unless their code is long, or registers are few
        few = self._tile.sums > ROWS and (self._tile.groups > 2 or len(self._leaves) > 2)
        kind = Kind.SERIAL if few or weight_of(self._epilogue) else Kind.UNROLLED
        return loop("turn", -(-pieces // WARPGROUP), turn, kind)

    def _vector(self, source: Expr, pixel: tuple[Expr, ...], column: Expr) -> list[Stmt]:
        """Stores neighbours, from ``source`` in the panel to ``column``, counted in vectors."""
        lanes = self._lanes

        def one(v: Expr) -> list[Stmt]:
            where = (*self._part, *self._at, *pixel, index.add(index.mul(column, lanes), v))
            return [self._one(where, Load(self.panel, index.add(source, v)))]

        return [vector("v", lanes, lanes, one)]

    def _row(
        self, in_tile: Expr, body: Callable[[tuple[Expr, ...]], list[Stmt]]
    ) -> list[Stmt]:
        """``body`` of where a row of the tile is in the result, if it is there."""
        box = self._box
        boxes = index.mul(self._down, box.in_tile)
        inside = in_tile
        if box.in_tile > 1:
            boxes = index.add(boxes, index.div(in_tile, box.rows))
            inside = index.mod(in_tile, box.rows)

        def in_box(at: tuple[Expr, ...]) -> list[Stmt]:
            return digits("inside", inside, box.extents, lambda i: axes(at, i, ()))

        def axes(
            at: tuple[Expr, ...], i: tuple[Expr, ...], found: tuple[Expr, ...], axis: int = 0
        ) -> list[Stmt]:
            if axis == len(at):
                return body(found)
            dims = self._merged[axis]
            place = index.add(index.mul(at[axis], box.extents[axis]), i[axis])

            def split(number: Expr) -> list[Stmt]:
                return digits("at", number, dims, lambda d: axes(at, i, (*found, *d), axis + 1))

            return bind("row", place, math.prod(dims), split)

        # the last tile may have boxes beyond the rows
        total = math.prod(box.grid)
        return bind("boxes", boxes, total, lambda number: digits("box", number, box.grid, in_box))

    def _one(self, where: tuple[Expr, ...], raw: Expr) -> Stmt:
        """Stores one result."""
        values: dict[Node, Expr] = {
            node: leaf.load(where)
            for node, leaf in zip(self._leaf_nodes, self._leaves, strict=True)
        }
        found = evaluate_nodes(self._epilogue, {**values, self._group.anchor: raw})
        value = found[self._group.result] if self._epilogue else raw
        return self._result.store(where, value)


class ExchangedStore(WarpgroupStore):
    """The same for a product of the transposed factors: rows of its tiles are channels. A panel has
    a few columns of the tile, each as a row, so that channels are neighbours; the ``down`` of
    `statements` counts tiles of the rows of the result still."""

    def _panel_sizes(self) -> tuple[int, int]:
        # rows of the panel are a quarter of the banks apart, for threads that store two rows apart
        return PANEL_ROWS, ROWS + PANEL_GAP // 2

    def _panels(
        self, first: Expr, group: Expr, inside: Expr, place: tuple[Expr, ...]
    ) -> list[Stmt]:
        warp, row, pair = place
        to = index.linear(
            0, ((first, 1), (warp, _WARP_ROWS), (row, 1), (pair, 2 * self._stride))
        )
        stmts: list[Stmt] = []
        for panel in range(self._tile.columns // PANEL_ROWS):
            stmts += [
                *([Barrier()] if stmts else []),
                *self._lay_out_columns(to, panel),
                Barrier(),
                *self._pick_up_columns(first, group, inside, panel),
            ]
        return stmts

    def _lay_out_columns(self, to: Expr, panel: int) -> list[Stmt]:
        """Puts the thread's sums of the columns of a panel into it."""
        stmts: list[Stmt] = []
        for j in range(PANEL_ROWS // 8):
            for half in range(2):
                for odd in range(2):
                    number = (panel * PANEL_ROWS // 8 + j) * 4 + half * 2 + odd
                    place = (8 * j + odd) * self._stride + half * _HALF
                    held = Load(self._sums, index.lit(number))
                    stmts.append(Store(self.panel, index.add(to, place), held))
        return stmts

    def _pick_up_columns(
        self, first: Expr, group: Expr, inside: Expr, panel: int
    ) -> list[Stmt]:
        """Stores the results of the panel."""
        lanes = self._lanes
        across = ROWS // lanes

        def piece(number: Expr) -> list[Stmt]:
            return digits("piece", number, (PANEL_ROWS, across), located)

        def located(at: tuple[Expr, ...]) -> list[Stmt]:
            row, place = at
            source = index.linear(0, ((first, 1), (row, self._stride), (place, lanes)))
            column = index.linear(
                0, ((self._across, self._tile.rows // lanes), (group, across), (place, 1))
            )
            in_tile = index.add(row, panel * PANEL_ROWS)
            return bind(
                "column",
                column,
                self._columns // lanes,
                lambda c: self._row(in_tile, lambda pixel: self._vector(source, pixel, c)),
            )

        return self._shared(inside, PANEL_ROWS * across, piece)
