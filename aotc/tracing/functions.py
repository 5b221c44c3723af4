"""numpy's functions on Tensors in, Tensors out: which function here stands for which of numpy's."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from aotc.errors import AotcError
from aotc.tracing import movement, products, reductions
from aotc.tracing.places import misuse, unsupported

_HANDLERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {**movement.FUNCTIONS, **reductions.FUNCTIONS, **products.FUNCTIONS}
)
SUPPORTED: frozenset[str] = frozenset(_HANDLERS)
"""The names of numpy's functions, beside the ufuncs, that trace."""

_DEFAULTS: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {"out": (None,), "where": (True,), "initial": (), "like": (None,), "casting": ("same_kind",),
     "order": (None, "C", "K", "A"), "subok": (True, False), "copy": (None, True, False),
     "kind": (None, "quicksort", "stable", "mergesort", "heapsort"), "stable": (None, True, False),
     "optimize": (True, False), "mode": ("raise",)}
)  # fmt: skip
"""Arguments that may be left out when they have these values."""


def call_function(function: Any, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> Any:
    """``function(*inputs, **named)``; UnsupportedError naming the function or the argument that
    does not trace."""
    module = getattr(function, "__module__", "numpy")
    name = f"{module}.{getattr(function, '__name__', function)}"
    handler = _HANDLERS.get(name.removeprefix("numpy."))
    if handler is None:
        raise unsupported(f"{name} does not trace")
    parameters = inspect.signature(handler).parameters
    given = {
        key: value
        for key, value in named.items()
        if value is not np._NoValue
        and (key in parameters or not _is_default(key, value))
    }
    try:
        inspect.signature(handler).bind(*inputs, **given)
    except TypeError as error:
        raise unsupported(f"{name} does not trace with these arguments: {error}") from None
    try:
        return handler(*inputs, **given)
    except AotcError:
        raise
    except (TypeError, ValueError, IndexError) as error:
        raise misuse(f"{name}: {error}") from None


def _is_default(key: str, value: Any) -> bool:
    return any(value is default or (isinstance(value, str) and value == default)
               for default in _DEFAULTS.get(key, ()))
