"""Operators as they were before opset 7, against what numpy computes."""

import numpy as np
import pytest
from onnx import TensorProto
from onnx_cases import Const, build, case, f32, ints, run_file, save

from aotc.errors import ModelError

X = f32(2, 3, 4, 5)
POSITIVE = f32(2, 3, 4, low=0.5)
PADDED = np.pad(POSITIVE, [(0, 2), (1, 0), (0, 1)], constant_values=7.0)


def run(one, folder):
    model, feeds = build(one)
    return run_file(save(model, folder), feeds)


CASES = [
    (case("Add", 6, X, f32(3, 4), broadcast=1, axis=1), X + f32(3, 4)[:, :, None]),
    (case("Mul", 1, X, f32(2), broadcast=1, axis=0), X * f32(2)[:, None, None, None]),
    (case("Sub", 6, X, f32(4, 5), broadcast=1), X - f32(4, 5)),
    (case("Div", 6, X, f32(1, 1), broadcast=1), X / f32(1, 1)[0, 0]),
    (case("Pow", 1, POSITIVE, f32(3), broadcast=1, axis=1), POSITIVE ** f32(3)[:, None]),
    (case("Greater", 6, X, f32(5), broadcast=1, axis=-1), np.greater(X, f32(5))),
    (case("PRelu", 6, X, f32(3)), np.where(X < 0, X * f32(3)[:, None, None], X)),
    (case("PRelu", 6, X, f32(1)), np.where(X < 0, X * f32(1), X)),
    (case("Cast", 1, X, to="INT32"), X.astype(np.int32)),
    (case("Reshape", 1, X, shape=[0, -1], consumed_inputs=[0]), X.reshape(2, -1)),
    (case("Tile", 1, X, ints(3), ints(2)), np.tile(X, (1, 1, 3, 1))),
    (case("Concat", 1, X, X), np.concatenate([X, X], axis=1)),
    (case("Pad", 1, POSITIVE, paddings=[0, 1, 0, 2, 0, 1], value=7.0), PADDED),
    (
        case("Upsample", 1, X, height_scale=2.0, width_scale=3.0, mode="nearest"),
        X.repeat(2, axis=2).repeat(3, axis=3),
    ),
    (case("GlobalLpPool", 1, X, p=2.0), np.sqrt((X**2).sum(axis=(2, 3), keepdims=True))),
    (
        case("GlobalLpPool", 1, X, p=1.5),
        (np.abs(X) ** 1.5).sum(axis=(2, 3), keepdims=True) ** (1 / 1.5),
    ),
    (case("Relu", 1, X, consumed_inputs=[0]), np.maximum(X, 0)),
]


@pytest.mark.parametrize(("one", "right"), CASES, ids=str)
def test_old_forms(one, right, tmp_path):
    (result,) = run(one, tmp_path)
    assert (result.dtype, result.shape) == (right.dtype, right.shape)
    np.testing.assert_allclose(result, right, rtol=1e-5, atol=1e-5)


def test_split_took_its_sizes_as_an_input_in_opset_1(tmp_path):
    results = run(case("Split", 1, X, ints(3, 1), axis=2, outputs=2), tmp_path)
    for result, right in zip(results, (X[:, :, :3], X[:, :, 3:]), strict=True):
        np.testing.assert_array_equal(result, right)


@pytest.mark.parametrize(
    ("one", "sentence"),
    [
        (case("Add", 6, X, f32(3, 4), broadcast=1), "does not stretch"),
        (case("Add", 6, f32(4), X, broadcast=1), "does not stretch"),
        (case("Add", 6, X, f32(5)), "'broadcast' is not set"),
        (case("Add", 6, X, f32(4, 5), broadcast=1, axis=3), "does not stretch"),
        (case("Cast", 1, X, to="NUMBER"), "names no element type"),
        (case("Cast", 1, X, to=TensorProto.FLOAT), "must be a string"),
        (case("Tile", 1, X, Const(np.array([1, 2])), ints(2)), "must be one number"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(one, sentence, tmp_path):
    with pytest.raises(ModelError, match=sentence):
        run(one, tmp_path)
