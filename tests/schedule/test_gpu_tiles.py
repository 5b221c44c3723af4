"""Tiles of contractions on a GPU: large where there is work enough, small or split where not."""

import pytest

from aotc.schedule.gpu import MOST_SPLITS, MULTIPROCESSORS, choose_tile
from aotc.target import SHARED_BYTES


def test_tiles_fill_the_gpu_first():
    assert choose_tile(4096, 4096, 1, 4096, 4096, "f16").rows == 128
    small = choose_tile(64, 64, 1, 256, 256, "tf32")
    assert small.rows * small.columns <= 4096 and small.depth == 32
    assert choose_tile(1000, 64, 1, 24, 24, "tf32").depth == 8
    assert choose_tile(49, 512, 1, 4608, 512, "f16").splits > 1
    assert choose_tile(49, 512, 1, 4608, 512, "fma").splits == 1


@pytest.mark.parametrize("kind", ["fma", "tf32", "f16", "bf16"])
def test_every_choice_can_be_launched(kind):
    for rows in (1, 49, 197, 3136):
        for columns in (10, 64, 1000):
            for depth in (3, 27, 64, 2048):
                tile = choose_tile(rows, columns, 2, depth, depth, kind)
                assert tile.threads in (64, 128, 256) and 1 <= tile.splits <= MOST_SPLITS
                size = 2 if kind in ("f16", "bf16") else 4
                held = 2 * (tile.rows + tile.columns) * (tile.depth * size + 16)
                assert held <= min(SHARED_BYTES.values())
                chunks = -(-depth // tile.depth)
                assert chunks % tile.splits == 0
                blocks = -(-rows // tile.rows) * -(-columns // tile.columns) * 2
                assert tile.splits == 1 or blocks < MULTIPROCESSORS
