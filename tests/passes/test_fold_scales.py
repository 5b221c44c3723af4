"""Scale folding: batch norms and scales disappear into weights, values with other readers stay."""

import numpy as np
import pytest
from pass_graphs import assert_same_values, count, f32, shown

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.types import DType
from aotc.passes.fold import fold
from aotc.passes.fold_scales import fold_scales


def weights(*shape, seed=1):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def per_channel(b, channels, rank, axis, seed=2):
    values = np.random.default_rng(seed).uniform(0.5, 2, channels).astype(np.float32)
    return b.constant(values.reshape([-1 if i == axis else 1 for i in range(rank)]))


def conv(b, x, w, *, pad=0, groups=1, last=False):
    rank = x.type.rank - 2
    one = (1,) * rank
    return b.apply(ops.Conv(one, (pad,) * rank, (pad,) * rank, one, groups, last), x, b.constant(w))


def folded(make, *shape):
    b = Builder()
    graph = fold(b.finish("g", [("y", make(b, b.parameter("x", f32(*shape))))]))
    after = fold_scales(graph)
    assert_same_values(graph, after, rtol=1e-6)
    assert shown(fold_scales(after)) == shown(after)
    return after


def batch_norm(b, y, axis):
    c = [per_channel(b, y.shape[axis], y.type.rank, axis, seed) for seed in range(4)]
    centred = b.binary("sub", y, c[0])
    scaled = b.binary("mul", b.binary("div", centred, c[1]), c[2])
    return b.binary("add", scaled, c[3])


def one_bias(after, channels, axis, rank):
    """The output is a contraction plus one stretched constant with one value per channel."""
    node = after.outputs[0][1]
    assert node.op == ops.Binary("add") and isinstance(node.inputs[1].op, ops.Broadcast)
    bias = node.inputs[1].inputs[0]
    assert bias.shape == tuple(channels if i == axis else 1 for i in range(rank))
    return node.inputs[0]


@pytest.mark.parametrize("spatial", [(5,), (5, 4), (3, 4, 3)])
def test_batch_norm_after_conv(spatial):
    rank = len(spatial) + 2

    def make(b, x):
        y = conv(b, x, weights(4, 3, *(3 if d > 3 else 2 for d in spatial)), pad=1)
        return batch_norm(b, b.binary("add", y, per_channel(b, 4, rank, 1, 9)), 1)

    after = folded(make, 2, 3, *spatial)
    assert isinstance(one_bias(after, 4, 1, rank).op, ops.Conv)
    assert count(after, ops.Binary) == 1


def test_batch_norm_after_grouped_and_channels_last_conv():
    def grouped(b, x):
        return batch_norm(b, conv(b, x, weights(6, 1, 3, 3), groups=3), 1)

    def last(b, x):
        return batch_norm(b, conv(b, x, weights(5, 3, 2, 2), last=True), 3)

    assert isinstance(one_bias(folded(grouped, 1, 3, 4, 4), 6, 1, 4).op, ops.Conv)
    assert isinstance(one_bias(folded(last, 1, 4, 4, 3), 5, 3, 4).op, ops.Conv)


def test_affine_after_dot_also_through_a_reshape():
    def make(b, x):
        y = b.apply(ops.Dot(), x, b.constant(weights(3, 4)))
        return batch_norm(b, b.reshape(y, (2, 1, 5, 4)), 3)

    assert isinstance(one_bias(folded(make, 10, 3), 4, 3, 4).op, ops.Reshape)


def test_two_shifts_become_one():
    def make(b, x):
        y = b.binary("add", conv(b, x, weights(4, 3, 1, 1)), per_channel(b, 4, 4, 1))
        return b.binary("add", y, b.constant(3.0, DType.F32))

    assert isinstance(one_bias(folded(make, 1, 3, 2, 2), 4, 1, 4).op, ops.Conv)


def test_scalar_scale_and_reversed_subtraction():
    def make(b, x):
        y = b.binary("mul", conv(b, x, weights(2, 3, 1, 1)), b.constant(3.0, DType.F32))
        return b.binary("sub", b.constant(1.0, DType.F32), b.unary("neg", y))

    assert count(folded(make, 1, 3, 2, 2), ops.Unary) == 0


