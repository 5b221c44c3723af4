"""Programs in, one after the other, the same Programs out with what they have in common shared:
kernels that do the same, constants of the same bytes, and how the weights are packed.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import replace

import numpy as np

from aotc.loop.ir import Kernel
from aotc.loop.program import Call, Program, Role, Storage, map_calls
from aotc.loop.text import print_kernel
from aotc.schedule.book import fits
from aotc.schedule.cpu import ChooseContract, ContractSizes, rank_contracts
from aotc.schedule.recipe import ContractRecipe, Segment
from aotc.target import Target

EVERY = 10_000
"""More recipes than any contraction has."""


class Shared:
    """What the programs of one object have had so far."""

    def __init__(self) -> None:
        self._kernels: dict[str, Kernel] = {}
        self._constants: dict[tuple[int, bytes], Storage] = {}

    def share(self, program: Program) -> Program:
        """``program`` with kernels and constants of earlier ones in place of equal ones."""
        known = {
            storage: self._constants.setdefault(_content(storage), storage)
            for storage in program.storages(Role.CONST)
        }

        def change(call: Call) -> Call:
            args = tuple(replace(a, storage=known.get(a.storage, a.storage)) for a in call.args)
            return replace(call, kernel=self._kernel(call.kernel), args=args)

        return replace(program, steps=map_calls(program.steps, change))

    def _kernel(self, kernel: Kernel) -> Kernel:
        key = print_kernel(replace(kernel, name="k"))
        found = self._kernels.get(key)
        if found is None:
            _, _, name = kernel.name.partition("_")  # the number is that within its program
            found = replace(kernel, name=f"k{len(self._kernels):02d}_{name}")
            self._kernels[key] = found
        return found


def _content(storage: Storage) -> tuple[int, bytes]:
    """What equal constants have in common."""
    assert storage.data is not None
    raw = np.ascontiguousarray(storage.data).reshape(-1).view(np.uint8).data
    return storage.size_bytes, hashlib.sha256(raw).digest()


class SamePanels:
    """Recipes for a model in several sizes: the weights are packed in panels of channels, so the
    first size decides the panels and the others tile their pixels as these allow.

    The contractions of a model come in the same order for every size; those of equal channels and
    depth are told apart by their place in it.
    """

    def __init__(self, choose: ChooseContract) -> None:
        self._choose = choose
        self._first: defaultdict[tuple[int, ...], list[ContractRecipe]] = defaultdict(list)
        self._seen: defaultdict[tuple[int, ...], int] = defaultdict(int)
        self._is_first = True

    def next_size(self) -> None:
        """What follows is the model for another size."""
        self._is_first = False
        self._seen.clear()

    def choose(self, sizes: ContractSizes, target: Target) -> ContractRecipe:
        """The recipe of the cost model (or of whatever chooses) among those with the panels of
        the first size."""
        key = (sizes.channels, sizes.depth, sizes.lanes, sizes.elem_bytes)
        recipe = self._choose(sizes, target)
        known, place = self._first[key], self._seen[key]
        self._seen[key] += 1
        if self._is_first:
            known.append(recipe)
        elif place < len(known):
            return _with_panels(recipe, known[place], sizes, target)
        return recipe


def _with_panels(
    recipe: ContractRecipe, model: ContractRecipe, sizes: ContractSizes, target: Target
) -> ContractRecipe:
    """``recipe``, or the best one with the panels of ``model``; unchanged when there is none."""

    def layout(one: ContractRecipe) -> tuple[int, tuple[Segment, ...]]:
        return one.lanes, one.panels

    if layout(recipe) == layout(model):
        return recipe
    every = (candidate.recipe for candidate in rank_contracts(sizes, target, EVERY))
    best = next((other for other in every if layout(other) == layout(model)), None)
    plain = replace(recipe, lanes=model.lanes, panels=model.panels)
    return best or (plain if fits(plain, sizes, target) else recipe)
