"""Sizes of arguments that have names: bound by dims or by the arrays of a call."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import aotc

MEAN = np.float32([0.485, 0.456, 0.406])
STD = np.float32([0.229, 0.224, 0.225])


def table(x: aotc.Tensor["N", 3], y: aotc.Tensor["N", None, "int32"]) -> aotc.Tensor["N", 3]:  # noqa: F821
    return x + y.sum(axis=1, keepdims=True).astype(np.float32)


def types(graph):
    return [str(node.type) for node in graph.inputs]


def test_dims_give_the_sizes():
    assert types(aotc.trace(table, dims={"N": 4, "y_1": 2})) == ["float32[4,3]", "int32[4,2]"]
    compiled = aotc.compile(aotc.function(table), dims={"N": 4, "y_1": 2})
    x = np.ones((4, 3), np.float32)
    np.testing.assert_array_equal(compiled(x, np.ones((4, 2), np.int32)), x + 2)
    graph = aotc.trace(lambda x: x, aotc.spec((None, 3)), dims={"x_0": 5})
    assert types(graph) == ["float32[5,3]"]


def test_a_call_binds_them_and_compiles_once_for_each():
    traced = []

    @aotc.function
    def double(x: aotc.Tensor["N", "int32"]):  # noqa: F821
        traced.append(x.shape)
        return x * 2

    for size in (3, 5, 3, 5):
        np.testing.assert_array_equal(double(np.arange(size, dtype=np.int32)), 2 * np.arange(size))
    assert traced == [(3,), (5,)]


def test_an_entry_for_each_of_several_sizes():
    both = aotc.compile(aotc.function(table), dims={"N": [2, 4], "y_1": 1})
    for size in (2, 4):
        x = np.ones((size, 3), np.float32)
        np.testing.assert_array_equal(both(x, np.ones((size, 1), np.int32)), x + 1)
    assert len(both.variants) == 2
    function = aotc.function(table)
    together = aotc.compile_together([function], name="app", dims={"N": 2, "y_1": 1})
    assert together["table"].signature.inputs[0].type.dims == (2, 3)


@pytest.mark.parametrize(
    ("dims", "words"),
    [
        ({}, ["the size 'N' of the argument 'x', float32[N,3]", 'dims={"N": 8}']),
        ({"N": 2}, ["the size 'y_1' of the argument 'y', int32[2,y_1]", 'dims={"y_1": 8}']),
        ({"M": 2}, ["no size 'M'", "N, y_1"]),
        ({"N": (1, 8), "y_1": 1}, ["'N' of table cannot be (1, 8)", "fixed sizes"]),
        ({"N": 1.5, "y_1": 1}, ["cannot be 1.5"]),
    ],
)
def test_what_is_missing_or_wrong_is_said(dims, words):
    with pytest.raises(aotc.UsageError) as error:
        aotc.trace(table, dims=dims)
    for word in words:
        assert word in str(error.value)


def test_arrays_that_do_not_fit():
    function = aotc.function(table)
    x = np.ones((2, 3), np.float32)
    with pytest.raises(aotc.UsageError, match="the size 'N' is 2, and 3 in 'y'"):
        function(x, np.ones((3, 1), np.int32))
    with pytest.raises(aotc.UsageError, match=r"'x' is float32\[N,3\], gets an array of shape"):
        function(x[0], np.ones((2, 1), np.int32))


def test_names_of_types_and_of_sizes():
    assert str(aotc.Tensor["H", "W", "H"]) == "float32[H,W,H]"
    assert str(aotc.Tensor["f4x", "uint8"]) == "uint8[f4x]"
    for short in ("f4", "double"):
        with pytest.raises(aotc.UsageError, match="write 'float"):
            aotc.Tensor[3, short]

    def wrong(x: aotc.Tensor["N"]) -> aotc.Tensor["N", 2]:  # noqa: F821
        return x

    with pytest.raises(aotc.UsageError, match=r"float32\[3\], its annotation says float32\[N,2\]"):
        aotc.trace(wrong, dims={"N": 3})


def test_state_with_named_sizes():
    def smooth(state, x: aotc.Tensor["N"]):  # noqa: F821
        return state + x.sum(), state

    assert types(aotc.stateful(smooth, np.float32(0)).trace(dims={"N": 6}))[1] == "float32[6]"


def small_net(path):
    """224 x 224 images to 10 scores."""
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((4, 3, 8, 8)).astype(np.float32) / 8
    weights = rng.standard_normal((4, 10)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["image", "kernel"], ["a"], strides=[8, 8]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("GlobalAveragePool", ["b"], ["c"]),
        helper.make_node("Flatten", ["c"], ["d"]),
        helper.make_node("MatMul", ["d", "weights"], ["scores"]),
    ]
    stored = [
        onnx.numpy_helper.from_array(kernel, "kernel"),
        onnx.numpy_helper.from_array(weights, "weights"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 3, 224, 224])
    scores = helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 10])
    onnx.save(helper.make_model(helper.make_graph(nodes, "net", [image], [scores], stored)), path)
    return path


@aotc.function
def preprocess(image: aotc.Tensor["H", "W", 3, "uint8"]) -> aotc.Tensor[1, 3, 224, 224]:  # noqa: F821
    x = aotc.image.resize(image, (224, 224)) / np.float32(255)
    return np.transpose((x - MEAN) / STD, (2, 0, 1))[None]


@pytest.mark.slow
def test_from_the_camera_to_the_best_classes(tmp_path):
    net = aotc.load_onnx(small_net(tmp_path / "net.onnx"))
    app = aotc.compose(preprocess, net, lambda y: aotc.top_k(aotc.softmax(y), 5))
    compiled = aotc.compile(app, dims={"H": 120, "W": 160}, target="aarch64")
    paths = compiled.save(tmp_path / "build")
    assert {path.suffix for path in paths} == {".o", ".h", ".json"}
    assert compiled.signature.inputs[0].name == "image"
    image = np.random.default_rng(1).integers(0, 256, (120, 160, 3)).astype(np.uint8)
    best, places = app(image)
    scores = aotc.compile(net)(preprocess.python(image))
    order = np.argsort(-scores[0])[:5]
    np.testing.assert_array_equal(places[0], order)
    power = np.exp(scores[0] - scores.max())
    np.testing.assert_allclose(best[0], (power / power.sum())[order], rtol=1e-4)
    with pytest.raises(aotc.UsageError, match="dims="):
        aotc.compile(app)
