"""What stands in the way of an import: one problem after the other in, one error that lists them
out, each operator once, with how often it occurs and where first."""

from __future__ import annotations

from dataclasses import dataclass

from aotc.errors import UnsupportedError
from aotc.tracing.places import Place


@dataclass
class _Entry:
    count: int
    first: str


class Problems:
    """The operators of one program that cannot be imported, and why."""

    def __init__(self, program: str) -> None:
        self._program = program
        self._found: dict[tuple[str, str], _Entry] = {}

    def add(self, operator: str, reason: str, place: Place | None) -> None:
        """One more use of ``operator``, which ``reason`` keeps out."""
        entry = self._found.setdefault((operator, reason), _Entry(0, str(place or "")))
        entry.count += 1

    def __bool__(self) -> bool:
        return bool(self._found)

    def expect_none(self, remedy: str) -> None:
        """UnsupportedError with the whole list if there is any."""
        if not self._found:
            return
        lines = [
            f"{operator} ({_times(entry.count)}{', first ' if entry.first else ''}{entry.first}):"
            f" {reason}"
            for (operator, reason), entry in self._found.items()
        ]
        raise UnsupportedError(
            "\n  ".join(["some of it cannot be imported", *lines]),
            where=self._program,
            remedy=remedy,
        )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
