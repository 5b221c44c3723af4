"""ONNX's tree ensembles against ONNX Runtime, corner by corner."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ml_cases import compare_ml, ml_model, random_trees, rows, tree_attributes
from onnx import numpy_helper
from onnx_cases import run_file, save

from aotc.errors import ModelError

ALL_MODES = [f"BRANCH_{mode}" for mode in ("LEQ", "LT", "GTE", "GT", "EQ", "NEQ")]
TRANSFORMS = ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"]
SOME = settings(max_examples=40, deadline=None)


def with_gaps(x, rng):
    """``x`` with some NaN in it."""
    return np.where(rng.random(x.shape) < 0.2, np.nan, x).astype(x.dtype)


@SOME
@given(
    seed=st.integers(0, 10**6),
    targets=st.integers(1, 3),
    aggregate=st.sampled_from(["SUM", "AVERAGE", "MIN", "MAX"]),
    transform=st.sampled_from(TRANSFORMS),
    modes=st.sampled_from([*([mode] for mode in ALL_MODES), ALL_MODES]),
    sparse=st.booleans(),
    missing=st.booleans(),
    base=st.booleans(),
)
def test_regressors(
    tmp_path_factory, seed, targets, aggregate, transform, modes, sparse, missing, base
):
    rng = np.random.default_rng(seed)
    nodes, weights, flags = random_trees(rng, 4, 3, 3, targets, modes, sparse)
    x = rows(17, 3, seed=seed)
    compare_ml(
        tmp_path_factory.mktemp("model"),
        "TreeEnsembleRegressor",
        3,
        [with_gaps(x, rng) if missing else x],
        n_targets=targets,
        aggregate_function=aggregate,
        post_transform=transform,
        base_values=[0.5, -0.25, 1.0][:targets] if base else None,
        **tree_attributes(nodes, weights, "target", flags if missing else None),
    )


@SOME
@given(
    seed=st.integers(0, 10**6),
    classes=st.integers(2, 4),
    transform=st.sampled_from(TRANSFORMS),
    sparse=st.booleans(),
    positive=st.booleans(),
    based=st.integers(0, 2),
    only=st.sampled_from([None, 0, 1]),
    texts=st.booleans(),
)
def test_classifiers(
    tmp_path_factory, seed, classes, transform, sparse, positive, based, only, texts
):
    rng = np.random.default_rng(seed)
    single = classes == 2 and only is not None
    nodes, weights, _ = random_trees(
        rng, 4, 3, 3, 1 if single else classes, ["BRANCH_LEQ"], sparse
    )
    if single:
        weights["id"] = [only] * len(weights["id"])
    if positive:
        weights["weight"] = [abs(weight) / 4 for weight in weights["weight"]]
    labels = {"classlabels_int64s": [7, 3, 5, -2][:classes]}
    if texts:
        labels = {"classlabels_strings": ["ant", "bee", "carp", "dög"][:classes]}
    bases = [None, [0.25], [0.5, -0.25, 0.125, 0.75][:classes]]
    compare_ml(
        tmp_path_factory.mktemp("model"),
        "TreeEnsembleClassifier",
        3,
        [rows(17, 3, seed=seed)],
        outputs=2,
        post_transform=transform,
        # a single base value for leaves of both classes leaves a column undefined
        base_values=bases[based] if based != 1 or single else None,
        **labels,
        **tree_attributes(nodes, weights, "class"),
    )


@pytest.mark.parametrize("dtype", [np.float64])
def test_other_types_of_rows(tmp_path, dtype):
    rng = np.random.default_rng(3)
    nodes, weights, _ = random_trees(rng, 4, 3, 3, 1, ["BRANCH_LEQ"])
    attrs = tree_attributes(nodes, weights, "target")
    if dtype is np.float64:
        for name in ("nodes_values", "target_weights"):
            values = np.array(attrs.pop(name), np.float64) + 1e-12
            attrs[f"{name}_as_tensor"] = numpy_helper.from_array(values)
    x = (rows(9, 3) * 2).astype(dtype)
    compare_ml(tmp_path, "TreeEnsembleRegressor", 3, [x], n_targets=1, **attrs)


def test_the_probit_of_one_target(tmp_path):
    rng = np.random.default_rng(3)
    nodes, weights, _ = random_trees(rng, 1, 3, 3, 1, ["BRANCH_LEQ"])
    weights["weight"] = [0.1 + 0.8 * rng.random() for _ in weights["weight"]]
    attrs = tree_attributes(nodes, weights, "target")
    x = rows(9, 3)
    compare_ml(
        tmp_path, "TreeEnsembleRegressor", 3, [x], n_targets=1, post_transform="PROBIT", **attrs
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_the_probit_of_classes(tmp_path, classes):
    rng = np.random.default_rng(3)
    nodes, weights, _ = random_trees(rng, 1, 3, 3, classes, ["BRANCH_LEQ"])
    weights["weight"] = [0.1 + 0.8 * rng.random() for _ in weights["weight"]]
    attrs = tree_attributes(nodes, weights, "class") | {"classlabels_int64s": [4, 2, 1][:classes]}
    x = rows(9, 3)
    compare_ml(
        tmp_path, "TreeEnsembleClassifier", 3, [x], outputs=2, post_transform="PROBIT", **attrs
    )


def newer(rng, trees, dtype, members=False, **others):
    """The attributes of a TreeEnsemble: trees of three nodes and four leaves."""
    count, leaves = 3 * trees, 4 * trees
    modes = rng.integers(0, 7 if members else 6, count).astype(np.uint8)
    sets = []
    for mode in modes:
        if mode == 6:
            sets += [*rng.choice(np.arange(1, 9), rng.integers(1, 8), replace=False), np.nan]
    tree = np.arange(trees)
    true, false = np.zeros(count, int), np.zeros(count, int)
    for node, offset in ((true, 0), (false, 1)):
        node[0::3] = 3 * tree + 1 + offset
        node[1::3], node[2::3] = 4 * tree + offset, 4 * tree + 2 + offset
    is_leaf = (np.arange(count) % 3 != 0).astype(int)
    splits = np.round(rng.normal(size=count), 1).astype(dtype)
    return {
        "n_targets": 2,
        "tree_roots": list(range(0, count, 3)),
        "nodes_splits": numpy_helper.from_array(splits),
        "nodes_featureids": [int(f) for f in rng.integers(0, 3, count)],
        "nodes_modes": numpy_helper.from_array(modes),
        "nodes_truenodeids": true.tolist(),
        "nodes_falsenodeids": false.tolist(),
        "nodes_trueleafs": is_leaf.tolist(),
        "nodes_falseleafs": is_leaf.tolist(),
        "leaf_targetids": [int(t) for t in rng.integers(0, 2, leaves)],
        "leaf_weights": numpy_helper.from_array(rng.normal(size=leaves).astype(dtype)),
        "membership_values": numpy_helper.from_array(np.array(sets, dtype)) if sets else None,
        **others,
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("members", [False, True])
@pytest.mark.parametrize("aggregate", [0, 1, 2, 3])
def test_the_newest_form(tmp_path, dtype, members, aggregate):
    rng = np.random.default_rng(aggregate)
    attrs = newer(rng, 5, dtype, members, aggregate_function=aggregate, post_transform=0)
    x = np.abs(np.round(rows(40, 3) * 4)) if members else rows(40, 3)
    compare_ml(tmp_path, "TreeEnsemble", 5, [x.astype(dtype)], **attrs)


def test_members_that_are_no_integers(tmp_path):
    x = np.array([[0.5], [-1.25], [3.0], [0.25], [np.inf], [-np.inf], [np.nan]], np.float32)
    members = np.array([3.0, -1.25, 0.25, np.inf, np.nan], np.float32)
    attrs = newer(np.random.default_rng(0), 1, np.float32)
    attrs["nodes_modes"] = numpy_helper.from_array(np.array([0, 6, 6], np.uint8))
    attrs["nodes_splits"] = numpy_helper.from_array(np.array([9, 0, 0], np.float32))
    attrs["nodes_featureids"] = [0, 0, 0]
    attrs["membership_values"] = numpy_helper.from_array(np.concatenate([members, members]))
    attrs["leaf_weights"] = numpy_helper.from_array(np.array([1, 2, 3, 4], np.float32))
    attrs["leaf_targetids"], attrs["n_targets"] = [0] * 4, 1
    (found,) = import_only(tmp_path, attrs, "TreeEnsemble", x)
    np.testing.assert_array_equal(found[:, 0], [2, 1, 1, 1, 3, 2, 4])


def test_members_take_missing_values_where_told(tmp_path):
    rng = np.random.default_rng(1)
    attrs = newer(rng, 6, np.float32, True)
    attrs["nodes_missing_value_tracks_true"] = [int(f) for f in rng.integers(0, 2, 18)]
    x = with_gaps(np.abs(np.round(rows(40, 3) * 4)), rng)
    compare_ml(tmp_path, "TreeEnsemble", 5, [x], **attrs)


def test_attributes_of_the_wrong_size_are_refused(tmp_path):
    rng = np.random.default_rng(1)
    nodes, weights, _ = random_trees(rng, 1, 2, 3, 1, ["BRANCH_LEQ"])
    for name, value, sentence in [
        ("nodes_values", [1.0], "has 1 entries"),
        ("nodes_featureids", [9] * len(nodes["tree"]), "a feature"),
        ("nodes_truenodeids", [99] * len(nodes["tree"]), "do not have"),
        ("nodes_truenodeids", [0] * len(nodes["tree"]), "cycle"),
        ("target_ids", [5] * len(weights["id"]), "a target"),
        ("nodes_modes", ["BRANCH_ODD"] * len(nodes["tree"]), "BRANCH_ODD"),
    ]:
        attrs = tree_attributes(nodes, weights, "target") | {name: value}
        with pytest.raises(ModelError, match=sentence):
            import_only(tmp_path, attrs)


def import_only(folder, attrs, op="TreeEnsembleRegressor", x=None):
    """The outputs of a model that no other engine is asked about."""
    x = rows(2, 3) if x is None else x
    attrs = {"n_targets": 1, **attrs}
    model = ml_model(op, 5 if op == "TreeEnsemble" else 3, {"x": x}, 1, attrs)
    return run_file(save(model, folder), {"x": x})
