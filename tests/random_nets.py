"""Random graphs for fusion and lowering: drawn steps go in, a graph of many operators comes out."""

import numpy as np
from graph_runs import Net
from hypothesis import strategies as st

from aotc.graph import ops
from aotc.graph.types import DType

LIMIT_ELEMS = 700


@st.composite
def nets(draw, most_steps=10):
    """A graph over two f32 inputs with one to three outputs, each step on values made before."""
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    steps = draw(st.lists(st.sampled_from(sorted(STEPS)), min_size=1, max_size=most_steps))
    net = Net(int(random.integers(1000)))
    shape = tuple(int(n) for n in random.integers(1, 6, random.integers(2, 5)))
    pool = [net.x(*shape), net.x(*shape[-2:]), net.c(*shape)]
    for name in steps:
        picked = pool[-1 - min(int(random.geometric(0.5)) - 1, len(pool) - 1)]
        made = STEPS[name](net, picked, pool, random)
        if made is not None and 0 < made.type.elems <= LIMIT_ELEMS:
            pool.append(made)
    outputs = {0: pool[-1], 1: pool[-1 - int(random.integers(len(pool)))]}
    outputs[2] = pool[int(random.integers(len(pool)))]
    return net.graph(*(outputs[i] for i in range(draw(st.integers(1, 3)))))


def _unary(net, x, pool, random):
    return net.b.unary(str(random.choice(["neg", "tanh", "abs", "sigmoid", "sin"])), x)


def _binary(net, x, pool, random):
    same = [y for y in pool if y.shape == x.shape or y.shape == x.shape[-y.type.rank :]]
    y = same[int(random.integers(len(same)))]
    return net.b.binary(str(random.choice(["add", "sub", "mul", "max", "min"])), x, y)


def _scalar(net, x, pool, random):
    value = net.b.constant(float(random.choice([0.5, -2.0, 1.5])), DType.F32)
    return net.b.binary(str(random.choice(["add", "mul", "max"])), value, x)


def _channel(net, x, pool, random):
    return net.b.binary("mul", x, net.c(*x.shape[-1:]))


def _select(net, x, pool, random):
    positive = net.b.compare("gt", x, net.b.constant(0.0, DType.F32))
    y = pool[0] if pool[0].shape == x.shape else net.c(*x.shape)
    return net.b.select(positive, x, y)


def _axes(x, random):
    return sorted(int(axis) for axis in np.nonzero(random.random(x.type.rank) < 0.5)[0])


def _reduce(net, x, pool, random):
    axes, keep = _axes(x, random), bool(random.random() < 0.5)
    return net.b.reduce(str(random.choice(["sum", "max", "min"])), x, axes, keep)


def _rows(net, x, pool, random):
    if x.type.rank == 0:
        return None
    axes = list(range(int(random.integers(x.type.rank)), x.type.rank))
    total = net.b.reduce("sum", net.b.unary("exp", net.b.unary("tanh", x)), axes, True)
    return net.b.binary("div", x, total)


def _transpose(net, x, pool, random):
    return net.b.transpose(x, tuple(int(a) for a in random.permutation(x.type.rank)))


def _slice(net, x, pool, random):
    box = []
    for dim in x.shape:
        step = int(random.choice([1, 1, 2, -1]))
        start = int(random.integers((dim + 1) // 2))
        start = dim - 1 - start if step < 0 else start
        room = (dim - 1 - start if step > 0 else start) // abs(step)
        box.append((start, int(random.integers(room + 1)) + 1, step))
    if not box:
        return None
    return net.b.apply(ops.Slice(*(tuple(field) for field in zip(*box, strict=True))), x)


def _reshape(net, x, pool, random):
    flat = x.type.elems
    divisors = [n for n in range(1, flat + 1) if flat % n == 0]
    first = int(random.choice(divisors))
    return net.b.reshape(x, (first, flat // first) if random.random() < 0.7 else x.shape[::-1])


def _pad(net, x, pool, random):
    low, high = (tuple(int(n) for n in random.integers(0, 3, x.type.rank)) for _ in range(2))
    return net.b.apply(ops.Pad(low, high, float(random.choice([0.0, 1.5]))), x)


def _concat(net, x, pool, random):
    if x.type.rank == 0:
        return None
    axis = int(random.integers(x.type.rank))
    rest = x.shape[:axis] + x.shape[axis + 1 :]
    fitting = [
        y
        for y in pool
        if y.type.rank == x.type.rank and y.shape[:axis] + y.shape[axis + 1 :] == rest
    ]
    chosen = [fitting[int(random.integers(len(fitting)))] for _ in range(random.integers(1, 4))]
    return net.b.apply(ops.Concat(axis), x, *chosen)


def _dot(net, x, pool, random):
    if x.type.rank < 2:
        return None
    *batch, _, inner = x.shape
    if random.random() < 0.4:
        y = net.b.transpose(x, (*range(x.type.rank - 2), x.type.rank - 1, x.type.rank - 2))
    else:
        columns = int(random.integers(1, 9))
        y = net.b.broadcast(net.c(inner, columns), (*batch, inner, columns))
    return net.b.apply(ops.Dot(), x, y)


def _conv(net, x, pool, random):
    spatial = x.type.rank - 2
    if not 1 <= spatial <= 3:
        return None
    last = bool(random.random() < 0.5)
    channels = x.shape[-1] if last else x.shape[1]
    sizes = x.shape[1:-1] if last else x.shape[2:]
    window = tuple(int(random.integers(1, min(dim, 3) + 1)) for dim in sizes)
    groups = channels if random.random() < 0.4 else 1
    ones, pads = (1,) * spatial, tuple(int(n) for n in random.integers(0, 2, spatial))
    outputs = groups * int(random.integers(1, 4))
    op = ops.Conv(ones, pads, ones, ones, groups, last)
    return net.b.apply(op, x, net.c(outputs, channels // groups, *window))


def _window(net, x, pool, random):
    rank = x.type.rank
    if rank == 0:
        return None
    window = tuple(int(random.integers(1, min(dim, 3) + 1)) for dim in x.shape)
    strides = tuple(int(n) for n in random.integers(1, 3, rank))
    zeros, ones = (0,) * rank, (1,) * rank
    fn = str(random.choice(["max", "sum"]))
    return net.b.apply(ops.ReduceWindow(fn, window, strides, zeros, zeros, ones), x)


STEPS = {
    "binary": _binary,
    "channel": _channel,
    "concat": _concat,
    "conv": _conv,
    "dot": _dot,
    "pad": _pad,
    "reduce": _reduce,
    "reshape": _reshape,
    "rows": _rows,
    "scalar": _scalar,
    "select": _select,
    "slice": _slice,
    "transpose": _transpose,
    "unary": _unary,
    "window": _window,
}
