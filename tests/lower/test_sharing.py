"""Programs of one object: equal kernels and constants become one, and sizes agree on panels."""

from dataclasses import replace

import numpy as np
import pytest
from handmade import affine_program, scale_program

from aotc.loop.program import Role
from aotc.lower.sharing import SamePanels, Shared
from aotc.schedule.book import fits
from aotc.schedule.cpu import ContractSizes, choose_contract
from aotc.schedule.recipe import ContractRecipe, Segment, join_panels
from aotc.target import resolve_target

TARGETS = [resolve_target("x86_64"), resolve_target("x86_64", "x86-64-v4")]


def test_equal_kernels_and_constants_are_one_object():
    shared = Shared()
    first, second = (shared.share(affine_program("net", seed)) for seed in (1, 1))
    assert first.kernels() == second.kernels()
    assert first.storages(Role.CONST) == second.storages(Role.CONST)
    other = shared.share(affine_program("net", 2))
    assert first.kernels() == other.kernels()
    assert not set(first.storages(Role.CONST)[:1]) & set(other.storages(Role.CONST))


def test_kernels_of_one_name_that_differ_stay_apart():
    shared = Shared()
    first = shared.share(affine_program("net"))
    second = shared.share(scale_program("net", np.ones(24, np.float32)))
    names = [kernel.name for kernel in (*first.kernels(), *second.kernels())]
    assert len(set(names)) == len(set((*first.kernels(), *second.kernels())))


def sizes_of(rows, channels=256, depth=128):
    return ContractSizes(1, rows, channels, depth, depth, 8, 4, False)


@pytest.mark.parametrize("target", TARGETS, ids=str)
@pytest.mark.parametrize("order", [(32, 8, 1), (1, 3, 1000)])
def test_later_sizes_read_the_weights_as_the_first_has_packed_them(target, order):
    panels, all_channels = SamePanels(choose_contract), (256, 256, 100, 7, 24)
    first = [panels.choose(sizes_of(order[0], channels), target) for channels in all_channels]
    assert first[0] == choose_contract(sizes_of(order[0]), target)
    for rows in order[1:]:
        panels.next_size()
        for one, channels in zip(first, all_channels, strict=True):
            sizes = sizes_of(rows, channels)
            recipe = panels.choose(sizes, target)
            assert (recipe.lanes, recipe.stored) == (one.lanes, one.panels)
            assert fits(recipe, sizes, target)
            assert ContractRecipe.parse(str(recipe)) == recipe


def test_a_single_row_still_takes_wide_tiles():
    panels, target = SamePanels(choose_contract), TARGETS[0]
    packed = panels.choose(sizes_of(32), target)
    panels.next_size()
    recipe = panels.choose(sizes_of(1), target)
    widest = [max(panel.size for panel in one.panels) for one in (packed, recipe)]
    assert widest[1] >= 2 * widest[0]


def test_panels_that_do_not_join_do_not_fit():
    panels, target = SamePanels(choose_contract), TARGETS[0]
    panels.choose(sizes_of(32), target)
    panels.next_size()
    sizes = sizes_of(1)
    recipe = panels.choose(sizes, target)
    assert recipe.packed and fits(recipe, sizes, target)
    for packed in ((Segment(0, 1, 5), Segment(5, 9, 3)), (Segment(0, 8, 3),)):
        assert not fits(replace(recipe, packed=packed), sizes, target)


def test_joined_panels_cover_what_is_stored():
    stored = (Segment(0, 5, 3), Segment(15, 4, 2), Segment(23, 1, 2))
    assert join_panels(stored, 6, False) == (
        Segment(0, 2, 6), Segment(12, 1, 3), Segment(15, 1, 6), Segment(21, 1, 4),
    )
    assert join_panels(stored, 1, True)[-1] == Segment(23, 1, 2)
    assert join_panels((Segment(0, 4, 2),), 4, True) == (Segment(0, 1, 4), Segment(4, 1, 4))


def test_what_the_first_size_does_not_have_is_free():
    panels, target = SamePanels(choose_contract), TARGETS[0]
    panels.choose(sizes_of(1), target)
    panels.next_size()
    panels.choose(sizes_of(8), target)
    for sizes in (sizes_of(8), sizes_of(8, depth=64)):
        assert panels.choose(sizes, target) == choose_contract(sizes, target)
