"""Legalisation: machine types inside, the same values outside."""

import numpy as np
import pytest
from pass_graphs import f32

import aotc
from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.types import DType, TensorType
from aotc.graph.verify import verify_graph
from aotc.passes.legalize import legalize

NARROW = [dtype for dtype in DType if dtype.is_narrow]
INDICES = TensorType(DType.I64, (2, 2))
MOVES = [
    (ops.Broadcast((2, 3)), [(1, 3)], []),
    (ops.Reshape((6,)), [(2, 3)], []),
    (ops.Transpose((1, 0)), [(2, 3)], []),
    (ops.Slice((2, 0), (2, 2), (-1, 2)), [(3, 3)], []),
    (ops.Concat(0), [(2, 3), (1, 3)], []),
    (ops.Gather(1), [(2, 3)], [INDICES]),
    (ops.GatherElements(1), [(2, 3)], [INDICES]),
    (ops.GatherND(0), [(3, 2)], [INDICES]),
    (ops.ScatterElements(1, "set"), [(2, 3)], [INDICES, (2, 2)]),
    (ops.ScatterND("set"), [(2, 3, 4)], [INDICES, (2, 4)]),
]


def short(*shape, dtype=DType.BF16):
    return TensorType(dtype, shape)


def inner(graph):
    """The nodes between the ends of a graph."""
    return [n for n in graph.nodes() if n not in graph.inputs and not isinstance(n.op, ops.Relabel)]


def draw(type_, seed=0):
    rng = np.random.default_rng(seed)
    if type_.dtype.is_narrow:
        codes = rng.integers(0, 1 << type_.dtype.size_bits, type_.dims)
        return codes.astype(f"u{type_.dtype.size_bytes}").view(type_.dtype.numpy)
    return rng.integers(0, 2, type_.dims).astype(type_.dtype.numpy)


def same_bits(found, expected):
    """Equal arrays of a narrow type, spare bits apart; a NaN only has to be one."""
    assert found.dtype == expected.dtype and found.shape == expected.shape
    np.testing.assert_array_equal(found.astype(np.float32), expected.astype(np.float32))


def test_a_graph_of_other_types_is_returned_as_it_is():
    b = Builder()
    graph = b.finish("g", [("y", b.unary("exp", b.parameter("x", f32(3))))])
    assert legalize(graph) is graph


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize("op, shapes, more", MOVES, ids=[op.mnemonic for op, *_ in MOVES])
def test_data_moves_as_it_is_stored(op, shapes, more, dtype):
    types = [t if isinstance(t, TensorType) else short(*t, dtype=dtype) for t in (*shapes, *more)]
    b = Builder()
    inputs = [b.parameter(f"x{i}", t) for i, t in enumerate(types)]
    graph = b.finish("g", [("y", b.apply(op, *inputs))])
    legal = legalize(graph)
    verify_graph(legal)
    assert [type(node.op) for node in inner(legal)] == [type(op)]
    feeds = {f"x{i}": draw(t, i) for i, t in enumerate(types)}
    same_bits(evaluate(legal, feeds)["y"], evaluate(graph, feeds)["y"])


@pytest.mark.parametrize("dtype", NARROW)
def test_ends_keep_their_types_and_the_inside_has_none_of_them(dtype):
    b = Builder()
    x = b.parameter("x", short(4, dtype=dtype))
    known = b.constant(draw(short(2, dtype=dtype)))
    y = b.apply(ops.Pad((1,), (2,), 1.0), b.apply(ops.Concat(0), x, known))
    graph = b.finish("g", [("y", y), ("x again", x), ("number", b.cast(y, DType.F32))])
    legal = legalize(graph)
    verify_graph(legal)
    assert [node.type for node in legal.inputs] == [x.type]
    assert [node.type for _, node in legal.outputs] == [node.type for _, node in graph.outputs]
    assert not any(node.type.dtype.is_narrow for node in inner(legal))
    feeds = {"x": draw(x.type, 3)}
    expected = evaluate(graph, feeds)
    for found in (evaluate(legal, feeds), aotc.compile(graph).run_dict(feeds)):
        for name, values in expected.items():
            same_bits(found[name], values)


def test_it_does_nothing_twice():
    b = Builder()
    x = b.parameter("x", short(4))
    legal = legalize(b.finish("g", [("y", b.unary("neg", x))]))
    again = legalize(legal)
    assert [type(node.op) for node in again.nodes()] == [type(node.op) for node in legal.nodes()]


