"""The pass runner: a graph goes in; the graph after the pipeline and a report per pass come out."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from aotc.errors import UsageError
from aotc.graph.ir import Graph
from aotc.graph.types import DType
from aotc.graph.verify import verify_graph
from aotc.passes.bodies import map_nested, specialize_bodies
from aotc.passes.byte_tables import byte_tables
from aotc.passes.canonical_dot import canonical_dot
from aotc.passes.cleanup import cleanup
from aotc.passes.empty import drop_empty
from aotc.passes.explicit_pad import explicit_pad
from aotc.passes.fold import fold
from aotc.passes.fold_scales import fold_scales
from aotc.passes.gather_first import gather_first
from aotc.passes.gather_last import gather_last
from aotc.passes.integer import integer
from aotc.passes.keep_codes import keep_codes, settle
from aotc.passes.layout import layout
from aotc.passes.legalize import legalize
from aotc.passes.one_hot import one_hot
from aotc.passes.order_columns import order_columns
from aotc.passes.reciprocal import reciprocal
from aotc.passes.relax import relax
from aotc.passes.simplify import simplify
from aotc.passes.sink_reshapes import sink_reshapes


@dataclass(frozen=True)
class Pass:
    """One step of the pipeline; ``name`` is what the command line and the dumps call it."""

    name: str
    function: Callable[[Graph], Graph]


@dataclass(frozen=True)
class PassReport:
    """What one pass did: its wall time and the number of nodes it left."""

    name: str
    seconds: float
    nodes: int


def _bodies(graph: Graph, codes: DType = DType.U8, relaxed: bool = False) -> Graph:
    """Nested graphs take what they need, and go through the whole pipeline themselves."""
    passes = pipeline(codes, relaxed)
    return map_nested(
        specialize_bodies(graph), lambda nested: run_passes(nested, passes, verify=False)
    )


PIPELINE: tuple[Pass, ...] = (
    Pass("cleanup", cleanup),
    Pass("legalize", legalize),
    Pass("empty", drop_empty),
    Pass("integer", integer),
    Pass("gather-first", gather_first),
    Pass("keep-codes", keep_codes),
    Pass("fold", fold),
    Pass("byte-tables", byte_tables),
    Pass("simplify", simplify),
    Pass("fold-again", fold),
    Pass("bodies", _bodies),
    Pass("canonical-dot", canonical_dot),
    Pass("one-hot", one_hot),
    Pass("fold-scales", fold_scales),
    Pass("explicit-pad", explicit_pad),
    Pass("simplify-pads", simplify),
    Pass("layout", layout),
    Pass("simplify-layout", simplify),
    Pass("order-columns", order_columns),
    Pass("fold-layout", fold),
    Pass("sink-reshapes", sink_reshapes),
    Pass("simplify-reshapes", simplify),
    Pass("gather-last", gather_last),
    Pass("reciprocal", reciprocal),
    Pass("settle", settle),
    Pass("final-cleanup", cleanup),
)
"""Narrow types and empty tensors end before anything looks at arithmetic. Constants first, so that
the algebra sees values, and nested graphs the constants that they capture; scales before padding
and layout, so that those see the final convolutions; the repeats tidy what the pass before them
left."""


def pipeline(codes: DType, relaxed: bool = False) -> tuple[Pass, ...]:
    """The passes for a machine that multiplies ``codes`` (U8, as in PIPELINE, or I8) by int8;
    ``relaxed`` for one that need not round short floats between primitives."""
    made: list[Pass] = []
    for step in PIPELINE:
        if step.function is _bodies:
            step = Pass(step.name, partial(_bodies, codes=codes, relaxed=relaxed))
        elif step.function is integer:
            step = Pass(step.name, partial(integer, codes=codes))
        made.append(step)
        if relaxed and step.name == "simplify":
            made.append(Pass("relax", relax))
    return tuple(made)


def run_passes(
    graph: Graph,
    passes: tuple[Pass, ...] = PIPELINE,
    *,
    stop_after: str | None = None,
    on_stage: Callable[[str, Graph], None] | None = None,
    on_report: Callable[[PassReport], None] | None = None,
    verify: bool = True,
) -> Graph:
    """``graph`` after ``passes``, up to and including the pass named ``stop_after``.

    ``on_stage(name, graph)`` sees every intermediate graph, ``on_report`` the time each pass took.
    UsageError when no pass is called ``stop_after``; VerifyError when a pass leaves a broken graph.
    """
    names = [step.name for step in passes]
    if stop_after is not None and stop_after not in names:
        raise UsageError(
            f"there is no pass called '{stop_after}'", remedy=f"use one of {', '.join(names)}"
        )
    for step in passes:
        start = time.perf_counter()
        graph = step.function(graph)
        seconds = time.perf_counter() - start
        if verify:
            verify_graph(graph)
        if on_report is not None:
            on_report(PassReport(step.name, seconds, sum(1 for _ in graph.nodes())))
        if on_stage is not None:
            on_stage(step.name, graph)
        if step.name == stop_after:
            break
    return graph
