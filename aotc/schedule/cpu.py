"""The CPU cost model: the sizes of a contraction and a target go in, a ContractRecipe comes out.

The model counts cycles of the inner loop on a core that issues two vector FMAs and some loads a
cycle with a latency of four: a tile of m pixels by n vectors costs, per depth step, about
max(m*n/2, (m+n)/loads, 5) cycles and what its loads cost beyond that; on a core that issues one
instruction a cycle, m*n + m + n.
"""

from __future__ import annotations

import heapq
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from aotc.schedule.recipe import ContractRecipe, GateRecipe, Segment, split_evenly
from aotc.target import Target

FMAS_PER_CYCLE = 2
FMA_LATENCY = 5  # four cycles, and some slack for what else the core does
#: Cycles that a vector of weights costs beyond its load slot, from the second- and the first-
#: level cache.
FAR_LOAD, NEAR_LOAD = 0.5, 0.1
#: What a broadcast of one element of the lhs costs beyond its load slot: where a multiply-add can
#: read it from memory, and where it takes an instruction and a register of its own.
BROADCAST, OWN_BROADCAST = 0.25, 0.45
#: Cycles that making a vector of weights of stored codes takes.
WIDENING = 1.5
#: Cycles to start and drain one tile, and cycles per vector of its result.
TILE_OVERHEAD = 16
STORE_CYCLES = 2.0
#: Pixels of a tile whose addresses leave general registers for prefetching two streams.
FEW_PIXELS = 8
#: General registers of an Arm core that two addresses and a counter leave, and one to spare.
PAIR_REGISTERS = 10
#: Memory for the widened left-hand side of one tile, eight bytes for a group of four.
PAIR_SCRATCH_BYTES = 16 << 10
#: Groups of four in line, with nothing between them but loads.
PAIR_UNROLL = 12
#: A second copy of the tile code (another tile size) must save at least this share of the cycles.
VARIANT_PENALTY = 0.005
#: What a second copy of the code must save where code lies in a microcontroller's flash memory.
PAIR_VARIANT_PENALTY = 0.03
#: Vectors of units a tile of gates may have: what combines the gates is written once for each.
GATE_VECTORS = 2


@dataclass(frozen=True)
class ContractSizes:
    """Extents of a contraction; ``lanes`` is the target's vector length for its element type."""

    rows: int
    columns: int
    channels: int
    depth: int
    inner_depth: int
    lanes: int
    elem_bytes: int
    overlapping: bool  # neighbouring pixels read the same elements within the innermost depth loop
    streamed: bool = False  # the left-hand side lies in memory in the order of pixels and depth
    paired: bool = False  # four bytes at a time, as two pairs of int16 in general registers
    tiled: bool = False  # by products of tile registers
    stored: str = ""  # the type of weights that become elements on the way to registers

    @property
    def key(self) -> str:
        """The sizes as text: what a recipe is looked up by."""
        order = " overlapping" * self.overlapping + " streamed" * self.streamed
        order += " paired" * self.paired + " tiled" * self.tiled
        order += f" from {self.stored}" if self.stored else ""
        return (
            f"contract {self.rows}x{self.columns}x{self.channels} depth {self.depth}/"
            f"{self.inner_depth} lanes {self.lanes} bytes {self.elem_bytes}{order}"
        )

    @classmethod
    def parse(cls, key: str) -> ContractSizes:
        """The sizes that `key` printed; ValueError for anything else."""
        found = _KEY.fullmatch(key)
        if found is None:
            raise ValueError(f"'{key}' does not describe a contraction")
        rows, columns, channels, depth, inner, lanes, elem_bytes = map(int, found.groups()[:7])
        names = ("overlapping", "streamed", "paired", "tiled")
        flags = {name: found[name] is not None for name in names}
        sizes = cls(rows, columns, channels, depth, inner, lanes, elem_bytes, False)
        return replace(sizes, stored=found["stored"] or "", **flags)


_KEY = re.compile(
    r"contract (\d{1,9})x(\d{1,9})x(\d{1,9}) depth (\d{1,9})/(\d{1,9}) lanes (\d{1,3}) "
    r"bytes (\d)(?P<overlapping> overlapping)?(?P<streamed> streamed)?(?P<paired> paired)?"
    r"(?P<tiled> tiled)?(?: from (?P<stored>[a-z]{3,8}\d{1,2}))?"
)


