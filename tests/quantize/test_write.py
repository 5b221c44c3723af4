"""The QDQ model: valid, the same in ONNX Runtime and aotc, close to the float model, int8 inside.
"""

from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_nets import draw, make, quiet, residual_net, run, saved

import aotc
from aotc.quantize.calibrate import calibrate
from aotc.quantize.codes import CODE_TYPES
from aotc.quantize.placement import place
from aotc.quantize.prepare import prepare
from aotc.quantize.runner import Probe, Scratch
from aotc.quantize.write import write


def quantised(model, tmp_path, activations="uint8", **choices):
    """The QDQ model of ``model``, every range covering everything."""
    path, samples = saved(model, tmp_path)
    code = CODE_TYPES[activations]
    net = prepare(path, code.opset)
    placement = place(net, **choices)
    with Scratch() as scratch:
        probe = Probe(scratch.save(net.to_model()), [placement.tensors])
        calibration = calibrate(probe, placement, samples, quiet)
    codings = calibration.codings(placement, "minmax", code, 100)
    result = write(net, placement, codings, calibration.means()).model
    onnx.checker.check_model(result, full_check=True)
    return result, next(iter(samples))


@pytest.fixture(scope="module")
def residual(tmp_path_factory):
    """The quantised `residual_net` and a sample."""
    return quantised(residual_net(), tmp_path_factory.mktemp("residual"))


def constants(model):
    return {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}


@pytest.mark.slow
@pytest.mark.parametrize(
    "activations",
    ["uint8", *(pytest.param(name, marks=pytest.mark.slow) for name in ("int8", "int16"))],
)
def test_results_are_close_in_both_engines(tmp_path, residual, activations):
    model, inputs = residual
    if activations != "uint8":
        model, inputs = quantised(residual_net(), tmp_path, activations)
    exact = run(residual_net(), inputs)
    found = run(model, inputs)
    path = tmp_path / "q.onnx"
    onnx.save(model, path)
    ours = aotc.compile(path, cpu="native")(**inputs)
    scale = np.abs(exact).max()
    assert 0 < np.abs(found - exact).max() < 0.05 * scale
    # a sum next to the middle between two codes may round to either
    assert np.abs(ours - found).max() < 0.02 * scale
    assert model.opset_import[0].version >= CODE_TYPES[activations].opset


def test_weights_are_symmetric_per_channel_and_biases_at_the_scale_of_the_products(residual):
    model, _ = residual
    values = constants(model)
    weights, scales = values["w2_quantized"], values["w2_scale"]
    assert weights.dtype == np.int8 and scales.shape == (8,)
    np.testing.assert_array_equal(np.abs(weights.astype(int)).reshape(8, -1).max(axis=1), 127)
    assert not values["w2_zero_point"].any()
    assert values["r1_scale"].shape == values["r1_zero_point"].shape == ()
    assert values["b2_quantized"].dtype == np.int32
    expected = scales * values["r1_scale"]
    np.testing.assert_allclose(values["b2_scale"], expected, rtol=1e-6)
    exact = constants(residual_net())["w2"]
    restored = weights * scales.reshape(8, 1, 1, 1)
    assert np.abs(restored - exact).max() <= scales.max() * 0.5001


def test_relu_is_absorbed_and_movement_shares_a_scale(residual):
    model, _ = residual
    kinds = Counter(node.op_type for node in model.graph.node)
    assert "Relu" not in kinds
    readers = {node.output[0]: list(node.input) for node in model.graph.node}
    pool, data = readers["p_quantized"], readers["r2_quantized"]
    assert pool[1:] == data[1:] == ["r2_scale", "r2_zero_point"]
    flat, mean = readers["f_quantized"], readers["g_quantized"]
    assert flat[1:] == mean[1:] != pool[1:]
    # the residual sum reads codes on both sides, the result stays in float
    assert readers["s"] == ["c2_dequantized", "r1_dequantized"]
    assert "y_quantized" not in readers


def test_onnx_runtime_finds_its_integer_kernels(tmp_path, residual):
    import onnxruntime

    model, inputs = residual
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "fused.onnx")
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "fused.onnx").graph.node)
    assert kinds["QLinearConv"] == 3 and kinds["QLinearAdd"] == 1 and not kinds["Conv"]
    found, exact = session.run(None, inputs)[0], run(residual_net(), inputs)
    assert np.abs(found - exact).max() < 0.05 * np.abs(exact).max()


def test_clip_stays_where_the_codes_go_beyond_it(tmp_path):
    limits = {"lo": np.array(0.25, np.float32), "hi": np.array(6.0, np.float32)}
    nodes = [
        ("Conv", "x,w", "c", {}), ("Clip", "c,lo,hi", "k", {}), ("Conv", "k,v", "y", {}),
    ]  # fmt: skip
    model = make(
        nodes,
        {"w": draw(1, 4, 3, 1, 1), "v": draw(2, 4, 4, 1, 1), **limits},
        {"x": [1, 3, 8, 8]},
        {"y": 4},
    )
    result, _ = quantised(model, tmp_path)
    assert "Clip" in [node.op_type for node in result.graph.node]


