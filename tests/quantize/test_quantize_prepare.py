"""What the quantiser does to a model first: the same results from fewer operators."""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_nets import draw, make, residual_net, run

from aotc.errors import ModelError, UsageError
from aotc.quantize.prepare import prepare

X = {"x": [1, 3, 8, 8]}
IMAGE = draw(50, 1, 3, 8, 8)


def prepared(model, tmp_path, opset=13):
    """The operators left, how often, and the model; its results are compared on the way."""
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    result = prepare(path, opset).to_model()
    onnx.checker.check_model(result, full_check=True)
    inputs = {
        info.name: draw(51, *[d.dim_value or 2 for d in info.type.tensor_type.shape.dim])
        for info in model.graph.input
    }
    np.testing.assert_allclose(run(result, inputs), run(model, inputs), rtol=1e-5, atol=1e-5)
    return Counter(node.op_type for node in result.graph.node), result


def test_batch_norm_joins_the_layer_before_it(tmp_path):
    kinds, model = prepared(residual_net(), tmp_path)
    assert "BatchNormalization" not in kinds
    assert model.graph.node[0].output[0] == "n1"


@pytest.mark.parametrize("transposed", [False, True])
def test_factors_and_terms_join_convolutions(tmp_path, transposed):
    kind, weights = ("ConvTranspose", draw(1, 3, 2, 2, 2)) if transposed else (
        "Conv", draw(1, 4, 3, 2, 2)
    )  # fmt: skip
    channels = 2 if transposed else 4
    constants = {
        "w": weights, "a": draw(2, channels, 1, 1), "b": draw(3, 1, channels, 1, 1),
        "c": np.array(3.0, np.float32), "d": np.array([0.5], np.float32),
    }  # fmt: skip
    nodes = [
        (kind, "x,w", "t", {}),
        ("Mul", "a,t", "u", {}),
        ("Add", "u,b", "v", {}),
        ("Div", "v,c", "p", {}),
        ("Sub", "p,d", "y", {}),
    ]
    kinds, _ = prepared(make(nodes, constants, X, {"y": 4}), tmp_path)
    assert kinds == {kind: 1}


def test_grouped_transposed_convolutions_take_factors(tmp_path):
    constants = {"w": draw(1, 4, 3, 2, 2), "a": draw(2, 6, 1, 1)}
    nodes = [("ConvTranspose", "x,w", "t", {"group": 2}), ("Mul", "t,a", "y", {})]
    kinds, _ = prepared(make(nodes, constants, {"x": [1, 4, 5, 5]}, {"y": 4}), tmp_path)
    assert kinds == {"ConvTranspose": 1}


def test_what_differs_along_other_axes_stays(tmp_path):
    constants = {"w": draw(1, 8, 3, 1, 1), "a": draw(2, 8), "b": draw(3, 2, 8, 1, 1)}
    nodes = [
        ("Conv", "x,w", "t", {}),
        ("Mul", "t,a", "u", {}),
        ("Add", "u,b", "y", {}),
    ]
    kinds, _ = prepared(make(nodes, constants, X, {"y": 4}), tmp_path)
    assert kinds == {"Conv": 1, "Mul": 1, "Add": 1}


def test_values_that_others_read_stay(tmp_path):
    constants = {"w": draw(1, 8, 3, 1, 1), "a": draw(2, 8, 1, 1)}
    nodes = [("Conv", "x,w", "t", {}), ("Mul", "t,a", "u", {}), ("Add", "u,t", "y", {})]
    kinds, _ = prepared(make(nodes, constants, X, {"y": 4}), tmp_path)
    assert kinds == {"Conv": 1, "Mul": 1, "Add": 1}


def test_products_of_matrices_take_their_bias_and_gemms_their_factors(tmp_path):
    constants = {"w": draw(1, 6, 4), "b": draw(2, 1, 4), "v": draw(3, 4, 5), "c": draw(4, 5)}
    nodes = [
        ("MatMul", "x,w", "t", {}),
        ("Add", "b,t", "u", {}),
        ("Gemm", "u,v,c", "y", {"alpha": 0.5, "beta": 2.0}),
    ]
    kinds, model = prepared(make(nodes, constants, {"x": [2, 6]}, {"y": 2}), tmp_path)
    assert kinds == {"Gemm": 2}
    factors = [a.f for node in model.graph.node for a in node.attribute if a.name in ("alpha",)]
    assert set(factors) <= {1.0}


