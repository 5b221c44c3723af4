"""Decision trees: one MOVE group in, one kernel out that walks all trees for all rows.

Nothing branches on data. The first levels of a tree can be asked all at once for a vector of rows:
each node compares one feature of every row with its threshold, and selections pick the answer that
counts. Below, several walks go down together, so that their loads overlap; over rows when there are
some, otherwise over trees. Either way a row adds up its trees in their order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from aotc.errors import UnsupportedError
from aotc.fuse.groups import Group
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import (
    Bin,
    Bits,
    Buffer,
    Cmp,
    Conv,
    Expr,
    Kind,
    Lit,
    Load,
    Sel,
    Space,
    Stmt,
    Store,
    Un,
)
from aotc.lower.context import Context
from aotc.lower.scan import allocate
from aotc.lower.scope import Access, KernelScope, loop, rest_lanes, vector, vector_sweep

#: Walks that go down together: enough to hide the latency of a step, few enough for registers.
WALKS = 16
#: Words of a node in the table that walks read: threshold, feature, child, value (or its place).
RECORD = 4
#: Vectors of rows that go through a tree before the next tree's tables are read.
VECTORS = 8
#: Most bytes of a block of rows, turned so that a feature of all rows is contiguous.
TURNED_BYTES = 64 << 10
#: Rows that walk down one tree before the next: their features stay in the nearest cache.
BLOCK = 64
#: Most results of a row that a walk over trees collects in registers.
MOST_TOTALS = 8

_START = {"sum": 0.0, "min": math.inf, "max": -math.inf}
_JOIN = {"sum": "add", "min": "min", "max": "max"}


@dataclass(frozen=True)
class _Forest:
    """The tables of an ensemble, every index within bounds. ``left`` and ``right`` are the children
    of each node; those of a leaf are itself. ``depth`` is the longest way to a leaf."""

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    values: np.ndarray
    roots: np.ndarray
    column: np.ndarray
    nan_left: np.ndarray | None
    depth: int

    @classmethod
    def of(cls, node: Node) -> _Forest:
        """The tables of a `Trees`; UnsupportedError when they are not constants."""
        op = node.op
        assert isinstance(op, ops.Trees)
        tables = [operand.data for operand in node.inputs[1:]]
        if any(table is None for table in tables):
            raise UnsupportedError(
                "decision trees that are computed at run time are not supported",
                where=f"node '{node.origin}'",
                remedy="make the tables of the trees constants",
            )
        feature, threshold, child, values, roots, column, *flags = tables
        assert child is not None and threshold is not None and values is not None
        nodes, width = values.shape
        itself = np.arange(nodes)
        left = np.clip(child.astype(np.int64), 0, nodes - 1)
        right = np.clip(child.astype(np.int64) + 1, 0, nodes - 1)
        nan_left = flags[0] if flags and np.any(flags[0]) else None
        leaf = np.isnan(threshold) & (right == itself)
        if nan_left is not None:
            leaf &= ~nan_left
        left = np.where(leaf | (right == 0), right, left)
        if np.any((right != left + 1) & ((left != itself) | (right != itself))):
            raise UnsupportedError(
                "the children of a node of a decision tree are outside its table",
                where=f"node '{node.origin}'",
                remedy="the tables are damaged: export the model again",
            )
        roots = np.clip(roots, 0, nodes - 1)  # type: ignore[arg-type]
        return cls(
            np.clip(feature, 0, node.inputs[0].shape[1] - 1),  # type: ignore[arg-type]
            threshold,
            left,
            right,
            values,
            roots,
            np.clip(column, 0, op.columns - width),  # type: ignore[arg-type]
            nan_left,
            _depth(roots, left, right, op.depth),
        )

    @property
    def width(self) -> int:
        """Values of a leaf."""
        return int(self.values.shape[1])

    def heap(self, levels: int) -> np.ndarray:
        """The nodes of each tree as a complete tree of ``levels`` levels and what lies below them:
        node i has the children 2i+1 and 2i+2, a leaf has itself."""
        table = np.zeros((self.roots.size, (2 << levels) - 1), np.int64)
        table[:, 0] = self.roots
        for i in range((1 << levels) - 1):
            table[:, 2 * i + 1] = self.left[table[:, i]]
            table[:, 2 * i + 2] = self.right[table[:, i]]
        return table

    def records(self) -> np.ndarray:
        """What walks read, RECORD words of the width of a threshold for each node: the threshold's
        bits, the feature, where the left child's record begins, and the bits of the value or where
        the values begin. A leaf leads to itself."""
        word = np.dtype(f"int{8 * self.threshold.itemsize}")
        nodes = np.arange(self.left.size)
        leaf = (self.left == nodes) & (self.right == nodes)
        threshold = np.where(leaf, np.nan, self.threshold).astype(self.threshold.dtype)
        child = np.where(leaf, nodes - 1, self.left)
        table = np.zeros((nodes.size, RECORD), word)
        table[:, 0] = threshold.view(word)
        table[:, 1] = self.feature
        table[:, 2] = child * RECORD
        if self.width == 1:
            table[:, 3] = np.ascontiguousarray(self.values[:, 0]).view(word)
        else:
            table[:, 3] = nodes * self.width
        return table


def _depth(roots: np.ndarray, left: np.ndarray, right: np.ndarray, most: int) -> int:
    """Steps after which every walk has come to a leaf, at most ``most``."""
    frontier = np.unique(roots)
    for depth in range(most):
        frontier = frontier[(left[frontier] != frontier) | (right[frontier] != frontier)]
        if frontier.size == 0:
            return depth
        frontier = np.unique(np.concatenate([left[frontier], right[frontier]]))
    return most


def lower_trees(context: Context, group: Group) -> None:
    """Emits the walks of a Trees."""
    node = group.anchor
    op = node.op
    assert isinstance(op, ops.Trees)
    _Kernel(context, group, _Forest.of(node), op).emit()


class _Kernel:
    """One kernel while it is written."""

    def __init__(self, context: Context, group: Group, forest: _Forest, op: ops.Trees) -> None:
        self.context = context
        self.group = group
        self.forest = forest
        self.op = op
        x, result = context.view(group.anchor.inputs[0]), context.view(group.result)
        self.dtype = x.dtype
        self.word = DType.I32 if x.dtype is DType.F32 else DType.I64
        self.rows = x.shape[0]
        self.scope = KernelScope()
        self.scope.reserve(x, result)
        self.result = self.scope.access(result, write=True)
        self.x = self.scope.access(x)
        self.start = Lit(_START[op.fn], self.dtype)
        columns = np.unique(forest.column)
        self.one_column = int(columns[0]) if columns.size == 1 else None
        self.column = None if columns.size == 1 else self.table(forest.column, "column")

    def table(self, values: np.ndarray, name: str) -> Access:
        """A constant as a parameter of one axis."""
        view = self.context.constant(np.ascontiguousarray(values).reshape(-1), name)
        self.scope.reserve(view)
        return self.scope.access(view)

    def emit(self) -> None:
        lanes = self.context.lanes_for(self.dtype)
        levels, vectors = _plan(self.forest, self.rows, lanes)
        if levels:
            body = _Dense(self, levels, lanes, vectors).body()
        else:
            body = _Walks(self, self.forest.depth).body()
        recipe = f"levels {levels} of {self.forest.depth}"
        call = self.scope.call(self.group.label, body, recipe=recipe, independent=True)
        self.context.emit(call)

    # Pieces of both kinds of kernel.

    def join(self, total: Expr, value: Expr) -> Expr:
        """The next tree's value joined to what there is."""
        return Bin(_JOIN[self.op.fn], total, value)

    def first_column(self, tree: Expr) -> Expr:
        """The first column that a tree contributes to."""
        if self.column is None:
            return index.lit(self.one_column or 0)
        return _wide(self.column.load((tree,)))

    def goes_left(self, value: Expr, threshold: Expr, flag: Expr | None) -> Expr:
        """Whether a walk goes to the left child; ``flag`` says whether NaN does."""
        left = Cmp("le", value, threshold)
        if flag is None:
            return left
        return Bin("or", left, Bin("and", Cmp("ne", value, value), flag))

    def clear(self, row: Expr, count: int) -> list[Stmt]:
        """Statements that start the results of ``count`` rows from ``row`` on."""

        lanes = self.context.lanes_for(self.dtype)

        def column(c: Expr) -> list[Stmt]:
            def one(i: Expr) -> list[Stmt]:
                return [self.result.store((index.add(row, i), c), self.start)]

            return vector_sweep(count, lanes, 1, one)

        return loop("c", self.op.columns, column)


