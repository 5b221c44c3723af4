"""Column order: shuffles of columns move into constant weights, everything else stays."""

import numpy as np
from pass_graphs import assert_same_values, f32, shown

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.passes.order_columns import order_columns


def ordered(split, perm, *, shared=False, constant=True):
    """Columns 12 of a product over 5 rows, split and transposed; the graphs before and after."""
    b = Builder()
    x = b.parameter("x", f32(5, 3))
    weights = np.arange(36, dtype=np.float32).reshape(3, 12)
    w = b.constant(weights) if constant else b.parameter("w", f32(3, 12))
    product = b.apply(ops.Dot(), x, w)
    y = b.transpose(b.reshape(product, split), perm)
    outputs = [("y", y), ("z", product)] if shared else [("y", y)]
    graph = b.finish("g", outputs)
    after = order_columns(graph)
    assert_same_values(graph, after)
    return shown(graph), shown(after)


def test_a_shuffle_moves_into_the_weights():
    _, after = ordered((5, 3, 2, 2), (0, 2, 3, 1))
    weights = "reshape[3, 12](transpose[0, 2, 3, 1](reshape[3, 3, 2, 2](const[3, 12])))"
    assert after == [f"reshape[5, 2, 2, 3](dot(x, {weights}))"]


def test_rows_between_the_columns_still_move():
    _, after = ordered((5, 3, 4), (2, 0, 1))
    weights = "reshape[3, 12](transpose[0, 2, 1](reshape[3, 3, 4](const[3, 12])))"
    assert after == [f"transpose[1, 0, 2](reshape[5, 4, 3](dot(x, {weights})))"]


def test_columns_in_order_stay():
    before, after = ordered((5, 3, 4), (1, 0, 2))
    assert before == after


def test_shared_products_and_computed_weights_stay():
    for options in ({"shared": True}, {"constant": False}):
        before, after = ordered((5, 3, 4), (2, 0, 1), **options)
        assert before == after


def test_a_split_that_mixes_rows_and_columns_stays():
    before, after = ordered((3, 20), (1, 0))
    assert before == after