def test_concatenated_tensors_share_a_scale(tmp_path):
    nodes = [
        ("Conv", "x,w", "a", {}),
        ("Conv", "x,v", "b", {}),
        ("Concat", "a,b", "c", {"axis": 1}),
        ("Conv", "c,u", "y", {}),
    ]
    weights = {"w": draw(1, 4, 3, 1, 1), "v": 9 * draw(2, 4, 3, 1, 1), "u": draw(3, 4, 8, 1, 1)}
    model, inputs = quantised(make(nodes, weights, {"x": [1, 3, 8, 8]}, {"y": 4}), tmp_path)
    readers = {node.output[0]: list(node.input) for node in model.graph.node}
    assert readers["a_quantized"][1:] == readers["b_quantized"][1:] == readers["c_quantized"][1:]


def test_activation_functions_stay_with_the_layer_before_them(tmp_path):
    nodes = [
        ("Conv", "x,w", "c", {}),
        ("Sigmoid", "c", "g", {}),
        ("Mul", "c,g", "s", {}),
        ("Conv", "s,v", "y", {}),
    ]
    weights = {"w": draw(1, 4, 3, 1, 1), "v": draw(2, 4, 4, 1, 1)}
    model, _ = quantised(make(nodes, weights, {"x": [1, 3, 8, 8]}, {"y": 4}), tmp_path)
    codes = [node.output[0] for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert codes == ["x_quantized", "s_quantized"]


@pytest.mark.slow
def test_attention_and_normalisation_stay_in_float_unless_asked(tmp_path):
    nodes = [
        ("LayerNormalization", "x,g", "n", {}),
        ("MatMul", "n,wq", "q", {}),
        ("MatMul", "n,wk", "k", {}),
        ("Transpose", "k", "t", {"perm": [0, 1, 3, 2]}),
        ("MatMul", "q,t", "a", {}),
        ("Softmax", "a", "p", {}),
        ("MatMul", "p,x", "m", {}),
        ("Add", "m,x", "y", {}),
    ]
    weights = {"g": np.ones(8, np.float32), "wq": draw(1, 8, 8), "wk": draw(2, 8, 8)}
    model = make(nodes, weights, {"x": [1, 3, 8, 8]}, {"y": 4})
    plain, _ = quantised(model, tmp_path)
    asked, inputs = quantised(model, tmp_path, products=True)
    count = [
        sum(node.op_type == "QuantizeLinear" for node in m.graph.node) for m in (plain, asked)
    ]
    assert count == [1, 6]
    exact = run(model, inputs)
    assert np.abs(run(asked, inputs) - exact).max() < 0.05 * np.abs(exact).max()


@pytest.mark.parametrize(
    "kind, weights, extra",
    [
        ("ConvTranspose", draw(1, 4, 3, 2, 2), {"group": 2}),
        ("ConvTranspose", draw(1, 4, 3, 2, 2), {}),
        ("Conv", draw(1, 6, 2, 3, 3), {"group": 2}),
        ("Conv", np.zeros((6, 4, 1, 1), np.float32), {}),
    ],
)
def test_layers_of_every_form(tmp_path, kind, weights, extra):
    channels = 6 if extra or kind == "Conv" else 3
    nodes = [("Conv", "x,u", "t", {}), (kind, "t,w,b", "y", extra)]
    constants = {"u": draw(3, 4, 3, 1, 1), "w": weights, "b": draw(2, channels)}
    model = make(nodes, constants, {"x": [1, 3, 8, 8]}, {"y": 4})
    result, inputs = quantised(model, tmp_path)
    exact = run(model, inputs)
    assert np.abs(run(result, inputs) - exact).max() < 0.03 * np.abs(exact).max()


def test_a_bias_that_needs_more_than_32_bits_widens_the_scale(tmp_path):
    weights = draw(1, 4, 3, 1, 1)
    weights[0] = 1e-12
    bias = np.array([1e3, 1, 1, 1], np.float32)
    nodes = [("Conv", "x,w,b", "y", {})]
    model = make(nodes, {"w": weights, "b": bias}, {"x": [1, 3, 8, 8]}, {"y": 4})
    result, inputs = quantised(model, tmp_path)
    found = run(result, inputs)
    np.testing.assert_allclose(found[0, 0], 1e3, rtol=1e-5)


def test_layers_that_share_weights_share_their_codes(tmp_path):
    nodes = [("Conv", "x,w", "t", {}), ("Relu", "t", "r", {}), ("Conv", "r,w", "y", {})]
    model = make(nodes, {"w": draw(1, 3, 3, 1, 1)}, {"x": [1, 3, 8, 8]}, {"y": 4})
    result, inputs = quantised(model, tmp_path)
    assert [name for name in constants(result) if name.startswith("w")] == [
        "w_quantized", "w_scale", "w_zero_point",
    ]  # fmt: skip
    exact = run(model, inputs)
    assert np.abs(run(result, inputs) - exact).max() < 0.05 * np.abs(exact).max()
