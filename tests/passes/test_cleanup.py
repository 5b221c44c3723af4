"""Cleanup and the re-emission below it: duplicates and dead nodes go, inputs and constants stay."""

import numpy as np
import pytest
from pass_graphs import assert_same_values, f32

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Graph, Node
from aotc.passes.cleanup import cleanup
from aotc.passes.rewrite import reemit, rewrite


def test_duplicates_become_one_node():
    b, other = Builder(), Builder()
    x = b.parameter("x", f32(2))
    one = b.unary("exp", x)
    two = Node(one.op, one.inputs, one.type)
    constants = (b.constant(2.0, None), other.constant(2.0, None))
    graph = b.finish("g", [("a", one), ("b", two), ("c", constants[0]), ("d", constants[1])])
    after = cleanup(graph)
    (_, a), (_, b2), (_, c), (_, d) = after.outputs
    assert a is b2 and c is d


def test_dead_nodes_go_and_unused_inputs_stay():
    b = Builder()
    x, unused = b.parameter("x", f32(2)), b.parameter("unused", f32(3))
    b.unary("exp", unused)
    after = cleanup(b.finish("g", [("y", b.unary("neg", x))]))
    assert [node.op.name for node in after.inputs] == ["x", "unused"]
    assert len(list(after.nodes())) == 3


def test_inputs_keep_their_order_whatever_the_outputs_read_first():
    b = Builder()
    x, y = b.parameter("x", f32(2)), b.parameter("y", f32(2))
    after = cleanup(b.finish("g", [("out", b.binary("sub", y, x))]))
    assert [node.op.name for node in after.inputs] == ["x", "y"]


def test_constants_are_shared_and_not_hashed_again():
    b = Builder()
    big = b.constant(np.arange(6, dtype=np.float32))
    graph = Graph("g", (), (("y", Node(big.op, (), big.type, data=big.data)),))
    (_, node), *_ = cleanup(graph).outputs
    assert node.data is big.data


@pytest.mark.slow
def test_a_deep_chain_needs_no_recursion():
    b = Builder()
    node = b.parameter("x", f32(1))
    for _ in range(5000):
        node = b.unary("neg", b.unary("tanh", node))
    assert len(list(cleanup(b.finish("g", [("y", node)])).nodes())) == 10001


def test_what_a_rule_builds_is_rewritten_too():
    def halve(builder, op, operands, origin):
        (x,) = operands
        if op.fn != "exp":
            return None
        return builder.unary("neg", builder.unary("tanh", x))

    def unwrap(builder, op, operands, origin):
        return operands[0] if op.fn == "neg" else None

    b = Builder()
    x = b.parameter("x", f32(1))
    after = rewrite(b.finish("g", [("y", b.unary("exp", x))]), {ops.Unary: (halve, unwrap)})
    assert after.outputs[0][1].op == ops.Unary("tanh")


def test_reemit_replaces_what_it_is_told_to():
    b = Builder()
    x = b.parameter("x", f32(1))
    graph = b.finish("g", [("y", b.unary("neg", b.unary("exp", x)))])

    def drop_exp(builder, node, new):
        return new[node.inputs[0]] if node.op == ops.Unary("exp") else None

    after = reemit(graph, drop_exp)
    assert [node.op.mnemonic for node in after.nodes()] == ["parameter", "unary"]
    assert_same_values(cleanup(graph), graph)
