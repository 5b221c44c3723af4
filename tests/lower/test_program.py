"""Whole graphs through fusion and lowering: reference, loop IR and machine code must agree."""

import numpy as np
import pytest
from graph_runs import BASE, WIDE, Net, check, for_all, lowered
from random_nets import nets

from aotc.graph import ops
from aotc.graph.types import DType
from aotc.loop.program import Role


@for_all(nets(), quick=8, slow=200)
def test_random_graphs(graph):
    check(graph)


@for_all(nets(), quick=5, slow=200)
def test_random_graphs_as_they_are(graph):
    check(graph, passes=False)


@for_all(nets(16), quick=2, slow=100)
def test_long_random_graphs_on_two_targets(graph):
    check(graph, targets=(BASE, WIDE))


@pytest.mark.parametrize("dtype", [DType.F32, DType.BOOL, DType.I64, DType.F16])
def test_outputs_that_nothing_computes(dtype):
    net = Net()
    b = net.b
    x, c = net.x(3, 4, dtype=dtype), net.c(2, 5, dtype=dtype)
    net.out(x)
    net.out(c)
    net.out(x)
    net.out(b.transpose(x, (1, 0)))
    net.out(b.broadcast(b.apply(ops.Slice((1, 0), (1, 4), (1, 1)), x), (6, 4)))
    net.out(b.reshape(c, (10,)))
    check(net.graph(b.broadcast(net.c(1, dtype=dtype), (7,))), passes=False)


def test_one_result_under_several_names_and_views():
    net = Net()
    y = net.b.unary("exp", net.x(3, 4))
    graph = net.graph(y, y, net.b.reshape(y, (12,)), net.b.transpose(y, (1, 0)))
    program = check(graph)
    assert sum("exp" in call.kernel.name for call in program.calls) == 1


def test_an_output_that_others_go_on_with():
    net = Net()
    y = net.out(net.b.apply(ops.Dot(), net.x(3, 4), net.c(4, 5)))
    z = net.out(net.b.unary("sigmoid", y))
    check(net.graph(net.b.binary("mul", y, z), net.b.reduce("sum", z, [0], False)))


def test_results_without_axes():
    net = Net()
    b = net.b
    x, y = net.x(), net.x()
    net.out(b.binary("add", x, y))
    net.out(b.reduce("sum", b.broadcast(b.reshape(x, (1,)), (9,)), [0], False))
    net.out(b.apply(ops.Concat(0), b.reshape(x, (1,)), b.reshape(b.unary("exp", y), (1,))))
    check(net.graph(b.compare("lt", x, y), x))


def test_inputs_that_nothing_reads_are_kept():
    net = Net()
    unused = net.x(2, 3)
    program = check(net.graph(net.b.unary("neg", net.x(4))))
    assert [name for name, _, _ in program.inputs] == [unused.op.name, "x2"]


def test_equal_kernels_are_shared_and_numbered():
    net = Net()
    y = net.x(4, 6)
    for _ in range(3):
        y = net.b.apply(ops.Dot(), net.b.transpose(net.b.transpose(y, (1, 0)), (1, 0)), net.c(6, 6))
    program = check(net.graph(y), passes=False)
    assert len(program.calls) == 3 and len(program.kernels()) == 1
    assert program.kernels()[0].name == "k00_dot_4x6"
    assert len({call.args[1].storage for call in program.calls}) == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda net: net.b.unary("exp", net.x(0, 5)),
        lambda net: net.x(0),
        lambda net: net.b.reduce("sum", net.x(3, 0), [1], False),
        lambda net: net.b.apply(ops.Dot(), net.x(3, 0), net.c(0, 4)),
        lambda net: net.b.apply(ops.Slice((1,), (0,), (1,)), net.x(4)),
        lambda net: net.b.apply(ops.Pad((2,), (2,), 0.0), net.x(0)),
        lambda net: net.b.apply(ops.Concat(0), net.x(3), net.c(0)),
    ],
)
def test_tensors_without_elements_cost_nothing(make):
    net = Net()
    program = check(net.graph(make(net)))
    assert all(arg.storage.size_bytes for call in program.calls for arg in call.args)


def test_an_empty_input_that_nothing_reads_does_no_harm():
    net = Net()
    net.x(0, 3)
    check(net.graph(net.b.unary("neg", net.x(4))))


def test_roles_of_storages():
    net = Net()
    y = net.b.apply(ops.Dot(), net.b.unary("exp", net.x(3, 4)), net.c(4, 5))
    program = lowered(net.graph(net.b.transpose(y, (1, 0))))
    assert [s.size_bytes for s in program.storages(Role.INPUT)] == [48]
    assert [s.size_bytes for s in program.storages(Role.OUTPUT)] == [60]
    assert sorted(s.size_bytes for s in program.storages(Role.ARENA)) == [48, 60]
    (weights,) = program.storages(Role.CONST)
    assert isinstance(weights.data, np.ndarray)
