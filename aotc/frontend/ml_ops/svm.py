"""ONNX's support vector machines: a `Call` goes in, kernels and sums over them come out.

Where the specification leaves a choice, the one that ONNX Runtime takes. Probabilities of several
classes are those of Wu, Lin and Weng, "Probability estimates for multi-class classification by
pairwise coupling", with the iteration of LIBSVM.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.ml_ops.linear import weighted
from aotc.frontend.ml_ops.scores import (
    Labels,
    first_largest,
    float_rows,
    logistic,
    optional_reals,
    transform_named,
    transformed,
    two_scores,
)
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.values import Value
from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.ir import Node
from aotc.graph.types import DType, TensorType

MOST_ROUNDS = 100
"""The most rounds of the iteration for probabilities."""

_LEAST = 1e-7


@dataclass(frozen=True)
class _Kernel:
    """How a row and a support vector are compared."""

    kind: str
    gamma: float
    offset: float
    degree: float

    @classmethod
    def of(cls, call: Call) -> _Kernel:
        kind = call.attrs.string("kernel_type", "LINEAR")
        if kind not in ("LINEAR", "POLY", "RBF", "SIGMOID"):
            raise ModelError(f"kernel_type is '{kind}'")
        given = optional_reals(call, "kernel_params")
        gamma, offset, degree = given[:3] if len(given) >= 3 else (0.0, 0.0, 0.0)
        return cls(kind, gamma, offset, degree)

    def rows(self, call: Call, x: Node, vectors: np.ndarray) -> Node:
        """The kernel of each row of ``x`` [N, F] and each of ``vectors`` [V, F]: [N, V]."""
        across = np.ascontiguousarray(vectors.T)
        if self.kind == "RBF":
            # vectors last, so that they lie along lanes; differences, because squares cancel
            shape = (x.shape[0], *across.shape)
            wide = call.broadcast(call.reshape(x, (*x.shape, 1)), shape)
            gap = call.binary("sub", wide, call.constant(across[None]))
            far = call.reduce("sum", call.binary("mul", gap, gap), (1,), keep=False)
            return call.unary("exp", call.binary("mul", far, -self.gamma))
        product = call.apply(ops.Dot(), x, call.constant(across))
        if self.kind == "LINEAR":
            return product
        product = call.binary("add", call.binary("mul", product, self.gamma), self.offset)
        if self.kind == "SIGMOID":
            return call.unary("tanh", product)
        if self.degree in (2.0, 3.0):
            square = call.binary("mul", product, product)
            return square if self.degree == 2.0 else call.binary("mul", square, product)
        return call.binary("pow", product, self.degree)


def svm_regressor(call: Call) -> Node:
    """[N, 1]. Its transform is not applied."""
    x = float_rows(call)
    coefficients = call.attrs.reals("coefficients")
    supports = call.attrs.integer("n_supports", 0)
    rho = call.attrs.reals("rho")[:1]
    if not rho:
        raise ModelError("attribute 'rho' is empty")
    if supports > 0:
        vectors = _vectors(call, supports, x.shape[1])
        x = _Kernel.of(call).rows(call, x, vectors)
    score = call.binary("add", weighted(call, x, coefficients, 1), rho[0])
    if call.attrs.flag("one_class"):
        one = call.scalar(1.0, score)
        return call.select(call.compare("gt", score, 0.0), one, call.unary("neg", one))
    return score


def svm_classifier(call: Call) -> tuple[Value, Value]:
    """Labels [N], and scores [N, classes] or one for each pair of classes."""
    labels = Labels(call, "classlabels_ints")
    counts = call.attrs.integers("vectors_per_class", ()) or ()
    rho = np.array(call.attrs.reals("rho"), np.float64)
    coefficients = call.attrs.reals("coefficients")
    if sum(counts) == 0:
        return _linear(call, labels, coefficients, rho)
    classes = labels.count
    pairs = list(itertools.combinations(range(classes), 2))
    if min(counts) < 0 or len(counts) != classes or classes < 2 or rho.size < len(pairs):
        raise ModelError(
            f"has {len(counts)} counts of vectors and {rho.size} offsets for {classes} classes"
        )
    vectors = _vectors(call, sum(counts), call[0].shape[-1])
    if len(coefficients) != (classes - 1) * sum(counts):
        raise ModelError(f"has {len(coefficients)} coefficients for {sum(counts)} vectors")
    kernels = _Kernel.of(call).rows(call, float_rows(call), vectors)
    # in f64, as large weights of opposite sign cancel
    matrix = _pair_weights(np.array(coefficients).reshape(classes - 1, -1), counts, pairs)
    sums = call.apply(ops.Dot(), call.cast(kernels, DType.F64), call.constant(matrix))
    sums = call.binary("add", sums, call.constant(rho[: len(pairs)]))
    label = labels.of(_most_votes(call, sums, pairs, classes))
    score, name = call.cast(sums, DType.F32), transform_named(call)
    if optional_reals(call, "prob_a"):
        return label, transformed(call, _probabilities(call, score, classes), name)
    if classes > 2:
        return label, transformed(call, score, name)
    if name == "PROBIT":
        raise call.unsupported("the probit of a single score for two classes")
    return label, two_scores(call, score, name, probability=name != "NONE")


def _vectors(call: Call, count: int, features: int) -> np.ndarray:
    given = np.array(call.attrs.reals("support_vectors"), np.float32)
    if given.size != count * features:
        raise ModelError(
            f"has {given.size} numbers for {count} support vectors of {features} features"
        )
    return given.reshape(count, features)


def _linear(
    call: Call, labels: Labels, coefficients: tuple[float, ...], rho: np.ndarray
) -> tuple[Value, Value]:
    """A classifier without support vectors: one linear score for each class."""
    if rho.size == 0:
        raise ModelError("attribute 'rho' is empty")
    score = weighted(call, float_rows(call), coefficients, labels.count)
    score = call.binary("add", score, float(rho[0]))
    place = first_largest(call, score)
    if labels.count == 2 and not optional_reals(call, "prob_a"):
        most = call.reduce("max", score, (-1,), keep=False)
        positive = min(coefficients) >= 0
        second = call.compare("ge", most, 0.5) if positive else call.compare("gt", most, 0.0)
        place = call.select(second, call.constant(np.asarray(1)), place)
    name = transform_named(call)
    if labels.count == 1 and name != "PROBIT":
        return labels.of(place), score
    return labels.of(place), transformed(call, score, name)


def _pair_weights(
    coefficients: np.ndarray, counts: tuple[int, ...], pairs: list[tuple[int, int]]
) -> np.ndarray:
    """What each vector weighs for each pair of classes (f64[V, pairs]). Row r of ``coefficients``
    has, for a vector of class i, its weight against the r-th of the other classes."""
    start = np.concatenate([[0], np.cumsum(counts)])
    matrix = np.zeros((int(start[-1]), len(pairs)))
    for column, (i, j) in enumerate(pairs):
        of_i, of_j = slice(start[i], start[i + 1]), slice(start[j], start[j + 1])
        matrix[of_i, column] = coefficients[j - 1, of_i]
        matrix[of_j, column] = coefficients[i, of_j]
    return matrix


def _most_votes(call: Call, sums: Node, pairs: list[tuple[int, int]], classes: int) -> Node:
    """The class that wins the most pairs, the first of equal ones (i64[N])."""
    gain, base = np.zeros((len(pairs), classes), np.float32), np.zeros(classes, np.float32)
    for row, (i, j) in enumerate(pairs):
        gain[row, i], gain[row, j] = 1, -1
        base[j] += 1
    wins = call.cast(call.compare("gt", sums, 0.0), DType.F32)
    votes = call.apply(ops.Dot(), wins, call.constant(gain))
    return first_largest(call, call.binary("add", votes, call.constant(base)))


def _probabilities(call: Call, scores: Node, classes: int) -> Node:
    """The probability of each class from the scores of all pairs."""
    odds = [np.array(call.attrs.reals(name), np.float32) for name in ("prob_a", "prob_b")]
    pairs = scores.shape[1]
    if min(odds[0].size, odds[1].size) < pairs:
        raise ModelError(f"prob_a and prob_b must have {pairs} entries each")
    slope, shift = (call.constant(values[:pairs]) for values in odds)
    value = call.binary("add", call.binary("mul", scores, slope), shift)
    first = logistic(call, call.unary("neg", value))
    first = call.binary("min", call.binary("max", first, _LEAST), 1.0 - _LEAST)
    second = call.binary("sub", call.scalar(1.0, first), first)
    # wins[n, i, j]: the probability of i when it is i or j; 0 for i = j
    padded = call.concat([first, second, call.binary("mul", _column(call, first), 0.0)], 1)
    place = np.full((classes, classes), 2 * pairs)
    for number, (i, j) in enumerate(itertools.combinations(range(classes), 2)):
        place[i, j], place[j, i] = number, pairs + number
    wins = call.apply(ops.Gather(1), padded, call.constant(place))
    return _coupled(call, wins, classes)


def _column(call: Call, x: Node) -> Node:
    return call.slice_axis(x, 1, 0, 1)


def _coupled(call: Call, wins: Node, classes: int) -> Node:
    """The probabilities that agree best with those of all pairs (f32[N, K, K]): p minimises the sum
    of (wins[j, i] p[i] - wins[i, j] p[j])^2, found by descending in one coordinate after the other
    until all gradients are about equal."""
    rows = wins.shape[0]
    losses = call.transpose(wins, (0, 2, 1))
    diagonal = call.reduce("sum", call.binary("mul", losses, losses), (2,), keep=True)
    same = call.constant(np.eye(classes, dtype=bool)[None])
    negated = call.unary("neg", call.binary("mul", losses, wins))
    matrix = call.select(same, diagonal, negated)
    start = call.constant(np.full((rows, classes), 1 / classes, np.float32))
    inner = Builder()
    inner.parameter("round", TensorType(DType.I64, ()))
    guess = inner.parameter("p", start.type)
    table = inner.parameter("matrix", matrix.type)
    after, going = _round(inner, table, guess, rows, classes)
    body = inner.finish("coupling", [("going", going), ("p", after)])
    count = call.constant(np.asarray(MOST_ROUNDS))
    loop = ops.Repeat(body, carried=1, scanned=0, limit=ops.UNLIMITED)
    done = call.apply(loop, count, call.constant(np.asarray(True)), start, matrix)
    return call.apply(ops.Item(1), done)


def _round(b: Builder, matrix: Node, p: Node, rows: int, classes: int) -> tuple[Node, Node]:
    """One round of the iteration: the new p, and whether any row has changed (bool[]). Rows whose
    gradients are about equal stay as they are."""
    def row(x: Node, i: int) -> Node:
        return b.apply(ops.Slice((0, i), (rows, 1), (1, 1)), x)

    def entry(i: int) -> Node:
        part = b.apply(ops.Slice((0, i, 0), (rows, 1, classes), (1, 1, 1)), matrix)
        return b.reshape(part, (rows, classes))

    one = b.constant(1.0, DType.F32)
    gradient = b.reduce(
        "sum", b.binary("mul", matrix, b.reshape(p, (rows, 1, classes))), (2,), keep=False
    )
    value = b.reduce("sum", b.binary("mul", p, gradient), (1,), keep=True)
    error = b.reduce("max", b.unary("abs", b.binary("sub", gradient, value)), (1,), keep=True)
    active = b.compare("ge", error, b.constant(0.005 / classes, DType.F32))
    new = p
    for i in range(classes):
        slope, curve = row(gradient, i), row(entry(i), i)
        step = b.binary("div", b.binary("sub", value, slope), curve)
        scale = b.binary("add", one, step)
        unit = b.constant(np.eye(classes, dtype=np.float32)[i : i + 1])
        new = b.binary("div", b.binary("add", new, b.binary("mul", step, unit)), scale)
        twice = b.binary("add", b.binary("mul", step, curve), b.binary("add", slope, slope))
        value = b.binary("add", value, b.binary("mul", step, twice))
        value = b.binary("div", b.binary("div", value, scale), scale)
        gradient = b.binary("add", gradient, b.binary("mul", step, entry(i)))
        gradient = b.binary("div", gradient, scale)
    after = b.select(active, new, p)
    return after, b.reduce("or", b.reshape(active, (rows,)), (0,), keep=False)


RULES: Mapping[str, Rule] = MappingProxyType(
    {"SVMClassifier": svm_classifier, "SVMRegressor": svm_regressor}
)
