"""Two runners and samples in, how far their outputs and decisions agree out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from aotc.quantize.calibrate import Progress
from aotc.quantize.decisions import Decisions, Rule
from aotc.quantize.errors import Closeness
from aotc.quantize.report import OutputReport, output_reports
from aotc.quantize.runner import Arrays
from aotc.quantize.samples import Inputs

Run = Callable[[Mapping[str, np.ndarray]], Arrays]


def compare(
    found: Run,
    expected: Run,
    samples: Iterable[Inputs],
    rules: Mapping[str, Rule],
    outputs: Sequence[str],
    progress: Progress,
) -> tuple[OutputReport, ...]:
    """Runs both on all samples. UsageError when a rule names no output, or an output of one is not
    comparable with the other's."""
    judge = Decisions(rules, outputs)
    closeness: dict[str, Closeness] = {}
    for number, inputs in enumerate(samples):
        progress("comparing", number, 0)
        exact, other = expected(inputs), found(inputs)
        judge.add(other, exact)
        for name, array in exact.items():
            if array.dtype.kind in "fiu":
                closeness.setdefault(name, Closeness()).add(other[name], array)
    for name in judge.counts:
        closeness.setdefault(name, Closeness())
    return output_reports(judge, closeness, outputs)
