"""Random small graphs and comparisons for the pass tests: a seed goes in, a graph comes out."""

import numpy as np
from hypothesis import strategies as st

from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.types import DType, TensorType
from aotc.graph.verify import verify_graph


def f32(*shape):
    return TensorType(DType.F32, shape)


def inputs_of(graph, seed=0):
    """Values near 1, so that no chain of operators overflows."""
    rng = np.random.default_rng(seed)
    return {
        node.op.name: rng.uniform(-2, 2, node.shape).astype(node.type.dtype.numpy)
        for node in graph.inputs
    }


def assert_same_values(before, after, seed=0, rtol=2e-5):
    verify_graph(after)
    assert [x.op.name for x in before.inputs] == [x.op.name for x in after.inputs]
    values = inputs_of(before, seed)
    want, have = evaluate(before, values), evaluate(after, values)
    assert list(want) == list(have)
    for name, array in want.items():
        assert array.dtype == have[name].dtype and array.shape == have[name].shape
        finite = np.abs(array[np.isfinite(array)]) if array.dtype.kind == "f" else [1]
        scale = float(np.max(finite, initial=1e-3))
        np.testing.assert_allclose(have[name], array, rtol=rtol, atol=rtol * scale)


def count(graph, kind):
    """How many nodes of ``kind`` the graph has that read something other than constants."""
    return sum(
        isinstance(node.op, kind) and any(x.data is None for x in node.inputs)
        for node in graph.nodes()
    )


def _steps():
    """The random choices of each step, resolved against the values made so far."""
    return st.lists(
        st.tuples(st.integers(0, 19), st.integers(0, 11), st.integers(0, 2**16)),
        min_size=1, max_size=12,
    )  # fmt: skip


