"""Panels of bytes made at run time: in goes the view of a right-hand side of int8, out comes packed
storage in the order in which a contraction reads it, as `contract.pack` makes it of constants."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace

from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import GROUP, Bin, Bits, Conv, Expr, Lit, Stmt
from aotc.lower.context import Context
from aotc.lower.contract_kernel import Bytes
from aotc.lower.scope import Access, KernelScope, loop, vector
from aotc.lower.views import View
from aotc.schedule.recipe import ContractRecipe, Segment


def pack_bytes(
    context: Context, rhs: View, batch: int, recipe: ContractRecipe, bytes_: Bytes
) -> View:
    """Emits the kernel that packs ``rhs`` [*batch, depth, channel] (int8) by ``recipe``; the packed
    storage [*batch][panel][group][lanes of the panel] of groups of four bytes. Lanes beyond the
    last channel hold anything."""
    return _Packer(context, rhs, batch, recipe, bytes_).emit()


class _Packer:
    """Writes one word of four bytes for each lane of each vector."""

    def __init__(
        self, context: Context, rhs: View, batch: int, recipe: ContractRecipe, bytes_: Bytes
    ) -> None:
        self.context, self.recipe, self.bytes = context, recipe, bytes_
        kept = [axis for axis in range(batch) if rhs.strides[axis] != 0]
        axes = [*kept, batch, batch + 1]
        rhs = replace(
            rhs,
            shape=tuple(rhs.shape[a] for a in axes),
            strides=tuple(rhs.strides[a] for a in axes),
        )
        self.dims = rhs.shape[:-2]
        self.channels = rhs.shape[-1]
        self.words = _words(rhs) if bytes_.whole == bytes_.groups else None
        cells = bytes_.groups * recipe.stored[-1].stop * recipe.lanes
        self.packed = context.temporary(DType.I32, (*self.dims, cells), "panels")
        self.source = self.words or rhs
        self.scope = KernelScope()
        self.scope.reserve(self.packed, self.source)
        self.target = self.scope.access(self.packed, write=True)
        self.data: Access = self.scope.access(self.source)

    def emit(self) -> View:
        body = self._batches((), self.dims)
        self.context.emit(self.scope.call("panels", body, independent=True))
        return replace(self.packed, dtype=DType.I8, shape=(math.prod(self.packed.shape) * GROUP,),
                       strides=(1,))

    def _batches(self, at: tuple[Expr, ...], dims: Sequence[int]) -> list[Stmt]:
        if dims:
            return loop(f"b{len(at)}", dims[0], lambda i: self._batches((*at, i), dims[1:]))
        stmts: list[Stmt] = []
        for panel in self.recipe.stored:
            stmts += loop("p", panel.count, functools.partial(self._panel, at, panel))
        return stmts

    def _panel(self, at: tuple[Expr, ...], panel: Segment, p: Expr) -> list[Stmt]:
        whole = loop("g", self.bytes.whole, lambda g: self._group(at, panel, p, g))
        if self.bytes.whole < self.bytes.groups:
            whole += self._group(at, panel, p, index.lit(self.bytes.whole))
        return whole

    def _group(self, at: tuple[Expr, ...], panel: Segment, p: Expr, g: Expr) -> list[Stmt]:
        lanes = self.recipe.lanes
        width = panel.size * lanes
        start = index.add(index.mul(p, width), index.lit(panel.start * lanes))
        row = index.add(index.mul(start, self.bytes.groups), index.mul(g, width))
        stmts: list[Stmt] = []
        for w in range(panel.size):
            first = index.lit(w * lanes)
            live = lanes
            if panel.count == 1:
                live = min(lanes, self.channels - (panel.start + w) * lanes)

            def lane(v: Expr, first: Expr = first) -> list[Stmt]:
                offset = index.add(first, v)
                word = self._word(at, g, index.add(start, offset))
                return [self.target.store((*at, index.add(row, offset)), word)]

            stmts.append(vector("v", live, lanes, lane))
        return stmts

    def _word(self, at: tuple[Expr, ...], g: Expr, channel: Expr) -> Expr:
        """The four bytes of group ``g`` of a channel, the first of them in the low bits."""
        if self.words:
            return self.data.load((*at, g, channel))
        covered = 0
        if isinstance(g, Lit) and g.value == self.bytes.whole < self.bytes.groups:
            covered = GROUP * self.bytes.groups - self.bytes.extent
        word: Expr = Lit(0, DType.I32)
        for t in range(covered, GROUP):
            depth = index.add(self.bytes.first(g), index.lit(t))
            byte = Conv(Bits(self.data.load((*at, depth, channel)), DType.U8), DType.I32)
            shifted = Bin("shl", byte, Lit(8 * t, DType.I32)) if t else byte
            word = Bin("or", word, shifted) if t > covered else shifted
        return word


def _words(view: View) -> View | None:
    """``view`` [..., depth, channel] with four neighbouring bytes of the depth as one element of
    int32, where they lie like that."""
    *outer, depth, channel = view.strides
    steps = (*outer, channel, view.offset, view.shape[-2])
    if depth != 1 or view.moves or any(step % GROUP for step in steps):
        return None
    return replace(
        view,
        dtype=DType.I32,
        shape=(*view.shape[:-2], view.shape[-2] // GROUP, view.shape[-1]),
        strides=tuple(s // GROUP for s in (*outer, GROUP, channel)),
        offset=view.offset // GROUP,
    )
