"""Bodies: what a nested graph takes of the graph around it."""

import numpy as np
import pytest

from aotc.errors import UsageError
from aotc.frontend.bodies import Body
from aotc.frontend.folding import FoldingBuilder, known_value
from aotc.frontend.values import Ragged, SequenceValue
from aotc.graph import ops
from aotc.graph.eval import evaluate
from aotc.graph.ops_control import call_graph
from aotc.graph.types import DType, TensorType

SCALAR = TensorType(DType.I64, ())
PAIR = TensorType(DType.F32, (2,))


def test_a_node_is_captured_once():
    outer = FoldingBuilder()
    body = Body(outer)
    x = outer.parameter("x", PAIR)
    inside = body.fetch_node(x)
    assert body.fetch_node(x) is inside
    assert body.captured == (x,)


def test_what_is_known_outside_is_known_inside():
    outer = FoldingBuilder()
    body = Body(outer)
    number = outer.constant(7, DType.I64)
    stretched = outer.broadcast(outer.constant(2.0, DType.F32), (2,))
    counting = outer.apply(ops.Iota((4,), 0, DType.I64))
    known = [known_value(body.fetch_node(node)) for node in (number, stretched, counting)]
    assert [value.tolist() for value in known] == [7, [2.0, 2.0], [0, 1, 2, 3]]
    assert body.captured == ()


def test_values_of_any_kind_are_captured():
    outer = FoldingBuilder()
    body = Body(outer)
    x, n = outer.parameter("x", PAIR), outer.parameter("n", SCALAR)
    inside = body.fetch(SequenceValue((x, Ragged(x, (n,))), n))
    assert set(body.captured) == {x, n}
    assert inside.items[1].extents == (inside.length,)
    assert inside.items[1].node is inside.items[0]


def test_the_finished_graph_takes_its_own_inputs_first():
    outer = FoldingBuilder()
    body = Body(outer)
    x, y = outer.parameter("x", PAIR), outer.parameter("y", PAIR)
    captured = body.fetch_node(x)
    own = body.parameter(PAIR)
    result = body.builder.binary("sub", own, captured)
    graph = body.finish("b", [own], [y, x], [result])
    operands = [np.float32([5, 5]), np.float32([9, 9]), np.float32([1, 2])]
    assert call_graph(graph, operands)[0].tolist() == [4, 3]


def test_guarded_checks_count_only_under_their_guard():
    builder = FoldingBuilder()
    guard = builder.parameter("g", TensorType(DType.BOOL, ()))
    holds = builder.parameter("c", TensorType(DType.BOOL, ()))
    with builder.guarded(guard):
        builder.check(holds, "broken")
    graph = builder.finish("g", [("y", builder.unary("not", guard))])
    no, yes = np.asarray(False), np.asarray(True)
    assert evaluate(graph, {"g": no, "c": no})["y"]
    assert not evaluate(graph, {"g": yes, "c": yes})["y"]


def test_checks_in_a_body_count_only_where_those_around_it_do():
    outer = FoldingBuilder()
    guard = outer.parameter("g", TensorType(DType.BOOL, ()))
    with outer.guarded(guard):
        body = Body(outer)
    holds = body.parameter(TensorType(DType.BOOL, ()))
    body.builder.check(holds, "broken")
    graph = body.finish("b", [holds], body.captured, [holds])
    no, yes = np.asarray(False), np.asarray(True)
    assert body.captured == (guard,)
    assert call_graph(graph, [no, no]) == (no,)
    with pytest.raises(UsageError, match="broken"):
        call_graph(graph, [no, yes])


def test_a_body_without_checks_captures_no_guard():
    outer = FoldingBuilder()
    with outer.guarded(outer.parameter("g", TensorType(DType.BOOL, ()))):
        assert Body(outer).captured == ()
