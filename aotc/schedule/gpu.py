"""The GPU cost model of plain multiply-adds: the sizes of a contraction go in, the tile of one
block comes out. The figures of a GPU are those of the other models too.

The model counts cycles of one multiprocessor. A chunk of the depth takes as long as its arithmetic,
its loads or the latency of memory, whichever is longest; blocks that share a multiprocessor hide
each other's latency but not their work. The figures are an A100's, from its data sheet; no result
of a measurement is in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

MULTIPROCESSORS = 108
#: Threads that a multiprocessor holds, and the most blocks that the model lets share one.
RESIDENT_THREADS, RESIDENT_BLOCKS = 1024, 4
#: Multiply-adds of one multiprocessor in one cycle.
RATES: Mapping[str, int] = MappingProxyType({"fma": 64, "tf32": 512, "f16": 1024, "bf16": 1024})
#: Bytes that one multiprocessor gets from the second-level cache in one cycle.
LOAD_BYTES = 32
#: Cycles from a load to its value, to start a block and drain it, and to launch one more kernel.
LATENCY, BLOCK_CYCLES, LAUNCH_CYCLES = 600, 1500, 3000
#: Parts that the depth is split into at most, and chunks that a part has at least.
MOST_SPLITS, FEWEST_CHUNKS = 16, 4


@dataclass(frozen=True)
class GpuTile:
    """A block's tile of ``rows`` x ``columns`` results. ``down`` x ``across`` are its threads, or
    with tensor cores its warps; shared memory has ``stages`` chunks of ``depth`` terms. ``splits``
    blocks share the depth of one tile."""

    rows: int
    columns: int
    down: int
    across: int
    depth: int
    kind: str = "fma"
    splits: int = 1
    stages: int = 2

    @property
    def threads(self) -> int:
        return self.down * self.across * (1 if self.kind == "fma" else 32)

    def __str__(self) -> str:
        split = f" split {self.splits}" if self.splits > 1 else ""
        shape = f"{self.rows}x{self.columns}x{self.depth} {self.down}x{self.across}"
        stages = "" if self.kind == "fma" else f" {self.stages} stages"
        return f"block {shape} {self.kind}{stages}{split}"


#: rows, columns, threads down and across, of tiles computed with multiply-adds.
_FMA_TILES = (
    (128, 128, 16, 16),
    (128, 64, 16, 16),
    (64, 64, 16, 16),
    (64, 32, 16, 8),
    (32, 32, 8, 8),
    (16, 64, 4, 16),
)
#: Terms in shared memory at once, the best first.
_DEPTHS = (16, 8)


def choose_tile(rows: int, columns: int, batch: int, depth: int, inner_depth: int) -> GpuTile:
    """The tile for ``batch`` products of ``rows`` x ``columns`` results over ``depth`` terms;
    ``inner_depth`` is the extent of the innermost depth axis, which chunks divide where they
    can."""
    chunk = next((d for d in _DEPTHS if inner_depth % d == 0), _DEPTHS[0])
    choices = [GpuTile(*shape, chunk) for shape in _FMA_TILES]
    chunks = -(-depth // chunk)
    return min(choices, key=lambda tile: _cycles(tile, rows, columns, batch, chunks))


def _cycles(tile: GpuTile, rows: int, columns: int, batch: int, chunks: int) -> float:
    blocks = -(-rows // tile.rows) * -(-columns // tile.columns) * batch
    each = -(-blocks // MULTIPROCESSORS)
    together = min(each, RESIDENT_BLOCKS, max(1, RESIDENT_THREADS // tile.threads))
    high, wide = tile.rows // tile.down, tile.columns // tile.across
    # one load of shared memory brings four terms of a row or a column
    instructions = high * wide + (high + wide) / 4
    arithmetic = instructions * tile.threads * tile.depth / RATES[tile.kind]
    loads = (tile.rows + tile.columns) * tile.depth * 4 / LOAD_BYTES
    stores = tile.rows * tile.columns * 4 / LOAD_BYTES

    def turn(blocks: int) -> float:
        chunk = max(blocks * arithmetic, blocks * loads, LATENCY)
        return chunks * chunk + blocks * stores + BLOCK_CYCLES

    return in_turns(each, together, turn)


def in_turns(blocks: int, together: int, cycles: Callable[[int], float]) -> float:
    """Cycles of ``blocks`` on one multiprocessor, ``together`` at once and then the rest, where so
    many at once take ``cycles``."""
    turns, rest = divmod(blocks, together)
    return turns * cycles(together) + (cycles(rest) if rest else 0)