def test_padding_joins_the_convolution(tmp_path):
    constants = {"w": draw(1, 4, 3, 3, 3), "p": np.array([0, 0, 1, 0, 0, 0, 2, 3])}
    nodes = [("Pad", "x,p", "t", {}), ("Conv", "t,w", "y", {"pads": [1, 1, 0, 0]})]
    kinds, model = prepared(make(nodes, constants, X, {"y": 4}), tmp_path)
    assert kinds == {"Conv": 1}
    assert list(model.graph.node[0].input) == ["x", "w"]


def test_constants_are_folded_but_not_large_ones(tmp_path):
    constants = {
        "w": draw(1, 4, 3, 1, 1), "i": np.array([2, 2]), "huge": np.array([1 << 40]),
    }  # fmt: skip
    nodes = [
        ("Identity", "w", "v", {}),
        ("Mul", "v,v", "u", {}),
        ("Conv", "x,u", "t", {}),
        ("ConstantOfShape", "huge", "h", {}),
        ("Shape", "h", "s", {}),
        ("Add", "t,t", "y", {}),
    ]
    path = tmp_path / "m.onnx"
    onnx.save(make(nodes, constants, X, {"y": 4, "s": 1}), path)
    kinds = Counter(node.op_type for node in prepare(path, 13).nodes)
    assert kinds["ConstantOfShape"] == 1 and kinds["Mul"] == kinds["Identity"] == 0


def test_nodes_come_in_order_and_unused_ones_go(tmp_path):
    nodes = [("Conv", "x,w", "t", {}), ("Relu", "t", "y", {}), ("Abs", "t", "unused", {})]
    model = make(nodes, {"w": draw(1, 4, 3, 1, 1)}, X, {"y": 4})
    backward = list(model.graph.node)[::-1]
    del model.graph.node[:]
    model.graph.node.extend(backward)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    assert [node.op_type for node in prepare(path, 13).nodes] == ["Conv", "Relu"]


def test_old_models_are_raised(tmp_path):
    _, model = prepared(residual_net(opset=11), tmp_path)
    assert model.opset_import[0].version == 13


def test_external_weights_are_taken_in(tmp_path):
    path = tmp_path / "m.onnx"
    onnx.save(residual_net(), path, save_as_external_data=True, size_threshold=0)
    model = prepare(path, 13).to_model()
    assert not any(t.data_location == TensorProto.EXTERNAL for t in model.graph.initializer)
    np.testing.assert_allclose(
        run(model, {"x": IMAGE}), run(residual_net(), {"x": IMAGE}), atol=1e-5
    )


def test_nested_graphs_keep_what_they_read(tmp_path):
    branch = helper.make_graph(
        [helper.make_node("Mul", ["i", "i"], ["o"])],
        "b", [], [helper.make_tensor_value_info("o", TensorProto.FLOAT, None)],
    )  # fmt: skip
    model = make(
        [("Identity", "x", "i", {}), ("Conv", "x,w", "y", {})],
        {"w": draw(1, 4, 3, 1, 1), "c": np.array(True)}, X, {"y": 4},
    )  # fmt: skip
    model.graph.node.append(
        helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)
    )
    model.graph.output.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, None))
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    assert "i" in {name for node in prepare(path, 13).nodes for name in node.output}


def test_damaged_and_quantised_models_are_refused(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(residual_net().SerializeToString()[:-300])
    with pytest.raises(ModelError, match="truncated|damaged|cannot be read|has"):
        prepare(path, 13)
    codes = {"s": np.array(0.1, np.float32), "z": np.array(0, np.uint8)}
    nodes = [("QuantizeLinear", "x,s,z", "q", {}), ("DequantizeLinear", "q,s,z", "y", {})]
    onnx.save(make(nodes, codes, X, {"y": 4}), path)
    with pytest.raises(UsageError, match="quantised already"):
        prepare(path, 13)
