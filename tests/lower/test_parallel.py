"""Shared loops: whatever order the parts of a kernel run in, the bytes are those of one thread."""

from dataclasses import fields, replace

import pytest
from graph_runs import BASE, NEON, Net, assert_same_bytes, for_all, inputs_of, lowered
from hypothesis import strategies as st
from random_nets import nets

import aotc.lower.parallel
from aotc.graph import ops
from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.eval import run_program
from aotc.loop.ir import Alloc, Expr, For, Kind, Stmt, Var
from aotc.loop.verify import verify_program
from aotc.loop.walk import has_parallel_loops
from aotc.lower.parallel import parallelize
from aotc.passes.runner import run_passes


@pytest.fixture(autouse=True)
def _share_everything(monkeypatch):
    monkeypatch.setattr(aotc.lower.parallel, "MIN_WORK", 0)
    monkeypatch.setattr(aotc.lower.parallel, "MIN_PROGRAM_WORK", 0)


def substituted(item, variable, value, known):
    """``item``, an expression or a statement, with ``value`` in place of ``variable``; expressions
    are shared, so ``known`` keeps what has been made."""
    if item is variable:
        return value
    if isinstance(item, tuple):
        return tuple(substituted(each, variable, value, known) for each in item)
    if not isinstance(item, (Expr, Stmt)) or isinstance(item, Var):
        return item
    if id(item) not in known:
        old = {field.name: getattr(item, field.name) for field in fields(item)}
        new = {name: substituted(each, variable, value, known) for name, each in old.items()}
        changed = any(new[name] is not old[name] for name in old)
        known[id(item)] = replace(item, **new) if changed else item
    return known[id(item)]


def share_of(stmts, part, parts):
    """What the thread number ``part`` of ``parts`` executes, as serial code."""
    result = []
    for stmt in stmts:
        if isinstance(stmt, For) and stmt.kind is Kind.PARALLEL:
            first, beyond = (stmt.extent * p // parts for p in (part, part + 1))
            if beyond > first:
                var = Var(stmt.var.name)
                shifted = index.add(var, index.lit(first))
                body = substituted(stmt.body, stmt.var, shifted, {})
                result.append(For(var, beyond - first, body, Kind.SERIAL))
        elif isinstance(stmt, (For, Alloc)):
            body = share_of(stmt.body, part, parts)
            if body:
                result.append(replace(stmt, body=body))
        else:
            result.append(stmt)
    return tuple(result)


def in_parts(program, order):
    """The program with each shared kernel as one call per part, the parts in ``order``."""
    calls = []
    for call in program.calls:
        if not has_parallel_loops(call.kernel.body):
            calls.append(call)
            continue
        for part in order:
            body = share_of(call.kernel.body, part, len(order))
            calls.append(replace(call, kernel=replace(call.kernel, body=body)))
    return replace(program, steps=tuple(calls))


def check_parts(graph, order, target=BASE):
    inputs = inputs_of(graph)
    program = lowered(graph, target)
    wanted = run_program(program, inputs)
    shared = parallelize(program)
    verify_program(shared)
    assert_same_bytes(run_program(shared, inputs), wanted)
    assert_same_bytes(run_program(in_parts(shared, order), inputs), wanted)
    return shared


ORDERS = st.sampled_from([(0, 1), (1, 0), (2, 0, 1), (0, 3, 1, 2), tuple(reversed(range(17)))])


@for_all(st.tuples(nets(), ORDERS), quick=6, slow=400)
def test_parts_of_random_graphs_in_any_order(case):
    graph, order = case
    check_parts(run_passes(graph), order)


def swish(net, y):
    return net.b.binary("mul", y, net.b.unary("sigmoid", y))


def test_an_expensive_epilogue_waits_for_its_own_tile():
    for rows, columns in ((1, 3), (6, 3), (20, 8), (3, 37)):
        net = Net()
        y = net.b.apply(ops.Dot(), net.x(rows, 5), net.c(5, columns))
        graph = net.graph(swish(net, y))
        check_parts(graph, (0, 2, 1, 3))
        check_parts(graph, (1, 0), NEON)


def test_convolutions_norms_and_windows():
    net = Net()
    b = net.b
    op = ops.Conv((1, 1), (0, 0), (0, 0), (1, 1), 1, True)
    y = swish(net, b.apply(op, net.x(2, 5, 6, 3), net.c(9, 3, 2, 2)))
    one = (1, 1, 1, 1)
    pool = ops.ReduceWindow("max", (1, 2, 2, 1), (1, 2, 2, 1), (0,) * 4, (0,) * 4, one)
    net.out(b.apply(pool, y))
    powers = b.unary("exp", b.binary("sub", y, b.reduce("max", y, [-1], True)))
    net.out(b.binary("div", powers, b.reduce("sum", powers, [-1], True)))
    net.out(b.apply(ops.Pad((0, 1, 2, 0), (0, 1, 0, 0), 1.0), b.unary("abs", y)))
    graph = net.graph(b.reduce("sum", y, [1, 2], False))
    shared = check_parts(graph, (0, 3, 1, 2))
    assert all(has_parallel_loops(kernel.body) for kernel in shared.kernels())


def test_a_row_by_itself_is_not_shared_out():
    net = Net()
    shared = check_parts(net.graph(net.b.reduce("sum", net.x(300), [0], False)), (1, 0))
    (kernel,) = shared.kernels()
    (once,) = kernel.body
    assert (once.kind, once.extent) == (Kind.PARALLEL, 1)


def test_small_kernels_are_left_alone(monkeypatch):
    monkeypatch.setattr(aotc.lower.parallel, "MIN_WORK", 2000)
    monkeypatch.setattr(aotc.lower.parallel, "MIN_PROGRAM_WORK", 0)
    net = Net()
    program = lowered(net.graph(net.b.unary("neg", net.x(40, 40))))
    assert parallelize(program).kernels() == program.kernels()
    net = Net()
    large = lowered(net.graph(net.b.unary("neg", net.x(400, 80, dtype=DType.F64))))
    assert has_parallel_loops(parallelize(large).kernels()[0].body)
