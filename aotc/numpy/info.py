"""What a library can ask of the namespace: its devices, types and abilities."""

from __future__ import annotations

from typing import Any

import numpy as np

from aotc.numpy.eager import checked
from aotc.numpy.types import DTYPES, expect_device, isdtype


class Info:
    """The answers of the standard's inspection functions."""

    def capabilities(self) -> dict[str, Any]:
        """Masks and sizes that depend on numbers work where the numbers are known."""
        return {"boolean indexing": True, "data-dependent shapes": True, "max dimensions": 64}

    def default_device(self) -> str:
        return "cpu"

    def devices(self) -> tuple[str, ...]:
        return ("cpu",)

    def default_dtypes(self, *, device: Any = None) -> dict[str, np.dtype]:
        """What numbers become without a type. There are no complex ones."""
        expect_device(device)
        return {
            "real floating": DTYPES["float64"],
            "integral": DTYPES["int64"],
            "indexing": DTYPES["int64"],
        }

    def dtypes(self, *, device: Any = None, kind: Any = None) -> dict[str, np.dtype]:
        """The types of a kind or of several, by name; all without one."""
        expect_device(device)
        return {
            name: dtype for name, dtype in DTYPES.items() if kind is None or isdtype(dtype, kind)
        }


@checked
def __array_namespace_info__() -> Info:
    """The inspection functions of this namespace."""
    return Info()
