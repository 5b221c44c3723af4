"""The pass runner: order, early stop, callbacks, and that every pass keeps the values."""

import pytest
from hypothesis import given, settings
from pass_graphs import assert_same_values, f32, graphs

from aotc.errors import UsageError, VerifyError
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node
from aotc.passes.runner import PIPELINE, Pass, run_passes


def small_graph():
    b = Builder()
    x = b.parameter("x", f32(2, 3))
    return b.finish("g", [("y", b.unary("neg", b.unary("neg", x)))])


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(graphs())
def test_every_stage_keeps_the_values(graph):
    stages = []
    run_passes(graph, on_stage=lambda name, after: stages.append(after))
    for stage in stages:
        assert_same_values(graph, stage)


def test_names_are_unique_and_all_passes_run_in_order():
    seen, reports = [], []
    run_passes(
        small_graph(), on_stage=lambda name, _: seen.append(name), on_report=reports.append
    )
    assert seen == [step.name for step in PIPELINE] == [report.name for report in reports]
    assert len(set(seen)) == len(seen)
    assert all(report.seconds >= 0 and report.nodes >= 1 for report in reports)


def test_stop_after():
    seen = []
    run_passes(small_graph(), stop_after="fold", on_stage=lambda name, _: seen.append(name))
    assert seen[-1] == "fold" and len(seen) < len(PIPELINE)


def test_unknown_stop_after_lists_the_names():
    with pytest.raises(UsageError, match="no pass called 'nonsense'.*\n.*cleanup, legalize"):
        run_passes(small_graph(), stop_after="nonsense")


def test_a_broken_pass_is_caught():
    def break_type(graph):
        (name, node), *_ = graph.outputs
        return Graph(graph.name, graph.inputs, ((name, Node(node.op, node.inputs, f32(7))),))

    broken = (Pass("break", break_type),)
    b = Builder()
    graph = b.finish("g", [("y", b.unary("neg", b.parameter("x", f32(2))))])
    with pytest.raises(VerifyError):
        run_passes(graph, broken)
    run_passes(graph, broken, verify=False)
