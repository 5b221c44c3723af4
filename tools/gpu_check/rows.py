"""Measured figures in, rows of the table of `make cuda-check` and a JSON file out."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

#: The largest error that passes, relative to the largest magnitude of an output.
TOLERANCES = {"f32": 1e-4, "tf32": 2e-3, "f16": 1e-2, "bf16": 2e-2}

HEADINGS = (
    "what", "precision", "ours ms", "theirs ms", "whose", "ratio", "goal", "", "error", "remarks"
)  # fmt: skip
UNMEASURED = "not measured"


@dataclass(frozen=True)
class Row:
    """One line. ``ours`` are seconds; ``peers`` the seconds of others by name, or a sentence that
    says why there are none. ``ratio`` is compared with ``goal``, where there is one. ``problem``
    says what is wrong: then the whole check fails."""

    what: str
    precision: str = ""
    ours: float | None = None
    peers: Mapping[str, float | str] = field(default_factory=dict)
    ratio: float | None = None
    goal: float | None = None
    error: float | None = None
    rate: str = ""
    remarks: str = ""
    problem: str = ""

    @property
    def verdict(self) -> str:
        """One word or two on whether the row holds."""
        if self.problem:
            return "WRONG"
        if self.error is not None and not self.error <= TOLERANCES[self.precision]:
            return "DIFFERS"
        if self.goal is None:
            return "" if self.ours is None and self.error is None and not self.rate else "ok"
        if self.ratio is None:
            return UNMEASURED
        return "holds" if self.ratio >= self.goal else "below"

    @property
    def wrong(self) -> bool:
        """Whether numbers differ or something failed; a goal not reached is not wrong."""
        return self.verdict in ("WRONG", "DIFFERS")

    def cells(self) -> tuple[str, ...]:
        """The texts of the columns."""
        fastest = fastest_peer(self.peers)
        reasons = [f"{who}: {why}" for who, why in self.peers.items() if isinstance(why, str)]
        return (
            self.what,
            self.precision,
            _milliseconds(self.ours),
            _milliseconds(fastest[1] if fastest else None),
            fastest[0] if fastest else "",
            "" if self.ratio is None else f"{self.ratio:.2f}",
            "" if self.goal is None else f"{self.goal:g}",
            self.verdict,
            "" if self.error is None else f"{self.error:.1e}",
            "; ".join(part for part in (self.rate, self.problem, self.remarks, *reasons) if part),
        )


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1e3:.4g}"


def fastest_peer(peers: Mapping[str, float | str]) -> tuple[str, float] | None:
    """Who of those that were measured is fastest, and the seconds."""
    measured = {who: value for who, value in peers.items() if not isinstance(value, str)}
    if not measured:
        return None
    best = min(measured, key=lambda who: measured[who])
    return best, measured[best]


def ratio_to_fastest(ours: float | None, peers: Mapping[str, float | str]) -> float | None:
    """Their time over ours; None where one of the two is missing."""
    fastest = fastest_peer(peers)
    return fastest[1] / ours if fastest and ours else None


def summarize_models(
    rows: Sequence[Row], batch_one: Sequence[bool], mean_goal: float, batch_one_goal: float
) -> list[Row]:
    """The geometric mean of the ratios of the rows of models, and the least at batch 1. They are
    held against their goals only when every row was measured."""
    ratios = [row.ratio for row in rows if row.ratio is not None]
    first = [
        row.ratio for row, one in zip(rows, batch_one, strict=True) if one and row.ratio is not None
    ]
    found = []
    for what, values, goal, count, combine in (
        ("models: geometric mean", ratios, mean_goal, len(rows), _geometric_mean),
        ("models: least at batch 1", first, batch_one_goal, sum(batch_one), min),
    ):
        complete = len(values) == count
        remarks = "" if complete else f"of {len(values)} rows of {count}"
        if values and not complete:
            remarks += f": {combine(values):.2f}"
        ratio = combine(values) if values and complete else None
        found.append(Row(what, ratio=ratio, goal=goal, remarks=remarks))
    return found


def _geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(math.log(value) for value in values) / len(values))


def closing_line(rows: Sequence[Row]) -> str:
    """How many rows hold, and how many do not."""
    verdicts = [row.verdict for row in rows]
    counts = {
        "hold": verdicts.count("holds"),
        "are below their goal": verdicts.count("below"),
        "with a goal were not measured": verdicts.count(UNMEASURED),
        "are wrong": sum(row.wrong for row in rows),
    }
    return "rows: " + ", ".join(f"{count} {what}" for what, count in counts.items())


def markdown_line(row: Row, card: str) -> str:
    """The line of a row in the table of docs/cuda.md; ``card`` says on what and when."""
    (what, precision, ours, _, whose, ratio, goal, _, error, _) = row.cells()
    measured = (ratio, whose, ours, error, card)
    if row.ratio is None:
        measured = ("not yet measured", "", "", "", "none")
    return _markdown((what, precision, goal, *measured))


def _markdown(cells: Sequence[str]) -> str:
    return "".join(f"| {cell} " if cell else "| " for cell in cells) + "|"


def write_json(path: Path, title: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """All figures: what was measured where, and every row with its verdict. Seconds."""
    listed = [{**asdict(row), "verdict": row.verdict} for row in rows]
    path.write_text(json.dumps({**title, "rows": listed}, indent=2) + "\n")
