"""Contractions of bytes by tile registers: canonical operands and a recipe go in, a kernel call
comes out.

A block of pixels by channels holds its sums in tile registers while it goes through the depth. Rows
of a left-hand tile are pixels of one row of the image, so their bytes are read where they lie,
whatever lies between them. A tile that would reach beyond the last pixel begins early and computes
some pixels twice. The sums pass through a little memory to the epilogue, which is that of all
contractions.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import GROUP, Alloc, Buffer, Expr, Kind, Space, Stmt
from aotc.loop.tiles import Tile, TileDot, TileLoad, TileStore, TileZero
from aotc.lower.contract_kernel import Bytes, ContractWriter, Operands
from aotc.lower.contract_kernel import Tile as Part
from aotc.lower.scope import loop
from aotc.schedule.tiles import TILE_LANES, block_registers, registers, step_bytes, tile_rows


def in_steps(operands: Operands) -> tuple[Operands, Bytes] | None:
    """The operands as tile registers take them, and the steps through their innermost depth axis;
    None where that would read beyond the left-hand side's memory.

    Weights must be bytes, the innermost depth axis dense and as long as a group at least. Where
    that axis is one step of a few bytes more than it has, these are read (and have zero weights).
    """
    lhs = operands.lhs
    extent = lhs.shape[-1]
    bytes_ = Bytes(extent, step_bytes(extent))
    if any(stride < 0 for stride in lhs.strides):
        return None
    if bytes_.step > extent:
        lhs = replace(lhs, shape=(*lhs.shape[:-1], bytes_.step))
        if (lhs.high + 1) * lhs.dtype.size_bytes > lhs.storage.size_bytes:
            return None
    return replace(operands, lhs=lhs), bytes_


@dataclass(frozen=True)
class _Block:
    """The registers of one block and what they hold.

    ``starts`` are the first pixels of the tiles along a row of the image, counted from the first
    pixel of the block; the first of them may be negative. ``sums`` are by image row, tile and
    vector.
    """

    rows: int
    starts: tuple[int, ...]
    vectors: int
    sums: tuple[Tile, ...]
    left: tuple[Tile, ...]
    right: tuple[Tile, ...]

    @property
    def tiles(self) -> list[tuple[int, int]]:
        """The image row and the first pixel of each tile of pixels."""
        return list(itertools.product(range(self.rows), self.starts))


class TileWriter(ContractWriter):
    """Writes the kernel of one contraction by tile registers; arguments as those of the
    ContractWriter, with packed weights."""

    def _tile(self, at: tuple[Expr, ...], tile: Part) -> list[Stmt]:
        """One block: clear the sums, go through the depth, and store them through the epilogue."""
        block = self._block(tile)
        scratch = Buffer("sums", DType.I32, self._scratch_elems(tile), Space.STACK)
        products: list[Stmt] = [TileZero(sums) for sums in block.sums]
        products += self._steps(at, tile, block)
        products += self._keep(tile, block, scratch)
        for register in (*block.sums, *block.left, *block.right):
            products = [Alloc(register, tuple(products))]
        return [Alloc(scratch, (*products, *self._finish(at, tile, scratch, self.epilogue)))]

    def _block(self, tile: Part) -> _Block:
        rows = tile_rows(self.recipe.columns)
        across = -(-tile.column.size // rows)
        starts = tuple(min(rows * i, tile.column.size - rows) for i in range(across))
        vectors = tile.panel.size
        sums, left, right = registers(tile.row.size * across, vectors)
        groups = self.recipe.depth_unroll
        # registers have one shape in the whole kernel: those of each kind begin at one number
        first_left, first_right = block_registers(self.recipe)
        return _Block(
            tile.row.size,
            starts,
            vectors,
            tuple(Tile.of("c", DType.I32, rows, TILE_LANES, i) for i in range(sums)),
            tuple(
                Tile.of("a", DType.U8, rows, GROUP * groups, first_left + i) for i in range(left)
            ),
            tuple(
                Tile.of("b", DType.I8, groups, GROUP * TILE_LANES, first_right + i)
                for i in range(right)
            ),
        )

    def _pitch(self, part: Part) -> int:
        """Rows of sums in memory for one row of the image: one that begins early takes more."""
        return max(part.column.size, tile_rows(self.recipe.columns))

    def _scratch_elems(self, part: Part) -> int:
        return part.row.size * self._pitch(part) * part.panel.size * TILE_LANES

    def _cell(self, tile: Part, i: Expr, j: Expr, w: int, v: Expr) -> Expr:
        pitch = self._pitch(tile)
        early = index.lit(pitch - tile.column.size)
        pixel = index.add(index.add(index.mul(i, pitch), early), j)
        start = index.add(index.mul(pixel, tile.panel.size), index.lit(w))
        return index.add(index.mul(start, TILE_LANES), v)

    def _each(
        self, tile: Part, body: Callable[[Expr, Expr, int], list[Stmt]], kind: Kind
    ) -> list[Stmt]:
        return super()._each(tile, body, Kind.SERIAL)

    def _steps(self, at: tuple[Expr, ...], part: Part, block: _Block) -> list[Stmt]:
        """The loops over the depth, with weights of the next panel asked for in between."""
        ahead = self._weights_ahead(at, part)

        def step(outer: tuple[Expr, ...], number: Expr) -> list[Stmt]:
            hints: list[Stmt] = []
            if ahead is not None:
                done: Expr = index.lit(0)
                for position, extent in zip(outer, self.depth, strict=False):
                    done = index.add(index.mul(done, extent), position)
                hints = ahead(index.add(index.mul(done, self._count), number))
            return [*hints, *self._products(at, part, block, outer, number)]

        return self._through(self.depth[:-1], (), step)

    @property
    def _count(self) -> int:
        """Steps through the innermost depth axis."""
        return self.depth[-1] // self.recipe.depth_unroll

    def _through(
        self,
        dims: Sequence[int],
        outer: tuple[Expr, ...],
        step: Callable[[tuple[Expr, ...], Expr], list[Stmt]],
    ) -> list[Stmt]:
        if dims:
            return loop(
                f"k{len(outer)}", dims[0], lambda k: self._through(dims[1:], (*outer, k), step)
            )
        assert self.bytes is not None
        whole = self.bytes.whole
        stmts = loop("k", whole, lambda k: step(outer, k)) if whole else []
        if whole < self._count:
            stmts += step(outer, index.lit(whole))
        return stmts

    def _products(
        self,
        at: tuple[Expr, ...],
        part: Part,
        block: _Block,
        outer: tuple[Expr, ...],
        number: Expr,
    ) -> list[Stmt]:
        """One step: every tile of sums takes the products of one tile of pixels and one of
        weights."""
        assert self.bytes is not None
        first = self.bytes.first(number)
        groups = self.recipe.depth_unroll
        depth = (*outer, index.mul(number, groups))
        weights = [self._weight(at, part, depth, w, index.lit(0)) for w in range(block.vectors)]
        pitch = self.recipe.stored_size(part.panel.start) * TILE_LANES * GROUP
        stmts: list[Stmt] = []
        for m, (row, start) in enumerate(block.tiles):
            left = block.left[m % len(block.left)]
            pixel = (index.add(part.r0, index.lit(row)), index.add(part.c0, index.lit(start)))
            place = self.lhs.index((*at, *pixel, *outer, first))
            column_stride = self.lhs.strides[len(at) + 1]
            stmts.append(TileLoad(left, self.lhs.buffer, place, column_stride))
            for w in range(block.vectors):
                right = block.right[w % len(block.right)]
                if m == 0 or len(block.right) < block.vectors:
                    stmts.append(TileLoad(right, weights[w].buffer, weights[w].index, pitch))
                stmts.append(TileDot(block.sums[m * block.vectors + w], left, right))
        return stmts

    def _keep(self, part: Part, block: _Block, scratch: Buffer) -> list[Stmt]:
        """Stores the sums where the epilogue finds them."""
        stmts: list[Stmt] = []
        for m, (row, start) in enumerate(block.tiles):
            for w in range(block.vectors):
                cell = self._cell(part, index.lit(row), index.lit(start), w, index.lit(0))
                pitch = part.panel.size * TILE_LANES
                stmts.append(TileStore(block.sums[m * block.vectors + w], scratch, cell, pitch))
        return stmts