def _wide(value: Expr) -> Expr:
    return value if value.dtype is DType.I64 else Conv(value, DType.I64)


def _plan(forest: _Forest, rows: int, lanes: int) -> tuple[int, int]:
    """How many levels of every tree to ask at once (0 for none), and of how many vectors of rows.

    Whole trees while they are shallow: the work doubles with each level, that of walks does not.
    Measured on trees of depth 4 to 8: full levels win up to 6 (16 lanes) or 5 (8 lanes), four of
    them are a little better than none before walks. Turning the rows must pay for itself.
    """
    used = np.unique(forest.feature).size
    most = TURNED_BYTES // (used * lanes * forest.threshold.itemsize)
    if rows < lanes or most == 0 or 4 * forest.roots.size < used:
        return 0, 0
    whole = 6 if lanes >= 16 else 5 if lanes >= 8 else 4
    levels = forest.depth if forest.depth <= whole else min(whole - 1, 4)
    return levels, min(VECTORS, most)


class _Walks:
    """Walks down the tables of nodes."""

    def __init__(self, kernel: _Kernel, levels: int) -> None:
        self.kernel = kernel
        self.levels = levels
        forest = kernel.forest
        self.records = kernel.table(forest.records(), "nodes")
        self.flags = None
        if forest.nan_left is not None:
            self.flags = kernel.table(np.repeat(forest.nan_left, RECORD), "nan_left")
        self.values = None
        if forest.width > 1:
            self.values = kernel.table(forest.values, "values")

    def word(self, at: Expr, place: int) -> Expr:
        """A word of the record at ``at``."""
        return self.records.load((index.add(at, place),))

    def step(self, at: Expr, row: Expr) -> Expr:
        """Where the walk of ``row`` goes from the record at ``at``."""
        kernel = self.kernel
        value = kernel.x.load((row, _wide(self.word(at, 1))))
        flag = None if self.flags is None else self.flags.load((at,))
        left = kernel.goes_left(value, Bits(self.word(at, 0), kernel.dtype), flag)
        beside = Conv(Un("not", left), DType.I64)
        return Bin("add", _wide(self.word(at, 2)), index.mul(beside, RECORD))

    def value(self, at: Expr, place: Expr) -> Expr:
        """A value of the leaf whose record is at ``at``."""
        if self.values is None:
            return Bits(self.word(at, 3), self.kernel.dtype)
        return self.values.load((index.add(_wide(self.word(at, 3)), place),))

    def together(
        self,
        count: int,
        start: Callable[[Expr], Expr],
        row: Callable[[Expr], Expr],
        finish: Callable[[Expr, Expr], Sequence[Stmt]],
    ) -> list[Stmt]:
        """``count`` walks at once: walk u begins at ``start(u)``, is for the row ``row(u)``, and
        ``finish(u, at)`` says what happens at its leaf."""
        at = Buffer("at", DType.I64, count, Space.REGISTER)

        def each(body: Callable[[Expr], Sequence[Stmt]]) -> list[Stmt]:
            return loop("u", count, body, Kind.UNROLLED)

        def level(_: Expr) -> list[Stmt]:
            return each(lambda u: [Store(at, u, self.step(Load(at, u), row(u)))])

        begin = each(lambda u: [Store(at, u, start(u))])
        down = loop("level", self.levels, level) if self.levels else []
        end = each(lambda u: finish(u, Load(at, u)))
        return allocate([at], [*begin, *down, *end])

    def over_rows(
        self, row: Expr, count: int, tree: Expr, start: Callable[[Expr], Expr]
    ) -> list[Stmt]:
        """One tree for ``count`` rows from ``row`` on; ``start`` gives the record where the walk of
        the i-th of them begins. The values join the results in memory."""

        def walks(first: Expr, together: int) -> list[Stmt]:
            def finish(u: Expr, at: Expr) -> list[Stmt]:
                return self._put(index.add(index.add(row, first), u), tree, at)

            return self.together(
                together,
                lambda u: start(index.add(first, u)),
                lambda u: index.add(index.add(row, first), u),
                finish,
            )

        full, rest = divmod(count, WALKS)
        stmts = loop("g", full, lambda g: walks(index.mul(g, WALKS), WALKS)) if full else []
        return [*stmts, *(walks(index.lit(full * WALKS), rest) if rest else [])]

    def _put(self, row: Expr, tree: Expr, at: Expr) -> list[Stmt]:
        """Joins the values of a leaf to the results of a row."""
        kernel, width = self.kernel, self.kernel.forest.width
        first = kernel.first_column(tree)

        def one(place: Expr) -> list[Stmt]:
            where = (row, index.add(first, place))
            total = kernel.join(kernel.result.load(where), self.value(at, place))
            return [kernel.result.store(where, total)]

        if width == 1 or kernel.result.strides[1] != 1:
            return loop("w", width, one, Kind.UNROLLED)
        return vector_sweep(width, kernel.context.lanes_for(kernel.dtype), 1, one)

    def roots(self) -> Access:
        """Where the roots' records begin."""
        return self.kernel.table(self.kernel.forest.roots * RECORD, "roots")

    def body(self) -> list[Stmt]:
        """All trees for all rows."""
        kernel = self.kernel
        roots = self.roots()
        if kernel.rows < min(WALKS, kernel.forest.roots.size):
            return loop("row", kernel.rows, lambda row: self._over_trees(row, roots))
        def rows(first: Expr, count: int) -> list[Stmt]:
            def tree(t: Expr) -> list[Stmt]:
                return self.over_rows(first, count, t, lambda i: _wide(roots.load((t,))))

            return [*kernel.clear(first, count), *loop("tree", kernel.forest.roots.size, tree)]

        return _blocks(kernel.rows, BLOCK, rows)

    def _over_trees(self, row: Expr, roots: Access) -> list[Stmt]:
        """One row: several trees at once, their values joined in the order of the trees."""
        kernel = self.kernel
        trees, width = kernel.forest.roots.size, kernel.forest.width
        in_registers = kernel.one_column is not None and width <= MOST_TOTALS
        total = Buffer("total", kernel.dtype, width, Space.REGISTER)

        def finish(tree: Expr, at: Expr) -> list[Stmt]:
            if not in_registers:
                return self._put(row, tree, at)

            def one(w: Expr) -> list[Stmt]:
                return [Store(total, w, kernel.join(Load(total, w), self.value(at, w)))]

            return loop("w", width, one, Kind.UNROLLED)

        def walks(first: Expr, count: int) -> list[Stmt]:
            return self.together(
                count,
                lambda u: _wide(roots.load((index.add(first, u),))),
                lambda u: row,
                lambda u, at: finish(index.add(first, u), at),
            )

        full, rest = divmod(trees, WALKS)
        stmts = loop("t", full, lambda t: walks(index.mul(t, WALKS), WALKS)) if full else []
        stmts += walks(index.lit(full * WALKS), rest) if rest else []
        if not in_registers:
            return [*kernel.clear(row, 1), *stmts]

        def begin(w: Expr) -> list[Stmt]:
            return [Store(total, w, kernel.start)]

        def end(w: Expr) -> list[Stmt]:
            at = (row, index.add(w, kernel.one_column or 0))
            return [kernel.result.store(at, Load(total, w))]

        others = [] if width == kernel.op.columns else kernel.clear(row, 1)
        begins = loop("w", width, begin, Kind.UNROLLED)
        ends = loop("w", width, end, Kind.UNROLLED)
        return allocate([total], [*others, *begins, *stmts, *ends])


