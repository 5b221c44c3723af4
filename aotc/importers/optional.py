"""The packages that only some users have: a name in, the module or a clear error out."""

from __future__ import annotations

import importlib
from types import ModuleType

from aotc.errors import UsageError


def optional_package(name: str, function: str) -> ModuleType:
    """The module ``name``, which ``function`` needs; UsageError when it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UsageError(
            f"{function} needs the package {name}, which cannot be imported: {error}",
            remedy=f"pip install 'aotc[{name}]'",
        ) from None
