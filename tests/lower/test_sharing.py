"""Programs of one object: equal kernels and constants become one, and sizes agree on panels."""

import numpy as np
from handmade import affine_program, scale_program

from aotc.loop.program import Role
from aotc.lower.sharing import SamePanels, Shared
from aotc.schedule.book import fits
from aotc.schedule.cpu import ContractSizes, choose_contract
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


def test_later_sizes_tile_pixels_within_the_panels_of_the_first():
    for target in TARGETS:
        panels = SamePanels(choose_contract)
        first = [panels.choose(sizes_of(1, channels), target) for channels in (256, 256, 100)]
        assert first[0] == choose_contract(sizes_of(1), target)
        for rows in (3, 32, 1000):
            panels.next_size()
            for one, channels in zip(first, (256, 256, 100), strict=True):
                sizes = sizes_of(rows, channels)
                recipe = panels.choose(sizes, target)
                assert (recipe.lanes, recipe.panels) == (one.lanes, one.panels)
                assert fits(recipe, sizes, target)


def test_what_the_first_size_does_not_have_is_free():
    panels, target = SamePanels(choose_contract), TARGETS[0]
    panels.choose(sizes_of(1), target)
    panels.next_size()
    panels.choose(sizes_of(8), target)
    for sizes in (sizes_of(8), sizes_of(8, depth=64)):
        assert panels.choose(sizes, target) == choose_contract(sizes, target)
