"""Races: whatever elements the parts of a shared kernel touch, none that one writes is another's.

Stricter than comparing results: two parts that write the same value to one place would pass that.
"""

from dataclasses import replace

import pytest
from graph_runs import NEON, Net, for_all, lowered
from handmade import scale_program
from random_nets import nets

import aotc.lower.parallel
import aotc.lower.winograd
from aotc.graph import ops
from aotc.loop.index import affine
from aotc.loop.ir import Alloc, For, Kind, Load, Space, Store, Var
from aotc.loop.walk import has_parallel_loops, post_order
from aotc.lower.parallel import parallelize
from aotc.passes.runner import run_passes


@pytest.fixture(autouse=True)
def _share_everything(monkeypatch):
    monkeypatch.setattr(aotc.lower.parallel, "MIN_WORK", 0)
    monkeypatch.setattr(aotc.lower.parallel, "MIN_PROGRAM_WORK", 0)


class Trace:
    """Who touches which byte of the storages of one call. A worker is an iteration of a PARALLEL
    loop at the top level; statements that one part runs alone are a single worker."""

    ALONE = 0

    def __init__(self, call):
        self.call = call
        pairs = {one: other for one, other in call.in_place}
        self.places = {}
        for position, (buffer, arg) in enumerate(
            zip(call.kernel.params, call.args, strict=True)
        ):
            home = call.args[pairs.get(position, position)]  # the storages may become one
            self.places[buffer] = (id(home.storage), arg.offset_bytes)
        self.writers, self.readers, self.workers = {}, {}, {}

    def check(self):
        for number, stmt in enumerate(self.call.kernel.body):
            self._walk(stmt, {}, (number,), None)
        for place, writer in self.writers.items():
            assert self.readers.get(place, writer) == writer, (self.call.kernel.name, place)

    def _walk(self, stmt, env, nest, worker):
        if isinstance(stmt, For):
            for value in range(stmt.extent):
                who = worker
                if stmt.kind is Kind.PARALLEL:
                    assert worker is None
                    who = (nest, value) if stmt.extent > 1 else self.ALONE
                for inner in stmt.body:
                    self._walk(inner, {**env, stmt.var: value}, nest, who)
        elif isinstance(stmt, Alloc):
            for inner in stmt.body:
                self._walk(inner, env, nest, worker)
        elif isinstance(stmt, Store):
            assert worker is not None, "a statement of a shared kernel that every part runs"
            for expr in post_order((stmt.index, stmt.value)):
                if isinstance(expr, Load):
                    self._touch(expr.buffer, expr.index, env, worker, self.readers)
            self._touch(stmt.buffer, stmt.index, env, worker, self.writers)

    def _touch(self, buffer, index, env, worker, known):
        if buffer.space is not Space.GLOBAL:
            return
        form = affine(index)
        assert form is not None, "an index that depends on data in a shared kernel"
        element = form.const + sum(factor * env[var] for var, factor in form.terms)
        storage, offset = self.places[buffer]
        size = buffer.dtype.size_bytes
        for byte in range(offset + element * size, offset + (element + 1) * size, size):
            place = (storage, byte)
            if known is self.writers:
                other = known.setdefault(place, worker)
                assert other == worker, (self.call.kernel.name, buffer.name, element)
            elif known.setdefault(place, worker) != worker:
                known[place] = "several"


def check_races(graph, target=NEON):
    program = parallelize(lowered(graph, target))
    for call in program.calls:
        if has_parallel_loops(call.kernel.body):
            Trace(call).check()
    return program


def test_the_check_sees_a_statement_that_reads_what_another_writes():
    program = scale_program()
    (call,) = program.calls
    y, _, w = call.kernel.params
    (first,) = call.kernel.body
    i = Var("i")
    again = For(i, first.extent, (Store(w, i, Load(y, i)),))
    kernel = replace(
        call.kernel, writes=frozenset([y, w]), body=(first, again), independent=True
    )
    (shared,) = parallelize(replace(program, steps=(replace(call, kernel=kernel),))).calls
    with pytest.raises(AssertionError):
        Trace(shared).check()


@for_all(nets(), quick=3, slow=300)
def test_random_graphs(graph):
    check_races(run_passes(graph))


def padded_convolution(net, rows, channels, filters):
    b = net.b
    x = net.x(1, rows, rows + 1, channels)
    ones, pads = (1, 1), (1, 1)
    return b.apply(ops.Conv(ones, pads, pads, ones, 1, True), x, net.c(filters, channels, 3, 3))


def test_a_residual_may_be_overwritten():
    net = Net()
    b = net.b
    x = b.unary("abs", net.x(1, 4, 5, 8))
    y = b.apply(ops.Conv((1, 1), (0, 0), (0, 0), (1, 1), 1, True), x, net.c(8, 8, 1, 1))
    z = b.apply(ops.Conv((1, 1), (0, 0), (0, 0), (1, 1), 1, True), y, net.c(8, 8, 1, 1))
    graph = run_passes(net.graph(b.unary("abs", b.binary("add", z, y))))
    assert any(call.in_place for call in check_races(graph).calls)


@pytest.mark.slow
@pytest.mark.parametrize(("tile", "strip"), [(2, 9), (2, 1), (4, 9), (4, 1)])
def test_winograd_strips(monkeypatch, tile, strip):
    """Whole pictures and strips, each with tiles that are cut on both sides."""
    monkeypatch.setattr(aotc.lower.winograd, "winograd_tile", lambda *sizes: tile)
    monkeypatch.setattr(aotc.lower.winograd, "strip_rows", lambda rows, *_: min(rows, strip))
    net = Net()
    y = net.b.unary("abs", padded_convolution(net, 5, 3, 5))
    program = check_races(run_passes(net.graph(net.b.binary("add", y, net.x(1, 5, 6, 5)))))
    assert any("winograd" in kernel.recipe for kernel in program.kernels())


def test_a_row_waits_in_the_result():
    net = Net()
    b = net.b
    x = b.binary("mul", net.x(3, 2, 19), net.c(19))
    powers = b.unary("exp", b.binary("sub", x, b.reduce("max", x, [-1], True)))
    graph = run_passes(net.graph(b.binary("div", powers, b.reduce("sum", powers, [-1], True))))
    check_races(graph)


def test_depthwise_and_window_edges():
    net = Net()
    b = net.b
    op = ops.Conv((2, 2), (1, 1), (1, 0), (1, 1), 5, True)
    y = b.apply(op, net.x(1, 7, 9, 5), net.c(5, 1, 3, 3))
    net.out(b.unary("sigmoid", y))
    one = (1, 1, 1, 1)
    window = ops.ReduceWindow("max", (1, 3, 3, 1), (1, 1, 1, 1), (0, 1, 1, 0), (0, 1, 1, 0), one)
    check_races(run_passes(net.graph(b.apply(window, y))))
