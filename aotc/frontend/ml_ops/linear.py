"""ONNX's linear models: a `Call` goes in, one product with what follows it comes out.

Where the specification leaves a choice, the one that ONNX Runtime takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.ml_ops.scores import (
    Labels,
    first_largest,
    float_rows,
    optional_reals,
    probit,
    transform_named,
    transformed,
    two_scores,
)
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.values import Value
from aotc.graph import ops
from aotc.graph.ir import Node


def linear_regressor(call: Call) -> Node:
    """``x C' + intercepts`` and its transform."""
    targets = call.attrs.integer("targets", 1)
    intercepts = _intercepts(call)
    score = weighted(call, float_rows(call), call.attrs.reals("coefficients"), targets)
    if intercepts.size == targets:
        score = call.binary("add", score, call.constant(intercepts))
    name = transform_named(call)
    if targets == 1:
        return probit(call, score) if name == "PROBIT" else score
    return transformed(call, score, name)


def linear_classifier(call: Call) -> tuple[Value, Value]:
    """Labels [N], and scores [N, classes]."""
    labels = Labels(call, "classlabels_ints")
    intercepts = _intercepts(call)
    score = weighted(call, float_rows(call), call.attrs.reals("coefficients"), intercepts.size)
    score = call.binary("add", score, call.constant(intercepts))
    name = transform_named(call)
    if intercepts.size > 1:
        if labels.count < intercepts.size:
            raise ModelError(f"has {labels.count} labels for {intercepts.size} classes")
        return labels.of(first_largest(call, score)), transformed(call, score, name)
    if labels.count != 2 or intercepts.size == 0:
        raise ModelError(f"has {labels.count} labels for {intercepts.size} rows of coefficients")
    if name == "PROBIT":
        raise call.unsupported("the probit of a single score for two classes")
    positive = call.compare("gt", call.reshape(score, (score.shape[0],)), 0.0)
    return labels.either(positive), two_scores(call, score, name, probability=True)


def weighted(call: Call, x: Node, coefficients: tuple[float, ...], targets: int) -> Node:
    """The product of the rows of ``x`` [N, F] with ``coefficients`` [targets, F]."""
    features = x.shape[1]
    if targets < 1 or len(coefficients) != targets * features:
        raise ModelError(
            f"has {len(coefficients)} coefficients for {features} features and {targets} targets"
        )
    matrix = np.array(coefficients, np.float32).reshape(targets, features)
    return call.apply(ops.Dot(), x, call.constant(np.ascontiguousarray(matrix.T)))


def _intercepts(call: Call) -> np.ndarray:
    return np.array(optional_reals(call, "intercepts"), np.float32)


RULES: Mapping[str, Rule] = MappingProxyType(
    {"LinearClassifier": linear_classifier, "LinearRegressor": linear_regressor}
)
