"""Contractions of bytes with lanes along the channels: canonical operands go in, a kernel call
comes out.

For machines that multiply a vector of bytes by one byte and widen the products to int16: as many
lanes as a vector has bytes of weights, two steps of the depth summed in int16, where two products
of int8 stay unless both weights are -128, and that sum added to the int32 sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import Bin, Conv, Expr, Lit, Stmt
from aotc.lower.contract_kernel import ContractWriter, Operands, Tile
from aotc.lower.scope import loop
from aotc.schedule.cpu import channel_panels
from aotc.schedule.recipe import ContractRecipe, split_evenly

#: Lanes of a vector of sums, which takes four registers of 128 bits, and pixels of a tile.
LANES = 16
PIXELS = 4
#: Pairs of steps that are laid out in line.
UNROLL = 4


def lanes_recipe(operands: Operands, compact: bool) -> ContractRecipe:
    """Tiles of a few pixels by one vector of channels, for all pixels one after the other."""
    rows, columns, channels = operands.result.shape[-3:]
    lanes = LANES
    while lanes > 1 and lanes // 2 >= channels:
        lanes //= 2
    most = 1 if compact else PIXELS
    return ContractRecipe(
        lanes,
        split_evenly(rows, max(1, most // columns)),
        split_evenly(columns, most),
        channel_panels(channels, lanes, 1),
        1 if compact else UNROLL,
        panel_outer=True,
    )


class LanesWriter(ContractWriter):
    """Writes the kernel of one contraction of int8 with packed int8 above -128."""

    def _depth(
        self,
        k: tuple[Expr, ...],
        dims: Sequence[int],
        step: Callable[[tuple[Expr, ...]], list[Stmt]],
        ahead: Callable[[Expr], list[Stmt]] | None,
    ) -> list[Stmt]:
        """The loops over the depth axes, the innermost in steps of two, the last perhaps of one."""
        if len(dims) > 1:
            return loop(
                f"k{len(k)}", dims[0], lambda i: self._depth((*k, i), dims[1:], step, ahead)
            )
        pairs, odd = divmod(dims[0], 2)
        stmts: list[Stmt] = []
        if pairs:
            stmts += self._unrolled(pairs, lambda i: step((*k, index.mul(i, 2))), None)
        if odd:
            stmts += step((*k, index.lit(dims[0] - 1)))
        return stmts

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
        *outer, first = k
        alone = isinstance(first, Lit) and first.value == self.depth[-1] - 1
        products: Expr | None = None
        for t in range(1 if alone else 2):
            place = (*outer, index.add(first, index.lit(t)))
            x, weight = self.lhs.load((*pixel, *place)), self._weight(at, tile, place, w, v)
            product = Bin("mul", Conv(weight, DType.I16), Conv(x, DType.I16))
            products = Bin("add", products, product) if products else product
        assert products is not None
        return Bin("add", total, Conv(products, self.dtype))
