"""Stage names in, seconds out: where the time of one compilation went."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from aotc.passes.runner import PassReport


class Stopwatch:
    """Collects wall time per stage, and the report of each pass within the stage of that name."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self.passes: list[PassReport] = []

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        """Counts the time of the ``with`` block as that of stage ``name``."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stages[name] = self.stages.get(name, 0.0) + time.perf_counter() - start

    def add_pass(self, report: PassReport) -> None:
        """Takes what the pass runner says about one pass."""
        self.passes.append(report)

    @property
    def total_seconds(self) -> float:
        return sum(self.stages.values())
