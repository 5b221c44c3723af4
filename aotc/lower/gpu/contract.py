"""Contractions on a GPU: canonical operands go in, a kernel comes out in which each block computes
a tile of results from tiles of its operands in shared memory.

Products of tensor cores have modules of their own (tensor_contract.py, warpgroup.py). Those of
plain multiply-adds are here: each result adds its terms in order, one Fma each, so the bytes are
those of the CPU. While a block computes on one chunk of the depth, its threads already load the
next to registers; shared memory holds two chunks, so one barrier a chunk is enough. Convolutions
need no im2col: the left operand is a strided view in which windows overlap. What follows pointwise
is computed on the accumulators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from aotc.fuse.groups import Group
from aotc.graph.ir import Node
from aotc.loop import index
from aotc.loop.ir import (
    Alloc,
    Barrier,
    Expr,
    For,
    Kind,
    Lit,
    Load,
    Stmt,
    Store,
    Var,
)
from aotc.loop.launch import MAX_GRID
from aotc.loop.program import Call
from aotc.lower.context import Context
from aotc.lower.contract_kernel import Operands
from aotc.lower.gpu.binding import bind, digits
from aotc.lower.gpu.few_rows import lower_few_rows
from aotc.lower.gpu.operands import (
    channels_first,
    own_batch,
    packed_weights,
    product_kind,
    reusable_leaves,
)
from aotc.lower.gpu.products import FmaProduct
from aotc.lower.gpu.staging import Placed, Source, Staging
from aotc.lower.gpu.tensor_contract import lower_tensor_contract
from aotc.lower.gpu.warpgroup import lower_warpgroups
from aotc.lower.pointwise import evaluate_nodes, weight_of
from aotc.lower.scope import Access, KernelScope, loop
from aotc.lower.views import View
from aotc.schedule.gpu import MOST_SPLITS, GpuTile, choose_tile

#: Results of one product below which many products had better take a thread for some of them than a
#: block each.
MIN_RESULTS, MANY_PRODUCTS = 64, 64


def suits_blocks(operands: Operands) -> bool:
    """Whether a product is large enough for blocks, and the grid for its batch."""
    batch = own_batch(operands)
    results = math.prod(operands.lhs.shape[batch : operands.batch + 2]) * operands.rhs.shape[-1]
    products = math.prod(operands.lhs.shape[:batch])
    fits = products * MOST_SPLITS <= MAX_GRID[2]
    return fits and (results >= MIN_RESULTS or products < MANY_PRODUCTS)


def lower_gpu_contract(
    context: Context,
    group: Group,
    epilogue: tuple[Node, ...],
    leaf_nodes: Sequence[Node],
    operands: Operands,
) -> None:
    """Emits the kernel of a contraction in canonical form."""
    if lower_few_rows(context, group, epilogue, leaf_nodes, operands):
        return
    if lower_warpgroups(context, group, epilogue, leaf_nodes, operands):
        return
    batch = own_batch(operands)
    kind = product_kind(operands, group.anchor, context.target.precision)
    if kind != "fma":
        lower_tensor_contract(context, group, epilogue, leaf_nodes, operands, kind)
        return
    lhs = operands.lhs
    rows = math.prod(lhs.shape[batch : operands.batch + 2])
    depth = lhs.shape[operands.batch + 2 :]
    products, columns = math.prod(lhs.shape[:batch]), operands.result.shape[-1]
    tile = choose_tile(rows, columns, products, math.prod(depth), depth[-1])
    if operands.rhs.is_constant:
        rhs = context.constant(packed_weights(operands, kind), "packed")
        operands = replace(operands, rhs=_unpacked(rhs, operands))
    else:
        operands = replace(operands, rhs=channels_first(operands))
    context.emit(GpuContract(group, epilogue, leaf_nodes, operands, tile).call())


def _unpacked(packed: View, operands: Operands) -> View:
    """What `packed_weights` made, with the batch and depth axes of the left-hand side."""
    batch, lhs = operands.batch, operands.lhs
    depth = lhs.shape[batch + 2 :]
    channels = packed.shape[batch]
    full = packed.reshape((*packed.shape[: batch + 1], *depth))
    assert full is not None
    return full.broadcast((*lhs.shape[:batch], channels, *depth))


def _without_axes(view: View, first: int, end: int) -> View:
    """The view at the first position of the axes from ``first`` to before ``end``."""
    return replace(
        view,
        shape=view.shape[:first] + view.shape[end:],
        strides=view.strides[:first] + view.strides[end:],
    )


class GpuContract:
    """Writes the kernel of one contraction. ``epilogue`` are the pointwise nodes after the anchor,
    ``leaf_nodes`` what they read besides it, in the order of ``operands.leaves``. The right-hand
    side of ``operands`` is [*batch, channel, *depth]."""

    def __init__(
        self,
        group: Group,
        epilogue: tuple[Node, ...],
        leaf_nodes: Sequence[Node],
        operands: Operands,
        tile: GpuTile,
    ) -> None:
        self.group, self.epilogue, self.leaf_nodes = group, epilogue, leaf_nodes
        self.operands, self.tile = operands, tile
        self.sums = group.anchor.type.dtype
        batch, lhs = own_batch(operands), operands.lhs
        rows = operands.batch + 2 - batch
        rhs = _without_axes(operands.rhs, batch, operands.batch)
        self.scope = KernelScope(aligned=True)
        self.scope.reserve(lhs, rhs, operands.result, *operands.leaves)
        left, right = self.scope.access(lhs), self.scope.access(rhs)
        self.leaves = [self.scope.access(leaf) for leaf in operands.leaves]
        self.result = self.scope.access(operands.result, write=True)
        self.batch, self.pixels = lhs.shape[:batch], operands.result.shape[-1 - rows : -1]
        self.rows, self.columns = math.prod(self.pixels), rhs.shape[batch]
        self.depth = rhs.shape[batch + 1 :]
        self.at: tuple[Expr, ...] = ()  # the batch
        a = self._source(left, lhs, tuple(range(batch, operands.batch + 2)))
        b = self._source(right, rhs, (batch,))
        common = (tile.depth, tile.threads, self.sums)
        self.a = Staging("a", a, tile.rows, *common)
        self.b = Staging("b", b, tile.columns, *common)
        # Expensive epilogues run in a loop over the stored tile, not once for each accumulator.
        self.two_phase = weight_of(epilogue) > 0 and operands.result.dtype is self.sums

    def _source(self, access: Access, view: View, rows: tuple[int, ...]) -> Source:
        """An operand of which the axes ``rows`` are rows, those before batch, those behind
        depth."""
        steps = view.strides[rows[-1]], view.strides[-1]

        def at(row: Sequence[Expr], k: Sequence[Expr]) -> Expr:
            return access.index((*self.at, *row, *k))

        dims = tuple(view.shape[axis] for axis in rows)
        along_depth = steps[1] == 1 or steps[0] != 1
        return Source(access, at, dims, self.depth, along_depth, strided=1 not in steps)

    def call(self) -> Call:
        """The kernel and its call."""
        tile = self.tile
        x, y, z, thread = Var("x"), Var("y"), Var("z"), Var("thread")
        rows, columns = -(-self.rows // tile.rows), -(-self.columns // tile.columns)
        threads = For(thread, tile.threads, tuple(self._thread(x, y, z, thread)), Kind.THREAD)
        body: Stmt = threads
        for buffer in (self.a.shared, self.b.shared):
            body = Alloc(buffer, (body,))
        for var, extent in ((x, rows), (y, columns), (z, math.prod(self.batch))):
            body = For(var, extent, (body,), Kind.BLOCK)
        reusable = [] if self.two_phase else reusable_leaves(self.operands)
        return self.scope.call(self.group.label, [body], reusable, str(tile))

    def _thread(self, x: Var, y: Var, z: Var, thread: Var) -> list[Stmt]:
        tile = self.tile
        product = FmaProduct(tile, self.sums)
        first_row, first_column = index.mul(x, tile.rows), index.mul(y, tile.columns)

        def placed(a: Placed, b: Placed) -> list[Stmt]:
            return product.place(thread, lambda: self._work(product, a, b, first_row, first_column))

        def with_batch(at: tuple[Expr, ...]) -> list[Stmt]:
            self.at = at
            return self.a.place(
                thread,
                first_row,
                lambda a: self.b.place(thread, first_column, lambda b: placed(a, b)),
            )

        return digits("batch", z, self.batch, with_batch)

    def _work(
        self, product: FmaProduct, a: Placed, b: Placed, row: Expr, column: Expr
    ) -> list[Stmt]:
        """All that one thread does, its place being known."""
        acc = product.sums
        zero = Lit(0, acc.dtype)
        clear = loop("i", acc.elems, lambda i: [Store(acc, i, zero)], Kind.UNROLLED)
        body = [*clear, *self._chunks(product, a, b)]
        if self.two_phase:
            body += self._finish(product, row, column, True, ())
            body += self._finish(product, row, column, False, self.epilogue)
        else:
            body += self._finish(product, row, column, True, self.epilogue)
        for buffer in (acc, self.a.registers, self.b.registers):
            body = [Alloc(buffer, tuple(body))]
        return body

    def _chunks(self, product: FmaProduct, a: Placed, b: Placed) -> list[Stmt]:
        """The loop over the chunks of the depth."""
        dims = (*self.depth[:-1], self.depth[-1] // self.tile.depth)
        if not self.a.divides:
            dims = (-(-math.prod(self.depth) // self.tile.depth),)

        def load(chunk: Expr) -> list[Stmt]:
            return digits("k", chunk, dims, lambda k: [*a.load(k), *b.load(k)])

        def store(half: Expr) -> list[Stmt]:
            return [*a.store(half), *b.store(half)]

        chunks = math.prod(dims)
        first = [*load(index.lit(0)), *store(index.lit(0)), Barrier()]
        if chunks == 1:
            return [*first, *product.multiply(self.a, self.b, index.lit(0))]
        chunk = Var("chunk")

        def step(half: Expr) -> list[Stmt]:
            following = index.add(chunk, 1)
            other = index.sub(index.lit(1), half)
            return [
                *bind("next", following, chunks, load),
                *product.multiply(self.a, self.b, half),
                *bind("next", following, chunks, lambda _: store(other)),
                Barrier(),
            ]

        turns = bind("half", index.mod(chunk, 2), 2, step)
        return [*first, For(chunk, chunks, tuple(turns))]

    def _finish(
        self,
        product: FmaProduct,
        first_row: Expr,
        first_column: Expr,
        from_sums: bool,
        epilogue: Sequence[Node],
    ) -> list[Stmt]:
        """Stores the results through ``epilogue``, from the accumulators or from the result itself,
        where an earlier phase has put them."""
        kind = Kind.UNROLLED if from_sums else Kind.SERIAL

        def one(number: Expr, pixel: tuple[Expr, ...], column: Expr) -> list[Stmt]:
            where = (*self.at, *pixel, column)
            raw = Load(product.sums, number) if from_sums else self.result.load(where)
            values: dict[Node, Expr] = {
                node: leaf.load(where)
                for node, leaf in zip(self.leaf_nodes, self.leaves, strict=True)
            }
            found = evaluate_nodes(epilogue, {**values, self.group.anchor: raw})
            return [self.result.store(where, found[self.group.result] if epilogue else raw)]

        def columns(in_row: Expr, pixel: tuple[Expr, ...]) -> list[Stmt]:
            def column(share: Expr, local: Expr) -> list[Stmt]:
                at = index.add(first_column, local)
                number = index.add(in_row, share)
                return bind("column", at, self.columns, lambda c: one(number, pixel, c))

            return product.each_column(kind, column)

        def row(share: Expr, local: Expr) -> list[Stmt]:
            def at_pixel(number: Expr) -> list[Stmt]:
                return digits("at", number, self.pixels, lambda pixel: columns(share, pixel))

            return bind("row", index.add(first_row, local), self.rows, at_pixel)

        return product.each_row(kind, row)
