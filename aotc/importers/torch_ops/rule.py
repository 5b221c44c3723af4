"""What a rule for an ATen operator is, and to which types its operands are brought before it
runs."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aotc.importers.use import Use


class Operands(enum.Enum):
    """The element types in which a rule gets its tensors."""

    GIVEN = "as they are: the operator moves or chooses elements"
    WIDE = "floats of less than 32 bits as float32, which torch computes with too"
    RESULT = "in the type of the result, at least float32 of floats"
    COMMON = "in torch's common type of them, at least float32 of floats"


__all__ = ["Lowering", "Operands", "Rule", "Use", "rules"]

Lowering = Callable[..., Any]
"""(use, *arguments in the order of the operator's schema) -> its result, or a sequence of them.
Arguments that say where and how results are stored, or of which type, are left out."""


@dataclass(frozen=True)
class Rule:
    """How one operator is imported."""

    lower: Lowering
    operands: Operands


def rules(operands: Operands, table: Mapping[str, Lowering]) -> dict[str, Rule]:
    """A rule for each operator in ``table``."""
    return {name: Rule(lower, operands) for name, lower in table.items()}
