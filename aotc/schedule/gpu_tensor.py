"""The cost model of contractions on tensor cores (mma.sync): sizes go in, the tile of one block
comes out.

It is that of schedule/gpu.py, for blocks with several stages of shared memory. A chunk of the depth
takes as long as its products, its reads of shared memory, its loads, or the latency of memory
shared by the stages, whichever is longest. No result of a measurement is in it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from aotc.loop.mma import KINDS
from aotc.schedule.gpu import (
    BLOCK_CYCLES,
    FEWEST_CHUNKS,
    LATENCY,
    LAUNCH_CYCLES,
    LOAD_BYTES,
    MOST_SPLITS,
    MULTIPROCESSORS,
    RATES,
    GpuTile,
    in_turns,
)

#: rows, columns, warps down and across.
TENSOR_TILES = (
    (128, 256, 2, 4),
    (256, 128, 4, 2),
    (128, 128, 2, 2),
    (128, 128, 2, 4),
    (256, 64, 4, 1),
    (128, 64, 2, 2),
    (64, 128, 2, 2),
    (64, 64, 2, 2),
    (64, 32, 4, 1),
    (32, 64, 2, 2),
    (16, 128, 1, 4),
    (16, 64, 1, 2),
)
#: Bytes of a line of shared memory: the chunk of one row.
LINE_BYTES = (128, 64)
MOST_STAGES = 4
#: Threads and registers of a multiprocessor; bytes of shared memory in a cycle, and warps that keep
#: all parts of a multiprocessor at work.
_RESIDENT_THREADS, _REGISTER_FILE = 2048, 1 << 16
_SHARED_CYCLE_BYTES, _BUSY_WARPS = 128, 8
#: Registers of a thread for what `_registers` counts, those for the rest, and those in which one
#: factor is converted.
MOST_REGISTERS, OTHER_REGISTERS, _CONVERSION = 216, 39, 24
#: Vectors of one factor that a thread moves at once: each needs an address.
MOST_VECTORS = 32
#: Bytes that can be copied asynchronously at least.
LEAST_COPY = 4


@dataclass(frozen=True)
class TensorSizes:
    """``batch`` products of ``rows`` x ``columns`` results over ``depth``, the axes of the terms,
    in products of ``kind``. Of the left factor and of the right, memory holds terms in
    ``element_bytes``, and threads move ``lanes`` of them at once, at most. The depth may be cut as
    one axis if it ``may_be_flat``; a block has ``limit_bytes`` of shared memory."""

    batch: int
    rows: int
    columns: int
    depth: tuple[int, ...]
    kind: str
    element_bytes: tuple[int, int]
    lanes: tuple[int, int]
    may_be_flat: bool
    limit_bytes: int


@dataclass(frozen=True)
class TensorChoice:
    """A tile, and whether its chunks count all axes of the depth as one."""

    tile: GpuTile
    is_flat: bool


def choose_tensor_tile(sizes: TensorSizes) -> TensorChoice:
    """The cheapest tile. A depth whose innermost axis fills chunks badly is cut as one axis."""
    return min(_choices(sizes), key=lambda choice: _cycles(choice, sizes))


def stage_bytes(tile: GpuTile) -> int:
    """Bytes of shared memory of one stage, with the most that lines are apart."""
    size = KINDS[tile.kind].dtype.size_bytes
    padding = 2 * 8 * tile.depth if size == 4 else 0
    return ((tile.rows + tile.columns) * tile.depth + padding) * size


def _choices(sizes: TensorSizes) -> Iterator[TensorChoice]:
    size = KINDS[sizes.kind].dtype.size_bytes
    for line in LINE_BYTES:
        chunk = line // size
        for is_flat in (False, True) if sizes.may_be_flat else (False,):
            chunks = _chunks(sizes, chunk, is_flat)
            for shape in TENSOR_TILES:
                whole = GpuTile(*shape, chunk, sizes.kind)
                vectors = _vectors(whole, sizes, is_flat)
                registers = _registers(whole, sizes, is_flat)
                if max(vectors) > MOST_VECTORS or registers > MOST_REGISTERS:
                    continue
                stages = min(MOST_STAGES, max(2, chunks), sizes.limit_bytes // stage_bytes(whole))
                few = _blocks(whole, sizes) < MULTIPROCESSORS
                for splits in _splits(chunks) if few else (1,):
                    each = chunks // splits
                    for count in range(min(stages, max(2, each)), 1, -1):
                        tile = replace(whole, splits=splits, stages=count if each > 1 else 1)
                        yield TensorChoice(tile, is_flat)


def _chunks(sizes: TensorSizes, chunk: int, is_flat: bool) -> int:
    *outer, inner = sizes.depth
    lines = math.prod(outer)
    return -(-lines * inner // chunk) if is_flat else lines * -(-inner // chunk)


def _splits(chunks: int) -> list[int]:
    most = min(MOST_SPLITS, chunks // FEWEST_CHUNKS)
    return [1, *(split for split in range(2, most + 1) if chunks % split == 0)]


def _blocks(tile: GpuTile, sizes: TensorSizes) -> int:
    tiles = -(-sizes.rows // tile.rows) * -(-sizes.columns // tile.columns)
    return tiles * sizes.batch * tile.splits


def _vectors(tile: GpuTile, sizes: TensorSizes, is_flat: bool) -> tuple[int, int]:
    """What a thread moves of a chunk of each factor. Terms of all axes are moved one by one."""
    left, right = sizes.lanes
    left = tile.rows * tile.depth // (tile.threads * (1 if is_flat else left))
    return left, tile.columns * tile.depth // (tile.threads * right)


def _registers(tile: GpuTile, sizes: TensorSizes, is_flat: bool) -> int:
    """Registers of a thread: sums, two sets of fragments, where vectors come from (the left ones
    each from a row of its own), and what waits to be converted."""
    size = KINDS[tile.kind].dtype.size_bytes
    height, width = tile.rows // tile.down, tile.columns // tile.across
    left, right = _vectors(tile, sizes, is_flat)
    held = tile.rows * tile.columns // tile.threads + (height + width) // 2 + 2 * left + right
    lanes = (1 if is_flat else sizes.lanes[0], sizes.lanes[1])
    for lines, element, count in zip(
        (tile.rows, tile.columns), sizes.element_bytes, lanes, strict=True
    ):
        if element != size or count * size < LEAST_COPY:
            held += lines * tile.depth // tile.threads * element // 4 + _CONVERSION
    return held


def _resident(choice: TensorChoice, sizes: TensorSizes) -> int:
    """Blocks that a multiprocessor holds at once."""
    tile = choice.tile
    registers = _registers(tile, sizes, choice.is_flat) + OTHER_REGISTERS
    return max(
        1,
        min(
            sizes.limit_bytes // (stage_bytes(tile) * tile.stages),
            _REGISTER_FILE // (registers * tile.threads),
            _RESIDENT_THREADS // tile.threads,
        ),
    )


def _cycles(choice: TensorChoice, sizes: TensorSizes) -> float:
    tile = choice.tile
    blocks = _blocks(tile, sizes)
    each = -(-blocks // MULTIPROCESSORS)
    together = min(each, _resident(choice, sizes))
    size = KINDS[tile.kind].dtype.size_bytes
    # each warp reads its rows and its columns
    lines = tile.rows * (tile.across + 1) + tile.columns * (tile.down + 1)
    shared = lines * tile.depth * size / _SHARED_CYCLE_BYTES
    # a vector costs as much as one of 16 bytes
    loads = 16 * sum(_vectors(tile, sizes, choice.is_flat)) * tile.threads / LOAD_BYTES
    stores = tile.rows * tile.columns * 4 / LOAD_BYTES
    chunks = _chunks(sizes, tile.depth, choice.is_flat) / tile.splits

    def turn(count: int) -> float:
        busy = min(1.0, count * tile.threads / 32 / _BUSY_WARPS)
        arithmetic = tile.rows * tile.columns * tile.depth / RATES[tile.kind] / math.sqrt(busy)
        chunk = max(count * max(arithmetic, shared, loads), LATENCY / max(1, tile.stages - 1))
        return chunks * chunk + LATENCY + count * stores + BLOCK_CYCLES

    cycles = in_turns(each, together, turn)
    if tile.splits > 1:
        parts = (tile.splits + 1) * sizes.rows * sizes.columns * sizes.batch * 4
        cycles += LAUNCH_CYCLES + parts / MULTIPROCESSORS / LOAD_BYTES
    return cycles
