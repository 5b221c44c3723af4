"""ONNX's ensembles of decision trees: a `Call` goes in, `Trees` and what follows it comes out.

What the specification leaves open (classifiers of two classes above all) is as in ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.ml_ops import forest
from aotc.frontend.ml_ops.forest import Forest, Nodes, Weights, grow
from aotc.frontend.ml_ops.scores import (
    TRANSFORMS,
    Labels,
    first_largest,
    optional_reals,
    probit,
    rows_of,
    transform_named,
    transformed,
    two_scores,
)
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.values import Value
from aotc.graph.ir import Node
from aotc.graph.types import DType

AGGREGATES = ("AVERAGE", "SUM", "MIN", "MAX")
"""The ways to join trees, in the order in which TreeEnsemble numbers them."""

_JOINS = {"AVERAGE": "sum", "SUM": "sum", "MIN": "min", "MAX": "max"}
_NEUTRAL = {"sum": 0.0, "min": np.inf, "max": -np.inf}


@dataclass(frozen=True)
class _Ensemble:
    """An ensemble as its attributes say it, and the rows that it is asked about."""

    x: Node
    nodes: Nodes
    roots: np.ndarray
    weights: Weights
    targets: int
    base: np.ndarray
    transform: str

    @property
    def of_one_class(self) -> bool:
        """Whether all leaves speak of one and the same target."""
        return np.unique(self.weights.target).size == 1

    @property
    def is_probability(self) -> bool:
        """Whether the score of that target is the probability of the second of two classes."""
        return self.of_one_class and bool(np.all(self.weights.value >= 0))

    def grown(self, fn: str, weights: Weights | None = None) -> Forest:
        """Its forest for the aggregate ``fn``; ``weights`` replace its own."""
        features = self.x.shape[1]
        weights = weights or self.weights
        return grow(self.nodes, self.roots, weights, self.targets, features, _NEUTRAL[fn])

    def mentioned(self, call: Call, grown: Forest) -> Node | None:
        """Whether the leaves that a row comes to speak of each target: bool[N or 1, targets]; None
        when they always do."""
        if grown.always.all():
            return None
        if not np.any(grown.ever & ~grown.always):
            return call.constant(grown.ever[None])
        ones = np.ones_like(self.weights.value)
        counting = self.grown("sum", Weights(self.weights.node, self.weights.target, ones))
        return call.compare("gt", counting.apply(call, self.x, "sum"), 0.0)


def tree_ensemble(call: Call) -> Node:
    """Float16 is computed as float32. Sets of members may hold any numbers."""
    # its two kinds of children become one numbering, nodes before leaves
    attrs = call.attrs
    x = rows_of(call)
    dtype = DType.F64 if x.type.dtype is DType.F64 else DType.F32
    splits = attrs.tensor("nodes_splits").astype(dtype.numpy).reshape(-1)
    inner = splits.size
    target = np.array(attrs.required_integers("leaf_targetids"), np.int64)
    leaves = target.size
    value = attrs.tensor("leaf_weights").astype(dtype.numpy).reshape(-1)
    _expect_sizes(leaf_weights=(value, leaves))
    mode = attrs.tensor("nodes_modes").astype(np.int64).reshape(-1)
    if np.any((mode < 0) | (mode > forest.MEMBER)):
        raise ModelError("a mode of its nodes is not one of 0 to 6")
    children = [_children(call, side, inner) for side in ("true", "false")]
    missing = _flags(call, inner)
    feature = np.array(attrs.required_integers("nodes_featureids"), np.int64)
    _expect_sizes(nodes_modes=(mode, inner), nodes_featureids=(feature, inner))

    def behind(part: np.ndarray, filler: int = 0) -> np.ndarray:
        return np.concatenate([part, np.full(leaves, filler, part.dtype)])

    nodes = Nodes(
        behind(mode, forest.LEAF),
        behind(feature),
        behind(splits),
        behind(children[0]),
        behind(children[1]),
        behind(missing),
        _members(call, mode, dtype),
    )
    weights = Weights(inner + np.arange(leaves), target, value)
    roots = np.array(attrs.required_integers("tree_roots"), np.int64)
    if np.any((roots < 0) | (roots >= inner)):
        raise ModelError(f"a root of its trees is not one of its {inner} nodes")
    aggregate = _numbered(call, "aggregate_function", AGGREGATES, 1)
    transform = _numbered(call, "post_transform", TRANSFORMS, 0)
    targets = _targets(call)
    rows = call.cast(x, dtype)
    none = np.zeros(0, dtype.numpy)
    ensemble = _Ensemble(rows, nodes, roots, weights, targets, none, transform)
    return call.cast(_regression(call, ensemble, aggregate), x.type.dtype)


def tree_ensemble_regressor(call: Call) -> Node:
    """All modes, aggregates and transforms; base values and missing values as in ONNX Runtime."""
    aggregate = call.attrs.string("aggregate_function", "SUM")
    if aggregate not in AGGREGATES:
        raise ModelError(f"aggregate_function is '{aggregate}'")
    ensemble = _older(call, "target", _targets(call))
    return call.cast(_regression(call, ensemble, aggregate), DType.F32)


def tree_ensemble_classifier(call: Call) -> tuple[Value, Value]:
    """All modes and transforms; labels and scores of two classes as in ONNX Runtime."""
    labels = Labels(call, "classlabels_int64s")
    ensemble = _older(call, "class", labels.count)
    grown = ensemble.grown("sum")
    scores = grown.apply(call, ensemble.x, "sum")
    if labels.count == 1:
        return _one_class(call, ensemble, labels, scores)
    if labels.count == 2:
        return _two_classes(call, ensemble, labels, scores, grown)
    return _many_classes(call, ensemble, labels, scores, grown)


def _regression(call: Call, ensemble: _Ensemble, aggregate: str) -> Node:
    """The joined scores, base values added and transformed."""
    fn = _JOINS[aggregate]
    grown = ensemble.grown(fn)
    scores = grown.apply(call, ensemble.x, fn)
    if aggregate == "AVERAGE":
        scores = call.binary("div", scores, float(ensemble.roots.size))
    single, based = ensemble.targets == 1, ensemble.base.size == ensemble.targets
    if single and fn != "sum":
        scores = _only(call, scores, ensemble.mentioned(call, grown), 0.0)
    if based:
        scores = call.binary("add", scores, call.constant(ensemble.base))
    if single:
        # a single score is its own softmax; ONNX Runtime leaves it alone
        return probit(call, scores) if ensemble.transform == "PROBIT" else scores
    if based or fn != "sum":
        scores = _only(call, scores, ensemble.mentioned(call, grown), 0.0)
    return transformed(call, scores, ensemble.transform)


def _only(call: Call, scores: Node, spoken: Node | None, other: float) -> Node:
    """``other`` in place of the scores of targets that no leaf speaks of."""
    if spoken is None:
        return scores
    return call.select(spoken, scores, call.scalar(other, scores))


def _many_classes(
    call: Call, ensemble: _Ensemble, labels: Labels, scores: Node, grown: Forest
) -> tuple[Value, Value]:
    """The class of the largest score among those that a leaf speaks of."""
    if ensemble.base.size:
        known = ensemble.base[: labels.count]
        scores = call.binary(
            "add", scores, call.constant(np.pad(known, (0, labels.count - known.size)))
        )
    candidates = scores
    # a class of no leaf has the score 0, which a positive score beats
    if not grown.always.all() and not np.all(ensemble.weights.value > 0):
        spoken = ensemble.mentioned(call, grown)
        if spoken is not None and ensemble.base.size:
            based = np.arange(labels.count) < ensemble.base.size
            spoken = call.binary("or", spoken, call.constant(based))
        candidates = _only(call, scores, spoken, -np.inf)
    places = first_largest(call, candidates)
    return labels.of(places), _single(call, transformed(call, scores, ensemble.transform))


def _one_class(
    call: Call, ensemble: _Ensemble, labels: Labels, scores: Node
) -> tuple[Value, Value]:
    """A classifier with one label."""
    if ensemble.base.size == 1:
        scores = call.binary("add", scores, call.constant(ensemble.base))
    positive = call.compare("gt", call.reshape(scores, (scores.shape[0],)), 0.0)
    if ensemble.transform == "PROBIT":
        scores = probit(call, scores)
    return labels.either(positive, bare=True), _single(call, scores)


def _two_classes(
    call: Call, ensemble: _Ensemble, labels: Labels, scores: Node, grown: Forest
) -> tuple[Value, Value]:
    """A classifier of two classes, of which the leaves of a row may speak of one only."""
    spoken = ensemble.mentioned(call, grown)
    columns = [None if spoken is None else call.slice_axis(spoken, 1, i, 1) for i in (0, 1)]
    second = columns[1]
    if second is None or grown.always[1]:
        decisive, result = _both_scores(call, ensemble, scores, columns[0])
    elif not grown.ever[1]:
        decisive, result = _one_score(call, ensemble, scores, columns[0])
    else:
        both = _both_scores(call, ensemble, scores, columns[0])
        one = _one_score(call, ensemble, scores, columns[0])
        decisive, result = (
            call.select(second, a, b) for a, b in zip(both, one, strict=True)
        )
    positive = call.compare("gt", decisive, 0.5 if ensemble.is_probability else 0.0)
    positive = call.reshape(positive, (positive.shape[0],))
    return labels.either(positive, bare=not ensemble.of_one_class), _single(call, result)


def _both_scores(
    call: Call, ensemble: _Ensemble, scores: Node, has_first: Node | None
) -> tuple[Node, Node]:
    """The score that decides and both columns, when leaves speak of the second class."""
    first, second = (call.slice_axis(scores, 1, column, 1) for column in (0, 1))
    base = ensemble.base
    if base.size == 2:
        second = call.binary("add", first, call.constant(base[1:]))
        first = call.unary("neg", second)
    elif base.size == 1:
        first = call.binary("add", first, call.constant(base))
    # a class that no leaf speaks of counts as 0, whatever its base
    first = _only(call, first, has_first, 0.0)
    return second, transformed(call, call.concat([first, second], 1), ensemble.transform)


def _one_score(
    call: Call, ensemble: _Ensemble, scores: Node, has_first: Node | None
) -> tuple[Node, Node]:
    """The score that decides and both columns, when no leaf speaks of the second class."""
    score = call.slice_axis(scores, 1, 0, 1)
    base = ensemble.base
    if base.size in (1, 2):
        score = _only(
            call, call.binary("add", score, call.constant(base[:1])), has_first, 0.0
        )
    if base.size == 2:
        nothing = call.broadcast(call.scalar(0.0, score), score.shape)
        pair = call.concat([score, nothing], 1)
        return score, transformed(call, pair, ensemble.transform)
    if ensemble.transform == "PROBIT":
        raise call.unsupported("the probit of a single score for two classes")
    return score, two_scores(call, score, ensemble.transform, ensemble.is_probability)


def _single(call: Call, scores: Node) -> Node:
    return call.cast(scores, DType.F32)


# Attributes.


def _targets(call: Call) -> int:
    targets = call.attrs.integer("n_targets", 1)
    if not 1 <= targets <= 1 << 20:
        raise ModelError(f"n_targets is {targets}")
    return targets


def _numbered(call: Call, name: str, names: tuple[str, ...], default: int) -> str:
    number = call.attrs.integer(name, default)
    if not 0 <= number < len(names):
        raise ModelError(f"{name} is {number}, not one of 0 to {len(names) - 1}")
    return names[number]


def _expect_sizes(**lists: tuple[np.ndarray, int]) -> None:
    for name, (values, count) in lists.items():
        if values.size != count:
            raise ModelError(
                f"attribute '{name}' has {values.size} entries, not {count}",
                remedy="the node is malformed: export the model again",
            )


def _flags(call: Call, count: int) -> np.ndarray:
    """Whether missing values take the true branch, for each node."""
    given = call.attrs.integers("nodes_missing_value_tracks_true", ()) or ()
    flags = np.zeros(count, bool)
    flags[: len(given)] = np.array(given[:count], np.int64) != 0
    return flags


def _children(call: Call, side: str, inner: int) -> np.ndarray:
    """The children of a TreeEnsemble's nodes, leaves numbered behind the nodes."""
    number = np.array(call.attrs.required_integers(f"nodes_{side}nodeids"), np.int64)
    leaf = np.array(call.attrs.required_integers(f"nodes_{side}leafs"), np.int64)
    _expect_sizes(**{f"nodes_{side}nodeids": (number, inner), f"nodes_{side}leafs": (leaf, inner)})
    if np.any((leaf == 0) & (number >= inner)):
        raise ModelError(f"a child of its trees is not one of its {inner} nodes")
    return np.where(leaf != 0, number + inner, number)


