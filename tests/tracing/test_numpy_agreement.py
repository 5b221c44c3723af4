"""Traced functions against numpy: the same function runs on arrays and, traced, in the evaluator.
Integers, bools and movement are equal; floats are within a few roundings."""

import numpy as np
import pytest
from graph_runs import for_all
from hypothesis import strategies as st

import aotc
from aotc.graph.eval import evaluate
from aotc.tracing.tensor import Tensor

TYPES = ("bool", "int8", "uint8", "int16", "int32", "int64", "uint64", "float32", "float64")
NUMBERS = TYPES[1:]


def words(text):
    return text.split()


ONE = words(
    "negative positive absolute sign square reciprocal floor ceil trunc rint isnan isinf "
    "isfinite exp log sqrt sin cos tanh arctan sinh arcsinh expm1 log1p log2 log10 exp2 "
    "cbrt invert logical_not deg2rad degrees signbit fabs"
)
TWO = words(
    "add subtract multiply divide floor_divide remainder fmod power maximum minimum fmax "
    "fmin equal not_equal less less_equal greater greater_equal logical_and logical_or "
    "logical_xor bitwise_and bitwise_or bitwise_xor left_shift right_shift hypot arctan2 "
    "copysign heaviside logaddexp divmod float_power"
)


def traced(function, *arrays):
    """What the graph of ``function`` gives for ``arrays``."""
    graph = aotc.trace(function, *arrays)
    names = [node.op.name for node in graph.inputs]
    named = {name: np.asarray(array) for name, array in zip(names, arrays, strict=True)}
    return list(evaluate(graph, named).values())


def agree(function, *arrays, ulps=8):
    """numpy's results and the graph's; where numpy itself refuses, tracing does too."""
    try:
        with np.errstate(all="ignore"):
            expected = function(*arrays)
    except (TypeError, ValueError, IndexError, OverflowError):
        with pytest.raises(aotc.AotcError):
            traced(function, *arrays)
        return
    expected = expected if isinstance(expected, tuple | list) else (expected,)
    for found, wanted in zip(traced(function, *arrays), expected, strict=True):
        wanted = np.asarray(wanted)
        assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
        if wanted.dtype.kind != "f":
            np.testing.assert_array_equal(found, wanted)
        else:
            eps = np.finfo(wanted.dtype).eps * ulps
            np.testing.assert_allclose(found, wanted, rtol=eps, atol=eps)


@st.composite
def values(draw, shape, types=TYPES, least=-4):
    """An array whose numbers are small, so that integers neither wrap nor overflow in floats."""
    dtype = np.dtype(draw(st.sampled_from(types)))
    seed = draw(st.integers(0, 2**16))
    rng = np.random.default_rng(seed)
    low = 0 if dtype.kind in "bu" else least
    whole = rng.integers(low, 2 if dtype.kind == "b" else 5, shape)
    return (whole + rng.random(shape) if dtype.kind == "f" else whole).astype(dtype)


@for_all(st.data(), quick=10, slow=1000)
def test_functions_of_one(data):
    name = data.draw(st.sampled_from(ONE))
    x = data.draw(values((3, 4)))
    if name == "reciprocal":  # numpy leaves that of the integer 0 open
        x = np.where(x == 0, x.dtype.type(1), x)
    agree(getattr(np, name), x)


@for_all(st.data(), quick=10, slow=1000)
def test_functions_of_two(data):
    name = data.draw(st.sampled_from(TWO))
    shapes = data.draw(st.sampled_from([((3, 4), (3, 4)), ((3, 4), (4,)), ((3, 1), (1, 4)),
                                        ((), (2, 3)), ((2, 3), (3, 2))]))  # fmt: skip
    least = 0 if "shift" in name or "power" in name else -4
    a, b = (data.draw(values(shape, least=least)) for shape in shapes)
    weak = data.draw(st.sampled_from([None, 2, 0.5, True]))
    function = getattr(np, name)
    try:
        if weak is None:
            agree(function, a, b)
        else:
            agree(lambda x: function(x, weak), a)
    except aotc.UnsupportedError as error:
        assert "compares" in str(error)  # int64 with uint64, which numpy compares exactly


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint64", "int64"])
def test_numbers_beyond_a_type_compare(dtype):
    x = np.array([0, 5, 127], dtype)
    for number in (-1, 300, -(2**63) - 1, 2**64):
        for f in (np.equal, np.not_equal, np.less, np.less_equal, np.greater, np.greater_equal):
            agree(lambda x, f=f, n=number: (f(x, n), f(n, x)), x)


