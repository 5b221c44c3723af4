"""The rules of all operators of torch, and which name finds which. Those of ATen go without
the name of the library."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aotc.importers.torch_ops import elementwise, layers, linear, movement, quantized, reduce
from aotc.importers.torch_ops.rule import Rule

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **elementwise.RULES,
        **reduce.RULES,
        **movement.RULES,
        **layers.RULES,
        **linear.RULES,
        **quantized.RULES,
    }
)


def rule_for(name: str) -> Rule | None:
    """The rule of ``library.operator.overload``: its own, or that of all overloads."""
    own = name.removeprefix("aten.")
    return RULES.get(own) or RULES.get(own.rpartition(".")[0])
