"""Random graphs through fusion and lowering: reference, loop IR and machine code must agree."""

import pytest
from graph_runs import BASE, NEON, WIDE, check
from hypothesis import given, settings
from random_nets import nets

FEW = settings(max_examples=40, deadline=None)


@FEW
@given(nets())
def test_random_graphs(graph):
    check(graph)


@FEW
@given(nets())
def test_random_graphs_without_passes(graph):
    check(graph, passes=False)
