"""Depthwise convolutions of bytes by dot products: a group goes in, its kernel comes out.

For machines that add the products of sixteen neighbouring bytes to a general register. The window
of one channel has its bytes far apart, so a few channels at a time are brought into another order
first: for each channel, and each column of the rows that one row of results reads, the bytes of
four rows lie side by side. Four columns of that are sixteen bytes, which a window of up to four by
four reads at once; larger ones take several. Weights have the same order and zeros where a window
has nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aotc.fuse.groups import Group
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import (
    GROUP,
    VECTOR_TERMS,
    Alloc,
    Buffer,
    DotProduct,
    Expr,
    Lit,
    Load,
    Space,
    Stmt,
    Store,
)
from aotc.lower.context import Context
from aotc.lower.pointwise import evaluate_nodes
from aotc.lower.scope import KernelScope, loop, rest_lanes, vector

#: Channels that are brought into order together, and the bytes of the arena that they may take.
BLOCK = 8
MOST_BYTES = 4096
#: Channels of one vector of sums.
LANES = 4


@dataclass(frozen=True)
class _Window:
    """The two spatial axes of a convolution, rows first: results, taps, strides; ``step`` is the
    distance of the rows of a window."""

    results: tuple[int, int]
    taps: tuple[int, int]
    strides: tuple[int, int]
    step: int

    @property
    def groups(self) -> tuple[int, int]:
        """Groups of four rows, and of four columns, that a window takes."""
        rows, columns = (-(-taps // GROUP) for taps in self.taps)
        return rows, columns

    @property
    def width(self) -> int:
        """Columns that a row of results reads, with those that only zeros meet."""
        return (self.results[1] - 1) * self.strides[1] + GROUP * self.groups[1]

    @property
    def reached(self) -> int:
        """Columns that a row of results reads."""
        return (self.results[1] - 1) * self.strides[1] + self.taps[1]

    @property
    def channel(self) -> int:
        """Bytes of one channel."""
        return self.groups[0] * self.width * GROUP


def lower_columns(context: Context, group: Group, weights: np.ndarray) -> bool:
    """Emits the kernel of a depthwise convolution of int8 with ``weights`` [rows, columns, channel]
    (int8); False where this is not the way to compute it."""
    op, data = group.anchor.op, context.view(group.anchor.inputs[0])
    assert isinstance(op, ops.Conv)
    if weights.ndim != 3 or data.dtype is not DType.I8 or op.dilation[1] != 1:
        return False
    rows, columns, channels = weights.shape
    _, *results, _ = group.anchor.shape
    window = _Window(
        (results[0], results[1]), (rows, columns), (op.strides[0], op.strides[1]), op.dilation[0]
    )
    # three of a window's four rows, or two, are worth it
    if rows == 1 or channels < LANES or LANES * window.channel > MOST_BYTES:
        return False
    if context.lanes_for(group.anchor.type.dtype, group.result.type.dtype) != LANES:
        return False
    _Writer(context, group, window, weights).emit()
    return True


class _Writer:
    """Writes one kernel: blocks of channels, rows of results, vectors of channels, results."""

    def __init__(
        self, context: Context, group: Group, window: _Window, weights: np.ndarray
    ) -> None:
        self.context, self.group, self.window = context, group, window
        data, result = context.view(group.anchor.inputs[0]), context.view(group.result)
        self.batch, self.channels = data.shape[0], data.shape[-1]
        self.epilogue = tuple(node for node in group.nodes if node is not group.anchor)
        self.leaf_nodes = context.operands(self.epilogue, group.nodes)
        leaves = [context.view(node) for node in self.leaf_nodes]
        filters = context.constant(_in_columns(weights, window), "filters")
        self.scope = KernelScope()
        self.scope.reserve(data, result, filters, *leaves)
        self.data, self.filters = self.scope.access(data), self.scope.access(filters)
        self.leaves = [self.scope.access(leaf) for leaf in leaves]
        self.result = self.scope.access(result, write=True)
        self.block = BLOCK if BLOCK * window.channel <= MOST_BYTES else LANES
        scratch = context.temporary(DType.I8, (self.block * window.channel,), "columns")
        self.scope.reserve(scratch)
        self.columns = self.scope.access(scratch, write=True).buffer

    def emit(self) -> None:
        body = loop("z", self.columns.elems // VECTOR_TERMS, self._clear)
        body += loop("b", self.batch, self._blocks)
        self.context.emit(self.scope.call(self.group.label, body))

    def _clear(self, i: Expr) -> list[Stmt]:
        """What only zeros meet is known."""
        start, zero = index.mul(i, VECTOR_TERMS), Lit(0, DType.I8)

        def lane(v: Expr) -> list[Stmt]:
            return [Store(self.columns, index.add(start, v), zero)]

        return [vector("v", VECTOR_TERMS, VECTOR_TERMS, lane)]

    def _blocks(self, n: Expr) -> list[Stmt]:
        whole, rest = divmod(self.channels, self.block)
        stmts: list[Stmt] = []
        if whole:
            stmts += loop(
                "d", whole, lambda d: self._block(n, index.mul(d, self.block), self.block)
            )
        if rest:
            stmts += self._block(n, index.lit(whole * self.block), rest)
        return stmts

    def _block(self, n: Expr, first: Expr, active: int) -> list[Stmt]:
        """All results of the ``active`` channels from ``first`` on."""

        def row(y: Expr) -> list[Stmt]:
            stmts = loop("x", self.window.reached, lambda x: self._column(n, first, active, y, x))
            for start in range(0, active, LANES):
                lanes = min(LANES, active - start)
                stmts += self._results(n, first, start, lanes, y)
            return stmts

        return loop("r", self.window.results[0], row)

    def _column(
        self, n: Expr, first: Expr, active: int, y: Expr, x: Expr
    ) -> list[Stmt]:
        """Brings column ``x`` of the rows that row ``y`` of results reads into order."""
        window = self.window
        stmts: list[Stmt] = []
        for tap in range(window.taps[0]):
            row = index.add(index.mul(y, window.strides[0]), index.lit(tap * window.step))
            group, slot = divmod(tap, GROUP)
            place = index.add(index.mul(x, GROUP), index.lit(group * window.width * GROUP + slot))

            def lane(v: Expr, row: Expr = row, place: Expr = place) -> list[Stmt]:
                value = self.data.load((n, row, x, index.add(first, v)))
                at = index.add(index.mul(v, window.channel), place)
                return [Store(self.columns, at, value)]

            stmts.append(vector("v", active, rest_lanes(active, self.block), lane))
        return stmts

    def _results(
        self, n: Expr, first: Expr, start: int, active: int, y: Expr
    ) -> list[Stmt]:
        """Row ``y`` of the ``active`` channels from ``first + start`` on."""

        def result(x: Expr) -> list[Stmt]:
            # the vector of sums, and after it each sum by itself
            acc = Buffer("acc", DType.I32, 2 * LANES, Space.REGISTER)
            zero = Lit(0, DType.I32)
            body: list[Stmt] = []
            for c in range(LANES):
                total = self._sum(index.add(first, index.lit(start + c)), start + c, x)
                body.append(Store(acc, index.lit(LANES + c), total if c < active else zero))
            for c in range(LANES):
                body.append(Store(acc, index.lit(c), Load(acc, index.lit(LANES + c))))

            def lane(v: Expr) -> list[Stmt]:
                where = (n, y, x, index.add(index.add(first, index.lit(start)), v))
                values: dict[Node, Expr] = {self.group.anchor: Load(acc, v)}
                for node, leaf in zip(self.leaf_nodes, self.leaves, strict=True):
                    values[node] = leaf.load(where)
                values = evaluate_nodes(self.epilogue, values)
                return [self.result.store(where, values[self.group.result])]

            return [Alloc(acc, (*body, vector("v", active, LANES, lane)))]

        return loop("c", self.window.results[1], result)

    def _sum(self, channel: Expr, number: int, x: Expr) -> Expr:
        """The sum of the window at column ``x``, of channel ``number`` of the block."""
        window = self.window
        rows, columns = window.groups
        total: Expr = Lit(0, DType.I32)
        column = index.mul(x, window.strides[1] * GROUP)
        for g in range(rows):
            for h in range(columns):
                place = number * window.channel + (g * window.width + h * GROUP) * GROUP
                cell = index.add(index.mul(channel, rows * columns), index.lit(g * columns + h))
                total = DotProduct(
                    self.columns,
                    index.add(column, index.lit(place)),
                    self.filters.buffer,
                    index.mul(cell, VECTOR_TERMS),
                    total,
                    terms=VECTOR_TERMS,
                )
        return total


def _in_columns(weights: np.ndarray, window: _Window) -> np.ndarray:
    """Weights [rows, columns, channels] as [channel][group of rows][group of columns][4 columns][4
    rows], int8, with channels up to a multiple of four."""
    rows, columns, channels = weights.shape
    down, across = window.groups
    padded = np.zeros((down * GROUP, across * GROUP, -(-channels // LANES) * LANES), np.int8)
    padded[:rows, :columns, :channels] = weights
    parts = padded.reshape(down, GROUP, across, GROUP, -1)
    return np.ascontiguousarray(parts.transpose(4, 0, 2, 3, 1)).reshape(-1)
