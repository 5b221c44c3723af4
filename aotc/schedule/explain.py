"""Why a contraction is tiled as it is: sizes, target and recipe in, the model's reasons out."""

from __future__ import annotations

from dataclasses import dataclass

from aotc.schedule.cpu import (
    FAR_LOAD,
    FMA_LATENCY,
    FMAS_PER_CYCLE,
    NEAR_LOAD,
    STORE_CYCLES,
    TILE_OVERHEAD,
    Candidate,
    ContractSizes,
    broadcast_cycles,
    rank_contracts,
)
from aotc.schedule.recipe import ContractRecipe
from aotc.target import Target

RIVALS = 3


@dataclass(frozen=True)
class Explanation:
    """Where the predicted ``cycles`` of one contraction go.

    ``arithmetic`` is what the multiply-adds would take in full vectors, ``padding`` what lanes
    beyond the last channel add. In ``loads`` and ``latency`` the load ports or the chain of an
    accumulator set the pace; ``weights`` and ``broadcasts`` are what operands cost beyond their
    load slots, ``tiles`` the starts and ends of tiles. ``rivals`` are the model's best candidates.
    """

    recipe: ContractRecipe
    cycles: float
    arithmetic: float
    padding: float
    loads: float
    latency: float
    weights: float
    broadcasts: float
    tiles: float
    rivals: tuple[Candidate, ...]

    @property
    def share_of_peak(self) -> float:
        """Predicted, of the multiply-adds that the core could do in that time with full vectors."""
        return self.arithmetic / self.cycles


def explain_contract(sizes: ContractSizes, target: Target, recipe: ContractRecipe) -> Explanation:
    """The model's account of ``recipe``; the terms are those of schedule/cpu.py."""
    arithmetic = loads = latency = weights = broadcasts = tiles = 0.0
    for row in recipe.rows:
        for column in recipe.columns:
            for panel in recipe.panels:
                count = row.count * column.count * panel.count
                steps = count * sizes.depth
                pixels = row.size * column.size
                results = pixels * panel.size
                tiles += count * (TILE_OVERHEAD + STORE_CYCLES * results)
                if target.pipeline.single_issue:
                    arithmetic += steps * results
                    loads += steps * (pixels + panel.size)
                    continue
                busy = results / FMAS_PER_CYCLE
                ports = max(0.0, (pixels + panel.size) / target.pipeline.loads_per_cycle - busy)
                arithmetic += steps * busy
                loads += steps * ports
                latency += steps * max(0.0, FMA_LATENCY - busy - ports)
                panel_bytes = panel.size * sizes.lanes * sizes.elem_bytes * sizes.depth
                far = panel_bytes > target.l1_bytes // 2
                weights += steps * panel.size * (FAR_LOAD if far else NEAR_LOAD)
                broadcasts += steps * pixels * broadcast_cycles(target)
    total = arithmetic + loads + latency + weights + broadcasts + tiles
    useful = sizes.rows * sizes.columns * sizes.channels * sizes.depth
    rate = 1 if target.pipeline.single_issue else FMAS_PER_CYCLE
    full = useful / (sizes.lanes * rate)
    rivals = tuple(rank_contracts(sizes, target, RIVALS))
    return Explanation(
        recipe,
        total,
        full,
        arithmetic - full,
        loads,
        latency,
        weights,
        broadcasts,
        tiles,
        rivals,
    )
