"""JAX's random numbers: keys (pairs of uint32) in, bits by Threefry out, the same ones as JAX's.

Threefry-2x32 with 20 rounds: J. Salmon et al., Parallel Random Numbers: As Easy as 1, 2, 3 (SC11).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from aotc.errors import UnsupportedError
from aotc.graph import ops
from aotc.graph.types import DType
from aotc.importers.jax_ops.elementwise import Lowering
from aotc.importers.use import Use
from aotc.tracing.core import binary, constant, emit, reshape
from aotc.tracing.tensor import Tensor, tnp

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


def _rotated(x: Tensor, by: int) -> Tensor:
    return binary("or", binary("shl", x, by), binary("shr", x, 32 - by))


def _threefry(use: Use, key_0: Tensor, key_1: Tensor, x: Tensor, y: Tensor) -> Any:
    """Twenty rounds; a part of the key is added before and after every four."""
    keys = [key_0, key_1, binary("xor", binary("xor", key_0, key_1), _PARITY)]
    x, y = x + keys[0], y + keys[1]
    for group in range(5):
        for by in _ROTATIONS[group % 2]:
            x = x + y
            y = binary("xor", _rotated(y, by), x)
        x = x + keys[(group + 1) % 3]
        y = y + keys[(group + 2) % 3] + constant(group + 1, DType.U32)
    return x, y


def _count(use: Use, shape: Sequence[int]) -> list[Tensor]:
    """The number of each element in row-major order, as its high and its low 32 bits."""
    size = math.prod(shape)
    if size >= 1 << 32:
        raise UnsupportedError(f"{size} random numbers at once")
    low = reshape(emit(ops.Iota((size,), 0, DType.U32)), shape)
    return [tnp.zeros_like(low), low]


RULES: Mapping[str, Lowering] = MappingProxyType(
    {"threefry2x32": _threefry, "iota_2x32_shape": _count}
)
