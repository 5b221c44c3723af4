"""What arrays are evaluated with: compiled code gives the special values of the evaluator."""

import numpy as np
import pytest

import aotc.numpy as xp

ONE = (
    *("acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "exp", "expm1", "log"),
    *("log1p", "log2", "log10", "reciprocal", "sin", "sinh", "sqrt", "tan", "tanh", "abs", "ceil"),
    *("floor", "negative", "sign", "square", "trunc", "round"),
)
TWO = (
    *("add", "subtract", "multiply", "divide", "floor_divide", "pow", "atan2", "copysign"),
    *("hypot", "logaddexp", "nextafter", "remainder"),
)
QUICK = {"exp", "log", "tanh", "atan2", "pow"}
SIMPLE = [0.0, -0.0, 1, -1, 0.5, 2, -3, 2.5, 1e-3, 10.7, -88, 100, -700, 9e4]


def special(dtype):
    ends = np.finfo(dtype)
    more = [ends.max, -ends.max, ends.tiny, ends.eps, 1 - ends.eps, 1 + ends.eps, -1 - ends.eps]
    return np.array([*SIMPLE, np.inf, -np.inf, np.nan, *more], dtype)


def in_order(x):
    """Floats as integers one apart for neighbours."""
    bits = x.view(np.int32 if x.dtype == np.float32 else np.int64)
    return np.where(bits < 0, np.iinfo(bits.dtype).min - bits, bits)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in ONE + TWO],
)
def test_special_values_of_compiled_functions(name, dtype):
    x = special(dtype)
    if name in ("sin", "cos", "tan"):
        x = x[~(np.abs(x) > 1e5) | np.isinf(x)]
    values = [x] if name in ONE else [np.repeat(x, x.size), np.tile(x, x.size)]
    if name == "remainder":
        with np.errstate(all="ignore"):
            exact = ~(np.abs(values[0] / values[1]) > 2.0**52) | (values[1] == 0)
        values = [each[exact] for each in values]
    given = [xp.asarray(each) for each in values]
    wanted = np.asarray(getattr(xp, name)(*given))
    with xp.engine("machine"):
        found = np.asarray(getattr(xp, name)(*given))
    assert found.dtype == wanted.dtype == dtype
    finite = np.isfinite(wanted)
    np.testing.assert_array_equal(found[~finite], wanted[~finite])
    apart = np.abs(in_order(found[finite]).astype(float) - in_order(wanted[finite]))
    near_zero = np.abs(found[finite] - wanted[finite]) < np.finfo(dtype).eps
    assert np.all((apart <= 8) | near_zero)
    zero = wanted == 0
    np.testing.assert_array_equal(np.signbit(found[zero]), np.signbit(wanted[zero]))


def test_an_engine_ends_with_its_block_and_compiles_once_for_each_type(monkeypatch):
    from aotc.numpy import eager

    compiled = []

    def counted(graph):
        compiled.append(graph)
        return original(graph)

    original = eager.compile_graph
    monkeypatch.setattr(eager, "compile_graph", counted)
    x, y = xp.asarray([1.0, 2.0, 5.0]), xp.asarray([3.0, 4.0, 7.0])
    with xp.engine("machine"):
        found = [x * y - x, y * x - x]
    assert len(compiled) == 2  # one product, one difference
    np.testing.assert_array_equal(np.asarray(found[1]), [2, 6, 30])
    assert xp.all(x * y - x == found[0]) and len(compiled) == 2
