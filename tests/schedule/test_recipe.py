"""Segments: every extent is covered once, by as few and as equal tiles as possible."""

from hypothesis import given
from hypothesis import strategies as st

from aotc.schedule.recipe import ContractRecipe, Segment, split_evenly


def covered(segments):
    """Every element that the tiles of ``segments`` hold, in order."""
    return [
        segment.start + tile * segment.size + i
        for segment in segments
        for tile in range(segment.count)
        for i in range(segment.size)
    ]


@given(st.integers(1, 400), st.integers(1, 80))
def test_split_evenly_covers_once_with_the_fewest_tiles(extent, largest):
    segments = split_evenly(extent, largest)
    assert covered(segments) == list(range(extent))
    sizes = [segment.size for segment in segments]
    assert max(sizes) <= largest and max(sizes) - min(sizes) <= 1
    assert sum(segment.count for segment in segments) == -(-extent // largest)
    assert all(segment.count > 0 for segment in segments) and len(segments) <= 2


def test_a_segment_knows_its_end():
    assert Segment(3, 4, 5).stop == 23
    assert str(Segment(3, 4, 5)) == "4x5"


def test_a_recipe_prints_on_one_line():
    recipe = ContractRecipe(
        8, (Segment(0, 1, 1),), (Segment(0, 2, 6), Segment(12, 1, 5)), (Segment(0, 3, 2),), 4, True
    )
    assert str(recipe) == (
        "rows 1x1 columns 2x6+1x5 panels 3x2 lanes 8 depth/4 panels>pixels"
    )
