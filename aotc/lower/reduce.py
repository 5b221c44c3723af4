"""REDUCE and ROWS groups: reductions with the pointwise ops before, between and after them in one
kernel.

A REDUCE keeps the innermost axis: lanes run along it and every result adds its terms in order.
ROWS reduces the innermost axes: a row is added up in a fixed number of virtual lanes, which a
fixed tree then joins, so the bytes do not depend on the target's vectors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from aotc.fuse.groups import POINTWISE_OPS, Group
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import Alloc, Bin, Buffer, Expr, Lit, Load, Space, Stmt, Store
from aotc.lower.context import Context
from aotc.lower.pointwise import evaluate_nodes, expression, operand_value, widened
from aotc.lower.scope import Access, KernelScope, loop, rest_lanes, vector, vector_sweep
from aotc.lower.views import View, collapse

#: Virtual lanes of a row reduction, and how many such vectors accumulate side by side in long rows.
ROW_LANES = 16
ROW_UNROLL = 4
#: Vectors of results that a REDUCE accumulates side by side.
COLUMN_VECTORS = 4

#: A row of numbers that waits on the stack may be so large.
STACK_ROW_BYTES = 1 << 14

COMBINE = {"sum": "add", "prod": "mul", "max": "max", "min": "min", "and": "and", "or": "or"}


def identity(fn: str, dtype: DType) -> float | int:
    """The value that ``fn`` leaves every other value alone with."""
    if fn in ("max", "min"):
        if dtype.is_float:
            return -math.inf if fn == "max" else math.inf
        if dtype.is_int:
            info = np.iinfo(dtype.numpy)
            return int(info.min if fn == "max" else info.max)
        return 0 if fn == "max" else 1
    return {"sum": 0, "prod": 1, "and": 1, "or": 0}[fn]


def _axes_part(view: View, axes: Sequence[int]) -> View:
    return replace(
        view,
        shape=tuple(view.shape[a] for a in axes),
        strides=tuple(view.strides[a] for a in axes),
    )


def _axes_shape(node: Node, axes: Sequence[int]) -> tuple[int, ...]:
    return tuple(node.shape[axis] for axis in axes)


def _joined(kept: View, reduced: View) -> View:
    return replace(kept, shape=kept.shape + reduced.shape, strides=kept.strides + reduced.strides)


@dataclass(frozen=True)
class Reduction:
    """A REDUCE group taken apart. Views of ``full`` have the kept axes of the result, then those of
    the ``terms`` of each result; ``kept`` are read after the sum, and lie like ``out``."""

    group: Group
    full: Mapping[Node, View]
    kept: Mapping[Node, View]
    out: View
    terms: tuple[int, ...]

    @classmethod
    def of(cls, context: Context, group: Group) -> Reduction:
        """The parts of ``group``."""
        op = group.anchor.op
        assert isinstance(op, ops.Reduce)
        source = group.anchor.inputs[0]
        kept_axes = [axis for axis in range(source.type.rank) if axis not in op.axes]
        before, after = _around_anchor(group)
        full_nodes = context.operands((*before, group.anchor), group.nodes)
        kept_nodes = context.operands(after, group.nodes)
        full = [context.view(node) for node in full_nodes]
        kept = [context.view(node) for node in kept_nodes]
        result = context.view(group.result)
        out, *parts = collapse([result, *kept, *(_axes_part(view, kept_axes) for view in full)])
        kept, parts = parts[: len(kept)], parts[len(kept) :]
        reduced = collapse([_axes_part(view, op.axes) for view in full]) if full else []
        full = [_joined(a, b) for a, b in zip(parts, reduced, strict=True)]
        terms = reduced[0].shape if reduced else _axes_shape(source, op.axes)
        full_views = dict(zip(full_nodes, full, strict=True))
        return cls(group, full_views, dict(zip(kept_nodes, kept, strict=True)), out, terms)

    @property
    def fn(self) -> str:
        """What joins two terms."""
        op = self.group.anchor.op
        assert isinstance(op, ops.Reduce)
        return COMBINE[op.fn]

    @property
    def dtype(self) -> DType:
        """The type of the sums."""
        return self.group.anchor.type.dtype

    @property
    def first(self) -> Lit:
        """The value that no term changes."""
        op = self.group.anchor.op
        assert isinstance(op, ops.Reduce)
        return Lit(identity(op.fn, self.dtype), self.dtype)

    def term(self, sources: Mapping[Node, Access], at: tuple[Expr, ...]) -> Expr:
        """One term; ``at`` is a position on the kept axes, then on those of the terms."""
        before, _ = _around_anchor(self.group)
        loads: dict[Node, Expr] = {
            node: widened(source.load(at), node.type.dtype.machine)
            for node, source in sources.items()
        }
        return operand_value(self.group.anchor.inputs[0], evaluate_nodes(before, loads))

    def finished(
        self, total: Expr, leaves: Mapping[Node, Access], at: tuple[Expr, ...]
    ) -> Expr:
        """The result of one sum at the position ``at``."""
        values = {self.group.anchor: total}
        values |= {node: leaf.load(at) for node, leaf in leaves.items()}
        _, after = _around_anchor(self.group)
        return evaluate_nodes(after, values)[self.group.result]


def _around_anchor(group: Group) -> tuple[tuple[Node, ...], tuple[Node, ...]]:
    """The nodes before the anchor and after it."""
    at = group.nodes.index(group.anchor)
    return group.nodes[:at], group.nodes[at + 1 :]


def lower_reduce(context: Context, group: Group) -> None:
    """Emits the kernel of a REDUCE group."""
    parts = Reduction.of(context, group)
    out, dtype = parts.out, parts.dtype
    scope = KernelScope()
    scope.reserve(out, *parts.kept.values(), *parts.full.values())
    sources = {node: scope.access(view) for node, view in parts.full.items()}
    leaves = {node: scope.access(view) for node, view in parts.kept.items()}
    target = scope.access(out, write=True)
    lanes = context.lanes_for(dtype, out.dtype, *(view.dtype for view in parts.full.values()))

    def tile(at: tuple[Expr, ...], start: Expr, active: int, width: int) -> list[Stmt]:
        """``active`` neighbouring results in vectors of ``width`` lanes."""
        acc = Buffer("acc", dtype, -(-active // width) * width, Space.REGISTER)

        def each(body: Callable[[Expr], Stmt]) -> list[Stmt]:
            def part(begin: int) -> Stmt:
                live = min(width, active - begin)
                return vector("v", live, width, lambda v: [body(index.add(index.lit(begin), v))])

            return [part(begin) for begin in range(0, active, width)]

        def step(r: tuple[Expr, ...]) -> list[Stmt]:
            def add(v: Expr) -> Stmt:
                value = parts.term(sources, (*at, index.add(start, v), *r))
                return Store(acc, v, Bin(parts.fn, Load(acc, v), value))

            return each(add)

        def finish(v: Expr) -> Stmt:
            position = (*at, index.add(start, v))
            return target.store(position, parts.finished(Load(acc, v), leaves, position))

        clear = each(lambda v: Store(acc, v, parts.first))
        return [Alloc(acc, (*clear, *_nest(parts.terms, step), *each(finish)))]

    def outer(at: tuple[Expr, ...], dims: Sequence[int]) -> list[Stmt]:
        if dims:
            return loop(f"d{len(at)}", dims[0], lambda i: outer((*at, i), dims[1:]))
        block = lanes * COLUMN_VECTORS
        blocks, rest = divmod(out.shape[-1], block)
        stmts: list[Stmt] = []
        if blocks:
            stmts += loop("n", blocks, lambda n: tile(at, index.mul(n, block), block, lanes))
        if rest:
            stmts += tile(at, index.lit(blocks * block), rest, rest_lanes(rest, lanes))
        return stmts

    context.emit(scope.call(group.label, outer((), out.shape[:-1]), independent=True))


def _nest(
    dims: Sequence[int], body: Callable[[tuple[Expr, ...]], list[Stmt]], at: tuple[Expr, ...] = ()
) -> list[Stmt]:
    """Serial loops over ``dims``."""
    if len(at) == len(dims):
        return body(at)
    return loop(f"r{len(at)}", dims[len(at)], lambda i: _nest(dims, body, (*at, i)))


def virtual_lanes(length: int) -> tuple[int, int]:
    """How a row of ``length`` elements is added up: in vectors of so many virtual lanes, and in so
    many lanes altogether, which a tree then joins."""
    lanes = rest_lanes(length, ROW_LANES)
    unroll = ROW_UNROLL if length >= 2 * ROW_LANES * ROW_UNROLL else 1
    return lanes, lanes * unroll


def lower_rows(context: Context, group: Group) -> None:
    """Emits the kernel of a ROWS group."""
    RowWriter(context, group).emit()


def row_length(group: Group) -> int:
    """How many elements a row of a ROWS group has."""
    op, full = group.anchor.op, group.anchor.inputs[0].shape
    assert isinstance(op, ops.Reduce)
    return math.prod(full[len(full) - len(op.axes) :])


class RowWriter:
    """Writes a row kernel: one pass over the row for each Reduce, and one for a result that is
    a full row."""

    def __init__(self, context: Context, group: Group) -> None:
        op = group.anchor.op
        assert isinstance(op, ops.Reduce)
        self.context = context
        self.group = group
        self.full = group.anchor.inputs[0].shape
        self.kept_rank = len(self.full) - len(op.axes)
        self.length = row_length(group)
        self.scope = KernelScope(aligned=context.target.is_gpu)
        leaf_nodes = context.operands(group.nodes, group.nodes)
        views = [self._leaf_view(node) for node in leaf_nodes]
        out = self._flat(context.view(group.result), group.result)
        self.beside: View | None = None
        if out is None:  # the result's home is no even row: compute beside it, then copy
            self.beside = context.temporary(group.result.type.dtype, group.result.shape, "rows")
            out = self._flat(self.beside, group.result)
            assert out is not None
        rows = collapse([_axes_part(v, range(len(v.shape) - 1)) for v in (out, *views)])
        out, *views = [
            replace(v, shape=(*r.shape, v.shape[-1]), strides=(*r.strides, v.strides[-1]))
            for v, r in zip((out, *views), rows, strict=True)
        ]
        self.outer = rows[0].shape
        self.scope.reserve(out, *views)
        self.leaves = {
            node: self.scope.access(view) for node, view in zip(leaf_nodes, views, strict=True)
        }
        self.result = self.scope.access(out, write=True)
        self.saved = self._node_to_save()
        self.beside_row = self._row_of_its_own()
        self.available: set[Node | None] = set()
        self.scalars: dict[Node, Buffer] = {}
        # Only the last pass writes, each element after its last read, unless a row is saved early.
        self.reusable = [
            v
            for v in views
            if v.lies_like(out)
            and context.view(group.result).covers_storage
            and self.is_full(group.result)
            and (self.saved is None or self.beside_row is not None)
        ]

    def is_full(self, node: Node) -> bool:
        """Whether the node has a value for each element of the row, not one for each row."""
        return node.shape == self.full and node is not self.group.anchor

    def _leaf_view(self, node: Node) -> View:
        view = self._flat(self.context.view(node), node)
        if view is None:
            source = self.context.view(node)
            packed = self.context.temporary(source.dtype, source.shape, "rows", source.value)
            self.context.copy(source, packed)
            view = self._flat(packed, node)
            assert view is not None
        return view

    def _flat(self, view: View, node: Node) -> View | None:
        """The view as [*kept axes, row]; one value per row has a row axis of size 1."""
        kept = self.full[: self.kept_rank]
        return view.reshape((*kept, self.length) if self.is_full(node) else (*kept, 1))

    def _passes(self) -> list[Node]:
        """The nodes that need a pass over the row, in order."""
        found = [node for node in self.group.nodes if isinstance(node.op, ops.Reduce)]
        return [*found, self.group.result] if self.is_full(self.group.result) else found

    def _needs(self, node: Node) -> set[Node]:
        """The full-row nodes of the group that a pass for ``node`` computes element by element."""
        inside = set(self.group.nodes)
        found: set[Node] = set()
        work = [node.inputs[0]] if isinstance(node.op, ops.Reduce) else [node]
        while work:
            at = work.pop()
            if at in inside and at not in found and self.is_full(at):
                found.add(at)
                work.extend(at.inputs)
        return found

    def _node_to_save(self) -> Node | None:
        """The last expensive full-row node that more than one pass needs: its row waits in the
        result, which the last pass overwrites element by element, or on the stack."""
        needs = [self._needs(node) for node in self._passes()]
        repeated = [
            node
            for node in self.group.nodes
            if getattr(node.op, "fn", "") in ops.TRANSCENDENTAL
            and isinstance(node.op, POINTWISE_OPS)
            and sum(node in need for need in needs) > 1
            and (self._fits_result(node) or self._fits_stack(node))
        ]
        return repeated[-1] if repeated and self.is_full(self.group.result) else None

    def _fits_result(self, node: Node) -> bool:
        return node.type.dtype is self.result.buffer.dtype

    def _fits_stack(self, node: Node) -> bool:
        """Whether there is a stack that has room for a row of ``node``."""
        bytes_ = self.length * node.type.dtype.size_bytes
        has_stack = not (self.context.target.is_bare_metal or self.context.target.is_gpu)
        return has_stack and bytes_ <= STACK_ROW_BYTES

    def _row_of_its_own(self) -> Buffer | None:
        """Where the saved row waits, if that is not the result."""
        if self.saved is None or self._fits_result(self.saved):
            return None
        return Buffer("row", self.saved.type.dtype, self.length, Space.STACK)

    def _waits(self, node: Node) -> bool:
        """Whether the row of ``node`` is kept when it has been computed."""
        return node is self.saved

    def _save(self, at: tuple[Expr, ...], i: Expr, node: Node, value: Expr) -> Stmt:
        """Keeps element ``i`` of ``node``."""
        if self.beside_row is None:
            return self.result.store((*at, i), value)
        return Store(self.beside_row, i, value)

    def _load_saved(self, at: tuple[Expr, ...], i: Expr, node: Node) -> Expr:
        """Element ``i`` of ``node``, which was kept."""
        if self.beside_row is None:
            return self.result.load((*at, i))
        return Load(self.beside_row, i)

    def emit(self) -> None:
        """Emits the call, and a copy when the result's home is scattered."""
        body = self._rows((), self.outer)
        self.context.emit(self.scope.call(self.group.label, body, self.reusable, independent=True))
        if self.beside is not None:
            self.context.copy(self.beside, self.context.view(self.group.result))

    def _rows(self, at: tuple[Expr, ...], dims: Sequence[int]) -> list[Stmt]:
        if dims:
            return loop(f"d{len(at)}", dims[0], lambda i: self._rows((*at, i), dims[1:]))
        return self._row(at)

    def _row(self, at: tuple[Expr, ...]) -> list[Stmt]:
        """All passes over one row. One-value-per-row nodes live in registers of one element."""
        self.available = set()
        self.scalars = {
            node: Buffer(f"s{i}", node.type.dtype, 1, Space.REGISTER)
            for i, node in enumerate(self.group.nodes)
            if not self.is_full(node)
        }
        stmts: list[Stmt] = []
        for node in self.group.nodes:
            if isinstance(node.op, ops.Reduce):
                stmts += self._reduction(at, node)
            elif not self.is_full(node):
                stmts.append(Store(self.scalars[node], index.lit(0), self._scalar(at, node)))
        if self.is_full(self.group.result):
            stmts += self._final(at)
        else:
            stmts += self._store_scalar(at)
        for buffer in self.scalars.values():
            stmts = [Alloc(buffer, tuple(stmts))]
        return stmts if self.beside_row is None else [Alloc(self.beside_row, tuple(stmts))]

    def _store_scalar(self, at: tuple[Expr, ...]) -> list[Stmt]:
        """Stores a result of one value per row."""
        value = Load(self.scalars[self.group.result], index.lit(0))
        return [self.result.store((*at, index.lit(0)), value)]

    def _scalar(self, at: tuple[Expr, ...], node: Node) -> Expr:
        """The value of a one-per-row node other than a Reduce."""
        values = {x: self._per_row(at, x) for x in node.inputs if self._has_value(x)}
        if isinstance(node.op, (ops.Reshape, ops.Broadcast)):
            return values[node.inputs[0]]
        return expression(node, values)

    def _has_value(self, node: Node) -> bool:
        return node in self.scalars or node in self.leaves

    def _per_row(self, at: tuple[Expr, ...], node: Node) -> Expr:
        if node in self.scalars:
            return Load(self.scalars[node], index.lit(0))
        return self.leaves[node].load((*at, index.lit(0)))

    def _element(self, at: tuple[Expr, ...], root: Node, i: Expr) -> tuple[list[Stmt], Expr]:
        """The value of ``root`` at element ``i`` of the row, and stores of what later
        passes reuse."""
        inside = set(self.group.nodes)
        values: dict[Node, Expr] = {}
        stores: list[Stmt] = []

        def value(node: Node) -> Expr | None:
            if node in values:
                return values[node]
            if node in self.available:
                values[node] = self._load_saved(at, i, node)
            elif node in self.scalars:
                values[node] = self._per_row(at, node)
            elif node in self.leaves:
                position = i if self.is_full(node) else index.lit(0)
                loaded = self.leaves[node].load((*at, position))
                values[node] = widened(loaded, node.type.dtype.machine)
            elif node in inside:
                for operand in node.inputs:
                    value(operand)
                if isinstance(node.op, ops.Broadcast):
                    values[node] = values[node.inputs[0]]
                else:
                    values[node] = expression(node, values)
            else:
                return None  # a scalar constant: `expression` finds it by itself
            if self._waits(node) and node not in self.available:
                stores.append(self._save(at, i, node, values[node]))
                values[node] = self._load_saved(at, i, node)
            return values[node]

        found = value(root)
        return stores, operand_value(root, {}) if found is None else found

    def _reduction(self, at: tuple[Expr, ...], node: Node) -> list[Stmt]:
        """One pass: the row of the operand in virtual lanes, then the tree, into the
        node's register."""
        op = node.op
        assert isinstance(op, ops.Reduce)
        dtype = node.type.dtype
        combine = COMBINE[op.fn]
        lanes, width = virtual_lanes(self.length)
        acc = Buffer("acc", dtype, width, Space.REGISTER)
        first = Lit(identity(op.fn, dtype), dtype)

        def add(start: Expr, cell: int) -> Callable[[Expr], Sequence[Stmt]]:
            def body(v: Expr) -> Sequence[Stmt]:
                stores, x = self._element(at, node.inputs[0], index.add(start, v))
                slot = index.add(index.lit(cell), v)
                return [*stores, Store(acc, slot, Bin(combine, Load(acc, slot), x))]

            return body

        def clear(begin: int) -> Stmt:
            return vector(
                "v", lanes, lanes, lambda v: [Store(acc, index.add(index.lit(begin), v), first)]
            )

        def join(half: int, begin: int, step: int) -> Stmt:
            return vector("v", step, step, lambda v: [self._join(acc, combine, half, begin, v)])

        stmts = [clear(begin) for begin in range(0, width, lanes)]
        chunks = self.length // width
        stmts += (
            loop(
                "i",
                chunks,
                lambda i: [
                    vector("v", lanes, lanes, add(index.add(index.mul(i, width), index.lit(u)), u))
                    for u in range(0, width, lanes)
                ],
            )
            if chunks
            else []
        )
        for begin in range(chunks * width, self.length, lanes):
            live = min(lanes, self.length - begin)
            cell = begin - chunks * width
            stmts.append(vector("v", live, lanes, add(index.lit(begin), cell)))
        half = width // 2
        while half:
            step = min(half, lanes)
            stmts += [join(half, begin, step) for begin in range(0, half, step)]
            half //= 2
        total = Load(acc, index.lit(0))
        stmts.append(Store(self.scalars[node], index.lit(0), total))
        self.available |= self._needs(node) & {self.saved}
        return [Alloc(acc, tuple(stmts))]

    @staticmethod
    def _join(acc: Buffer, combine: str, half: int, begin: int, v: Expr) -> Stmt:
        low = index.add(index.lit(begin), v)
        high = index.add(index.lit(begin + half), v)
        return Store(acc, low, Bin(combine, Load(acc, low), Load(acc, high)))

    def _final(self, at: tuple[Expr, ...]) -> list[Stmt]:
        """The pass that writes a full-row result."""

        def body(i: Expr) -> Sequence[Stmt]:
            stores, value = self._element(at, self.group.result, i)
            return [*stores, self.result.store((*at, i), value)]

        lanes = self.context.lanes_for(
            self.group.result.type.dtype, *(a.buffer.dtype for a in self.leaves.values())
        )
        return vector_sweep(self.length, lanes, 2, body)
