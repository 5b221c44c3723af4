"""The tuner: a model and seconds in, the recipes that were fastest on this machine out.

The cost model ranks the tilings of every contraction. Round r builds the whole program with the
r-th choice of each and times every kernel where it stands in a run, so one build measures all
kernels at once, in the caches that they will find.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from aotc.codegen.signature import describe_signature
from aotc.config import Options
from aotc.debug.profile import profile_program
from aotc.driver import Build, plan_stages
from aotc.graph.ir import Graph
from aotc.reference.inputs import make_inputs
from aotc.schedule.cpu import ContractSizes, rank_contracts
from aotc.schedule.recipe import ContractRecipe
from aotc.target import Target

CANDIDATES = 12
"""How far down the model's ranking to look: what it puts behind these has never won."""

WORTHWHILE = 0.98
"""A recipe replaces the model's when it takes at most this share of its time: less is noise."""

ROUND_SECONDS = 0.5
"""Of measurement in each round."""

_KEY = re.compile(r"contract .*?(?=: )")


@dataclass(frozen=True)
class Tuned:
    """One kernel shape: seconds of all its calls in a run, with the model's recipe and the best."""

    key: str
    recipe: ContractRecipe
    model_seconds: float
    best_seconds: float


@dataclass
class _Trial:
    ranking: list[ContractRecipe]
    seconds: dict[ContractRecipe, float]


def contract_key(recipe: str) -> str | None:
    """The sizes of the contraction in the text that a kernel carries as its recipe, if any."""
    found = _KEY.search(recipe)
    return found.group() if found else None


def tune(
    model: Graph | Path,
    options: Options,
    seconds: float,
    on_round: Callable[[int], None] | None = None,
) -> list[Tuned]:
    """The recipes that beat the cost model's.

    At least two rounds are run, then as many as begin within
    ``seconds``. UsageError when this machine cannot run code for the target.
    """
    deadline = time.perf_counter() + seconds
    trials: dict[str, _Trial] = {}
    rounds = 0
    while rounds < CANDIDATES and (rounds < 2 or time.perf_counter() < deadline):
        if on_round is not None:
            on_round(rounds)
        build = _plan(model, options, trials, rounds)
        _measure(build, trials, rounds)
        rounds += 1
    found = [tuned for key, trial in trials.items() if (tuned := _winner(key, trial)) is not None]
    return found


def _plan(
    model: Graph | Path, options: Options, trials: dict[str, _Trial], number: int
) -> Build:
    """The compilation up to the memory plan, each contraction by choice ``number`` of its ranking.
    """

    def choose(sizes: ContractSizes, target: Target) -> ContractRecipe:
        trial = trials.get(sizes.key)
        if trial is None:
            ranked = rank_contracts(sizes, target, CANDIDATES)
            trial = trials[sizes.key] = _Trial([candidate.recipe for candidate in ranked], {})
        return trial.ranking[number] if number < len(trial.ranking) else trial.ranking[0]

    return plan_stages(model, options, choose=choose)


def _measure(build: Build, trials: dict[str, _Trial], number: int) -> None:
    """Adds the time of every contraction in ``build`` to what is known of its recipe."""
    assert build.program is not None and build.plan is not None
    params = describe_signature(build.program, False, False).inputs
    inputs = make_inputs(params, 0, {})
    profile = profile_program(
        build.program, build.plan, build.target, inputs, budget_seconds=ROUND_SECONDS
    )
    totals: dict[str, float] = {}
    for kernel in profile.kernels:
        key = contract_key(kernel.recipe)
        if key is not None:
            totals[key] = totals.get(key, 0.0) + kernel.seconds
    for key, seconds in totals.items():
        trial = trials[key]
        recipe = trial.ranking[number if number < len(trial.ranking) else 0]
        trial.seconds[recipe] = min(seconds, trial.seconds.get(recipe, seconds))


def _winner(key: str, trial: _Trial) -> Tuned | None:
    """The fastest recipe, unless it is the model's or hardly better."""
    first = trial.ranking[0]
    if first not in trial.seconds:
        return None
    best = min(trial.seconds, key=lambda recipe: trial.seconds[recipe])
    if trial.seconds[best] > WORTHWHILE * trial.seconds[first]:
        return None
    return Tuned(key, best, trial.seconds[first], trial.seconds[best])
