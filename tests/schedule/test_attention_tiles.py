"""Tiles of attention: they fit, fill the machine, and share what they can."""

import pytest

from aotc.schedule.attention import AttentionSizes, choose_attention, shared_bytes
from aotc.schedule.gpu import MULTIPROCESSORS

LIMIT = 99 << 10


def chosen(batch, rows, keys, width, kind="f16"):
    sizes = AttentionSizes(batch, rows, keys, width, width, kind, LIMIT)
    tile = choose_attention(sizes)
    assert tile is not None and shared_bytes(tile, sizes) <= LIMIT and tile.threads <= 256
    blocks = -(-rows // tile.rows) * batch * tile.splits
    return tile, blocks


@pytest.mark.parametrize("kind", ["f16", "bf16", "tf32"])
@pytest.mark.parametrize("width", [8, 64, 256])
def test_every_width_has_a_tile(width, kind):
    for batch, rows, keys in ((1, 1, 5000), (16, 4096, 4096)):
        chosen(batch, rows, keys, width, kind)


def test_many_rows_share_loads_and_keep_queries():
    tile, blocks = chosen(16, 4096, 4096, 64)
    assert (tile.fragments, tile.warps, tile.keys, tile.keeps) == (2, 4, 64, True)
    assert tile.splits == tile.parts == 1 and blocks >= 2 * MULTIPROCESSORS


@pytest.mark.parametrize("kind", ["f16", "tf32"])
def test_an_encoder_of_few_tokens_has_no_row_of_steps_to_wait_for(kind):
    tile, blocks = chosen(12, 128, 128, 32, kind)
    assert tile.steps(128) == 1 and tile.parts > 1 and blocks > MULTIPROCESSORS / 2


def test_one_row_over_many_keys_is_split_over_blocks():
    tile, blocks = chosen(12, 1, 4096, 64)
    assert tile.splits > 1 and tile.rows == 16 and blocks >= MULTIPROCESSORS


def test_what_fits_nowhere_has_no_tile():
    sizes = AttentionSizes(1, 128, 128, 64, 64, "tf32", 4 << 10)
    assert choose_attention(sizes) is None
