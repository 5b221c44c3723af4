"""The order of import: operands first, only what is needed, cycles reported."""

import pytest
from onnx import helper

from aotc.errors import ModelError
from aotc.frontend.order import import_order, reads


def node(inputs, outputs, **attrs):
    return helper.make_node("If" if attrs else "Relu", inputs, outputs, **attrs)


def test_operands_come_first_and_dead_nodes_not_at_all():
    nodes = [node(["b"], ["c"]), node(["x"], ["dead"]), node(["a"], ["b"]), node(["x"], ["a"])]
    order = import_order(nodes, ["c"])
    assert [n.output[0] for n in order.nodes] == ["a", "b", "c"]
    assert order.used == {"a", "b", "c", "x"}
    assert order.cyclic == ()


def test_a_diamond_is_no_cycle():
    nodes = [node(["x"], ["a"]), node(["a", "a"], ["b"]), node(["a", "b"], ["c"])]
    assert import_order(nodes, ["c"]).cyclic == ()


def test_a_cycle_is_found():
    nodes = [node(["b"], ["a"]), node(["a"], ["b"])]
    assert [n.output[0] for n in import_order(nodes, ["a"]).cyclic] == ["a"]


def test_a_name_defined_twice():
    with pytest.raises(ModelError, match="'a' is defined twice"):
        import_order([node(["x"], ["a"]), node(["x"], ["a"])], ["a"])


def test_subgraphs_read_what_they_do_not_define():
    inner = helper.make_graph([node(["p"], ["q"]), node(["q"], ["r"])], "g", [], [])
    assert reads(node(["c"], ["y"], then_branch=inner)) == ["c", "p"]


def test_long_chains_need_no_recursion():
    nodes = [node([f"t{i}"], [f"t{i + 1}"]) for i in range(5000)]
    assert len(import_order(nodes[::-1], ["t5000"]).nodes) == 5000
