"""The primitive `Trees`: its type rule, and its meaning against a walk written as a loop."""

import math

import numpy as np
import pytest
from forests import random_forest, rows_for

from aotc.graph import ops
from aotc.graph.types import DType, TensorType


def walk(x, tables, row, tree):
    """The record where one row ends up in one tree."""
    feature, threshold, child, _, roots, _, *flags = tables
    at = roots[tree]
    while not (math.isnan(threshold[at]) and child[at] == at - 1):
        value = x[row, feature[at]]
        left = value <= threshold[at] or (bool(flags) and math.isnan(value) and flags[0][at])
        at = child[at] + (0 if left else 1)
    return at


@pytest.mark.parametrize("fn, start", [("sum", 0.0), ("min", math.inf), ("max", -math.inf)])
@pytest.mark.parametrize("nan_left", [False, True])
def test_every_row_walks_down_every_tree(fn, start, nan_left):
    tables = random_forest(1, 5, 3, 4, 2, 3, np.float64, nan_left)
    x = rows_for(2, 9, 4, np.float64, gaps=nan_left)
    wanted = np.full((9, 3), start)
    join = {"sum": np.add, "min": np.minimum, "max": np.maximum}[fn]
    for row in range(9):
        for tree in range(5):
            part = slice(tables[5][tree], tables[5][tree] + 2)
            leaf = tables[3][walk(x, tables, row, tree)]
            wanted[row, part] = join(wanted[row, part], leaf)
    np.testing.assert_array_equal(ops.Trees(fn, 3, 3).evaluate(x, *tables), wanted)


def test_walks_may_be_longer_than_the_trees():
    tables = random_forest(1, 5, 3, 4, 1, 1, np.float32)
    x = rows_for(2, 9, 4, np.float32)
    exact, longer = (ops.Trees("sum", depth, 1).evaluate(x, *tables) for depth in (3, 7))
    np.testing.assert_array_equal(exact, longer)


def test_indices_are_clamped():
    table = np.array([2**31 - 1, -(2**31)], np.int32)
    values = np.array([[1.0], [2.0]], np.float32)
    limits = np.array([0.0, np.nan], np.float32)
    x = np.array([[1.0], [-1.0]], np.float32)
    found = ops.Trees("sum", 4, 1).evaluate(x, table, limits, table, values, table, table)
    assert found.shape == (2, 1) and np.isfinite(found).all()


def types(**others):
    """Types of operands that fit, some of them replaced."""
    table, each = TensorType(DType.I32, (5,)), TensorType(DType.I32, (2,))
    found = {
        "x": TensorType(DType.F32, (7, 3)),
        "feature": table,
        "threshold": TensorType(DType.F32, (5,)),
        "child": table,
        "values": TensorType(DType.F32, (5, 2)),
        "roots": each,
        "column": each,
    }
    return list((found | others).values())


def test_the_result_has_a_row_for_each_row():
    assert ops.Trees("sum", 3, 4).infer(*types()) == TensorType(DType.F32, (7, 4))


@pytest.mark.parametrize(
    "others",
    [
        {"x": TensorType(DType.I32, (7, 3))},
        {"x": TensorType(DType.F32, (7,))},
        {"feature": TensorType(DType.I32, (4,))},
        {"threshold": TensorType(DType.F64, (5,))},
        {"child": TensorType(DType.I64, (5,))},
        {"values": TensorType(DType.F32, (5, 5))},
        {"values": TensorType(DType.F64, (5, 2))},
        {"column": TensorType(DType.I32, (3,))},
        {"nan_left": TensorType(DType.BOOL, (4,))},
    ],
)
def test_operands_that_do_not_fit_are_refused(others):
    with pytest.raises(ValueError):
        ops.Trees("sum", 3, 4).infer(*types(**others))


@pytest.mark.parametrize("op", [ops.Trees("mean", 3, 4), ops.Trees("sum", -1, 4)])
def test_attributes_that_make_no_sense_are_refused(op):
    with pytest.raises(ValueError):
        op.infer(*types())
