"""Derivatives through branches and loops, of random graphs, of derivatives, and as machine code."""

import numpy as np
import pytest
from gradient_checks import Sketch, check, drawn, floats_of
from graph_runs import assert_close, for_all, inputs_of
from hypothesis import assume
from hypothesis import strategies as st
from random_nets import nets

from aotc.autodiff.batch import vmap
from aotc.autodiff.emit import Emit
from aotc.autodiff.engine import cut, inline, pullback
from aotc.autodiff.transform import grad, jvp, value_and_grad, vjp
from aotc.driver import compile
from aotc.errors import UnsupportedError, UsageError
from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.types import DType, TensorType


def branching(s):
    """tanh(a) * b in one branch, a + sum(b) in the other."""
    inner = [Sketch(), Sketch()]
    pairs = [(t.x(2, 3), t.x(3)) for t in inner]
    then, other = inner
    first = then.b.binary("mul", then.b.unary("tanh", pairs[0][0]), pairs[0][1])
    total = other.b.reduce("sum", pairs[1][1], [0], False)
    second = other.b.binary("add", pairs[1][0], total)
    branch = ops.Branch(then.graph(first), other.graph(second))
    condition = s.x(dtype=DType.BOOL)
    made = s.b.apply(branch, condition, s.x(2, 3), s.x(3))
    return s.b.apply(ops.Item(0), made)


@pytest.mark.parametrize("flag", [True, False])
def test_a_branch(flag):
    s = Sketch()
    graph = s.graph(s.b.unary("sin", branching(s)))
    check(graph, {**drawn(graph, 1), "x0": np.asarray(flag)})


def loop_body(condition=True, bound=1e9):
    """h' = tanh(W h + row) * (1 + i); also an integer that counts, and h' * row as a stack."""
    t = Sketch()
    index, h, n = t.x(dtype=DType.I64), t.x(3), t.x(dtype=DType.I64)
    row, w = t.x(3), t.x(3, 3)
    column = t.b.reshape(h, (3, 1))
    mixed = t.b.reshape(t.b.apply(ops.Dot(), w, column), (3,))
    moved = t.b.unary("tanh", t.b.binary("add", mixed, row))
    scale = t.b.cast(t.b.binary("add", index, t.b.constant(1, DType.I64)), DType.F64)
    after = t.b.binary("mul", moved, scale)
    more = t.b.constant(True, DType.BOOL)
    if not condition:
        total = t.b.reduce("sum", after, [0], False)
        more = t.b.compare("lt", total, t.b.constant(bound, DType.F64))
    counted = t.b.binary("add", n, t.b.constant(1, DType.I64))
    return t.graph(more, after, counted, t.b.binary("mul", after, row))


def looping(s, trips, condition=True, limit=4, bound=1e9):
    """The final h and the stack."""
    start = s.b.constant(True, DType.BOOL)
    count = s.b.constant(trips, DType.I64) if isinstance(trips, int) else trips
    made = s.b.apply(
        ops.Repeat(loop_body(condition, bound), 2, 1, limit),
        *(count, start, s.x(3), s.b.constant(0, DType.I64), s.x(limit, 3), s.x(3, 3)),
    )
    return s.b.apply(ops.Item(1), made), s.b.apply(ops.Item(3), made)


@pytest.mark.parametrize("trips", [0, 1, 3, 4, 9])
def test_a_loop_with_fixed_trips(trips):
    s = Sketch()
    check(s.graph(*looping(s, trips)), seed=trips)


def test_a_loop_that_keeps_nothing():
    t, s = Sketch(), Sketch()
    t.x(dtype=DType.I64)
    x = t.x(2)
    body = t.graph(t.b.constant(True, DType.BOOL), t.b.binary("mul", x, t.b.unary("cos", x)))
    count, start = s.b.constant(5, DType.I64), s.b.constant(True, DType.BOOL)
    made = s.b.apply(ops.Repeat(body, 1, 0, ops.UNLIMITED), count, start, s.x(2))
    graph = s.graph(s.b.apply(ops.Item(1), made))
    check(graph)
    check(vjp(graph))


def test_forward_mode_takes_any_loop_and_reverse_mode_says_why_not():
    for condition in (True, False):
        s = Sketch()
        count = s.b.constant(3, DType.I64) if not condition else s.x(dtype=DType.I64)
        graph = s.graph(*looping(s, count, condition))
        feeds = drawn(graph, 4)
        if condition:
            feeds["x0"] = np.asarray(3)
        check(graph, feeds, reverse=False)
        with pytest.raises(UnsupportedError, match="iterations is fixed") as caught:
            vjp(graph)
        assert "jvp" in caught.value.remedy