@dataclass(frozen=True)
class Candidate:
    """A recipe and the cycles that the model predicts for it."""

    cycles: float
    recipe: ContractRecipe


ChooseContract = Callable[[ContractSizes, Target], ContractRecipe]


def choose_contract(sizes: ContractSizes, target: Target) -> ContractRecipe:
    """The cheapest tiling that keeps all accumulators of a tile in registers."""
    return rank_contracts(sizes, target, 1)[0].recipe


def rank_contracts(sizes: ContractSizes, target: Target, count: int) -> list[Candidate]:
    """The ``count`` cheapest tilings, the best first; fewer where there are no more."""
    if sizes.tiled:
        from aotc.schedule.tiles import rank_tiles  # whose model is of the same sizes

        return rank_tiles(sizes, target, count)
    lanes = sizes.lanes
    while lanes > 1 and lanes // 2 >= sizes.channels:
        lanes //= 2
    vectors = -(-sizes.channels // lanes)
    tiles: list[tuple[float, tuple[int, int, int]]] = []
    for width in range(1, min(vectors, _widest(target)) + 1):
        pixels = most_pixels(sizes, target, width)
        for columns in range(1, min(sizes.columns, pixels) + 1):
            most_rows = min(sizes.rows, pixels // columns) if columns == sizes.columns else 1
            for rows in range(1, most_rows + 1):
                cost = _cost(sizes, target, vectors, rows, columns, width)
                tiles.append((cost, (rows, columns, width)))
    # several limits of a tile size split an axis into the same tiles: the first of them stands
    found: dict[ContractRecipe, Candidate] = {}
    for cost, tile in heapq.nsmallest(4 * count, tiles, key=lambda entry: entry[0]):
        recipe = _recipe(sizes, target, lanes, *tile)
        found.setdefault(recipe, Candidate(cost, recipe))
    return list(found.values())[:count]


def most_pixels(sizes: ContractSizes, target: Target, width: int) -> int:
    """The pixels of a tile of ``width`` vectors whose accumulators and operands fit registers."""
    if sizes.stored:  # codes, scales, and what is on the way from them
        spare = target.vector_registers - target.pipeline.operand_registers - 2 * width - 2
        return max(spare // width, 1 if width == 1 else 0)
    if not sizes.paired:
        return (target.vector_registers - target.pipeline.operand_registers - width) // width
    # two registers for each operand that stays while the others pass, and two for those, and one
    # more for weights before they are widened
    fitting = (
        pixels
        for pixels in range(1, PAIR_REGISTERS)
        if width * pixels + 2 * min(width, pixels) + 2 + (width > pixels) <= PAIR_REGISTERS
        and (pixels == 1 or 8 * pixels * sizes.depth <= PAIR_SCRATCH_BYTES)
    )
    return max(fitting, default=0)


def _recipe(
    sizes: ContractSizes, target: Target, lanes: int, rows: int, columns: int, width: int
) -> ContractRecipe:
    vectors = -(-sizes.channels // lanes)
    rhs_bytes = vectors * lanes * sizes.depth * sizes.elem_bytes
    lhs_bytes = sizes.rows * sizes.columns * sizes.depth * sizes.elem_bytes
    panel_outer = rhs_bytes > target.l2_bytes // 16
    # Two more streams of addresses beside those of many pixels are more than general registers
    # hold: 197 by 1536 with AVX-512 falls from 84 % of the peak to 37 % with both.
    room = not panel_outer or columns <= FEW_PIXELS
    return ContractRecipe(
        lanes,
        split_evenly(sizes.rows, rows),
        split_evenly(sizes.columns, columns),
        channel_panels(sizes.channels, lanes, width),
        _depth_unroll(sizes, rows * columns * width),
        panel_outer,
        # 256 to 64 channels at 56x56 with AVX2: 81 % of the peak without, 97 % with it
        fetch_ahead=sizes.streamed and lhs_bytes > target.l2_bytes and room,
    )


@dataclass(frozen=True)
class GateSizes:
    """Extents of a product of ``gates`` results a unit; ``lanes`` as in ContractSizes."""

    rows: int
    units: int
    gates: int
    depth: int
    lanes: int
    elem_bytes: int


def choose_gates(sizes: GateSizes, target: Target) -> GateRecipe:
    """The cheapest tiling that keeps the accumulators of all gates in registers."""
    lanes = sizes.lanes
    while lanes > 1 and lanes // 2 >= sizes.units:
        lanes //= 2
    vectors = -(-sizes.units // lanes)
    inner = ContractSizes(
        sizes.rows, 1, sizes.units, sizes.depth, sizes.depth, lanes, sizes.elem_bytes, False
    )
    best: tuple[float, int, int] | None = None
    for units in range(1, min(vectors, GATE_VECTORS) + 1):
        width = units * sizes.gates
        most = max(1, (target.vector_registers - 1 - width) // width)
        for rows in range(1, min(sizes.rows, most) + 1):
            cost = 0.0
            for row in split_evenly(sizes.rows, rows):
                for panel in split_evenly(vectors, units):
                    tile = _tile_cycles(inner, target, row.size, panel.size * sizes.gates)
                    cost += tile * row.count * panel.count
            if best is None or cost < best[0]:
                best = (cost, rows, units)
    assert best is not None
    _, rows, units = best
    unroll = _depth_unroll(inner, rows * units * sizes.gates)
    panels = channel_panels(sizes.units, lanes, units)
    return GateRecipe(lanes, split_evenly(sizes.rows, rows), panels, unroll)


def _widest(target: Target) -> int:
    return max(4, target.vector_registers // 2)


def _cost(
    sizes: ContractSizes, target: Target, vectors: int, rows: int, columns: int, width: int
) -> float:
    """Cycles for the whole contraction with tiles of rows*columns pixels by ``width`` vectors."""
    total = 0.0
    variants = 0
    for row in split_evenly(sizes.rows, rows):
        for column in split_evenly(sizes.columns, columns):
            for panel in split_evenly(vectors, width):
                tile = _tile_cycles(sizes, target, row.size * column.size, panel.size)
                total += tile * row.count * column.count * panel.count
                variants += 1
    penalty = PAIR_VARIANT_PENALTY if sizes.paired else VARIANT_PENALTY
    return total * (1 + penalty * (variants - 1))


def broadcast_cycles(target: Target) -> float:
    """Cycles beyond its load slot of one element of the lhs."""
    return BROADCAST if target.pipeline.operand_registers == 1 else OWN_BROADCAST


def _tile_cycles(sizes: ContractSizes, target: Target, pixels: int, width: int) -> float:
    """Cycles for one tile of ``pixels`` by ``width`` vectors."""
    results = pixels * width
    if sizes.paired:
        # weights are loaded and widened twice, the left-hand side is two words that one
        # instruction loads, and each result takes two multiply-adds
        step = 2.0 * results + 3.0 * width + pixels
        return sizes.depth * step + TILE_OVERHEAD + STORE_CYCLES * results
    if target.pipeline.single_issue:
        step = float(results + pixels + width)
        return sizes.depth * step + TILE_OVERHEAD + STORE_CYCLES * results
    far = width * sizes.lanes * sizes.elem_bytes * sizes.depth > target.l1_bytes // 2
    loads = (pixels + width) / target.pipeline.loads_per_cycle
    step = max(results / FMAS_PER_CYCLE, loads, FMA_LATENCY)
    step += width * (FAR_LOAD if far else NEAR_LOAD) + pixels * broadcast_cycles(target)
    step += width * WIDENING if sizes.stored else 0.0
    return sizes.depth * step + TILE_OVERHEAD + STORE_CYCLES * results


def channel_panels(channels: int, lanes: int, width: int) -> tuple[Segment, ...]:
    """Tiles the channels in vectors; a panel that ends in a partial vector stands alone."""
    vectors = -(-channels // lanes)
    segments = list(split_evenly(vectors, width))
    last = segments[-1]
    if channels % lanes and last.count > 1:
        segments[-1] = Segment(last.start, last.count - 1, last.size)
        segments.append(Segment(last.stop - last.size, 1, last.size))
    return tuple(segments)


def _depth_unroll(sizes: ContractSizes, accumulators: int) -> int:
    """Enough steps in line to amortise the loop counter without bloating the code."""
    if sizes.paired and sizes.depth <= PAIR_UNROLL:
        return sizes.depth  # also of outer axes
    if sizes.paired:
        return max(step for step in range(1, PAIR_UNROLL + 1) if sizes.inner_depth % step == 0)
    if sizes.overlapping:
        # Unrolled, the shared elements would be kept in registers from step to step, and spill.
        return 1
    if sizes.inner_depth <= 4 or sizes.inner_depth <= 8 and accumulators <= 8:
        return sizes.inner_depth
    return 8 if accumulators <= 4 else 4 if accumulators <= 16 else 2
