"""Recipes: the schedule of one kernel as a value: tile sizes, vector width, loop order,
unrolling."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Segment:
    """``count`` tiles of ``size`` elements each, beginning at ``start``."""

    start: int
    count: int
    size: int

    @property
    def stop(self) -> int:
        return self.start + self.count * self.size

    def __str__(self) -> str:
        return f"{self.count}x{self.size}"


@dataclass(frozen=True)
class ContractRecipe:
    """How a contraction [rows, columns, channels] += sum over depth is tiled.

    ``rows`` and ``columns`` tile the two pixel axes, ``panels`` tiles the channel axis in
    vectors of ``lanes``. ``panel_outer`` keeps one panel of weights in cache while all pixels
    pass; otherwise the pixels of a tile stay while all panels pass. ``depth_unroll`` steps of
    the innermost depth loop are laid out in line. ``fetch_ahead`` asks for the left-hand side of
    the next tile while this one is computed. ``packed`` are the panels that the weights lie in if
    those are others: each of ``panels`` is then several of them, side by side.
    """

    lanes: int
    rows: tuple[Segment, ...]
    columns: tuple[Segment, ...]
    panels: tuple[Segment, ...]
    depth_unroll: int
    panel_outer: bool
    fetch_ahead: bool = False
    packed: tuple[Segment, ...] = ()

    @property
    def stored(self) -> tuple[Segment, ...]:
        """The panels that constant weights lie in."""
        return self.packed or self.panels

    def stored_size(self, vector: int) -> int:
        """The size of the stored panel that ``vector`` of the channels lies in."""
        return next(panel.size for panel in self.stored if vector < panel.stop)

    def __str__(self) -> str:
        def show(segments: tuple[Segment, ...]) -> str:
            return "+".join(str(segment) for segment in segments)

        order = "panels>pixels" if self.panel_outer else "pixels>panels"
        return (
            f"rows {show(self.rows)} columns {show(self.columns)} panels {show(self.panels)} "
            f"lanes {self.lanes} depth/{self.depth_unroll} {order}"
            f"{' ahead' if self.fetch_ahead else ''}"
            f"{f' packed {show(self.packed)}' if self.packed else ''}"
        )

    @classmethod
    def parse(cls, text: str) -> ContractRecipe:
        """The recipe that ``str`` printed; ValueError for anything else."""
        found = _RECIPE.fullmatch(text)
        if found is None:
            raise ValueError(f"'{text}' is not a recipe")
        return cls(
            int(found["lanes"]),
            _segments(found["rows"]),
            _segments(found["columns"]),
            _segments(found["panels"]),
            int(found["unroll"]),
            found["order"] == "panels>pixels",
            found["ahead"] is not None,
            _segments(found["packed"]) if found["packed"] else (),
        )


_TILES = r"\d{1,9}x\d{1,9}(?:\+\d{1,9}x\d{1,9})*"
_RECIPE = re.compile(
    rf"rows (?P<rows>{_TILES}) columns (?P<columns>{_TILES}) panels (?P<panels>{_TILES}) "
    r"lanes (?P<lanes>\d{1,3}) depth/(?P<unroll>\d{1,3}) "
    r"(?P<order>panels>pixels|pixels>panels)(?P<ahead> ahead)?"
    rf"(?: packed (?P<packed>{_TILES}))?"
)


def _segments(text: str) -> tuple[Segment, ...]:
    segments: list[Segment] = []
    for part in text.split("+"):
        count, size = map(int, part.split("x"))
        segments.append(Segment(segments[-1].stop if segments else 0, count, size))
    return tuple(segments)


def join_panels(
    stored: tuple[Segment, ...], largest: int, stands_alone: bool
) -> tuple[Segment, ...]:
    """Panels of at most ``largest`` vectors, or of one stored panel, each of which is a number of
    ``stored`` ones side by side; the last of them by itself if it has to be (a partial vector)."""
    runs: list[Segment] = []
    for panel in stored:
        if runs and runs[-1].size == panel.size:
            runs[-1] = Segment(runs[-1].start, runs[-1].count + panel.count, panel.size)
        else:
            runs.append(panel)
    found: list[Segment] = []
    for run in runs:
        for part in split_evenly(run.count, max(1, largest // run.size)):
            start = run.start + part.start * run.size
            found.append(Segment(start, part.count, part.size * run.size))
    last = found[-1]
    if stands_alone and last.count > 1:
        found[-1] = Segment(last.start, last.count - 1, last.size)
        found.append(Segment(last.stop - last.size, 1, last.size))
    return tuple(found)


@dataclass(frozen=True)
class GateRecipe:
    """How a product of several gates a unit is tiled: ``rows`` tiles the rows, ``panels`` the units
    in vectors of ``lanes``; a tile holds every gate of its units. ``depth_unroll`` steps are laid
    out in line."""

    lanes: int
    rows: tuple[Segment, ...]
    panels: tuple[Segment, ...]
    depth_unroll: int

    def __str__(self) -> str:
        rows, panels = ("+".join(map(str, part)) for part in (self.rows, self.panels))
        return f"rows {rows} panels {panels} lanes {self.lanes} depth/{self.depth_unroll}"


def split_evenly(extent: int, largest: int) -> tuple[Segment, ...]:
    """Covers ``extent`` with as few tiles as ``largest`` allows, their sizes differing by at
    most one."""
    tiles = -(-extent // largest)
    size, longer = divmod(extent, tiles)
    segments = []
    if longer:
        segments.append(Segment(0, longer, size + 1))
    if tiles > longer:
        segments.append(Segment(longer * (size + 1), tiles - longer, size))
    return tuple(segments)
