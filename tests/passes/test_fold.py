"""Constant folding: known values are computed, scalars stay scalars, blow-ups stay."""

import numpy as np
from hypothesis import given, settings
from pass_graphs import assert_same_values, f32, graphs, shown

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.types import DType
from aotc.passes import fold as module
from aotc.passes.fold import fold
from aotc.passes.legalize import legalize


def folded(make):
    b = Builder()
    x = b.parameter("x", f32(2, 3))
    graph = b.finish("g", [("out", make(b, x))])
    after = fold(graph)
    assert_same_values(graph, after)
    return after.outputs[0][1]


def test_arithmetic_on_constants():
    def make(b, x):
        return b.binary("add", b.constant([1, 2], DType.I64), b.constant([3, 4], DType.I64))

    node = folded(make)
    assert node.data.tolist() == [4, 6]


def test_shape_arithmetic_through_a_small_broadcast():
    def make(b, x):
        minus = b.broadcast(b.constant(-1, DType.I64), (2,))
        shape = b.apply(ops.Concat(0), minus, b.constant([7], DType.I64))
        return b.apply(ops.Gather(0), shape, b.constant([2, 0], DType.I64))

    assert folded(make).data.tolist() == [7, -1]


def test_a_stretched_scalar_is_computed_before_stretching():
    def make(b, x):
        wide = b.broadcast(b.constant(3.0, DType.F32), (1000, 1000))
        return b.binary("add", b.unary("neg", wide), b.constant(1.0, DType.F32))

    node = folded(make)
    assert isinstance(node.op, ops.Broadcast) and node.inputs[0].data.tolist() == [[-2]]


def test_moving_a_large_stretched_scalar_makes_no_large_constant():
    def make(b, x):
        wide = b.broadcast(b.constant(3.0, DType.F32), (100, 200))
        return b.transpose(b.apply(ops.Pad((1, 0), (0, 0), 0.0), wide), (1, 0))

    assert all(node.data is None or node.data.size == 1 for node in _nodes(folded(make)))


def test_weights_fold_whatever_their_size_but_blow_ups_do_not(monkeypatch):
    monkeypatch.setattr(module, "RESULT_CAP_BYTES", 64)
    monkeypatch.setattr(module, "SMALL_BYTES", 64)
    weights = np.arange(400, dtype=np.float32).reshape(20, 20)
    assert folded(lambda b, x: b.transpose(b.constant(weights), (1, 0))).data is not None
    row, column = weights[:1], weights[:, :1]
    outer = folded(lambda b, x: b.binary("add", b.constant(row), b.constant(column)))
    assert isinstance(outer.op, ops.Binary)
    padded = folded(lambda b, x: b.apply(ops.Pad((9, 0), (0, 0), 0.0), b.constant(row)))
    assert isinstance(padded.op, ops.Pad)


def test_a_reshaped_constant_shares_its_bytes():
    weights = np.arange(6, dtype=np.float32)
    node = folded(lambda b, x: b.reshape(b.constant(weights), (2, 3)))
    assert node.data.base is not None and np.shares_memory(node.data, weights)


def test_small_iota_folds_and_large_does_not():
    assert folded(lambda b, x: b.apply(ops.Iota((3,), 0, DType.I64))).data.tolist() == [0, 1, 2]
    large = folded(lambda b, x: b.apply(ops.Iota((100_000,), 0, DType.I64)))
    assert isinstance(large.op, ops.Iota)


def test_what_reads_an_input_stays():
    node = folded(lambda b, x: b.binary("add", x, b.unary("exp", b.constant(0.0, DType.F32))))
    assert shown(Builder().finish("g", [("y", node)])) == ["add(x, 1)"]


def test_invalid_arithmetic_is_silent():
    node = folded(lambda b, x: b.unary("reciprocal", b.constant(0.0, DType.F32)))
    assert np.isinf(node.data)


@settings(max_examples=40, deadline=None)
@given(graphs())
def test_values_stay(graph):
    assert_same_values(graph, fold(graph))


def _nodes(root):
    return list(Builder().finish("g", [("y", root)]).nodes())


def test_large_weights_of_two_bytes_become_float32(monkeypatch):
    monkeypatch.setattr(module, "RESULT_CAP_BYTES", 64)
    for dtype, folds in ((DType.F16, True), (DType.BF16, True), (DType.I8, False)):
        b = Builder()
        weights = b.constant(np.arange(100).astype(dtype.numpy))
        total = b.binary("add", b.parameter("x", f32(100)), b.cast(weights, DType.F32))
        result = fold(legalize(b.finish("g", [("y", total)]))).outputs[0][1]
        assert (result.inputs[1].data is not None) == folds
