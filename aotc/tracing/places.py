"""The stack of calls in, the line of the user's own code out, and errors that show it."""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aotc.errors import UnsupportedError, UsageError

_INNER = (
    os.path.dirname(np.__file__) + os.sep,
    str(Path(__file__).resolve().parent.parent) + os.sep,
)
"""Where frames are not the user's."""


@dataclass(frozen=True)
class Place:
    """A line of a Python file."""

    file: str
    line: int

    @property
    def origin(self) -> str:
        """What nodes made here are called in dumps: the same on every machine."""
        return f"{Path(self.file).name}:{self.line}"

    def __str__(self) -> str:
        text = linecache.getline(self.file, self.line).strip()
        shown = f"{self.file}:{self.line}"
        return f"{shown}: `{text}`" if text else shown


_SET: ContextVar[Place | None] = ContextVar("place", default=None)


@contextmanager
def at_place(place: Place | None) -> Iterator[None]:
    """What is made inside is of the line ``place``, whoever calls; None changes nothing."""
    token = _SET.set(place or _SET.get())
    try:
        yield
    finally:
        _SET.reset(token)


def here() -> Place:
    """The innermost line that is neither numpy's nor aotc's, or what `at_place` says."""
    known = _SET.get()
    if known is not None:
        return known
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INNER):
        frame = frame.f_back
    return Place(frame.f_code.co_filename, frame.f_lineno)


def misuse(message: str, remedy: str = "") -> UsageError:
    """The error for a mistake on the user's line."""
    return UsageError(message, where=str(here()), remedy=remedy)


def unsupported(message: str, remedy: str = "") -> UnsupportedError:
    """The error for valid numpy that aotc does not trace, on the user's line."""
    remedy = remedy or "compute it outside of the traced function, or of functions that trace"
    return UnsupportedError(message, where=str(here()), remedy=remedy)
