"""aotc.grad and its kin: inside of traced functions and on arrays, nested, through control flow,
with arguments in trees, and what their errors say."""

import inspect

import numpy as np
import pytest

import aotc
from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.types import DType, TensorType
from aotc.passes.runner import run_passes

F32, F64 = np.float32, np.float64


def traced(function, *arrays):
    """What the graph of ``function`` gives for ``arrays``, one or a list of results."""
    graph = aotc.trace(function, *arrays)
    names = [node.op.name for node in graph.inputs]
    named = {name: np.asarray(array) for name, array in zip(names, arrays, strict=True)}
    found = list(evaluate(graph, named).values())
    return found[0] if len(found) == 1 else found


def both(function, *arrays):
    """The result inside a trace, which is that on arrays."""
    found, now = traced(function, *arrays), function(*arrays)
    for a, b in zip(*(x if isinstance(x, list | tuple) else [x] for x in (found, now)),
                    strict=True):  # fmt: skip
        np.testing.assert_allclose(a, b, rtol=1e-12)
    return now


def test_the_gradient_of_a_sum_of_squares():
    x = np.arange(3.0)
    np.testing.assert_array_equal(both(aotc.grad(lambda x: np.sum(x * x)), x), 2 * x)
    value, slope = both(aotc.value_and_grad(lambda x: np.sum(x * x)), x)
    assert value == 5 and slope.dtype == F64
    single = aotc.grad(lambda x: np.sum(x * x))(x.astype(F32))
    assert single.dtype == F32


def test_arguments_in_trees_and_by_number():
    def loss(p, x, n, *, power):
        return np.sum((p["a"] * x + p["b"][0]) ** power) / n

    p = {"a": np.array([1.0, 2.0]), "b": (3.0, np.zeros(0))}
    slopes = aotc.grad(loss)(p, 2.0, 4, power=2)
    inner = p["a"] * 2 + 3
    np.testing.assert_allclose(slopes["a"], inner)
    np.testing.assert_allclose(slopes["b"][0], inner.sum() / 2)
    assert slopes["b"][1].shape == (0,)
    first, second = aotc.grad(loss, (1, 0))(p, 2.0, 4, power=2)
    np.testing.assert_allclose(first, (p["a"] * inner).sum() / 2)
    np.testing.assert_allclose(second["a"], inner)


def test_what_is_not_differentiated_arrives_as_it_is():
    def loss(x, count, flag, table):
        total = np.sum(x[:count] * table[0])
        return total if flag and isinstance(table, np.ndarray) else total * 0

    found = aotc.grad(loss)(np.ones(4), 2, True, np.array([5, 6]))
    np.testing.assert_array_equal(found, [5, 5, 0, 0])


def test_values_from_outside_count_as_constant():
    def function(x):
        y = x * x
        inner = aotc.grad(lambda z: np.sum(z * y))(x)  # y, not 3 x^2
        return inner + aotc.grad(lambda z: np.sum(z * aotc.stop_gradient(z)))(x)

    x = np.array([2.0, 3.0])
    np.testing.assert_array_equal(both(function, x), x * x + x)


def test_stopped_gradients_cost_nothing():
    graph = aotc.trace(lambda x: aotc.stop_gradient({"x": x, "n": np.int64(3)})["x"] * 2,
                       aotc.spec(3))  # fmt: skip
    operations = [node.op.mnemonic for node in run_passes(graph).nodes() if node.inputs]
    assert operations == ["broadcast", "binary"]
    assert aotc.stop_gradient((1, "a")) == (1, "a")


def test_more_than_the_value():
    def loss(x):
        return np.sum(x**3), {"twice": 2 * x, "count": x.shape[0]}

    (value, more), slope = aotc.value_and_grad(loss, has_aux=True)(np.array([1.0, 2.0]))
    assert value == 9 and more["count"] == 2
    np.testing.assert_array_equal(more["twice"], [2, 4])
    again, same = aotc.grad(loss, has_aux=True)(np.array([1.0, 2.0]))
    np.testing.assert_array_equal(again, slope)
    np.testing.assert_array_equal(same["twice"], [2, 4])


def test_gradients_of_gradients():
    third = aotc.grad(aotc.grad(aotc.grad(np.sin)))
    np.testing.assert_allclose(both(third, np.float64(0.3)), -np.cos(0.3))
    x, y = np.array([1.0, 2.0]), np.array([3.0, 5.0])
    mixed = aotc.grad(lambda x: np.sum(aotc.grad(lambda y: np.sum(x * y**2))(y)))
    np.testing.assert_allclose(mixed(x), 2 * y)