def _members(call: Call, mode: np.ndarray, dtype: DType) -> dict[int, np.ndarray]:
    """The sets of a TreeEnsemble's membership nodes: a NaN ends each."""
    places = np.flatnonzero(mode == forest.MEMBER)
    if not places.size:
        return {}
    values = call.attrs.tensor("membership_values").astype(dtype.numpy).reshape(-1)
    ends = np.flatnonzero(np.isnan(values))
    sets = np.split(values, ends + 1)
    if values.size and not np.isnan(values[-1]):
        ends = np.append(ends, values.size)
    if ends.size != places.size:
        raise ModelError(f"has {ends.size} sets of members for {places.size} nodes")
    return {int(place): members for place, members in zip(places, sets, strict=False)}


def _reals(call: Call, name: str) -> np.ndarray:
    """A list of floats, which may be there as a tensor instead."""
    if f"{name}_as_tensor" in call.attrs:
        return call.attrs.tensor(f"{name}_as_tensor").reshape(-1)
    return np.array(optional_reals(call, name), np.float32)


def _older(call: Call, kind: str, targets: int) -> _Ensemble:
    """The ensemble of a classifier or regressor (``kind`` 'class' or 'target'), whose nodes have
    names: the number of the tree and a number within it."""
    attrs = call.attrs
    tree = np.array(attrs.required_integers("nodes_treeids"), np.int64)
    name = np.array(attrs.required_integers("nodes_nodeids"), np.int64)
    count = tree.size
    modes = attrs.strings("nodes_modes") or ()
    unknown = [mode for mode in modes if mode not in forest.MODES]
    if unknown:
        raise ModelError(f"a node of its trees has the mode '{unknown[0]}'")
    mode = np.array([forest.MODES[mode] for mode in modes], np.int64)
    value = _reals(call, "nodes_values")
    feature = np.array(attrs.required_integers("nodes_featureids"), np.int64)
    ids = {
        side: np.array(attrs.required_integers(f"nodes_{side}nodeids"), np.int64)
        for side in ("true", "false")
    }
    _expect_sizes(
        nodes_nodeids=(name, count),
        nodes_modes=(mode, count),
        nodes_values=(value, count),
        nodes_featureids=(feature, count),
        nodes_truenodeids=(ids["true"], count),
        nodes_falsenodeids=(ids["false"], count),
    )
    place = _Places(tree, name)
    inner = mode != forest.LEAF
    true, false = (place.of(tree, ids[side], inner) for side in ("true", "false"))
    missing = _flags(call, count)
    rows = rows_of(call)
    dtype = DType.F64 if rows.type.dtype is DType.F64 else DType.F32
    weight = _reals(call, f"{kind}_weights").astype(dtype.numpy)
    owner = np.array(attrs.integers(f"{kind}_treeids", ()), np.int64)
    node = np.array(attrs.integers(f"{kind}_nodeids", ()), np.int64)
    target = np.array(attrs.integers(f"{kind}_ids", ()), np.int64)
    for title, part in (("treeids", owner), ("nodeids", node), ("ids", target)):
        _expect_sizes(**{f"{kind}_{title}": (part, weight.size)})
    weights = Weights(place.of(owner, node, np.ones(owner.size, bool)), target, weight)
    nodes = Nodes(mode, feature, value.astype(dtype.numpy), true, false, missing)
    roots = np.flatnonzero(np.diff(tree, prepend=tree[:1] - 1) != 0)
    base = _reals(call, "base_values").astype(dtype.numpy)
    x = call.cast(rows, dtype)
    return _Ensemble(x, nodes, roots, weights, targets, base, transform_named(call))


class _Places:
    """Finds nodes by the number of their tree and their number in it."""

    def __init__(self, tree: np.ndarray, name: np.ndarray) -> None:
        self._names, where = np.unique(np.stack([tree, name], axis=1), axis=0, return_inverse=True)
        if len(self._names) < tree.size:
            raise ModelError("two nodes of its trees have one number")
        self._place = np.empty(tree.size, np.int64)
        self._place[where.reshape(-1)] = np.arange(tree.size)

    def of(self, tree: np.ndarray, name: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """The places of nodes in the lists; 0 where not ``wanted``."""
        asked = np.stack([tree[wanted], name[wanted]], axis=1)
        every, where = np.unique(
            np.concatenate([self._names, asked]), axis=0, return_inverse=True
        )
        if len(every) > len(self._names):
            raise ModelError(
                "its trees refer to a node that they do not have",
                remedy="the node is malformed: export the model again",
            )
        places = np.zeros(wanted.size, np.int64)
        places[wanted] = self._place[where.reshape(-1)[len(self._names) :]]
        return places


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "TreeEnsemble": tree_ensemble,
        "TreeEnsembleClassifier": tree_ensemble_classifier,
        "TreeEnsembleRegressor": tree_ensemble_regressor,
    }
)