def _blocks(rows: int, size: int, body: Callable[[Expr, int], list[Stmt]]) -> list[Stmt]:
    """``body(first, count)`` for blocks of ``size`` rows and for what is left."""
    full, rest = divmod(rows, size)
    stmts = loop("block", full, lambda b: body(index.mul(b, size), size)) if full else []
    if rest:
        stmts += body(index.lit(full * size), rest)
    return stmts


class _Dense:
    """The first ``levels`` of each tree asked all at once for vectors of rows."""

    def __init__(self, kernel: _Kernel, levels: int, lanes: int, vectors: int) -> None:
        self.kernel = kernel
        self.lanes = lanes
        forest = kernel.forest
        heap = forest.heap(levels)
        inner, self.below = heap[:, : (1 << levels) - 1], heap[:, (1 << levels) - 1 :]
        self.used, local = np.unique(forest.feature[inner], return_inverse=True)
        self.block = lanes * vectors
        self.feature = kernel.table((local * self.block).astype(np.int32), "feature")
        self.threshold = kernel.table(forest.threshold[inner], "threshold")
        self.flags = None
        if forest.nan_left is not None:
            self.flags = kernel.table(forest.nan_left[inner], "nan_left")
        self.nodes = inner.shape[1]
        self.turned = Buffer("turned", kernel.dtype, self.used.size * self.block, Space.STACK)
        self.used_table = kernel.table(self.used.astype(np.int32), "used")
        self.whole = levels == forest.depth and forest.width == 1
        if self.whole:
            self.leaves = kernel.table(forest.values[self.below, 0], "leaves")
            self.totals = Buffer(
                "totals", kernel.dtype, kernel.op.columns * self.block, Space.STACK
            )
        else:
            self.leaves = kernel.table((self.below * RECORD).astype(np.int32), "start")
            self.walks = _Walks(kernel, forest.depth - levels)
            self.starts = Buffer("starts", DType.I32, lanes, Space.STACK)

    def body(self) -> list[Stmt]:
        """All trees for all rows."""
        return _blocks(self.kernel.rows, self.block, self._rows)

    def _vectors(
        self, count: int, body: Callable[[Expr, int, int], list[Stmt]]
    ) -> list[Stmt]:
        """``body(first, active, lanes)`` for each vector of ``count`` rows."""
        full, rest = divmod(count, self.lanes)
        stmts: list[Stmt] = []
        if full:
            stmts = loop(
                "j", full, lambda j: body(index.mul(j, self.lanes), self.lanes, self.lanes)
            )
        if rest:
            stmts += body(index.lit(full * self.lanes), rest, rest_lanes(rest, self.lanes))
        return stmts

    def _rows(self, row: Expr, count: int) -> list[Stmt]:
        kernel = self.kernel
        trees = loop("tree", kernel.forest.roots.size, lambda t: self._tree(row, count, t))
        turn = self._turn(row, count)
        if not self.whole:
            clear = kernel.clear(row, count)
            return allocate([self.turned, self.starts], [*turn, *clear, *trees])

        def sweep(body: Callable[[Expr, Expr], Stmt]) -> list[Stmt]:
            def column(c: Expr) -> list[Stmt]:
                return self._vectors(
                    count,
                    lambda first, active, lanes: [
                        vector("v", active, lanes, lambda v: [body(c, index.add(first, v))])
                    ],
                )

            return loop("c", kernel.op.columns, column)

        begin = sweep(lambda c, i: Store(self.totals, self._total(c, i), kernel.start))
        end = sweep(
            lambda c, i: kernel.result.store(
                (index.add(row, i), c), Load(self.totals, self._total(c, i))
            )
        )
        return allocate([self.turned, self.totals], [*turn, *begin, *trees, *end])

    def _total(self, column: Expr, i: Expr) -> Expr:
        return index.add(index.mul(column, self.block), i)

    def _turn(self, row: Expr, count: int) -> list[Stmt]:
        """Lays each used feature of ``count`` rows side by side."""
        kernel = self.kernel

        def feature(f: Expr) -> list[Stmt]:
            source = _wide(self.used_table.load((f,)))

            def part(first: Expr, active: int, lanes: int) -> list[Stmt]:
                def lane(v: Expr) -> list[Stmt]:
                    at = index.add(index.add(index.mul(f, self.block), first), v)
                    value = kernel.x.load((index.add(index.add(row, first), v), source))
                    return [Store(self.turned, at, value)]

                return [vector("v", active, lanes, lane)]

            return self._vectors(count, part)

        return loop("f", self.used.size, feature)

    def _tree(self, row: Expr, count: int, tree: Expr) -> list[Stmt]:
        kernel = self.kernel

        def part(first: Expr, active: int, lanes: int) -> list[Stmt]:
            def lane(v: Expr) -> list[Stmt]:
                answer = self._answer(tree, index.add(first, v), 0)
                if not self.whole:
                    return [Store(self.starts, v, answer)]
                at = self._total(kernel.first_column(tree), index.add(first, v))
                return [Store(self.totals, at, kernel.join(Load(self.totals, at), answer))]

            stmts: list[Stmt] = [vector("v", active, lanes, lane)]
            if not self.whole:
                stmts += self.walks.over_rows(
                    index.add(row, first), active, tree, lambda i: _wide(Load(self.starts, i))
                )
            return stmts

        return self._vectors(count, part)

    def _answer(self, tree: Expr, i: Expr, node: int) -> Expr:
        """What the subtree below ``node`` (in heap order) says about the i-th row of the block."""
        if node >= self.nodes:
            leaves = self.below.shape[1]
            place = index.add(index.mul(tree, leaves), node - self.nodes)
            return self.leaves.load((place,))
        place = index.add(index.mul(tree, self.nodes), node)
        value = Load(self.turned, index.add(_wide(self.feature.load((place,))), i))
        flag = None if self.flags is None else self.flags.load((place,))
        left = self.kernel.goes_left(value, self.threshold.load((place,)), flag)
        below = (self._answer(tree, i, 2 * node + 1), self._answer(tree, i, 2 * node + 2))
        return Sel(left, *below)
