"""An input signature and a seed in, random arrays of a sensible range out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import ml_dtypes
import numpy as np

from aotc.codegen.signature import Param
from aotc.errors import UsageError
from aotc.graph.types import DType, TensorType

#: Integer inputs are drawn below the first of these that the model accepts.
ID_LIMITS = (100, 10, 2, 1)


def make_inputs(
    params: Sequence[Param],
    seed: int,
    given: Mapping[str, np.ndarray] | None = None,
    id_limit: int = ID_LIMITS[0],
) -> dict[str, np.ndarray]:
    """One array per input by name: ``given`` ones as they are, the others drawn at random.

    Floats are normal with mean 0 and deviation 1 and never zero or denormal; integers are uniform
    below ``id_limit``; booleans, and integers whose name says mask, are 0 or 1 with the first
    element 1, so that nothing is masked out completely. An input's values depend on its name, its
    type and ``seed`` only. UsageError when ``given`` names an unknown input.
    """
    given = dict(given or {})
    arrays = {}
    for param in params:
        if param.name in given:
            arrays[param.name] = given.pop(param.name)
        else:
            arrays[param.name] = _draw(param.name, param.type, seed, id_limit)
    if given:
        raise UsageError(
            f"there is no input '{next(iter(given))}'",
            remedy=f"the inputs are: {', '.join(f'{p.name} {p.type}' for p in params) or 'none'}",
        )
    return arrays


def _draw(name: str, type_: TensorType, seed: int, id_limit: int) -> np.ndarray:
    digest = hashlib.sha256(f"{seed} {name} {type_}".encode()).digest()
    random = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    dtype, shape = type_.dtype, type_.dims
    if dtype.is_float:
        drawn = random.standard_normal(shape)
        if dtype is DType.F8E8M0:  # it has no sign
            drawn = np.abs(drawn)
        smallest = float(ml_dtypes.finfo(dtype.numpy).tiny)
        return np.where(np.abs(drawn) < smallest, 1.0, drawn).astype(dtype.numpy)
    is_flag = dtype is DType.BOOL or "mask" in name.lower()
    values = random.integers(0, 2 if is_flag else min(id_limit, dtype.int_range[1] + 1), shape)
    if is_flag and values.size:
        values.reshape(-1)[0] = 1
    return values.astype(dtype.numpy)
