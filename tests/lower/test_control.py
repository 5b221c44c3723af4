"""Branches and loops, alone and inside each other: loops and machine code give what the graph
gives, with any number of threads."""

import dataclasses

import numpy as np
import pytest
from graph_runs import (
    BASE,
    WIDE,
    Net,
    assert_same_bytes,
    check,
    for_all,
    inputs_of,
    lowered,
    runs_here,
)
from hypothesis import strategies as st
from nested_nets import nested, nested_inputs, nested_net

import aotc
import aotc.lower.parallel
from aotc.errors import AotcError, UsageError
from aotc.graph import ops
from aotc.graph.eval import evaluate
from aotc.graph.types import DType, TensorType
from aotc.loop.eval import run_program
from aotc.loop.program import Call, If, Loop, all_steps
from aotc.loop.text import print_kernel
from aotc.passes.runner import run_passes

FLAG, COUNT = TensorType(DType.BOOL, ()), TensorType(DType.I64, ())
ROW = TensorType(DType.F32, (8,))


@for_all(st.tuples(st.integers(0, 2**20), st.booleans()), 2, 150)
def test_random_nests(drawn):
    seed, passes = drawn
    graph = nested_net(seed, 8, 3)
    for way in range(2):
        check(graph, passes=passes, inputs=nested_inputs(graph, seed + way), targets=(BASE, WIDE))


@pytest.fixture
def _share_everything(monkeypatch):
    monkeypatch.setattr(aotc.lower.parallel, "MIN_WORK", 0)
    monkeypatch.setattr(aotc.lower.parallel, "MIN_PROGRAM_WORK", 0)


