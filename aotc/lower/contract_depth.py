"""Contractions of bytes with lanes along the depth: canonical operands go in, a kernel call comes
out.

For machines that add the products of sixteen neighbouring bytes to a general register. A tile is
one pixel by as many channels as a vector of sums has lanes: each sixteen bytes of the pixel are
loaded once for all of them, each channel has a sum of its own, and the sums meet in a vector for
what follows the product. Weights are packed in the order in which they are read. Where the rows of
a pixel's window are short, they are brought together in scratch memory first, once for all
channels.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from aotc.fuse.groups import Group
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import (
    VECTOR_TERMS,
    Alloc,
    Buffer,
    DotProduct,
    Expr,
    Kind,
    Lit,
    Load,
    Space,
    Stmt,
    Store,
)
from aotc.loop.program import Call
from aotc.lower.context import Context
from aotc.lower.contract_kernel import ContractWriter, Operands, Tile
from aotc.lower.packed import constant_array, in_panels
from aotc.lower.scope import loop, rest_lanes, vector
from aotc.lower.views import View
from aotc.schedule.recipe import ContractRecipe, Segment, split_evenly

RowBody = Callable[[tuple[Expr, ...], Expr], list[Stmt]]

#: A smaller depth is left to lanes along the channels.
LEAST_DEPTH = 4
#: Steps of sixteen bytes that are laid out in line. Their weights stay on the stack where they are
#: the same for all pixels, 64 bytes for each step.
UNROLL = 12
#: Bytes of the arena that the window of one pixel may take.
MOST_GATHERED = 1024


@dataclass(frozen=True)
class Steps:
    """How a depth of ``outer`` by ``extent`` bytes is taken sixteen at a time. ``gathered``: all of
    it lies together, with zeros after it; else each row of ``extent`` bytes by itself, of which the
    last step begins early, or is short."""

    outer: tuple[int, ...]
    extent: int
    gathered: bool

    def __str__(self) -> str:
        shape = "x".join(map(str, (*self.outer, self.extent)))
        return f"{shape} by {VECTOR_TERMS}{' gathered' if self.gathered else ''}"

    @property
    def rows(self) -> int:
        return math.prod(self.outer)

    @property
    def whole(self) -> int:
        """Steps in a row that begin where the one before ends."""
        return self.extent // VECTOR_TERMS

    @property
    def each(self) -> int:
        """Steps in a row."""
        return -(-self.extent // VECTOR_TERMS)

    @property
    def count(self) -> int:
        """Steps of a whole sum."""
        if self.gathered:
            return -(-self.rows * self.extent // VECTOR_TERMS)
        return self.rows * self.each

    def spread(self, weights: np.ndarray) -> np.ndarray:
        """Weights [n, rows, extent, channels] as [n, count, channels, 16], zero where a step has
        nothing of its own."""
        n, rows, extent, channels = weights.shape
        if self.gathered:
            rows, extent = 1, rows * extent
            weights = weights.reshape(n, 1, extent, channels)
        steps = -(-extent // VECTOR_TERMS)
        spread = np.zeros((n, rows, steps * VECTOR_TERMS, channels), np.int8)
        covered = self.whole * VECTOR_TERMS
        early = not self.gathered and 0 < covered < extent
        if early:  # the end of the last step is the end of the row
            spread[:, :, :covered] = weights[:, :, :covered]
            spread[:, :, covered - extent :] = weights[:, :, covered:]
        else:
            spread[:, :, :extent] = weights
        spread = spread.reshape(n, rows * steps, VECTOR_TERMS, channels)
        return spread.transpose(0, 1, 3, 2)


def steps_of(operands: Operands) -> Steps | None:
    """How to go through the depth of a contraction of int8 with constant weights that fit int8;
    None where lanes along the depth do not pay."""
    *outer, extent = operands.lhs.shape[operands.batch + 2 :]
    if operands.lhs.dtype is not DType.I8 or not operands.rhs.is_constant:
        return None
    if operands.lhs.strides[-1] != 1 or math.prod(outer) * extent < LEAST_DEPTH:
        return None
    alone = Steps(tuple(outer), extent, gathered=False)
    together = replace(alone, gathered=True)
    if alone.rows == 1 or together.count * VECTOR_TERMS > MOST_GATHERED:
        return alone
    # a step of four channels is nine instructions, and moving sixteen bytes two or three
    saved = (alone.count - together.count) * operands.result.shape[-1] * 9 // 4
    return together if saved > 3 * alone.count + 6 else alone


def depth_recipe(operands: Operands, lanes: int) -> ContractRecipe:
    """Tiles of one pixel by one vector of channels, for all pixels one after the other."""
    rows, columns, channels = operands.result.shape[-3:]
    while lanes > 1 and lanes // 2 >= channels:
        lanes //= 2
    whole, rest = divmod(channels, lanes)
    panels = [Segment(0, whole, 1)] * bool(whole) + [Segment(whole, 1, 1)] * bool(rest)
    one = (split_evenly(rows, 1), split_evenly(columns, 1))
    return ContractRecipe(lanes, *one, tuple(panels), UNROLL, panel_outer=True)


def pack_steps(operands: Operands, recipe: ContractRecipe, steps: Steps) -> np.ndarray:
    """Constant weights as [*batch][panel][step][channel of the panel][16], int8."""
    rhs, batch = operands.rhs, operands.batch
    kept = tuple(
        1 if stride == 0 else dim
        for dim, stride in zip(rhs.shape[:batch], rhs.strides[:batch], strict=True)
    )
    values = constant_array(replace(rhs, shape=kept + rhs.shape[batch:]))
    values = values.reshape(-1, steps.rows, steps.extent, rhs.shape[-1])
    return in_panels(steps.spread(values), recipe)


class DepthWriter(ContractWriter):
    """Writes the kernel of one contraction with lanes along the depth."""

    def __init__(
        self,
        context: Context,
        group: Group,
        epilogue: tuple[Node, ...],
        leaf_nodes: Sequence[Node],
        operands: Operands,
        steps: Steps,
    ) -> None:
        recipe = depth_recipe(
            operands, context.lanes_for(group.anchor.type.dtype, operands.result.dtype)
        )
        if context.target.compact:
            recipe = replace(recipe, depth_unroll=1)
        packed: View = context.constant(pack_steps(operands, recipe, steps), "packed")
        super().__init__(group, epilogue, leaf_nodes, operands, recipe, packed)
        self.steps = steps
        self.patch: Buffer | None = None
        if steps.gathered:
            scratch = context.temporary(DType.I8, (steps.count * VECTOR_TERMS,), "patch")
            self.scope.reserve(scratch)
            self.patch = self.scope.access(scratch, write=True).buffer

    def call(self, recipe: str) -> Call:
        body, reusable = self.body(), self._reusable()
        if self.patch is None:
            return self.scope.call(self.group.label, body, reusable, recipe, True)
        # not independent: all pixels use the same scratch memory
        body = [*self._clear(self.patch), *body]
        return self.scope.call(self.group.label, body, reusable, recipe)

    def _clear(self, patch: Buffer) -> list[Stmt]:
        """What comes after the window in its last step is known."""
        first, zero = index.lit(patch.elems - VECTOR_TERMS), Lit(0, DType.I8)

        def lane(v: Expr) -> list[Stmt]:
            return [Store(patch, index.add(first, v), zero)]

        return [vector("v", VECTOR_TERMS, VECTOR_TERMS, lane)]

    def _batches(self, at: tuple[Expr, ...], dims: Sequence[int]) -> list[Stmt]:
        if dims:
            return loop(f"b{len(at)}", dims[0], lambda i: self._batches((*at, i), dims[1:]))
        panels = self.recipe.panels
        patch = self.patch
        if patch is None:
            return self._over_panels(panels, functools.partial(self._whole_panel, at))

        def pixel(row: Segment, column: Segment, r0: Expr, c0: Expr) -> list[Stmt]:
            tile = self._tile_at(at, row, column, r0, c0)
            gathered = self._gather(patch, (*at, r0, c0))
            if panels[-1].stop * self.steps.count > self.recipe.depth_unroll:
                return [*gathered, *self._over_panels(panels, tile)]
            each = [(panel, index.lit(p)) for panel in panels for p in range(panel.count)]
            return [*gathered, *(stmt for panel, p in each for stmt in tile(panel, p))]

        return self._pixels(pixel)

    def _gather(self, patch: Buffer, pixel: tuple[Expr, ...]) -> list[Stmt]:
        """Brings the rows of the pixel's window together. What a whole vector takes beyond the end
        of a row, the next row overwrites, or only zeros meet."""
        steps, lanes = self.steps, VECTOR_TERMS

        def part(k: tuple[Expr, ...], row: Expr, first: Expr, active: int) -> Stmt:
            start = index.add(index.mul(row, steps.extent), first)

            def lane(v: Expr) -> list[Stmt]:
                value = self.lhs.load((*pixel, *k, index.add(first, v)))
                return [Store(patch, index.add(start, v), value)]

            taken = rest_lanes(active, lanes)
            inside = self._is_inside(patch, (*k, index.add(first, index.lit(taken - 1))))
            return vector("v", taken if inside else active, taken, lane)

        def row(k: tuple[Expr, ...], number: Expr) -> list[Stmt]:
            found: list[Stmt] = []
            if steps.whole:
                found += loop(
                    "m", steps.whole, lambda m: [part(k, number, index.mul(m, lanes), lanes)]
                )
            rest = steps.extent % lanes
            if rest:
                found.append(part(k, number, index.lit(steps.whole * lanes), rest))
            return found

        return self._rows((), index.lit(0), steps.rows * steps.each, row)

    def _is_inside(self, patch: Buffer, k: tuple[Expr, ...]) -> bool:
        """Whether depth position ``k``, be it beyond the depth, lies within the left-hand side for
        every pixel, and its place in the patch within that."""
        steps, view = self.steps, self.operands.lhs
        at = [x.value for x in k if isinstance(x, Lit)]
        if len(at) < len(k) or min(view.strides) < 0:
            return False
        pixels = len(view.shape) - len(k)
        last = [*(extent - 1 for extent in view.shape[:pixels]), *at]
        reached = self.lhs.base + sum(map(operator.mul, last, view.strides))
        *rows, inner = at
        number = 0
        for row, extent in zip(rows, steps.outer, strict=True):
            number = number * extent + int(row)
        placed = number * steps.extent + inner
        return bool(reached < self.lhs.buffer.elems and placed < patch.elems)

    def _rows(
        self, k: tuple[Expr, ...], number: Expr, size: int, body: RowBody
    ) -> list[Stmt]:
        """``body`` for every row of a window, in line if that is no more than ``size`` steps."""
        outer = self.steps.outer
        if len(k) == len(outer):
            return body(k, number)
        extent = outer[len(k)]

        def inner(i: Expr) -> list[Stmt]:
            return self._rows((*k, i), index.add(index.mul(number, extent), i), size, body)

        if size <= self.recipe.depth_unroll:
            return [stmt for i in range(extent) for stmt in inner(index.lit(i))]
        return loop(f"k{len(k)}", extent, inner)

    def _tile(self, at: tuple[Expr, ...], tile: Tile) -> list[Stmt]:
        lanes, active = self.recipe.lanes, self._active(tile, 0)
        # the vector of sums, and after it each sum by itself
        acc = Buffer("acc", self.dtype, 2 * lanes, Space.REGISTER)
        zero = Lit(0, self.dtype)
        body: list[Stmt] = [Store(acc, index.lit(lanes + c), zero) for c in range(active)]
        body += self._sums(at, tile, acc, active)
        for c in range(lanes):
            total = Load(acc, index.lit(lanes + c)) if c < active else zero
            body.append(Store(acc, index.lit(c), total))
        if not self.two_phase:
            return [Alloc(acc, (*body, *self._finish(at, tile, acc, self.epilogue)))]
        body += self._finish(at, tile, acc, ())
        return [Alloc(acc, (*body, *self._finish(at, tile, None, self.epilogue)))]

    def _sums(
        self, at: tuple[Expr, ...], tile: Tile, acc: Buffer, active: int
    ) -> list[Stmt]:
        """All steps of all channels of a tile."""
        steps, lanes = self.steps, self.recipe.lanes
        pixel = (*at, tile.r0, tile.c0)
        panel = index.add(tile.p, index.lit(tile.panel.start))
        start = index.add(
            self._batch_offset(at, steps.count), index.mul(panel, steps.count * lanes)
        )

        def step(a: Buffer, first: Expr, number: Expr, terms: int) -> list[Stmt]:
            cell = index.add(start, index.mul(number, lanes))
            found: list[Stmt] = []
            for c in range(active):
                weights = index.mul(index.add(cell, index.lit(c)), VECTOR_TERMS)
                total = Load(acc, index.lit(lanes + c))
                value = DotProduct(a, first, self.rhs.buffer, weights, total, terms=terms)
                found.append(Store(acc, index.lit(lanes + c), value))
            return found

        patch = self.patch
        if patch is not None:
            return self._in_row(
                steps.count, lambda m: step(patch, index.mul(m, VECTOR_TERMS), m, VECTOR_TERMS)
            )

        def row(k: tuple[Expr, ...], number: Expr) -> list[Stmt]:
            before = index.mul(number, steps.each)

            def take(m: Expr, first: Expr, terms: int) -> list[Stmt]:
                data = self.lhs.index((*pixel, *k, first))
                return step(self.lhs.buffer, data, index.add(before, m), terms)

            found = self._in_row(
                steps.whole, lambda m: take(m, index.mul(m, VECTOR_TERMS), VECTOR_TERMS)
            )
            if steps.whole < steps.each:
                early = max(0, steps.extent - VECTOR_TERMS)
                terms = min(steps.extent, VECTOR_TERMS)
                found += take(index.lit(steps.whole), index.lit(early), terms)
            return found

        return self._rows((), index.lit(0), steps.count, row)

    def _in_row(self, count: int, step: Callable[[Expr], list[Stmt]]) -> list[Stmt]:
        """``step`` for every number below ``count``, some of them in line."""
        if not count:
            return []
        most = min(self.recipe.depth_unroll, count)
        unroll = max(n for n in range(1, most + 1) if count % n == 0)

        def chunk(i: Expr) -> list[Stmt]:
            first = index.mul(i, unroll)
            return loop("u", unroll, lambda u: step(index.add(first, u)), Kind.UNROLLED)

        return loop("k", count // unroll, chunk)
