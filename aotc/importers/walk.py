"""What the importers of programs share: results checked against the types that the framework gives
them, and what is refused collected instead of raised."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aotc.errors import AotcError, ModelError
from aotc.frontend.problems import MALFORMED
from aotc.graph.types import TensorType
from aotc.importers.problems import Problems
from aotc.tracing.core import cast, lift
from aotc.tracing.places import Place, at_place
from aotc.tracing.tensor import Tensor


class Incomplete(Exception):
    """A nested program has a value that could not be imported; the reason is listed."""


class Failed:
    """What stands for a value that there is none of."""


FAILED = Failed()
"""What an operator that cannot be imported leaves behind: the reason is listed."""

UNGIVEN = Failed()
"""A result that the rule of its operator does not compute, such as what only training needs."""


def has_failed(value: Any) -> bool:
    """Whether ``value``, or something in it, could not be imported."""
    return _holds(value, FAILED)


def is_incomplete(value: Any) -> bool:
    """Whether ``value``, or something in it, is not computed."""
    return _holds(value, UNGIVEN)


def _holds(value: Any, mark: Failed) -> bool:
    if isinstance(value, list | tuple):
        return any(_holds(item, mark) for item in value)
    return value is mark


def expected(value: Any, type_: TensorType | None) -> Any:
    """``value`` as a Tensor of ``type_``: rounded to its element type; ModelError when the shape is
    another one."""
    if type_ is None:
        return value
    x = cast(lift(value), type_.dtype)
    if x.shape != type_.shape:
        raise ModelError(f"its result should be {type_}, but was lowered to {x.type}")
    return x


def listed(
    value: Any, types: Sequence[TensorType | None], single: bool
) -> Any:
    """The result of a rule, `expected` one by one; as a list unless ``single``. A result of a type
    that the rule leaves out (None) may not be used: it is UNGIVEN."""
    if single:
        return expected(value, types[0] if types else None)
    values = list(value) if isinstance(value, list | tuple) else [value]
    values += [None] * (len(types) - len(values))
    return [
        UNGIVEN if x is None and type_ is not None else expected(x, type_)
        for x, type_ in zip(values, types, strict=False)
    ]


def attempt(
    make: Callable[[], Any], operator: str, place: Place | None, problems: Problems
) -> Any:
    """``make()``, or FAILED with the reason added to ``problems``."""
    try:
        with at_place(place):
            return make()
    except Incomplete:
        return FAILED
    except AotcError as error:
        problems.add(operator, error.message, place)
    except MALFORMED as error:
        plain = isinstance(error, ValueError)
        text = str(error) if plain else f"cannot be read: {type(error).__name__}: {error}"
        problems.add(operator, text, place)
    return FAILED


def distinct(names: Sequence[str]) -> list[str]:
    """``names``, numbered where a place and a key make the same one."""
    found: list[str] = []
    for name in names:
        unique, number = name, 1
        while unique in found:
            number += 1
            unique = f"{name}_{number}"
        found.append(unique)
    return found


def whole(values: Sequence[Any]) -> list[Tensor]:
    """The results of a nested program; Incomplete when one of them could not be imported."""
    if has_failed(list(values)):
        raise Incomplete
    return [lift(value) for value in values]
