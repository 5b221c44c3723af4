"""What a quantisation did: errors by layer and by output and the decisions, as values and as JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aotc.quantize.decisions import Decisions
from aotc.quantize.errors import Closeness


@dataclass(frozen=True)
class LayerReport:
    """How far the result of one operator is from the float model's, all errors before it included;
    ``in_float`` if it was kept so."""

    name: str
    kind: str
    in_float: bool
    closeness: Closeness


@dataclass(frozen=True)
class OutputReport:
    """How far one output is from the float model's, and how many of its decisions differ."""

    name: str
    rule: str
    changed: int
    total: int
    closeness: Closeness


@dataclass(frozen=True)
class Report:
    """``samples`` is how many there were, the bytes are those of the files' constants."""

    layers: tuple[LayerReport, ...]
    outputs: tuple[OutputReport, ...]
    samples: int
    weight_bytes: tuple[int, int]

    @property
    def changed(self) -> int:
        """How many decisions differ from the float model's."""
        return sum(output.changed for output in self.outputs)

    @property
    def decisions(self) -> int:
        """How many decisions there were."""
        return sum(output.total for output in self.outputs)

    @property
    def drop(self) -> float:
        """The share of decisions that differ, 0 to 1."""
        return self.changed / self.decisions if self.decisions else 0.0

    @property
    def kept_float(self) -> list[str]:
        """The layers left as they were."""
        return [layer.name for layer in self.layers if layer.in_float]

    def to_json(self) -> str:
        """Everything as JSON; ratios that are infinite are null."""
        value = {
            "samples": self.samples,
            "decisions": self.decisions,
            "decisions_changed": self.changed,
            "weight_bytes_float": self.weight_bytes[0],
            "weight_bytes": self.weight_bytes[1],
            "kept_float": self.kept_float,
            "outputs": [
                {
                    "name": output.name,
                    "rule": output.rule,
                    "decisions": output.total,
                    "decisions_changed": output.changed,
                    **_measures(output.closeness),
                }
                for output in self.outputs
            ],
            "layers": [
                {
                    "name": layer.name,
                    "operator": layer.kind,
                    "float": layer.in_float,
                    **_measures(layer.closeness),
                }
                for layer in self.layers
            ],
        }
        return json.dumps(value, indent=2) + "\n"


def output_reports(
    judge: Decisions, closeness: Mapping[str, Closeness], outputs: Sequence[str]
) -> tuple[OutputReport, ...]:
    """The outputs that were judged, in the order of ``outputs``."""
    return tuple(
        OutputReport(
            name,
            str(judge.rules[name]),
            judge.counts[name].changed,
            judge.counts[name].total,
            closeness[name],
        )
        for name in outputs
        if name in judge.counts
    )


def _measures(closeness: Closeness) -> dict[str, Any]:
    return {
        "sqnr_db": closeness.sqnr if math.isfinite(closeness.sqnr) else None,
        "cosine": closeness.cosine,
        "largest_error": closeness.largest,
    }