@pytest.mark.slow
@pytest.mark.requires_cc
@pytest.mark.skipif(not runs_here(BASE), reason="this machine cannot run the code")
@pytest.mark.parametrize("cases", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_random_nests_on_threads(cases, _share_everything):
    for seed in range(cases):
        graph = nested_net(seed, 8, 3)
        model = aotc.compile(graph, threads=True)
        ways = [model.with_threads(2), model.with_threads(3)]
        for case in range(3):
            inputs = nested_inputs(graph, seed + case)
            wanted = evaluate(graph, inputs)
            for shared in ways:
                assert_same_bytes(shared.run_dict(inputs), wanted)


def repeated(net, body, carried, trips, scanned=(), captured=(), limit=5, start=None):
    """The items of a loop over ``carried``; ``body(builder, i, *values)`` gives the condition, the
    carried values and the stacks."""
    types = [COUNT, *(x.type for x in carried)]
    types += [TensorType(x.type.dtype, x.shape[1:]) for x in scanned]
    types += [x.type for x in captured]
    op = ops.Repeat(nested("body", types, body), len(carried), len(scanned), limit)
    start = net.b.constant(np.asarray(True)) if start is None else start
    made = net.b.apply(op, trips, start, *carried, *scanned, *captured)
    return [net.b.apply(ops.Item(i), made) for i in range(len(made.type.items))]


def loop_of(program):
    (loop,) = [step for step in all_steps(program.steps) if isinstance(step, Loop)]
    return loop


def always(b):
    return b.constant(np.asarray(True))


def test_a_recurrent_cell_has_packed_weights_and_one_copy():
    """h' = tanh(x + h W): the product reads all of h, so h' is written to its row and copied."""
    net = Net()
    weights = net.c(8, 8)
    x, h = net.x(6, 8), net.x(8)

    def body(b, i, h, x, w):
        product = b.reshape(b.apply(ops.Dot(), b.reshape(h, (1, 8)), w), (8,))
        following = b.unary("tanh", b.binary("add", product, x))
        return [always(b), following, following]

    trips = net.b.constant(6, DType.I64)
    _, last, rows = repeated(net, body, [h], trips, [x], [weights], limit=6)
    program = check(net.graph(last, rows))
    loop = loop_of(program)
    assert loop.is_exact and loop.index is None and loop.done is None
    assert [call.kernel.name.split("_", 1)[1] for call in loop.body] == ["dot_add_tanh_8", "copy"]
    product = loop.body[0]
    assert any(arg.storage.name == "packed" for arg in product.args)
    assert [arg.moves for arg in product.args if arg.moves] == [((loop.counter, 32),)] * 2
    assert len(program.calls) == 3  # and the initial value: no row needs zeros


@pytest.mark.parametrize("reads_again", [False, True])
def test_the_cell_of_an_lstm_is_updated_in_place(reads_again):
    """One kernel computes all gates; it may overwrite the cell unless the output reads it again."""
    net = Net()
    h, c, weights = net.x(1, 8), net.x(1, 8), net.c(8, 32)

    def body(b, i, h, c, w):
        product = b.apply(ops.Dot(), h, w)
        part = [
            b.apply(ops.Slice((0, start), (1, 8), (1, 1)), product) for start in range(0, 32, 8)
        ]
        forget, enter, leave = (b.unary("sigmoid", x) for x in part[:3])
        kept = b.binary("mul", forget, c)
        cell = b.binary("add", kept, b.binary("mul", enter, b.unary("tanh", part[3])))
        hidden = b.binary("mul", leave, b.unary("tanh", cell))
        hidden = b.binary("sub", hidden, c) if reads_again else hidden
        return [always(b), hidden, cell]

    trips = net.b.constant(6, DType.I64)
    _, last_h, last_c = repeated(net, body, [h, c], trips, captured=[weights], limit=6)
    program = check(net.graph(last_h, last_c))
    names = [call.kernel.name.split("_", 1)[1] for call in loop_of(program).body]
    assert names.count("copy") == len(names) - 1 == 1 + reads_again


@pytest.mark.parametrize("l2_bytes, hints", [(64, 2), (1 << 20, 0)])
def test_gates_ask_ahead_for_the_slices_of_sequences_beyond_the_cache(l2_bytes, hints):
    net = Net()
    h, weights, own = net.x(1, 8), net.c(8, 16), net.x(6, 1, 8)

    def body(b, i, h, own, w):
        product = b.apply(ops.Dot(), h, w)
        gates = [b.apply(ops.Slice((0, at), (1, 8), (1, 1)), product) for at in (0, 8)]
        following = b.binary("mul", b.unary("tanh", gates[0]), b.binary("add", gates[1], own))
        return [always(b), following, following]

    trips = net.b.constant(6, DType.I64)
    _, last, rows = repeated(net, body, [h], trips, [own], [weights], limit=6)
    target = dataclasses.replace(BASE, l2_bytes=l2_bytes)
    program = check(net.graph(last, rows), targets=(target,), native=False)
    kernel = loop_of(program).body[0].kernel
    assert print_kernel(kernel).count("prefetch") == hints
    check(net.graph(), targets=(BASE,))


def test_elementwise_state_is_updated_in_place():
    net = Net()
    a, b_, n = net.x(8), net.x(8), net.x(dtype=DType.I64)

    def body(b, i, first, second, third):
        total = b.binary("add", first, second)
        return [always(b), total, b.unary("neg", second), b.reshape(third, (8,))]

    items = repeated(net, body, [a, b_, net.x(8)], n)
    inputs = inputs_of(net.graph(*items[1:])) | {n.op.name: np.asarray(3)}
    program = check(net.graph(), inputs=inputs)
    assert len(loop_of(program).body) == 2


def test_updates_of_a_carried_table_do_not_copy_it():
    net = Net()
    table, n = net.x(6, 8), net.x(dtype=DType.I64)

    def body(b, i, table, row):
        at = b.reshape(i, (1, 1))
        return [always(b), b.apply(ops.ScatterND("add"), table, at, b.reshape(row, (1, 8)))]

    _, after = repeated(net, body, [table], n, captured=[net.x(8)], limit=ops.UNLIMITED)
    graph = net.graph(after)
    program = check(graph, inputs=inputs_of(graph) | {n.op.name: np.asarray(5)})
    (call,) = loop_of(program).body
    assert "scatter" in call.kernel.name


def test_a_branch_that_leaves_the_state_alone_copies_nothing():
    net = Net()
    state, n = net.x(6, 8), net.x(dtype=DType.I64)
    wide = TensorType(DType.F32, (6, 8))
    then = nested("then", [wide], lambda b, x: [b.unary("neg", x)])
    other = nested("other", [wide], lambda b, x: [x])

    def body(b, i, state):
        one = b.constant(1, DType.I64)
        odd = b.compare("eq", b.binary("and", i, one), one)
        return [always(b), b.apply(ops.Item(0), b.apply(ops.Branch(then, other), odd, state))]

    _, after = repeated(net, body, [state], n)
    graph = net.graph(after)
    for trips in (2, 3):
        program = check(graph, inputs=inputs_of(graph) | {n.op.name: np.asarray(trips)})
    (step,) = [step for step in all_steps(program.steps) if isinstance(step, If)]
    assert [len(way) for way in (step.then, step.other)] == [1, 0]
    assert len(loop_of(program).body) == 2  # the condition and the branch


def test_values_that_trade_places():
    """A swap, a shift register and a value that its own successor is read after."""
    net = Net()
    a, b_, c = (net.x(8) for _ in range(3))
    n = net.x(dtype=DType.I64)

    def body(b, i, first, second, third):
        late = b.binary("mul", first, b.unary("neg", third))
        return [always(b), second, first, b.binary("add", late, second), third]

    items = repeated(net, body, [a, b_, c], n)
    graph = net.graph(*items)
    for trips in (0, 1, 2, 5, 9):
        inputs = inputs_of(graph) | {n.op.name: np.asarray(trips)}
        check(graph, inputs=inputs, passes=bool(trips % 2))


def test_rows_that_never_run_are_zero_and_the_condition_stops():
    net = Net()
    x, n, start = net.x(5, 8), net.x(dtype=DType.I64), net.x(dtype=DType.BOOL)

    def body(b, i, total, x):
        total = b.binary("add", total, b.unary("abs", x))
        small = b.compare("lt", b.reduce("max", total, [0], False), b.constant(3.0, DType.F32))
        return [small, total, b.binary("mul", x, b.broadcast(b.cast(i, DType.F32), (8,)))]

    items = repeated(net, body, [net.c(8)], n, [x], start=start)
    graph = net.graph(*items)
    for trips, begins in ((9, True), (2, True), (0, True), (-3, True), (9, False)):
        inputs = inputs_of(graph)
        inputs |= {n.op.name: np.asarray(trips), start.op.name: np.asarray(begins)}
        found = evaluate(graph, inputs)
        done = int(found["y0"])
        assert begins or not done
        assert not found["y2"][done:].any()
        check(graph, inputs=inputs)


def test_branches_write_their_results_where_they_are_wanted():
    net = Net()
    x, flag = net.x(8), net.x(dtype=DType.BOOL)
    then = nested("then", [ROW], lambda b, x: [b.unary("exp", x)])
    other = nested("other", [ROW], lambda b, x: [b.unary("neg", x)])
    made = net.b.apply(ops.Item(0), net.b.apply(ops.Branch(then, other), flag, x))
    graph = net.graph(net.b.apply(ops.Concat(0), made, x))
    for value in (True, False):
        program = check(graph, inputs=inputs_of(graph) | {flag.op.name: np.asarray(value)})
    (step,) = [step for step in program.steps if isinstance(step, If)]
    assert [len(way) for way in (step.then, step.other)] == [1, 1]
    assert len(program.calls) == 3


def test_a_scanned_constant_is_no_weight():
    """A slice of a constant is another matrix in each iteration."""
    net = Net()
    x = net.x(3, 4)

    def body(b, i, x, w):
        return [always(b), b.apply(ops.Dot(), x, w)]

    trips = net.x(dtype=DType.I64)
    _, y = repeated(net, body, [x], trips, [net.c(5, 4, 4)])
    graph = net.graph(y)
    check(graph, inputs=inputs_of(graph) | {trips.op.name: np.asarray(4)})


def checked_graph():
    """y = 2x while no x is above 1; and in a loop, while no partial sum is above 3."""
    net = Net()
    x, n = net.x(8), net.x(dtype=DType.I64)
    one = net.b.constant(1.0, DType.F32)
    most = net.b.reduce("max", x, [0], False)
    net.b.check(net.b.compare("le", most, one), "an element is too large")

    def body(b, i, total):
        b.check(b.compare("le", total, b.constant(3.0, DType.F32)), "the sum is too large")
        return [always(b), b.binary("add", total, b.constant(1.0, DType.F32))]

    _, total = repeated(net, body, [net.b.reduce("sum", x, [0], False)], n, limit=ops.UNLIMITED)
    return net.graph(net.b.binary("add", x, x), total)


CHECKED = [(0.25, 1, None), (0.25, 3, "the sum"), (2.0, 0, "an element"), (-9.0, 60, None)]


@pytest.mark.parametrize(("value", "trips", "sentence"), CHECKED)
def test_checks_end_a_run(value, trips, sentence, _share_everything):
    graph = checked_graph()
    names = [node.op.name for node in graph.inputs]
    inputs = dict(zip(names, (np.full(8, value, np.float32), np.asarray(trips)), strict=True))
    if sentence is None:
        check(graph, inputs=inputs)
        return
    with pytest.raises(UsageError, match=sentence):
        evaluate(graph, inputs)
    program = lowered(run_passes(graph))
    with pytest.raises(UsageError, match=sentence):
        run_program(program, inputs)
    if runs_here(BASE):
        with pytest.raises(AotcError, match="OUT_OF_BOUNDS: A run-time size or index is outside"):
            aotc.compile(graph).run_dict(inputs)


@pytest.mark.slow
@pytest.mark.requires_cc
@pytest.mark.skipif(not runs_here(BASE), reason="this machine cannot run the code")
def test_checks_end_all_threads(_share_everything):
    model = aotc.compile(checked_graph(), threads=True)
    names = [param.name for param in model.signature.inputs]
    ways = [model.with_threads(threads) for threads in (1, 2, 3)]
    for value, trips, sentence in CHECKED * 3:
        inputs = dict(zip(names, (np.full(8, value, np.float32), np.asarray(trips)), strict=True))
        for shared in ways:
            if sentence is None:
                assert_same_bytes(shared.run_dict(inputs), model.run_dict(inputs))
            else:
                with pytest.raises(AotcError, match="OUT_OF_BOUNDS"):
                    shared.run_dict(inputs)


def test_calls_are_listed_with_those_inside():
    program = lowered(run_passes(nested_net(1, 8, 3)))
    found = [step for step in all_steps(program.steps) if isinstance(step, Call)]
    assert list(program.calls) == found
