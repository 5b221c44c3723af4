"""Conversions of narrow types against ml_dtypes: every code, every half, and float32 around each
boundary; machine code too."""

import ml_dtypes
import numpy as np
import pytest

import aotc
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.types import MACHINE_TYPES, DType, TensorType
from aotc.passes.legalize import legalize

NARROW = [dtype for dtype in DType if dtype.is_narrow]
NARROW_FLOATS = [dtype for dtype in NARROW if dtype.is_float]


def cast_graph(source, target, count):
    b = Builder()
    x = b.parameter("x", TensorType(source, (count,)))
    return b.finish("g", [("y", b.cast(x, target))])


def codes(dtype):
    """Every value of a type of at most 16 bits."""
    if dtype is DType.BOOL:
        return np.array([False, True])
    return np.arange(1 << dtype.size_bits).astype(f"u{dtype.size_bytes}").view(dtype.numpy)


def boundaries(dtype):
    """float32 or float64 numbers on, beside and midway between the numbers of all narrow types."""
    near = [np.array([0.0, -0.0, np.inf, -np.inf, np.nan], dtype.numpy)]
    for narrow in NARROW_FLOATS:
        with np.errstate(all="ignore"):
            numbers = codes(narrow).astype(np.float64)
        numbers = np.sort(numbers[np.isfinite(numbers)])
        for place in (numbers, (numbers[1:] + numbers[:-1]) / 2):
            exact = place.astype(dtype.numpy)
            up, down = (np.nextafter(exact, dtype.numpy.type(end)) for end in (np.inf, -np.inf))
            near += [exact, up, down]
    return np.concatenate(near)


def random_bits(dtype, count, seed=0):
    ends = 8 * dtype.size_bytes
    bits = np.random.default_rng(seed).integers(0, 1 << ends, count, np.uint64, endpoint=False)
    return bits.astype(f"u{dtype.size_bytes}").view(dtype.numpy)


def values_of(dtype, count=4096):
    if dtype.size_bits <= 16:
        return codes(dtype)
    drawn = random_bits(dtype, count)
    if dtype.is_float:
        return np.concatenate([drawn, boundaries(dtype)])
    return np.concatenate([drawn, np.arange(-300, 300).astype(dtype.numpy)])


def reference(x, source, target):
    """ml_dtypes' own conversion; between two of its types by way of float32."""
    with np.errstate(all="ignore"):
        if target is DType.BOOL:
            return x != 0
        if source.is_narrow and target.is_narrow:
            x = x.astype(np.float32)
        return x.astype(target.numpy)


def in_range(x, source, target):
    """The elements whose conversion is defined: out of an integer's range anything may come."""
    if not (source.is_float and target.is_int):
        return np.ones(x.shape, bool)
    low, high = (DType.I32 if target.is_narrow else target).int_range
    with np.errstate(all="ignore"):
        whole = np.trunc(x.astype(np.float32).astype(np.float64))
    return (whole >= low) & (whole < high + 1)


def assert_same(found, expected, dtype):
    """Equal bits; a NaN only has to be one."""
    assert found.dtype == expected.dtype == dtype.numpy
    if not dtype.is_float:
        np.testing.assert_array_equal(found, expected)
        return
    differs = found.view(f"u{dtype.size_bytes}") != expected.view(f"u{dtype.size_bytes}")
    differs &= ~(np.isnan(found) & np.isnan(expected))
    assert not differs.any(), (found[differs][:5], expected[differs][:5])


@pytest.mark.parametrize("target", DType)
@pytest.mark.parametrize("source", DType)
def test_every_pair_converts_as_ml_dtypes_does(source, target):
    if not (source.is_narrow or target.is_narrow) or source is target:
        return
    x = values_of(source)
    graph = cast_graph(source, target, x.size)
    expected = evaluate(graph, {"x": x})["y"]
    assert_same(evaluate(legalize(graph), {"x": x})["y"], expected, target)
    defined = in_range(x, source, target)
    assert_same(expected[defined], reference(x, source, target)[defined], target)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", NARROW)
def test_machine_code_to_and_from_float32(dtype):
    for source, target in ((dtype, DType.F32), (DType.F32, dtype)):
        x = values_of(source)
        graph = cast_graph(source, target, x.size)
        assert_same(aotc.compile(graph)(x), evaluate(graph, {"x": x})["y"], target)


@pytest.mark.slow
@pytest.mark.parametrize("narrow", NARROW)
def test_machine_code_for_every_pair(narrow):
    for other in (*MACHINE_TYPES, *NARROW):
        for source, target in ((narrow, other), (other, narrow)):
            if source is not target:
                x = values_of(source)
                graph = cast_graph(source, target, x.size)
                assert_same(aotc.compile(graph)(x), evaluate(graph, {"x": x})["y"], target)


@pytest.mark.slow
@pytest.mark.parametrize("narrow", NARROW_FLOATS)
@pytest.mark.parametrize("source", [DType.F32, DType.F64, DType.I32, DType.I64])
def test_many_random_bit_patterns(source, narrow):
    x = random_bits(source, 1 << 20, seed=1)
    graph = cast_graph(source, narrow, x.size)
    assert_same(aotc.compile(graph)(x), reference(x, source, narrow), narrow)


def test_halves_are_rounded_once_from_every_type():
    tie = 1 + 2.0**-11  # midway between two float16; beyond it by less than float32 can tell
    x = np.array([tie, tie + 2.0**-40, tie - 2.0**-40, 2.0**-25, 2.0**-25 + 2.0**-60, 65520.0])
    graph = cast_graph(DType.F64, DType.F16, x.size)
    expected = np.array([1, 1 + 2.0**-10, 1, 0, 2.0**-24, np.inf], np.float16)
    np.testing.assert_array_equal(aotc.compile(graph)(x), expected)
    single = np.concatenate([boundaries(DType.F32), random_bits(DType.F32, 1 << 14)])
    graph = cast_graph(DType.F32, DType.F16, single.size)
    with np.errstate(all="ignore"):
        assert_same(aotc.compile(graph)(single), single.astype(np.float16), DType.F16)


def test_spare_bits_of_small_types_are_ignored():
    bits = np.array([0xFF, 0xF7, 0x13], np.uint8)
    for dtype, expected in (
        (DType.I4, [-1, 7, 3]),
        (DType.U4, [15, 7, 3]),
        (DType.I2, [-1, -1, -1]),
        (DType.U2, [3, 3, 3]),
        (DType.F4E2M1, [-6, 6, 1.5]),
    ):
        x = bits.view(dtype.numpy)
        found = aotc.compile(cast_graph(dtype, DType.F32, 3))(x)
        np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_the_formats_are_those_of_ml_dtypes():
    for dtype in NARROW_FLOATS:
        info = ml_dtypes.finfo(dtype.numpy)
        assert info.bits == dtype.size_bits
