"""Graphs over a batch against a loop in Python over its samples."""

import numpy as np
import pytest
from gradient_checks import Sketch, drawn
from graph_runs import for_all, inputs_of
from hypothesis import strategies as st
from random_nets import nets
from test_control_derivatives import branching, looping
from test_derivatives import CASES

from aotc.autodiff.batch import vmap
from aotc.autodiff.transform import grad
from aotc.driver import compile
from aotc.errors import UnsupportedError, UsageError
from aotc.graph import ops
from aotc.graph.eval import evaluate
from aotc.graph.types import DType, TensorType
from aotc.graph.verify import verify_graph

SIZE = 3


def values_for(graph, axes, make=drawn):
    """The values for the mapped graph, and those of each sample."""
    samples = [make(graph, 10 * at) for at in range(SIZE)]
    whole = {}
    for node, axis in zip(graph.inputs, axes, strict=True):
        name = node.op.name
        if axis is None:
            for sample in samples:
                sample[name] = samples[0][name]
            whole[name] = samples[0][name]
        else:
            whole[name] = np.stack([sample[name] for sample in samples], axis)
    return whole, samples


def check(graph, axes, make=drawn, rtol=1e-12):
    mapped = vmap(graph, SIZE, axes)
    verify_graph(mapped)
    whole, samples = values_for(graph, axes, make)
    found = evaluate(mapped, whole)
    each = [evaluate(graph, sample) for sample in samples]
    for name, value in found.items():
        right = np.stack([one[name] for one in each])
        assert value.dtype == right.dtype
        np.testing.assert_allclose(value, right, rtol=rtol, atol=rtol)


def all_choices(graph):
    """Each input batched or not, at least one of them; the axis varies."""
    count = len(graph.inputs)
    for mask in range(1, 2**count):
        yield [
            min(at % 2, node.type.rank) if mask >> at & 1 else None
            for at, node in enumerate(graph.inputs)
        ]


@pytest.mark.parametrize("name", sorted(CASES))
def test_primitives(name):
    s = Sketch()
    graph = s.graph(CASES[name](s))
    for axes in all_choices(graph):
        check(graph, axes)


def _ranks(s, x):
    yield s.b.apply(ops.ArgReduce("max", 1, False), x)
    yield s.b.apply(ops.TopK(2, 1, True), x)
    yield s.b.compare("lt", x, s.b.constant(0.0, DType.F64))
    yield s.b.apply(ops.Bitcast(DType.I64), x)
    yield s.b.binary("add", x, s.b.apply(ops.Iota((2, 4), 1, DType.F64)))


def test_ranks_and_bits():
    s = Sketch()
    check(s.graph(*_ranks(s, s.x(2, 4))), [1])


INDEXED = {
    "gather": lambda s, i: s.b.apply(ops.Gather(1), s.x(2, 2, 3), i),
    "gather-elements": lambda s, i: s.b.apply(ops.GatherElements(0), s.x(2, 2), i),
    "gather-nd": lambda s, i: s.b.apply(ops.GatherND(0), s.x(2, 2, 3), i),
    "gather-nd-batch": lambda s, i: s.b.apply(ops.GatherND(1), s.x(2, 2, 2, 3), i),
    "scatter-nd": lambda s, i: s.b.apply(ops.ScatterND("add"), s.x(2, 2), i, s.x(2)),
    "scatter": lambda s, i: s.b.apply(ops.ScatterElements(1, "set"), s.x(2, 2), i, s.x(2, 2)),
}


@pytest.mark.parametrize("name", sorted(INDEXED))
def test_batches_of_indices(name):
    s = Sketch()
    graph = s.graph(INDEXED[name](s, s.x(2, 2, dtype=DType.I64)))
    for axes in all_choices(graph):
        check(graph, axes)


@pytest.mark.parametrize("channels_last", [False, True])
def test_batches_of_filters(channels_last):
    s = Sketch()
    op = ops.Conv((1, 2), (1, 0), (0, 1), (1, 1), 2, channels_last)
    data = s.x(2, 4, 5, 4)
    graph = s.graph(s.b.apply(op, data, s.x(6, 2, 2, 3)))
    for axes in all_choices(graph):
        check(graph, axes)


def test_one_matrix_for_all_rows():
    s = Sketch()
    graph = s.graph(s.b.apply(ops.Dot(), s.x(2, 3), s.x(3, 4)))
    for axes in all_choices(graph):
        check(graph, axes)


def test_branches_and_loops():
    s = Sketch()
    graph = s.graph(branching(s))
    for axes in all_choices(graph):
        check(graph, axes)
    s = Sketch()
    graph = s.graph(*looping(s, 3))
    for axes in all_choices(graph):
        check(graph, axes)


def _numbers(graph, seed):
    """Values whose integers are 0 to 4."""
    feeds = drawn(graph, seed)
    rng = np.random.default_rng(seed)
    return {
        name: rng.integers(0, 5, x.shape) if x.dtype.kind == "i" else x for name, x in feeds.items()
    }