def test_forward_mode():
    def function(x, n, y):
        return {"product": x * y, "n": n + 1}

    x, y = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    value, moved = aotc.jvp(function, (x, 7, y), (np.array([1.0, 0.0]), None, None))
    np.testing.assert_array_equal(moved["product"], [3, 0])
    assert moved["n"] is None and value["n"] == 8
    both(lambda x, t: aotc.jvp(np.tanh, (x,), (t,)), x, y)
    nested = aotc.jvp(lambda x: aotc.jvp(np.exp, (x,), (1.0,))[1], (0.5,), (2.0,))[1]
    np.testing.assert_allclose(nested, 2 * np.exp(0.5))


def test_reverse_mode():
    def function(p, k):
        return p[0] * p[1], np.sum(p[0]) * k, k

    x, y = np.array([1.0, 2.0]), np.array([3.0, 4.0])
    value, pull = aotc.vjp(function, [x, y], 3)
    np.testing.assert_array_equal(value[0], x * y)
    (by_x, by_y), by_k = pull((np.array([1.0, 10.0]), 2.0, None))
    np.testing.assert_array_equal(by_x, y * [1, 10] + 6)
    np.testing.assert_array_equal(by_y, x * [1, 10])
    assert by_k is None
    (only, _), _ = pull((None, 1.0, None))
    np.testing.assert_array_equal(only, [3, 3])

    def twice(x):
        _, pull = aotc.vjp(lambda x: x * x, x)
        return pull(np.ones(2))[0], aotc.map(lambda row: pull(row)[0], np.eye(2))

    ones, rows = traced(twice, x)
    np.testing.assert_array_equal(ones, 2 * x)
    np.testing.assert_array_equal(rows, np.diag(2 * x))


def test_batches():
    rows, w = np.arange(6.0).reshape(2, 3), np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(both(aotc.vmap(np.dot, (0, None)), rows, w), rows @ w)
    np.testing.assert_array_equal(both(aotc.vmap(lambda x: x[0], 1), rows), rows[0])
    moved = aotc.vmap(lambda x: (x, x.sum()), out_axes=(-1, 0))(rows)
    np.testing.assert_array_equal(moved[0], rows.T)
    np.testing.assert_array_equal(moved[1], rows.sum(axis=1))
    tree = aotc.vmap(lambda p, k: p["a"] * p["b"] + k, ({"a": 0, "b": None}, None))
    np.testing.assert_array_equal(tree({"a": rows, "b": w}, 1), rows * w + 1)
    alike = aotc.vmap(lambda x: np.float64(2.0), out_axes=None)(rows)
    assert alike.shape == ()
    spread = aotc.vmap(lambda: np.arange(2.0), axis_size=3)()
    assert spread.shape == (3, 2)


def test_gradients_of_each_sample():
    def loss(w, x):
        return np.tanh(x @ w) ** 2

    x, w = np.arange(6.0).reshape(2, 3) / 5, np.array([1.0, -2.0, 0.5])
    each = both(aotc.vmap(aotc.grad(loss), (None, 0)), w, x)
    for row, found in zip(x, each, strict=True):
        np.testing.assert_allclose(found, aotc.grad(loss)(w, row))
    total = aotc.grad(lambda w: np.sum(aotc.vmap(loss, (None, 0))(w, x)))(w)
    np.testing.assert_allclose(total, each.sum(axis=0))


def test_jacobians_and_second_derivatives():
    def function(p):
        return p["x"] ** 2 * p["y"], {"sum": np.sum(p["x"])}

    p = {"x": np.array([1.0, 2.0]), "y": np.float64(3.0)}
    for mode in (aotc.jacfwd, aotc.jacrev):
        rows, total = mode(function)(p)
        np.testing.assert_allclose(rows["x"], np.diag(2 * p["x"] * 3))
        np.testing.assert_allclose(rows["y"], p["x"] ** 2)
        np.testing.assert_allclose(total["sum"]["x"], [1, 1])
    a = np.array([[2.0, 1.0], [1.0, 3.0]])
    x = np.array([0.5, -1.0])
    second = both(aotc.hessian(lambda x: x @ a @ x / 2 + np.sum(x**3)), x)
    np.testing.assert_allclose(second, a + np.diag(6 * x))
    by_both = aotc.hessian(lambda x, y: np.sum(x * y * y), (0, 1))(x, x + 1)
    np.testing.assert_allclose(by_both[1][0], np.diag(2 * (x + 1)))


