"""Control flow on traced values against the Python that it stands for."""

import numpy as np
import pytest

import aotc
from aotc.graph.eval import evaluate
from aotc.tracing.trees import flatten

I64, F32 = np.int64, np.float32


def run(function, *arrays):
    """The results of the graph, which are those of the function on arrays."""
    graph = aotc.trace(function, *arrays)
    names = [node.op.name for node in graph.inputs]
    feeds = dict(zip(names, map(np.asarray, arrays), strict=True))
    found = list(evaluate(graph, feeds).values())
    for one, two in zip(found, flatten(function(*arrays))[0], strict=True):
        np.testing.assert_array_equal(one, two)
    return found


def test_cond_takes_one_side_and_values_around_it():
    def function(x, flag):
        twice = x * 2
        return aotc.cond(flag, lambda a: (a + twice, 1), lambda a: (a - 1, 0), x)

    x = np.arange(3, dtype=F32)
    for flag, expected in ((True, 3 * x), (False, x - 1)):
        value, which = run(function, x, np.bool_(flag))
        np.testing.assert_array_equal(value, expected)
        assert which == int(flag)


def test_a_known_predicate_chooses_while_tracing():
    graph = aotc.trace(
        lambda x: aotc.cond(True, lambda: x, lambda: x / 0), aotc.spec(3), name="chosen"
    )
    assert [node.op.mnemonic for node in graph.nodes()] == ["parameter"]


def test_while_loop_with_a_dictionary_as_state():
    def collatz(n):
        def step(state):
            n = state["n"]
            return {"n": np.where(n % 2 == 0, n // 2, 3 * n + 1), "count": state["count"] + 1}

        return aotc.while_loop(lambda state: state["n"] != 1, step, {"n": n, "count": 0})["count"]

    assert run(collatz, I64(27)) == [111]
    assert run(collatz, I64(1)) == [0]


@pytest.mark.parametrize("bounds", [(0, 5), (2, 7), (3, 1)])
def test_fori_loop_with_bounds_known_and_traced(bounds):
    def function(x, *bounds):
        low, high = bounds or known
        return aotc.fori_loop(low, high, lambda i, s: s * 2 + i, x)

    known = bounds
    expected = 1
    for i in range(*bounds):
        expected = expected * 2 + i
    assert run(function, I64(1)) == [expected]
    assert run(function, I64(1), *map(I64, bounds)) == [expected]


def test_scan_stacks_and_carries():
    def function(xs, scale):
        return aotc.scan(lambda s, x: (s + x * scale, {"before": s, "x": x}), F32(0), xs)

    xs = np.arange(4, dtype=F32)
    last, before, same = run(function, xs, F32(2))
    np.testing.assert_array_equal(before, [0, 0, 2, 6])
    np.testing.assert_array_equal(same, xs)
    assert last == 12


def test_scan_without_operands_and_map():
    state, rows = run(lambda x: aotc.scan(lambda s, _: (s + 1, s), x, length=3), I64(5))
    assert state == 8
    np.testing.assert_array_equal(rows, [5, 6, 7])
    x = np.arange(6, dtype=F32).reshape(3, 2)
    (sums,) = run(lambda x: aotc.map(lambda row: row.sum() + x[0, 1], x), x)
    np.testing.assert_array_equal(sums, x.sum(axis=1) + 1)


def test_loops_nest_and_compile():
    def function(x, n):
        def outer(i, total):
            inner = aotc.scan(lambda s, row: (s + row.sum() * i, s), F32(0), x)[0]
            return aotc.cond(inner > 20, lambda: total + inner, lambda: total - 1)

        return aotc.fori_loop(0, n, lambda i, s: outer(i.astype(np.float32), s), F32(0))

    x = np.arange(6, dtype=F32).reshape(3, 2)
    expected = sum(15 * i if 15 * i > 20 else -1 for i in range(4))
    assert run(function, x, I64(4)) == [expected]
    assert aotc.compile(aotc.trace(function, x, I64(4)))(x, I64(4)) == expected


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: aotc.cond(x > 0, lambda: x, lambda: x[0], ), ["float32[3]", "not one truth"]),
        (lambda x: aotc.cond(x[0] > 0, lambda: x, lambda: x[0]), ["float32[3]", "float32[]"]),
        (lambda x: aotc.cond(x[0] > 0, lambda: x, lambda: (x, x)), ["different forms"]),
        (lambda x: aotc.fori_loop(0, 3, lambda i, s: s + i, x), ["float32[3]", "float64[3]"]),
        (lambda x: aotc.scan(lambda s, row: s, x, x), ["pair"]),
        (lambda x: aotc.scan(lambda s, row: (s, row), x, (x, x[:2])), ["one length"]),
    ],
)  # fmt: skip
def test_errors_say_what_does_not_fit(function, words):
    with pytest.raises(aotc.UsageError) as caught:
        aotc.trace(function, aotc.spec(3))
    assert "test_control_flow_traced.py:" in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_value_does_not_leave_its_body():
    kept = []

    def function(x):
        aotc.fori_loop(0, 3, lambda i, s: (kept.append(s), s)[1], x)
        return kept[0] + 1

    with pytest.raises(aotc.UsageError, match="outside of the function or body"):
        aotc.trace(function, aotc.spec(3))


def test_short_floats_out_of_a_loop():
    """Rounded values of a loop are chosen among, beside what is computed of them."""

    def function(x):
        total = aotc.fori_loop(0, 2, lambda i, t: t + x, x)
        return np.where(total > 2, -total, total)

    x = np.float16([[1, -2, 0.5], [3, -4, 5]])
    found = aotc.compile(aotc.trace(function, x))(x)
    np.testing.assert_array_equal(found, np.where(3 * x > 2, -3 * x, 3 * x))