@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16, DType.F8E5M2])
def test_arithmetic_rounds_once_per_primitive(dtype):
    b = Builder()
    x, y = (b.parameter(name, short(64, dtype=dtype)) for name in "xy")
    total, product = b.binary("add", x, y), b.binary("mul", x, y)
    fewer = b.compare("lt", x, y)
    graph = b.finish("g", [("sum", total), ("product", product), ("less", fewer)])
    rng = np.random.default_rng(0)
    feeds = {name: rng.normal(size=64).astype(dtype.numpy) for name in "xy"}
    wide = {name: values.astype(np.float32) for name, values in feeds.items()}
    expected = {
        "sum": (wide["x"] + wide["y"]).astype(dtype.numpy),
        "product": (wide["x"] * wide["y"]).astype(dtype.numpy),
        "less": wide["x"] < wide["y"],
    }
    for found in (evaluate(graph, feeds), aotc.compile(graph).run_dict(feeds)):
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name].astype(float), values.astype(float))


@pytest.mark.parametrize("dtype", [DType.F16, DType.BF16])
def test_sums_and_products_add_up_in_float32(dtype):
    b = Builder()
    x = b.parameter("x", short(1, 4096, dtype=dtype))
    dot = b.apply(ops.Dot(), x, b.constant(np.ones((4096, 1), dtype.numpy)))
    graph = b.finish("g", [("dot", dot), ("sum", b.reduce("sum", x, [1], False))])
    feeds = {"x": np.ones((1, 4096), dtype.numpy)}
    found = aotc.compile(graph).run_dict(feeds)
    assert found["dot"].reshape(()) == found["sum"].reshape(()) == 4096


def test_nested_graphs_carry_what_is_stored():
    inside = Builder()
    i, state = inside.parameter("i", TensorType(DType.I64, ())), inside.parameter("s", short(3))
    total = inside.binary("add", state, state)
    going = inside.compare("lt", i, inside.constant(9, DType.I64))
    eight = inside.cast(total, DType.F8E5M2)
    outputs = [("going", going), ("total", total), ("eight", eight)]
    b = Builder()
    trips = b.parameter("n", TensorType(DType.I64, ()))
    x = b.parameter("x", short(3))
    op = ops.Repeat(inside.finish("body", outputs), carried=1, scanned=0, limit=4)
    loop = b.apply(op, trips, b.constant(np.asarray(True)), x)
    results = [(name, b.apply(ops.Item(index), loop)) for index, name in enumerate("nyz")]
    graph = b.finish("g", results)
    legal = legalize(graph)
    verify_graph(legal)
    feeds = {"n": np.asarray(3), "x": np.array([1, 1.5, -2], DType.BF16.numpy)}
    expected = evaluate(graph, feeds)
    assert expected["y"].tolist() == [8, 12, -16]
    for found in (evaluate(legal, feeds), aotc.compile(graph).run_dict(feeds)):
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name].astype(float), values.astype(float))


def random_graph(seed):
    """A few primitives, exact ones and rounding ones, on tensors of one short float."""
    rng = np.random.default_rng(seed)
    dtype = rng.choice([DType.BF16, DType.F16, DType.F8E4M3FN, DType.F8E5M2FNUZ])
    b = Builder()
    pool = [b.parameter(name, short(2, 4, 6, dtype=dtype)) for name in "xy"]
    pool.append(b.constant(rng.normal(size=(2, 4, 6)).astype(dtype.numpy)))
    for _ in range(rng.integers(2, 9)):
        a = pool[rng.integers(len(pool))]
        alike = [node for node in pool if node.type == a.type]
        other = alike[rng.integers(len(alike))]
        rank = a.type.rank
        made = [
            lambda a=a, o=other: b.binary(rng.choice(["add", "sub", "mul", "max"]), a, o),
            lambda a=a: b.unary(rng.choice(["neg", "sqrt", "round"]), a),
            lambda a=a, o=other: b.select(b.compare("lt", a, o), a, o),
            lambda a=a: b.cast(b.cast(a, DType.F32), dtype),
            lambda a=a, r=rank: b.transpose(a, tuple(map(int, rng.permutation(r)))),
            lambda a=a, r=rank: b.apply(ops.Pad((1,) * r, (0,) * r, 0.1), a),
            lambda a=a, r=rank: b.reduce("max", a, [int(rng.integers(r))], True),
            lambda a=a, o=other: b.apply(ops.Concat(0), a, o),
        ][rng.integers(8)]()
        if made.type.elems < 3000:
            pool.append(made)
    chosen = [pool[i] for i in rng.permutation(len(pool))[:3]]
    feeds = {name: (rng.normal(size=(2, 4, 6)) * 3).astype(dtype.numpy) for name in "xy"}
    return b.finish("g", [(f"o{i}", node) for i, node in enumerate(chosen)]), feeds


@pytest.mark.slow
@pytest.mark.parametrize("seeds", [range(10), pytest.param(range(10, 200), marks=pytest.mark.slow)])
def test_machine_code_gives_the_bits_of_the_evaluator(seeds):
    for seed in seeds:
        graph, feeds = random_graph(seed)
        found = aotc.compile(graph).run_dict(feeds)
        for name, values in evaluate(graph, feeds).items():
            same_bits(found[name], values)
