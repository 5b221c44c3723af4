"""The cost model of tile registers: the sizes of a contraction go in, ContractRecipes come out.

A block of m by n accumulators takes, for each step through the depth, m tiles of the left-hand side
and n of weights. In a recipe for tile registers a tile of pixels is such a block, a panel its n
vectors of 16 channels, and the depth unrolled is that of one step, in groups of four bytes. The
figures below are cycles measured on Sapphire Rapids.
"""

from __future__ import annotations

import heapq

from aotc.loop.ir import GROUP
from aotc.loop.tiles import TILE_REGISTERS, TILE_ROW_BYTES, TILE_ROWS
from aotc.schedule.cpu import Candidate, ContractSizes, channel_panels, rank_contracts
from aotc.schedule.recipe import ContractRecipe, Segment, split_evenly
from aotc.target import Target

#: int32 of one row.
TILE_LANES = TILE_ROW_BYTES // GROUP
#: A product takes a cycle for each row of its factors, but not fewer than this.
LEAST_PRODUCT = 9.5
#: Loads take this for each row, and at least so much.
LOAD_ROW, LEAST_LOAD = 0.75, 4.0
#: What loads beside products cost all the same.
CROWDING = 0.4
#: What a block costs beside its steps and results; what a row of 16 sums costs on its way to memory
#: and back, and in the epilogue of a quantised layer.
BLOCK_OVERHEAD = 30.0
SUM_CYCLES = 4.0
#: What configuring the registers costs in each kernel, and giving them up.
CONFIGURE = 300.0
#: A second copy of the block's code must save at least this share of the cycles.
VARIANT_PENALTY = 0.005
#: The largest number of tiles of pixels, and of vectors, in a block.
MOST_TILES = 4
#: Weights that stay in the second-level cache while all pixels pass them take at most this share.
RESIDENT = 4


def step_bytes(extent: int) -> int:
    """The bytes of depth that each step takes of an innermost depth axis of ``extent`` bytes: a
    multiple of four, the same in every step, the last of which may begin early."""
    steps = -(-extent // TILE_ROW_BYTES)
    return -(-extent // (steps * GROUP)) * GROUP


def tile_rows(columns: tuple[Segment, ...]) -> int:
    """The rows of a tile when pixels are tiled so along a row of the image: as even as they can
    be."""
    longest = max(segment.size for segment in columns)
    return -(-longest // -(-longest // TILE_ROWS))


def registers(pixel_tiles: int, vectors: int) -> tuple[int, int, int]:
    """How many registers hold sums, left-hand side and weights in a block of so many tiles: of what
    passes by, there are two."""
    passing = min(2, vectors) if pixel_tiles == 1 else vectors
    return pixel_tiles * vectors, min(2, pixel_tiles), passing


def block_registers(recipe: ContractRecipe) -> tuple[int, int]:
    """The first registers of the left-hand side and of weights: behind those of the largest block
    of ``recipe``, which has at least as many of each kind as the others."""
    rows = tile_rows(recipe.columns)
    across = max(-(-column.size // rows) for column in recipe.columns)
    tiles = across * max(row.size for row in recipe.rows)
    sums, left, _ = registers(tiles, max(panel.size for panel in recipe.panels))
    return sums, sums + left


def fits_tiles(recipe: ContractRecipe, sizes: ContractSizes) -> bool:
    """Whether the blocks of ``recipe``, which cover the sizes, fit the registers, and its steps the
    depth."""
    rows = tile_rows(recipe.columns)
    across = max(-(-column.size // rows) for column in recipe.columns)
    tiles = across * max(row.size for row in recipe.rows)
    needed = sum(registers(tiles, max(panel.size for panel in recipe.panels)))
    # a tile that would reach beyond a row of the image begins early, but not before it
    inside = all(column.start + column.size >= rows for column in recipe.columns)
    steps = recipe.lanes == TILE_LANES and recipe.depth_unroll == _step_groups(sizes)
    return needed <= TILE_REGISTERS and inside and steps


def _step_groups(sizes: ContractSizes) -> int:
    """The groups of four bytes in each step through the depth."""
    return sizes.inner_depth // -(-sizes.inner_depth // TILE_LANES)


def rank_tiles(sizes: ContractSizes, target: Target, count: int) -> list[Candidate]:
    """The ``count`` cheapest ways to use tile registers, the best first; fewer where there are no
    more. ``sizes`` counts the depth in groups of four bytes."""
    vectors = -(-sizes.channels // TILE_LANES)
    found: dict[ContractRecipe, Candidate] = {}
    for width in range(1, min(vectors, MOST_TILES) + 1):
        for across in range(1, MOST_TILES + 1):
            for rows in range(1, min(sizes.rows, MOST_TILES) + 1):
                if sum(registers(rows * across, width)) > TILE_REGISTERS:
                    continue
                recipe = _recipe(sizes, target, rows, across * TILE_ROWS, width)
                found.setdefault(recipe, Candidate(_cost(sizes, recipe), recipe))
    return heapq.nsmallest(count, found.values(), key=lambda candidate: candidate.cycles)


def tiles_pay(vectors: ContractSizes, tiled: ContractSizes, target: Target) -> bool:
    """Whether a product in groups of bytes takes fewer cycles by tile registers, as ``tiled``, than
    by vectors."""
    best, other = (rank_contracts(sizes, target, 1)[0] for sizes in (tiled, vectors))
    return best.cycles < other.cycles


def _recipe(
    sizes: ContractSizes, target: Target, rows: int, columns: int, width: int
) -> ContractRecipe:
    rhs_bytes = -(-sizes.channels // TILE_LANES) * TILE_LANES * sizes.depth * GROUP
    return ContractRecipe(
        TILE_LANES,
        split_evenly(sizes.rows, rows),
        split_evenly(sizes.columns, columns),
        channel_panels(sizes.channels, TILE_LANES, width),
        _step_groups(sizes),
        panel_outer=rhs_bytes > target.l2_bytes // RESIDENT,
        # each tile of weights in one piece: 46 us became 41 where these come from the second level
        packed=() if width == 1 else split_evenly(-(-sizes.channels // TILE_LANES), 1),
    )


def _cost(sizes: ContractSizes, recipe: ContractRecipe) -> float:
    """Cycles for the whole contraction."""
    groups = recipe.depth_unroll
    steps = sizes.depth // groups
    rows = tile_rows(recipe.columns)
    product = max(float(rows), float(groups), LEAST_PRODUCT)
    left, right = (max(LEAST_LOAD, LOAD_ROW * n) for n in (rows, groups))
    total = CONFIGURE
    variants = 0
    for row in recipe.rows:
        for column in recipe.columns:
            for panel in recipe.panels:
                tiles = row.size * -(-column.size // rows)
                products = tiles * panel.size * product
                loads = tiles * left + panel.size * right
                sums = row.size * column.size * panel.size * SUM_CYCLES
                step = max(products, loads) + CROWDING * loads
                block = steps * step + BLOCK_OVERHEAD + sums
                total += block * row.count * column.count * panel.count
                variants += 1
    return total * (1 + VARIANT_PENALTY * (variants - 1))
