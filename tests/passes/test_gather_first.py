"""Gather first: codes of large tables are gathered as codes, and only those tables'."""

import numpy as np
import pytest

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.types import DType, TensorType
from aotc.passes.gather_first import gather_first


def tabulated(scales, axis=0, stored=np.uint8, shape=(50, 6), fn="mul"):
    """Rows (or columns) of (codes - 7) * scales."""
    b = Builder()
    i = b.parameter("i", TensorType(DType.I64, (2, 3)))
    codes = b.constant(np.random.default_rng(0).integers(0, 100, shape).astype(stored))
    number = codes if stored is np.float32 else b.cast(codes, DType.F32)
    shifted = b.binary("sub", number, b.constant(np.full((1, 1), 7, np.float32)))
    table = b.binary(fn, shifted, b.constant(scales))
    return b.finish("g", [("y", b.apply(ops.Gather(axis), table, i))])


def gathered(graph):
    return {n.inputs[0].type.dtype for n in graph.nodes() if isinstance(n.op, ops.Gather)}


ROWS = np.linspace(0.5, 2, 50, dtype=np.float32).reshape(50, 1)
COLUMNS = np.linspace(0.5, 2, 6, dtype=np.float32).reshape(1, 6)


@pytest.mark.parametrize(
    "scales, axis, shape",
    [(COLUMNS, 0, (50, 6)), (ROWS, 0, (50, 6)), (ROWS.T, 1, (6, 50)), (COLUMNS.T, 1, (6, 50))],
    ids=["per column", "per row", "per row of columns", "per column of columns"],
)
def test_codes_are_gathered_and_then_computed(scales, axis, shape):
    graph = tabulated(scales, axis, shape=shape)
    after = gather_first(graph)
    assert DType.U8 in gathered(after)
    assert all(node.shape != shape for node in after.nodes() if node.data is None)
    x = {"i": np.array([[0, 3, -1], [49, 3, 7]])}
    np.testing.assert_array_equal(evaluate(after, x)["y"], evaluate(graph, x)["y"])


def test_small_tables_and_numbers_of_full_size_stay():
    for graph in (tabulated(COLUMNS, shape=(5, 6)), tabulated(COLUMNS, stored=np.float32)):
        assert gathered(gather_first(graph)) == {DType.F32}
