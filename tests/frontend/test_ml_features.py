"""ONNX's operators on features and categories against ONNX Runtime."""

import numpy as np
import pytest
from ml_cases import compare_ml, ml_model, rows
from onnx import numpy_helper
from onnx_cases import run_file, save


@pytest.mark.parametrize("shape", [(5,), (3, 5), (2, 3, 5)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64])
def test_columns_are_extracted(tmp_path, shape, dtype):
    x = (rows(*shape) * 10).astype(dtype)
    compare_ml(tmp_path, "ArrayFeatureExtractor", 1, [x, np.array([[4, 0, 0, 2]])])


@pytest.mark.parametrize("threshold", [0.0, 0.25, -1.0])
def test_binarizer(tmp_path, threshold):
    compare_ml(tmp_path, "Binarizer", 1, [rows(4, 5)], threshold=threshold)


@pytest.mark.parametrize("threshold", [0.5, -0.5, 3.0, 1e30, -1e30])
def test_binarizer_of_integers(tmp_path, threshold):
    x = np.array([-2, -1, 0, 1, 2, 3, 4])
    model = ml_model("Binarizer", 1, {"x": x}, 1, {"threshold": threshold})
    (found,) = run_file(save(model, tmp_path), {"x": x})
    np.testing.assert_array_equal(found, (x > threshold).astype(np.int64))


@pytest.mark.parametrize("norm", ["MAX", "L1", "L2"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_normalizer(tmp_path, norm, dtype):
    x = (rows(4, 5) * 10).astype(dtype)
    x[2] = 0
    compare_ml(tmp_path, "Normalizer", 1, [x], norm=norm)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, np.int64])
@pytest.mark.parametrize("single", [False, True])
def test_scaler(tmp_path, dtype, single):
    offset, scale = [0.5, 1.0, -2.0], [2.0, 0.25, 1.5]
    if single:
        offset, scale = offset[:1], scale[:1]
    x = (rows(4, 3) * 10).astype(dtype)
    compare_ml(tmp_path, "Scaler", 1, [x], offset=offset, scale=scale)


@pytest.mark.parametrize("values", [[1.5], [1.0, 2.0, 3.0]])
@pytest.mark.parametrize("lost", [np.nan, 0.5])
def test_imputer(tmp_path, values, lost):
    x = np.array([[0.5, np.nan, 1.0], [np.nan, 0.5, 2.0]], np.float32)
    compare_ml(
        tmp_path, "Imputer", 1, [x], imputed_value_floats=values, replaced_value_float=lost
    )


def test_imputer_of_integers(tmp_path):
    x = np.array([[0, 7, 1], [7, 5, 2]])
    attrs = {"imputed_value_int64s": [10, 20, 30], "replaced_value_int64": 7}
    compare_ml(tmp_path, "Imputer", 1, [x], **attrs)


def test_features_side_by_side(tmp_path):
    parts = [rows(4, 3), rows(4, 2, seed=1), rows(4, 1, seed=2)]
    compare_ml(tmp_path, "FeatureVectorizer", 1, parts, inputdimensions=[3, 2, 1])


@pytest.mark.parametrize("dtype", [np.int64, np.float32, np.float64])
def test_one_hot(tmp_path, dtype):
    x = np.array([[3, 7], [9, 1], [-4, 3]], dtype)
    compare_ml(tmp_path, "OneHotEncoder", 1, [x], cats_int64s=[7, 3, -4])
    compare_ml(tmp_path, "OneHotEncoder", 1, [x[0]], cats_int64s=[7, 3, -4])


@pytest.mark.parametrize("values", ["int64s", "floats", "strings"])
@pytest.mark.parametrize("keys", ["int64s", "floats"])
def test_labels(tmp_path, keys, values):
    entries = {"int64s": [5, -3, 8], "floats": [0.5, -1.5, 2.0], "strings": ["a", "bé", ""]}
    x = {
        "int64s": np.array([[5, 8, 9], [-3, 5, -(1 << 40)]]),
        "floats": np.array([[0.5, 2.0, np.nan], [-1.5, 0.0, 1.0]], np.float32),
    }[keys]
    if keys == values and keys == "floats":
        entries["floats"] = [0.5, -1.5, 2.0]
    attrs = {f"keys_{keys}": entries[keys], f"values_{values}": entries[values]}
    default = {"int64s": "int64", "floats": "float", "strings": "string"}[values]
    compare_ml(tmp_path, "LabelEncoder", 2, [x], **attrs)
    attrs[f"default_{default}"] = {"int64": 99, "float": 9.5, "string": "?"}[default]
    compare_ml(tmp_path, "LabelEncoder", 2, [x], **attrs)


def test_labels_far_apart_and_twice(tmp_path):
    keys = [10**12, 5, -(10**12), 5]
    x = np.array([5, 10**12, 6, -(10**12)])
    compare_ml(tmp_path, "LabelEncoder", 2, [x], keys_int64s=keys, values_int64s=[1, 2, 3, 4])


@pytest.mark.parametrize("dtype", [np.int64, np.float32])
def test_labels_in_tensors(tmp_path, dtype):
    keys, values = np.array([3, 1, 2], dtype), np.array([30, 10, 20], dtype)
    attrs = {
        "keys_tensor": numpy_helper.from_array(keys),
        "values_tensor": numpy_helper.from_array(values),
        "default_tensor": numpy_helper.from_array(np.array([7], dtype)),
    }
    compare_ml(tmp_path, "LabelEncoder", 4, [np.array([1, 2, 5], dtype)], **attrs)


@pytest.mark.parametrize("version", [2, 4])
def test_a_missing_key_is_found_since_version_4(tmp_path, version):
    attrs = {"keys_floats": [1.0, np.nan], "values_floats": [10.0, 20.0]}
    x = np.array([np.nan, 1.0, 2.0], np.float32)
    compare_ml(tmp_path, "LabelEncoder", version, [x], **attrs)


def test_numbers_become_text(tmp_path):
    attrs = {"cats_int64s": [3, 1], "cats_strings": ["three", "one"], "default_string": "many"}
    compare_ml(tmp_path, "CategoryMapper", 1, [np.array([[1, 2, 3]])], **attrs)
    compare_ml(
        tmp_path, "LabelEncoder", 1, [np.array([1, 0, 5])], classes_strings=["x", "yy"]
    )
