"""If with a known condition, functions of the model, and functions of ONNX's own definitions."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_cases import f32, model_of, run_file, save
from text_models import agrees, interpreted, same, saved

from aotc.errors import ModelError, UnsupportedError, UsageError
from aotc.frontend.onnx_reader import check_onnx, load_onnx

X = f32(2, 3)


def branch(name, op, captured="x", weights=()):
    """A subgraph that applies ``op`` to a tensor of the outer graph."""
    node = helper.make_node(op, [captured], [f"{name}_y"])
    stored = [numpy_helper.from_array(values, key) for key, values in dict(weights).items()]
    out = helper.make_tensor_value_info(f"{name}_y", TensorProto.FLOAT, None)
    return helper.make_graph([node], name, [], [out], stored)


def if_model(condition, then, other, inputs=None):
    node = helper.make_node("If", ["c"], ["y"], name="choose", then_branch=then, else_branch=other)
    weights = {} if condition is None else {"c": np.array(condition)}
    return model_of([node], inputs or {"x": X}, ["y"], weights)


@pytest.mark.parametrize("condition", [True, False])
def test_only_the_taken_branch_is_imported(condition, tmp_path):
    good, bad = branch("good", "Neg"), branch("bad", "Frobnicate")
    model = if_model(condition, *((good, bad) if condition else (bad, good)))
    path = save(model, tmp_path)
    np.testing.assert_array_equal(run_file(path, {"x": X})[0], -X)
    assert check_onnx(path) == []


def test_a_branch_has_its_own_initialisers(tmp_path):
    model = if_model(True, branch("a", "Neg", "w", {"w": X}), branch("b", "Abs"))
    np.testing.assert_array_equal(run_file(save(model, tmp_path), {"x": X})[0], -X)


def test_a_branch_captures_what_a_node_of_the_outer_graph_computes(tmp_path):
    model = if_model(True, branch("a", "Neg", "h"), branch("b", "Abs"))
    model.graph.node.append(helper.make_node("Relu", ["x"], ["h"]))
    result = run_file(save(model, tmp_path), {"x": X})[0]
    np.testing.assert_array_equal(result, -np.maximum(X, 0))


BOTH = """g (bool c, float[2,3] x) => (float[2,3] y, int64[1] k) {
    h = Relu(x)
    y, k = If (c) <
        then_branch = t () => (float[2,3] a, int64[1] ka) {
            a = Neg(h)
            ka = Constant <value_ints = [1]> ()
        },
        else_branch = e () => (float[2,3] b, int64[1] kb) {
            w = Abs(x)
            b = Add(w, h)
            kb = Constant <value_ints = [2]> ()
        }>
}"""


@pytest.mark.parametrize("condition", [True, False])
def test_a_condition_at_run_time_chooses(condition, tmp_path):
    agrees(BOTH, tmp_path, {"c": np.array(condition), "x": X}, native=condition)


@pytest.mark.parametrize("condition", [True, False])
def test_branches_of_different_sizes_give_the_size_of_the_one_taken(condition, tmp_path):
    text = """g (bool c, float[2,3] x) => (float[?,3] y) {
        axes = Constant <value_ints = [0]> ()
        y = If (c) <
            then_branch = t () => (float[2,3] a) { a = Neg(x) },
            else_branch = e () => (float[1,3] b) { b = ReduceSum(x, axes) }>
    }"""
    agrees(text, tmp_path, {"c": np.array(condition), "x": X})


def test_a_declared_size_is_checked_at_run_time(tmp_path):
    text = """g (bool c, float[2,3] x) => (float[2,3] y) {
        axes = Constant <value_ints = [0]> ()
        y = If (c) <
            then_branch = t () => (float[2,3] a) { a = Neg(x) },
            else_branch = e () => (float[?,3] b) { b = ReduceSum(x, axes) }>
    }"""
    path = saved(text, tmp_path)
    same(interpreted(path, {"c": np.array(True), "x": X}), [-X])
    with pytest.raises(UsageError, match="axis 0 of a result must have 2"):
        interpreted(path, {"c": np.array(False), "x": X})


@pytest.mark.parametrize("outer", [True, False])
@pytest.mark.parametrize("inner", [True, False])
def test_nested_branches_capture_through_two_graphs(outer, inner, tmp_path):
    text = """g (bool c, bool d, float[2,3] x) => (float[2,3] y) {
        y = If (c) <
            then_branch = t () => (float[2,3] a) {
                n = Neg(x)
                a = If (d) <
                    then_branch = t2 () => (float[2,3] a2) { a2 = Add(n, x) },
                    else_branch = e2 () => (float[2,3] b2) { b2 = Mul(n, x) }>
            },
            else_branch = e () => (float[2,3] b) { b = Identity(x) }>
    }"""
    agrees(text, tmp_path, {"c": np.array(outer), "d": np.array(inner), "x": X})


@pytest.mark.parametrize(
    ("result", "words"),
    [
        ("float[3] b) { b = ReduceSum <keepdims = 0> (x)", r"float32\[2,3\] on .* float32\[\] on"),
        ("int64[2,3] b) { b = Cast <to = 7> (x)", r"int64\[2,3\] on another"),
        ("seq(float[2,3]) b) { b = SequenceConstruct(x)", "a sequence of 1 on another"),
    ],
)
def test_branches_without_a_joint_form_are_refused(result, words, tmp_path):
    text = """g (bool c, float[2,3] x) => (float[2,3] y) {
        y = If (c) <
            then_branch = t () => (float[2,3] a) { a = Neg(x) },
            else_branch = e () => (%s }>
    }"""
    path = saved(text % result, tmp_path)
    with pytest.raises(UnsupportedError, match=words):
        load_onnx(path, input_shapes={"c": (), "x": (2, 3)})


def test_a_condition_of_another_type_is_refused(tmp_path):
    inputs = {"x": X, "c": np.array(1)}
    path = save(if_model(None, branch("a", "Neg"), branch("b", "Abs"), inputs), tmp_path)
    with pytest.raises(ModelError, match=r"condition must be one bool, is int64\[\]"):
        load_onnx(path)


def test_an_error_inside_a_branch_names_the_inner_node(tmp_path):
    path = save(if_model(True, branch("a", "Frobnicate"), branch("b", "Abs")), tmp_path)
    with pytest.raises(UnsupportedError, match="choose/Frobnicate_a_y"):
        load_onnx(path)
    assert [p.operator for p in check_onnx(path)] == ["Frobnicate"]


def test_branches_nested_too_deep(tmp_path):
    inner = branch("leaf", "Neg")
    for level in range(20):
        node = helper.make_node(
            "If", ["c"], [f"y{level}"], then_branch=inner, else_branch=branch("b", "Abs")
        )
        out = helper.make_tensor_value_info(f"y{level}", TensorProto.FLOAT, None)
        inner = helper.make_graph([node], f"g{level}", [], [out])
    path = save(if_model(True, inner, branch("b", "Abs")), tmp_path)
    with pytest.raises(ModelError, match="nested more than"):
        load_onnx(path)


OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]


def local_model(function, node, **weights):
    model = model_of([node], {"x": X}, list(node.output), weights, functions=[function])
    model.opset_import.append(OPSETS[1])
    return model


def test_a_function_of_the_model_with_attributes_and_a_default(tmp_path):
    """scale(x; by, alpha=0.5) = leaky_relu(x; alpha) * by"""
    constant = helper.make_node("Constant", [], ["b"])
    leaky = helper.make_node("LeakyRelu", ["p"], ["h"])
    for node, own, outer in ((constant, "value_float", "by"), (leaky, "alpha", "alpha")):
        node.attribute.add(name=own, ref_attr_name=outer, type=onnx.AttributeProto.FLOAT)
    nodes = [constant, leaky, helper.make_node("Mul", ["h", "b"], ["q"])]
    function = helper.make_function(
        "local", "scale", ["p"], ["q"], nodes, OPSETS, ["by"],
        [helper.make_attribute("alpha", 0.5)],
    )  # fmt: skip
    node = helper.make_node("scale", ["x"], ["y"], domain="local", by=3.0)
    result = run_file(save(local_model(function, node), tmp_path), {"x": X})[0]
    np.testing.assert_allclose(result, np.where(X < 0, X * 0.5, X) * 3, rtol=1e-6)


def test_names_inside_a_function_are_its_own(tmp_path):
    function = helper.make_function(
        "local", "f", ["p"], ["q"], [helper.make_node("Neg", ["x"], ["q"])], OPSETS
    )
    node = helper.make_node("f", ["x"], ["y"], domain="local")
    with pytest.raises(ModelError, match="'x' is read, but no"):
        load_onnx(save(local_model(function, node), tmp_path))


def test_an_operator_that_onnx_defines_by_others(tmp_path):
    """CenterCropPad has no rule of its own: its definition depends on the operand types."""
    node = helper.make_node("CenterCropPad", ["x", "s"], ["y"])
    path = save(model_of([node], {"x": f32(4, 6)}, ["y"], {"s": np.array([2, 8])}, 18), tmp_path)
    assert load_onnx(path).outputs[0][1].shape == (2, 8)


def test_attention_through_its_definition(tmp_path):
    """softmax(q k' / sqrt(d)) v"""
    q, k, v = (f32(1, 2, 4, 8, seed=seed) for seed in range(3))
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"])
    path = save(model_of([node], {"q": q, "k": k, "v": v}, ["y"], opset=23), tmp_path)
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(8)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    result = run_file(path, {"q": q, "k": k, "v": v})[0]
    np.testing.assert_allclose(result, weights @ v, rtol=1e-4, atol=1e-5)
