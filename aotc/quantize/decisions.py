"""The outputs of two models on the same samples in, how many decisions differ out.

A decision is what a program does with an output: the largest of the scores, or on which side of a
threshold a number lies.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aotc.errors import UsageError
from aotc.quantize.margins import MOST, clear_scale, expected_changes

THRESHOLD = 0.5


@dataclass(frozen=True)
class Rule:
    """``kind`` is argmax (along ``axis``), threshold (at ``threshold``), equal (each element) or
    none (the output decides nothing)."""

    kind: str
    axis: int = -1
    threshold: float = THRESHOLD

    def __str__(self) -> str:
        if self.kind == "argmax":
            return f"argmax:{self.axis}"
        return f"threshold:{self.threshold:g}" if self.kind == "threshold" else self.kind

    def decide(self, output: np.ndarray) -> np.ndarray:
        """The decisions in ``output``, an array of them. UsageError when it has no such axis."""
        if self.kind == "none":
            return np.zeros(0, bool)
        if self.kind == "equal":
            return output.reshape(-1)
        if self.kind == "threshold":
            return np.asarray(output > self.threshold).reshape(-1)
        if not -output.ndim <= self.axis < output.ndim or not output.shape[self.axis]:
            raise UsageError(
                f"an output of shape {list(output.shape)} has no axis {self.axis} to take the "
                "largest along",
                remedy="give another axis, as in --decide NAME=argmax:1",
            )
        return np.asarray(output.argmax(axis=self.axis)).reshape(-1)

    def margins(self, output: np.ndarray, decisions: np.ndarray) -> np.ndarray | None:
        """How clearly ``output`` speaks for each of these ``decisions``, negative where it speaks
        for another one: the distance to the next best score, or to the threshold, on the scale of
        `clear_scale`. None where a decision is not a matter of size."""
        if self.kind == "threshold":
            both = np.stack([output.reshape(-1), np.full(output.size, self.threshold)])
            value, limit = clear_scale(both)
            return np.asarray(np.where(decisions, value - limit, limit - value))
        if self.kind != "argmax":
            return None
        scores = np.moveaxis(output, self.axis, -1)
        scores = clear_scale(scores.reshape(-1, scores.shape[-1]))
        place = np.arange(len(scores))
        chosen = scores[place, decisions]
        scores[place, decisions] = -np.inf
        return np.asarray(chosen - scores.max(axis=-1))


@dataclass(frozen=True)
class Decided:
    """The decisions in one output of one sample, and how clear they are, as `Rule.margins`."""

    decisions: np.ndarray
    margins: np.ndarray | None


def read_rules(texts: Mapping[str, str]) -> dict[str, Rule]:
    """The rules of --decide by output, from argmax, argmax:AXIS, threshold:T, equal or none."""
    return {name: _read_rule(name, text) for name, text in texts.items()}


def _read_rule(name: str, text: str) -> Rule:
    kind, colon, value = text.partition(":")
    try:
        if kind == "argmax":
            return Rule(kind, axis=int(value) if colon else -1)
        if kind == "threshold":
            return Rule(kind, threshold=float(value) if colon else THRESHOLD)
    except ValueError:
        kind = ""
    if kind in ("equal", "none") and not colon:
        return Rule(kind)
    raise UsageError(
        f"cannot read '--decide {name}={text}'",
        remedy="write argmax, argmax:AXIS, threshold:NUMBER, equal or none",
    )


def usual_rule(output: np.ndarray) -> Rule:
    """What an output most likely decides: the class with the largest score along the last axis,
    or axis 1 of maps [N, C, H, W]; whether single numbers exceed 0.5; integers as they are."""
    if output.dtype.kind != "f":
        return Rule("equal")
    axis = 1 if output.ndim == 4 else -1
    scores = output.ndim > 0 and output.shape[axis] > 1
    return Rule("argmax", axis=axis) if scores else Rule("threshold")


@dataclass
class Count:
    """So many of ``total`` decisions changed; so many are expected to on samples like these."""

    changed: int = 0
    total: int = 0
    expected: float = 0.0

    @property
    def share(self) -> float:
        """0 to 1, the larger of what changed and what is to be expected."""
        return max(self.changed, self.expected) / self.total if self.total else 0.0

    def holds(self, budget: float) -> bool:
        """Whether that is at most ``budget``; one of 0 is for what changed alone."""
        return self.changed == 0 if budget == 0 else self.share <= budget


class _Tally:
    """One output of all samples."""

    def __init__(self) -> None:
        self.changed = self.total = 0
        self._margins: list[np.ndarray] = []
        self._moved: list[np.ndarray] = []

    def add(
        self, changed: np.ndarray, margins: np.ndarray | None, moved: np.ndarray | None
    ) -> None:
        self.changed += int(changed.sum())
        self.total += changed.size
        if margins is not None and moved is not None and self.total <= MOST:
            self._margins.append(margins)
            self._moved.append(moved)

    def count(self) -> Count:
        expected = 0.0
        if self._margins and self.total <= MOST:
            expected = expected_changes(
                np.concatenate(self._margins), np.concatenate(self._moved)
            )
        return Count(self.changed, self.total, expected)


class Decisions:
    """Counts, output by output, what differs between a model and the one it is to agree with."""

    def __init__(self, rules: Mapping[str, Rule], outputs: Sequence[str]) -> None:
        for name in rules:
            if name not in outputs:
                raise UsageError(
                    f"there is no output '{name}' to decide by",
                    remedy=f"the outputs are: {', '.join(outputs)}",
                )
        self.rules = dict(rules)
        self._tallies: dict[str, _Tally] = {}

    def decide(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Decided]:
        """The decisions of one sample."""
        found = {}
        for name, output in outputs.items():
            rule = self.rules.setdefault(name, usual_rule(output))
            decisions = rule.decide(output)
            found[name] = Decided(decisions, rule.margins(output, decisions))
        return found

    def add(self, found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
        """Takes in one sample. UsageError when the outputs cannot be compared."""
        for name, reference in expected.items():
            if name not in found or found[name].shape != reference.shape:
                shape = list(found[name].shape) if name in found else "none"
                raise UsageError(
                    f"output '{name}' has shape {list(reference.shape)} in one model and {shape} "
                    "in the other",
                    remedy="compare models with the same outputs",
                )
        self.count(found, self.decide(expected))

    def count(self, found: Mapping[str, np.ndarray], expected: Mapping[str, Decided]) -> None:
        """Takes in the outputs of one sample and what the other model decided there."""
        for name, reference in expected.items():
            output = found[name]
            rule = self.rules.setdefault(name, usual_rule(output))
            changed = rule.decide(output) != reference.decisions
            moved = rule.margins(output, reference.decisions)
            self._tallies.setdefault(name, _Tally()).add(changed, reference.margins, moved)

    @property
    def changed(self) -> int:
        """How many decisions differ so far, in all outputs."""
        return sum(tally.changed for tally in self._tallies.values())

    @property
    def counts(self) -> dict[str, Count]:
        """What was counted of each output."""
        return {name: tally.count() for name, tally in self._tallies.items()}

    @property
    def overall(self) -> Count:
        """All outputs together."""
        return total_of(self.counts.values())


def total_of(counts: Iterable[Count]) -> Count:
    """The sum of counts."""
    parts = list(counts)
    return Count(
        sum(part.changed for part in parts),
        sum(part.total for part in parts),
        sum(max(part.changed, part.expected) for part in parts),
    )
