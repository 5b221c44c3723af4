"""Tiles of products by warpgroups: what fits a multiprocessor, and what the model prefers."""

from graph_runs import for_all
from hypothesis import strategies as st

from aotc.schedule.gpu_warpgroup import (
    MULTIPROCESSORS,
    Sizes,
    choose_warpgroup_tile,
    conversion_pays,
    raster,
)
from aotc.target import SHARED_BYTES

SHARED = SHARED_BYTES["sm_90a"]


def sizes(rows, columns, chunks, batch=1, **more):
    return Sizes(columns, batch, chunks, 4, lambda tile: -(-rows // tile), **more)


@for_all(st.data(), 10, 100)
def test_tiles_fit(data):
    draw = data.draw
    rows, columns = draw(st.integers(32, 5000)), draw(st.integers(16, 5000))
    chunks, kind = draw(st.integers(1, 300)), draw(st.sampled_from(["tf32", "f16", "bf16"]))
    most = draw(st.integers(1, 2))
    step = draw(st.sampled_from([16, 64]))
    found = sizes(rows, columns, chunks, draw(st.integers(1, 9)), most_products=most)
    found = Sizes(**{**vars(found), "column_step": step})
    tile = choose_warpgroup_tile(found, kind, SHARED)
    assert tile is not None
    assert tile.shared_bytes <= SHARED
    assert min(2, chunks // tile.splits) <= tile.stages <= chunks // tile.splits
    assert chunks % tile.splits == 0 and tile.columns % step == 0 and tile.products <= most
    assert tile.sums <= 128 and tile.columns % tile.panel_columns == 0


def test_large_products_have_large_tiles():
    for size in (4096, 8192):
        for kind, chunk in (("f16", 64), ("tf32", 32)):
            tile = choose_warpgroup_tile(sizes(size, size, size // chunk), kind, SHARED)
            assert tile is not None and tile.rows * tile.columns == 128 * 256
            assert tile.stages >= 4 and tile.splits == 1


def test_few_results_keep_all_multiprocessors_busy():
    tile = choose_warpgroup_tile(sizes(64, 768, 48), "f16", SHARED)
    assert tile is not None
    blocks = -(-64 // tile.rows) * -(-768 // tile.columns) * tile.splits
    assert MULTIPROCESSORS / 2 <= blocks <= MULTIPROCESSORS


def test_where_no_tile_is():
    none = Sizes(256, 1, 8, 4, lambda tile: None)
    assert choose_warpgroup_tile(none, "f16", SHARED) is None
    assert choose_warpgroup_tile(sizes(256, 256, 8), "f16", 10_000) is None


def test_blocks_share_both_operands():
    assert [raster(down) for down in (1, 7, 13, 32, 98, 17)] == [1, 7, 13, 16, 14, 1]


def test_conversions_pay_where_there_is_much_to_multiply():
    assert conversion_pays(4096**3, 4096**2)
    assert not conversion_pays(128 * 384 * 384, 128 * 384)
