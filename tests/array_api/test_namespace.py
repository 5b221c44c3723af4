"""The functions of aotc.numpy against numpy's: equal for integers and movement, to a few roundings
for floats."""

import numpy as np
import pytest
from graph_runs import for_all
from hypothesis import strategies as st

import aotc
import aotc.numpy as xp
from aotc.errors import UnsupportedError, UsageError

KINDS = {
    "f": ("float32", "float64"),
    "i": ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    "b": ("bool",),
}
TWO = {
    "add": "fi", "subtract": "fi", "multiply": "fi", "divide": "f", "floor_divide": "fi",
    "remainder": "fi", "maximum": "fi", "minimum": "fi", "less": "fi", "greater_equal": "fi",
    "equal": "fib", "bitwise_and": "ib", "bitwise_xor": "ib", "logical_or": "b", "atan2": "f",
    "copysign": "f", "hypot": "f", "logaddexp": "f", "nextafter": "f",
}  # fmt: skip
ONE = {
    "abs": "fi", "negative": "fi", "sign": "fi", "square": "fi", "ceil": "fi", "trunc": "fi",
    "round": "fi", "isfinite": "fi", "exp": "f", "log1p": "f", "sin": "f", "sinh": "f", "atan": "f",
    "sqrt": "f", "signbit": "f", "bitwise_invert": "ib", "logical_not": "b", "reciprocal": "f",
}  # fmt: skip


@st.composite
def arrays(draw, kinds, shape):
    dtype = np.dtype(draw(st.sampled_from([name for kind in kinds for name in KINDS[kind]])))
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    whole = rng.integers(0 if dtype.kind in "ub" else -4, 2 if dtype.kind == "b" else 5, shape)
    return (whole + rng.random(shape) if dtype.kind == "f" else whole).astype(dtype)


def same(found, wanted, ulps=8):
    found, wanted = np.asarray(found), np.asarray(wanted)
    assert (found.dtype, found.shape) == (wanted.dtype, wanted.shape)
    if wanted.dtype.kind == "f":
        eps = float(np.finfo(wanted.dtype).eps) * ulps
        np.testing.assert_allclose(found, wanted, rtol=eps, atol=eps)
    else:
        np.testing.assert_array_equal(found, wanted)


@for_all(st.data(), quick=13, slow=300)
def test_elementwise_functions(data):
    name = data.draw(st.sampled_from(sorted(ONE) + sorted(TWO)))
    kinds = data.draw(st.sampled_from(ONE.get(name) or TWO[name]))
    shapes = [(3, 1), (1, 4)] if name in TWO else [(2, 3)]
    given = [data.draw(arrays(kinds, shape)) for shape in shapes]
    if any(a.dtype == np.uint64 for a in given) and any(a.dtype.kind == "i" for a in given):
        with pytest.raises(UsageError, match="no common type"):
            getattr(xp, name)(*map(xp.asarray, given))
        return
    if name in ("floor_divide", "remainder", "divide"):
        given[1] = np.where(given[1] == 0, given[1].dtype.type(1), given[1])
    with np.errstate(all="ignore"):
        wanted = getattr(np, name)(*given)
    same(getattr(xp, name)(*map(xp.asarray, given)), wanted)


MOVES = {
    "concat": lambda lib, x: lib.concat([x, x], axis=1),
    "stack": lambda lib, x: lib.stack([x, x], axis=-1),
    "flip": lambda lib, x: lib.flip(x, axis=(0, 2)),
    "roll": lambda lib, x: lib.roll(x, (1, -7), axis=(0, 2)),
    "roll all": lambda lib, x: lib.roll(x, 5),
    "tile": lambda lib, x: lib.tile(x, (2, 1, 1, 3)),
    "permute": lambda lib, x: lib.permute_dims(x, (2, 0, 1)),
    "move": lambda lib, x: lib.moveaxis(x, (0, 1), (-1, 0)),
    "expand": lambda lib, x: lib.expand_dims(x, axis=1),
    "reshape": lambda lib, x: lib.reshape(x, (4, -1)),
    "stretch": lambda lib, x: lib.broadcast_to(x, (5, *x.shape)),
    "repeat": lambda lib, x: lib.repeat(x, 3, axis=1),
    "tril": lambda lib, x: lib.tril(x, k=1),
    "unstack": lambda lib, x: lib.unstack(x, axis=1)[1],
    "take": lambda lib, x: lib.take(x, lib.asarray([2, 0, -1]), axis=1),
    "along": lambda lib, x: lib.take_along_axis(x, lib.asarray([[[0], [2], [1]]]), axis=2),
    "sort": lambda lib, x: lib.sort(x, axis=1),
    "argsort": lambda lib, x: lib.argsort(x, axis=0, stable=True),
    "cumulative_sum": lambda lib, x: lib.cumulative_sum(x, axis=1, include_initial=True),
    "cumulative_prod": lambda lib, x: lib.cumulative_prod(x, axis=-1),
    "sum": lambda lib, x: lib.sum(x, axis=(0, 2)),
    "prod": lambda lib, x: lib.prod(x, axis=1, keepdims=True),
    "max": lambda lib, x: lib.max(x, axis=-1),
    "argmin": lambda lib, x: lib.argmin(x, axis=1, keepdims=True),
    "all": lambda lib, x: lib.all(x, axis=0),
    "count": lambda lib, x: lib.count_nonzero(x, axis=2),
    "diff": lambda lib, x: lib.diff(x, axis=1, n=2),
    "isin": lambda lib, x: lib.isin(x, x[0, :2]),
    "nonzero": lambda lib, x: lib.stack(lib.nonzero(x)),
    "mask": lambda lib, x: x[x > x[0, 0, 0]],
    "some": lambda lib, x: x[1, ..., ::-2],
    "transpose": lambda lib, x: lib.matrix_transpose(x),
    "vecdot": lambda lib, x: lib.linalg.vecdot(x, x[0], axis=-1),
    "tensordot": lambda lib, x: lib.tensordot(x, x, axes=((0, 2), (0, 2))),
    "cross": lambda lib, x: lib.linalg.cross(x, x[::-1], axis=1),
    "trace": lambda lib, x: lib.linalg.trace(x, offset=1),
}