EDGES = np.array([0, -0.0, 1, -1, np.inf, -np.inf, np.nan, 1e-30, -1e-5, 3.5, 88.5, -100, 1e30])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_functions_at_the_edges(dtype):
    x = EDGES.astype(dtype)
    for name in words("expm1 log1p cbrt log2 trunc sign signbit isfinite reciprocal arctan"):
        agree(getattr(np, name), x)
    a, b = np.repeat(x, len(x)), np.tile(x, len(x))
    for name in words("arctan2 hypot logaddexp floor_divide remainder copysign heaviside fmax"):
        agree(getattr(np, name), a, b)


PART = st.one_of(
    st.integers(-4, 3),
    st.builds(
        slice,
        st.none() | st.integers(-6, 6),
        st.none() | st.integers(-6, 6),
        st.none() | st.sampled_from([-3, -2, -1, 1, 2, 3]),
    ),
    st.just(None),
    st.lists(st.integers(-3, 2), max_size=3),
    st.sampled_from([[[0, 1], [-1, 0]], [True, False, True], np.eye(3, 4) > 0, np.eye(2) > 0]),
)


@st.composite
def keys(draw):
    parts = draw(st.lists(PART, max_size=4))
    if draw(st.booleans()):
        parts.insert(draw(st.integers(0, len(parts))), Ellipsis)
    empty = np.zeros(0, np.int64)
    return tuple(empty if isinstance(part, list) and not part else part for part in parts)


@for_all(keys(), quick=10, slow=1000)
def test_indexing(key):
    x = np.arange(3 * 4 * 3 * 2).reshape(3, 4, 3, 2)
    try:
        agree(lambda x: x[key], x)
    except aotc.UsageError as error:  # numpy does not look at indices that pick nothing
        assert "outside" in str(error)
        assert x[key].size == 0


@for_all(keys(), quick=10, slow=500)
def test_indices_of_run_time(key):
    """Arrays in the key become inputs of the graph."""
    x = np.arange(3 * 4 * 3 * 2).reshape(3, 4, 3, 2)
    arrays = [np.asarray(part) for part in key if isinstance(part, list)]
    arrays = [array for array in arrays if array.dtype != bool]

    def pick(x, *indices):
        given = iter(indices)
        return x[tuple(
            next(given) if isinstance(part, list) and np.asarray(part).dtype != bool else part
            for part in key
        )]  # fmt: skip

    try:
        x[key]
    except IndexError:
        return  # what is outside at run time is held to the ends
    agree(pick, x, *arrays)


def test_updates():
    x = np.arange(12.0).reshape(3, 4)
    for key in (1, (slice(None), 2), (slice(0, 2), slice(None, None, 2)), ([0, 2], [1, 1]), ...):
        changed = x.copy()
        changed[key] = -1
        (found,) = traced(lambda x, key=key: aotc.updated(x, key, -1), x)
        np.testing.assert_array_equal(found, changed)
    (found,) = traced(lambda x, i: aotc.updated(x, (i, slice(1, 3)), 5, "add"), x, np.int64(2))
    changed = x.copy()
    changed[2, 1:3] += 5
    np.testing.assert_array_equal(found, changed)


ALONG = words(
    "argmax argmin cumsum cumprod sort argsort median diff flip roll"
)
AXES = st.sampled_from([None, 0, 1, -1, (0, 2), (1,)])
AXIS = st.sampled_from([None, 0, 1, -1])
REDUCTIONS = words(
    "sum prod mean var std max min any all ptp count_nonzero nansum"
)


@for_all(st.tuples(st.sampled_from(REDUCTIONS), values((2, 3, 4)), AXES, st.booleans()), 10, 500)
def test_reductions(case):
    name, x, axis, keep = case
    agree(lambda x: getattr(np, name)(x, axis=axis, keepdims=keep), x, ulps=64)


