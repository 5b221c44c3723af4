"""What a quantisation did: errors by layer and by output and the decisions, as values and as JSON.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aotc.quantize.decisions import Count, Decisions, total_of
from aotc.quantize.errors import Closeness

FLOAT = "float32"


@dataclass(frozen=True)
class LayerReport:
    """How far the result of one operator is from the float model's, all errors before it included;
    ``data`` is the type of what it reads, float32 if it was kept so."""

    name: str
    kind: str
    data: str
    closeness: Closeness

    @property
    def in_float(self) -> bool:
        """Whether it was left as it was."""
        return self.data == FLOAT


@dataclass(frozen=True)
class OutputReport:
    """How far one output is from the float model's, and how many of its decisions differ."""

    name: str
    rule: str
    count: Count
    closeness: Closeness


@dataclass(frozen=True)
class Report:
    """``samples`` is how many there were, the bytes are those of the files' constants."""

    layers: tuple[LayerReport, ...]
    outputs: tuple[OutputReport, ...]
    samples: int
    weight_bytes: tuple[int, int]

    @property
    def overall(self) -> Count:
        """The decisions of all outputs together."""
        return total_of(output.count for output in self.outputs)

    @property
    def drop(self) -> float:
        """The share of decisions that differ from the float model's, 0 to 1."""
        count = self.overall
        return count.changed / count.total if count.total else 0.0

    @property
    def kept_float(self) -> list[str]:
        """The layers left as they were."""
        return [layer.name for layer in self.layers if layer.in_float]

    def to_json(self) -> str:
        """Everything as JSON; ratios that are infinite are null."""
        value = {
            "samples": self.samples,
            "decisions": self.overall.total,
            "decisions_changed": self.overall.changed,
            "decisions_expected_to_change": self.overall.expected,
            "weight_bytes_float": self.weight_bytes[0],
            "weight_bytes": self.weight_bytes[1],
            "kept_float": self.kept_float,
            "outputs": [
                {
                    "name": output.name,
                    "rule": output.rule,
                    "decisions": output.count.total,
                    "decisions_changed": output.count.changed,
                    **_measures(output.closeness),
                }
                for output in self.outputs
            ],
            "layers": [
                {
                    "name": layer.name,
                    "operator": layer.kind,
                    "float": layer.in_float,
                    "data": layer.data,
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
    counts = judge.counts
    return tuple(
        OutputReport(
            name,
            str(judge.rules[name]),
            counts[name],
            closeness[name],
        )
        for name in outputs
        if name in counts
    )


def _measures(closeness: Closeness) -> dict[str, Any]:
    return {
        "sqnr_db": closeness.sqnr if math.isfinite(closeness.sqnr) else None,
        "cosine": closeness.cosine,
        "largest_error": closeness.largest,
    }
