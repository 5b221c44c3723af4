"""The array object of aotc.numpy: operators, indexing, changes, and what other libraries see."""

import operator

import numpy as np
import pytest

import aotc
import aotc.numpy as xp
from aotc.errors import UsageError


@pytest.mark.parametrize("symbol", ["add", "sub", "mul", "truediv", "floordiv", "mod", "pow"])
def test_arithmetic_with_arrays_and_numbers_on_both_sides(symbol):
    apply = getattr(operator, symbol)
    values = np.float32([1, 2.5, 4])
    x = xp.asarray(values)
    for mine, numpys in ((x, values), (2, 2), (1.5, 1.5)):
        np.testing.assert_allclose(np.asarray(apply(x, mine)), apply(values, numpys), rtol=1e-6)
        np.testing.assert_allclose(np.asarray(apply(mine, x)), apply(numpys, values), rtol=1e-6)
    assert apply(x, 2).dtype == xp.float32
    y = getattr(operator, f"i{symbol}")(z := xp.asarray(values), 2)
    assert y is z and xp.all(y == apply(x, 2))


@pytest.mark.parametrize("symbol", ["and_", "or_", "xor", "lshift", "rshift"])
def test_bits(symbol):
    apply = getattr(operator, symbol)
    a, b = np.uint8([1, 6, 200]), np.uint8([3, 1, 2])
    np.testing.assert_array_equal(np.asarray(apply(xp.asarray(a), xp.asarray(b))), apply(a, b))
    assert int(~xp.asarray(5)) == -6


def test_in_place_operators_keep_type_and_shape():
    x = xp.ones((3,), dtype=xp.float32)
    with pytest.raises(UsageError, match="in place"):
        x += xp.ones((2, 3), dtype=xp.float32)
    with pytest.raises(UsageError, match="in place"):
        x += xp.ones((3,))


def test_changing_elements():
    values = np.arange(12).reshape(3, 4)
    for key, value in (
        ((1, slice(None, None, 2)), np.array([70, 71])),
        (Ellipsis, 5),
        (values % 3 == 0, -1),
        (-1, np.arange(4)),
    ):
        x, wanted = xp.asarray(values), values.copy()
        view = x
        copy = xp.asarray(x, copy=True)
        mine = xp.asarray(key) if isinstance(key, np.ndarray) else key
        x[mine] = xp.asarray(value) if isinstance(value, np.ndarray) else value
        wanted[key] = value
        np.testing.assert_array_equal(np.asarray(x), wanted)
        assert view is x and xp.all(copy == xp.asarray(values))
    with pytest.raises(UsageError, match="does not go with int64"):
        x[0] = 1.5
    with pytest.raises(UsageError, match="no common type"):
        x[0] = xp.ones(4)
    with pytest.raises(UsageError, match="does not go into int8"):
        xp.asarray([1], dtype=xp.int8)[0] = xp.asarray(1)


def test_keys_that_do_not_fit_are_index_errors():
    x = xp.zeros((2, 3))
    for key in ((0, 0, 0), 5, xp.asarray([True, False, True]), (..., ...)):
        with pytest.raises(IndexError) as caught:
            x[key]
        assert isinstance(caught.value, UsageError)
    with pytest.raises(ValueError):
        xp.squeeze(x, 1)


def test_a_mask_without_axes_takes_all_or_nothing():
    x = xp.asarray([1, 2])
    assert x[xp.asarray(True)].shape == (1, 2) and x[xp.asarray(False)].shape == (0, 2)


def test_an_empty_mask_takes_nothing():
    x, empty = xp.ones((2, 3)), xp.zeros((2, 0), dtype=xp.bool)
    assert x[empty].shape == (0,) and x[xp.zeros((0,), dtype=xp.bool)].shape == (0, 3)
    with pytest.raises(IndexError):
        x[xp.zeros((3, 0), dtype=xp.bool)]


def test_numbers():
    assert int(xp.asarray(3)) == 3 and float(xp.asarray(2.5)) == 2.5 and bool(xp.asarray(True))
    assert [10, 20, 30][xp.asarray(1)] == 20
    assert complex(xp.asarray(2.0)) == 2
    for convert, x in ((int, xp.ones(1)), (operator.index, xp.asarray(1.0)), (bool, xp.ones(2))):
        with pytest.raises(UsageError, match="is not one"):
            convert(x)
    with pytest.raises(UsageError, match="length"):
        len(xp.asarray(1))
    assert [int(each) for each in xp.asarray([4, 5])] == [4, 5]


def test_other_libraries_see_the_numbers():
    x = xp.asarray(np.float32([1, 2]))
    np.testing.assert_array_equal(np.from_dlpack(x), [1, 2])
    assert x.__dlpack_device__()[0] == 1 and x.device == "cpu" and x.to_device("cpu") is x
    back = xp.from_dlpack(np.arange(3))
    assert xp.all(back == xp.arange(3))
    assert x.__array_namespace__(api_version="2024.12") is xp
    assert repr(x) == "Array(array([1., 2.], dtype=float32))"


def test_functions_of_numpy_work_as_on_traced_values():
    x = xp.asarray([[1.0, 2.0], [3.0, 4.0]])
    for found in (np.sum(x, axis=0), np.add(x, 1)[0] + 2, np.arange(2.0) + 3 + np.zeros(2) * x[0]):
        assert isinstance(found, xp.Array)
    np.testing.assert_array_equal(np.asarray(np.einsum("ij,kj->ik", x, x)), [[5, 11], [11, 25]])


def test_arrays_are_constants_of_a_traced_function():
    weights = xp.asarray([1.0, 2.0, 3.0])

    def function(x):
        assert x.__array_namespace__() is xp and x.device == "cpu" and x.to_device("cpu") is x
        y = np.add(x, weights) - weights + (weights - x) * 2 + xp.sum(weights)
        return y @ weights

    x = np.array([1.0, -2.0, 0.5])
    graph = aotc.trace(function, x)
    assert len(graph.inputs) == 1 and bool(xp.all(weights == xp.asarray([1.0, 2.0, 3.0])))
    weights = np.asarray(weights)
    wanted = (x + (weights - x) * 2 + 6) @ weights
    np.testing.assert_allclose(aotc.compile(graph)(x), wanted)


def test_an_array_does_not_change_while_a_function_is_traced():
    total = xp.zeros(3)

    def changes(x):
        total[0] = x[0]
        return x

    with pytest.raises(UsageError, match="cannot be changed"):
        aotc.trace(changes, aotc.spec((3,)))

    def adds(x, y=total):
        y += x
        return y

    assert aotc.trace(adds, aotc.spec((3,), "float64")).outputs[0][1].shape == (3,)
    assert not xp.any(total)
