"""Problems met while importing: an error goes in; it is raised at once, or listed with the rest."""

from __future__ import annotations

from dataclasses import dataclass

from aotc.errors import AotcError


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
