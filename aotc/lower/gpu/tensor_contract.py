"""Contractions on tensor cores: canonical operands go in, a kernel comes out in which each block
computes a tile of results while the next chunks of its factors are on their way.

Shared memory has several stages, each with a chunk of both factors. One barrier a chunk: behind it
the oldest copies have come for all threads, and the stage before is free for the next ones. The
fragments of the first part of a chunk are loaded before the last part of the chunk before is
multiplied. Neighbouring blocks compute tiles of few rows and columns of tiles, whose factors the
second-level cache then holds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from aotc.fuse.groups import Group
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import Alloc, Barrier, Buffer, Expr, For, Kind, Load, Space, Stmt, Store, Var
from aotc.loop.ir_async import AsyncCommit, AsyncWait
from aotc.loop.program import Call
from aotc.lower.context import Context
from aotc.lower.contract_kernel import Operands
from aotc.lower.gpu.binding import Binder, bind, digits
from aotc.lower.gpu.fragments import WarpProduct
from aotc.lower.gpu.operands import (
    channels_first,
    own_batch,
    packed_weights,
    reusable_leaves,
)
from aotc.lower.gpu.pipeline import (
    Axes,
    Cut,
    Factor,
    Placed,
    Source,
    element_type,
    lanes_of,
    lies_along_depth,
)
from aotc.lower.gpu.split import join_parts
from aotc.lower.pointwise import evaluate_nodes
from aotc.lower.scope import KernelScope, vector
from aotc.lower.views import View
from aotc.schedule.gpu import GpuTile
from aotc.schedule.gpu_tensor import TensorSizes, choose_tensor_tile
from aotc.schedule.gpu_warpgroup import raster
from aotc.target import SHARED_BYTES

#: Bytes that a thread stores at once.
_STORED_BYTES = 16


def lower_tensor_contract(
    context: Context,
    group: Group,
    epilogue: tuple[Node, ...],
    leaf_nodes: Sequence[Node],
    operands: Operands,
    kind: str,
) -> None:
    """Emits the kernel of a contraction of ``kind`` in canonical form."""
    batch, lhs = own_batch(operands), operands.lhs
    depth = lhs.shape[operands.batch + 2 :]
    constant, dtype = operands.rhs.is_constant, element_type(kind)
    right_bytes, right_lanes = dtype.size_bytes, _STORED_BYTES // dtype.size_bytes
    if not constant:
        operands = replace(operands, rhs=channels_first(operands))
        right_bytes = operands.rhs.dtype.size_bytes
        right_lanes = _lanes(operands.rhs, operands.batch, dtype)
    sizes = TensorSizes(
        batch=math.prod(lhs.shape[:batch]),
        rows=math.prod(lhs.shape[batch : operands.batch + 2]),
        columns=operands.result.shape[-1],
        depth=depth,
        kind=kind,
        element_bytes=(lhs.dtype.size_bytes, right_bytes),
        lanes=(_lanes(lhs, operands.batch + 1, dtype), right_lanes),
        may_be_flat=constant and len(depth) > 1,
        limit_bytes=SHARED_BYTES[context.target.cpu],
    )
    choice = choose_tensor_tile(sizes)
    tile, cut = choice.tile, Cut(depth, choice.tile.depth, choice.is_flat)
    if constant:
        packed = pack_chunks(packed_weights(operands, kind), cut)
        view = context.constant(packed, "packed")
        batch_dims = lhs.shape[: operands.batch]
        operands = replace(operands, rhs=view.broadcast((*batch_dims, *view.shape[-2:])))
    if tile.splits == 1:
        context.emit(TensorContract(group, epilogue, leaf_nodes, operands, tile, cut).call())
        return
    sums = group.anchor.type.dtype
    parts = context.temporary(sums, (tile.splits, *operands.result.shape), "sums")
    alone = replace(operands, result=parts, leaves=())
    context.emit(TensorContract(group, (), (), alone, tile, cut).call())
    join_parts(context, group, epilogue, leaf_nodes, operands, parts)


def _lanes(view: View, row: int, dtype: DType) -> int:
    """Terms of a factor that a thread moves at once; ``row`` is the innermost axis of its rows."""
    axis = row if view.strides[-1] != 1 and view.strides[row] == 1 else len(view.shape) - 1
    return min(lanes_of(view, axis), _STORED_BYTES // dtype.size_bytes)


def pack_chunks(weights: np.ndarray, cut: Cut) -> np.ndarray:
    """Weights [*batch, channel, all depth] with zeros where chunks have no terms: [*batch, channel,
    terms of all chunks]."""
    head = weights.shape[:-1]
    lines = weights if cut.is_flat else weights.reshape(*head, *cut.depth)
    missing = -lines.shape[-1] % cut.size
    filled = np.pad(lines, [(0, 0)] * (lines.ndim - 1) + [(0, missing)])
    return np.ascontiguousarray(filled.reshape(*head, -1))


class TensorContract:
    """Writes the kernel of one contraction. ``epilogue`` are the pointwise nodes after the anchor,
    ``leaf_nodes`` what they read besides it, in the order of ``operands.leaves``. The right-hand
    side of ``operands`` is [*batch, channel, *depth], or, where `pack_chunks` has made it, [*batch,
    channel, terms]. ``cut`` is that of the left-hand side."""

    def __init__(
        self,
        group: Group,
        epilogue: tuple[Node, ...],
        leaf_nodes: Sequence[Node],
        operands: Operands,
        tile: GpuTile,
        cut: Cut,
    ) -> None:
        self.group, self.epilogue, self.leaf_nodes = group, epilogue, leaf_nodes
        self.operands, self.tile, self.cut = operands, tile, cut
        batch, pixels = own_batch(operands), operands.batch + 2
        self.scope = KernelScope(aligned=True)
        lhs, rhs = operands.lhs, _without_axes(operands.rhs, batch, operands.batch)
        self.scope.reserve(lhs, rhs, operands.result, *operands.leaves)
        left = self._source(lhs, batch, pixels)
        right = self._source(rhs, batch, batch + 1, rhs.is_constant)
        right_cut = Cut((cut.chunks * cut.size,), cut.size) if rhs.is_constant else cut
        self.leaves = [self.scope.access(leaf) for leaf in operands.leaves]
        self.result = self.scope.access(operands.result, write=True)
        self.batch, self.pixels = lhs.shape[:batch], lhs.shape[batch:pixels]
        self.rows, self.columns = math.prod(self.pixels), rhs.shape[batch]
        run = self._run(right, right_cut)
        common = (tile.stages, tile.threads, tile.kind)
        self.a = Factor("a", left, cut, tile.rows, *common)
        self.b = Factor("b", right, right_cut, tile.columns, *common, run)
        self.product = WarpProduct(tile, self.a, self.b, run)
        self.at: tuple[Expr, ...] = ()  # the batch
        self.part: tuple[Expr, ...] = ()  # of the depth, where blocks share it

    def _source(self, view: View, batch: int, rows: int, is_rounded: bool = False) -> Source:
        """A factor: axes up to ``batch``, then up to ``rows``, then the depth."""
        access = self.scope.access(view)

        def axes(first: int, end: int | None) -> Axes:
            dims, strides = view.shape[first:end], view.strides[first:end]
            # a line of one element lies in any way
            last = 1 if first == rows and dims[-1] == 1 else None
            return Axes(dims, strides if last is None else (*strides[:-1], last))

        parts = axes(0, batch), axes(batch, rows), axes(rows, None)
        lanes = lanes_of(view, rows - 1), lanes_of(view, len(view.shape) - 1)
        return Source(access, *parts, lanes, is_rounded)

    def _run(self, right: Source, cut: Cut) -> int:
        """Neighbours in a row of results that one thread has."""
        width = self.tile.columns // self.tile.across
        run = _STORED_BYTES // self.operands.result.dtype.size_bytes
        while run > 2 and width % (4 * run):
            run //= 2
        return run if lies_along_depth(right, cut) else 2

    def call(self) -> Call:
        """The kernel and its call."""
        tile = self.tile
        block, z, thread = Var("block"), Var("z"), Var("thread")
        rows, columns = -(-self.rows // tile.rows), -(-self.columns // tile.columns)
        body: Stmt = For(
            thread, tile.threads, tuple(self._thread(block, z, thread)), Kind.THREAD
        )
        for buffer in (self.a.shared, self.b.shared):
            body = Alloc(buffer, (body,))
        products = tile.splits * math.prod(self.batch)
        for var, extent in ((block, rows * columns), (z, products)):
            body = For(var, extent, (body,), Kind.BLOCK)
        reusable = reusable_leaves(self.operands)
        return self.scope.call(self.group.label, [body], reusable, str(tile))

    def _thread(self, block: Var, z: Var, thread: Var) -> list[Stmt]:
        tile = self.tile
        rows, columns = -(-self.rows // tile.rows), -(-self.columns // tile.columns)
        together = raster(rows)
        splits = (tile.splits,) if tile.splits > 1 else ()

        def in_tile(at: tuple[Expr, ...]) -> list[Stmt]:
            outer, column, inner = at
            self.first_row = index.linear(0, ((outer, together * tile.rows), (inner, tile.rows)))
            self.first_column = index.mul(column, tile.columns)
            return digits("batch", z, (*splits, *self.batch), with_batch)

        def with_batch(at: tuple[Expr, ...]) -> list[Stmt]:
            self.part, self.at = at[: len(splits)], at[len(splits) :]
            binder = Binder()
            a = self.a.place(binder, thread, self.first_row, self.at)
            b = self.b.place(binder, thread, self.first_column, self.at)
            return binder.around(self.product.place(thread, lambda: self._work(a, b)))

        return digits("block", block, (rows // together, columns, together), in_tile)

    def _work(self, *parts: Placed) -> list[Stmt]:
        """All that one thread does, its place being known."""
        body = [*self.product.clear(), *self._chunks(parts), *self._finish()]
        for buffer in (*self.product.registers, self.a.registers, self.b.registers):
            body = [Alloc(buffer, tuple(body))]
        return body

    def _chunks(self, parts: tuple[Placed, ...]) -> list[Stmt]:
        """All chunks of the block's part of the depth."""
        stages, product = self.tile.stages, self.product
        chunks = self.cut.chunks // self.tile.splits
        zero = index.lit(0)
        stmts: list[Stmt] = []
        for stage in range(max(1, stages - 1)):
            at = index.lit(stage)
            for placed in parts:
                stmts += [*self._bring(placed, at, at), *placed.store(at)]
            stmts.append(AsyncCommit())
        stmts += [*self._arrival(), *product.load(0, zero)]
        if chunks == 1:
            for step in range(product.steps):
                if step + 1 < product.steps:
                    stmts += product.load(step + 1, zero)
                stmts += product.multiply(step)
            return stmts
        chunk, binder = Var("chunk"), Binder()

        def stage_of(ahead: int) -> Expr:
            return binder.bind("stage", index.mod(index.add(chunk, ahead), stages), stages)

        turns = self._turn(parts, chunk, stage_of(0), stage_of(1), stage_of(stages - 1))
        turns = binder.around(turns)
        return [*stmts, For(chunk, chunks, tuple(turns))]

    def _turn(
        self, parts: tuple[Placed, ...], chunk: Expr, stage: Expr, following: Expr, free: Expr
    ) -> list[Stmt]:
        """What is done with the chunk in ``stage`` while the last one asked for goes to ``free``.
        """
        product, last = self.product, self.product.steps - 1
        chunks = self.cut.chunks // self.tile.splits
        ahead = index.add(chunk, self.tile.stages - 1)

        def bring(placed: Placed) -> list[Stmt]:
            return bind("ahead", ahead, chunks, lambda i: self._bring(placed, i, free))

        def store(placed: Placed) -> list[Stmt]:
            return bind("ahead", ahead, chunks, lambda _: placed.store(free))

        stmts: list[Stmt] = []
        for step in range(product.steps):
            if step == last:
                for placed in parts:
                    stmts += store(placed) if not placed.factor.is_copied else []
                stmts += [*self._arrival(), *product.load(0, following)]
            else:
                stmts += product.load(step + 1, stage)
            # not all copies are asked for at once
            for number, placed in enumerate(parts):
                stmts += bring(placed) if step == min(number, last - 1) else []
            if step == last - 1:
                stmts.append(AsyncCommit())
            stmts += product.multiply(step)
        return stmts

    def _bring(self, placed: Placed, chunk: Expr, stage: Expr) -> list[Stmt]:
        """Begins to bring the thread's share of one factor's ``chunk`` of the block's part."""
        first: Expr = index.lit(0)
        if self.part:
            first = index.mul(self.part[0], self.cut.chunks // self.tile.splits)
        number, dims = index.add(first, chunk), placed.factor.cut.dims
        return digits("k", number, dims, lambda k: placed.begin(k, stage))

    def _arrival(self) -> list[Stmt]:
        """Waits until the next chunk has come for all threads."""
        return [AsyncWait(max(0, self.tile.stages - 2)), Barrier()]

    def _finish(self) -> list[Stmt]:
        """Stores the results through the epilogue."""
        run = self.product.run
        held = Buffer("run", self.product.sums.dtype, run, Space.REGISTER)

        def one(pixel: tuple[Expr, ...], column: Expr, raw: Expr) -> Stmt:
            where = (*self.part, *self.at, *pixel, column)
            values: dict[Node, Expr] = {
                node: leaf.load(where)
                for node, leaf in zip(self.leaf_nodes, self.leaves, strict=True)
            }
            found = evaluate_nodes(self.epilogue, {**values, self.group.anchor: raw})
            return self.result.store(where, found[self.group.result] if self.epilogue else raw)

        def all_of(pixel: tuple[Expr, ...], number: Expr, sums: list[Expr]) -> list[Stmt]:
            first = index.mul(number, run)

            def lane(v: Expr) -> list[Stmt]:
                return [one(pixel, index.add(first, v), Load(held, v))]

            def single(v: int, value: Expr) -> list[Stmt]:
                at = index.add(first, v)
                return bind("column", at, self.columns, lambda c: [one(pixel, c, value)])

            if self.columns % run:
                return [stmt for v, value in enumerate(sums) for stmt in single(v, value)]
            moves = [Store(held, index.lit(v), value) for v, value in enumerate(sums)]
            return [Alloc(held, (*moves, vector("v", run, run, lane)))]

        def part(row: Expr, number: Expr, sums: list[Expr]) -> list[Stmt]:
            column = index.add(index.div(self.first_column, run), number)
            extent = -(-self.columns // run)

            def at_pixel(pixel: tuple[Expr, ...]) -> list[Stmt]:
                return bind("run", column, extent, lambda c: all_of(pixel, c, sums))

            def at_row(found: Expr) -> list[Stmt]:
                return digits("at", found, self.pixels, at_pixel)

            return bind("row", index.add(self.first_row, row), self.rows, at_row)

        return self.product.results(part)


def _without_axes(view: View, first: int, end: int) -> View:
    """The view at the first position of the axes from ``first`` to before ``end``."""
    shape = view.shape[:first] + view.shape[end:]
    strides = view.strides[:first] + view.strides[end:]
    return View(view.storage, view.dtype, shape, strides, view.offset, view.moves, view.value)
