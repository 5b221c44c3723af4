"""Canonical products: no batch where there is none, and real batches left alone."""

import numpy as np
from pass_graphs import assert_same_values, f32, shown

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.passes.canonical_dot import canonical_dot


def canonical(make, *shapes):
    b = Builder()
    xs = [b.parameter(name, f32(*shape)) for name, shape in zip("xy", shapes, strict=False)]
    graph = b.finish("g", [("out", make(b, *xs))])
    after = canonical_dot(graph)
    assert_same_values(graph, after)
    return shown(after)[0]


def test_a_batch_of_one_vanishes():
    def dot(b, x, y):
        return b.apply(ops.Dot(), x, y)

    want = "reshape[1, 1, 3, 2](dot(reshape[3, 4](x), reshape[4, 2](y)))"
    assert canonical(dot, (1, 1, 3, 4), (1, 1, 4, 2)) == want


def test_a_shared_right_operand_joins_batch_and_rows():
    def dot(b, x):
        w = b.constant(np.arange(8, dtype=np.float32).reshape(1, 4, 2))
        return b.apply(ops.Dot(), x, b.broadcast(w, (5, 4, 2)))

    want = "reshape[5, 3, 2](dot(reshape[15, 4](x), reshape[4, 2](const[1, 4, 2])))"
    assert canonical(dot, (5, 3, 4)) == want


def test_real_batches_stay():
    def dot(b, x, y):
        return b.apply(ops.Dot(), x, y)

    assert canonical(dot, (5, 3, 4), (5, 4, 2)) == "dot(x, y)"
    assert canonical(dot, (3, 4), (4, 2)) == "dot(x, y)"


def test_a_right_operand_shared_by_a_part_of_the_batch_stays():
    def dot(b, x, y):
        return b.apply(ops.Dot(), x, b.broadcast(y, (2, 5, 4, 2)))

    assert canonical(dot, (2, 5, 3, 4), (2, 1, 4, 2)) == "dot(x, broadcast[2, 5, 4, 2](y))"
