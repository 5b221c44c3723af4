"""The importer's builder computes small known results at once and leaves the rest."""

import numpy as np

from aotc.frontend.folding import FoldingBuilder, known_value
from aotc.graph import ops
from aotc.graph.types import DType, TensorType


def test_small_integers_are_computed():
    builder = FoldingBuilder()
    a, b = builder.constant([2, 3], DType.I64), builder.constant([4, 5], DType.I64)
    assert builder.binary("mul", a, b).data.tolist() == [8, 15]


def test_a_stretched_scalar_counts_as_known_but_stays_stretched():
    builder = FoldingBuilder()
    wide = builder.broadcast(builder.constant(3, DType.I64), (2, 2))
    assert isinstance(wide.op, ops.Broadcast)
    assert known_value(wide).tolist() == [[3, 3], [3, 3]]
    assert builder.reshape(wide, (4,)).data.tolist() == [3, 3, 3, 3]


def test_weights_are_left_alone_except_for_their_shape():
    builder = FoldingBuilder()
    weights = builder.constant(np.ones((64, 64), np.float32))
    assert builder.transpose(weights, (1, 0)).data is None
    flat = builder.reshape(weights, (4096,))
    assert np.shares_memory(flat.data, weights.data)


def test_huge_results_are_never_computed():
    builder = FoldingBuilder()
    one = builder.constant([1], DType.I64)
    assert builder.apply(ops.Pad((0,), (1 << 39,), 0), one).data is None
    huge = builder.broadcast(one, (1 << 39,))
    assert builder.binary("add", huge, huge).data is None
    assert known_value(builder.apply(ops.Iota((1 << 39,), 0, DType.I64))) is None


def test_what_depends_on_an_input_is_not_known():
    builder = FoldingBuilder()
    x = builder.parameter("x", TensorType(DType.I64, (2,)))
    assert known_value(builder.binary("add", x, x)) is None
    assert known_value(builder.broadcast(x, (3, 2))) is None
