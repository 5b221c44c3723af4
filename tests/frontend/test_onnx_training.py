"""Dropout, batch statistics and optimisers against the ONNX reference and numpy."""

import numpy as np
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator
from onnx_cases import Const, build, case, check, f32, model_of, run_file, save

from aotc.errors import ModelError

X = f32(2, 3, 4, 5)
STATS = (f32(3), f32(3, seed=1), f32(3, seed=2), f32(3, seed=3, low=0.5))


def run(one, folder):
    model, feeds = build(one)
    return run_file(save(model, folder), feeds)


@pytest.mark.parametrize(
    "one",
    [
        case("BatchNormalization", 15, X, *STATS, training_mode=1, outputs=3),
        case("BatchNormalization", 14, X, *STATS, training_mode=1, momentum=0.5, outputs=3),
        case("BatchNormalization", 15, f32(6, 3), *STATS, training_mode=1, outputs=3),
    ],
    ids=str,
)
def test_batch_statistics(one, tmp_path):
    check(one, tmp_path)


@pytest.mark.parametrize(
    "one",
    [
        case("BatchNormalization", 9, X, *STATS, outputs=5),
        case("BatchNormalization", 6, X, *STATS, outputs=5, is_test=0),
    ],
    ids=str,
)
def test_batch_statistics_were_outputs_before_opset_14(one, tmp_path):
    results = run(one, tmp_path)
    mean, var = X.mean(axis=(0, 2, 3)), X.var(axis=(0, 2, 3))
    np.testing.assert_allclose(results[1], STATS[2] * 0.9 + mean * 0.1, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(results[2], STATS[3] * 0.9 + var * 0.1, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(results[3], mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(results[4], var, rtol=1e-5, atol=1e-6)
    assert abs(results[0].mean() - STATS[1].mean()) < 1e-4


def test_batch_normalization_of_every_element(tmp_path):
    stats = [f32(3, 4, 5, seed=seed, low=0.5) for seed in range(4)]
    (y,) = run(case("BatchNormalization", 6, X, *stats, spatial=0, is_test=1), tmp_path)
    right = (X - stats[2]) / np.sqrt(stats[3] + 1e-5) * stats[0] + stats[1]
    np.testing.assert_allclose(y, right, rtol=1e-4, atol=1e-5)


def test_statistics_without_training_are_refused(tmp_path):
    with pytest.raises(ModelError, match="not in training mode"):
        run(case("BatchNormalization", 14, X, *STATS, outputs=3), tmp_path)


@pytest.mark.parametrize("ratio", [None, np.array(0.25, np.float32), Const(np.array(0.0))])
def test_dropout_in_training(ratio, tmp_path):
    x = np.ones((100, 100), np.float32)
    one = case("Dropout", 13, x, ratio, np.array(True), outputs=2, seed=5)
    y, mask = run(one, tmp_path)
    value = 0.5 if ratio is None else 0.25 if isinstance(ratio, np.ndarray) else 0.0
    assert abs(mask.mean() - (1 - value)) < 0.02
    np.testing.assert_allclose(y, np.where(mask, 1 / (1 - value), 0), rtol=1e-6)


def test_the_mode_of_dropout_may_be_an_input(tmp_path):
    one = case("Dropout", 13, X, np.array(0.9, np.float32), np.array(False), outputs=2)
    y, mask = run(one, tmp_path)
    np.testing.assert_array_equal(y, X)
    assert mask.all()


def test_dropout_had_a_flag_for_inference(tmp_path):
    (y,) = run(case("Dropout", 6, X, is_test=1), tmp_path)
    np.testing.assert_array_equal(y, X)
    (y,) = run(case("Dropout", 6, X, ratio=0.5), tmp_path)
    assert 0.3 < (y == 0).mean() < 0.7


def optimizer_model(op, tensors, states, count, **attrs):
    """One optimiser step on tensors of different sizes."""
    shapes = [(2,), (3, 2)][:tensors]
    feeds = {"r": np.array(0.1, np.float32), "t": np.array(count, np.int64)}
    for group in ("x", "g", *("v", "h")[:states]):
        for place, shape in enumerate(shapes):
            feeds[f"{group}{place}"] = f32(*shape, seed=len(feeds), low=0.1)
    outputs = [f"y{at}" for at in range((1 + states) * tensors)]
    domain = "ai.onnx.preview.training"
    node = helper.make_node(op, list(feeds), outputs, domain=domain, **attrs)
    model = model_of([node], feeds, outputs)
    model.opset_import.append(helper.make_opsetid(domain, 1))
    return model, feeds


@pytest.mark.parametrize("tensors", [1, 2])
@pytest.mark.parametrize("count", [0, 3])
@pytest.mark.parametrize(
    ("op", "states", "attrs"),
    [
        ("Adagrad", 1, {"epsilon": 1e-5, "decay_factor": 0.2, "norm_coefficient": 0.1}),
        ("Adam", 2, {"norm_coefficient": 0.1}),
        ("Adam", 2, {"alpha": 0.8, "beta": 0.7, "epsilon": 0.1}),
        ("Momentum", 1, {"alpha": 0.9, "beta": 0.5, "mode": "standard", "norm_coefficient": 0.1}),
        ("Momentum", 1, {"alpha": 0.9, "beta": 0.5, "mode": "nesterov", "norm_coefficient": 0.0}),
    ],
)
def test_optimizers(op, states, attrs, count, tensors, tmp_path):
    model, feeds = optimizer_model(op, tensors, states, count, **attrs)
    results = run_file(save(model, tmp_path), feeds)
    for result, right in zip(results, ReferenceEvaluator(model).run(None, feeds), strict=True):
        np.testing.assert_allclose(result, right, rtol=1e-4, atol=1e-6)


def test_adam_shrinks_the_result_by_the_norm_afterwards(tmp_path):
    plain, feeds = optimizer_model("Adam", 1, 2, 1)
    model, _ = optimizer_model("Adam", 1, 2, 1, norm_coefficient_post=0.25)
    right = run_file(save(plain, tmp_path), feeds)[0] * 0.75
    np.testing.assert_allclose(run_file(save(model, tmp_path), feeds)[0], right, rtol=1e-6)


def test_what_does_not_fit_is_named(tmp_path):
    model, feeds = optimizer_model("Momentum", 1, 1, 0, alpha=0.9, beta=0.5, norm_coefficient=0.0)
    model.graph.node[0].attribute.append(helper.make_attribute("mode", "fast"))
    with pytest.raises(ModelError, match="standard or nesterov"):
        run_file(save(model, tmp_path), feeds)
    del model.graph.node[0].input[-1], feeds["v0"], model.graph.input[-1]
    with pytest.raises(ModelError, match="needs 2 and 3 for each tensor"):
        run_file(save(model, tmp_path), feeds)