@for_all(st.tuples(st.sampled_from(ALONG), values((2, 3, 4)), AXIS), 10, 500)
def test_along_an_axis(case):
    name, x, axis = case

    def function(x):
        if name == "argsort":
            return np.argsort(x, axis, kind="stable")
        if name == "diff":
            return np.diff(x, axis=-1 if axis is None else axis)
        return np.roll(x, 2, axis) if name == "roll" else getattr(np, name)(x, axis=axis)

    agree(function, x, ulps=64)


MOVES = {
    "reshape": lambda x: x.reshape(4, -1),
    "transpose": lambda x: x.transpose(2, 0, 1) + x.T.shape[0],
    "moveaxis": lambda x: np.moveaxis(x, 0, -1),
    "swapaxes": lambda x: x.swapaxes(0, 2),
    "expand": lambda x: np.expand_dims(x, (0, -1)),
    "squeeze": lambda x: np.squeeze(x[:, :1]),
    "ravel": lambda x: x.ravel(),
    "concatenate": lambda x: np.concatenate([x, x[:1], np.ones((1, 3, 4), np.int8)]),
    "stack": lambda x: np.stack([x, x + x], axis=1),
    "vstack": lambda x: np.vstack([x[0, 0], x[1, 1]]),
    "hstack": lambda x: np.hstack([x, x]),
    "dstack": lambda x: np.dstack([x[0], x[1]]),
    "column_stack": lambda x: np.column_stack([x[0, 0], x[0, 1]]),
    "split": lambda x: np.split(x, 2, axis=2),
    "split_at": lambda x: np.split(x, [1, 3], axis=2),
    "array_split": lambda x: np.array_split(x, 3, axis=2),
    "repeat": lambda x: np.repeat(x, 2, axis=1),
    "repeat_each": lambda x: np.repeat(x, [1, 0, 2], axis=1),
    "tile": lambda x: np.tile(x, (2, 1, 1, 2)),
    "rot90": lambda x: np.rot90(x, 1, (0, 1)),
    "rot270": lambda x: np.rot90(x, 3, (1, 2)),
    "pad": lambda x: np.pad(x, ((1, 0), (0, 2), (1, 1))),
    "pad_value": lambda x: np.pad(x, 1, constant_values=1),
    "pad_edge": lambda x: np.pad(x, 1, mode="edge"),
    "pad_reflect": lambda x: np.pad(x, ((0, 0), (1, 1), (2, 1)), mode="reflect"),
    "pad_wrap": lambda x: np.pad(x, ((0, 0), (1, 1), (2, 1)), mode="wrap"),
    "take": lambda x: np.take(x, [[0, -1], [2, 2]], axis=2),
    "take_along_axis": lambda x: np.take_along_axis(x, np.array([[[1], [0], [3]]]), 2),
    "where": lambda x: np.where(x > 1, x, -1),
    "where_scalars": lambda x: np.where(x > 1, 1.5, 0),
    "select": lambda x: np.select([x > 2, x > 1], [x, x + x], 7),
    "clip": lambda x: np.clip(x, 1, 2),
    "clip_low": lambda x: x.clip(1),
    "round": lambda x: np.round(x),
    "tril": lambda x: np.tril(x, 1),
    "triu": lambda x: np.triu(x),
    "diagonal": lambda x: np.diagonal(x, 1, 1, 2),
    "diag": lambda x: np.diag(x[0, 0], -1),
    "trace": lambda x: np.trace(x[0]),
    "like": lambda x: np.zeros_like(x) + np.full_like(x, 1) + np.ones_like(x),
    "meshgrid": lambda x: np.meshgrid(x[0, 0], x[0, :, 0]),
    "atleast": lambda x: np.atleast_3d(x[0, 0]),
    "broadcast": lambda x: np.broadcast_to(x[:, :1], (2, 3, 4)),
    "astype": lambda x: x.astype(np.int16),
    "average": lambda x: np.average(x, axis=1, weights=[1, 2, 3]),
    "in_place": lambda x: _in_place(x),
    "rows": lambda x: [row.sum() for row in x],
    "reduce": lambda x: np.add.reduce(x, axis=1),
    "outer": lambda x: np.multiply.outer(x[0, 0], x[0, :, 0]),
    "isclose": lambda x: np.isclose(x, 2, atol=0.5),
    "norm": lambda x: np.linalg.norm(x, axis=-1),
}


def _in_place(x):
    y = x + 0
    y *= 3
    y -= y
    return y


