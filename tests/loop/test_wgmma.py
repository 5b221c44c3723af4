"""Layouts of products of warpgroups, as PTX's manual has them, and the rounding of tensor maps."""

import numpy as np
import pytest

from aotc.graph.types import DType
from aotc.loop.ir import Buffer, Lit, Space
from aotc.loop.ir_async import Wgmma
from aotc.loop.mma import KINDS
from aotc.loop.wgmma import (
    left_of_fragments,
    multiply,
    result_elems,
    result_layout,
    right_tile,
    row_tile,
    swizzled,
    to_tf32,
)


def wgmma(kind, columns, step=0):
    """A product of tiles that begin where their buffers do."""
    tile = Buffer("tile", KINDS[kind].dtype, 1 << 15, Space.SHARED, 1024)
    sums = Buffer("sums", DType.F32, columns // 2, Space.REGISTER)
    return Wgmma(kind, columns, sums, Lit(0), tile, Lit(0), tile, Lit(0), step)


def test_results_are_where_the_manual_says():
    rows, columns = result_layout(24)
    assert rows.shape == columns.shape == (128, result_elems(24)) == (128, 12)
    for thread in range(128):
        warp, lane = divmod(thread, 32)
        for i in range(12):
            assert rows[thread, i] == 16 * warp + lane // 4 + 8 * (i // 2 % 2)
            assert columns[thread, i] == 8 * (i // 4) + lane % 4 * 2 + (i & 1)
    assert len({*zip(rows.reshape(-1), columns.reshape(-1), strict=True)}) == 64 * 24


@pytest.mark.parametrize("size", [2, 4])
def test_pieces_of_sixteen_bytes_change_places_in_their_row(size):
    elems = np.arange(2048 // size)
    places = swizzled(elems, size)
    assert np.array_equal(places[places], elems) and places[0] == 0
    in_piece, row, piece = elems % (16 // size), elems * size // 128, elems * size // 16 % 8
    assert np.array_equal(places, (row * 8 + (piece ^ row % 8)) * (16 // size) + in_piece)


def test_tiles():
    assert np.array_equal(row_tile(KINDS["f16"], 3)[:, 0], [0, 64, 128])
    assert np.array_equal(row_tile(KINDS["tf32"], 3)[2], 64 + np.arange(8))
    beside = right_tile(wgmma("bf16", 16))
    assert beside.shape == (16, 16) and beside[3, 2] == 2 * 64 + 3
    across = right_tile(wgmma("bf16", 136, step=4096))
    assert across.shape == (16, 136)
    assert (across[3, 2], across[3, 70], across[0, 130]) == (3 * 64 + 2, 4096 + 3 * 64 + 6, 8194)


@pytest.mark.parametrize("name", KINDS)
def test_products_of_fragments(name):
    """The warps of a group hold 16 rows each, laid out as for a product of one warp."""
    kind, random = KINDS[name], np.random.default_rng(2)
    whole = random.integers(0, 100, (1, 64, kind.depth)).astype(kind.dtype.numpy)
    held = np.zeros((1, 128, kind.left_elems), kind.dtype.numpy)
    pair = 4 // kind.dtype.size_bytes
    for thread in range(128):
        warp, lane = divmod(thread, 32)
        for i in range(kind.left_elems):
            row = lane // 4 + 8 * (i // pair % 2)
            depth = lane % 4 * pair + i % pair + 4 * pair * (i // pair // 2)
            held[0, thread, i] = whole[0, 16 * warp + row, depth]
    assert np.array_equal(left_of_fragments(kind, held), whole)
    if name == "bf16":
        return
    right = random.integers(0, 100, (1, kind.depth, 8)).astype(kind.dtype.numpy)
    sums = multiply(kind, 8, whole, right, np.ones((1, 128, 4), np.float32))
    rows, columns = result_layout(8)
    wanted = 1 + whole[0].astype(np.float64) @ right[0].astype(np.float64)
    assert np.array_equal(sums[0], wanted[rows, columns])


def test_tensor_maps_round_to_the_nearest_even():
    one = np.float32(1).view(np.uint32)
    bits = one + np.array([0, 0xFFF, 0x1000, 0x1001, 0x3000, 0x7FFFFF], np.uint32)
    wanted = one + np.array([0, 0, 0, 0x2000, 0x4000, 0x800000], np.uint32)
    for sign in (0, 0x80000000):
        found = to_tf32((bits | np.uint32(sign)).view(np.float32))
        assert np.array_equal(found.view(np.uint32), wanted | np.uint32(sign))
    special = np.array([np.inf, -np.inf, np.nan], np.float32)
    assert np.array_equal(to_tf32(special), special, equal_nan=True)
