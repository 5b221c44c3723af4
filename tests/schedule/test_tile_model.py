"""The cost model of tile registers: what it proposes fits, what does not fit is refused, and where
tiles gain nothing vectors stay."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aotc.schedule.book import fits
from aotc.schedule.cpu import ContractSizes, rank_contracts
from aotc.schedule.recipe import ContractRecipe
from aotc.schedule.tiles import registers, step_bytes, tile_rows, tiles_pay
from aotc.target import resolve_target

AMX = resolve_target("x86_64", "sapphirerapids")


def sizes(rows, columns, channels, depth, inner=None, tiled=True):
    return ContractSizes(
        rows, columns, channels, depth, inner or depth, 16, 4, overlapping=False, tiled=tiled
    )


@st.composite
def drawn_sizes(draw):
    rows, columns, channels, taps = (draw(st.integers(1, n)) for n in (20, 120, 300, 3))
    inner = step_bytes(extent := draw(st.integers(4, 600))) * -(-extent // step_bytes(extent)) // 4
    return sizes(rows, columns, channels, taps * inner, inner)


@settings(max_examples=40, deadline=None)
@given(drawn_sizes())
def test_what_is_proposed_fits_and_reads_back(drawn):
    assert ContractSizes.parse(drawn.key) == drawn
    for candidate in rank_contracts(drawn, AMX, 6):
        assert fits(candidate.recipe, drawn, AMX)
        assert ContractRecipe.parse(str(candidate.recipe)) == candidate.recipe


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 5000))
def test_steps_are_equal_groups_of_at_most_a_row(extent):
    step = step_bytes(extent)
    assert step % 4 == 0 and 4 <= step <= 64
    steps = -(-extent // step)
    assert steps == -(-extent // 64) and steps * step >= extent


def test_what_does_not_fit_is_refused():
    layer = sizes(14, 14, 256, 576, 192)
    recipe = rank_contracts(layer, AMX, 1)[0].recipe
    assert fits(recipe, layer, AMX)
    six = ContractRecipe.parse(
        "rows 14x1 columns 1x14 panels 2x6+1x4 lanes 16 depth/16 panels>pixels"
    )
    assert sum(registers(1, 6)) > 8 and not fits(six, layer, AMX)
    assert not fits(replace(recipe, depth_unroll=8), layer, AMX)
    # the tiles of the second piece would begin before the first pixel
    uneven = ContractRecipe.parse(
        "rows 14x1 columns 1x3+1x11 panels 16x1 lanes 16 depth/16 panels>pixels"
    )
    assert tile_rows(uneven.columns) == 11 and not fits(uneven, layer, AMX)


@pytest.mark.parametrize(
    ("layer", "pays"),
    [
        ((56, 56, 64, 144, 48), True),  # 3x3, 64 to 64 channels
        ((1, 3136, 256, 16, 16), True),  # 64 to 256 channels
        ((1, 1, 1000, 512, 512), False),  # a single row
    ],
)
def test_tiles_are_used_where_they_pay(layer, pays):
    tiled = sizes(*layer)
    assert tiles_pay(replace(tiled, tiled=False), tiled, AMX) is pays
