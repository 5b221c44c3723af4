"""Tiles of contractions on a GPU: large where there is work enough, small or split where not."""

import math

import pytest

from aotc.schedule.gpu import MOST_SPLITS, MULTIPROCESSORS, choose_tile
from aotc.schedule.gpu_tensor import TensorSizes, choose_tensor_tile, stage_bytes
from aotc.target import SHARED_BYTES


def tensor_tile(rows, columns, depth, kind="f16", batch=1, element_bytes=(2, 2), arch="sm_80"):
    lanes = tuple(math.gcd(16 // size, depth[-1]) for size in element_bytes)
    flat, limit = len(depth) > 1, SHARED_BYTES[arch]
    sizes = TensorSizes(batch, rows, columns, depth, kind, element_bytes, lanes, flat, limit)
    return choose_tensor_tile(sizes)


def test_tiles_fill_the_gpu_first():
    large = tensor_tile(4096, 4096, (4096,)).tile
    assert large.rows * large.columns >= 128 * 128 and large.stages >= 3
    small = tensor_tile(64, 64, (256,), "tf32").tile
    assert small.rows * small.columns <= 4096
    assert tensor_tile(49, 512, (3, 1536)).tile.splits > 1
    assert choose_tile(4096, 4096, 1, 4096, 4096).columns >= 64
    assert choose_tile(1000, 64, 1, 24, 24).depth == 8


def test_a_short_innermost_axis_is_cut_with_those_around_it():
    assert tensor_tile(12544, 64, (7, 21), element_bytes=(4, 2)).is_flat
    assert not tensor_tile(12544, 64, (3, 192)).is_flat


@pytest.mark.parametrize("arch", ["sm_86", pytest.param("sm_90", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["tf32", "f16"])
def test_every_tensor_tile_can_be_launched(kind, arch):
    for rows in (1, 197, 3136):
        for columns in (10, 1000):
            for depth in ((3,), (3, 9), (2048,)):
                choice = tensor_tile(rows, columns, depth, kind, batch=2, arch=arch)
                tile = choice.tile
                assert tile.threads in (64, 128, 256) and 1 <= tile.splits <= MOST_SPLITS
                assert tile.stages * stage_bytes(tile) <= SHARED_BYTES[arch]
                blocks = -(-rows // tile.rows) * -(-columns // tile.columns) * 2
                assert tile.splits == 1 or blocks < MULTIPROCESSORS


def test_every_tile_of_multiply_adds_can_be_launched():
    for rows in (1, 49, 3136):
        for columns in (10, 64, 1000):
            for depth in (3, 27, 2048):
                tile = choose_tile(rows, columns, 2, depth, depth)
                assert tile.threads in (64, 128, 256) and tile.splits == 1
                held = 2 * (tile.rows + tile.columns) * (tile.depth * 4 + 16)
                assert held <= min(SHARED_BYTES.values())
