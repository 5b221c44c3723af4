"""Products with weights that are stored in few bits: a `Widen` on the right-hand side of a
contraction goes in, packed codes and the kernel that expands them in registers come out.

Each weight becomes the float32 number that `Widen` says, ``(code - zero) * scale`` with a rounding
after each step, and then takes its turn as any other: the bytes of the result are those that
float32 weights of the same values give. Codes lie in the panels of the contraction kernel. Eight
numbers of four bits are a word: consecutive steps of the innermost depth axis, the first in the
lowest bits. Scales and zero points lie in panels of their own, in the shortest float that holds
them exactly.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import ml_dtypes
import numpy as np

from aotc.fuse.groups import VIEW_OPS, Group
from aotc.graph import ops
from aotc.graph.ir import Node
from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import Bin, Bits, Conv, Expr, Fma, Lit, Load, Stmt
from aotc.loop.program import Role, Storage
from aotc.lower.context import Context
from aotc.lower.contract_kernel import ContractWriter, Operands, Tile
from aotc.lower.packed import constant_array, in_panels
from aotc.lower.scope import loop
from aotc.schedule.recipe import ContractRecipe

#: What the elements of packed scales stand for.
_SCALES: Mapping[DType, DType] = MappingProxyType(
    {DType.U16: DType.BF16, DType.F16: DType.F16, DType.F32: DType.F32}
)
#: How far ahead weights are asked for that are read once.
AHEAD_BYTES = 16384
#: Numbers of four bits in a word.
NIBBLES = 8


@dataclass(frozen=True, eq=False)
class SmallWeights:
    """Codes [batch, outer depth, innermost depth, channel] and, for each block of the innermost
    axis, the scale and zero point (float32, or none): those of ``blocks`` blocks of ``block``
    codes, or with ``whole`` one for all of a channel."""

    stored: DType
    codes: np.ndarray
    parts: tuple[np.ndarray, ...]
    block: int
    whole: bool

    @property
    def group(self) -> int:
        """Codes that one element of the packed weights holds."""
        return NIBBLES if self.stored.size_bits == 4 else 1

    @property
    def cells(self) -> int:
        """Elements of packed weights along the innermost depth axis."""
        extent: int = self.codes.shape[2]
        return -(-extent // self.group)

    def matrix(self) -> np.ndarray:
        """The codes as [batch, depth in elements, channel, 1]."""
        batch, outer, extent, channels = self.codes.shape
        if self.group == 1:
            return self.codes.reshape(batch, outer * extent, channels, 1)
        padded = np.zeros((batch, outer, self.cells * NIBBLES, channels), np.uint8)
        padded[:, :, :extent] = self.codes.view(np.uint8) & 15
        apart = padded.reshape(batch, outer * self.cells, NIBBLES, channels)
        words = np.zeros((batch, outer * self.cells, channels), np.uint32)
        for t in range(NIBBLES):
            words |= apart[:, :, t].astype(np.uint32) << np.uint32(4 * t)
        return words.view(np.int32)[..., None]


def widening(node: Node) -> Node | None:
    """The `Widen` that ``node`` shows, through views; None if it is something else."""
    while isinstance(node.op, VIEW_OPS):
        node = node.inputs[0]
    return node if isinstance(node.op, ops.Widen) else None


def stored_type(node: Node | None) -> str:
    """What the weights of a `Widen` are stored as, for the sizes of its product."""
    return node.op.stored.value if node is not None and isinstance(node.op, ops.Widen) else ""


def small_weights(node: Node, operands: Operands) -> SmallWeights:
    """The weights of a contraction whose right-hand side is the `Widen` ``node``; ``operands.rhs``
    is the view of its codes."""
    op = node.op
    assert isinstance(op, ops.Widen)
    arrays = [x.data for x in node.inputs if x.data is not None]
    assert len(arrays) == len(node.inputs)
    codes = _canonical(arrays[0], operands)
    parts = tuple(_canonical(part, operands) for part in op.stretched(*arrays))
    stored = op.stored
    if not parts:
        return SmallWeights(stored, codes, (), codes.shape[2], True)
    if all((part == part[:, :1, :1]).all() for part in parts):
        return SmallWeights(
            stored, codes, tuple(p[:, :1, :1] for p in parts), codes.shape[2], True
        )
    block = _block(parts, op.block)
    if stored.size_bits == 4 and block % NIBBLES:
        stored = stored.machine
    return SmallWeights(stored, codes, tuple(p[:, :, ::block] for p in parts), block, False)


def _canonical(values: np.ndarray, operands: Operands) -> np.ndarray:
    """``values``, which lie like the codes that ``operands.rhs`` shows, as [batch, outer depth,
    innermost depth, channel]; batch axes along which they repeat have size 1."""
    flat = np.ascontiguousarray(values)
    storage = Storage("codes", Role.CONST, flat.nbytes, flat)
    rhs, batch = operands.rhs, operands.batch
    kept = tuple(
        1 if stride == 0 else dim
        for dim, stride in zip(rhs.shape[:batch], rhs.strides[:batch], strict=True)
    )
    shown = replace(
        rhs, storage=storage, dtype=DType.of(flat), shape=kept + rhs.shape[batch:]
    )
    inner = operands.lhs.shape[-1]
    return constant_array(shown).reshape(math.prod(kept), -1, inner, rhs.shape[-1])


def _block(parts: Sequence[np.ndarray], asked: int) -> int:
    """The most codes along the innermost axis for which ``parts`` are the same, of a few sizes."""
    extent = parts[0].shape[2]
    for block in (asked, 256, 128, 64, 32, 16, 8, 4, 2):
        first = np.arange(extent) // block * block
        if block <= extent and all((part == part[:, :, first]).all() for part in parts):
            return block
    return 1


def shortest(values: np.ndarray) -> np.ndarray:
    """float32 ``values`` as bfloat16 (its bits, as uint16) or float16, if that holds them."""
    with np.errstate(all="ignore"):
        for dtype in (ml_dtypes.bfloat16, np.float16):
            short = values.astype(dtype)
            if (short.astype(np.float32) == values).all():
                return short.view(np.uint16) if dtype is ml_dtypes.bfloat16 else short
    return values


def widened_number(x: Expr, stored: DType) -> Expr:
    """What ``x``, an element of packed weights of more than four bits, or of scales, stands for."""
    if stored is DType.BF16:
        return Bits(Bin("shl", Conv(x, DType.I32), Lit(16, DType.I32)), DType.F32)
    return Conv(x, DType.F32) if x.dtype is not DType.F32 else x


def widened_nibble(word: Expr, t: int, signed: bool) -> Expr:
    """Number ``t`` of the eight in ``word``."""
    if signed:
        high = Bin("shl", word, Lit(28 - 4 * t, DType.I32))
        return Conv(Bin("shr", high, Lit(28, DType.I32)), DType.F32)
    low = Bin("shr", word, Lit(4 * t, DType.I32))
    return Conv(Bin("and", low, Lit(15, DType.I32)), DType.F32)


class WideningWriter(ContractWriter):
    """Writes the kernel of a contraction with weights that it expands. A depth position has two
    more parts than elsewhere: (*outer, block, cell, number of the code in the cell)."""

    def __init__(
        self,
        context: Context,
        group: Group,
        epilogue: tuple[Node, ...],
        leaf_nodes: Sequence[Node],
        operands: Operands,
        recipe: ContractRecipe,
        small: SmallWeights,
    ) -> None:
        packed = context.constant(in_panels(small.matrix(), recipe), "packed")
        if small.group > 1:
            unroll = max(1, recipe.depth_unroll // small.group)
            recipe = replace(recipe, depth_unroll=unroll)
        super().__init__(group, epilogue, leaf_nodes, operands, recipe, packed)
        self.small = small
        self.extent = self.depth[-1]
        self.depth = (*self.depth[:-1], small.cells)
        self.parts = []
        for part in small.parts:
            short = shortest(part)
            flat = short.reshape(short.shape[0], -1, short.shape[-1], 1)
            view = context.constant(in_panels(flat, recipe), "scales")
            self.scope.reserve(view)
            self.parts.append(self.scope.access(view))

    def _weights_ahead(
        self, at: tuple[Expr, ...], tile: Tile
    ) -> Callable[[Expr], list[Stmt]] | None:
        """As elsewhere; weights that serve one tile only are asked for a stretch ahead of it: with
        so much arithmetic between loads a processor does not look far enough by itself (14
        matrices of four bits, 132 MB: 8 to 9 GB/s, 7 without)."""
        ahead = super()._weights_ahead(at, tile)
        if ahead is not None or not self.recipe.panel_outer:
            return ahead
        streams = [(self.rhs.buffer, self.depth)]
        if not self.small.whole:
            streams += [(part.buffer, self._blocks) for part in self.parts]
        hints = []
        for buffer, dims in streams:
            start = self._packed_start(dims, at, tile, (index.lit(0),) * len(dims))
            share = AHEAD_BYTES * math.prod(dims) // math.prod(self.depth)
            first = index.add(start, index.lit(share // self.rhs.buffer.dtype.size_bytes))
            elems = math.prod(dims) * tile.panel.size * self.recipe.lanes
            hints.append(self._hints(buffer, first, elems))
        return lambda chunk: [stmt for hint in hints for stmt in hint(chunk)]

    def _depth(
        self,
        k: tuple[Expr, ...],
        dims: Sequence[int],
        step: Callable[[tuple[Expr, ...]], list[Stmt]],
        ahead: Callable[[Expr], list[Stmt]] | None,
    ) -> list[Stmt]:
        if len(dims) > 1:
            return super()._depth(k, dims, step, ahead)
        group, cells = self.small.group, dims[0]
        each = self.small.block // group if not self.small.whole else cells
        full = self.extent // (each * group) if not self.small.whole else 0
        chunks = max(1, each // self.recipe.depth_unroll)
        before: Expr = index.lit(0)
        for position, extent in zip(k, self.depth, strict=False):
            before = index.add(index.mul(before, extent), position)

        def block(b: Expr, extent: int) -> list[Stmt]:
            """``extent`` codes from the beginning of block ``b``."""
            first = index.mul(b, each)
            done = index.add(index.mul(before, -(-cells // each) * chunks), index.mul(b, chunks))

            def cell(c: Expr, codes: int = group) -> list[Stmt]:
                at = (*k, b, index.add(first, c))
                return list(
                    itertools.chain.from_iterable(
                        step((*at, index.lit(t))) for t in range(codes)
                    )
                )

            hint = ahead and (lambda chunk: ahead(index.add(done, chunk)))
            stmts = self._unrolled(extent // group, cell, hint) if extent >= group else []
            rest = extent % group
            return [*stmts, *(cell(index.lit(extent // group), rest) if rest else [])]

        stmts = loop("b", full, lambda b: block(b, each * group)) if full else []
        rest = self.extent - full * each * group
        return [*stmts, *(block(index.lit(full), rest) if rest else [])]

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
        *outer, block, cell, t = k
        small = self.small
        a = self.lhs.load((*pixel, *outer, index.add(index.mul(cell, small.group), t)))
        code = self._weight(at, tile, (*outer, cell), w, v)
        if small.group > 1:
            assert isinstance(t, Lit)
            b = widened_nibble(code, int(t.value), small.stored.is_signed)
        else:
            b = widened_number(code, small.stored)
        if self.parts:
            b = self._scaled(b, at, tile, (*outer, block), w, v)
        return Fma(a, b, total)

    def _scaled(
        self, b: Expr, at: tuple[Expr, ...], tile: Tile, k: tuple[Expr, ...], w: int, v: Expr
    ) -> Expr:
        dims, k = ((1,), (index.lit(0),)) if self.small.whole else (self._blocks, k)
        place = self._packed_index(dims, at, tile, k, w, v)
        scale, *zero = (
            widened_number(Load(part.buffer, place), _SCALES[part.buffer.dtype])
            for part in self.parts
        )
        return Bin("mul", Bin("sub", b, zero[0]) if zero else b, scale)

    @property
    def _blocks(self) -> tuple[int, ...]:
        """The extents of the depth in blocks."""
        return (*self.depth[:-1], -(-self.extent // self.small.block))


