"""The cost model: whatever sizes come in, the tiles cover everything once and fit the registers."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_recipe import covered

from aotc.schedule.cpu import ContractSizes, choose_contract
from aotc.schedule.recipe import split_evenly
from aotc.target import resolve_target

TARGETS = {
    "avx2": resolve_target("x86_64", "x86-64-v3"),
    "avx512": resolve_target("x86_64", "x86-64-v4"),
    "neon": resolve_target("aarch64"),
}


@st.composite
def sizes(draw, target):
    """Contractions of every proportion, from one element to a large layer."""
    extent = st.integers(1, 6) | st.integers(1, 70) | st.sampled_from([112, 128, 196, 224, 1000])
    inner = draw(st.integers(1, 12) | st.sampled_from([64, 147, 1024]))
    elem_bytes = draw(st.sampled_from([1, 2, 4, 8]))
    return ContractSizes(
        rows=draw(extent),
        columns=draw(extent),
        channels=draw(extent),
        depth=inner * draw(st.sampled_from([1, 3, 9, 49])),
        inner_depth=inner,
        lanes=target.vector_bits // (8 * max(4, elem_bytes)),
        elem_bytes=elem_bytes,
        overlapping=draw(st.booleans()),
    )


@pytest.mark.parametrize("name", TARGETS)
def test_recipes_cover_once_and_fit_the_registers(name):
    target = TARGETS[name]

    @settings(max_examples=40, deadline=None)
    @given(sizes(target))
    def run(drawn):
        recipe = choose_contract(drawn, target)
        assert covered(recipe.rows) == list(range(drawn.rows))
        assert covered(recipe.columns) == list(range(drawn.columns))
        vectors = -(-drawn.channels // recipe.lanes)
        assert covered(recipe.panels) == list(range(vectors))
        assert recipe.lanes <= drawn.lanes and recipe.lanes & (recipe.lanes - 1) == 0
        assert recipe.depth_unroll >= 1
        for row, column, panel in itertools.product(recipe.rows, recipe.columns, recipe.panels):
            accumulators = row.size * column.size * panel.size
            assert accumulators + panel.size + 1 <= target.vector_registers
        if drawn.channels % recipe.lanes:
            # the vector that ends beyond the last channel must be the last of a panel of its own
            assert recipe.panels[-1].count == 1

    run()


def layer(rows=1, columns=1, channels=1, depth=1, **more):
    """A plain f32 contraction on AVX-512."""
    fields = {
        "inner_depth": depth,
        "lanes": 16,
        "elem_bytes": 4,
        "overlapping": False,
    }
    fields |= {"rows": rows, "columns": columns, "channels": channels, "depth": depth}
    return ContractSizes(**(fields | more))


def test_narrow_results_use_narrow_vectors():
    recipe = choose_contract(layer(columns=16, channels=3, depth=9), TARGETS["avx512"])
    assert recipe.lanes == 4


def test_a_matrix_times_a_vector_spends_no_register_on_pixels_that_are_not_there():
    recipe = choose_contract(layer(channels=1000, depth=2048), TARGETS["avx512"])
    assert recipe.columns == recipe.rows == split_evenly(1, 1)


def test_square_products_fill_most_registers():
    recipe = choose_contract(layer(columns=1024, channels=1024, depth=1024), TARGETS["avx512"])
    tile = recipe.columns[0].size * recipe.panels[0].size
    assert 20 <= tile <= 31


def test_large_weights_are_read_panel_by_panel():
    assert choose_contract(layer(7, 7, 512, 4608), TARGETS["avx2"]).panel_outer
    assert not choose_contract(layer(56, 56, 32, 16), TARGETS["avx2"]).panel_outer


def test_the_choice_depends_on_nothing_but_sizes_and_target():
    sizes = layer(rows=56, columns=56, channels=64, depth=576)
    assert choose_contract(sizes, TARGETS["avx2"]) == choose_contract(sizes, TARGETS["avx2"])


def pairs(columns, channels, depth):
    sizes = layer(columns=columns, channels=channels, depth=depth)
    sizes = replace(sizes, rows=1, lanes=1, inner_depth=depth, paired=True)
    return choose_contract(sizes, resolve_target("cortex-m4"))


def test_pairs_of_int16_fill_the_general_registers():
    assert [s.size for s in pairs(24, 32, 16).columns] == [6]
    assert [s.size for s in pairs(24, 32, 16).panels] == [1]
    assert max(s.size for s in pairs(1, 128, 16).panels) in (4, 5)


def test_what_is_widened_for_a_tile_stays_small():
    (columns,) = pairs(24, 32, 1000).columns
    assert 8 * 1000 * columns.size <= 16 << 10
    assert pairs(1, 8, 10_000).columns[0].size == 1