@for_all(st.tuples(st.sampled_from(sorted(MOVES)), arrays("fi", (2, 3, 4))), quick=15, slow=300)
def test_functions_of_many_elements(drawn):
    name, x = drawn
    if name == "isin" and x.dtype.kind == "f":
        x = np.floor(x)
    same(MOVES[name](xp, xp.asarray(x)), MOVES[name](np, x), ulps=64)


@pytest.mark.parametrize("name", ["sum", "cumulative_sum", "sort", "take", "cross", "reshape"])
def test_a_traced_function_gives_what_it_gives_at_once(name):
    x = np.random.default_rng(1).normal(size=(2, 3, 4))
    same(aotc.compile(aotc.trace(lambda x: MOVES[name](xp, x), x))(x), MOVES[name](xp, x_of(x)))


def x_of(values):
    return xp.asarray(values)


@pytest.mark.parametrize("side", ["left", "right"])
def test_searchsorted_with_ties_and_nan(side):
    table = np.array([1.0, 2, 2, 2, 5, np.nan])
    values = np.array([[0.0, 1, 2], [3, 9, np.nan]])
    found = xp.searchsorted(xp.asarray(table), xp.asarray(values), side=side)
    same(found, np.searchsorted(table, values, side=side))
    shuffled = xp.asarray(table[[3, 0, 5, 4, 1, 2]])
    order = xp.argsort(shuffled)
    same(xp.searchsorted(shuffled, xp.asarray(values), side=side, sorter=order), found)


def test_unique_elements_with_their_places_and_counts():
    x = np.array([[3.0, 1, 3], [np.nan, 1, np.nan]])
    found = xp.unique_all(xp.asarray(x))
    same(found.values, np.array([1.0, 3, np.nan, np.nan]))
    same(found.indices, np.array([1, 0, 3, 5]))
    same(found.inverse_indices, np.array([[1, 0, 1], [2, 0, 3]]))
    same(found.counts, np.array([2, 2, 1, 1]))
    assert xp.unique_values(xp.zeros((0, 2))).shape == (0,)
    flags = xp.unique_counts(xp.asarray([True, False, True]))
    same(flags.values, np.array([False, True]))
    same(flags.counts, np.array([1, 2]))


def test_counts_as_an_array():
    x = xp.asarray([[1, 2], [3, 4]])
    same(xp.repeat(x, xp.asarray([2, 0]), axis=1), np.repeat(np.asarray(x), [2, 0], axis=1))
    with pytest.raises(UsageError, match="counts for 2 elements"):
        xp.repeat(x, xp.asarray([1, 2, 3]), axis=1)


def test_sizes_that_depend_on_numbers_need_constants_while_tracing():
    def known(x):
        return x[xp.nonzero(xp.asarray([0, 1, 1]))[0]]

    same(aotc.compile(aotc.trace(known, aotc.spec((3,))))(np.float32([5, 6, 7])),
         np.float32([6, 7]))
    with pytest.raises(UnsupportedError, match="nonzero"):
        aotc.trace(lambda x: xp.nonzero(x)[0], aotc.spec((3,)))
    with pytest.raises(UnsupportedError, match="unique_all"):
        aotc.trace(lambda x: xp.unique_values(x), aotc.spec((3,)))


