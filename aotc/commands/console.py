"""Text and tables to the terminal: plain when piped, with a progress line on stderr when not."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table


@contextmanager
def progress_line(label: str) -> Iterator[Progress]:
    """A progress display on stderr that exists only on a terminal and vanishes when done."""
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as progress:
        progress.add_task(label, total=None)
        yield progress


class StageProgress:
    """Feeds the compiler's progress calls to the progress line."""

    def __init__(self, progress: Progress, label: str) -> None:
        self._progress = progress
        self._label = label

    def __call__(self, stage: str, done: int, total: int) -> None:
        (task,) = self._progress.task_ids
        self._progress.update(
            task, description=f"{self._label}: {stage}", completed=done, total=total
        )


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], right: int = 0) -> None:
    """A table on stdout; the columns from ``right`` on are aligned right when ``right`` is not 0.
    """
    table = Table(box=None, pad_edge=False, show_header=any(headings))
    for index, heading in enumerate(headings):
        justify = "right" if right and index >= right else "left"
        table.add_column(heading, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*row)
    # A pipe has no width: never wrap there, so that the output can be searched line by line.
    width = None if sys.stdout.isatty() else 10_000
    Console(width=width, markup=False, highlight=False, soft_wrap=False).print(table)


def format_bytes(count: int) -> str:
    """``count`` exactly, and rounded when that is easier to read: 1234567 (1.2 MB)."""
    for factor, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= factor:
            return f"{count} ({count / factor:.1f} {unit})"
    return str(count)
