"""Decision trees: lowered kernels against the reference, bit by bit."""

import numpy as np
import pytest
from forests import random_forest, rows_for
from hypothesis import given, settings
from hypothesis import strategies as st
from move_cases import Fixed, Swapped, build, check, lowered

from aotc.errors import UnsupportedError
from aotc.fuse.groups import fuse
from aotc.graph import ops
from aotc.loop.eval import run_program
from aotc.loop.text import print_kernel
from aotc.lower.program import lower
from aotc.target import resolve_target

#: Fewer rows than walk together, some, more than a vector, several blocks and a rest.
ROWS = [1, 5, 8, 13, 37, 150]


def forest(rows, depth, width, columns, dtype="float32", nan_left=False, fn="sum", trees=11):
    """A `Trees`, its rows, and its tables as constants."""
    tables = random_forest(rows, trees, depth, 6, width, columns, dtype, nan_left)
    x = rows_for(rows, rows, 6, dtype, gaps=nan_left)
    return ops.Trees(fn, depth, columns), x, *map(Fixed, tables)


@pytest.mark.slow
@settings(max_examples=25, deadline=None)
@given(
    rows=st.sampled_from(ROWS[:5]),
    depth=st.integers(0, 5),
    sizes=st.sampled_from([(1, 1), (1, 3), (2, 2), (2, 4), (5, 5)]),
    dtype=st.sampled_from(["float32", "float64"]),
    nan_left=st.booleans(),
    fn=st.sampled_from(["sum", "min", "max"]),
)
def test_loops(rows, depth, sizes, dtype, nan_left, fn):
    check(*forest(rows, depth, *sizes, dtype, nan_left, fn))


@pytest.mark.slow
@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("depth", [3, 8])
@pytest.mark.parametrize("sizes", [(1, 1), (1, 3), (3, 3)])
def test_native_code(rows, depth, sizes):
    check(*forest(rows, depth, *sizes, nan_left=rows % 2 == 0), native=True, interpreted=False)


@pytest.mark.parametrize("rows", [5, 37])
def test_rows_through_a_view(rows):
    op, x, *tables = forest(rows, 3, 1, 1)
    check(op, Swapped(x), *tables, native=True)


@pytest.mark.slow
@pytest.mark.parametrize("rows", [5, 150])
def test_a_single_tree(rows):
    check(*forest(rows, 9, 1, 1, trees=1), native=True)
    check(*forest(rows, 4, 3, 3, trees=1), native=True)


def test_more_classes_than_registers():
    check(*forest(3, 2, 40, 40, trees=3), native=True)
    check(*forest(20, 2, 40, 40, trees=3), native=True)


@pytest.mark.parametrize("rows", [1, 20, 37])
def test_the_bytes_are_those_of_every_target(rows):
    op, x, *tables = forest(rows, 5, 1, 1, trees=5)
    graph, inputs = build(op, x, *tables)
    found = set()
    for name, cpu in (("x86_64", "x86-64-v3"), ("x86_64", "x86-64-v4"), ("aarch64", None)):
        program = lower(fuse(graph), resolve_target(name, cpu), "case")
        found.add(run_program(program, inputs)["y"].tobytes())
    assert len(found) == 1


def test_the_code_does_not_grow_with_the_trees():
    few, many = (lowered(build(*forest(100, 5, 1, 1, trees=trees))[0]) for trees in (10, 40))
    lines = [print_kernel(program.calls[-1].kernel).count("\n") for program in (few, many)]
    assert lines[0] == lines[1]


def test_tables_must_be_known():
    op, x, *tables = forest(5, 2, 1, 1)
    with pytest.raises(UnsupportedError, match="at run time"):
        lowered(build(op, x, tables[0].values, *tables[1:])[0])


def test_children_outside_the_table_are_refused():
    op, x, feature, threshold, child, *rest = forest(5, 2, 1, 1)
    wild = np.where(np.isnan(threshold.values), child.values, 10**6).astype(np.int32)
    with pytest.raises(UnsupportedError, match="outside"):
        lowered(build(op, x, feature, threshold, Fixed(wild), *rest)[0])
