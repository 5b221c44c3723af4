"""The loop nest of one contraction: canonical operands and a recipe go in, a kernel call comes
out."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aotc.fuse.groups import Group
from aotc.graph.ir import Node
from aotc.loop import index
from aotc.loop.ir import (
    GROUP,
    Alloc,
    Bin,
    Buffer,
    DotProduct,
    Expr,
    Fma,
    Kind,
    Lit,
    Load,
    Prefetch,
    Space,
    Stmt,
    Store,
)
from aotc.loop.program import Call
from aotc.lower.pointwise import evaluate_nodes, weight_of, widened
from aotc.lower.scope import KernelScope, loop, rest_lanes, vector
from aotc.lower.views import View
from aotc.schedule.recipe import ContractRecipe, Segment


@dataclass(frozen=True)
class Operands:
    """A contraction in canonical form. ``lhs`` [*batch, row, column, *depth]; ``rhs`` [*batch,
    *depth, channel]; ``result`` and every view of ``leaves`` [*batch, row, column,
    channel]."""

    batch: int  # number of batch axes
    lhs: View
    rhs: View
    result: View
    leaves: tuple[View, ...]


@dataclass(frozen=True)
class Bytes:
    """How a contraction of bytes with bytes goes through its innermost depth axis, of ``extent``
    elements: in steps of one or more groups of four, the last of which begins early where the
    extent is no multiple."""

    extent: int
    step: int = GROUP

    @property
    def whole(self) -> int:
        """Steps that begin where the one before ends."""
        return self.extent // self.step

    @property
    def groups(self) -> int:
        return -(-self.extent // self.step) * self.step // GROUP

    @property
    def early(self) -> int:
        """The first element of the last step, where that is not a whole one."""
        return max(0, self.extent - self.step)

    def first(self, step: Expr) -> Expr:
        """The first element of ``step``; the early one is asked for by a literal."""
        if isinstance(step, Lit) and step.value == self.whole:
            return index.lit(self.early)
        return index.mul(step, self.step)


#: The unit in which memory moves on every target that aotc knows.
CACHE_LINE_BYTES = 64

PixelBody = Callable[[Segment, Segment, Expr, Expr], list[Stmt]]
_Ahead = Callable[[Expr], list[Stmt]]
PanelBody = Callable[[Segment, Expr], list[Stmt]]


@dataclass(frozen=True)
class Tile:
    """One register tile: its segments, the position of its first pixel, and its panel number."""

    row: Segment
    column: Segment
    panel: Segment
    r0: Expr
    c0: Expr
    p: Expr

    @property
    def pixels(self) -> int:
        return self.row.size * self.column.size


def multiply_add(a: Expr, b: Expr, c: Expr) -> Expr:
    """``a * b + c``, fused for floats."""
    return Fma(a, b, c) if a.dtype.is_float else Bin("add", Bin("mul", a, b), c)


def _together(hints: Sequence[_Ahead]) -> _Ahead | None:
    """All of ``hints`` before each chunk; None when there are none."""
    if not hints:
        return None
    return lambda chunk: [stmt for hint in hints for stmt in hint(chunk)]


def _first(segment: Segment, tile: Expr) -> Expr:
    """The first element of tile number ``tile`` of ``segment``."""
    return index.add(index.mul(tile, segment.size), index.lit(segment.start))


class ContractWriter:
    """Writes the kernel of one contraction.

    ``epilogue`` are the pointwise nodes after the anchor, ``leaf_nodes`` what they read
    besides it, in the order of ``operands.leaves``. ``packed`` is the constant storage of
    packed weights, or None when the rhs is computed at run time and read through its own
    strides. ``scope`` is that of the kernel that the contraction is a part of, if it is. ``bytes_``
    says that packed weights and left-hand side are multiplied in groups of bytes.
    """

    def __init__(
        self,
        group: Group,
        epilogue: tuple[Node, ...],
        leaf_nodes: Sequence[Node],
        operands: Operands,
        recipe: ContractRecipe,
        packed: View | None,
        scope: KernelScope | None = None,
        bytes_: Bytes | None = None,
    ) -> None:
        self.group = group
        self.epilogue = epilogue
        self.summed = group.anchor  # the node that the accumulators hold in the end
        self.leaf_nodes = leaf_nodes
        self.operands = operands
        self.recipe = recipe
        self.dtype = group.anchor.type.dtype
        self.rhs_packed = packed is not None
        self.bytes = bytes_
        self.depth = operands.lhs.shape[operands.batch + 2 :]
        if bytes_:
            self.depth = (*self.depth[:-1], bytes_.groups)
        #: Elements of packed weights that one lane takes in one step.
        self.cell = GROUP if bytes_ else 1
        self.channels = operands.result.shape[-1]
        self.scope = scope or KernelScope()
        rhs = packed or operands.rhs
        self.scope.reserve(operands.lhs, rhs, operands.result, *operands.leaves)
        self.lhs = self.scope.access(operands.lhs)
        self.rhs = self.scope.access(rhs)
        self.leaves = [self.scope.access(leaf) for leaf in operands.leaves]
        self.result = self.scope.access(operands.result, write=True)
        # Expensive epilogues run in a loop over the stored tile: unrolled over the accumulators
        # they would bloat the code and spill.
        self.two_phase = weight_of(epilogue) > 0 and operands.result.dtype is self.dtype

    def call(self, recipe: str) -> Call:
        """The kernel and its call; ``recipe`` is what the manifest says of the schedule."""
        return self.scope.call(self.group.label, self.body(), self._reusable(), recipe, True)

    def body(self) -> list[Stmt]:
        """The loop nest."""
        return self._batches((), self.operands.lhs.shape[: self.operands.batch])

    def _reusable(self) -> list[View]:
        """Leaves that the result may overwrite: the same view, each element read before it
        is written."""
        result = self.operands.result
        if self.two_phase:
            return []
        sources = (self.operands.lhs.storage, self.operands.rhs.storage)
        return [
            leaf
            for leaf in dict.fromkeys(self.operands.leaves)
            if leaf.lies_like(result) and leaf.storage not in sources
        ]

    def _batches(self, at: tuple[Expr, ...], dims: Sequence[int]) -> list[Stmt]:
        if dims:
            return loop(f"b{len(at)}", dims[0], lambda i: self._batches((*at, i), dims[1:]))
        panels = self.recipe.panels
        if self.recipe.panel_outer:
            return self._over_panels(panels, functools.partial(self._whole_panel, at))
        return self._pixels(functools.partial(self._pixel_tile, at))

    def _pixel_tile(
        self, at: tuple[Expr, ...], row: Segment, column: Segment, r0: Expr, c0: Expr
    ) -> list[Stmt]:
        """All panels of one tile of pixels."""
        return self._over_panels(self.recipe.panels, self._tile_at(at, row, column, r0, c0))

    def _whole_panel(self, at: tuple[Expr, ...], panel: Segment, p: Expr) -> list[Stmt]:
        return self._pixels(lambda *pixels: self._tile_at(at, *pixels)(panel, p))

    def _over_panels(self, panels: Sequence[Segment], body: PanelBody) -> list[Stmt]:
        stmts: list[Stmt] = []
        for panel in panels:
            stmts += loop("p", panel.count, functools.partial(body, panel))
        return stmts

    def _pixels(self, body: PixelBody) -> list[Stmt]:
        """``body(row segment, column segment, first row, first column)`` for all pixel tiles."""

        def across(row: Segment, r: Expr) -> list[Stmt]:
            stmts: list[Stmt] = []
            for column in self.recipe.columns:

                def tile(c: Expr, column: Segment = column) -> list[Stmt]:
                    return body(row, column, _first(row, r), _first(column, c))

                stmts += loop("c", column.count, tile)
            return stmts

        # rows outside: what a row has read, its result may overwrite (loop/overlap.py)
        stmts: list[Stmt] = []
        for row in self.recipe.rows:
            stmts += loop("r", row.count, functools.partial(across, row))
        return stmts

    def _tile_at(
        self, at: tuple[Expr, ...], row: Segment, column: Segment, r0: Expr, c0: Expr
    ) -> PanelBody:
        return lambda panel, p: self._tile(at, Tile(row, column, panel, r0, c0, p))

    def _tile(self, at: tuple[Expr, ...], tile: Tile) -> list[Stmt]:
        """One register tile: clear the accumulators, run the depth loops, store through
        the epilogue."""
        lanes = self.recipe.lanes
        acc = Buffer("acc", self.dtype, tile.pixels * tile.panel.size * lanes, Space.REGISTER)

        def clear(i: Expr, j: Expr, w: int) -> list[Stmt]:
            def lane(v: Expr) -> list[Stmt]:
                value = self._initial(self._where(at, tile, i, j, w, v))
                return [Store(acc, self._cell(tile, i, j, w, v), value)]

            return [vector("v", lanes, lanes, lane)]

        hints = [self._weights_ahead(at, tile), self._pixels_ahead(at, tile)]
        ahead = _together([hint for hint in hints if hint is not None])
        step = functools.partial(self._step, at, tile, acc)
        body = [
            *self._each(tile, clear, Kind.UNROLLED),
            *self._depth((), self.depth, step, ahead),
        ]
        if not self.two_phase:
            return [Alloc(acc, tuple(body + self._finish(at, tile, acc, self.epilogue)))]
        body += self._finish(at, tile, acc, ())
        # one statement, because the second phase reads what the first one stores
        return [Alloc(acc, (*body, *self._finish(at, tile, None, self.epilogue)))]

    def _initial(self, where: tuple[Expr, ...]) -> Expr:
        """What the accumulator of the result at ``where`` begins with."""
        return Lit(0, self.dtype)

    def _step(
        self, at: tuple[Expr, ...], tile: Tile, acc: Buffer, k: tuple[Expr, ...]
    ) -> list[Stmt]:
        """One depth step: every accumulator of the tile takes one term."""
        lanes = self.recipe.lanes

        def term(i: Expr, j: Expr, w: int) -> list[Stmt]:
            def lane(v: Expr) -> list[Stmt]:
                pixel = (*at, index.add(tile.r0, i), index.add(tile.c0, j))
                target = self._cell(tile, i, j, w, v)
                return [Store(acc, target, self._sum(pixel, at, tile, k, w, v, Load(acc, target)))]

            active = lanes if self.rhs_packed else self._active(tile, w)
            return [vector("v", active, lanes, lane)]

        return self._each(tile, term, Kind.UNROLLED)

    def _sum(
        self,
        pixel: tuple[Expr, ...],
        at: tuple[Expr, ...],
        tile: Tile,
        k: tuple[Expr, ...],
        w: int,
        v: Expr,
        total: Expr,
    ) -> Expr:
        """``total`` plus one term, or the terms of one group."""
        b = self._weight(at, tile, k, w, v)
        if self.bytes:
            i = self.lhs.index((*pixel, *k[:-1], self.bytes.first(k[-1])))
            return DotProduct(self.lhs.buffer, i, b.buffer, b.index, total)
        x, weight = self.lhs.load((*pixel, *k)), self.rhs.number(b)
        return multiply_add(widened(x, self.dtype), widened(weight, self.dtype), total)

    def _each(
        self, tile: Tile, body: Callable[[Expr, Expr, int], list[Stmt]], kind: Kind
    ) -> list[Stmt]:
        """``body`` for every accumulator vector of the tile; pixels in loops of ``kind``."""

        def pixel(i: Expr, j: Expr) -> list[Stmt]:
            return [stmt for w in range(tile.panel.size) for stmt in body(i, j, w)]

        return loop(
            "i",
            tile.row.size,
            lambda i: loop("j", tile.column.size, lambda j: pixel(i, j), kind),
            kind,
        )

    def _cell(self, tile: Tile, i: Expr, j: Expr, w: int, v: Expr) -> Expr:
        """The accumulator of pixel (i, j), vector w, lane v of the tile."""
        pixel = index.add(index.mul(i, tile.column.size), j)
        start = index.mul(
            index.add(index.mul(pixel, tile.panel.size), index.lit(w)), self.recipe.lanes
        )
        return index.add(start, v)

    def _weights_ahead(self, at: tuple[Expr, ...], tile: Tile) -> _Ahead | None:
        """Asks for this tile's share of the panel of weights that comes up next, while its steps
        run: memory then works while the arithmetic does."""
        rows, columns = self.operands.result.shape[-3:-1]
        whole = tile.pixels == rows * columns
        if not (self.recipe.panel_outer and self.rhs_packed) or whole:
            return None
        elems = math.prod(self.depth) * tile.panel.size * self.recipe.lanes
        start = self._packed_start(self.depth, at, tile, (index.lit(0),) * len(self.depth))
        pixel = index.add(index.mul(tile.r0, columns), tile.c0)
        per_pixel = -(-elems // (rows * columns))
        first = index.add(index.add(start, elems), index.mul(pixel, per_pixel))
        return self._hints(
            self.rhs.buffer, index.mul(first, self.cell), per_pixel * tile.pixels * self.cell
        )

    def _pixels_ahead(self, at: tuple[Expr, ...], tile: Tile) -> _Ahead | None:
        """Asks for the left-hand side of the next tile, or for this panel's share of it."""
        if not self.recipe.fetch_ahead:
            return None
        elems = tile.column.size * self.operands.lhs.shape[-1]
        following = index.add(tile.c0, index.lit(tile.column.size))
        first = self.lhs.index((*at, tile.r0, following, index.lit(0)))
        if not self.recipe.panel_outer:
            panels = self.recipe.panels
            elems = -(-elems // sum(panel.count for panel in panels))
            before = sum(panel.count for panel in panels if panel.start < tile.panel.start)
            turn = index.add(tile.p, index.lit(before))
            first = index.add(first, index.mul(turn, elems))
        return self._hints(self.lhs.buffer, first, elems)

    def _hints(self, buffer: Buffer, first: Expr, elems: int) -> _Ahead:
        """Prefetches ``elems`` elements from ``first``, the same number before each chunk."""
        chunks = max(1, math.prod(self.depth) // self.recipe.depth_unroll)
        per_chunk = -(-elems // chunks)
        line = CACHE_LINE_BYTES // buffer.dtype.size_bytes

        def hints(chunk: Expr) -> list[Stmt]:
            start = index.add(first, index.mul(chunk, per_chunk))
            return [
                Prefetch(buffer, index.add(start, index.lit(offset)), level=2)
                for offset in range(0, per_chunk, line)
            ]

        return hints

    def _depth(
        self,
        k: tuple[Expr, ...],
        dims: Sequence[int],
        step: Callable[[tuple[Expr, ...]], list[Stmt]],
        ahead: _Ahead | None,
    ) -> list[Stmt]:
        """The loops over the depth axes, the innermost unrolled by the recipe's factor."""
        if len(dims) > 1:
            unrolled = math.prod(dims) <= self.recipe.depth_unroll
            kind = Kind.UNROLLED if unrolled else Kind.SERIAL
            return loop(
                f"k{len(k)}", dims[0], lambda i: self._depth((*k, i), dims[1:], step, ahead), kind
            )
        chunks = max(1, dims[0] // self.recipe.depth_unroll)
        before: Expr = index.lit(0)
        for position, extent in zip(k, self.depth, strict=False):
            before = index.add(index.mul(before, extent), position)
        done = index.mul(before, chunks)

        def shifted(chunk: Expr) -> list[Stmt]:
            return ahead(index.add(done, chunk)) if ahead else []

        if self.bytes and self.bytes.whole < self.bytes.groups:
            stmts = self._unrolled(self.bytes.whole, lambda i: step((*k, i)), shifted)
            return [*stmts, *step((*k, index.lit(self.bytes.whole)))]
        return self._unrolled(dims[0], lambda i: step((*k, i)), shifted)

    def _unrolled(
        self, extent: int, body: Callable[[Expr], list[Stmt]], ahead: _Ahead | None
    ) -> list[Stmt]:
        """``body`` for every index below ``extent``, in line by the recipe's factor, with ``ahead``
        before each such chunk."""
        unroll = min(self.recipe.depth_unroll, extent)
        chunks = extent // unroll

        def chunk(i: Expr) -> list[Stmt]:
            first = index.mul(i, unroll)
            steps = loop("u", unroll, lambda u: body(index.add(first, u)), Kind.UNROLLED)
            return [*(ahead(i) if ahead else []), *steps]

        stmts = loop("k", chunks, chunk)
        rest = extent - chunks * unroll
        if rest:
            first = index.lit(chunks * unroll)
            stmts += loop("u", rest, lambda u: body(index.add(first, u)), Kind.UNROLLED)
        return stmts

    def _channel(self, tile: Tile, w: int, v: Expr) -> Expr:
        """The channel of lane v of vector w."""
        lanes = self.recipe.lanes
        first = index.lit((tile.panel.start + w) * lanes)
        return index.add(index.add(index.mul(tile.p, tile.panel.size * lanes), first), v)

    def _where(
        self, at: tuple[Expr, ...], tile: Tile, i: Expr, j: Expr, w: int, v: Expr
    ) -> tuple[Expr, ...]:
        """The position in the result of pixel (i, j), vector w, lane v of the tile."""
        row, column = index.add(tile.r0, i), index.add(tile.c0, j)
        return (*at, row, column, self._channel(tile, w, v))

    def _weight(
        self, at: tuple[Expr, ...], tile: Tile, k: tuple[Expr, ...], w: int, v: Expr
    ) -> Load:
        if not self.rhs_packed:
            return self.rhs.element((*at, *k, self._channel(tile, w, v)))
        place = self._packed_index(self.depth, at, tile, k, w, v)
        return Load(self.rhs.buffer, index.mul(place, self.cell))

    def _packed_index(
        self,
        depth: Sequence[int],
        at: tuple[Expr, ...],
        tile: Tile,
        k: tuple[Expr, ...],
        w: int,
        v: Expr,
    ) -> Expr:
        """The cell of lane v of vector w at ``k``, in panels of ``depth`` cells for each lane."""
        size = self.recipe.stored_size(tile.panel.start)
        panel, vector_ = divmod(w, size)
        offset = (panel * size * math.prod(depth) + vector_) * self.recipe.lanes
        start = index.add(self._packed_start(depth, at, tile, k), index.lit(offset))
        return index.add(start, v)

    def _packed_start(
        self, dims: Sequence[int], at: tuple[Expr, ...], tile: Tile, k: tuple[Expr, ...]
    ) -> Expr:
        """Where what is packed over the depth ``dims`` begins for the tile's panel and ``k``, in
        cells."""
        lanes, depth = self.recipe.lanes, math.prod(dims)
        width = tile.panel.size * lanes
        total: Expr = index.lit(tile.panel.start * lanes * depth)
        total = index.add(total, self._batch_offset(at, depth))
        total = index.add(total, index.mul(tile.p, depth * width))
        step = self.recipe.stored_size(tile.panel.start) * lanes
        for position, extent in zip(reversed(k), reversed(dims), strict=True):
            total = index.add(total, index.mul(position, step))
            step *= extent
        return total

    def _batch_offset(self, at: tuple[Expr, ...], depth: int) -> Expr:
        """Where the packed weights of batch ``at`` begin, in cells."""
        rhs = self.operands.rhs
        total: Expr = index.lit(0)
        step = depth * self.recipe.panels[-1].stop * self.recipe.lanes
        for axis in reversed(range(self.operands.batch)):
            if rhs.strides[axis] != 0:
                total = index.add(total, index.mul(at[axis], step))
                step *= rhs.shape[axis]
        return total

    def _active(self, tile: Tile, w: int) -> int:
        """Lanes in use of vector ``w``; only the very last vector may be partial (see schedule)."""
        lanes = self.recipe.lanes
        if tile.panel.count > 1:
            return lanes
        return min(lanes, self.channels - (tile.panel.start + w) * lanes)

    def _finish(
        self, at: tuple[Expr, ...], tile: Tile, acc: Buffer | None, epilogue: Sequence[Node]
    ) -> list[Stmt]:
        """Stores the tile through ``epilogue``, from the accumulators or, when ``acc`` is
        None, from the result itself, where an earlier phase has put them."""

        def put(i: Expr, j: Expr, w: int) -> list[Stmt]:
            def lane(v: Expr) -> list[Stmt]:
                where = self._where(at, tile, i, j, w, v)
                raw = Load(acc, self._cell(tile, i, j, w, v)) if acc else self.result.load(where)
                values: dict[Node, Expr] = {
                    node: leaf.load(where)
                    for node, leaf in zip(self.leaf_nodes, self.leaves, strict=True)
                }
                values = evaluate_nodes(epilogue, {**values, self.summed: raw})
                result = values[self.group.result] if epilogue else raw
                return [self.result.store(where, result)]

            active = self._active(tile, w)
            # registers are vectors of one size; memory can be read in narrower ones, unmasked
            in_registers = acc is not None and acc.space is Space.REGISTER
            lanes = self.recipe.lanes if in_registers else rest_lanes(active, self.recipe.lanes)
            return [vector("v", active, lanes, lane)]

        return self._each(tile, put, Kind.UNROLLED if acc else Kind.SERIAL)
