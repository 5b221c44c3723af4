"""Problems met while importing: an error goes in; it is raised at once, or listed with the rest."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from aotc.errors import AotcError, ModelError

T = TypeVar("T")

MALFORMED = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What Python raises on nonsense that no check foresaw; it becomes a ModelError naming the node."""


@dataclass(frozen=True)
class Problem:
    """One thing that stops a compile. ``node`` names the node (or input), ``operator`` and
    ``opset`` are empty and 0 where there is none."""

    node: str
    operator: str
    opset: int
    reason: str
    remedy: str = ""


class Reporter:
    """Raises the first error with its place filled in, or, with ``collect``, lists all of them."""

    def __init__(self, file: str, collect: bool) -> None:
        self._file = file
        self._collect = collect
        self.problems: list[Problem] = []

    def strict(self) -> Reporter:
        """A reporter for the same file that raises."""
        return Reporter(self._file, collect=False)

    def report(self, error: AotcError, node: str = "", operator: str = "", opset: int = 0) -> None:
        """Raise or list ``error``, which concerns ``node``."""
        if error.where.startswith(self._file):
            raise error  # a node inside this one has said what is wrong
        remedy = error.remedy or "the model contradicts itself here: correct or export it again"
        if self._collect:
            problem = Problem(node, operator, opset, error.message, remedy)
            if problem not in self.problems:
                self.problems.append(problem)
            return
        where = self._file
        if operator:
            version = f", opset {opset}" if opset else ""
            where += f": node '{node}' ({operator}{version})"
        raise type(error)(error.message, where=where, remedy=remedy) from error


def import_file(
    path: Path, collect: bool, read: Callable[[Reporter], T | None], remedy: str
) -> tuple[T | None, list[Problem]]:
    """What ``read`` makes of the model in ``path``, and with ``collect`` all that stops it; else
    the first such thing is raised. ``remedy`` is that of a file on which the import fails in a way
    that no check foresaw."""
    reporter = Reporter(str(path), collect)
    imported = None
    try:
        imported = read(reporter)
    except AotcError as error:
        if error.where.startswith(str(path)):
            raise
        reporter.report(error)
    except MALFORMED as error:
        text = f"the model cannot be read: {type(error).__name__}: {error}"
        reporter.report(ModelError(text, remedy=remedy))
    return imported, reporter.problems