def test_dense_constant_that_only_varies_by_channel():
    def make(b, x):
        full = np.ascontiguousarray(np.broadcast_to(weights(2, 1, 1), (1, 2, 3, 3)))
        return b.binary("mul", conv(b, x, weights(2, 3, 1, 1)), b.constant(full))

    assert count(folded(make, 1, 3, 3, 3), ops.Binary) == 0


def test_a_scale_before_a_padded_conv_folds_into_its_input_channels():
    def make(b, x):
        scaled = b.binary("mul", per_channel(b, 4, 4, 1), x)
        return conv(b, scaled, weights(4, 2, 3, 3), pad=1, groups=2)

    assert count(folded(make, 1, 4, 4, 4), ops.Binary) == 0


def test_a_scale_before_a_dot_folds():
    def make(b, x):
        scaled = b.binary("mul", x, per_channel(b, 3, 2, 1))
        return b.apply(ops.Dot(), scaled, b.constant(weights(3, 2)))

    assert count(folded(make, 4, 3), ops.Binary) == 0


STAYS = {
    "a lone bias": lambda b, x: b.binary(
        "add", conv(b, x, weights(2, 3, 1, 1)), per_channel(b, 2, 4, 1)
    ),
    "a scale along another axis": lambda b, x: b.binary(
        "mul", conv(b, x, weights(2, 3, 1, 1)), per_channel(b, 4, 4, 2)
    ),
    "a shift before a conv": lambda b, x: conv(
        b, b.binary("add", x, per_channel(b, 3, 4, 1)), weights(2, 3, 1, 1), pad=1
    ),
    "a scale behind a relu": lambda b, x: b.binary(
        "mul", b.binary("max", conv(b, x, weights(2, 3, 1, 1)), b.constant(0.0, DType.F32)),
        per_channel(b, 2, 4, 1),
    ),
    "division by zero": lambda b, x: b.binary(
        "div", conv(b, x, weights(2, 3, 1, 1)), b.constant(0.0, DType.F32)
    ),
    "constant over conv": lambda b, x: b.binary(
        "div", b.constant(1.0, DType.F32), conv(b, x, weights(2, 3, 1, 1))
    ),
    "a square": lambda b, x: (lambda y: b.binary("mul", y, y))(conv(b, x, weights(2, 3, 1, 1))),
}  # fmt: skip


@pytest.mark.parametrize("name", STAYS)
def test_stays(name):
    b = Builder()
    graph = fold(b.finish("g", [("y", STAYS[name](b, b.parameter("x", f32(1, 3, 4, 4))))]))
    assert shown(fold_scales(graph)) == shown(graph)


def test_a_conv_with_another_reader_stays():
    b = Builder()
    y = conv(b, b.parameter("x", f32(1, 3, 4, 4)), weights(2, 3, 1, 1))
    scaled = b.binary("mul", y, per_channel(b, 2, 4, 1))
    for outputs in ([("y", y), ("s", scaled)], [("t", b.unary("tanh", y)), ("s", scaled)]):
        graph = b.finish("g", outputs)
        assert shown(fold_scales(graph)) == shown(graph)


def test_an_output_within_the_chain_is_kept():
    b = Builder()
    y = conv(b, b.parameter("x", f32(1, 3, 4, 4)), weights(2, 3, 1, 1))
    first = b.binary("mul", y, per_channel(b, 2, 4, 1))
    graph = b.finish("g", [("a", first), ("b", b.binary("mul", first, per_channel(b, 2, 4, 1)))])
    after = fold_scales(graph)
    assert_same_values(graph, after)
    assert count(after, ops.Binary) == 1


def test_weights_are_rounded_once():
    b = Builder()
    w = weights(2, 3, 1, 1)
    thirds = b.constant(np.full((1, 2, 1, 1), 3, np.float32))
    y = b.binary("div", conv(b, b.parameter("x", f32(1, 3, 4, 4)), w), thirds)
    y = b.binary("mul", y, b.constant(np.full((1, 2, 1, 1), 7, np.float32)))
    after = fold(fold_scales(b.finish("g", [("y", y)])))
    folded_weights = after.outputs[0][1].inputs[1].data
    np.testing.assert_array_equal(folded_weights, (w.astype(np.float64) / 3 * 7).astype(np.float32))
