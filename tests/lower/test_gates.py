"""Products whose columns are gates: reference, loop IR and machine code, and that they fuse."""

import pytest
from graph_runs import BASE, NEON, WIDE, Net, check, for_all, lowered
from hypothesis import strategies as st

from aotc.fuse.groups import GroupKind, fuse
from aotc.graph import ops
from aotc.graph.types import DType


def gates(net, lhs, weights, units):
    """The slices of a product with constants, [rows, units] each."""
    product = net.b.apply(ops.Dot(), lhs, weights)
    rows, columns = product.shape
    return [
        net.b.apply(ops.Slice((0, i * units), (rows, units), (1, 1)), product)
        for i in range(columns // units)
    ]


def lstm(net, h, cell, weights):
    """One step: the next h and the next c."""
    b, (rows, units) = net.b, cell.shape
    own = net.x(rows, 4 * units)
    parts = [
        b.binary("add", gate, b.apply(ops.Slice((0, i * units), (rows, units), (1, 1)), own))
        for i, gate in enumerate(gates(net, h, weights, units))
    ]
    enter, out, stay = (b.unary("sigmoid", part) for part in parts[:3])
    fresh = b.binary("mul", enter, b.unary("tanh", parts[3]))
    cell = b.binary("add", b.binary("mul", stay, cell), fresh)
    return b.binary("mul", out, b.unary("tanh", cell)), cell


def kinds(graph):
    return [group.kind for group in fuse(graph).groups]


@pytest.mark.slow
@pytest.mark.parametrize("rows, units", [(1, 5), (1, 40), (2, 16), (3, 33), (4, 8)])
def test_a_step_is_one_kernel_on_every_target(rows, units):
    net = Net()
    graph = net.graph(*lstm(net, net.x(rows, 9), net.x(rows, units), net.c(9, 4 * units)))
    assert kinds(graph) == [GroupKind.GATES]
    check(graph, targets=(BASE, WIDE, NEON))


def test_steps_share_a_kernel_and_weights():
    net = Net()
    weights = net.c(24, 96)
    h, cell = net.x(2, 24), net.x(2, 24)
    for _ in range(2):
        h, cell = lstm(net, h, cell, weights)
    graph = net.graph(h, cell)
    program = lowered(graph)
    assert len(program.calls) == 2 and len(program.kernels()) == 1
    check(graph)


@for_all(st.data(), quick=1, slow=150)
def test_gates_of_any_size(data):
    draw, net = data.draw, Net(data.draw(st.integers(0, 99)))
    dtype = draw(st.sampled_from([DType.F32, DType.F32, DType.F64]))
    rows, depth, units = (draw(st.integers(1, most)) for most in (6, 20, 40))
    count = draw(st.integers(2, 5))
    b = net.b
    lhs = net.viewed(draw, (rows, depth), dtype)
    parts = gates(net, lhs, net.c(depth, count * units, dtype=dtype), units)
    total = parts[0]
    for part in parts[1:]:
        step = draw(st.sampled_from(["add", "mul", "max"]))
        total = b.binary(step, total, draw(st.sampled_from([part, b.unary("tanh", part)])))
        if draw(st.booleans()):
            total = b.binary("sub", total, net.viewed(draw, (rows, units), dtype))
        if draw(st.booleans()) and len(net.outputs) < 2:
            net.out(total)
    net.out(b.unary("neg", total))
    check(net.graph(), passes=draw(st.booleans()))


def test_slices_that_somebody_else_reads_stay_apart():
    net = Net()
    first, second = gates(net, net.x(2, 6), net.c(6, 16), 8)
    graph = net.graph(net.b.binary("add", first, second), first)
    assert GroupKind.GATES not in kinds(graph)
    check(graph)


def test_slices_that_nothing_combines_stay_views():
    net = Net()
    graph = net.graph(*gates(net, net.x(2, 6), net.c(6, 16), 8))
    assert GroupKind.GATES not in kinds(graph)
    check(graph)


def test_a_product_whose_only_reader_is_a_scalar_has_no_gates():
    net = Net()
    product = net.b.apply(ops.Dot(), net.x(1, 6), net.c(6, 1))
    graph = net.graph(net.b.reshape(product, ()))
    assert GroupKind.GATES not in kinds(graph)
    check(graph)