def test_loops_that_samples_leave_at_different_iterations():
    s = Sketch()
    graph = s.graph(*looping(s, s.x(dtype=DType.I64)))
    for axes in all_choices(graph):
        check(graph, axes, _numbers)
    s = Sketch()
    graph = s.graph(*looping(s, s.x(dtype=DType.I64), condition=False, bound=0.7))
    for axes in all_choices(graph):
        check(graph, axes, _numbers)


def test_the_count_of_iterations_of_each_sample():
    s, t = Sketch(), Sketch()
    t.x(dtype=DType.I64)
    n = t.x(dtype=DType.I64)
    lower = t.b.binary("sub", n, t.b.constant(1, DType.I64))
    body = t.graph(t.b.compare("gt", lower, t.b.constant(0, DType.I64)), lower)
    n, start = s.x(dtype=DType.I64), s.x(dtype=DType.BOOL)
    many = s.b.constant(ops.UNLIMITED, DType.I64)
    made = s.b.apply(ops.Repeat(body, 1, 0, ops.UNLIMITED), many, start, n)
    graph = vmap(s.graph(s.b.apply(ops.Item(0), made), s.b.apply(ops.Item(1), made)), 3)
    feeds = {"x0": np.array([1, 4, 2]), "x1": np.array([True, True, False])}
    found = evaluate(graph, feeds)
    np.testing.assert_array_equal(found["y0"], [1, 4, 0])
    np.testing.assert_array_equal(found["y1"], [0, 0, 2])
    for name, value in compile(graph).run_dict(feeds).items():
        np.testing.assert_array_equal(value, found[name])


def test_loops_that_may_fail_are_refused_where_samples_part():
    s, t = Sketch(), Sketch()
    t.x(dtype=DType.I64)
    x = t.x(2)
    small = t.b.compare("lt", t.b.reduce("max", x, [0], False), t.b.constant(9.0, DType.F64))
    t.b.check(small, "too large")
    body = t.graph(t.b.constant(True, DType.BOOL), t.b.binary("add", x, x))
    start = s.b.constant(True, DType.BOOL)
    loop = ops.Repeat(body, 1, 0, ops.UNLIMITED)
    graph = s.graph(s.b.apply(ops.Item(1), s.b.apply(loop, s.x(dtype=DType.I64), start, s.x(2))))
    vmap(graph, SIZE, [None, 0])
    with pytest.raises(UnsupportedError, match="different iterations"):
        vmap(graph, SIZE, [0, None])


def _checked(flag_is_batched):
    """A branch, one side of which must not see a negative sum; and that check outside."""
    inner = [Sketch(), Sketch()]
    values = [t.x(2) for t in inner]
    total = inner[0].b.reduce("sum", values[0], [0], False)
    positive = inner[0].b.compare("gt", total, inner[0].b.constant(0.0, DType.F64))
    inner[0].b.check(positive, "negative inside")
    branch = ops.Branch(*(t.graph(x) for t, x in zip(inner, values, strict=True)))
    s = Sketch()
    condition, x = s.x(dtype=DType.BOOL), s.x(2)
    small = s.b.compare("lt", x, s.b.constant(9.0, DType.F64))
    s.b.check(s.b.reduce("and", small, [0], False), "too large")
    graph = s.graph(s.b.apply(ops.Item(0), s.b.apply(branch, condition, x)))
    return vmap(graph, SIZE, [0 if flag_is_batched else None, 0])


def test_what_must_hold_must_hold_for_every_sample():
    with pytest.raises(UnsupportedError, match="may fail"):
        _checked(True)
    mapped = _checked(False)
    feeds = {"x0": np.asarray(False), "x1": np.ones((SIZE, 2))}
    evaluate(mapped, feeds)
    feeds["x1"][1, 1] = 10
    with pytest.raises(UsageError, match="too large"):
        evaluate(mapped, feeds)


def test_axes_that_do_not_fit_are_refused():
    s = Sketch()
    graph = s.graph(s.b.unary("neg", s.x(2)))
    for axes in ([0, 0], 2, -1):
        with pytest.raises(UsageError):
            vmap(graph, SIZE, axes)


def test_gradients_of_each_sample():
    s = Sketch()
    x, w = s.x(4), s.x(4)
    product = s.b.unary("tanh", s.b.reduce("sum", s.b.binary("mul", x, w), [0], False))
    each = grad(s.graph(product), inputs=["x1"])
    check(each, [0, None])
    assert vmap(each, SIZE, [0, None]).outputs[0][1].type == TensorType(DType.F64, (SIZE, 4))


@for_all(st.tuples(nets(most_steps=6), st.integers(1, 3)), quick=8, slow=1000)
def test_random_graphs(case):
    net, mask = case
    axes = [0 if mask >> at & 1 else None for at in range(len(net.inputs))]
    check(net, axes, inputs_of, rtol=1e-3)
