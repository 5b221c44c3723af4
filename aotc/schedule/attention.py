"""The cost model of attention on a GPU: sizes go in, the tile of one block comes out.

Each warp has some rows of queries, and passes over keys. A step of it takes as long as its
instructions, its products, its reads of shared memory or the latency of a chain of them, whichever
is longest. Rows fill the machine first; where they are too few, warps of a block share the keys of
the same rows, then blocks do, which costs a second kernel. The figures are those of the model of
contractions (schedule/gpu.py) and instruction counts of the code as it is written; no result of a
measurement is in them.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

from aotc.loop.launch import WARP
from aotc.loop.mma import COLUMNS, KINDS, RESULT_ELEMS, ROWS
from aotc.schedule.gpu import (
    BLOCK_CYCLES,
    LATENCY,
    LAUNCH_CYCLES,
    LOAD_BYTES,
    MULTIPROCESSORS,
)

#: Bytes by which rows of shared memory are apart beyond their own, so that reads meet all banks.
PAD_BYTES = 16
#: Rows of warps, groups of warps with keys of their own, keys of a step, blocks that share keys.
_FRAGMENTS, _WARPS, _PARTS = (2, 1), (4, 2, 1, 8), (1, 2, 4, 8)
_KEYS, _SPLITS = (64, 32, 16), (1, 2, 3, 4, 6, 8, 12, 16)
_STAGES = (3, 2, 1)
MOST_WARPS = 8
#: Registers of a thread that the code may plan with, those it needs beside fragments, and those of
#: a multiprocessor.
MOST_REGISTERS, OTHER_REGISTERS, REGISTER_FILE = 254, 60, 1 << 16
#: Copies of 16 bytes that a thread begins in one step for keys, or values: their addresses take
#: registers, because ptxas unrolls them.
MOST_COPIES = 16
#: Threads and bytes of shared memory of a multiprocessor, the latter without what the system takes.
RESIDENT_THREADS, RESIDENT_BYTES = 2048, 160 << 10
SCHEDULERS = 4
#: Cycles of one product of a warp, of the instructions for one score of each thread, of what waits
#: for each other in a step and to hand over results, and bytes of shared memory in a cycle.
PRODUCT_CYCLES, SCORE_CYCLES, STEP_CYCLES, SHARED_BYTES = 8, 11, 300, 128


@dataclass(frozen=True)
class AttentionSizes:
    """``batch`` attentions of ``rows`` queries over ``keys``, in products of ``kind``; keys are
    ``width`` wide, values ``value_width``. ``limit_bytes`` is the shared memory of a block."""

    batch: int
    rows: int
    keys: int
    width: int
    value_width: int
    kind: str
    limit_bytes: int

    @property
    def element_bytes(self) -> int:
        return KINDS[self.kind].dtype.size_bytes

    @property
    def depth_steps(self) -> int:
        """Products over the width of queries and keys."""
        return -(-self.width // KINDS[self.kind].depth)

    @property
    def stride(self) -> int:
        """Elements from a row of queries or keys in shared memory to the next."""
        depth = KINDS[self.kind].depth
        return self.depth_steps * depth + PAD_BYTES // self.element_bytes

    @property
    def value_stride(self) -> int:
        """The same of values, which are loaded in pairs of groups of columns."""
        width = -(-self.value_width // (2 * COLUMNS)) * 2 * COLUMNS
        return width + PAD_BYTES // self.element_bytes


@dataclass(frozen=True)
class AttentionTile:
    """A block has ``parts`` groups of ``warps`` warps. Each warp has ``fragments`` times 16 rows;
    groups have the same rows, and in each step ``keys`` keys of their own, of which ``stages``
    steps are in shared memory. ``splits`` blocks share the keys. ``keeps`` tells whether queries
    wait in registers."""

    fragments: int
    warps: int
    parts: int
    keys: int
    stages: int
    splits: int
    keeps: bool = True

    @property
    def rows(self) -> int:
        return ROWS * self.fragments * self.warps

    @property
    def threads(self) -> int:
        return WARP * self.warps * self.parts

    @property
    def step(self) -> int:
        """Keys of one step of the block."""
        return self.keys * self.parts

    def steps(self, keys: int) -> int:
        """Steps of one block."""
        return -(-keys // (self.step * self.splits))

    def __str__(self) -> str:
        shape = f"{self.rows}x{self.step} warps {self.warps}x{self.parts} stages {self.stages}"
        return f"{shape} split {self.splits}" if self.splits > 1 else shape


def choose_attention(sizes: AttentionSizes) -> AttentionTile | None:
    """The tile that the model finds fastest; None where none fits."""

    def cost(tile: AttentionTile) -> tuple[float, int, int]:
        return _cycles(tile, sizes), tile.threads, shared_bytes(tile, sizes)

    return min(_choices(sizes), key=cost, default=None)


def shared_bytes(tile: AttentionTile, sizes: AttentionSizes) -> int:
    """Shared memory of a block: queries, stages of keys and values, and what parts hand over."""
    queries = tile.rows * sizes.stride
    stages = tile.stages * tile.step * (sizes.stride + sizes.value_stride)
    handed = (tile.parts - 1) * tile.warps * WARP * handed_numbers(tile, sizes.value_width)
    return (queries + stages) * sizes.element_bytes + 4 * handed


def handed_numbers(tile: AttentionTile, value_width: int) -> int:
    """Numbers that a thread of one part hands to that of another: sums, totals, largest scores."""
    return tile.fragments * (value_width // COLUMNS * RESULT_ELEMS + RESULT_ELEMS + 2)


def _choices(sizes: AttentionSizes) -> Iterator[AttentionTile]:
    for fragments, warps, parts in itertools.product(_FRAGMENTS, _WARPS, _PARTS):
        if warps * parts > MOST_WARPS:
            continue
        for keys, stages, splits in itertools.product(_KEYS, _STAGES, _SPLITS):
            tile = AttentionTile(fragments, warps, parts, keys, stages, splits)
            busy = _blocks(replace(tile, splits=1), sizes) >= MULTIPROCESSORS
            if splits > 1 and (busy or splits * tile.step > sizes.keys):
                continue
            if stages == 1 and tile.steps(sizes.keys) > 1:
                continue
            if _registers(tile, sizes) > MOST_REGISTERS:
                tile = replace(tile, keeps=False)
            fits = shared_bytes(tile, sizes) <= sizes.limit_bytes
            row = max(sizes.width, sizes.value_width) * sizes.element_bytes // PAD_BYTES
            fits &= tile.step * row <= MOST_COPIES * tile.threads
            if fits and _registers(tile, sizes) <= MOST_REGISTERS:
                yield tile


def _registers(tile: AttentionTile, sizes: AttentionSizes) -> int:
    """An estimate for one thread."""
    kind = KINDS[sizes.kind]
    queries = kind.words(kind.left_elems) * (sizes.depth_steps if tile.keeps else 1)
    groups = tile.keys // COLUMNS + sizes.value_width // COLUMNS
    return tile.fragments * (queries + (groups + 3) * RESULT_ELEMS) + OTHER_REGISTERS


def _blocks(tile: AttentionTile, sizes: AttentionSizes) -> int:
    return -(-sizes.rows // tile.rows) * sizes.batch * tile.splits


def _cycles(tile: AttentionTile, sizes: AttentionSizes) -> float:
    blocks = _blocks(tile, sizes)
    resident = min(
        REGISTER_FILE // (_registers(tile, sizes) * tile.threads),
        RESIDENT_BYTES // shared_bytes(tile, sizes),
        RESIDENT_THREADS // tile.threads,
    )
    together = min(max(1, resident), -(-blocks // MULTIPROCESSORS))
    warps = together * tile.warps * tile.parts
    groups, steps = tile.keys // COLUMNS, tile.steps(sizes.keys)
    depth = KINDS[sizes.kind].depth
    products = groups * (sizes.depth_steps + sizes.value_width // depth) * tile.fragments
    instructions = groups * RESULT_ELEMS * SCORE_CYCLES * tile.fragments + products
    read = tile.keys * (sizes.stride + sizes.value_stride) * sizes.element_bytes
    read += 0 if tile.keeps else ROWS * tile.fragments * sizes.stride * sizes.element_bytes
    brought = tile.step * (sizes.width + sizes.value_width) * sizes.element_bytes
    alone = instructions + PRODUCT_CYCLES * products
    step = max(
        -(-warps // SCHEDULERS) * max(instructions, PRODUCT_CYCLES * products),
        alone + STEP_CYCLES,
        LATENCY / max(1, tile.stages - 1),
        warps * read / SHARED_BYTES,
        together * brought / LOAD_BYTES,
    )
    turns = max(1.0, blocks / (MULTIPROCESSORS * together))
    cycles = turns * (steps * step + BLOCK_CYCLES + (tile.parts - 1) * STEP_CYCLES)
    if tile.splits > 1:
        handed = tile.splits * sizes.batch * sizes.rows * sizes.value_width * 4
        cycles += LAUNCH_CYCLES + 2 * handed / MULTIPROCESSORS / LOAD_BYTES
    return cycles
