"""Decision trees of ONNX: nodes that compare in any mode go in, the tables of `Trees` come out.

Every comparison becomes "x <= threshold": less and greater go to the next smaller float, equality
and membership become a few nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from aotc.errors import ModelError, UnsupportedError
from aotc.frontend.onnx_ops.call import Call
from aotc.graph import ops
from aotc.graph.ir import Node

LEQ, LT, GTE, GT, EQ, NEQ, MEMBER, LEAF = range(8)
"""The modes of nodes, numbered as TreeEnsemble does; LEAF is for the older operators."""

MODES = {
    "BRANCH_LEQ": LEQ,
    "BRANCH_LT": LT,
    "BRANCH_GTE": GTE,
    "BRANCH_GT": GT,
    "BRANCH_EQ": EQ,
    "BRANCH_NEQ": NEQ,
    "LEAF": LEAF,
}

MOST_NODES = 1 << 26
MOST_VALUES = 1 << 26
MOST_DEPTH = 10_000


@dataclass
class Nodes:
    """The nodes of all trees of an ensemble as ONNX says them. ``true`` and ``false`` are the
    numbers of the children; those of a leaf do not count. ``missing`` says whether NaN makes the
    comparison true."""

    mode: np.ndarray
    feature: np.ndarray
    value: np.ndarray
    true: np.ndarray
    false: np.ndarray
    missing: np.ndarray
    members: dict[int, np.ndarray] = field(default_factory=dict)


@dataclass
class Weights:
    """What leaves contribute: ``node`` gives ``value`` to ``target``, an entry for each pair."""

    node: np.ndarray
    target: np.ndarray
    value: np.ndarray


@dataclass
class _Split:
    """The nodes again, all of them comparing with <=: ``low`` is the child for a smaller or equal
    value, ``nan_low`` says whether NaN goes there as well."""

    feature: np.ndarray
    threshold: np.ndarray
    low: np.ndarray
    high: np.ndarray
    nan_low: np.ndarray
    leaf: np.ndarray


@dataclass(frozen=True)
class Forest:
    """The tables of a `Trees` (all but x) and which targets the leaves speak of: ``ever`` in some
    leaf, ``always`` on every way through the ensemble."""

    tables: tuple[np.ndarray, ...]
    depth: int
    targets: int
    ever: np.ndarray
    always: np.ndarray

    def apply(self, call: Call, x: Node, fn: str) -> Node:
        """The result [N, targets] for the rows of ``x``."""
        tables = [call.constant(table) for table in self.tables]
        return call.apply(ops.Trees(fn, self.depth, self.targets), x, *tables)


def grow(
    nodes: Nodes, roots: np.ndarray, weights: Weights, targets: int, features: int, neutral: float
) -> Forest:
    """The forest of ``nodes`` below ``roots``. A target that a leaf does not speak of gets
    ``neutral``. ModelError when an index is wrong or a tree has a cycle."""
    _check(nodes, roots, weights, targets, features)
    split = _split(nodes)
    order, tree, depth = _visit(split, roots)
    inner = order[~split.leaf[order]]
    trees = roots.size
    rank = np.full(split.leaf.size, -1, np.int64)
    rank[inner] = np.arange(inner.size)
    # A record for each root, then the two children of each inner node side by side.
    pairs = np.stack([split.low[inner], split.high[inner]], axis=1).reshape(-1)
    record = np.concatenate([roots, pairs])
    leaf = split.leaf[record]
    itself = np.arange(record.size)
    child = np.where(leaf, itself - 1, trees + 2 * rank[record])
    threshold = split.threshold[record].copy()
    threshold[leaf] = np.nan
    values, column, ever, always = _values(
        split, record, order, tree, weights, trees, targets, neutral
    )
    tables = [split.feature[record].astype(np.int32), threshold, child.astype(np.int32)]
    tables += [values, np.arange(trees, dtype=np.int32), column]
    flags = split.nan_low[record] & ~leaf
    if flags.any():
        tables.append(flags)
    return Forest(tuple(tables), depth, targets, ever, always)


def _check(
    nodes: Nodes, roots: np.ndarray, weights: Weights, targets: int, features: int
) -> None:
    count = nodes.mode.size
    inner = nodes.mode != LEAF
    if count > MOST_NODES:
        raise UnsupportedError(f"an ensemble of {count} nodes is too large")
    for name, index, limit in (
        ("a child", nodes.true[inner], count),
        ("a child", nodes.false[inner], count),
        ("a root", roots, count),
        ("a feature", nodes.feature[inner], features),
        ("a leaf", weights.node, count),
        ("a target", weights.target, targets),
    ):
        bad = index[(index < 0) | (index >= limit)]
        if bad.size:
            raise ModelError(
                f"{name} of its trees has the number {bad[0]}, of {limit}",
                remedy="the node is malformed: export the model again",
            )
    if roots.size * targets > MOST_VALUES:
        raise UnsupportedError(f"{roots.size} trees for {targets} targets are too many")
    if roots.size == 0:
        raise ModelError("has no trees", remedy="export the model again")


def _split(nodes: Nodes) -> _Split:
    """Makes every comparison one with <=."""
    mode, value = nodes.mode, nodes.value
    below = np.nextafter(value, -np.inf, dtype=value.dtype)
    below[np.isneginf(value)] = np.nan  # nothing is less: no comparison with NaN holds
    turned = (mode == GTE) | (mode == GT)
    threshold = np.where((mode == LT) | (mode == GTE), below, value)
    # no number is greater than NaN or equal to it
    threshold[turned & np.isnan(value)] = np.inf
    split = _Split(
        np.where(mode == LEAF, 0, nodes.feature),
        threshold.astype(value.dtype),
        np.where(turned, nodes.false, nodes.true),
        np.where(turned, nodes.true, nodes.false),
        nodes.missing ^ turned,
        mode == LEAF,
    )
    several = _Several(nodes, split)
    for at in np.flatnonzero((mode == EQ) | (mode == NEQ) | (mode == MEMBER)):
        several.replace(int(at))
    return several.finish()


class _Several:
    """Replaces nodes that need several comparisons; the new ones are numbered behind the old."""

    def __init__(self, nodes: Nodes, split: _Split) -> None:
        self._nodes = nodes
        self._split = split
        self._new: list[tuple[int, float, int, int, bool]] = []

    def replace(self, at: int) -> None:
        """Node ``at`` becomes the first comparison of what it means."""
        nodes, split = self._nodes, self._split
        mode = nodes.mode[at]
        members = nodes.members.get(at) if mode == MEMBER else nodes.value[at : at + 1]
        if members is None:
            raise ModelError("a membership node of its trees has no members")
        true, false = int(nodes.true[at]), int(nodes.false[at])
        missing = bool(nodes.missing[at])
        if mode == NEQ:  # NaN differs from everything
            true, false, missing = false, true, False
        members = np.unique(members[~np.isnan(members)])
        feature = int(nodes.feature[at])
        if members.size == 0:  # only NaN may be in the empty set
            top = (feature, float("nan"), true, false, missing)
        else:
            first = self._search(feature, members, true, false, missing) - split.leaf.size
            assert first == len(self._new) - 1
            top = self._new.pop()
        split.feature[at], split.threshold[at], split.low[at], split.high[at] = top[:4]
        split.nan_low[at] = top[4]

    def _search(
        self, feature: int, members: np.ndarray, true: int, false: int, missing: bool
    ) -> int:
        """The node below which is found whether a value is one of ``members`` (sorted)."""
        if members.size > 1:
            half = members.size // 2
            low = self._search(feature, members[:half], true, false, missing)
            high = self._search(feature, members[half:], true, false, False)
            return self._add(feature, members[half - 1], low, high, missing)
        below = np.nextafter(members[0], members.dtype.type(-np.inf))
        limit = below if np.isfinite(members[0]) or members[0] > 0 else np.nan
        inside = self._add(feature, limit, false, true, False)
        return self._add(feature, members[0], inside, false, missing)

    def _add(self, feature: int, limit: float, low: int, high: int, nan_low: bool) -> int:
        self._new.append((feature, limit, low, high, nan_low))
        return self._split.leaf.size + len(self._new) - 1

    def finish(self) -> _Split:
        """The nodes with the new ones behind them."""
        if not self._new:
            return self._split
        split = self._split
        columns: Sequence[Sequence[float]] = list(zip(*self._new, strict=True))
        feature, threshold, low, high, nan_low = (np.array(column) for column in columns)
        return _Split(
            np.concatenate([split.feature, feature]),
            np.concatenate([split.threshold, threshold.astype(split.threshold.dtype)]),
            np.concatenate([split.low, low]),
            np.concatenate([split.high, high]),
            np.concatenate([split.nan_low, nan_low]),
            np.concatenate([split.leaf, np.zeros(feature.size, bool)]),
        )


def _visit(split: _Split, roots: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The nodes that are reached: tree by tree and level by level, the tree of each, and how many
    steps the longest way takes. ModelError when a way has no end."""
    size = split.leaf.size
    first_tree = np.full(size, -1, np.int64)
    first_depth = np.zeros(size, np.int64)
    nodes, trees = roots.astype(np.int64), np.arange(roots.size)
    depth = 0
    while True:
        new = first_tree[nodes] < 0
        first_tree[nodes[new][::-1]] = trees[new][::-1]
        first_depth[nodes[new]] = depth
        going = ~split.leaf[nodes]
        nodes, trees = nodes[going], trees[going]
        if nodes.size == 0:
            break
        depth += 1
        if depth > min(size, MOST_DEPTH):
            raise ModelError(
                f"its trees have a cycle or more than {MOST_DEPTH} levels",
                remedy="check the model; export it again",
            )
        nodes = np.concatenate([split.low[nodes], split.high[nodes]])
        nodes, kept = np.unique(nodes, return_index=True)
        trees = np.concatenate([trees, trees])[kept]
    reached = np.flatnonzero(first_tree >= 0)
    order = np.lexsort((first_depth[reached], first_tree[reached]))
    return reached[order], first_tree[reached[order]], depth


