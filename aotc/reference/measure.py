"""Functions to time in, the median milliseconds of each out, all measured in one interleaved run.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

SAMPLE_SECONDS = 0.002
"""A sample repeats a fast function until it has run about this long, so that the clock's steps and
the other engines' footprint in the caches do not count."""


@dataclass(frozen=True)
class Measurement:
    """Medians in milliseconds by engine, from ``rounds`` samples each."""

    ms: Mapping[str, float]
    rounds: int


def measure(
    functions: Mapping[str, Callable[[], object]],
    *,
    budget_seconds: float = 2.0,
    min_rounds: int = 7,
    max_rounds: int = 400,
    on_round: Callable[[int], None] | None = None,
) -> Measurement:
    """Times every function once a round, rotating who goes first, until each has had its budget.

    Interleaving makes what else the machine does fall on all alike; the median ignores bursts.
    """
    repeats = {name: _calibrate(function) for name, function in functions.items()}
    samples: dict[str, list[float]] = {name: [] for name in functions}
    order = list(functions)
    deadline = time.perf_counter() + budget_seconds * len(functions)
    rounds = 0
    while rounds < max_rounds and (rounds < min_rounds or time.perf_counter() < deadline):
        for name in order:
            samples[name].append(_sample(functions[name], repeats[name]))
        order.append(order.pop(0))
        rounds += 1
        if on_round is not None:
            on_round(rounds)
    return Measurement(
        {name: statistics.median(values) * 1e3 for name, values in samples.items()}, rounds
    )


def _calibrate(function: Callable[[], object]) -> int:
    """How many calls make one sample, after warming up."""
    function()
    seconds = min(_sample(function, 1) for _ in range(3))
    return max(1, round(SAMPLE_SECONDS / max(seconds, 1e-9)))


def _sample(function: Callable[[], object], repeats: int) -> float:
    """Seconds per call. A fast function first runs once untimed, to find its data in the caches
    again."""
    if repeats > 1:
        function()
    start = time.perf_counter()
    for _ in range(repeats):
        function()
    return (time.perf_counter() - start) / repeats
