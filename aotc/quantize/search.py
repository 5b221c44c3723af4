"""A quantised model that changes too many decisions in, the few layers that need finer numbers out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from aotc.quantize.calibrate import Progress
from aotc.quantize.decisions import Decisions, Rule
from aotc.quantize.errors import Closeness
from aotc.quantize.runner import Arrays, Runner
from aotc.quantize.samples import Inputs
from aotc.quantize.switches import Switched

RANKING_SAMPLES = 16
"""So many samples tell how much each layer alone does to the outputs."""

_EXCHANGES = 16
"""At most so many of the chosen layers are tried switched on again."""


@dataclass(frozen=True)
class Damage:
    """What one layer on codes does by itself: the share of decisions that change, and the squared
    error of the outputs relative to their squares."""

    name: str
    changed: float
    error: float


class Search:
    """Runs the model with any choice of its layers on codes.

    What the outputs decide is compared with ``exact``, the float model.
    """

    def __init__(
        self,
        switched: Switched,
        runner: Runner,
        exact: Runner,
        samples: Iterable[Inputs],
        rules: Mapping[str, Rule],
        outputs: Sequence[str],
        progress: Progress,
    ) -> None:
        self._names = [unit.name for unit in switched.units]
        self._switch = switched.switches
        self._runner = runner
        self._samples = samples
        self._rules = rules
        self._outputs = outputs
        self._progress = progress
        judge = self._judge()
        self._expected = [judge.decide(exact(inputs)) for inputs in samples]

    def rank(self) -> list[Damage]:
        """The layers, the one that does most damage by itself first."""
        some = list(islice(self._samples, RANKING_SAMPLES))
        none_on = np.zeros(len(self._names), bool)
        exact = [self._run(inputs, none_on) for inputs in some]
        found = []
        for place, name in enumerate(self._names):
            self._progress("ranking layers", place, len(self._names))
            on = none_on.copy()
            on[place] = True
            judge, errors = self._judge(), {name: Closeness() for name in exact[0]}
            for inputs, expected in zip(some, exact, strict=True):
                outputs = self._run(inputs, on)
                judge.add(outputs, expected)
                for output, array in outputs.items():
                    errors[output].add(array, expected[output])
            error = sum(closeness.relative for closeness in errors.values())
            found.append(Damage(name, judge.overall.share, error))
        # Errors first: single layers change so few decisions that these hardly tell them apart.
        return sorted(found, key=lambda damage: (-damage.error, -damage.changed))

    def fewest(self, ranking: Sequence[Damage], budget: float) -> list[str]:
        """The fewest of the worst layers, and of these no more than needed, with which at most a
        share ``budget`` of the decisions changes; all layers if need be."""
        names = [damage.name for damage in ranking]
        count = _least(len(names), lambda n: self.holds(names[:n], budget))
        kept = names[:count]
        for name in list(reversed(kept[:-1]))[:_EXCHANGES]:
            without = [other for other in kept if other != name]
            if self.holds(without, budget):
                kept = without
        return kept

    def holds(self, kept: Sequence[str], budget: float) -> bool:
        """Whether at most a share ``budget`` of the decisions changes, or is to be expected to,
        when all layers but ``kept`` are switched on; ends with the first sample that decides it."""
        self._progress(f"trying {len(kept)} of {len(self._names)} with more bits", 0, 0)
        on = np.array([name not in kept for name in self._names])
        judge = self._judge()
        total = sum(part.decisions.size for s in self._expected for part in s.values())
        for inputs, expected in zip(self._samples, self._expected, strict=True):
            judge.count(self._run(inputs, on), expected)
            if judge.changed > budget * total:
                return False
        return judge.overall.holds(budget)

    def _judge(self) -> Decisions:
        return Decisions(self._rules, self._outputs)

    def _run(self, inputs: Inputs, on: np.ndarray) -> Arrays:
        return self._runner({**inputs, self._switch: on})


def _least(most: int, holds: Callable[[int], bool]) -> int:
    """The least number up to ``most`` that ``holds``, if that is so for all after the first one;
    numbers are tried in doubling steps, and then between the last two."""
    low, high = -1, 0
    while high < most and not holds(high):
        low, high = high, min(max(1, 2 * high), most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
