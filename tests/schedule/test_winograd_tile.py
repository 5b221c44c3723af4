"""The choice between Winograd's algorithm and direct convolution, and the height of strips."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aotc.schedule.winograd import LARGE, SMALL, positions, strip_rows, winograd_tile
from aotc.target import resolve_target

TARGET = resolve_target("x86_64")


@pytest.mark.parametrize(
    ("shape", "tile"),
    [
        ((56, 56, 64, 64), LARGE),
        ((28, 28, 128, 128), LARGE),
        ((160, 160, 96, 24), LARGE),
        ((32, 32, 16, 16), LARGE),
        ((14, 14, 256, 256), SMALL),
        ((7, 7, 512, 512), 0),  # the filters alone would take longer to fetch
        ((112, 112, 3, 64), 0),
        ((112, 112, 64, 8), 0),
        ((1, 1, 64, 64), 0),
    ],
)
def test_the_shape_decides(shape, tile):
    assert winograd_tile(*shape) == tile


def test_positions_are_the_inputs_of_a_tile():
    assert (positions(SMALL), positions(LARGE)) == (16, 36)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 60), st.integers(1, 1 << 22), st.integers(1, 1 << 24))
def test_strips_divide_the_rows(rows, row_bytes, filter_bytes):
    assert rows % strip_rows(rows, row_bytes, filter_bytes, TARGET) == 0


def test_strips_keep_their_scratch_in_the_cache():
    room = TARGET.l2_bytes // 2
    assert strip_rows(12, room // 4, 1, TARGET) == 4
    assert strip_rows(12, room // 100, 1, TARGET) == 12


def test_filters_that_leave_the_cache_are_fetched_once():
    room = TARGET.l2_bytes // 2
    assert strip_rows(12, room // 4, 16 * room, TARGET) == 12
