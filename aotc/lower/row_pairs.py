"""Depthwise convolutions of bytes by products of pairs of int16: a group goes in, its kernel comes
out.

For machines that add two products of int16 in general registers to a sum. A pair is two rows of one
column and one channel; a last row without a partner is a pair with zero. One channel's filter stays
in registers for its whole image. Each column of a row of windows is read once and goes into the
sums of all windows that it is in; a sum is complete with the last column of its window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aotc.fuse.groups import Group
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import (
    Alloc,
    Bin,
    Buffer,
    Conv,
    Expr,
    Kind,
    Lit,
    Load,
    ShortProducts,
    Space,
    Stmt,
    Store,
)
from aotc.lower.context import Context
from aotc.lower.contract_pairs import first_addend
from aotc.lower.pointwise import evaluate_nodes
from aotc.lower.scope import KernelScope, loop
from aotc.schedule.recipe import split_evenly

#: Words of a filter: with sums and data they are about as many as there are general registers.
MOST_WORDS = 6
#: Windows in line. Each is some twenty instructions, and every tile reads some columns again.
TILE_WINDOWS = 12
#: The same where small code is asked for.
COMPACT_WINDOWS = 1


@dataclass(frozen=True)
class _Window:
    """Taps, strides and dilations of a window, rows first."""

    taps: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]

    @classmethod
    def of(cls, rows: tuple[int, ...], columns: tuple[int, ...]) -> _Window:
        """The window of two axes, of each the taps, stride and dilation."""
        taps, strides, dilation = zip(rows, columns, strict=True)
        return cls(taps, strides, dilation)

    @property
    def suits(self) -> bool:
        """Whether registers hold its filter, and neighbouring windows meet or overlap."""
        words = self.pairs * self.taps[1]
        return self.taps[0] > 1 and words <= MOST_WORDS and self.lead >= 0

    def reads(self, extent: int, most: int) -> float:
        """Elements that are read for each of ``extent`` windows side by side, at ``most`` so many
        in line."""
        parts = split_evenly(extent, most)
        columns = sum(part.count * (self.lead + part.size * self.strides[1]) for part in parts)
        return self.taps[0] * columns / extent

    @property
    def pairs(self) -> int:
        """Pairs of rows, the last of which may be one row."""
        return -(-self.taps[0] // 2)

    @property
    def lead(self) -> int:
        """Columns of the first window before those that the next window has not."""
        return (self.taps[1] - 1) * self.dilation[1] + 1 - self.strides[1]

    def uses(self, column: int) -> list[tuple[int, int]]:
        """The taps that ``column`` of the first window meets: each with the number of the window,
        which may be negative."""
        places = ((t, column - t * self.dilation[1]) for t in range(self.taps[1]))
        return [(t, at // self.strides[1]) for t, at in places if at % self.strides[1] == 0]


def lower_row_pairs(context: Context, group: Group, filters: np.ndarray) -> bool:
    """Emits the kernel of a DEPTHWISE group with ``filters`` [rows, columns, channels] of int8;
    False for what it does not suit."""
    op = group.anchor.op
    assert isinstance(op, ops.Conv)
    data = context.view(group.anchor.inputs[0])
    if len(op.strides) != 2 or data.dtype is not DType.U8:
        return False
    rows, columns = group.anchor.shape[1:3]
    most = COMPACT_WINDOWS if context.target.compact else TILE_WINDOWS
    down, across = zip(filters.shape[:2], op.strides, op.dilation, strict=True)
    ways = [
        (window.reads(extent, most), turned)
        for turned, extent in ((False, columns), (True, rows))
        if (window := _Window.of(across, down) if turned else _Window.of(down, across)).suits
    ]
    if not ways:
        return False
    _, turned = min(ways)
    window = _Window.of(across, down) if turned else _Window.of(down, across)
    _RowPairs(context, group, window, filters, turned).emit(most)
    return True


_Place = tuple[Expr, ...]


@dataclass(frozen=True)
class _Tile:
    """Windows side by side: the words of the filter, the pairs of one column, the sums, and the
    position [image, row, column, channel] of the first result."""

    words: Buffer
    pairs: Buffer
    sums: Buffer
    at: _Place


class _RowPairs:
    """Writes the kernel; with ``turned``, the columns of the image are the rows of ``window``."""

    def __init__(
        self,
        context: Context,
        group: Group,
        window: _Window,
        filters: np.ndarray,
        turned: bool,
    ) -> None:
        self.context, self.group, self.window = context, group, window
        epilogue = tuple(node for node in group.nodes if node is not group.anchor)
        self.leaf_nodes = context.operands(epilogue, group.nodes)
        nodes = (group.anchor.inputs[0], group.result, *self.leaf_nodes)
        views = [context.view(node) for node in nodes]
        if turned:
            views = [view.transpose((0, 2, 1, 3)) for view in views]
            filters = filters.transpose(1, 0, 2)
        data, result, *leaves = views
        taps = context.constant(np.ascontiguousarray(filters), "filters")
        self.scope = KernelScope()
        self.scope.reserve(data, taps, result, *leaves)
        self.data, self.taps = self.scope.access(data), self.scope.access(taps)
        self.leaves = [self.scope.access(leaf) for leaf in leaves]
        self.result = self.scope.access(result, write=True)
        self.dims = result.shape
        found = first_addend(group.anchor, epilogue, self.leaf_nodes, leaves)
        self.bias = found  # the number of the leaf with which sums begin
        # what belongs to a channel is read once for all its results
        self.kept = [
            None if any(leaf.strides[:-1]) else Buffer("kept", leaf.dtype, 1, Space.REGISTER)
            for leaf in leaves
        ]
        self.summed = group.anchor if found is None else epilogue[0]
        self.epilogue = epilogue if found is None else epilogue[1:]

    def emit(self, most: int) -> None:
        """The kernel and its call, with at ``most`` so many windows in line."""
        images, rows, columns, channels = self.dims
        words = Buffer("words", DType.I32, self.window.pairs * self.window.taps[1], Space.REGISTER)

        def tiles(n: Expr, c: Expr, y: Expr) -> list[Stmt]:
            stmts: list[Stmt] = []
            for part in split_evenly(columns, most):
                stmts += loop(
                    "x",
                    part.count,
                    lambda i, part=part: self._tile(  # type: ignore[misc]
                        words,
                        (n, y, index.add(index.mul(i, part.size), index.lit(part.start)), c),
                        part.size,
                    ),
                )
            return stmts

        def channel(n: Expr, c: Expr) -> list[Stmt]:
            body = [*self._filter(words, c), *loop("y", rows, lambda y: tiles(n, c, y))]
            for register, leaf in zip(self.kept, self.leaves, strict=True):
                if register is not None:
                    zero = index.lit(0)
                    load = leaf.load((zero, zero, zero, c))
                    body = [Alloc(register, (Store(register, zero, load), *body))]
            return [Alloc(words, tuple(body))]

        body = loop("n", images, lambda n: loop("c", channels, lambda c: channel(n, c)))
        self.context.emit(self.scope.call(self.group.label, body, independent=True))

    def _filter(self, words: Buffer, c: Expr) -> list[Stmt]:
        """The filter of a channel as pairs of int16."""
        stmts: list[Stmt] = []
        for p in range(self.window.pairs):
            for t in range(self.window.taps[1]):
                taps = [
                    Conv(self.taps.load((index.lit(row), index.lit(t), c)), DType.I32)
                    for row in range(2 * p, min(2 * p + 2, self.window.taps[0]))
                ]
                # the upper half of a tap that stands alone meets zeros
                word: Expr = taps[0]
                if len(taps) == 2:
                    word = _pair([Bin("and", word, Lit(0xFFFF, DType.I32)), taps[1]])
                stmts.append(Store(words, self._word(p, t), word))
        return stmts

    def _word(self, p: int, t: int) -> Expr:
        return index.lit(p * self.window.taps[1] + t)

    def _tile(self, words: Buffer, at: _Place, size: int) -> list[Stmt]:
        """``size`` windows from that of the result at ``at`` on."""
        window = self.window
        ends = [window.lead + i for i in range(window.strides[1])]
        most = max(number for column in ends for _, number in window.uses(column))
        sums = Buffer("sums", DType.I32, size + most, Space.REGISTER)
        pairs = Buffer("pairs", DType.I32, window.pairs, Space.REGISTER)
        tile = _Tile(words, pairs, sums, at)
        initial: Expr = Lit(0, DType.I32)
        if self.bias is not None:
            register = self.kept[self.bias]
            initial = self.leaves[self.bias].load(at)
            if register is not None:
                initial = Load(register, index.lit(0))
        clear = [Store(sums, index.lit(i), initial) for i in range(sums.elems)]
        begin = [self._column(tile, index.lit(0), column) for column in range(window.lead)]

        def one(j: Expr) -> list[Stmt]:
            columns = [self._column(tile, j, column) for column in ends]
            return [*(stmt for column in columns for stmt in column), self._finish(tile, j)]

        body = [*clear, *(stmt for column in begin for stmt in column)]
        body += loop("j", size, one, Kind.UNROLLED)
        return [Alloc(sums, (Alloc(pairs, tuple(body)),))]

    def _column(self, tile: _Tile, j: Expr, column: int) -> list[Stmt]:
        """Adds what ``column`` of window ``j`` gives to all windows that it is in; those beyond the
        tile are sums that nobody reads."""
        uses = [(t, number) for t, number in self.window.uses(column) if number >= 0]
        if not uses:
            return []
        image, row, x, channel = tile.at
        (down, right), step = self.window.strides, self.window.dilation[0]
        place = index.add(index.mul(index.add(x, j), right), index.lit(column))
        stmts: list[Stmt] = []
        for p in range(self.window.pairs):
            halves: list[Expr] = []
            for tap in range(2 * p, min(2 * p + 2, self.window.taps[0])):
                y = index.add(index.mul(row, down), index.lit(tap * step))
                halves.append(Conv(self.data.load((image, y, place, channel)), DType.I32))
            stmts.append(Store(tile.pairs, index.lit(p), _pair(halves)))
        for t, number in uses:
            target = index.add(j, index.lit(number))
            total: Expr = Load(tile.sums, target)
            for p in range(self.window.pairs):
                word = Load(tile.words, self._word(p, t))
                total = ShortProducts(Load(tile.pairs, index.lit(p)), word, total)
            stmts.append(Store(tile.sums, target, total))
        return stmts

    def _finish(self, tile: _Tile, j: Expr) -> Stmt:
        """Stores the result of window ``j``."""
        image, row, x, channel = tile.at
        position = (image, row, index.add(x, j), channel)
        values: dict[Node, Expr] = {self.summed: Load(tile.sums, j)}
        for node, leaf in zip(self.leaf_nodes, self.leaves, strict=True):
            values[node] = leaf.load(position)
        for node, register in zip(self.leaf_nodes, self.kept, strict=True):
            if register is not None:
                values[node] = Load(register, index.lit(0))
        values = evaluate_nodes(self.epilogue, values)
        return self.result.store(position, values[self.group.result])


def _pair(halves: Sequence[Expr]) -> Expr:
    """One or two numbers below 2**16 as the halves of a word."""
    if len(halves) == 1:
        return halves[0]
    return Bin("or", halves[0], Bin("shl", halves[1], Lit(16, DType.I32)))
