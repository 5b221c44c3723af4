"""The derivative of each primitive against differences, and of both modes against each other."""

import numpy as np
import pytest
from gradient_checks import Sketch, check, drawn

from aotc.autodiff.elementwise import FLAT, SLOPES
from aotc.autodiff.transform import grad, jvp, vjp
from aotc.errors import UnsupportedError
from aotc.graph import ops
from aotc.graph.eval import evaluate
from aotc.graph.types import DType


@pytest.mark.parametrize("fn", sorted(set(SLOPES) | FLAT | {"neg"}))
def test_functions_of_one_number(fn):
    s = Sketch()
    graph = s.graph(s.b.unary(fn, s.x(7)))
    low, high = {"acosh": (1.2, 3), "log": (0.3, 2), "sqrt": (0.3, 2)}.get(fn, (-0.9, 0.9))
    if fn == "reciprocal":
        low, high = 0.4, 2
    check(graph, drawn(graph, 3, low, high))


@pytest.mark.parametrize("fn", ["add", "sub", "mul", "div", "pow", "min", "max", "mod", "fmod"])
def test_functions_of_two_numbers(fn):
    s = Sketch()
    graph = s.graph(s.b.binary(fn, s.x(3, 4), s.x(4)))
    check(graph, drawn(graph, 1, 0.3, 2.5))


def test_powers_at_zero_have_finite_slopes():
    s = Sketch()
    graph = s.graph(s.b.reduce("sum", s.b.binary("pow", s.x(3), s.x(3)), [0], False))
    found = evaluate(grad(graph), {"x0": np.array([0.0, 0.0, 2.0]), "x1": np.array([0.0, 2.0, 0])})
    np.testing.assert_allclose(found["x0_gradient"], [0, 0, 0])
    np.testing.assert_allclose(found["x1_gradient"], [0, 0, np.log(2)])


def _select(s):
    return s.b.select(s.x(3, 2, dtype=DType.BOOL), s.x(3, 2), s.x(3, 2))


def _cast(s):
    return s.b.cast(s.b.binary("mul", s.b.cast(s.x(4), DType.F32), s.b.constant(2, DType.F32)),
                    DType.F64)  # fmt: skip


def _gather(s, axis=1):
    index = s.b.constant(np.array([[2, -1], [0, 2]]))
    return s.b.apply(ops.Gather(axis), s.x(3, 3, 2), index)


def _gather_elements(s):
    return s.b.apply(ops.GatherElements(1), s.x(3, 4), s.b.constant(np.array([[1, 1], [-1, 0]])))


def _gather_nd(s, batch=0):
    index = s.b.constant(np.array([[[1, 0], [1, 0]], [[-1, 2], [0, 9]]]))
    return s.b.apply(ops.GatherND(batch), s.x(2, 3, 4, 2), index)


def _scatter_nd(fn):
    def build(s):
        index = s.b.constant(np.array([[2], [0], [2], [-1]]))
        return s.b.apply(ops.ScatterND(fn), s.x(3, 2), index, s.x(4, 2))

    return build


def _scatter_elements(fn):
    def build(s):
        index = s.b.constant(np.array([[1, 1, 0], [2, -1, 2]]))
        return s.b.apply(ops.ScatterElements(1, fn), s.x(3, 4), index, s.x(2, 3))

    return build


def _window(fn, strides=(1, 2), low=(0, 1), high=(0, 1), dilation=(1, 2)):
    op = ops.ReduceWindow(fn, (2, 3), strides, low, high, dilation)
    return lambda s: s.b.apply(op, s.x(4, 9))


def _conv(data, weights, *fields):
    return lambda s: s.b.apply(ops.Conv(*fields), s.x(*data), s.x(*weights))


def _reduce(fn, *axes):
    return lambda s: s.b.apply(ops.Reduce(fn, axes), s.x(3, 4, 2))


def _one(op, *shape):
    return lambda s: s.b.apply(op, s.x(*shape))


