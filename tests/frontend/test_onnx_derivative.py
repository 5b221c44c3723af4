"""Derivatives against differences of values of the same graph."""

import numpy as np
import pytest
from onnx import helper
from onnx_cases import f32, model_of, run_file, save

from aotc.errors import ModelError
from aotc.frontend.onnx_reader import load_onnx
from aotc.graph.eval import evaluate

DOMAIN = "ai.onnx.preview.training"


def node(op, inputs, output, **attrs):
    return helper.make_node(op, inputs.split(), [output], **attrs)


def model_with(nodes, feeds, xs, weights=None, zs=(), inputs=None):
    """The graph, its result ``y`` and the derivatives of y by ``xs``."""
    attrs = {"zs": list(zs)} if zs else {}
    outputs = [f"d{name}" for name in xs]
    operands = list(inputs or (*xs, *zs))
    last = helper.make_node("Gradient", operands, outputs, domain=DOMAIN, xs=xs, y="y", **attrs)
    model = model_of([*nodes, last], feeds, ["y", *outputs], weights or {})
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return model


def differences(graph, feeds, name, step=1e-6):
    """The derivative of the sum of y by each element of one input, numerically."""
    result = np.zeros_like(feeds[name])
    for place in np.ndindex(result.shape):
        sums = []
        for sign in (1, -1):
            moved = dict(feeds)
            moved[name] = feeds[name].copy()
            moved[name][place] += sign * step
            sums.append(evaluate(graph, moved)["y"].sum())
        result[place] = (sums[0] - sums[1]) / (2 * step)
    return result


def check(nodes, feeds, folder, weights=None):
    feeds = {name: value.astype(np.float64) for name, value in feeds.items()}
    model = model_with(nodes, feeds, list(feeds), weights)
    graph = load_onnx(save(model, folder))
    results = evaluate(graph, feeds)
    for name in feeds:
        right = differences(graph, feeds, name)
        np.testing.assert_allclose(results[f"d{name}"], right, rtol=1e-5, atol=1e-5)


UNARY = [
    *("Neg", "Abs", "Exp", "Log", "Sqrt", "Reciprocal", "Tanh", "Erf", "Sigmoid", "Sin", "Cos"),
    *("Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Atanh", "Floor", "Softplus"),
]


def test_functions_of_one_number(tmp_path):
    names = [f"t{at}" for at in range(len(UNARY))]
    nodes = [node(op, "x", name) for op, name in zip(UNARY, names, strict=True)]
    nodes.append(node("Sum", " ".join(names), "y"))
    check(nodes, {"x": f32(4, low=0.1, high=0.9)}, tmp_path)


CHAINS = {
    "arithmetic": [node("Add", "a b", "s"), node("Mul", "s a", "m"), node("Sub", "m b", "y")],
    "powers": [node("Pow", "a b", "p"), node("Div", "p b", "y")],
    "choice": [
        node("Max", "a b", "m"), node("Less", "a b", "c"), node("Where", "c m a", "w"),
        node("Min", "w b", "y"),
    ],
    "products": [
        node("Transpose", "b", "t", perm=[0, 2, 1]), node("MatMul", "a t", "m"),
        node("Softmax", "m", "s", axis=-1), node("MatMul", "s b", "y"),
    ],
    "reductions": [
        node("ReduceMax", "a", "m", axes=[2]), node("ReduceMean", "b", "e", axes=[1, 2]),
        node("Mul", "m e", "p"), node("ReduceL2", "p", "l", axes=[0]),
        node("ReduceProd", "l", "y"),
    ],
    "movement": [
        node("Slice", "a starts ends axes steps", "s"), node("Pad", "s pads", "p"),
        node("Concat", "p b", "c", axis=1), node("Tanh", "c", "t"),
        node("Gather", "t index", "g", axis=1), node("CumSum", "g one", "r"),
        node("Mul", "r r", "y"),
    ],
}  # fmt: skip
WEIGHTS = {
    "starts": np.array([2, 3]), "ends": np.array([-9, 0]), "axes": np.array([1, 2]),
    "steps": np.array([-2, -1]), "pads": np.array([0, 1, 1, 0, 0, 0]),
    "index": np.array([[0, 2], [2, 4]]), "one": np.array(1),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_chains(name, tmp_path):
    used = {text for one in CHAINS[name] for text in one.input}
    weights = {key: value for key, value in WEIGHTS.items() if key in used}
    shapes = {"a": f32(2, 3, 4, low=0.5), "b": f32(2, 3, 4, seed=1, low=0.5)}
    check(CHAINS[name], shapes, tmp_path, weights)


def test_a_variable_may_be_computed_and_another_stays_fixed(tmp_path):
    feeds = {"a": f32(3), "b": f32(3, seed=1)}
    nodes = [node("Exp", "a", "x"), node("Mul", "x b", "y")]
    results = run_file(save(model_with(nodes, feeds, ["x"], zs=["b"]), tmp_path), feeds)
    np.testing.assert_allclose(results[1], feeds["b"], rtol=1e-6)


def test_other_values_may_stand_in_for_the_variables(tmp_path):
    feeds = {"a": f32(3), "b": f32(3, seed=1)}
    model = model_with([node("Mul", "a a", "y")], feeds, ["a"], inputs=["b"])
    results = run_file(save(model, tmp_path), feeds)
    np.testing.assert_allclose(results[0], feeds["a"] ** 2, rtol=1e-6)
    np.testing.assert_allclose(results[1], 2 * feeds["b"], rtol=1e-6)


def test_what_does_not_matter_has_derivative_zero(tmp_path):
    feeds = {"a": f32(3), "b": f32(2)}
    nodes = [node("Mul", "a a", "y")]
    results = run_file(save(model_with(nodes, feeds, ["a", "b"]), tmp_path), feeds)
    assert results[2].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("nodes", "inputs", "words"),
    [
        ([node("Cast", "a", "y", to=7)], ["a"], "whole numbers"),
        ([node("Identity", "a", "y")], ["b"], "in place of a variable"),
        ([node("Identity", "a", "y")], ["a", "a"], "one input for each"),
    ],
)
def test_what_has_no_derivative_is_named(nodes, inputs, words, tmp_path):
    feeds = {"a": f32(3), "b": f32(2)}
    model = model_with(nodes, feeds, ["a"], inputs=inputs)
    with pytest.raises(ModelError, match=words):
        run_file(save(model, tmp_path), feeds)


def test_a_network_of_windows(tmp_path):
    nodes = [
        node("Conv", "a b", "c", pads=[1, 1, 0, 0], strides=[2, 1]),
        node("Sigmoid", "c", "s"),
        node("MaxPool", "s", "m", kernel_shape=[2, 2]),
        node("AveragePool", "m", "y", kernel_shape=[1, 2], strides=[1, 2]),
    ]
    check(nodes, {"a": f32(1, 2, 5, 5), "b": f32(2, 2, 3, 2, seed=1)}, tmp_path)


def test_values_that_are_known(tmp_path):
    nodes = [node("Constant", "", "k", value_floats=[0.5, 1.0]), node("Mul", "k a", "m")]
    nodes += [node("Exp", "m", "y")]
    feeds = {"a": f32(2)}
    results = run_file(save(model_with(nodes, feeds, ["k"], zs=["a"]), tmp_path), feeds)
    right = feeds["a"] * np.exp(feeds["a"] * np.array([0.5, 1.0]))
    np.testing.assert_allclose(results[1], right, rtol=1e-5)
