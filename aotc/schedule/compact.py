"""Schedules for small code: the sizes of a contraction and a target go in, a ContractRecipe whose
kernel takes few instructions comes out.

What grows code is the number of different tiles (each is a copy of the loops) and the accumulators
of one tile (each is an instruction in every step). So tiles are small, and an axis is cut into
tiles of one size where that costs few loads.
"""

from __future__ import annotations

from aotc.schedule.cpu import ContractSizes, channel_panels, choose_contract, most_pixels
from aotc.schedule.recipe import ContractRecipe, split_evenly
from aotc.target import Target

ACCUMULATORS = 8
"""The most of one tile: 2 by 4 loads 6 operands for 8 multiply-adds."""

COPY_PENALTY = 0.5
"""What each further copy of the tile's code must save of the loads."""


def choose_compact(sizes: ContractSizes, target: Target) -> ContractRecipe:
    """The tile with the fewest loads for each multiply-add, weighed against copies of the code."""
    if sizes.tiled:  # tile registers have a size of their own, and little code
        return choose_contract(sizes, target)
    lanes = sizes.lanes
    while lanes > 1 and lanes // 2 >= sizes.channels:
        lanes //= 2
    vectors = -(-sizes.channels // lanes)
    most = min(ACCUMULATORS, target.vector_registers - 4)
    best: tuple[float, ContractRecipe] | None = None
    for width in range(1, min(vectors, most) + 1):
        pixels = most_pixels(sizes, target, width) if sizes.paired else most // width
        for columns in range(1, min(sizes.columns, pixels) + 1):
            recipe = ContractRecipe(
                lanes,
                split_evenly(sizes.rows, 1),
                split_evenly(sizes.columns, columns),
                channel_panels(sizes.channels, lanes, width),
                1,
                panel_outer=False,
            )
            copies = len(recipe.columns) * len(recipe.panels)
            # pairs of weights take two more instructions each
            loads = 1 / width + (3 if sizes.paired else 1) / columns
            cost = loads * (1 + COPY_PENALTY * (copies - 1))
            if best is None or cost < best[0]:
                best = (cost, recipe)
    assert best is not None
    return best[1]
