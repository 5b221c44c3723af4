"""Products and convolutions for warpgroups, as graphs."""

from graph_runs import Net

from aotc.graph import ops
from aotc.graph.types import DType


def factor(net, *shape, dtype):
    """An input of ``dtype``, as float32."""
    x = net.x(*shape, dtype=dtype)
    return x if dtype is DType.F32 else net.b.cast(x, DType.F32)


def product(m, k, n, dtype=DType.F32, right="weights", batch=(), tail=False):
    """A product with weights, or with what is made at run time ``across`` ([k, n]) or ``along`` its
    depth ([n, k]); with ``tail``, what follows reads three tensors."""
    net = Net()
    x = factor(net, *batch, m, k, dtype=dtype)
    if right == "weights":
        w = net.c(*batch, k, n)
    elif right == "across":
        w = factor(net, *batch, k, n, dtype=dtype)
    else:
        axes = (*range(len(batch)), len(batch) + 1, len(batch))
        w = net.b.transpose(factor(net, *batch, n, k, dtype=dtype), axes)
    y = net.b.apply(ops.Dot(), x, w)
    if tail:
        y = net.b.binary("add", y, net.c(n))
        y = net.b.unary("abs", net.b.binary("add", y, factor(net, *y.shape, dtype=dtype)))
    return net.graph(y if dtype is DType.F32 else net.b.cast(y, dtype))


def convolution(
    channels, outputs, size, window, stride=1, dilation=1, groups=1, images=2, dtype=DType.F32
):
    """A convolution over channels-last data with a border, a bias and a residual."""
    net = Net()
    x = factor(net, images, size, size, channels, dtype=dtype)
    w = net.c(outputs, channels // groups, window, window)
    low = (dilation * (window - 1) // 2,) * 2
    op = ops.Conv((stride,) * 2, low, low, (dilation,) * 2, groups, channels_last=True)
    y = net.b.apply(op, x, w)
    y = net.b.binary("add", net.b.binary("add", y, net.c(outputs)), net.x(*y.shape))
    return net.graph(net.b.binary("max", y, net.b.constant(0.0, DType.F32)))
