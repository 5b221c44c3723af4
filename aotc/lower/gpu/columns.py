"""REDUCE groups on a GPU: sums over other than the innermost axes.

Threads lie along the innermost kept axis, so that loads are whole lines of memory. With
``--precision f32`` a thread adds all terms of a result in order, as a processor does; otherwise
threads of a block share the terms and meet in shared memory, and of long sums several blocks have a
part each, which a second kernel adds. gpu/column_threads.py says which thread takes which terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from aotc.fuse.groups import Group
from aotc.loop import index
from aotc.loop.ir import (
    Alloc,
    Barrier,
    Bin,
    Bind,
    Buffer,
    Cmp,
    Expr,
    For,
    Kind,
    Load,
    Sel,
    Space,
    Stmt,
    Store,
    Var,
)
from aotc.lower.context import Context
from aotc.lower.gpu.binding import bind, digits, held_below
from aotc.lower.gpu.column_threads import ColumnThreads, share_columns
from aotc.lower.gpu.vectors import widest_lanes
from aotc.lower.reduce import Reduction
from aotc.lower.scope import STORAGE_ALIGNMENT, KernelScope, overlapped, vector
from aotc.lower.views import View

#: Terms of a thread whose loads overlap: where threads have all of a sum, and where they share it.
WHOLE_IN_LINE, IN_LINE = 32, 8

Term = Callable[[tuple[Expr, ...], tuple[Expr, ...]], Expr]
"""A term, by the positions on the kept axes and on those of the terms."""
Finish = Callable[[tuple[Expr, ...], Expr], Stmt]
"""Stores the sum of all terms at a position on the kept axes."""


def lower_gpu_reduce(context: Context, group: Group) -> None:
    """Emits the kernel of a REDUCE group, or two."""
    parts = Reduction.of(context, group)
    # what is added in any order gives the same bytes
    ordered = context.target.precision == "f32" and parts.dtype.is_float
    widest = widest_lanes([_terms_first(parts, view) for view in parts.full.values()] + [
        parts.out, *parts.kept.values()
    ])
    count = math.prod(parts.out.shape)
    share = share_columns(count, math.prod(parts.terms), widest, ordered)
    if share.parts == 1:
        _emit_whole(context, parts, share)
        return
    partial = context.temporary(parts.dtype, (share.parts, *parts.out.shape), "parts")
    _emit_partial(context, parts, share, partial)
    joined = _joining(parts, partial)
    _emit_whole(context, joined, share_columns(count, share.parts, widest, ordered))


def _terms_first(parts: Reduction, view: View) -> View:
    """An operand with its axes of terms before the kept ones."""
    kept = len(parts.out.shape)
    return view.transpose((*range(kept, len(view.shape)), *range(kept)))


def _joining(parts: Reduction, partial: View) -> Reduction:
    """The sums of what is in ``partial``, with what follows the sum of ``parts``."""
    rank = len(partial.shape)
    group = parts.group
    at = group.nodes.index(group.anchor)
    alone = replace(group, nodes=group.nodes[at:])
    source = group.anchor.inputs[0]
    view = partial.transpose((*range(1, rank), 0))
    return replace(parts, group=alone, full={source: view}, terms=partial.shape[:1])


def _emit_whole(context: Context, parts: Reduction, share: ColumnThreads) -> None:
    """The kernel whose blocks add all terms of their results."""
    scope = KernelScope(aligned=True)
    scope.reserve(parts.out, *parts.kept.values(), *parts.full.values())
    sources = {node: scope.access(view) for node, view in parts.full.items()}
    leaves = {node: scope.access(view) for node, view in parts.kept.items()}
    target = scope.access(parts.out, write=True)

    def finish(at: tuple[Expr, ...], total: Expr) -> Stmt:
        return target.store(at, parts.finished(total, leaves, at))

    kernel = _Columns(parts, share, lambda at, r: parts.term(sources, (*at, *r)), finish)
    context.emit(scope.call(parts.group.label, kernel.nest()))


def _emit_partial(
    context: Context, parts: Reduction, share: ColumnThreads, partial: View
) -> None:
    """The kernel of which each block adds a part of the terms of its results."""
    scope = KernelScope(aligned=True)
    scope.reserve(partial, *parts.full.values())
    sources = {node: scope.access(view) for node, view in parts.full.items()}
    target = scope.access(partial, write=True)
    kernel = _Columns(
        parts,
        share,
        lambda at, r: parts.term(sources, (*at, *r)),
        lambda at, total: target.store((kernel.part, *at), total),
    )
    context.emit(scope.call(f"{parts.group.label}_parts", kernel.nest()))


class _Columns:
    """Writes one kernel."""

    def __init__(
        self, parts: Reduction, share: ColumnThreads, term: Term, finish: Finish
    ) -> None:
        self._reduction = parts
        self._share = share
        self._term = term
        self._finish = finish
        *outer, inner = parts.out.shape
        self._dims = (*outer, inner // share.lanes)
        self.part: Expr = index.lit(0)
        self._down: Expr = index.lit(0)
        self._across: Expr = index.lit(0)

    def nest(self) -> list[Stmt]:
        """The blocks and threads."""
        share, parts = self._share, self._reduction
        part, block, down, across = Var("part"), Var("block"), Var("down"), Var("across")
        self._down, self._across = down, across
        if share.parts > 1:
            self.part = part
        vectors = math.prod(self._dims)
        number = index.add(index.mul(block, share.across), across)
        acc = Buffer("acc", parts.dtype, share.lanes, Space.REGISTER)

        def here(body: Callable[[tuple[Expr, ...]], list[Stmt]]) -> list[Stmt]:
            """``body`` of the first result of this thread."""

            def at(position: tuple[Expr, ...]) -> list[Stmt]:
                *outer, last = position
                return body((*outer, index.mul(last, share.lanes)))

            return bind("item", number, vectors, lambda x: digits("d", x, self._dims, at))

        body = self._lanes(lambda v: Store(acc, v, parts.first))
        body += here(lambda at: self._add(acc, at))
        shared = None
        if share.down > 1:
            elems = share.down * share.across * share.lanes
            shared = Buffer("sums", parts.dtype, elems, Space.SHARED, STORAGE_ALIGNMENT)
            body += self._meet(acc, shared)

        def store(at: tuple[Expr, ...]) -> list[Stmt]:
            return self._lanes(lambda v: self._finish(_beside(at, v), Load(acc, v)))

        last = here(store)
        body += [Bind(Var("top"), down, 1, tuple(last))] if share.down > 1 else last
        inner = For(across, share.across, (Alloc(acc, tuple(body)),), Kind.THREAD)
        threads: Stmt = For(down, share.down, (inner,), Kind.THREAD)
        if shared is not None:
            threads = Alloc(shared, (threads,))
        blocks = For(block, -(-vectors // share.across), (threads,), Kind.BLOCK)
        return [For(part, share.parts, (blocks,), Kind.BLOCK)] if share.parts > 1 else [blocks]

    def _lanes(self, body: Callable[[Expr], Stmt]) -> list[Stmt]:
        lanes = self._share.lanes
        return [vector("v", lanes, lanes, lambda v: [body(v)])]

    def _add(self, acc: Buffer, at: tuple[Expr, ...]) -> list[Stmt]:
        """Adds the terms of this thread."""
        share, parts = self._share, self._reduction
        first = index.add(index.mul(self.part, share.share), self._down)

        def one(i: Expr) -> list[Stmt]:
            number = index.add(first, index.mul(i, share.down))
            # a load at the last term rather than a branch, so that loads overlap
            inside = None if share.is_even else Cmp("lt", number, index.lit(share.terms))
            place = number if inside is None else held_below(number, share.terms)

            def add(r: tuple[Expr, ...]) -> list[Stmt]:
                def lane(v: Expr) -> Stmt:
                    term = self._term(_beside(at, v), r)
                    if inside is not None:
                        term = Sel(inside, term, parts.first)
                    return Store(acc, v, Bin(parts.fn, Load(acc, v), term))

                return self._lanes(lane)

            if len(parts.terms) == 1:
                return add((place,))
            return bind("term", place, share.terms, lambda x: digits("r", x, parts.terms, add))

        alone = share.down * share.parts == 1
        return overlapped(share.rounds, WHOLE_IN_LINE if alone else IN_LINE, one)

    def _meet(self, acc: Buffer, shared: Buffer) -> list[Stmt]:
        """Adds up the sums of the threads that share results, half by half, to ``acc`` of the
        first."""
        share = self._share
        row = share.across * share.lanes

        def cell(down: Expr, v: Expr) -> Expr:
            column = index.add(index.mul(self._across, share.lanes), v)
            return index.add(index.mul(down, row), column)

        stmts = self._lanes(lambda v: Store(shared, cell(self._down, v), Load(acc, v)))
        half = share.down // 2
        while half:

            def join(upper: Expr, half: int = half) -> list[Stmt]:
                def lane(v: Expr) -> list[Stmt]:
                    other = Load(shared, cell(index.add(upper, half), v))
                    total = Bin(self._reduction.fn, Load(acc, v), other)
                    return [Store(acc, v, total), Store(shared, cell(upper, v), Load(acc, v))]

                return [vector("v", share.lanes, share.lanes, lane)]

            stmts += [Barrier(), *bind("upper", self._down, half, join)]
            half //= 2
        return stmts


def _beside(at: tuple[Expr, ...], v: Expr) -> tuple[Expr, ...]:
    """The position ``v`` elements behind ``at``."""
    return (*at[:-1], index.add(at[-1], v))
