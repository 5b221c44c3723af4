"""Random graphs with branches and loops inside each other: a seed goes in, a graph comes out.

All tensors are int32, whose arithmetic is exact, so that every way of computing gives the same
bytes and takes the same branches.
"""

import numpy as np
from graph_runs import Net

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.types import DType, TensorType

LIMIT_ELEMS = 60
I32, I64, BOOL = DType.I32, DType.I64, DType.BOOL


def nested_net(seed, steps=6, depth=2):
    """A graph over two int32 inputs and two counts (0 to 4) with one to three outputs."""
    random = np.random.default_rng(seed)
    net = Net(seed)
    shape = tuple(int(n) for n in random.integers(1, 5, random.integers(1, 4)))
    counts = [net.b.parameter(f"n{i}", TensorType(I64, ())) for i in range(2)]
    pool = [net.x(*shape, dtype=I32), net.x(int(random.integers(1, 5)), 3, dtype=I32)]
    grow(net, pool, counts, random, steps, depth)
    picked = [pool[-1], *(pool[int(random.integers(len(pool)))] for _ in range(2))]
    return net.graph(*picked[: int(random.integers(1, 4))])


def nested_inputs(graph, seed):
    """Small numbers for the inputs of a graph of ``nested_net``."""
    random = np.random.default_rng(seed)
    return {
        node.op.name: random.integers(0, 5, node.shape)
        if node.type.dtype is I64
        else random.integers(-9, 10, node.shape).astype(np.int32)
        for node in graph.inputs
    }


def grow(net, pool, counts, random, steps, depth):
    """Adds ``steps`` results, of which some are control flow if ``depth`` allows, to ``pool``."""
    for _ in range(steps):
        kinds = [*STEPS, *[_branch, _repeat] * (2 * (depth > 0))]
        kind = kinds[int(random.integers(len(kinds)))]
        x = pool[-1 - min(int(random.geometric(0.5)) - 1, len(pool) - 1)]
        if kind in STEPS:
            made = [kind(net, x, pool, random)]
        else:
            made = kind(net, x, pool, counts, random, depth)
        pool += [node for node in made if node is not None and 0 < node.type.elems <= LIMIT_ELEMS]


def _some(pool, random, most):
    return [pool[int(random.integers(len(pool)))] for _ in range(random.integers(most + 1))]


def _fitting(pool, type_, random):
    """A node of ``type_``: mostly the last one."""
    found = [node for node in pool if node.type == type_]
    return found[-1] if random.random() < 0.6 else found[int(random.integers(len(found)))]


def _is_positive(b, x):
    total = b.reduce("sum", x, range(x.type.rank), False)
    return b.compare("gt", total, b.constant(0, I32))


def _enter(net, types):
    """A net for a nested graph, and its parameters."""
    inner = Net(net._next() * 1000)
    return inner, [inner.b.parameter(f"p{i}", type_) for i, type_ in enumerate(types)]


def _branch(net, x, pool, counts, random, depth):
    values = [x, *_some(pool, random, 2)]
    wanted = [values[int(random.integers(len(values)))].type for _ in range(random.integers(1, 4))]
    graphs = []
    for _ in range(2):
        inner, (*params, n) = _enter(net, [*(v.type for v in values), counts[0].type])
        inside = list(params)
        grow(inner, inside, [n], random, int(random.integers(4)), depth - 1)
        graphs.append(inner.graph(*(_fitting(inside, type_, random) for type_ in wanted)))
    condition = _is_positive(net.b, pool[int(random.integers(len(pool)))])
    if random.random() < 0.1:
        condition = net.b.constant(np.asarray(random.random() < 0.5))
    made = net.b.apply(ops.Branch(*graphs), condition, *values, counts[0])
    return [net.b.apply(ops.Item(i), made) for i in range(len(wanted)) if random.random() < 0.8]