CASES = {
    "select": _select,
    "cast": _cast,
    "broadcast": _one(ops.Broadcast((3, 4)), 1, 4),
    "reshape": _one(ops.Reshape((6, 2)), 3, 4),
    "transpose": _one(ops.Transpose((2, 0, 1)), 2, 3, 4),
    "slice": _one(ops.Slice((1, 6, 0), (2, 3, 2), (2, -2, 1)), 5, 7, 2),
    "slice-empty": _one(ops.Slice((0,), (0,), (1,)), 5),
    "pad": _one(ops.Pad((1, 0), (2, 3), 4.0), 2, 3),
    "concat": lambda s: s.b.concat([s.x(2, 1), s.b.constant(np.ones((2, 2))), s.x(2, 3)], 1),
    "gather": _gather,
    "gather-first": lambda s: _gather(s, 0),
    "gather-elements": _gather_elements,
    "gather-nd": _gather_nd,
    "gather-nd-batch": lambda s: _gather_nd(s, 1),
    **{f"scatter-nd-{fn}": _scatter_nd(fn) for fn in ("set", "add", "mul", "min", "max")},
    **{f"scatter-{fn}": _scatter_elements(fn) for fn in ("set", "add", "mul", "min", "max")},
    **{f"reduce-{fn}": _reduce(fn, 0, 2) for fn in ("sum", "prod", "max", "min")},
    "reduce-all": _reduce("prod", 0, 1, 2),
    "cumsum": _one(ops.CumSum(1, True, False), 3, 4),
    "cumsum-reverse": _one(ops.CumSum(0, False, True), 3, 4),
    "dot": lambda s: s.b.apply(ops.Dot(), s.x(2, 3, 4), s.x(2, 4, 5)),
    "window-sum": _window("sum"),
    "window-max": _window("max"),
    "window-sum-remainder": _window("sum", (2, 3), (0, 0), (0, 1), (1, 1)),
    "window-max-remainder": _window("max", (2, 3), (0, 0), (0, 1), (1, 1)),
    "conv-1d": _conv((2, 3, 8), (4, 3, 3), (2,), (1,), (0,), (2,), 1, False),
    "conv-2d": _conv((1, 2, 6, 5), (2, 2, 3, 2), (2, 1), (1, 0), (1, 2), (1, 1), 1, False),
    "conv-groups": _conv((2, 4, 7), (6, 2, 2), (3,), (2,), (1,), (1,), 2, False),
    "conv-last": _conv((2, 6, 5, 4), (4, 1, 3, 3), (1, 2), (1, 1), (1, 1), (1, 1), 4, True),
    "conv-3d": _conv(
        (1, 2, 3, 4, 3), (2, 2, 2, 2, 2), (1, 1, 1), (0, 0, 0), (0, 0, 0), (1, 1, 1), 1, False
    ),
}


@pytest.mark.parametrize("name", sorted(CASES))
def test_primitives(name):
    s = Sketch()
    graph = s.graph(CASES[name](s))
    check(graph, seed=5, rtol=1e-3 if name == "cast" else 2e-5, numerical=name != "cast")


def test_products_with_zeros():
    s = Sketch()
    graph = s.graph(s.b.reduce("prod", s.x(4), [0], False))
    found = evaluate(grad(graph), {"x0": np.array([2.0, 0.0, 3.0, 4.0])})["x0_gradient"]
    np.testing.assert_allclose(found, [0, 24, 0, 0])


def test_equal_extremes_share_the_gradient():
    s = Sketch()
    graph = s.graph(s.b.reduce("max", s.x(3), [0], False))
    found = evaluate(grad(graph), {"x0": np.array([2.0, 1.0, 2.0])})["x0_gradient"]
    np.testing.assert_allclose(found, [0.5, 0, 0.5])


def test_the_last_update_of_a_place_counts():
    s = Sketch()
    index = s.b.constant(np.array([[1], [1]]))
    made = s.b.apply(ops.ScatterND("set"), s.x(2), index, s.x(2))
    graph = s.graph(s.b.reduce("sum", made, [0], False))
    found = evaluate(grad(graph), {"x0": np.zeros(2), "x1": np.zeros(2)})
    np.testing.assert_array_equal(found["x0_gradient"], [1, 0])
    np.testing.assert_array_equal(found["x1_gradient"], [0, 1])


@pytest.mark.parametrize("cuts", [(0, 2, 3, 7), (1, 2, 4, 6), (0, 3, 2, 5)])
def test_parts_of_one_tensor_are_put_together(cuts):
    """Slices of the first axis from the second column on, two of them; the last cuts meet."""
    s = Sketch()
    x = s.x(7, 3)
    first, second = (
        s.b.apply(ops.Slice((low, 1), (high - low, 2), (1, 1)), x)
        for low, high in (cuts[:2], cuts[2:])
    )
    graph = s.graph(s.b.unary("sin", first), s.b.unary("exp", second))
    check(graph)
    added = [node for node in vjp(graph).nodes() if getattr(node.op, "fn", "") == "add"]
    assert bool(added) == (cuts[2] < cuts[1])


@pytest.mark.parametrize("starts", [(0, 3, 6), (3, 0, 6), (0, 6, 3)])
def test_the_gradient_of_a_split_is_one_concatenation(starts):
    s = Sketch()
    x = s.x(9)
    parts = [s.b.apply(ops.Slice((at,), (3,), (1,)), x) for at in starts]
    graph = s.graph(*(s.b.unary("sin", part) for part in parts))
    check(graph)
    assert [len(n.inputs) for n in vjp(graph).nodes() if isinstance(n.op, ops.Concat)] == [3]


def test_what_is_sent_twice_counts_twice():
    s = Sketch()
    x = s.x(4)
    double = s.b.binary("add", x, x)
    check(s.graph(s.b.apply(ops.Slice((1,), (2,), (1,)), double)))


def test_bits_have_no_derivative():
    s = Sketch()
    bits = s.b.apply(ops.Bitcast(DType.F64), s.x(2))
    other = s.b.apply(ops.Bitcast(DType.I64), s.x(2))
    back = s.b.apply(ops.Bitcast(DType.F64), other)
    jvp(s.graph(back))  # nothing flows through whole numbers
    with pytest.raises(UnsupportedError, match="bits"):
        jvp(s.graph(s.b.unary("neg", bits)))