def _nested(s):
    """A loop of four rounds, each of which takes a loop of two or leaves the vector as it is."""
    long, short, t = Sketch(), Sketch(), Sketch()
    again, _ = looping(long, 2)
    kept, *_ = [short.x(*shape) for shape in ((3,), (4, 3), (3, 3))]
    branch = ops.Branch(long.graph(again), short.graph(kept))
    index, h, rows, w = t.x(dtype=DType.I64), t.x(3), t.x(4, 3), t.x(3, 3)
    odd = t.b.compare("eq", t.b.binary("and", index, t.b.constant(1, DType.I64)),
                      t.b.constant(1, DType.I64))  # fmt: skip
    after = t.b.apply(ops.Item(0), t.b.apply(branch, odd, h, rows, w))
    body = t.graph(t.b.constant(True, DType.BOOL), t.b.unary("sin", after))
    count, start = s.b.constant(4, DType.I64), s.b.constant(True, DType.BOOL)
    loop = ops.Repeat(body, 1, 0, ops.UNLIMITED)
    made = s.b.apply(loop, count, start, s.x(3), s.x(4, 3), s.x(3, 3))
    return s.graph(s.b.apply(ops.Item(1), made))


def test_loops_in_branches_in_loops():
    graph = _nested(Sketch())
    check(graph)
    check(vjp(graph))


@pytest.mark.slow
def test_loops_in_branches_in_loops_as_machine_code():
    derived = vmap(vjp(_nested(Sketch())), 2)
    feeds = drawn(derived, 1)
    found = _compiled(derived, feeds)
    for name, value in evaluate(derived, feeds).items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)


def test_second_derivatives_of_loops_and_branches():
    s = Sketch()
    check(vjp(s.graph(*looping(s, 3))), seed=2)
    s = Sketch()
    check(jvp(s.graph(*looping(s, 3))), seed=2)
    s = Sketch()
    check(vjp(s.graph(branching(s))), seed=2)


@pytest.mark.parametrize("twice", [lambda g: vjp(jvp(g)), lambda g: jvp(vjp(g))])
def test_second_derivatives(twice):
    s = Sketch()
    x, w = s.x(1, 1, 5, 5), s.x(2, 1, 3, 3)
    ones, none = (1, 1), (0, 0)
    y = s.b.unary("tanh", s.b.apply(ops.Conv(ones, none, none, ones, 1, False), x, w))
    z = s.b.apply(ops.ReduceWindow("max", (1, 1, 2, 2), (1,) * 4, (0,) * 4, (0,) * 4, (1,) * 4), y)
    p = s.b.reduce("prod", z, [2], False)
    third = s.b.binary("div", y, s.b.constant(3.0, DType.F64))
    graph = s.graph(s.b.reduce("sum", third, [1], False), p)
    check(twice(graph), seed=3)


def test_the_second_derivative_of_a_sine():
    s = Sketch()
    first = grad(s.graph(s.b.unary("sin", s.x())))
    found = evaluate(grad(first), {"x0": np.asarray(0.7)})
    np.testing.assert_allclose(found["x0_gradient"], -np.sin(0.7))


def _in_float64(graph):
    """The same graph in float64, where differences are exact enough."""
    b = Builder()
    places = {x: b.parameter(x.op.name, TensorType(DType.F64, x.shape)) for x in graph.inputs}
    for node in graph.nodes():
        if node in places:
            continue
        if node.data is not None:
            wide = node.type.dtype is DType.F32
            places[node] = b.constant(node.data.astype(np.float64) if wide else node.data)
        else:
            places[node] = b.apply(node.op, *(places[x] for x in node.inputs))
    return b.finish(graph.name, [(name, places[x]) for name, x in graph.outputs])


@for_all(nets(most_steps=6), quick=8, slow=1000)
def test_random_graphs(net):
    graph = _in_float64(net)
    # where values meet, and at a corner, differences are means of the slopes of both sides
    cornered = {getattr(x.op, "fn", "") for x in graph.nodes()} & {"max", "min", "abs"}
    check(graph, numerical=not cornered, rtol=1e-4)


MODES = (jvp, vjp, lambda graph: vmap(vjp(graph), 2))


@for_all(st.tuples(nets(most_steps=6), st.sampled_from(MODES)), quick=1, slow=60)
def test_random_derivatives_as_machine_code(case):
    net, derive = case
    graph = derive(net)
    feeds = inputs_of(graph)
    right = evaluate(graph, feeds)
    assume(all(np.isfinite(x).all() for x in floats_of(right).values()))
    found = compile(graph).run_dict(feeds)
    for name, value in right.items():
        assert_close(found[name], value, 2e-4)


def test_what_is_asked_for():
    s = Sketch()
    x, k, y = s.x(3), s.x(2, dtype=DType.I32), s.x(3)
    total = s.b.reduce("sum", s.b.binary("mul", x, y), [0], False)
    graph = s.graph(k, total, x)
    assert [n for n, _ in value_and_grad(graph, "y1").outputs] == [
        *("y0", "y1", "y2", "x0_gradient", "x2_gradient")
    ]
    assert [n for n, _ in grad(graph, 1, ["x2"]).outputs] == ["x2_gradient"]
    assert [x.op.name for x in vjp(graph, [0]).inputs][3:] == ["y1_cotangent", "y2_cotangent"]
    for wrong in ({"output": 2}, {"output": 0}, {"output": "z"}, {"output": 1, "inputs": [1]}):
        with pytest.raises(UsageError):
            grad(graph, **wrong)


