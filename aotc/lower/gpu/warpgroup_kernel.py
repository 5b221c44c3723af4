"""The kernel of a product by warpgroups: operands as tensor maps bring them and a tile go in, a
kernel call comes out.

A block has one to three warpgroups and several stages of shared memory, each a chunk of the depth
of both operands. When the products of a chunk have been given to the tensor cores, those of the
chunk before are complete; all threads meet, and one of them asks for the chunk that takes its
place. So tensor cores always have work waiting, and copies are under way for as long as all other
stages take. There is one barrier a chunk, and none at all where the depth fits the stages.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from aotc.fuse.groups import Group
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import (
    Alloc,
    Barrier,
    Buffer,
    Expr,
    For,
    Kind,
    Lit,
    Space,
    Stmt,
    Store,
    TensorMap,
    Var,
)
from aotc.loop.ir_async import (
    WARPGROUP,
    SignalExpect,
    SignalInit,
    SignalWait,
    TileCopy,
    Wgmma,
    WgmmaCommit,
    WgmmaFence,
    WgmmaWait,
)
from aotc.loop.mma import KINDS
from aotc.loop.program import Call
from aotc.loop.wgmma import TILE_ALIGNMENT
from aotc.lower.contract_kernel import Operands
from aotc.lower.gpu.binding import bind, digits
from aotc.lower.gpu.operands import (
    own_batch,
    reusable_leaves,
)
from aotc.lower.gpu.tile_maps import Box, Boxes, Position, cover
from aotc.lower.gpu.warpgroup_store import ExchangedStore, WarpgroupStore
from aotc.lower.scope import Access, KernelScope, loop
from aotc.schedule.gpu_warpgroup import (
    CHUNK_BYTES,
    ROWS,
    STEP_BYTES,
    WarpgroupTile,
    raster,
)


@dataclass(frozen=True)
class Factors:
    """The operands as tensor maps bring them. ``across`` says that rows of tiles of the right one
    are the depth, and hold columns; ``exchanged``, besides, that the product is that of the
    transposed factors: rows of its tiles are channels."""

    left: Boxes
    right: Boxes
    across: bool = False
    exchanged: bool = False


class WarpgroupContract:
    """Writes the kernel of one contraction. ``epilogue`` are the pointwise nodes after the anchor,
    ``leaf_nodes`` what they read besides it, in the order of ``operands.leaves``."""

    def __init__(
        self,
        group: Group,
        epilogue: tuple[Node, ...],
        leaf_nodes: Sequence[Node],
        operands: Operands,
        factors: Factors,
        tile: WarpgroupTile,
    ) -> None:
        self.group, self.operands, self.factors, self.tile = group, operands, factors, tile
        self.kind = KINDS[tile.kind]
        self.full = CHUNK_BYTES // self.kind.dtype.size_bytes
        self.batch = operands.lhs.shape[: own_batch(operands)]
        self.rows, self.channels = tile.rows, tile.columns
        if factors.exchanged:
            self.rows, self.channels = tile.columns, tile.rows
        box = cover(factors.left.rows, self.rows)
        assert box is not None
        self.box: Box = box
        self.chunks = math.prod(factors.left.depth) // tile.splits
        views = factors.left.view, factors.right.view
        self.scope = KernelScope(aligned=True)
        self.scope.reserve(*views, operands.result, *operands.leaves)
        self.a_map, self.b_map = self._maps(*(self.scope.access(view) for view in views))
        self.a_elems, self.b_elems = (rows * self.full for rows in (self.rows, self.channels))
        self.a, self.b = (
            Buffer(name, self.kind.dtype, elems * tile.stages, Space.SHARED, TILE_ALIGNMENT)
            for name, elems in (("a_tile", self.a_elems), ("b_tile", self.b_elems))
        )
        self.signals = Buffer("signals", DType.U64, tile.stages, Space.SHARED)
        elems = tile.products * tile.columns * ROWS // WARPGROUP
        self.acc = Buffer("acc", DType.F32, elems, Space.REGISTER)
        rows = factors.left.merged
        store = ExchangedStore if factors.exchanged else WarpgroupStore
        self.store = store(
            group, epilogue, leaf_nodes, operands, self.scope, tile, box, rows, self.acc
        )
        self.at: tuple[Expr, ...] = ()  # the batch
        self.part: tuple[Expr, ...] = ()  # of the depth, where blocks share it
        self.down: Expr = Lit(0)  # the tile
        self.across: Expr = Lit(0)

    def _maps(self, a: Access, b: Access) -> tuple[TensorMap, TensorMap]:
        left, right, tile = self.factors.left, self.factors.right, self.tile
        tf32 = tile.kind == "tf32"
        rows = self.full if self.factors.across else self.channels
        return left.map("a", a, self.box.extents, tf32), right.map("b", b, (rows,), tf32)

    def call(self) -> Call:
        """The kernel and its call."""
        tile = self.tile
        x, y, thread = Var("x"), Var("y"), Var("thread")
        body: Stmt = For(thread, tile.threads, tuple(self._thread(x, y, thread)), Kind.THREAD)
        for buffer in (self.store.panel, self.signals, self.b, self.a):
            body = Alloc(buffer, (body,))
        across = -(-self.operands.result.shape[-1] // self.channels)
        for var, extent in (
            (x, self.box.tiles * across),
            (y, tile.splits * math.prod(self.batch)),
        ):
            body = For(var, extent, (body,), Kind.BLOCK)
        reusable = reusable_leaves(self.operands)
        call = self.scope.call(self.group.label, [body], reusable, str(tile))
        return replace(call, kernel=replace(call.kernel, maps=(self.a_map, self.b_map)))

    def _thread(self, x: Var, y: Var, thread: Var) -> list[Stmt]:
        """What one thread does: its block's tile first, tiles in the order that shares operands
        among blocks at work at the same time."""
        tile, together = self.tile, raster(self.box.tiles)
        across = -(-self.operands.result.shape[-1] // self.channels)
        splits = (tile.splits,) if tile.splits > 1 else ()

        def with_tile(at: tuple[Expr, ...]) -> list[Stmt]:
            self.down, self.across = index.add(index.mul(at[0], together), at[2]), at[1]
            return digits("batch", y, (*splits, *self.batch), with_batch)

        def with_batch(at: tuple[Expr, ...]) -> list[Stmt]:
            self.part, self.at = at[: len(splits)], at[len(splits) :]
            return digits("at", thread, (tile.groups, WARPGROUP), with_group)

        def with_group(at: tuple[Expr, ...]) -> list[Stmt]:
            group, inside = at
            return self._box_of(thread, lambda row: self._work(thread, group, inside, row))

        dims = (self.box.tiles // together, across, together)
        return digits("tile", x, dims, with_tile)

    def _box_of(self, thread: Var, body: Callable[[tuple[Expr, ...]], list[Stmt]]) -> list[Stmt]:
        """``body`` of where the box of the left operand begins that ``thread`` asks for."""
        box = self.box
        number = index.add(index.mul(self.down, box.in_tile), index.mod(thread, box.in_tile))
        # the last tile may have boxes beyond the rows, which are zero
        inner = math.prod(box.grid[1:])
        grid = (-(-box.tiles * box.in_tile // inner), *box.grid[1:])

        def placed(at: tuple[Expr, ...]) -> list[Stmt]:
            return body(
                tuple(index.mul(i, size) for i, size in zip(at, box.extents, strict=True))
            )

        return digits("box", number, grid, placed)

    def _work(
        self, thread: Var, group: Expr, inside: Expr, row: tuple[Expr, ...]
    ) -> list[Stmt]:
        """All that one thread does, its place being known; ``row`` is where its box begins."""
        stages, acc = self.tile.stages, self.acc

        def ask(chunk: Expr, stage: Expr) -> list[Stmt]:
            return self._ask(thread, row, chunk, stage)

        def init(_: Expr) -> list[Stmt]:
            return loop("s", stages, lambda s: [SignalInit(self.signals, s, 1)], Kind.UNROLLED)

        clear = loop("i", acc.elems, lambda i: [Store(acc, i, Lit(0, acc.dtype))], Kind.UNROLLED)
        ahead = self.chunks if self.chunks <= stages else stages - 1
        body = [
            *bind("first", thread, 1, init),
            Barrier(),
            *loop("ahead", ahead, lambda s: ask(s, s)),
            *clear,
            *self._turns(group, inside, ask),
            *self.store.statements(group, inside, self.part, self.at, self.down, self.across),
        ]
        return [Alloc(acc, tuple(body))]

    def _turns(
        self, group: Expr, inside: Expr, ask: Callable[[Expr, Expr], list[Stmt]]
    ) -> list[Stmt]:
        """All chunks, by the thread ``inside`` a warpgroup, the ``group`` of the block."""
        turns = loop("chunk", self.chunks, lambda chunk: self._turn(group, chunk, ask))
        return [*turns, WgmmaWait(0, (self.acc,))]

    def _turn(
        self, group: Expr, chunk: Expr, ask: Callable[[Expr, Expr], list[Stmt]]
    ) -> list[Stmt]:
        """One chunk."""
        stages = self.tile.stages
        if self.chunks <= stages:
            return [SignalWait(self.signals, chunk, index.lit(0)), *self._multiply(group, chunk)]

        def asked(following: Expr) -> list[Stmt]:
            freed = index.mod(following, stages)
            return bind("freed", freed, stages, lambda stage: ask(following, stage))

        def staged(stage: Expr) -> list[Stmt]:
            parity = index.mod(index.div(chunk, stages), 2)
            return [
                SignalWait(self.signals, stage, parity),
                *self._multiply(group, stage),
                WgmmaWait(1, (self.acc,)),
                Barrier(),
                *bind("following", index.add(chunk, stages - 1), self.chunks, asked),
            ]

        return bind("stage", index.mod(chunk, stages), stages, staged)

    def _multiply(self, group: Expr, stage: Expr) -> list[Stmt]:
        """Begins the products of the chunk in a stage."""
        tile, factors = self.tile, self.factors
        step = STEP_BYTES // self.kind.dtype.size_bytes
        each = tile.columns * ROWS // WARPGROUP
        begun: list[Stmt] = [WgmmaFence()]
        for k in range(factors.left.steps):
            for product in range(tile.products):
                first = (product * ROWS * self.full) + k * step
                rows = tile.products * ROWS * self.full
                a_at = index.linear(first, ((stage, self.a_elems), (group, rows)))
                b_first = k * step * (self.full if factors.across else 1)
                b_at = index.linear(b_first, ((stage, self.b_elems),))
                b_step = self.full * self.full if factors.across else 0
                d_at = index.lit(product * each)
                begun.append(
                    Wgmma(
                        tile.kind, tile.columns, self.acc, d_at, self.a, a_at, self.b, b_at, b_step
                    )
                )
        return [*begun, WgmmaCommit()]

    def _ask(self, thread: Var, row: tuple[Expr, ...], chunk: Expr, stage: Expr) -> list[Stmt]:
        """Asks for a chunk of both operands: one thread for the right one, as many threads as there
        are boxes for the left one."""
        tile, left = self.tile, self.factors.left
        number = index.add(index.mul(self.part[0], self.chunks), chunk) if self.part else chunk
        begin_a, begin_b = index.mul(stage, self.a_elems), index.mul(stage, self.b_elems)

        def expect(_: Expr) -> list[Stmt]:
            return [
                SignalExpect(self.signals, stage, tile.stage_bytes),
                *(
                    self._copy(self.b_map, position, self.b, index.add(begin_b, first), stage)
                    for first, position in self._right_boxes(number)
                ),
            ]

        def boxes(copier: Expr) -> list[Stmt]:
            to = index.add(begin_a, index.mul(copier, self.box.rows * self.full))

            def at_depth(depth: tuple[Expr, ...]) -> list[Stmt]:
                at: Position = {"batch": self.at, "row": row, "depth": depth}
                return [self._copy(self.a_map, left.position(at), self.a, to, stage)]

            return digits("k", number, left.depth, at_depth)

        return [
            *bind("first", thread, 1, expect),
            *bind("copier", thread, self.box.in_tile, boxes),
        ]

    def _right_boxes(self, number: Expr) -> list[tuple[int, tuple[Expr, ...]]]:
        """The boxes of the right operand, for the chunk of this number: where in the stage, and at
        which position."""
        right = self.factors.right
        column = index.mul(self.across, self.channels)
        if not self.factors.across:
            at: Position = {"batch": self.at, "row": (column,), "depth": (number,)}
            return [(0, right.position(at))]
        found = []
        width = self.channels // self.full
        for i in range(width):
            along = index.add(index.mul(self.across, width), i)
            at = {"batch": self.at, "row": (index.mul(number, self.full),), "depth": (along,)}
            found.append((i * self.full * self.full, right.position(at)))
        return found

    def _copy(
        self, map_: TensorMap, position: tuple[Expr, ...], to: Buffer, at: Expr, stage: Expr
    ) -> Stmt:
        return TileCopy(map_, position, to, at, self.signals, stage)
