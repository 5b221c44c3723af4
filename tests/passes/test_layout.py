"""Layout: channels-last convolutions, and no transposes but those at the edges of the network."""

import numpy as np
import pytest
from hypothesis import given, settings
from pass_graphs import assert_same_values, count, f32, graphs, shown

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.types import DType
from aotc.passes.explicit_pad import explicit_pad
from aotc.passes.fold import fold
from aotc.passes.layout import layout
from aotc.passes.simplify import simplify


class Net(Builder):
    """A builder with the layers that the tests stack."""

    def __init__(self):
        super().__init__()
        self.rng = np.random.default_rng(0)

    def weights(self, *shape):
        return self.constant(self.rng.uniform(-1, 1, shape).astype(np.float32))

    def conv(self, x, out, *, window=3, stride=1, groups=1):
        rank = x.type.rank - 2
        w = self.weights(out, x.shape[1] // groups, *(window,) * rank)
        pad, one = (window // 2,) * rank, (1,) * rank
        y = self.apply(ops.Conv((stride,) * rank, pad, pad, one, groups, False), x, w)
        return self.binary("add", y, self.weights(out, *one))

    def relu(self, x):
        return self.binary("max", x, self.constant(0.0, DType.F32))

    def pool(self, x, fn="max"):
        rank = x.type.rank - 2
        window = (1, 1, *(2,) * rank)
        none, one = (0,) * (rank + 2), (1,) * (rank + 2)
        return self.apply(ops.ReduceWindow(fn, window, window, none, none, one), x)


def laid_out(make, *shape, values=True):
    """The graph after layout and tidying; values compared, and every conv is channels-last."""
    net = Net()
    made = make(net, net.parameter("x", f32(*shape)))
    outputs = made if isinstance(made, list) else [made]
    graph = net.finish("g", [(f"y{i}", node) for i, node in enumerate(outputs)])
    before = fold(simplify(fold(explicit_pad(graph))))
    after = fold(simplify(layout(before)))
    if values:
        assert_same_values(graph, after)
    assert all(node.op.channels_last for node in after.nodes() if isinstance(node.op, ops.Conv))
    assert shown(layout(after)) == shown(after)
    return after


def classify(net, x):
    """Global average, flatten and a linear layer: no transpose survives it."""
    mean = net.binary("mul", net.reduce("sum", x, range(2, x.type.rank), keep=True), net.weights(1))
    flat = net.reshape(mean, x.shape[:2])
    return net.apply(ops.Dot(), flat, net.weights(x.shape[1], 3))


def transposes(graph):
    return count(graph, ops.Transpose)


@pytest.mark.parametrize("spatial", [(8,), (8, 6), (4, 4, 4)])
def test_residual_network(spatial):
    def make(net, x):
        x = net.pool(net.relu(net.conv(x, 4, window=3)))
        for _ in range(2):
            y = net.conv(net.relu(net.conv(x, 4)), 4)
            x = net.relu(net.binary("add", y, x))
        y = net.binary("add", net.conv(x, 6, stride=2), net.conv(x, 6, window=1, stride=2))
        return classify(net, y)

    after = laid_out(make, 1, 3, *spatial)
    assert transposes(after) == 1
    (first,) = (node for node in after.nodes() if isinstance(node.op, ops.Transpose))
    assert isinstance(first.inputs[0].op, ops.Pad), "the image is padded in its own layout"


def test_mobile_network_with_squeeze_and_excite():
    def make(net, x):
        x = net.relu(net.conv(x, 8))
        y = net.relu(net.conv(x, 8, groups=8))
        gate = net.reduce("sum", y, (2, 3), keep=True)
        gate = net.conv(net.relu(net.conv(gate, 2, window=1)), 8, window=1)
        gate = net.binary("add", net.binary("mul", gate, net.weights(1)), net.weights(1))
        gate = net.binary("min", net.relu(gate), net.constant(1.0, DType.F32))
        y = net.conv(net.binary("mul", y, gate), 8, window=1, groups=2)
        return classify(net, net.binary("add", x, y))

    assert transposes(laid_out(make, 1, 3, 6, 6)) == 1


def test_feature_pyramid_with_nearest_resize_and_concat():
    def resize(net, x):
        n, c, h, w = x.shape
        split = net.reshape(x, (n, c, h, 1, w, 1))
        return net.reshape(net.broadcast(split, (n, c, h, 2, w, 2)), (n, c, 2 * h, 2 * w))

    def gathered(net, x):
        twice = net.constant(np.repeat(np.arange(x.shape[2]), 2))
        return net.apply(ops.Gather(3), net.apply(ops.Gather(2), x, twice), twice)

    def make(net, x):
        fine = net.relu(net.conv(x, 4))
        coarse = net.conv(net.pool(fine), 4)
        coarser = net.conv(net.pool(coarse, "sum"), 4)
        up = net.binary("add", coarse, resize(net, coarser))
        joined = net.apply(ops.Concat(1), fine, resize(net, up), gathered(net, coarse))
        half = net.apply(ops.Slice((0, 4, 0, 0), (1, 8, 8, 8), (1,) * 4), joined)
        return net.unary("sigmoid", net.conv(half, 1))

    assert transposes(laid_out(make, 1, 3, 8, 8)) == 1


def test_vision_transformer_patches_are_a_plain_reshape():
    def make(net, x):
        patches = net.apply(
            ops.Conv((4, 4), (0, 0), (0, 0), (1, 1), 1, False), x, net.weights(6, 3, 4, 4)
        )
        tokens = net.transpose(net.reshape(patches, (1, 6, 4)), (0, 2, 1))
        return net.apply(ops.Concat(1), net.weights(1, 1, 6), tokens)

    conv = "conv(transpose[0, 2, 3, 1](x), const[6, 3, 4, 4])"
    want = f"concat(const[1, 1, 6], reshape[1, 4, 6]({conv}))"
    assert shown(laid_out(make, 1, 3, 8, 8)) == [want]


def test_tokens_between_convolutions():
    def make(net, x):
        y = net.conv(x, 4)
        tokens = net.transpose(net.reshape(y, (2, 4, 16)), (0, 2, 1))
        tokens = net.binary("add", tokens, net.reduce("sum", tokens, (2,), keep=True))
        tokens = net.apply(ops.Dot(), net.reshape(tokens, (32, 4)), net.weights(4, 4))
        back = net.transpose(net.reshape(tokens, (2, 16, 4)), (0, 2, 1))
        return classify(net, net.conv(net.reshape(back, (2, 4, 4, 4)), 5))

    assert transposes(laid_out(make, 2, 3, 4, 4)) == 1


def test_transposed_convolution_as_a_product():
    """[N,C,H,W] -> rows times [C, O*2*2] -> [N,O,2H,2W]: interleaving moves elements once."""

    def deconv(net, x, out):
        n, c, h, w = x.shape
        rows = net.reshape(net.transpose(x, (0, 2, 3, 1)), (n * h * w, c))
        product = net.apply(ops.Dot(), rows, net.weights(c, out * 4))
        split = net.transpose(net.reshape(product, (n, h, w, out, 2, 2)), (0, 3, 1, 4, 2, 5))
        return net.reshape(split, (n, out, 2 * h, 2 * w))

    def make(net, x):
        y = net.relu(deconv(net, net.relu(net.conv(x, 4)), 3))
        return net.conv(deconv(net, y, 4), 1)

    assert transposes(laid_out(make, 1, 3, 4, 4)) == 3


def test_softmax_over_channels_stays_channels_last():
    def make(net, x):
        y = net.conv(x, 4)
        peak = net.reduce("max", y, (1,), keep=True)
        e = net.unary("exp", net.binary("sub", y, peak))
        y = net.binary("div", e, net.reduce("sum", e, (1,), keep=True))
        label = net.apply(ops.ArgReduce("max", 1, False), y)
        return [classify(net, net.conv(y, 4)), label]

    assert transposes(laid_out(make, 1, 3, 4, 4)) == 1


def test_a_model_that_is_channels_last_itself_loses_its_transposes():
    def make(net, x):
        y = net.transpose(net.conv(net.transpose(x, (0, 3, 1, 2)), 4), (0, 2, 3, 1))
        y = net.binary("mul", y, net.weights(4))
        return net.transpose(net.conv(net.transpose(y, (0, 3, 1, 2)), 4), (0, 2, 3, 1))

    assert transposes(laid_out(make, 1, 4, 4, 3)) == 0


def test_an_output_keeps_the_order_the_model_promises():
    after = laid_out(lambda net, x: net.conv(x, 2), 1, 3, 4, 4)
    assert isinstance(after.outputs[0][1].op, ops.Transpose)
    assert transposes(after) == 2


def test_attention_transposes_stay_where_they_are():
    def make(net, x):
        seed = net.reshape(net.conv(x, 2, window=1), (8, 4))
        q = net.transpose(net.reshape(seed, (4, 2, 4)), (1, 0, 2))
        k = net.transpose(net.reshape(seed, (4, 2, 4)), (1, 2, 0))
        return net.apply(ops.Dot(), q, net.binary("mul", k, net.weights(1, 1, 1)))

    after = laid_out(make, 1, 2, 4, 4)
    dot = after.outputs[0][1]
    assert isinstance(dot.inputs[0].op, ops.Transpose) and dot.inputs[1].op == ops.Binary("mul")


def test_graphs_without_convolutions_are_returned_as_they_are():
    b = Builder()
    graph = b.finish("g", [("y", b.transpose(b.parameter("x", f32(2, 3)), (1, 0)))])
    assert layout(graph) is graph


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_values_stay_and_no_more_moves_than_around_each_conv(graph):
    after = fold(simplify(layout(graph)))
    assert_same_values(graph, after)
    around = sum(
        node.inputs[0].type.size_bytes + node.type.size_bytes
        for node in graph.nodes()
        if isinstance(node.op, ops.Conv)
    )
    assert transposed_bytes(after) <= transposed_bytes(graph) + around
    assert not any(isinstance(n.op, ops.Conv) and not n.op.channels_last for n in after.nodes())


def transposed_bytes(graph):
    return sum(
        node.type.size_bytes
        for node in graph.nodes()
        if isinstance(node.op, ops.Transpose) and node.inputs[0].data is None
    )
