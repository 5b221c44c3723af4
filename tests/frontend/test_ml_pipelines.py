"""Trained scikit-learn models, compiled to machine code, against ONNX Runtime on the same file."""

import numpy as np
import pytest
from ml_cases import runtime, texts_of

import aotc

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::FutureWarning")]

CLASSIFIERS = [
    "linear_model.LogisticRegression",
    "svm.SVC",
    ("svm.SVC", {"kernel": "poly"}),
    ("svm.NuSVC", {"kernel": "sigmoid", "nu": 0.2}),
    "neighbors.KNeighborsClassifier",
    "naive_bayes.GaussianNB",
    ("tree.DecisionTreeClassifier", {"random_state": 0}),
    ("ensemble.RandomForestClassifier", {"n_estimators": 12, "random_state": 0}),
    ("ensemble.ExtraTreesClassifier", {"n_estimators": 12, "random_state": 0, "max_depth": 5}),
    ("ensemble.GradientBoostingClassifier", {"n_estimators": 12, "random_state": 0}),
    ("ensemble.AdaBoostClassifier", {"n_estimators": 5, "random_state": 0}),
]
REGRESSORS = [
    "linear_model.LinearRegression",
    "svm.SVR",
    ("svm.SVR", {"kernel": "linear"}),
    "neighbors.KNeighborsRegressor",
    ("tree.DecisionTreeRegressor", {"random_state": 0}),
    ("ensemble.RandomForestRegressor", {"n_estimators": 12, "random_state": 0}),
    ("ensemble.ExtraTreesRegressor", {"n_estimators": 12, "random_state": 0}),
    ("ensemble.GradientBoostingRegressor", {"n_estimators": 12, "random_state": 0}),
]
OTHERS = [
    "preprocessing.MinMaxScaler",
    "preprocessing.Normalizer",
    "preprocessing.Binarizer",
    ("preprocessing.PolynomialFeatures", {"degree": 2}),
    ("ensemble.IsolationForest", {"n_estimators": 10, "random_state": 0}),
    "svm.OneClassSVM",
]


def make(which):
    """An untrained model; scikit-learn is imported only when it is needed."""
    path, options = (which, {}) if isinstance(which, str) else which
    pytest.importorskip("skl2onnx")
    module, _, name = path.rpartition(".")
    return getattr(pytest.importorskip(f"sklearn.{module}"), name)(**options)


def scaled(model):
    """The model behind a scaler."""
    from sklearn.pipeline import make_pipeline

    return make_pipeline(make("preprocessing.StandardScaler"), model)


def data(classes=2):
    """Rows of six features and which class each belongs to."""
    rng = np.random.default_rng(classes)
    x = rng.normal(size=(200, 6)).astype(np.float32)
    score = x @ rng.normal(size=(6, classes)) + np.sin(3 * x[:, :classes])
    return x, score.argmax(axis=1), score[:, 0]


def agree(folder, model, x):
    """The compiled model says what ONNX Runtime says, for one row and for several."""
    import skl2onnx

    opsets = {"": 18, "ai.onnx.ml": 3}
    options = {id(model): {"zipmap": False}} if hasattr(model, "predict_proba") else None
    onnx_model = skl2onnx.to_onnx(model, x[:1], options=options, target_opset=opsets)
    path = folder / "model.onnx"
    path.write_bytes(onnx_model.SerializeToString())
    name = onnx_model.graph.input[0].name
    for rows in (1, 21):
        feeds = {name: x[:rows]}
        wanted = runtime(onnx_model, feeds)
        found = aotc.compile(path, input_shapes={name: x[:rows].shape}).run_dict(feeds)
        for result, right in zip(found.values(), wanted, strict=True):
            if isinstance(right, list):  # maps, of which the tensor of scores is left
                right = np.array([list(row.values()) for row in right], np.float32)
            if right.dtype.kind in "OU":
                np.testing.assert_array_equal(texts_of(result), right.astype(object))
            elif right.dtype.kind == "f":
                np.testing.assert_allclose(result, right, rtol=1e-5, atol=1e-5)
            else:
                np.testing.assert_array_equal(result, right)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("which", CLASSIFIERS, ids=str)
def test_classifiers(tmp_path, which, classes):
    x, y, _ = data(classes)
    agree(tmp_path, scaled(make(which)).fit(x, y), x)


def test_a_classifier_whose_leaves_speak_of_several_classes(tmp_path):
    x, y, _ = data(3)
    agree(tmp_path, make(CLASSIFIERS[7]).fit(x, y), x)


@pytest.mark.parametrize("classes", [2, 3])
def test_a_classifier_without_probabilities(tmp_path, classes):
    x, y, _ = data(classes)
    agree(tmp_path, make("svm.LinearSVC").fit(x, y), x)


@pytest.mark.parametrize("which", REGRESSORS, ids=str)
def test_regressors(tmp_path, which):
    x, _, y = data()
    agree(tmp_path, scaled(make(which)).fit(x, y), x)


@pytest.mark.parametrize("which", OTHERS, ids=str)
def test_transformers_and_outliers(tmp_path, which):
    x, _, _ = data()
    agree(tmp_path, make(which).fit(x), x)


@pytest.mark.parametrize("which", [CLASSIFIERS[0], CLASSIFIERS[7]], ids=str)
def test_labels_that_are_text(tmp_path, which):
    x, y, _ = data(3)
    agree(tmp_path, make(which).fit(x, np.array(["cat", "dog", "élan"])[y]), x)


@pytest.mark.parametrize(
    "which", [("OneHotEncoder", {"handle_unknown": "ignore"}), ("OrdinalEncoder", {})], ids=str
)
def test_categories(tmp_path, which):
    from sklearn.pipeline import make_pipeline

    name, options = which
    x = np.random.default_rng(0).integers(0, 4, (200, 3))
    model = make_pipeline(make((f"preprocessing.{name}", options)), make(CLASSIFIERS[0]))
    agree(tmp_path, model.fit(x, x[:, 0] > x[:, 1]), x)