@st.composite
def graphs(draw):
    """A graph over one input [N, C, *spatial] with one or two outputs."""
    builder = Builder()
    batch = draw(st.sampled_from([1, 1, 2]))
    spatial = draw(st.sampled_from([(4, 3), (5, 5), (6,), (1, 1), (3, 2, 2)]))
    channels = draw(st.sampled_from([1, 2, 4, 6]))
    values = [builder.parameter("x", f32(batch, channels, *spatial))]
    for kind, pick, seed in draw(_steps()):
        made = _step(builder, values, kind, pick, np.random.default_rng(seed))
        if made is not None and 0 not in made.shape and made.type.elems < 3000:
            values.append(made)
    outputs = [("y", values[-1])]
    if draw(st.booleans()):
        outputs.append(("z", values[len(values) // 2]))
    return builder.finish("random", outputs)


def _step(b, values, kind, pick, rng):
    x = values[-1 - pick % min(len(values), 4)]
    rank, shape = x.type.rank, x.shape
    axis = int(rng.integers(rank)) if rank else 0
    if kind == 0:
        return b.unary(("neg", "tanh", "abs", "sigmoid")[pick % 4], x)
    if kind in (1, 2):
        number = (0.0, 1.0, 2.0, 0.5, -1.0, 1.7)[pick % 6]
        fn = ("add", "mul", "sub", "div", "max")[int(rng.integers(5))]
        if fn == "div" and number == 0:
            number = 4.0
        constant = b.scalar_like(number, x)
        swapped = rng.random() < 0.2 and fn != "div"
        return b.binary(fn, *((constant, x) if swapped else (x, constant)))
    if kind in (3, 4) and rank >= 2:
        along = 1 if rng.random() < 0.7 else axis
        vector = rng.uniform(0.5, 1.5, shape[along]).astype(np.float32)
        vector = vector.reshape([-1 if i == along else 1 for i in range(rank)])
        return b.binary(("add", "mul", "sub", "div")[pick % 4], x, b.constant(vector))
    if kind == 5:
        fitting = [v for v in values if v.shape == shape]
        return b.binary(("add", "mul", "max", "min")[pick % 4], x, fitting[seed_of(rng, fitting)])
    if kind in (6, 7, 8) and 3 <= rank <= 5:
        return _conv(b, x, rng)
    if kind == 9 and rank:
        perm = tuple(int(i) for i in rng.permutation(rank))
        if rank >= 3 and rng.random() < 0.5:
            perm = ((0, rank - 1, *range(1, rank - 1)), (0, *range(2, rank), 1))[pick % 2]
        return b.transpose(x, perm)
    if kind in (10, 11):
        return _reshape(b, x, rng)
    if kind == 12 and rank:
        starts = tuple(int(rng.integers(d)) for d in shape)
        counts = tuple(int(rng.integers(1, d - s + 1)) for d, s in zip(shape, starts, strict=True))
        return b.apply(ops.Slice(starts, counts, (1,) * rank), x)
    if kind == 13 and rank:
        low = tuple(int(i) for i in rng.integers(0, 2, rank))
        high = tuple(int(i) for i in rng.integers(0, 2, rank))
        return b.apply(ops.Pad(low, high, float(pick % 2)), x)
    if kind == 14 and rank:
        fitting = [v for v in values if v.shape == shape]
        return b.apply(ops.Concat(axis), x, fitting[seed_of(rng, fitting)])
    if kind == 15 and rank:
        y = b.reduce(("sum", "max", "min")[pick % 3], x, [axis], keep=rng.random() < 0.7)
        return b.broadcast(y, shape) if y.type.rank == rank and rng.random() < 0.5 else y
    if kind == 16 and rank and x.shape[axis] > 1:
        window = tuple(2 if i == axis else 1 for i in range(rank))
        one, low = (1,) * rank, tuple(int(i) for i in rng.integers(0, 2, rank))
        low = tuple(min(a, w - 1) for a, w in zip(low, window, strict=True))
        fn = ("sum", "max")[pick % 2]
        return b.apply(ops.ReduceWindow(fn, window, window, low, (0,) * rank, one), x)
    if kind == 17 and rank:
        indices = np.array([0, pick % shape[axis], -1], np.int64)[: 1 + pick % 3]
        indices = indices.reshape(()) if indices.size == 1 and pick % 2 else indices
        return b.apply(ops.Gather(axis), x, b.constant(indices))
    if kind == 18 and rank >= 2:
        weights = rng.uniform(-1, 1, (shape[-1], 3)).astype(np.float32)
        rhs = b.broadcast(b.constant(weights), (*shape[:-2], shape[-1], 3))
        return b.apply(ops.Dot(), x, rhs)
    if kind == 19 and rank:
        stretched = tuple(3 if d == 1 and i == axis else d for i, d in enumerate(shape))
        return b.broadcast(x, stretched)
    return None


def seed_of(rng, options):
    return int(rng.integers(len(options)))


def _conv(b, x, rng):
    channels, spatial = x.shape[1], x.shape[2:]
    groups = channels if rng.random() < 0.3 else 1
    window = tuple(int(rng.integers(1, min(d, 3) + 1)) for d in spatial)
    out = groups * int(rng.integers(1, 3))
    weights = rng.uniform(-1, 1, (out, channels // groups, *window)).astype(np.float32)
    low = tuple(int(rng.integers(0, w)) for w in window)
    high = tuple(int(rng.integers(0, w)) for w in window)
    one = (1,) * len(window)
    strides = tuple(int(s) for s in rng.integers(1, 3, len(window)))
    return b.apply(ops.Conv(strides, low, high, one, groups, False), x, b.constant(weights))


def _reshape(b, x, rng):
    dims = list(x.shape)
    for _ in range(int(rng.integers(1, 3))):
        at = int(rng.integers(len(dims) + 1))
        change = rng.integers(4)
        if change == 0 and len(dims) < 6:
            dims.insert(at, 1)
        elif change == 1 and len(dims) >= 2:
            at = min(at, len(dims) - 2)
            dims[at : at + 2] = [dims[at] * dims[at + 1]]
        elif change == 2 and at < len(dims) and dims[at] % 2 == 0 and len(dims) < 6:
            dims[at : at + 1] = [2, dims[at] // 2]
        elif change == 3 and 1 in dims:
            dims.remove(1)
    return b.reshape(x, tuple(dims))


def show(node):
    """The expression of a node on one line, constants of one value as their number."""
    if node.data is not None:
        same = node.data.size and (node.data == node.data.reshape(-1)[0]).all()
        return f"{node.data.reshape(-1)[0]:g}" if same else f"const{list(node.shape)}"
    operands = ", ".join(show(operand) for operand in node.inputs)
    match node.op:
        case ops.Parameter(name):
            return name
        case ops.Unary(fn) | ops.Binary(fn) | ops.Compare(fn):
            return f"{fn}({operands})"
        case ops.Broadcast(shape) if node.inputs[0].data is None:
            return f"broadcast{list(shape)}({operands})"
        case ops.Broadcast(shape):
            return operands
        case ops.Reshape(shape):
            return f"reshape{list(shape)}({operands})"
        case ops.Transpose(perm):
            return f"transpose{list(perm)}({operands})"
        case ops.Slice(starts, counts, steps):
            return f"slice{list(starts)}{list(counts)}{list(steps)}({operands})"
        case ops.Pad(low, high, value):
            return f"pad{list(low)}{list(high)}({operands}, {value:g})"
        case ops.Cast(dtype):
            return f"{dtype.value}({operands})"
    return f"{node.op.mnemonic}({operands})"


def shown(graph):
    """The expressions of all outputs, by position."""
    return [show(node) for _, node in graph.outputs]