def _values(
    split: _Split,
    record: np.ndarray,
    order: np.ndarray,
    tree: np.ndarray,
    weights: Weights,
    trees: int,
    targets: int,
    neutral: float,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The values of each record and the first column of each tree; then which targets are spoken of
    ever and always. A tree whose leaves all speak of one target gets a single column."""
    leaves, owner = order[split.leaf[order]], tree[split.leaf[order]]
    mentioned = np.zeros((trees, targets), bool)
    per_tree = np.zeros((trees, targets), np.int64)
    tree_of = np.full(split.leaf.size, -1, np.int64)
    tree_of[leaves] = owner
    used = tree_of[weights.node] >= 0
    node, target, value = weights.node[used], weights.target[used], weights.value[used]
    mentioned[tree_of[node], target] = True
    np.add.at(per_tree, (tree_of[node], target), 1)
    complete = per_tree >= np.bincount(owner, minlength=trees)[:, None]
    ever, always = np.any(mentioned, axis=0), np.any(complete, axis=0)
    single = bool((mentioned.sum(axis=1) <= 1).all())
    width = 1 if single else targets
    if record.size * width > MOST_VALUES:
        raise UnsupportedError(f"{record.size} nodes with {width} values each are too many")
    table = np.full((split.leaf.size, width), neutral, weights.value.dtype)
    table[node, 0 if single else target] = value
    values = np.where(split.leaf[record][:, None], table[record], weights.value.dtype.type(0))
    column = mentioned.argmax(axis=1) if single else np.zeros(trees)
    return values, column.astype(np.int32), ever, always