def recurrence(w, xs):
    def step(h, x):
        h = np.tanh(w @ h + x)
        return h, np.sum(h)

    return aotc.scan(step, np.zeros(2), xs)


def test_loops_and_branches():
    w, xs = np.array([[0.5, -0.2], [0.1, 0.3]]), np.arange(8.0).reshape(4, 2) / 7

    def loss(w):
        h, sums = recurrence(w, xs)
        return np.sum(h) + np.sum(sums**2)

    found = traced(aotc.grad(loss), w)
    step = 1e-6
    for place in np.ndindex(2, 2):
        moved = np.zeros((2, 2))
        moved[place] = step
        difference = (traced(loss, w + moved) - traced(loss, w - moved)) / (2 * step)
        np.testing.assert_allclose(found[place], difference, rtol=1e-7)

    def choose(x, flag):
        return aotc.cond(flag, lambda y: np.sum(y * y * x), lambda y: np.sum(y), x)

    x = np.array([1.0, 2.0])
    np.testing.assert_allclose(traced(aotc.grad(choose), x, np.bool_(True)), 3 * x * x)
    np.testing.assert_allclose(traced(aotc.grad(choose), x, np.bool_(False)), [1, 1])
    inside = traced(lambda xs: aotc.map(aotc.grad(lambda x: np.sum(x**3)), xs), xs)
    np.testing.assert_allclose(inside, 3 * xs**2)
    fifth = aotc.grad(lambda x: aotc.fori_loop(0, 5, lambda i, y: y * x, 1.0))
    np.testing.assert_allclose(both(fifth, np.float64(1.5)), 5 * 1.5**4)


def root(x):
    close = lambda y: np.abs(y * y - x) > 1e-14 * x  # noqa: E731
    return aotc.while_loop(close, lambda y: (y + x / y) / 2, x)


def test_a_while_loop_has_forward_mode_alone():
    value, slope = both(lambda x: aotc.jvp(root, (x,), (1.0,)), np.float64(2.0))
    np.testing.assert_allclose([value, slope], [2**0.5, 0.5 / 2**0.5])
    np.testing.assert_allclose(aotc.jacfwd(root)(2.0), slope)
    with pytest.raises(aotc.UnsupportedError, match="iterations") as caught:
        aotc.trace(lambda x: aotc.grad(root)(x), aotc.spec((), F64))
    assert "test_traced_derivatives.py:" in str(caught.value)
    assert "jvp" in caught.value.remedy


def test_a_primitive_without_derivative_is_named_with_the_line():
    b = Builder()
    x = b.parameter("x", TensorType(DType.F32, (3,)))
    bits = b.apply(ops.Bitcast(DType.F32), x, origin="bits of x")
    model = b.finish("model", [("y", b.reduce("sum", bits, [0], False))])

    def loss(x):
        return aotc.inline(model, x) * 2

    for derivative in (aotc.grad(loss), lambda x: aotc.jvp(loss, (x,), (x,))):
        with pytest.raises(aotc.UnsupportedError, match="no derivative: bits") as caught:
            derivative(np.ones(3, F32))
        assert "bits of x" in str(caught.value)
        assert "test_traced_derivatives.py:" in caught.value.where


def test_nodes_of_derivatives_know_the_line_they_come_from():
    def loss(x):
        y = np.tanh(x)
        return np.sum(y * x)

    lines, start = inspect.getsourcelines(loss)
    places = {f"test_traced_derivatives.py:{start + at}" for at in range(1, len(lines))}
    for made in (aotc.grad(loss), aotc.vmap(loss, axis_size=3), aotc.jacfwd(loss)):
        nodes = aotc.trace(made, aotc.spec((3, 2))).nodes()
        known = [n.origin in places for n in nodes if isinstance(n.op, ops.Unary | ops.Binary)]
        assert len(known) > 1 and all(known)


def test_samples_leave_a_loop_at_iterations_of_their_own():
    x = np.array([1.5, 2.0, 900.0])
    np.testing.assert_allclose(both(aotc.vmap(root), x), np.sqrt(x), rtol=1e-14)
    slopes = aotc.vmap(lambda x: aotc.jvp(root, (x,), (1.0,))[1])(x)
    np.testing.assert_allclose(slopes, 0.5 / np.sqrt(x), rtol=1e-12)

    def powers(x, n):
        return aotc.fori_loop(0, n, lambda i, y: y * x, 1.0)

    both(aotc.vmap(powers, (0, 0)), x, np.array([3, 0, 2]))
    np.testing.assert_allclose(aotc.vmap(powers)(x, np.array([3, 0, 2])), x ** [3, 0, 2])


