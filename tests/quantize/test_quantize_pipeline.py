"""From a file and samples to a quantised model: methods, budget, equalisation, report."""

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from small_nets import draw, make, quiet, residual_net, run, saved

from aotc.errors import UnsupportedError, UsageError
from aotc.quantize.calibrate import calibrate
from aotc.quantize.decisions import Rule
from aotc.quantize.equalize import equalize
from aotc.quantize.pipeline import QuantizeOptions, quantize_model
from aotc.quantize.placement import place
from aotc.quantize.prepare import prepare
from aotc.quantize.runner import Probe, Scratch
from aotc.quantize.samples import find_samples
from aotc.quantize.search import _least


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The samples and the quantised `residual_net`."""
    path, samples = saved(residual_net(), tmp_path_factory.mktemp("plain"))
    return samples, quantize_model(path, samples, QuantizeOptions(method="entropy"), quiet)


@pytest.mark.slow
def test_the_report_says_what_the_model_does(plain):
    samples, result = plain
    report = result.report
    assert [layer.name for layer in report.layers] == ["c1", "c2", "s", "c3", "g", "y"]
    assert all(15 < layer.closeness.sqnr < 80 for layer in report.layers)
    (output,) = report.outputs
    pairs = [(run(result.model, x), run(residual_net(), x)) for x in samples]
    changed = sum(int(a.argmax() != b.argmax()) for a, b in pairs)
    assert (output.count.changed, output.count.total) == (changed, 6)
    assert output.rule == "argmax:-1"
    assert output.closeness.largest == pytest.approx(
        max(np.abs(a - b).max() for a, b in pairs), rel=0.2
    )
    assert report.weight_bytes[1] < 0.6 * report.weight_bytes[0]
    read = json.loads(report.to_json())
    assert read["decisions"] == 6 and len(read["layers"]) == 6 and not read["kept_float"]


def outlier_net():
    """Two layers; the weights of the second have an outlier in each channel that its data never
    meet, so that all their other weights round to zero."""
    first, second = draw(1, 4, 3, 1, 1), draw(2, 4, 4, 1, 1)
    first[3] = 0
    second[:, 3] = 1000
    nodes = [("Conv", "x,w", "t", {}), ("Relu", "t", "r", {}), ("Conv", "r,v", "y", {})]
    return make(nodes, {"w": first, "v": second}, {"x": [1, 3, 8, 8]}, {"y": 4})


@pytest.mark.slow
@pytest.mark.parametrize("budget, kept", [(0.02, ["y"]), (1.0, [])])
def test_the_worst_layer_stays_in_float_until_the_budget_holds(tmp_path, budget, kept):
    path, samples = saved(outlier_net(), tmp_path)
    options = QuantizeOptions(max_drop=budget, equalize=False, rules={"y": Rule("argmax", 1)})
    report = quantize_model(path, samples, options, quiet).report
    assert report.kept_float == kept
    assert report.drop <= budget


@pytest.mark.slow
def test_a_budget_that_cannot_be_held_says_so(tmp_path):
    path, samples = saved(outlier_net(), tmp_path)
    rules = {"y": Rule("equal")}
    with pytest.raises(UsageError, match="more than 0.00% of the decisions change"):
        quantize_model(path, samples, QuantizeOptions(max_drop=0.0, rules=rules), quiet)


@pytest.mark.slow
def test_named_nodes_stay_in_float(tmp_path):
    path, samples = saved(residual_net(), tmp_path)
    options = QuantizeOptions(keep_float=("c2",))
    model = quantize_model(path, samples, options, quiet).model
    names = {tensor.name for tensor in model.graph.initializer}
    assert "w2" in names and "w4_quantized" in names
    with pytest.raises(UsageError, match="no node 'c9'"):
        quantize_model(path, samples, QuantizeOptions(keep_float=("c9",)), quiet)


def balanced_net():
    """Channels of very different sizes in front of a pointwise and a depthwise layer."""
    sizes = (10.0 ** np.arange(-2, 2)).astype(np.float32).reshape(4, 1, 1, 1)
    constants = {
        "w": draw(1, 4, 3, 1, 1) * sizes, "b": draw(2, 4), "v": draw(3, 4, 1, 3, 3),
        "a": sizes.reshape(1, 4, 1, 1), "c": draw(4, 1), "u": draw(5, 5, 4, 1, 1),
    }  # fmt: skip
    nodes = [
        ("Conv", "x,w,b", "t", {}),
        ("LeakyRelu", "t", "r", {}),
        ("Conv", "r,v", "d", {"group": 4}),
        ("HardSwish", "d", "h", {}),
        ("Mul", "h,a", "m", {}),
        ("Add", "m,c", "n", {}),
        ("Conv", "n,u", "y", {}),
    ]
    return make(nodes, constants, {"x": [1, 3, 8, 8]}, {"y": 4})


def test_equalisation_keeps_the_function_and_balances_channels(tmp_path):
    path, samples = saved(balanced_net(), tmp_path)
    net = prepare(path, 13)
    placement = place(net)
    spreads = []
    with Scratch() as scratch:
        before = net.to_model()
        for _ in range(2):
            probe = Probe(scratch.save(net.to_model()), [placement.tensors])
            found = calibrate(probe, placement, samples, quiet).magnitudes()
            spreads.append([found[name].max() / found[name].min() for name in ("r", "n")])
            equalize(net, placement, found)
    inputs = next(iter(samples))
    np.testing.assert_allclose(
        run(net.to_model(), inputs), run(before, inputs), rtol=1e-4, atol=1e-4
    )
    assert spreads[1][0] < 1.01 < 20 < spreads[0][0]
    assert spreads[1][1] ** 2 < 4 * spreads[0][1]


@pytest.mark.slow
def test_bias_correction_removes_the_mean_error(tmp_path):
    data = np.abs(draw(3, 200, 16)) + 5
    model = make(
        [("MatMul", "x,w", "t", {}), ("Add", "t,b", "y", {})],
        {"w": draw(1, 16, 4), "b": draw(2, 4)}, {"x": [200, 16]}, {"y": 2},
    )  # fmt: skip
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    (tmp_path / "s").mkdir()
    np.save(tmp_path / "s" / "0.npy", data)
    samples = find_samples(tmp_path / "s", model)
    errors = []
    for correct in (False, True):
        options = QuantizeOptions(activations="int16", correct_bias=correct)
        result = quantize_model(path, samples, options, quiet).model
        errors.append(np.abs((run(result, {"x": data}) - run(model, {"x": data})).mean(axis=0)))
    assert errors[1].max() < 0.1 * errors[0].max()


def test_tables_of_rows_are_left_to_look_ups(tmp_path):
    nodes = [
        ("OneHot", "i,depth,values", "o", {}),
        ("MatMul", "o,w", "t", {}),
        ("MatMul", "t,v", "y", {}),
    ]
    constants = {
        "i": np.array([1, 0, 2]), "depth": np.array(4), "values": np.array([0, 1], np.float32),
        "w": draw(1, 4, 8), "v": draw(2, 8, 3),
    }  # fmt: skip
    model = make(nodes, constants, {}, {"y": 2})
    model.graph.input.append(onnx.helper.make_tensor_value_info("i", onnx.TensorProto.INT64, [3]))
    kept = [tensor for tensor in model.graph.initializer if tensor.name != "i"]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    units = place(prepare(path, 13)).units
    assert [unit.name for unit in units] == ["y"]


def test_models_without_layers_and_inputs_that_are_no_tensors(tmp_path):
    empty = make([("Relu", "x", "y", {})], {}, {"x": [1, 3, 8, 8]}, {"y": 4})
    path, samples = saved(empty, tmp_path)
    with pytest.raises(UsageError, match="nothing to quantise"):
        quantize_model(path, samples, QuantizeOptions(), quiet)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (seq(float[2]) s) => (float[2] y) '
        "{ i = Constant<value_int = 0>() y = SequenceAt(s, i) }"
    )
    with pytest.raises(UnsupportedError, match="'s' is not a tensor"):
        find_samples(tmp_path, model)


@pytest.mark.parametrize(
    "choice", [{"activations": "int4"}, {"method": "best"}, {"percentile": 0}, {"max_drop": 2.0}]
)
def test_options_that_make_no_sense(choice):
    with pytest.raises(UsageError):
        QuantizeOptions(**choice)


@pytest.mark.parametrize("most", [1, 5, 40])
def test_the_least_number_is_found(most):
    for least in range(most + 1):
        assert _least(most, lambda n, least=least: n >= least) == least


@pytest.mark.slow
def test_scalars_and_values_are_stored_once(plain):
    model = plain[1].model
    names = [tensor.name for tensor in model.graph.initializer]
    assert len(names) == len(set(names))
    kinds = {numpy_helper.to_array(t).dtype.name for t in model.graph.initializer}
    assert kinds == {"int8", "uint8", "int32", "float32"}
