"""The rules of all primitives of JAX that have no program inside."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from aotc.importers.jax_ops import (
    elementwise,
    indexing,
    linear,
    movement,
    products,
    random_bits,
    reduce,
)
from aotc.importers.jax_ops.elementwise import Lowering

RULES: Mapping[str, Lowering] = MappingProxyType(
    {
        **elementwise.RULES,
        **movement.RULES,
        **indexing.RULES,
        **reduce.RULES,
        **products.RULES,
        **linear.RULES,
        **random_bits.RULES,
    }
)
"""By the name of the primitive."""
