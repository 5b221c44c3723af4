"""Random convolutional networks, the first layers widest: a seed goes in, a graph comes out."""

import numpy as np
from graph_runs import Net

from aotc.graph import ops


def wide_net(seed, size=16, most_layers=6):
    """A chain of convolutions, windows and pointwise operators over an image, with residual sums,
    transposed and cut in between, and one value for each channel at its end."""
    random = np.random.default_rng(seed)
    net = Net(seed)
    batch = int(random.integers(1, 3))
    x = net.x(batch, int(random.integers(6, size + 1)), int(random.integers(6, size + 1)), 3)
    for _ in range(int(random.integers(2, most_layers + 1))):
        layer = LAYERS[int(random.integers(len(LAYERS)))]
        x = layer(net, x, random)
    head = net.b.reduce("sum", x, (1, 2), False)
    outputs = [head, x] if random.random() < 0.2 else [head]
    return net.graph(*outputs)


def _padded(net, x, window, random, value=0.0):
    low = (0, *(int(random.integers(0, side)) for side in window), 0)
    high = (0, *(int(random.integers(0, side)) for side in window), 0)
    short = [max(0, side - n - a - b) for side, n, a, b in zip(
        (1, *window, 1), x.shape, low, high, strict=True)]
    high = tuple(a + b for a, b in zip(high, short, strict=True))
    return net.b.apply(ops.Pad(low, high, value), x) if any((*low, *high)) else x


def _conv(net, x, random):
    window = tuple(int(side) for side in random.integers(1, 4, 2))
    strides = tuple(int(step) for step in random.integers(1, 3, 2))
    channels = x.shape[-1]
    groups = channels if random.random() < 0.5 else 1
    outputs = groups * int(random.integers(1, 3)) if groups > 1 else int(random.integers(1, 6))
    op = ops.Conv(strides, (0, 0), (0, 0), (1, 1), groups, True)
    weights = net.c(outputs, channels // groups, *window)
    made = net.b.apply(op, _padded(net, x, window, random), weights)
    bias = net.b.binary("add", made, net.c(outputs))
    return net.b.binary("max", bias, net.b.constant(0.0, x.type.dtype))


def _window(net, x, random):
    window = tuple(int(side) for side in random.integers(1, 4, 2))
    ones, none = (1,) * 4, (0,) * 4
    fn = str(random.choice(["max", "sum"]))
    op = ops.ReduceWindow(fn, (1, *window, 1), (1, 2, 1, 1), none, none, ones)
    value = 0.0 if fn == "sum" else float("-inf")
    return net.b.apply(op, _padded(net, x, window, random, value))


def _residual(net, x, random):
    op = ops.Conv((1, 1), (0, 0), (0, 0), (1, 1), 1, True)
    pad = net.b.apply(ops.Pad((0, 1, 1, 0), (0, 1, 1, 0), 0.0), x)
    made = net.b.apply(op, pad, net.c(x.shape[-1], x.shape[-1], 3, 3))
    return net.b.binary("add", net.b.unary("tanh", made), x)


def _turned(net, x, random):
    return net.b.transpose(x, (0, 2, 1, 3))


def _cut(net, x, random):
    rows, columns = (max(2, side - 1) for side in x.shape[1:3])
    counts = (x.shape[0], rows, columns, x.shape[3])
    if min(x.shape[1:3]) < 3:
        return x
    return net.b.apply(ops.Slice((0, 1, 0, 0), counts, (1, 1, 1, 1)), x)


def _joined(net, x, random):
    return net.b.apply(ops.Concat(3), x, net.b.unary("abs", x))


LAYERS = (_conv, _conv, _conv, _window, _residual, _turned, _cut, _joined)
