"""The cost model of products by warpgroups: the sizes of a contraction go in, the tile of one block
comes out.

A block keeps chunks of the depth of both operands in several stages of shared memory, which copies
fill while tensor cores multiply. A chunk takes as long as its arithmetic, what the tensor cores
read from shared memory, or its way there from the second-level cache. The figures are an H100's,
from its data sheet and the PTX manual; no result of a measurement is in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

MULTIPROCESSORS = 132
#: Bytes of the depth of each row that a stage holds, and that one step of the tensor cores takes.
CHUNK_BYTES, STEP_BYTES = 128, 32
#: Rows of one product of a warpgroup.
ROWS = 64
#: Multiply-adds of one multiprocessor in one cycle.
_RATES: Mapping[str, int] = MappingProxyType({"tf32": 1024, "f16": 2048, "bf16": 2048})
#: Bytes that tensor cores and copies move from and to shared memory in a cycle, and that a
#: multiprocessor gets from the second-level cache.
_SHARED_BYTES, _LOAD_BYTES = 128, 48
#: Cycles from a copy's start to its end, to start a block and drain it, and to launch one more
#: kernel.
_LATENCY, _BLOCK_CYCLES, _LAUNCH_CYCLES = 1000, 2000, 4000
#: Of a multiprocessor: bytes of shared memory, of which each block costs some more than it asks
#: for; and sums of a thread and threads with which registers do for several blocks, so many at
#: most.
SHARED_BYTES, _RESERVED_BYTES = 228 << 10, 1 << 10
_FEW_SUMS, _FEW_THREADS, _MOST_TOGETHER = 64, 512, 3
#: Stages at most; parts that the depth is split into at most, and chunks that a part has at least.
_MOST_STAGES, _MOST_SPLITS, _FEWEST_CHUNKS = 8, 16, 4
#: Rows and columns below which the tiles of `schedule.gpu` waste less.
MIN_ROWS, MIN_COLUMNS = 32, 16
#: Of a tile on its way to memory: rows and columns that a warpgroup has in shared memory at once,
#: and elements between rows, so that accesses meet all banks.
PANEL_ROWS, _PANEL_COLUMNS, PANEL_GAP = 32, (64, 32), 8


@dataclass(frozen=True)
class WarpgroupTile:
    """A block's tile of ``rows`` x ``columns`` results, shared by ``groups`` warpgroups, each with
    neighbouring rows. ``stages`` chunks of the depth are in shared memory; ``splits`` blocks share
    the depth of one tile."""

    rows: int
    columns: int
    groups: int
    kind: str
    stages: int = 1
    splits: int = 1

    @property
    def threads(self) -> int:
        return 128 * self.groups

    @property
    def products(self) -> int:
        """Products of 64 rows that a warpgroup does side by side."""
        return self.rows // (ROWS * self.groups)

    @property
    def panel_columns(self) -> int:
        """Columns of the tile that go through shared memory at once on their way out."""
        return next(width for width in _PANEL_COLUMNS if self.columns % width == 0)

    @property
    def stage_bytes(self) -> int:
        return (self.rows + self.columns) * CHUNK_BYTES

    @property
    def shared_bytes(self) -> int:
        """Of stages, their signals of 8 bytes, and the panel."""
        panel = self.groups * PANEL_ROWS * (self.panel_columns + PANEL_GAP) * 4
        return self.stages * (self.stage_bytes + 8) + panel

    @property
    def sums(self) -> int:
        """Sums of a thread."""
        return self.rows * self.columns // self.threads

    def __str__(self) -> str:
        split = f" split {self.splits}" if self.splits > 1 else ""
        shape = f"{self.rows}x{self.columns} {self.groups} of {self.stages} stages"
        return f"warpgroups {shape} {self.kind}{split}"


@dataclass(frozen=True)
class Sizes:
    """``batch`` products with ``columns`` columns over ``chunks`` chunks of the depth, of which
    ``steps`` steps count each. ``row_tiles`` says how many tiles of so many rows there are, None
    where operands can't be brought in such tiles; columns are in tiles of a multiple of
    ``column_step``, and a block has at most ``most_groups`` warpgroups, each of at most
    ``most_products`` products side by side, and threads with at most ``most_sums`` sums."""

    columns: int
    batch: int
    chunks: int
    steps: int
    row_tiles: Callable[[int], int | None]
    column_step: int = 32
    most_products: int = 2
    most_groups: int = 3
    most_sums: int = 128


#: rows, columns and warpgroups of tiles.
_TILES = (
    (128, 256, 2),
    (256, 128, 2),
    (192, 256, 3),
    (192, 128, 3),
    (128, 192, 2),
    (128, 128, 2),
    (256, 64, 2),
    (128, 96, 2),
    (128, 64, 2),
    (128, 32, 2),
    (64, 256, 1),
    (64, 192, 1),
    (64, 128, 1),
    (64, 96, 1),
    (64, 64, 1),
    (64, 32, 1),
)


def choose_warpgroup_tile(sizes: Sizes, kind: str, shared_bytes: int) -> WarpgroupTile | None:
    """The tile for a contraction in blocks with ``shared_bytes`` of shared memory; None where none
    fits."""
    most = min(_MOST_SPLITS, sizes.chunks // _FEWEST_CHUNKS)
    splits = [1, *(split for split in range(2, most + 1) if sizes.chunks % split == 0)]
    choices: list[WarpgroupTile] = []
    for rows, columns, groups in _TILES:
        if sizes.row_tiles(rows) is None or columns % sizes.column_step:
            continue
        whole = WarpgroupTile(rows, columns, groups, kind)
        if whole.products > sizes.most_products or groups > sizes.most_groups:
            continue
        if whole.sums > sizes.most_sums:
            continue
        few = _blocks(whole, sizes) < MULTIPROCESSORS
        for split in splits if few else (1,):
            tile = replace(whole, splits=split)
            chunks = sizes.chunks // split
            for together in (1, 2) if tile.sums <= _FEW_SUMS else (1,):
                room = (shared_bytes + _RESERVED_BYTES) // together - _RESERVED_BYTES
                choices += _staged(tile, chunks, room)
    return min(choices, key=lambda tile: _cycles(tile, sizes), default=None)


def _staged(tile: WarpgroupTile, chunks: int, room: int) -> list[WarpgroupTile]:
    """The tile with as many stages as fit ``room`` bytes, if two do, or all chunks."""
    each = tile.stage_bytes + 8
    stages = min((room - replace(tile, stages=0).shared_bytes) // each, chunks, _MOST_STAGES)
    return [replace(tile, stages=stages)] if stages >= min(chunks, 2) else []


def _blocks(tile: WarpgroupTile, sizes: Sizes) -> int:
    down = sizes.row_tiles(tile.rows)
    assert down is not None
    return down * -(-sizes.columns // tile.columns) * sizes.batch * tile.splits


def _together(tile: WarpgroupTile) -> int:
    """Blocks that a multiprocessor has at the same time."""
    if tile.sums > _FEW_SUMS:
        return 1
    room = SHARED_BYTES // (tile.shared_bytes + _RESERVED_BYTES)
    return min(_MOST_TOGETHER, room, _FEW_THREADS // tile.threads)


def _cycles(tile: WarpgroupTile, sizes: Sizes) -> float:
    each = -(-_blocks(tile, sizes) // MULTIPROCESSORS)
    together = min(each, _together(tile))
    elems = CHUNK_BYTES // (4 if tile.kind == "tf32" else 2)
    share = sizes.steps * STEP_BYTES / CHUNK_BYTES
    arithmetic = tile.rows * tile.columns * elems * share / _RATES[tile.kind]
    products = tile.groups * tile.products
    reads = products * (ROWS + tile.columns) * CHUNK_BYTES * share
    shared = (reads + tile.stage_bytes) / _SHARED_BYTES
    waiting = _LATENCY / max(tile.stages - 1, 1)
    work = max(arithmetic, shared, tile.stage_bytes / _LOAD_BYTES)
    stores = tile.rows * tile.columns * 4 / _LOAD_BYTES
    chunks = sizes.chunks // tile.splits
    turn = chunks * max(together * work, waiting) + together * stores + _BLOCK_CYCLES + _LATENCY
    cycles = -(-each // together) * turn
    if tile.splits > 1:
        down = sizes.row_tiles(tile.rows)
        assert down is not None
        results = down * tile.rows * sizes.columns * sizes.batch
        moved = (tile.splits + 1) * results * 4 / MULTIPROCESSORS
        cycles += _LAUNCH_CYCLES + moved / _LOAD_BYTES
    return cycles


#: Products of an H100 that mma.sync reaches in a second, bytes of its memory in a second, and
#: seconds that a launch takes.
_PLAIN_RATE, _MEMORY_RATE, _LAUNCH_SECONDS = 150e12, 2.5e12, 3e-6


def conversion_pays(products: int, elems: int) -> bool:
    """Whether ``elems`` float32 are worth a kernel that converts them to 16 bits, so that
    ``products`` multiply-adds can be done by warpgroups: these take half the time then."""
    return products / _PLAIN_RATE / 2 > elems * 6 / _MEMORY_RATE + _LAUNCH_SECONDS


def raster(down: int) -> int:
    """How many tiles one below the other, of ``down``, blocks take before they go to the next
    column of tiles: a divisor, so that those at work at the same time share both operands."""
    return max(divisor for divisor in range(1, min(down, 16) + 1) if down % divisor == 0)
