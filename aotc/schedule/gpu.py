"""The GPU cost model: the sizes of a contraction go in, the tile of one block comes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

#: Of an A100; an H100 has 132. That many blocks keep the GPU busy.
MULTIPROCESSORS = 108
#: What a tile costs beyond its arithmetic, in multiply-adds for each element that it loads: small
#: tiles load more for what they compute.
LOAD_COST = 24


@dataclass(frozen=True)
class GpuTile:
    """A block's tile of ``rows`` x ``columns`` results. ``down`` x ``across`` are its threads, or
    with tensor cores its warps; ``depth`` terms are in shared memory at once."""

    rows: int
    columns: int
    down: int
    across: int
    depth: int
    kind: str = "fma"

    @property
    def threads(self) -> int:
        return self.down * self.across * (1 if self.kind == "fma" else 32)

    def __str__(self) -> str:
        return (
            f"block {self.rows}x{self.columns}x{self.depth} {self.down}x{self.across} {self.kind}"
        )


#: rows, columns, threads down and across, of tiles computed with multiply-adds.
_FMA_TILES = (
    (128, 128, 16, 16),
    (128, 64, 16, 16),
    (64, 64, 16, 16),
    (64, 32, 16, 8),
    (32, 32, 8, 8),
    (16, 64, 4, 16),
)
#: rows, columns, warps down and across, of tiles computed with tensor cores.
_MMA_TILES = (
    (128, 128, 2, 4),
    (128, 64, 4, 2),
    (64, 64, 2, 2),
    (64, 32, 2, 2),
    (32, 32, 2, 2),
    (16, 64, 1, 4),
)
#: Terms in shared memory at once, the best first.
_DEPTHS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {"fma": (16, 8), "tf32": (32, 16, 8), "f16": (32, 16), "bf16": (32, 16)}
)


def choose_tile(rows: int, columns: int, batch: int, inner_depth: int, kind: str) -> GpuTile:
    """The tile for ``batch`` products of ``rows`` x ``columns`` results; ``inner_depth`` is the
    extent of the innermost depth axis, which chunks divide where they can."""
    depths = _DEPTHS[kind]
    depth = next((d for d in depths if inner_depth % d == 0), depths[0])

    def cost(tile: tuple[int, int, int, int]) -> float:
        blocks = -(-rows // tile[0]) * -(-columns // tile[1]) * batch
        waves = -(-blocks // MULTIPROCESSORS)
        return waves * (tile[0] * tile[1] + LOAD_COST * (tile[0] + tile[1]))

    tiles = _FMA_TILES if kind == "fma" else _MMA_TILES
    return GpuTile(*min(tiles, key=cost), depth, kind)
