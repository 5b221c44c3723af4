"""Every scalar operation of the loop IR, compiled, against aotc.loop.arith, bit for bit."""

import numpy as np
import pytest
from native_kernels import (
    add,
    assert_same_bits,
    compile_native,
    mul,
    run_native,
    undefined_symbols,
)

from aotc.codegen.emit import emit_kernel
from aotc.codegen.machine import assembly
from aotc.graph.types import MACHINE_TYPES, DType
from aotc.loop import arith, mathlib
from aotc.loop.ir import (
    Bin,
    Bits,
    Buffer,
    Cmp,
    Conv,
    DotProduct,
    Fma,
    For,
    Kernel,
    Kind,
    Lit,
    Load,
    Quantize,
    Sel,
    ShortProducts,
    Store,
    Un,
    Var,
    Widened,
)
from aotc.target import DotProducts, resolve_target

FLOATS = (DType.F16, DType.F32, DType.F64)
INTS = tuple(t for t in MACHINE_TYPES if t.is_int)
LANES = 8
COUNT = 64


def values(dtype, seed):
    """COUNT values: the awkward ones of the type, then random ones."""
    rng = np.random.default_rng(seed)
    if dtype is DType.BOOL:
        return rng.integers(0, 2, COUNT).astype(bool)
    if dtype.is_float:
        special = [0.0, -0.0, 1.0, -1.0, 0.5, -0.5, 1.5, 2.5, -2.5, np.inf, -np.inf, np.nan]
        special += [127.9, -128.9, 255.5, 65504.0, 1e-7, 6e-8, 3e9, -3e9, 1e19, -1e19, 2049.0]
        body = rng.normal(0, 1, COUNT) * 10.0 ** rng.integers(-4, 5, COUNT)
    else:
        info = np.iinfo(dtype.numpy)
        special = [0, 1, 2, 3, 7, info.max, info.min, info.max - 1, info.min + 1]
        special += [-1, -2, -3] if info.min else [5]
        body = rng.integers(-50 if info.min else 0, 50, COUNT)
    with np.errstate(all="ignore"):
        result = body.astype(dtype.numpy)
        result[: len(special)] = np.array(special).astype(dtype.numpy)
    return rng.permutation(result)


