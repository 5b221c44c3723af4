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
from aotc.schedule.recipe import ContractRecipe, join_panels
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
    """Recipes for a model in several sizes, over one set of weights: the first size that is lowered
    decides the panels in which these lie, and the others read several of them side by side where
    that suits them.

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
        """The recipe of the cost model (or of whatever chooses) among those that can read the
        weights as the first size has packed them."""
        key = (sizes.channels, sizes.depth, sizes.lanes, sizes.elem_bytes)
        recipe = self._choose(sizes, target)
        known, place = self._first[key], self._seen[key]
        self._seen[key] += 1
        if self._is_first:
            known.append(recipe)
        elif place < len(known):
            return _with_weights_of(known[place], recipe, sizes, target)
        return recipe


def _with_weights_of(
    first: ContractRecipe, chosen: ContractRecipe, sizes: ContractSizes, target: Target
) -> ContractRecipe:
    """``chosen``, or else the best recipe that reads weights packed for ``first``."""
    if (chosen.lanes, chosen.panels) == (first.lanes, first.panels):
        return chosen
    every = [chosen, *(candidate.recipe for candidate in rank_contracts(sizes, target, EVERY))]
    fitting = []
    for recipe in every:
        widest = max(panel.size for panel in recipe.panels)
        panels = join_panels(first.panels, widest, sizes.channels % first.lanes != 0)
        packed = () if panels == first.panels else first.panels
        joined = replace(recipe, panels=panels, packed=packed)
        if recipe.lanes == first.lanes and fits(joined, sizes, target):
            if max(panel.size for panel in panels) == widest:
                return joined
            fitting.append(joined)
    return next(iter(fitting), chosen)