def test_a_part_of_a_larger_graph():
    b = Builder()
    x, y = (b.parameter(name, TensorType(DType.F64, (3,))) for name in "xy")
    middle = b.unary("sin", b.binary("mul", x, y))
    result = b.binary("mul", b.binary("mul", middle, middle), b.unary("exp", y))
    graph, captured = cut([result], [middle])
    ones = b.constant(np.ones(3))
    operands = [middle, *captured]
    wanted = [True] + [False] * len(captured)
    _, (by_middle, *_) = pullback(Emit(b), graph, operands, [ones], wanted)
    whole = b.finish("whole", [("d", by_middle)])
    feeds = drawn(whole)
    right = 2 * np.sin(feeds["x"] * feeds["y"]) * np.exp(feeds["y"])
    np.testing.assert_allclose(evaluate(whole, feeds)["d"], right)


def _training_step(dtype):
    """Softmax regression on one batch: the loss, and the weights after a step of descent."""
    b = Builder()
    x, target = (b.parameter(n, TensorType(dtype, (8, s))) for n, s in (("x", 5), ("t", 3)))
    w = b.parameter("w", TensorType(dtype, (5, 3)))
    scores = b.apply(ops.Dot(), x, w)
    powers = b.unary("exp", b.binary("sub", scores, b.reduce("max", scores, [1], True)))
    chances = b.binary("div", powers, b.reduce("sum", powers, [1], True))
    loss = b.reduce("sum", b.binary("mul", target, b.unary("log", chances)), [0, 1], False)
    return value_and_grad(b.finish("step", [("loss", b.unary("neg", loss))]), inputs=["w"])


def test_a_training_step_as_machine_code():
    graph = _training_step(DType.F32)
    random = np.random.default_rng(0)
    feeds = {"x": random.normal(size=(8, 5)), "w": random.normal(size=(5, 3)) / 4}
    feeds["t"] = np.eye(3)[random.integers(0, 3, 8)]
    single = {name: value.astype(np.float32) for name, value in feeds.items()}
    right = evaluate(_training_step(DType.F64), feeds)
    found = compile(graph).run_dict(single)
    np.testing.assert_allclose(found["w_gradient"], right["w_gradient"], rtol=1e-4, atol=1e-5)


def _compiled(graph, feeds):
    """What machine code for the graph gives, its inputs being rounded to float32."""
    b = Builder()
    taken = {DType.F64: DType.F32}
    wide = {}
    for x in graph.inputs:
        narrow = TensorType(taken.get(x.type.dtype, x.type.dtype), x.shape)
        wide[x] = b.cast(b.parameter(x.op.name, narrow), x.type.dtype)
    results = inline(Emit(b), graph, [wide[x] for x in graph.inputs])
    mixed = b.finish("mixed", [(n, y) for (n, _), y in zip(graph.outputs, results, strict=True)])
    single = {
        name: value.astype(np.float32) if value.dtype.kind == "f" else value
        for name, value in feeds.items()
    }
    return compile(mixed).run_dict(single)


def _network(s):
    """Convolution, maximum of windows, a gather and a product, to one number."""
    x, w = s.x(1, 2, 6, 6), s.x(4, 2, 3, 3)
    y = s.b.apply(ops.Conv((1, 1), (1, 1), (1, 1), (1, 1), 1, False), x, w)
    ones, none = (1,) * 4, (0,) * 4
    z = s.b.apply(ops.ReduceWindow("max", (1, 1, 2, 2), (1, 1, 2, 2), none, none, ones), y)
    chosen = s.b.apply(ops.Gather(1), z, s.b.constant(np.array([3, 0, 3])))
    product = s.b.reduce("prod", chosen, [2, 3], False)
    return s.graph(s.b.reduce("sum", s.b.unary("tanh", product), [0, 1], False))


def _loop_sum(s):
    return s.graph(s.b.reduce("sum", looping(s, 3)[1], [0, 1], False))


def _branch_sum(s):
    return s.graph(s.b.reduce("sum", branching(s), [0, 1], False))


DERIVED = {"value_and_grad": value_and_grad, "jvp": jvp, "vmap": lambda g: vmap(grad(g), 2)}
QUICK = {(_loop_sum, "value_and_grad"), (_branch_sum, "value_and_grad")}


@pytest.mark.parametrize(
    ("build", "name"),
    [
        pytest.param(build, name, marks=() if (build, name) in QUICK else pytest.mark.slow)
        for build in (_network, _loop_sum, _branch_sum)
        for name in DERIVED
    ],
)
def test_derivatives_as_machine_code(build, name):
    derived = DERIVED[name](build(Sketch()))
    feeds = drawn(derived, 3)
    right = evaluate(derived, {n: _rounded(value) for n, value in feeds.items()})
    found = _compiled(derived, feeds)
    for name, value in right.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-5)


def _rounded(value):
    """Floats as float32 holds them."""
    single = value.astype(np.float32).astype(value.dtype)
    return single if value.dtype.kind == "f" else value
