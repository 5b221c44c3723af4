"""Recipes found by measurement: a JSON file in, the recipe of each contraction it knows out, and
the file again.

A recipe is kept by processor and by the sizes of the kernel, so that one file serves several
machines and models and can be committed beside them. What the file does not know, the cost model
decides. Recipes never change a result: each output has its own order of terms.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aotc.errors import UsageError
from aotc.schedule.cpu import ContractSizes, choose_contract
from aotc.schedule.recipe import ContractRecipe, Segment
from aotc.schedule.tiles import fits_tiles
from aotc.target import Target

FORMAT = 1
_REMEDY = "delete the file, or tune again with --tune SECONDS"


@dataclass(frozen=True)
class RecipeBook:
    """``recipes`` by processor (``x86_64/skylake-avx512``), then by `ContractSizes.key`."""

    recipes: Mapping[str, Mapping[str, ContractRecipe]] = field(default_factory=dict)

    def find(self, sizes: ContractSizes, target: Target) -> ContractRecipe | None:
        """The recorded recipe; None when there is none. UsageError when it does not fit the sizes
        or the target's registers."""
        recipe = self.recipes.get(processor(target), {}).get(sizes.key)
        if recipe is not None and not fits(recipe, sizes, target):
            raise UsageError(f"the recorded recipe of '{sizes.key}' does not fit", remedy=_REMEDY)
        return recipe

    def choose(self, sizes: ContractSizes, target: Target) -> ContractRecipe:
        """The recorded recipe, else the cost model's."""
        return self.find(sizes, target) or choose_contract(sizes, target)

    def updated(self, target: Target, found: Mapping[str, ContractRecipe]) -> RecipeBook:
        """A book in which ``found`` replaces what was known for the target's processor."""
        name = processor(target)
        return RecipeBook({**self.recipes, name: {**self.recipes.get(name, {}), **found}})

    def as_text(self) -> str:
        """JSON, sorted, one recipe a line, so that versions of it compare well."""
        table = {
            name: {key: str(recipe) for key, recipe in sorted(entries.items())}
            for name, entries in sorted(self.recipes.items())
        }
        return json.dumps({"format": FORMAT, "recipes": table}, indent=1) + "\n"


def read_book(path: Path) -> RecipeBook:
    """The book in ``path``; UsageError when it cannot be read or is not one."""
    try:
        content = json.loads(path.read_text())
    except OSError as error:
        raise UsageError(
            f"cannot read the recipes: {error.strerror}",
            where=str(path),
            remedy="check the path, or make the file with --tune SECONDS",
        ) from None
    except ValueError:
        raise UsageError("the recipes are not JSON", where=str(path), remedy=_REMEDY) from None
    try:
        return RecipeBook(_recipes(content))
    except ValueError as error:
        raise UsageError(str(error), where=str(path), remedy=_REMEDY) from None


def _recipes(content: Any) -> dict[str, dict[str, ContractRecipe]]:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"the file does not hold recipes of format {FORMAT}")
    table = content.get("recipes")
    if not isinstance(table, dict):
        raise ValueError("the file holds no recipes")
    recipes: dict[str, dict[str, ContractRecipe]] = {}
    for name, entries in table.items():
        if not isinstance(entries, dict):
            raise ValueError(f"the entry '{name}' holds no recipes")
        recipes[name] = {key: ContractRecipe.parse(str(text)) for key, text in entries.items()}
    return recipes


def processor(target: Target) -> str:
    """What recipes are kept by: the architecture and the processor."""
    return f"{target.name}/{target.cpu}"


def fits(recipe: ContractRecipe, sizes: ContractSizes, target: Target) -> bool:
    """Whether the tiles cover the sizes exactly once and their accumulators fit the registers."""
    if not 1 <= recipe.lanes <= sizes.lanes or recipe.lanes & (recipe.lanes - 1):
        return False
    vectors = -(-sizes.channels // recipe.lanes)
    whole = (
        _covers(recipe.rows, sizes.rows)
        and _covers(recipe.columns, sizes.columns)
        and _covers(recipe.panels, vectors)
    )
    if not whole or (sizes.channels % recipe.lanes and recipe.panels[-1].count > 1):
        return False
    if recipe.fetch_ahead and not sizes.streamed:
        return False
    if recipe.packed and not (_covers(recipe.packed, vectors) and _is_joined(recipe)):
        return False
    if sizes.tiled:
        return fits_tiles(recipe, sizes)
    most = max(row.size for row in recipe.rows) * max(column.size for column in recipe.columns)
    widest = max(panel.size for panel in recipe.panels)
    return recipe.depth_unroll >= 1 and most * widest + widest + 1 <= target.vector_registers


def _is_joined(recipe: ContractRecipe) -> bool:
    """Whether every panel is a number of stored panels of one size."""
    for panel in recipe.panels:
        size = recipe.stored_size(panel.start)
        parts = [
            part for part in recipe.packed if part.start < panel.stop and panel.start < part.stop
        ]
        if panel.size % size or any(part.size != size for part in parts):
            return False
        if (panel.start - parts[0].start) % size:
            return False
    return True


def _covers(segments: tuple[Segment, ...], extent: int) -> bool:
    return all(part.count and part.size for part in segments) and segments[-1].stop == extent