def test_a_derivative_has_names_and_types_of_its_function():
    def loss(w: aotc.Tensor[3], x: aotc.Tensor[3]) -> aotc.Tensor[()]:
        """What is lost."""
        return np.sum(w * x)

    made = aotc.grad(loss)
    graph = aotc.trace(made)
    assert graph.name == "grad_loss" and made.__doc__ == "What is lost."
    assert [node.op.name for node in graph.inputs] == ["w", "x"]
    compiled = aotc.compile(graph)
    w, x = np.ones(3, F32), np.arange(3, dtype=F32)
    np.testing.assert_array_equal(compiled(w, x), x)
    same = aotc.trace(aotc.grad(aotc.function(loss)), name="grad_loss")
    assert [str(node.type) for node in same.inputs] == ["float32[3]"] * 2


ERRORS = {
    "several": (lambda x: aotc.grad(np.sin)(x), ["float32[3]", "one float", "np.sum"]),
    "pair": (lambda x: aotc.grad(lambda x: (x[0], x[1]))(x), ["several results", "has_aux"]),
    "aux": (lambda x: aotc.grad(lambda x: x[0], has_aux=True)(x), ["(value, more)"]),
    "nothing": (lambda x: aotc.grad(lambda x: None)(x), ["one number"]),
    "whole": (
        lambda x: aotc.grad(lambda n: np.sum(n * x))(x.astype(np.int32)),
        ["argument 0", "int32[3]", "astype"],
    ),
    "part": (
        lambda x: aotc.grad(lambda p: p["w"][0])({"w": x, "n": 3}), ["argument 0_n", "int64[]"]
    ),
    "index": (lambda x: aotc.grad(lambda x: np.argmax(x))(x), ["int64[]", "one float"]),
    "argnums": (lambda x: aotc.grad(np.sum, 1)(x), ["argnums=1", "1 arguments"]),
    "twice": (lambda x: aotc.grad(np.sum, (0, -1))(x), ["twice"]),
    "empty": (lambda x: aotc.grad(lambda p: x[0])(()), ["argument 0", "no array"]),
    "no function": (lambda x: aotc.grad(x), ["aotc.grad takes a function"]),
    "no function along": (lambda x: aotc.jvp(x, (x,), (x,)), ["aotc.jvp takes a function"]),
    "no function back": (lambda x: aotc.vjp(x, x), ["aotc.vjp takes a function"]),
    "inner line": (lambda x: aotc.grad(lambda x: np.sum(x + x[:2]))(x), ["numpy.add"]),
    "tangents": (lambda x: aotc.jvp(np.sin, (x,), (x, x)), ["form"]),
    "tangent": (lambda x: aotc.jvp(np.sin, (x,), (x[:2],)), ["float32[3] is float32[2]"]),
    "no tuple": (lambda x: aotc.jvp(np.sin, x, x), ["two tuples"]),
    "cotangent": (lambda x: aotc.vjp(np.sin, x)[1](x[:1]), ["float32[3] is float32[1]"]),
    "no floats": (lambda x: aotc.vjp(np.negative, 3), ["no argument"]),
    "axes": (lambda x: aotc.vmap(np.sin, 1)(x), ["no axis 1"]),
    "samples": (lambda x: aotc.vmap(np.add)(x, x[:2]), ["2 and 3 samples"]),
    "no samples": (lambda x: aotc.vmap(np.add, None)(x, x), ["no samples"]),
    "out axes": (lambda x: aotc.vmap(np.sin, out_axes=None)(x), ["differs between samples"]),
    "out place": (lambda x: aotc.vmap(np.sin, out_axes=1)(x), ["no place 1"]),
    "in axes": (lambda x: aotc.vmap(np.sin, (0, 0))(x), ["in_axes"]),
    "jacobian": (lambda x: aotc.jacfwd(np.argmax)(x), ["not of floats"]),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_show_the_line_and_the_types(name):
    function, words = ERRORS[name]
    with pytest.raises(aotc.AotcError) as caught:
        aotc.trace(function, aotc.spec(3))
    text = str(caught.value)
    assert "test_traced_derivatives.py:" in text
    for word in words:
        assert word in text