def _repeat(net, x, pool, counts, random, depth):
    b = net.b
    carried, captured = [x, *_some(pool, random, 2)], _some(pool, random, 1)
    if random.random() < 0.3:
        captured.append(net.c(*x.shape, dtype=I32))
    scanned = [node for node in _some(pool, random, 2) if node.type.rank]
    scanned = [node for node in scanned if node.shape[0] == scanned[0].shape[0]]
    limit = scanned[0].shape[0] if scanned else int(random.integers(1, 5))
    count = TensorType(I64, ())
    types = [count, *(v.type for v in carried)]
    types += [TensorType(I32, node.shape[1:]) for node in scanned]
    types += [*(v.type for v in captured), count]
    inner, (index, *params, n) = _enter(net, types)
    inside = [*params, inner.b.cast(index, I32)]
    grow(inner, inside, [n, index], random, int(random.integers(5)), depth - 1)
    going = inner.b.constant(np.asarray(True))
    if random.random() < 0.4:
        going = _is_positive(inner.b, inside[-1])
    state = [_fitting(inside, value.type, random) for value in carried]
    stacks = _some(inside, random, 2)
    body = inner.graph(going, *state, *stacks)
    trips = b.constant(int(random.integers(5)), I64) if random.random() < 0.4 else counts[-1]
    start = b.constant(np.asarray(True)) if random.random() < 0.7 else _is_positive(b, x)
    if not scanned and not stacks and random.random() < 0.5:
        limit = ops.UNLIMITED
    op = ops.Repeat(body, len(carried), len(scanned), limit)
    made = b.apply(op, trips, start, *carried, *scanned, *captured, counts[0])
    items = [b.apply(ops.Item(i), made) for i in range(len(made.type.items))]
    items[0] = b.cast(items[0], I32)
    return [item for item in items if random.random() < 0.8]


def _unary(net, x, pool, random):
    return net.b.unary(str(random.choice(["neg", "abs"])), x)


def _binary(net, x, pool, random):
    same = [y for y in pool if y.shape == x.shape or y.shape == x.shape[-y.type.rank :]]
    y = same[int(random.integers(len(same)))]
    return net.b.binary(str(random.choice(["add", "sub", "mul", "max"])), x, y)


def _constant(net, x, pool, random):
    return net.b.binary("add", x, net.c(*x.shape[-1:], dtype=I32))


def _transpose(net, x, pool, random):
    return net.b.transpose(x, tuple(int(a) for a in random.permutation(x.type.rank)))


def _slice(net, x, pool, random):
    if not x.type.rank:
        return None
    counts = tuple(int(random.integers(1, dim + 1)) for dim in x.shape)
    starts = tuple(dim - n for dim, n in zip(x.shape, counts, strict=True))
    return net.b.apply(ops.Slice(starts, counts, (1,) * x.type.rank), x)


def _reshape(net, x, pool, random):
    return net.b.reshape(x, (x.type.elems,) if random.random() < 0.5 else (1, *x.shape[::-1]))


def _pad(net, x, pool, random):
    low, high = (tuple(int(n) for n in random.integers(0, 2, x.type.rank)) for _ in range(2))
    return net.b.apply(ops.Pad(low, high, 1.0), x)


def _concat(net, x, pool, random):
    fitting = [y for y in pool if x.type.rank and y.shape[1:] == x.shape[1:] and y.type.rank]
    chosen = fitting[int(random.integers(len(fitting)))] if fitting else x
    return net.b.apply(ops.Concat(0), x, chosen) if x.type.rank else None


def _reduce(net, x, pool, random):
    axes = [int(axis) for axis in np.nonzero(random.random(x.type.rank) < 0.5)[0]]
    return net.b.reduce(str(random.choice(["sum", "max"])), x, axes, bool(random.random() < 0.5))


def _dot(net, x, pool, random):
    if x.type.rank != 2:
        return None
    return net.b.apply(ops.Dot(), x, net.c(x.shape[1], int(random.integers(1, 6)), dtype=I32))


STEPS = [
    *(_unary, _binary, _binary, _constant, _transpose, _slice),
    *(_reshape, _pad, _concat, _reduce, _dot),
]


def nested(name, types, make):
    """The graph over parameters of ``types`` whose outputs ``make(builder, *parameters)`` gives."""
    b = Builder()
    params = [b.parameter(f"p{i}", type_) for i, type_ in enumerate(types)]
    return b.finish(name, [(f"o{i}", node) for i, node in enumerate(make(b, *params))])


def bounded_net():
    """table[index] added up ``count`` times: the index must be in bounds, no sum above 4."""
    b = (net := Net(0)).b
    table = net.x(8, 16)
    index, count = net.x(dtype=DType.I64), net.x(dtype=DType.I64)
    below = b.compare("lt", index, b.constant(8, DType.I64))
    b.check(below, "the index is beyond the table")
    row = b.unary("tanh", b.apply(ops.Gather(0), table, index))
    scalar, wide = TensorType(DType.I64, ()), TensorType(DType.F32, (16,))

    def body(b, i, total, row):
        total = b.binary("add", total, row)
        most = b.reduce("max", total, [0], False)
        b.check(b.compare("lt", most, b.constant(4.0, DType.F32)), "the sum is too large")
        return [b.constant(np.asarray(True)), total]

    loop = ops.Repeat(nested("body", [scalar, wide, wide], body), 1, 0, ops.UNLIMITED)
    start = b.constant(np.asarray(True))
    made = b.apply(loop, count, start, b.constant(np.zeros(16, np.float32)), row)
    return net.graph(b.apply(ops.Item(1), made))