@pytest.mark.parametrize(
    "call",
    [
        lambda: xp.add(xp.asarray([1]), xp.asarray([1.0])),
        lambda: xp.add(xp.asarray([1]), 1.5),
        lambda: xp.add(xp.asarray([True]), 1),
        lambda: xp.asarray([1], dtype=xp.int8) + 300,
        lambda: xp.sin(xp.asarray([1])),
        lambda: xp.sum(xp.asarray([True])),
        lambda: xp.where(xp.asarray([1]), 1.0, 2.0),
        lambda: xp.result_type(1, 2),
        lambda: xp.asarray([1 + 2j]),
        lambda: xp.asarray([[1], [2, 3]]),
        lambda: xp.asarray([300], dtype=xp.uint8),
        lambda: xp.zeros((2, -1)),
        lambda: xp.zeros(3, device="gpu"),
        lambda: xp.zeros(3, dtype="complex64"),
        lambda: xp.full(3, 300, dtype=xp.int8),
        lambda: xp.arange(0, 300, dtype=xp.int8),
        lambda: xp.arange(0, 3, 0),
        lambda: xp.reshape(xp.zeros(4), (3, 2)),
        lambda: xp.reshape(xp.zeros(4), (2, 2), copy=False),
        lambda: xp.concat([]),
        lambda: xp.take(xp.zeros((2, 2)), xp.asarray([0])),
        lambda: xp.meshgrid(xp.zeros(2), indexing="yx"),
        lambda: xp.finfo(xp.int8),
        lambda: xp.isdtype(xp.int8, "whole"),
        lambda: xp.zeros(2).__array_namespace__(api_version="1999.12"),
        lambda: xp.from_dlpack(np.zeros(2, complex)),
        lambda: xp.linalg.inv(xp.zeros((2, 3))),
        lambda: xp.linalg.solve(xp.zeros((2, 2)), xp.zeros(3)),
        lambda: xp.fft.fftfreq(0),
        lambda: xp.engine("gpu").__enter__(),
    ],
)
def test_what_does_not_fit_is_one_clear_error(call):
    with pytest.raises(UsageError) as caught:
        call()
    assert "\n" not in caught.value.message and len(caught.value.message) > 10


def test_types():
    assert xp.result_type(xp.int8, xp.uint8, 3) == xp.int16
    assert xp.can_cast(xp.float32, xp.float64) and not xp.can_cast(xp.int16, xp.int8)
    assert xp.isdtype(xp.uint8, ("bool", "integral")) and not xp.isdtype(xp.bool, "numeric")
    assert (xp.iinfo(xp.uint8).max, xp.finfo(xp.float32).bits) == (255, 32)
    same(xp.astype(xp.asarray([1.9, -1.9, 300.0]), xp.int8), np.int8([1, -1, 127]))
    info = xp.__array_namespace_info__()
    assert set(info.dtypes(kind=("bool", "real floating"))) == {"bool", "float32", "float64"}
    assert info.default_dtypes()["integral"] == xp.asarray(1).dtype


def test_ranges_and_grids():
    same(xp.arange(5, -4, -2), np.arange(5, -4, -2))
    same(xp.linspace(0.0, 1.0, 4, endpoint=False), np.linspace(0, 1, 4, endpoint=False))
    same(xp.eye(3, 4, k=-10**30), np.zeros((3, 4)))
    found = xp.meshgrid(xp.asarray([1, 2, 3]), xp.asarray([4, 5]))
    for one, two in zip(found, np.meshgrid([1, 2, 3], [4, 5]), strict=True):
        same(one, two)
    same(xp.fft.fftfreq(5, d=0.5), np.fft.fftfreq(5, 0.5))
    same(xp.fft.rfftfreq(6), np.fft.rfftfreq(6))
    same(xp.fft.ifftshift(xp.fft.fftshift(xp.arange(5.0))), np.arange(5.0))


def functions():
    for space in (xp, xp.linalg, xp.fft):
        for name in space.__all__:
            if callable(getattr(space, name)) and name not in ("Array", "engine"):
                yield pytest.param(getattr(space, name), id=f"{space.__name__}.{name}")


JUNK = ("?", None, -1, 1.5, (1, 2), [], (3, "b"), object(), np.zeros(2), 1j, slice(1, 2), xp.int8)


@pytest.mark.slow
@pytest.mark.parametrize("function", list(functions()))
def test_whatever_is_given_ends_in_a_result_or_one_clear_error(function):
    random = np.random.default_rng(len(function.__name__))
    good = (xp.zeros((2, 2)), xp.asarray([1, 2]), xp.asarray(True))
    for _ in range(30):
        given = [(*good, *JUNK)[i] for i in random.integers(0, len(good) + len(JUNK), 2)]
        for inputs in (given, given[:1], [good[0], *given]):
            try:
                function(*inputs)
            except aotc.AotcError as error:
                assert error.message and "\n" not in error.message