@for_all(st.tuples(st.sampled_from(sorted(MOVES)), values((2, 3, 4), NUMBERS)), 10, 500)
def test_moves(case):
    name, x = case
    agree(MOVES[name], x, ulps=32)


@pytest.mark.parametrize("name", sorted(MOVES))
def test_every_move(name):
    agree(MOVES[name], np.arange(24, dtype=np.float32).reshape(2, 3, 4), ulps=32)


PRODUCTS = {
    "matrix": (lambda a, b: a @ b, (3, 4), (4, 5)),
    "vectors": (lambda a, b: a @ b, (4,), (4,)),
    "row": (lambda a, b: a @ b, (4,), (2, 4, 3)),
    "column": (lambda a, b: np.matmul(a, b), (2, 3, 4), (4,)),
    "batch": (lambda a, b: a @ b, (2, 1, 3, 4), (5, 4, 2)),
    "rows": (lambda a, b: a @ b, (2, 3, 4), (4, 2)),
    "dot": (np.dot, (2, 3), (4, 3, 2)),
    "inner": (np.inner, (2, 3), (4, 3)),
    "outer": (np.outer, (2, 3), (4,)),
    "vdot": (np.vdot, (2, 3), (3, 2)),
    "cross": (np.cross, (2, 3), (2, 3)),
    "tensordot": (lambda a, b: np.tensordot(a, b, ([0, 2], [1, 0])), (2, 3, 4), (4, 2, 5)),
    "full": (lambda a, b: np.convolve(a, b), (6,), (3,)),
    "same": (lambda a, b: np.convolve(a, b, "same"), (6,), (4,)),
    "valid": (lambda a, b: np.convolve(a, b, "valid"), (3,), (7,)),
    "einsum": (lambda a, b: np.einsum("bij,bjk->bik", a, b), (2, 3, 4), (2, 4, 5)),
    "einsum_implicit": (lambda a, b: np.einsum("ij,jk", a, b), (3, 4), (4, 2)),
    "einsum_sums": (lambda a, b: np.einsum("ij,kl->il", a, b), (3, 4), (4, 2)),
    "einsum_dots": (lambda a, b: np.einsum("...ij,...jk->...ik", a, b), (2, 3, 4), (4, 2)),
    "einsum_diagonal": (lambda a, b: np.einsum("ii,ij->j", a, b), (3, 3), (3, 2)),
    "einsum_three": (lambda a, b: np.einsum("i,ij,j->", a, b, a), (3,), (3, 3)),
}


@pytest.mark.parametrize("name", sorted(PRODUCTS))
@pytest.mark.parametrize("types", [("float32", "float32"), ("int32", "int8"), ("float64", "int32")])
def test_products(name, types):
    function, *shapes = PRODUCTS[name]
    rng = np.random.default_rng(0)
    a, b = (
        rng.integers(-4, 5, shape).astype(dtype) for shape, dtype in zip(shapes, types, strict=True)
    )
    agree(function, a, b, ulps=32)


def test_top_k_and_softmax():
    x = np.array([[3, 1, 2, 3], [0, 5, 5, 4]], np.float32)
    best, places = traced(lambda x: aotc.top_k(x, 2), x)
    np.testing.assert_array_equal(best, [[3, 3], [5, 5]])
    np.testing.assert_array_equal(places, [[0, 3], [1, 2]])
    (soft,) = traced(aotc.softmax, x)
    power = np.exp(x - x.max(axis=1, keepdims=True))
    np.testing.assert_allclose(soft, power / power.sum(axis=1, keepdims=True), rtol=1e-6)
    np.testing.assert_array_equal(aotc.softmax(x), soft)  # on arrays as well
    np.testing.assert_array_equal(aotc.top_k(x, 2)[1], places)
    np.testing.assert_array_equal(aotc.updated(x, (0, 1), 9)[0], [3, 9, 2, 3])


def test_tensor_knows_its_type():
    seen = []

    def look(x):
        seen.append((x.shape, x.dtype, x.ndim, x.size, x.nbytes, len(x), np.shape(x), repr(x)))
        assert isinstance(x, Tensor)
        return x

    aotc.trace(look, aotc.spec((2, 3), "int16"))
    assert seen == [((2, 3), np.int16, 2, 6, 12, 2, (2, 3), "Tensor(int16[2,3])")]
