"""Sweeps on a GPU over operands that lie along another axis than the result: views of one shape in,
the blocks and threads of a kernel out.

A block has a tile of the two axes. It reads the operands along theirs and puts them into shared
memory, then computes along that of the result: so both sides are whole lines of memory. Rows of
shared memory are one element longer than the tile, so that a column of it meets all banks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from aotc.loop import index
from aotc.loop.ir import (
    Alloc,
    Barrier,
    Buffer,
    Expr,
    For,
    Kind,
    Load,
    Space,
    Stmt,
    Store,
    Var,
)
from aotc.lower.gpu.binding import bind, digits
from aotc.lower.scope import Access, KernelScope, loop
from aotc.lower.views import View

#: Extents of a tile, and its rows that threads take at once.
TILE, ROWS = 32, 8
#: Extent of both axes, and elements, from which tiles pay.
MIN_EXTENT, MIN_ELEMS = 16, 1 << 14


def crossing_axis(output: View, inputs: Sequence[View]) -> int:
    """The axis along which inputs lie that do not lie along the last one, as ``output`` does; -1
    if there is none, or if the tensor is too small for tiles."""
    if output.strides[-1] != 1 or math.prod(output.shape) < MIN_ELEMS:
        return -1
    for view in inputs:
        if view.strides[-1] not in (0, 1) and 1 in view.strides[:-1]:
            axis = view.strides.index(1)
            if min(output.shape[axis], output.shape[-1]) >= MIN_EXTENT:
                return axis
    return -1


def crossing_sweep(
    scope: KernelScope,
    views: Sequence[View],
    axis: int,
    compute: Callable[[Sequence[Expr]], Expr],
) -> list[Stmt]:
    """The nest that computes the first of ``views`` from the others, which are reserved in
    ``scope``; ``axis`` is the one that some of these lie along."""
    rank = len(views[0].shape)
    perm = (*(other for other in range(rank - 1) if other != axis), axis, rank - 1)
    output, *inputs = (view.transpose(perm) for view in views)
    sources = [scope.access(view) for view in inputs]
    target = scope.access(output, write=True)
    tiles = {
        number: Buffer(f"tile{number}", source.buffer.dtype, TILE * (TILE + 1), Space.SHARED)
        for number, (source, view) in enumerate(zip(sources, inputs, strict=True))
        if view.strides[-2] == 1 and view.strides[-1] not in (0, 1)
    }
    return _nest(output.shape, tiles, sources, target, compute)


def _nest(
    shape: tuple[int, ...],
    tiles: dict[int, Buffer],
    sources: Sequence[Access],
    target: Access,
    compute: Callable[[Sequence[Expr]], Expr],
) -> list[Stmt]:
    *outer, down, across = shape
    block, y, x = Var("block"), Var("y"), Var("x")
    dims = (*outer, -(-down // TILE), -(-across // TILE))

    def each(
        at: tuple[Expr, ...], along: Expr, crossed: Expr, body: Callable[..., list[Stmt]]
    ) -> list[Stmt]:
        """``body`` of the position on the last two axes, if there is one."""
        *others, tile_down, tile_across = at
        first = index.add(index.mul(tile_down, TILE), along)
        last = index.add(index.mul(tile_across, TILE), crossed)

        def row(i: Expr) -> list[Stmt]:
            return _within("j", last, across, lambda j: body((*others, i, j)))

        return _within("i", first, down, row)

    def block_body(at: tuple[Expr, ...]) -> list[Stmt]:
        def fetch(k: Expr) -> list[Stmt]:
            row = index.add(y, index.mul(k, ROWS))
            here = index.add(index.mul(row, TILE + 1), x)
            return each(
                at,
                x,
                row,
                lambda place: [
                    Store(tile, here, sources[number].element(place))
                    for number, tile in tiles.items()
                ],
            )

        def finish(k: Expr) -> list[Stmt]:
            row = index.add(y, index.mul(k, ROWS))
            here = index.add(index.mul(x, TILE + 1), row)

            def one(place: tuple[Expr, ...]) -> list[Stmt]:
                loads = [
                    source.number(Load(tiles[number], here))
                    if number in tiles
                    else source.load(place)
                    for number, source in enumerate(sources)
                ]
                return [target.store(place, compute(loads))]

            return each(at, row, x, one)

        steps = TILE // ROWS
        stmts = loop("k", steps, fetch, Kind.UNROLLED)
        return [*stmts, Barrier(), *loop("k", steps, finish, Kind.UNROLLED)]

    body = digits("d", block, dims, block_body)
    threads: Stmt = For(x, TILE, tuple(body), Kind.THREAD)
    threads = For(y, ROWS, (threads,), Kind.THREAD)
    for tile in tiles.values():
        threads = Alloc(tile, (threads,))
    return [For(block, math.prod(dims), (threads,), Kind.BLOCK)]


def _within(
    name: str, value: Expr, extent: int, body: Callable[[Expr], list[Stmt]]
) -> list[Stmt]:
    """``body`` of ``value`` where that is below ``extent``, which tiles may exceed."""
    return body(value) if extent % TILE == 0 else bind(name, value, extent, body)
