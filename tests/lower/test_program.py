"""Random graphs through fusion and lowering: reference, loop IR and machine code must agree."""

from graph_runs import BASE, WIDE, check, for_all
from random_nets import nets


@for_all(nets(), quick=30, slow=600)
def test_random_graphs(graph):
    check(graph)


@for_all(nets(), quick=20, slow=600)
def test_random_graphs_as_they_are(graph):
    check(graph, passes=False)


@for_all(nets(16), quick=5, slow=200)
def test_long_random_graphs_on_two_targets(graph):
    check(graph, targets=(BASE, WIDE))
