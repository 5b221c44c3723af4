"""What all iterations compute alike is computed before the loop, and only that."""

import numpy as np
from graph_runs import Net, check, inputs_of
from nested_nets import nested

from aotc.graph import ops
from aotc.graph.types import DType, TensorType
from aotc.passes.bodies import specialize_bodies
from aotc.passes.runner import run_passes

COUNT, ROW = TensorType(DType.I64, ()), TensorType(DType.F32, (4,))


def looped(body, captured, limit=5):
    """A loop over one carried row; the trip count is the last input."""
    net = Net()
    types = [COUNT, ROW, *(x.type for x in captured(net))]
    net = Net()
    values = [net.x(4), *captured(net)]
    op = ops.Repeat(nested("body", types, body), 1, 0, limit)
    start = net.b.constant(np.asarray(True))
    made = net.b.apply(op, net.x(dtype=DType.I64), start, *values)
    return net.graph(net.b.apply(ops.Item(1), made))


def inner_kinds(graph):
    (loop,) = [node for node in graph.nodes() if isinstance(node.op, ops.Repeat)]
    return [node.op.mnemonic for node in loop.op.body.nodes() if node.inputs]


def check_runs(graph):
    count = graph.inputs[-1].op.name
    for trips in (0, 3):
        check(graph, inputs=inputs_of(graph) | {count: np.asarray(trips)})


def test_invariant_work_moves_out_views_stay():
    def body(b, i, total, x, y):
        weights = b.unary("exp", b.binary("mul", x, y))
        size = b.reduce("sum", b.broadcast(weights, (3, 4)), [0, 1], False)
        going = b.constant(np.asarray(True))
        return [going, b.binary("add", total, b.broadcast(b.reshape(size, (1,)), (4,)))]

    graph = looped(body, lambda net: [net.x(4), net.x(4)])
    made = specialize_bodies(graph)
    assert inner_kinds(made) == ["reshape", "broadcast", "binary"]
    assert sum(isinstance(node.op, ops.Reduce) for node in made.nodes()) == 1
    check_runs(graph)


def test_what_varies_stays_and_so_does_control_flow():
    way = nested("way", [ROW], lambda b, x: [b.unary("exp", x)])

    def body(b, i, total, x, flag):
        chosen = b.apply(ops.Item(0), b.apply(ops.Branch(way, way), flag, x))
        scaled = b.binary("mul", x, b.cast(i, DType.F32))
        total = b.binary("add", b.binary("add", total, chosen), scaled)
        return [b.constant(np.asarray(True)), total]

    graph = looped(body, lambda net: [net.x(4), net.x(dtype=DType.BOOL)])
    assert inner_kinds(specialize_bodies(graph)).count("branch") == 1
    check_runs(graph)


def test_arithmetic_on_weights_stays_to_become_a_weight():
    def body(b, i, total, x, w):
        return [b.constant(np.asarray(True)), b.binary("add", total, b.unary("neg", w))]

    graph = looped(body, lambda net: [net.x(4), net.c(4)])
    assert inner_kinds(specialize_bodies(graph)) == ["unary", "binary"]
    assert inner_kinds(run_passes(graph)) == ["binary"]


def test_an_output_that_never_changes_after_the_first_iteration():
    def body(b, i, total, x):
        return [b.constant(np.asarray(True)), b.unary("neg", x)]

    graph = looped(body, lambda net: [net.x(4)])
    assert inner_kinds(specialize_bodies(graph)) == []
    check_runs(graph)
