"""The outputs of two models on the same samples in, how many decisions differ out.

A decision is what a program does with an output: the largest of the scores, or on which side of a
threshold a number lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from aotc.errors import UsageError

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
    """So many of ``total`` decisions changed."""

    changed: int = 0
    total: int = 0

    @property
    def share(self) -> float:
        """0 to 1."""
        return self.changed / self.total if self.total else 0.0


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
        self.counts: dict[str, Count] = {}

    def decide(self, outputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The decisions of one sample."""
        return {
            name: self.rules.setdefault(name, usual_rule(output)).decide(output)
            for name, output in outputs.items()
        }

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
        self.count(self.decide({name: found[name] for name in expected}), self.decide(expected))

    def count(self, found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray]) -> None:
        """Takes in the decisions of one sample."""
        for name, reference in expected.items():
            count = self.counts.setdefault(name, Count())
            count.changed += int((found[name] != reference).sum())
            count.total += reference.size

    @property
    def overall(self) -> Count:
        """All outputs together."""
        counts = self.counts.values()
        return Count(sum(c.changed for c in counts), sum(c.total for c in counts))
