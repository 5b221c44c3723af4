"""The rules of all ATen operators, and which name finds which."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aotc.importers.torch_ops import elementwise, layers, movement, reduce
from aotc.importers.torch_ops.rule import Rule

RULES: Mapping[str, Rule] = MappingProxyType(
    {**elementwise.RULES, **reduce.RULES, **movement.RULES, **layers.RULES}
)


def rule_for(name: str) -> Rule | None:
    """The rule of ``packet.overload``: its own, or that of all overloads."""
    return RULES.get(name) or RULES.get(name.rpartition(".")[0])
