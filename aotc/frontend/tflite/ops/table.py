"""The table of all import rules of TFLite: an operator's name goes in, its rule comes out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aotc.frontend.tflite.ops import (
    contract,
    control,
    detection,
    elementwise,
    movement,
    pool,
    recurrent,
    reduce,
    resize,
)
from aotc.frontend.tflite.use import Rule

FAMILIES: Mapping[str, Mapping[str, Rule]] = MappingProxyType(
    {
        "Convolutions and products": contract.RULES,
        "Pooling": pool.RULES,
        "Elementwise, activations, conversions": elementwise.RULES,
        "Data movement and shapes": movement.RULES,
        "Reductions, softmax, rankings": reduce.RULES,
        "Resizing": resize.RULES,
        "Recurrent": recurrent.RULES,
        "Control flow": control.RULES,
    }
)

RULES: Mapping[str, Rule] = MappingProxyType(
    {name: rule for rules in FAMILIES.values() for name, rule in rules.items()}
)

CUSTOM_RULES: Mapping[str, Rule] = detection.RULES
"""The rules of custom operators, by the name in the file."""