def elementwise(expr_of, dtypes, result, lanes=LANES):
    """out[i] = expr_of(in0[i], in1[i], ...), in vectors when ``lanes`` is not 0."""
    inputs = [Buffer(f"x{i}", dtype, COUNT) for i, dtype in enumerate(dtypes)]
    output = Buffer("y", result, COUNT)
    i, v = Var("i"), Var("v")
    index = add(mul(i, lanes), v) if lanes else i
    store = Store(output, index, expr_of(*[Load(x, index) for x in inputs]))
    body = For(v, lanes, (store,), Kind.VECTOR, lanes) if lanes else store
    loop = For(i, COUNT // max(lanes, 1), (body,))
    return Kernel("elementwise", (*inputs, output), frozenset([output]), (loop,))


def check(expr_of, meaning, dtypes, result, **changes):
    """A kernel that computes in vectors, then in scalars, gives the bytes of ``meaning`` twice;
    ``changes`` are of the target."""
    inputs = [Buffer(f"x{i}", dtype, COUNT) for i, dtype in enumerate(dtypes)]
    outputs = [Buffer(name, result, COUNT) for name in ("vectors", "scalars")]
    i, j, v = Var("i"), Var("j"), Var("v")
    stores = [
        Store(y, index, expr_of(*[Load(x, index) for x in inputs]))
        for y, index in zip(outputs, (add(mul(i, LANES), v), j), strict=True)
    ]
    body = (
        For(i, COUNT // LANES, (For(v, LANES, (stores[0],), Kind.VECTOR, LANES),)),
        For(j, COUNT, (stores[1],)),
    )
    arrays = [values(dtype, seed) for seed, dtype in enumerate(dtypes)]
    got = [np.zeros(COUNT, result.numpy) for _ in outputs]
    kernel = Kernel("check", (*inputs, *outputs), frozenset(outputs), body)
    run_native(kernel, *arrays, *got, evaluate=False, **changes)
    want = meaning(*arrays)
    for array in got:
        assert_same_bits(array, want)


UNARY = [(fn, t) for fn in ("neg", "abs", "sqrt", "floor", "ceil", "round") for t in FLOATS]
UNARY += [(fn, t) for fn in ("neg", "abs", "bitnot") for t in INTS] + [("not", DType.BOOL)]


@pytest.mark.parametrize("fn, dtype", UNARY)
def test_unary(fn, dtype):
    check(lambda x: Un(fn, x), lambda x: arith.unary(fn, x), [dtype], dtype)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("fn", ["floor", "ceil", "round"])
def test_rounding_without_an_instruction_for_it(fn, dtype):
    check(lambda x: Un(fn, x), lambda x: arith.unary(fn, x), [dtype], dtype, rounding_bits=0)


@pytest.mark.parametrize("name", ["arm", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55"])
def test_rounding_calls_no_library_on_arm(name):
    target = resolve_target(name)
    kernels = [
        elementwise(lambda x, fn=fn: Un(fn, x), [DType.F32], DType.F32, lanes)
        for fn in ("floor", "ceil", "round")
        for lanes in (0, 4)
    ]
    text = "".join(emit_kernel(k, target, f"k{i}", private=False) for i, k in enumerate(kernels))
    assert "\tbl\t" not in assembly(text, target)


@pytest.mark.parametrize("is_number", [True, False])
@pytest.mark.parametrize(
    "zero, low, high, dtype",
    [
        (0, 0, 255, DType.U8),
        (-3, -128, 127, DType.I8),
        (9, 9, 200, DType.U8),
        (0, -9, 9, DType.I16),
    ],
)
def test_quantize(zero, low, high, dtype, is_number):
    def codes(x):
        x = Un("abs", x) if is_number else x
        x = Bin("min", Conv(Conv(x, DType.I32), DType.F32), Lit(1e9, DType.F32)) if is_number else x
        return Quantize(x, zero, low, high, dtype, is_number)

    def meaning(x):
        if is_number:
            x = arith.convert(arith.convert(np.abs(x), DType.I32), DType.F32)
            x = np.minimum(x, np.float32(1e9))
        return arith.quantize(x, zero, low, high, dtype)

    check(codes, meaning, [DType.F32], dtype)


def test_the_meaning_of_quantize():
    x = np.array([0.5, 1.5, -0.5, -2.5, 300, -300, np.nan, np.inf, -np.inf], np.float32)
    wanted = np.array([10, 12, 10, 8, 255, 3, 0, 255, 3], np.uint8)
    np.testing.assert_array_equal(arith.quantize(x, 10, 3, 255, DType.U8), wanted)


@pytest.mark.parametrize("style", [s for s in DotProducts if s.name in ("VNNI", "PMADD", "NONE")])
@pytest.mark.parametrize("lanes", [0, 2, 4, 8, 16])
def test_dot_products(style, lanes):
    if style is DotProducts.VNNI and resolve_target("x86_64", "native").dot_products is not style:
        pytest.skip("this processor has no VNNI")
    count = 32
    a, b = Buffer("a", DType.U8, 4 * count), Buffer("b", DType.I8, 4 * count)
    c, y = Buffer("c", DType.I32, count), Buffer("y", DType.I32, count)
    i, v = Var("i"), Var("v")
    at = add(mul(i, max(lanes, 1)), v) if lanes else i
    # the first operand is the same in all lanes, as a pixel is for all channels
    value = DotProduct(a, mul(i, 4), b, mul(at, 4), Load(c, at))
    store = Store(y, at, value)
    body = For(v, lanes, (store,), Kind.VECTOR, lanes) if lanes else store
    loop = For(i, count // max(lanes, 1), (body,))
    kernel = Kernel("dots", (a, b, c, y), frozenset([y]), (loop,))
    random = np.random.default_rng(lanes)
    arrays = [
        random.integers(0, 256, 4 * count).astype(np.uint8),
        random.choice([-128, 127, -1, 3], 4 * count).astype(np.int8),
        random.integers(-(2**31), 2**31, count).astype(np.int32),
        np.zeros(count, np.int32),
    ]
    run_native(kernel, *arrays, dot_products=style)
    first = np.arange(count) // max(lanes, 1)
    groups = arrays[0].reshape(count, 4)[first].astype(np.int64)
    exact = (groups * arrays[1].reshape(count, 4)).sum(axis=1) + arrays[2]
    np.testing.assert_array_equal(arrays[3], exact.astype(np.int32))


def test_words_of_four_int16():
    count = 24
    a, b = Buffer("a", DType.U8, 4 * count), Buffer("b", DType.I8, 4 * count)
    c, y = Buffer("c", DType.I32, count), Buffer("y", DType.I32, count)
    i = Var("i")
    value = ShortProducts(Widened(a, mul(i, 4)), Widened(b, mul(i, 4)), Load(c, i))
    kernel = Kernel("quads", (a, b, c, y), frozenset([y]), (For(i, count, (Store(y, i, value),)),))
    random = np.random.default_rng(0)
    arrays = [
        random.choice([0, 1, 128, 255], 4 * count).astype(np.uint8),
        random.choice([-128, 127, -1, 3], 4 * count).astype(np.int8),
        random.integers(-(2**31), 2**31, count).astype(np.int32),
        np.zeros(count, np.int32),
    ]
    run_native(kernel, *arrays, dot_products=DotProducts.NONE)
    products = arrays[0].astype(np.int64) * arrays[1]
    exact = products.reshape(count, 4).sum(axis=1) + arrays[2]
    np.testing.assert_array_equal(arrays[3], exact.astype(np.int32))


def test_words_of_two_int16():
    count = 24
    a, b, c, y = (Buffer(name, DType.I32, count) for name in "abcy")
    i = Var("i")
    value = ShortProducts(Load(a, i), Load(b, i), Load(c, i))
    kernel = Kernel("twos", (a, b, c, y), frozenset([y]), (For(i, count, (Store(y, i, value),)),))
    random = np.random.default_rng(0)
    halves = [random.choice([-(2**15), 2**15 - 1, -1, 3], 2 * count) for _ in range(2)]
    sums = random.integers(-(2**31), 2**31, count).astype(np.int32)
    words = [half.astype(np.int16).view(np.int32) for half in halves]
    found = np.zeros(count, np.int32)
    run_native(kernel, *words, sums, found, dot_products=DotProducts.NONE)
    exact = (halves[0] * halves[1]).reshape(count, 2).sum(axis=1) + sums
    np.testing.assert_array_equal(found, exact.astype(np.int32))
    np.testing.assert_array_equal(found, arith.short_products(*words, sums))


BINARY = [(fn, t) for fn in ("add", "sub", "mul", "div", "min", "max") for t in FLOATS]
BINARY += [
    (fn, t)
    for fn in ("add", "mul", "div", "mod", "min", "max", "xor", "shl", "shr")
    for t in INTS
]
BINARY += [(fn, DType.BOOL) for fn in ("and", "or", "xor")]


@pytest.mark.parametrize("fn, dtype", BINARY)
def test_binary(fn, dtype):
    check(lambda a, b: Bin(fn, a, b), lambda a, b: arith.binary(fn, a, b), [dtype] * 2, dtype)


@pytest.mark.parametrize("dtype", [DType.F16, DType.F32, DType.F64, DType.I32, DType.U8, DType.I64])
@pytest.mark.parametrize("fn", ["eq", "ne", "lt", "le", "gt", "ge"])
def test_compare(fn, dtype):
    check(
        lambda a, b: Cmp(fn, a, b), lambda a, b: arith.compare(fn, a, b), [dtype] * 2, DType.BOOL
    )


@pytest.mark.parametrize("dtype", [*FLOATS, DType.I32])
def test_fma(dtype):
    check(lambda a, b, c: Fma(a, b, c), arith.fma, [dtype] * 3, dtype)


def test_f16_fma_rounds_once():
    rng = np.random.default_rng(1)
    kernel = elementwise(lambda a, b, c: Fma(a, b, c), [DType.F16] * 3, DType.F16)
    a, b = (rng.integers(1024, 2048, COUNT).astype(np.float16) / 1024 for _ in range(2))
    for tiny in (2.0**-24, -(2.0**-24), 2.0**-11):
        c, got = np.full(COUNT, tiny, np.float16), np.zeros(COUNT, np.float16)
        run_native(kernel, a, b, c, got)
        exact = a.astype(np.float64) * b + c  # all of it fits into 53 bits
        assert_same_bits(got, exact.astype(np.float16))


@pytest.mark.slow
@pytest.mark.parametrize("target", MACHINE_TYPES)
def test_convert(target):
    for source in MACHINE_TYPES:
        check(lambda x: Conv(x, target), lambda x: arith.convert(x, target), [source], target)


@pytest.mark.parametrize("literal", [0.0, 6.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("fn", ["min", "max"])
def test_min_and_max_with_a_literal(fn, literal):
    lit = Lit(literal, DType.F32)
    fixed = np.full(COUNT, literal, np.float32)
    f32 = [DType.F32]
    check(lambda x: Bin(fn, x, lit), lambda x: arith.binary(fn, x, fixed), f32, DType.F32)
    check(lambda x: Bin(fn, lit, x), lambda x: arith.binary(fn, fixed, x), f32, DType.F32)


def test_select_with_vector_and_scalar_condition():
    dtypes = [DType.BOOL, DType.F32, DType.F32]
    check(lambda c, a, b: Sel(c, a, b), np.where, dtypes, DType.F32)


def test_bits_round_trip():
    expr = lambda x: Bits(add(Bits(x, DType.I32), Lit(1, DType.I32)), DType.F32)  # noqa: E731
    x = np.abs(np.random.default_rng(0).normal(size=COUNT)).astype(np.float32)
    got = np.zeros_like(x)
    run_native(elementwise(expr, [DType.F32], DType.F32), x, got)
    assert np.array_equal(got, np.nextafter(x, np.float32(np.inf)))


@pytest.mark.slow
@pytest.mark.parametrize("name, cpu", [("x86_64", "x86-64-v3"), ("aarch64", "generic")])
def test_no_operation_calls_a_library(name, cpu):
    target = resolve_target(name, cpu)
    kernels = [elementwise(lambda x, fn=fn: Un(fn, x), [t], t) for fn, t in UNARY]
    kernels += [elementwise(lambda a, b, fn=fn: Bin(fn, a, b), [t, t], t) for fn, t in BINARY]
    kernels += [elementwise(lambda a, b, c: Fma(a, b, c), [t] * 3, t) for t in FLOATS]
    pairs = [(s, t) for s in MACHINE_TYPES for t in MACHINE_TYPES]
    kernels += [elementwise(lambda x, t=t: Conv(x, t), [s], t) for s, t in pairs]
    text = "".join(emit_kernel(k, target, f"k{i}", private=False) for i, k in enumerate(kernels))
    lines = assembly(text, target).splitlines()
    calls = [line for line in lines if "\tcall" in line or "\tbl\t" in line]
    assert calls == []


def test_relu_is_at_most_two_instructions_per_vector():
    relu = elementwise(
        lambda x: Bin("max", x, Lit(0.0, DType.F32)), [DType.F32], DType.F32, lanes=16
    )
    narrow, wide = (resolve_target("x86_64", cpu) for cpu in ("x86-64-v3", "x86-64-v4"))
    text = assembly(emit_kernel(relu, wide, "relu", private=False), wide)
    assert text.count("\tvmaxps") == 1 and "vcmp" not in text
    text = assembly(emit_kernel(relu, narrow, "relu", private=False), narrow)
    assert text.count("\tvcmp") == text.count("\tvand") == 2 and "blend" not in text
    six = elementwise(
        lambda x: Bin("min", x, Lit(6.0, DType.F32)), [DType.F32], DType.F32, lanes=16
    )
    text = assembly(emit_kernel(six, wide, "six", private=False), wide)
    assert text.count("\tvminps") == 1 and "vcmp" not in text


def test_fill_and_copy_do_not_become_library_calls(tmp_path):
    fill = elementwise(lambda x: Lit(0, DType.I8), [DType.I8], DType.I8, lanes=0)
    copy = elementwise(lambda x: x, [DType.U8], DType.U8, lanes=0)
    for kernel in (fill, copy):
        assert undefined_symbols(compile_native(kernel), tmp_path / "k.o") == []


@pytest.mark.parametrize("cpu", ["x86-64-v3", "native"])
@pytest.mark.parametrize("fn", sorted(set(mathlib.MAX_ULP) - {"pow"}))
def test_math_functions_have_the_evaluators_bits(fn, cpu):
    kernel = elementwise(lambda x: mathlib.unary(fn, x), [DType.F32], DType.F32)
    got = np.zeros(COUNT, np.float32)
    run_native(kernel, values(DType.F32, 7), got, cpu=cpu)
    assert not np.all(got == 0)
