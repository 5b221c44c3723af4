"""ONNX's linear models and support vector machines against ONNX Runtime."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_cases import compare_ml, rows

TRANSFORMS = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"]
KERNELS = ["LINEAR", "POLY", "RBF", "SIGMOID"]
SOME = settings(max_examples=40, deadline=None)


def labels_of(count, texts):
    """Labels for classes in no order."""
    if texts:
        return {"classlabels_strings": ["ant", "bee", "carp", "dög"][:count]}
    return {"classlabels_ints": [7, 3, 5, -2][:count]}


def numbers(rng, count, scale=1.0):
    """Floats as an attribute holds them."""
    return [float(np.float32(value)) for value in rng.normal(size=count) * scale]


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("targets", [1, 3])
@pytest.mark.parametrize("intercepts", [True, False])
def test_linear_regressor(tmp_path, transform, targets, intercepts):
    rng = np.random.default_rng(targets)
    compare_ml(
        tmp_path,
        "LinearRegressor",
        1,
        [rows(6, 4)],
        targets=targets,
        coefficients=numbers(rng, 4 * targets),
        intercepts=numbers(rng, targets) if intercepts else None,
        post_transform=transform,
    )


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("classes, columns", [(2, 1), (2, 2), (3, 3)])
@pytest.mark.parametrize("texts", [False, True])
@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64])
def test_linear_classifier(tmp_path, transform, classes, columns, texts, dtype):
    rng = np.random.default_rng(columns)
    compare_ml(
        tmp_path,
        "LinearClassifier",
        1,
        [(rows(9, 4) * 3).astype(dtype)],
        outputs=2,
        coefficients=numbers(rng, 4 * columns),
        intercepts=numbers(rng, columns),
        post_transform=transform,
        **labels_of(classes, texts),
    )


def test_a_vector_is_one_row(tmp_path):
    rng = np.random.default_rng(0)
    compare_ml(
        tmp_path, "LinearRegressor", 1, [rows(4)], targets=2, coefficients=numbers(rng, 8)
    )


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("one_class", [0, 1])
@pytest.mark.parametrize("degree", [2.0, 3.0, 4.0])
def test_svm_regressor(tmp_path, kernel, one_class, degree):
    rng = np.random.default_rng(0)
    compare_ml(
        tmp_path,
        "SVMRegressor",
        1,
        [rows(9, 4)],
        kernel_type=kernel,
        kernel_params=[0.25, 0.5, degree],
        n_supports=5,
        support_vectors=numbers(rng, 20),
        coefficients=numbers(rng, 5),
        rho=[0.125],
        one_class=one_class,
    )


def test_svm_regressor_without_vectors(tmp_path):
    rng = np.random.default_rng(0)
    attrs = {"coefficients": numbers(rng, 4), "rho": [0.5], "n_supports": 0}
    attrs |= {"kernel_type": "LINEAR", "kernel_params": [0.0] * 3}
    compare_ml(tmp_path, "SVMRegressor", 1, [rows(9, 4)], **attrs)


@pytest.mark.slow
@SOME
@given(
    seed=st.integers(0, 10**6),
    classes=st.integers(2, 4),
    kernel=st.sampled_from(KERNELS),
    transform=st.sampled_from(TRANSFORMS),
    odds=st.booleans(),
    texts=st.booleans(),
)
def test_svm_classifier(tmp_path_factory, seed, classes, kernel, transform, odds, texts):
    rng = np.random.default_rng(seed)
    counts = [int(count) for count in rng.integers(1, 5, classes)]
    pairs = classes * (classes - 1) // 2
    compare_ml(
        tmp_path_factory.mktemp("model"),
        "SVMClassifier",
        1,
        [rows(9, 4, seed=seed)],
        outputs=2,
        kernel_type=kernel,
        kernel_params=[0.25, 0.5, 3.0],
        support_vectors=numbers(rng, 4 * sum(counts)),
        vectors_per_class=counts,
        coefficients=numbers(rng, (classes - 1) * sum(counts)),
        rho=numbers(rng, pairs, 0.1),
        prob_a=[-abs(value) for value in numbers(rng, pairs)] if odds else None,
        prob_b=numbers(rng, pairs, 0.1) if odds else None,
        post_transform=transform,
        **labels_of(classes, texts),
    )


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize(
    "classes, positive", list(itertools.product([2, 3], [False, True])), ids=str
)
def test_svm_classifier_without_vectors(tmp_path, transform, classes, positive):
    rng = np.random.default_rng(0)
    coefficients = numbers(rng, 4 * classes)
    compare_ml(
        tmp_path,
        "SVMClassifier",
        1,
        [rows(9, 4)],
        outputs=2,
        kernel_type="LINEAR",
        kernel_params=[0.0, 0.0, 0.0],
        coefficients=[abs(value) for value in coefficients] if positive else coefficients,
        rho=[0.125],
        post_transform=transform,
        **labels_of(classes, False),
    )
