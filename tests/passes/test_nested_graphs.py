"""Nested graphs: constants move in, what nothing needs goes, known control flow ends."""

import numpy as np
import pytest
from graph_runs import Net, for_all, inputs_of
from hypothesis import strategies as st
from nested_nets import nested, nested_inputs, nested_net

from aotc.graph import ops
from aotc.graph.eval import evaluate
from aotc.graph.types import DType, TensorType
from aotc.graph.verify import verify_graph
from aotc.passes.bodies import map_nested, specialize_bodies
from aotc.passes.runner import run_passes

COUNT, ROW = TensorType(DType.I64, ()), TensorType(DType.F32, (4,))


@for_all(st.integers(0, 2**20), 8, 1000)
def test_values_stay(seed):
    graph = nested_net(seed, 8, 3)
    small, full = specialize_bodies(graph), run_passes(graph)
    verify_graph(small)
    for way in range(2):
        inputs = nested_inputs(graph, seed + way)
        wanted = evaluate(graph, inputs)
        for found in (evaluate(small, inputs), evaluate(full, inputs)):
            assert all((found[name] == wanted[name]).all() for name in wanted)


def control_nodes(graph):
    return [node for node in graph.nodes() if isinstance(node.op, (ops.Branch, ops.Repeat))]


def loop_net(trips, body, carried, scanned=(), captured=(), wanted=(0,), limit=3):
    """A graph whose outputs are the ``wanted`` items of one loop; the arguments make operands from
    a net."""
    net = Net()
    values = [[make(net) for make in makers] for makers in (carried, scanned, captured)]
    types = [x.type for x in values[0]] + [TensorType(x.type.dtype, x.shape[1:]) for x in values[1]]
    types = [COUNT, *types, *(x.type for x in values[2])]
    op = ops.Repeat(nested("body", types, body), len(carried), len(scanned), limit)
    operands = [trips(net), net.b.constant(np.asarray(True)), *sum(values, [])]
    made = net.b.apply(op, *operands)
    return net.graph(*(net.b.apply(ops.Item(index), made) for index in wanted))


def count(value):
    return lambda net: net.b.constant(value, DType.I64)


def unknown(net):
    return net.x(dtype=DType.I64)


def row(net):
    return net.x(4)


def constant_row(net):
    return net.c(4)


def going(b):
    return b.constant(np.asarray(True))


def test_constants_move_in_and_what_is_not_needed_goes():
    def body(b, i, used, fixed, idle, x, y, w, v, v2):
        total = b.binary("add", b.binary("mul", used, w), b.binary("add", fixed, x))
        total = b.binary("add", total, b.binary("sub", v, v2))
        return [going(b), total, fixed, b.unary("neg", idle), y]

    graph = loop_net(
        unknown,
        body,
        [row, row, row],
        [lambda net: net.x(3, 4)] * 2,
        [constant_row, row, row],
        wanted=(1, 2),
    )
    made = specialize_bodies(graph)
    (loop,) = control_nodes(made)
    assert (loop.op.carried, loop.op.scanned, loop.op.stacked) == (1, 1, 0)
    # trip count, start, one carried, one scanned; the fixed one and v - v2 are captured
    assert len(loop.inputs) == 6
    assert made.outputs[1][1] is made.inputs[1]
    assert sum(node.data is not None for node in loop.op.body.nodes()) == 2


def test_equal_captures_become_one():
    net = Net()
    x, n = net.x(4), net.x(dtype=DType.I64)

    def body(b, i, total, one, two):
        return [going(b), b.binary("add", total, b.binary("mul", one, two))]

    op = ops.Repeat(nested("body", [COUNT, ROW, ROW, ROW], body), 1, 0, 9)
    made = net.b.apply(op, n, net.b.constant(np.asarray(True)), net.c(4), x, x)
    graph = specialize_bodies(net.graph(net.b.apply(ops.Item(1), made)))
    assert len(control_nodes(graph)[0].inputs) == 4


@pytest.mark.parametrize("trips", [0, 1, 2])
def test_a_loop_of_a_known_few_iterations(trips):
    def body(b, i, total, x):
        total = b.binary("add", total, x)
        return [going(b), total, b.unary("neg", total)]

    limit = max(trips, 1)
    graph = loop_net(
        count(trips), body, [row], [lambda net: net.x(limit, 4)], wanted=(0, 1, 2), limit=limit
    )
    made = specialize_bodies(graph)
    assert len(control_nodes(made)) == (trips > 1)
    inputs = inputs_of(graph)
    wanted = evaluate(graph, inputs)
    assert all((array == wanted[name]).all() for name, array in evaluate(made, inputs).items())


def branch_net(condition, then, other, wanted=(0,)):
    net = Net()
    values = [net.x(4), net.x(4)]
    graphs = [nested("way", [ROW, ROW], make) for make in (then, other)]
    made = net.b.apply(ops.Branch(*graphs), condition(net), *values)
    return net.graph(*(net.b.apply(ops.Item(index), made) for index in wanted))


def flag(net):
    return net.x(dtype=DType.BOOL)


def test_a_known_condition_leaves_one_way():
    graph = branch_net(
        lambda net: net.b.constant(np.asarray(False)),
        lambda b, x, y: [b.unary("exp", x)],
        lambda b, x, y: [b.binary("add", x, y)],
    )
    made = specialize_bodies(graph)
    assert isinstance(made.outputs[0][1].op, ops.Binary) and not control_nodes(made)


def test_what_both_ways_hand_through_is_not_chosen():
    graph = branch_net(
        flag, lambda b, x, y: [y, b.unary("exp", x)], lambda b, x, y: [y, x], wanted=(0, 1)
    )
    made = specialize_bodies(graph)
    assert made.outputs[0][1] is made.inputs[1]
    (branch,) = control_nodes(made)
    assert len(branch.type.items) == 1 and len(branch.inputs) == 2


def test_checks_stay():
    def then(b, x, y):
        b.check(b.compare("gt", b.reduce("sum", y, [0], False), b.constant(0.0, DType.F32)), "no")
        return [x]

    graph = branch_net(flag, then, lambda b, x, y: [x])
    made = run_passes(graph)
    (branch,) = control_nodes(made)
    assert [sentence for sentence, _ in branch.op.then.checks] == ["no"]


def test_nested_graphs_go_through_the_pipeline():
    def body(b, i, total, w):
        shifted = b.binary("add", total, b.binary("mul", w, b.constant(2.0, DType.F32)))
        return [going(b), b.unary("neg", b.unary("neg", shifted))]

    graph = loop_net(unknown, body, [row], captured=[constant_row], wanted=(1,))
    (loop,) = control_nodes(run_passes(graph))
    kinds = [node.op.mnemonic for node in loop.op.body.nodes() if node.inputs]
    assert kinds == ["binary"]


def test_graphs_without_control_flow_are_left_alone():
    net = Net()
    graph = net.graph(net.b.unary("exp", net.x(3)))
    assert map_nested(graph, lambda inner: inner) is graph
