"""A model, inputs and expected outputs in; how far each stage of the compiler is from them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aotc.config import Options
from aotc.driver import STOPS, Build, Progress, run_stages
from aotc.graph.eval import evaluate
from aotc.loop.eval import run_program
from aotc.loop.ir import Alloc, Bind, For, Kind, Stmt
from aotc.loop.program import Program, counted_calls
from aotc.reference.compare import Difference, compare_outputs
from aotc.reference.engines import steps_apart

#: The loop evaluator runs about two million steps a second; beyond this it is left out.
MAX_STEPS = 60_000_000


@dataclass(frozen=True)
class StageResult:
    """``differences`` is empty when the stage was left out for the reason in ``note``."""

    stage: str
    differences: tuple[Difference, ...]
    note: str = ""

    @property
    def passed(self) -> bool:
        return all(difference.passed for difference in self.differences)

    @property
    def worst(self) -> Difference | None:
        return max(self.differences, key=lambda found: found.error, default=None)


def verify_stages(
    model: Path,
    options: Options,
    inputs: Mapping[str, np.ndarray],
    expected: Mapping[str, np.ndarray],
    tolerance: float,
    *,
    on_result: Callable[[StageResult], None] | None = None,
    on_progress: Progress | None = None,
) -> list[StageResult]:
    """Evaluates the graph after the import and after every pass, then the loops, then the machine
    code.

    ``on_result`` sees each result as it comes. Nothing stops at a difference: the first one is the
    stage to blame.
    """
    results: list[StageResult] = []
    steps = steps_apart(model)

    def add(stage: str, found: Mapping[str, np.ndarray] | None, note: str = "") -> None:
        differences = () if found is None else compare_outputs(found, expected, tolerance, steps)
        results.append(StageResult(stage, tuple(differences), note))
        if on_result is not None:
            on_result(results[-1])

    def observe(stage: str, build: Build) -> None:
        if stage not in STOPS:
            return
        if build.program is not None:
            length = count_steps(build.program)
            if length > MAX_STEPS:
                add("loops", None, f"left out: {length} steps are too many for the evaluator")
            else:
                add("loops", run_program(build.program, dict(inputs)))
        elif build.graph is not None and build.groups is None:
            add(stage, evaluate(build.graph, inputs))

    compiled = run_stages(model, options, on_progress=on_progress, on_stage=observe)
    add("machine code", compiled.run_dict(inputs))
    return results


def count_steps(program: Program) -> int:
    """About how many statements the evaluator executes; a vector loop counts once."""
    return sum(times * _count(call.kernel.body) for call, times in counted_calls(program.steps))


def _count(body: Sequence[Stmt]) -> int:
    steps = 0
    for stmt in body:
        if isinstance(stmt, For):
            steps += _count(stmt.body) * (1 if stmt.kind is Kind.VECTOR else stmt.extent)
        elif isinstance(stmt, (Alloc, Bind)):
            steps += _count(stmt.body)
        else:
            steps += 1
    return steps
