"""Values in tuples, lists and dictionaries in, a flat list of them out, and the way back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Rebuild = Callable[[Sequence[Any]], Any]


def flatten(tree: Any) -> tuple[list[Any], Rebuild]:
    """The leaves of ``tree`` in order (of a dictionary: as its keys come), and what puts as many
    leaves into its form. None has no leaves."""
    if tree is None:
        return [], lambda leaves: None
    if isinstance(tree, dict):
        keys = list(tree)
        parts, rebuild = flatten([tree[key] for key in keys])
        return parts, lambda leaves: dict(zip(keys, rebuild(leaves), strict=True))
    if not isinstance(tree, tuple | list):
        return [tree], lambda leaves: leaves[0]
    pieces = [flatten(item) for item in tree]
    counts = [len(leaves) for leaves, _ in pieces]

    def rebuild_all(leaves: Sequence[Any]) -> Any:
        made, start = [], 0
        for count, (_, rebuild) in zip(counts, pieces, strict=True):
            made.append(rebuild(leaves[start : start + count]))
            start += count
        if isinstance(tree, tuple) and hasattr(tree, "_fields"):
            return type(tree)(*made)
        return tuple(made) if isinstance(tree, tuple) else made

    return [leaf for leaves, _ in pieces for leaf in leaves], rebuild_all


def names(tree: Any, root: str) -> list[str]:
    """A name for each leaf: ``root`` itself, or with places and keys after it."""
    if tree is None:
        return []
    if isinstance(tree, dict):
        return [name for key in tree for name in names(tree[key], f"{root}_{key}")]
    if isinstance(tree, tuple | list):
        keys = getattr(tree, "_fields", range(len(tree)))
        pairs = zip(keys, tree, strict=True)
        return [name for key, item in pairs for name in names(item, f"{root}_{key}")]
    return [root]


def form(tree: Any) -> Any:
    """What two trees of the same form have in common."""
    if isinstance(tree, dict):
        return {key: form(item) for key, item in tree.items()}
    if isinstance(tree, tuple | list):
        return tuple(form(item) for item in tree)
    return tree is None
