"""One-hot products become gathers, also for indices that match nothing; others stay products."""

import numpy as np
import pytest

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.types import DType, TensorType
from aotc.graph.verify import verify_graph
from aotc.passes.fold import fold
from aotc.passes.one_hot import one_hot

TABLE = np.arange(1, 13, dtype=np.float32).reshape(4, 3)


def product(dtype=DType.I64, columns=(0, 1, 2, 3), table=TABLE, batch=(2, 3)):
    """One-hot rows of an input of shape ``batch`` times a table of 4 rows."""
    b = Builder()
    x = b.parameter("x", TensorType(dtype, batch))
    wide = b.broadcast(b.reshape(x, (*batch, 1)), (*batch, 4))
    numbers = b.constant(np.array(columns, dtype.numpy).reshape(*(1,) * len(batch), 4))
    equal = b.compare("eq", b.broadcast(numbers, (*batch, 4)), wide)
    rows = b.reshape(b.cast(equal, DType.F32), (int(np.prod(batch)), 4))
    return fold(b.finish("g", [("y", b.apply(ops.Dot(), rows, b.constant(table)))]))


def has_dot(graph):
    return any(isinstance(node.op, ops.Dot) for node in graph.nodes())


@pytest.mark.parametrize("dtype", [DType.I64, DType.I32])
@pytest.mark.parametrize("batch", [(2, 3), (6,)])
def test_rows_are_picked_and_unmatched_rows_are_zero(dtype, batch):
    graph = product(dtype, batch=batch)
    after = fold(one_hot(graph))
    verify_graph(after)
    assert has_dot(graph) and not has_dot(after)
    x = np.array([0, 3, 4, -1, 2, 100], dtype.numpy).reshape(batch)
    want, have = evaluate(graph, {"x": x})["y"], evaluate(after, {"x": x})["y"]
    np.testing.assert_array_equal(have, want)
    assert not have[2:4].any() and have[4].tolist() == [7, 8, 9]


def test_other_columns_and_tables_that_are_not_finite_stay():
    infinite = np.where(TABLE == 5, np.inf, TABLE).astype(np.float32)
    for graph in (product(columns=(1, 2, 3, 4)), product(table=infinite)):
        assert has_dot(one_hot(graph))
