"""Trained scikit-learn models, compiled to machine code, against ONNX Runtime on the same file."""

import numpy as np
import pytest
from ml_cases import runtime, texts_of

import aotc

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")
sklearn = pytest.importorskip("sklearn")
skl2onnx = pytest.importorskip("skl2onnx")

from sklearn.base import clone  # noqa: E402
from sklearn.ensemble import (  # noqa: E402
    AdaBoostClassifier,
    ExtraTreesClassifier,
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression  # noqa: E402
from sklearn.naive_bayes import GaussianNB  # noqa: E402
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor  # noqa: E402
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import (  # noqa: E402
    Binarizer,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    StandardScaler,
)
from sklearn.svm import SVC, SVR, LinearSVC, NuSVC, OneClassSVM  # noqa: E402
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor  # noqa: E402

CLASSIFIERS = [
    LogisticRegression(),
    LinearSVC(),
    SVC(),
    SVC(kernel="poly"),
    NuSVC(kernel="sigmoid", nu=0.2),
    KNeighborsClassifier(),
    GaussianNB(),
    DecisionTreeClassifier(random_state=0),
    RandomForestClassifier(12, random_state=0),
    ExtraTreesClassifier(12, max_depth=5, random_state=0),
    GradientBoostingClassifier(n_estimators=12, random_state=0),
    AdaBoostClassifier(n_estimators=5, random_state=0),
]
REGRESSORS = [
    LinearRegression(),
    SVR(),
    SVR(kernel="linear"),
    KNeighborsRegressor(),
    DecisionTreeRegressor(random_state=0),
    RandomForestRegressor(12, random_state=0),
    ExtraTreesRegressor(12, random_state=0),
    GradientBoostingRegressor(n_estimators=12, random_state=0),
]
OTHERS = [
    MinMaxScaler(),
    Normalizer(),
    Binarizer(),
    PolynomialFeatures(2),
    IsolationForest(n_estimators=10, random_state=0),
    OneClassSVM(),
]


def data(classes=2):
    """Rows of six features and which class each belongs to."""
    rng = np.random.default_rng(classes)
    x = rng.normal(size=(200, 6)).astype(np.float32)
    score = x @ rng.normal(size=(6, classes)) + np.sin(3 * x[:, :classes])
    return x, score.argmax(axis=1), score[:, 0]


def agree(folder, model, x):
    """The compiled model says what ONNX Runtime says, for one row and for several."""
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


QUICK = (LogisticRegression, RandomForestClassifier, GradientBoostingRegressor, SVC)


def marked(models):
    """All but one of each quick kind belong to the slow tests."""
    seen = set()
    for model in models:
        quick = isinstance(model, QUICK) and type(model) not in seen
        seen.add(type(model))
        yield pytest.param(model, id=str(model)[:40], marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("model", list(marked(CLASSIFIERS)))
def test_classifiers(tmp_path, model, classes):
    x, y, _ = data(classes)
    agree(tmp_path, make_pipeline(StandardScaler(), clone(model)).fit(x, y), x)


@pytest.mark.parametrize("model", list(marked(REGRESSORS)))
def test_regressors(tmp_path, model):
    x, _, y = data()
    agree(tmp_path, make_pipeline(StandardScaler(), clone(model)).fit(x, y), x)


@pytest.mark.slow
@pytest.mark.parametrize("model", OTHERS, ids=lambda model: str(model)[:40])
def test_transformers_and_outliers(tmp_path, model):
    x, _, _ = data()
    agree(tmp_path, clone(model).fit(x), x)


@pytest.mark.parametrize("model", [LogisticRegression(), RandomForestClassifier(5)], ids=str)
def test_labels_that_are_text(tmp_path, model):
    x, y, _ = data(3)
    agree(tmp_path, clone(model).fit(x, np.array(["cat", "dog", "élan"])[y]), x)


@pytest.mark.parametrize("encoder", [OneHotEncoder(handle_unknown="ignore"), OrdinalEncoder()])
def test_categories(tmp_path, encoder):
    x = np.random.default_rng(0).integers(0, 4, (200, 3))
    model = make_pipeline(encoder, LogisticRegression()).fit(x, x[:, 0] > x[:, 1])
    agree(tmp_path, model, x)
