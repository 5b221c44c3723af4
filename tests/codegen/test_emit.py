"""Kernels as machine code against what they mean: loops, vectors, tails, strides, registers."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from native_kernels import add, compile_native, mul, run_native, run_object

from aotc.codegen.emit import emit_kernel
from aotc.codegen.machine import assembly
from aotc.errors import VerifyError
from aotc.graph.types import DType
from aotc.loop.ir import (
    Alloc,
    Bin,
    Buffer,
    Conv,
    Fma,
    For,
    Kernel,
    Kind,
    Lit,
    Load,
    Prefetch,
    Quantize,
    Sel,
    Space,
    Store,
    Un,
    Var,
)
from aotc.target import resolve_target

F32, I64, I32, U8, BOOL = DType.F32, DType.I64, DType.I32, DType.U8, DType.BOOL
CPUS = ("x86-64-v3", "native")


def kernel_of(params, writes, *body, may_alias=False):
    return Kernel("kernel", tuple(params), frozenset(writes), body, may_alias)


def random(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def vector(var, lanes, *body, extent=None):
    return For(var, extent or lanes, body, Kind.VECTOR, lanes)


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("count", [1, 8, 9, 37])
@pytest.mark.parametrize("dtype", [F32, U8, BOOL, I64, DType.F16])
def test_elementwise_with_tail_touches_only_its_elements(count, dtype, cpu):
    lanes = 8
    x, y = Buffer("x", dtype, count), Buffer("y", dtype, count)
    i, v, w = Var("i"), Var("v"), Var("w")
    body, whole, rest = [], count // lanes, count % lanes
    if whole:
        at = add(mul(i, lanes), v)
        body.append(For(i, whole, (vector(v, lanes, Store(y, at, Load(x, at))),)))
    if rest:
        at = add(w, whole * lanes)
        body.append(vector(w, lanes, Store(y, at, Load(x, at)), extent=rest))
    source = np.arange(1, count + 1).astype(dtype.numpy)
    memory = np.zeros(count + 2 * lanes, dtype.numpy)
    run_native(kernel_of([x, y], [y], *body), source, memory[lanes : lanes + count], cpu=cpu)
    assert np.array_equal(memory[lanes : lanes + count], source)
    assert not memory[:lanes].any() and not memory[lanes + count :].any()


@settings(max_examples=25, deadline=None)
@given(
    step=st.integers(-4, 5).filter(lambda s: s != 0),
    store_step=st.sampled_from([-2, -1, 1, 2, 3]),
    extent=st.integers(1, 8),
    count=st.integers(1, 3),
)
def test_strided_loads_and_stores(step, store_step, extent, count):
    lanes, size = 8, 200
    x, y = Buffer("x", F32, size), Buffer("y", F32, size)
    i, v = Var("i"), Var("v")
    read = add(add(mul(i, 40), mul(v, step)), 50)
    write = add(add(mul(i, 40), mul(v, store_step)), 60)
    loop = For(i, count, (vector(v, lanes, Store(y, write, Load(x, read)), extent=extent),))
    source, got, want = random(size), np.zeros(size, np.float32), np.zeros(size, np.float32)
    for n in range(count):
        for lane in range(extent):
            want[n * 40 + lane * store_step + 60] = source[n * 40 + lane * step + 50]
    run_native(kernel_of([x, y], [y], loop), source, got)
    assert np.array_equal(got, want)


@pytest.mark.parametrize("step", [-1, 2, 3, 4, 5])
@pytest.mark.parametrize("lanes", [4, 8, 16])
def test_a_strided_load_reads_only_from_its_first_to_its_last_element(step, lanes):
    span = abs(step) * (lanes - 1) + 1
    x, y, v = Buffer("x", F32, span), Buffer("y", F32, lanes), Var("v")
    start = 0 if step > 0 else span - 1
    body = vector(v, lanes, Store(y, v, Load(x, add(mul(v, step), start))))
    source, got = random(span), np.zeros(lanes, np.float32)
    run_native(kernel_of([x, y], [y], body), source, got)
    assert np.array_equal(got, source[::step])
    target = resolve_target()
    text = emit_kernel(kernel_of([x, y], [y], body), target, "k")
    assert ("insertelement" in text) == (step == 5)


def test_gather_rows_by_loaded_index():
    rows, width, picks = 10, 16, 5
    table, ids = Buffer("table", F32, rows * width), Buffer("ids", I32, picks)
    out = Buffer("out", F32, picks * width)
    i, v = Var("i"), Var("v")
    raw = Conv(Load(ids, i), I64)
    row = Sel(Bin("and", *[_less(raw, 0)] * 2), add(raw, rows), raw)
    value = Load(table, add(mul(row, width), v))
    loop = For(i, picks, (vector(v, width, Store(out, add(mul(i, width), v), value)),))
    source, got = random((rows, width)), np.zeros((picks, width), np.float32)
    index = np.array([3, -1, 0, 9, -10], np.int32)
    kernel = kernel_of([table, ids, out], [out], loop)
    run_native(kernel, source, index, got)
    assert np.array_equal(got, source[index])
    target = resolve_target("x86_64", "x86-64-v4")
    text = assembly(emit_kernel(kernel, target, "gather", private=False), target)
    assert "insert" not in text  # a row is contiguous: one vector load


def _less(a, value):
    from aotc.loop.ir import Cmp

    return Cmp("lt", a, Lit(value))


def test_gather_of_single_elements_by_lane():
    lanes = 8
    x, ids, y = Buffer("x", F32, 50), Buffer("ids", I64, lanes), Buffer("y", F32, lanes)
    v = Var("v")
    body = vector(v, lanes, Store(y, v, Load(x, Load(ids, v))))
    source, got = random(50), np.zeros(lanes, np.float32)
    index = np.array([4, 49, 0, 4, 31, 7, 8, 9])
    run_native(kernel_of([x, ids, y], [y], body), source, index, got)
    assert np.array_equal(got, source[index])


@pytest.mark.parametrize("kind", [Kind.SERIAL, Kind.UNROLLED, Kind.PARALLEL])
def test_div_and_mod_in_an_index(kind):
    # A transposition written with one loop: y[c*6 + r] = x[r*4 + c].
    x, y, i = Buffer("x", F32, 24), Buffer("y", F32, 24), Var("i")
    row, column = Bin("div", i, Lit(4)), Bin("mod", i, Lit(4))
    store = Store(y, add(mul(column, 6), row), Load(x, i))
    source, got = random((6, 4)), np.zeros((4, 6), np.float32)
    run_native(kernel_of([x, y], [y], For(i, 24, (store,), kind)), source, got)
    assert np.array_equal(got, source.T)


def test_div_and_mod_of_the_lane_in_an_index_and_as_data():
    x, y, z = Buffer("x", F32, 24), Buffer("y", F32, 24), Buffer("z", I64, 24)
    i, v = Var("i"), Var("v")
    at = add(mul(i, 8), v)
    row, column = Bin("div", at, Lit(4)), Bin("mod", at, Lit(4))
    below_zero = Bin("mod", Bin("sub", at, Lit(20)), Lit(7))
    body = vector(
        v, 8, Store(y, add(mul(column, 6), row), Load(x, at)), Store(z, at, below_zero)
    )
    source, got = random((6, 4)), np.zeros((4, 6), np.float32)
    data = np.zeros(24, np.int64)
    run_native(kernel_of([x, y, z], [y, z], For(i, 3, (body,))), source, got, data)
    assert np.array_equal(got, source.T)
    assert np.array_equal(data, (np.arange(24) - 20) % 7)


def test_loop_variables_as_data():
    y, i, u, v = Buffer("y", I64, 48), Var("i"), Var("u"), Var("v")
    at = add(add(mul(i, 16), mul(u, 8)), v)
    value = Bin("sub", mul(at, 3), Lit(100))
    loop = For(i, 3, (For(u, 2, (vector(v, 8, Store(y, at, value)),), Kind.UNROLLED),))
    got = np.zeros(48, np.int64)
    run_native(kernel_of([y], [y], loop), got)
    assert np.array_equal(got, np.arange(48) * 3 - 100)


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("count", [16, 40, 37])
@pytest.mark.parametrize("fn", ["add", "max"])
def test_reduction_with_a_tree_over_lanes(count, fn, cpu):
    lanes = 16
    x, y = Buffer("x", F32, count), Buffer("y", F32, 1)
    acc = Buffer("acc", F32, lanes, Space.REGISTER)
    start = Lit(0.0 if fn == "add" else -np.inf, F32)
    i, v, w, u = Var("i"), Var("v"), Var("w"), Var("u")

    def accumulate(var, at):
        return Store(acc, var, Bin(fn, Load(acc, var), Load(x, at)))

    body = [vector(u, lanes, Store(acc, u, start))]
    whole, rest = divmod(count, lanes)
    body.append(For(i, whole, (vector(v, lanes, accumulate(v, add(mul(i, lanes), v))),)))
    if rest:
        body.append(vector(w, lanes, accumulate(w, add(w, whole * lanes)), extent=rest))
    width = lanes
    while width > 1:
        width //= 2
        t = Var("t")
        upper = Load(acc, add(t, width))
        body.append(vector(t, width, Store(acc, t, Bin(fn, Load(acc, t), upper))))
    body.append(Store(y, Lit(0), Load(acc, Lit(0))))
    source, got = random(count) - 5, np.zeros(1, np.float32)
    kernel = kernel_of([x, y], [y], Alloc(acc, tuple(body)))
    run_native(kernel, source, got, cpu=cpu)
    assert got[0] == _lane_tree(source, lanes, fn)
    target = resolve_target("x86_64", "x86-64-v4")
    text = assembly(emit_kernel(kernel, target, "reduce", private=False), target)
    assert "rsp" not in text  # the accumulator lives in registers


def _lane_tree(source, lanes, fn):
    ufunc = np.add if fn == "add" else np.maximum
    acc = np.full(lanes, 0.0 if fn == "add" else -np.inf, np.float32)
    for start in range(0, len(source), lanes):
        part = source[start : start + lanes]
        acc[: len(part)] = ufunc(acc[: len(part)], part)
    while len(acc) > 1:
        acc = ufunc(acc[: len(acc) // 2], acc[len(acc) // 2 :])
    return acc[0]


def test_tail_of_a_register_tile_needs_no_blend_when_nobody_reads_the_rest():
    lanes, active, depth = 16, 5, 32
    a, b = Buffer("a", F32, depth), Buffer("b", F32, depth * active)
    c, acc = Buffer("c", F32, active), Buffer("acc", F32, lanes, Space.REGISTER)
    k, t, v, w = Var("k"), Var("t"), Var("v"), Var("w")
    step = Fma(Load(a, k), Load(b, add(mul(k, active), v)), Load(acc, v))
    body = (
        vector(t, lanes, Store(acc, t, Lit(0.0, F32)), extent=active),
        For(k, depth, (vector(v, lanes, Store(acc, v, step), extent=active),)),
        vector(w, lanes, Store(c, w, Load(acc, w)), extent=active),
    )
    kernel = kernel_of([a, b, c], [c], Alloc(acc, body))
    x, y, got = random(depth), random((depth, active), 1), np.zeros(active, np.float32)
    run_native(kernel, x, y, got)
    assert np.allclose(got, x @ y, atol=1e-5)
    target = resolve_target("x86_64", "x86-64-v4")
    text = emit_kernel(kernel, target, "tail", private=False)
    assert "select" not in text


def test_stack_buffer_with_run_time_index():
    x, y = Buffer("x", F32, 16), Buffer("y", F32, 16)
    row = Buffer("row", F32, 16, Space.STACK)
    i, j = Var("i"), Var("j")
    body = (
        For(i, 16, (Store(row, i, Un("neg", Load(x, i))),)),
        For(j, 16, (Store(y, j, Load(row, Bin("sub", Lit(15), j))),)),
    )
    source, got = random(16), np.zeros(16, np.float32)
    run_native(kernel_of([x, y], [y], Alloc(row, body)), source, got)
    assert np.array_equal(got, -source[::-1])


def test_unaligned_arguments():
    x, y, v = Buffer("x", F32, 16), Buffer("y", F32, 16), Var("v")
    memory = random(40)
    source, got = memory[1:17], memory[19:35]
    run_native(kernel_of([x, y], [y], vector(v, 16, Store(y, v, Load(x, v)))), source, got)
    assert np.array_equal(got, source)


def test_aliasing_parameters_may_be_one_memory():
    x, y, v, i = Buffer("x", F32, 64), Buffer("y", F32, 64), Var("v"), Var("i")
    at = add(mul(i, 8), v)
    loop = For(i, 8, (vector(v, 8, Store(y, at, add(Load(x, at), Lit(1.0, F32)))),))
    kernel = kernel_of([x, y], [y], loop, may_alias=True)
    data = random(64)
    want = data + np.float32(1)
    run_native(kernel, data, data)
    assert np.array_equal(data, want)
    target = resolve_target()
    assert "noalias" not in emit_kernel(kernel, target, "k")
    assert "noalias" in emit_kernel(kernel_of([x, y], [y], loop), target, "k")


def test_prefetch_may_lie_outside():
    x, y, i = Buffer("x", F32, 8), Buffer("y", F32, 8), Var("i")
    body = (Prefetch(x, add(mul(i, 1 << 20), 77), 1), Store(y, i, Load(x, i)))
    source, got = random(8), np.zeros(8, np.float32)
    kernel = kernel_of([x, y], [y], For(i, 8, body))
    run_native(kernel, source, got)
    assert np.array_equal(got, source)
    target = resolve_target()
    assert "prefetcht0" in assembly(emit_kernel(kernel, target, "k", private=False), target)


def test_a_single_active_lane_may_store_to_a_fixed_place():
    x, y, v = Buffer("x", F32, 3), Buffer("y", F32, 2), Var("v")
    acc = Buffer("acc", DType.F64, 1, Space.REGISTER)
    body = (
        vector(v, 16, Store(acc, Lit(0), Conv(Load(x, add(v, 2)), DType.F64)), extent=1),
        Store(y, Lit(1), Conv(Load(acc, Lit(0)), F32)),
    )
    source, got = random(3), np.zeros(2, np.float32)
    run_native(kernel_of([x, y], [y], Alloc(acc, body)), source, got)
    assert got.tolist() == [0.0, source[2]]


def test_deeply_nested_expressions():
    x, y, i, v = Buffer("x", F32, 16), Buffer("y", F32, 16), Var("i"), Var("v")
    at = add(mul(i, 8), v)
    for _ in range(300):
        at = Bin("sub", add(at, 1), Lit(1))
    value = Load(x, at)
    for _ in range(600):
        value = Un("neg", value)
    kernel = kernel_of([x, y], [y], For(i, 2, (vector(v, 8, Store(y, at, value)),)))
    source, got = random(16), np.zeros(16, np.float32)
    run_object(compile_native(kernel), [source, got])
    assert np.array_equal(got, source)


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("zero", [0, 121, -7])
def test_codes_that_become_numbers_again_are_the_same_numbers(zero, cpu):
    low, high, dtype = (0, 255, U8) if zero >= 0 else (-128, 127, DType.I8)
    x, y, z, v = Buffer("x", F32, 64), Buffer("y", F32, 64), Buffer("z", dtype, 64), Var("v")
    i = Var("i")
    at = add(mul(i, 8), v)
    codes = Quantize(Load(x, at), zero, low, high, dtype, True)
    body = (Store(y, at, Conv(codes, F32)), Store(z, at, codes))
    kernel = kernel_of([x, y, z], [y, z], For(i, 8, (vector(v, 8, *body),)))
    values = np.linspace(-40, 23.5, 64, dtype=np.float32) * 4.5
    values[:6] = [0.5, 1.5, -0.5, 3e9, -3e9, -0.0]
    numbers, kept = np.zeros(64, np.float32), np.zeros(64, dtype.numpy)
    run_native(kernel, values, numbers, kept, cpu=cpu)
    assert np.array_equal(numbers, kept.astype(np.float32))
    text = assembly(emit_kernel(kernel_of(
        [x, y], [y], For(i, 8, (vector(v, 8, body[0]),))
    ), resolve_target("x86_64", cpu), "kernel", private=False), resolve_target("x86_64", cpu))
    assert "vpmovdb" not in text and "vcvtdq2ps" not in text


@pytest.mark.parametrize("active", [1, 2, 15])
@pytest.mark.parametrize("cpu", CPUS)
def test_narrowing_stores_of_few_lanes_touch_only_these(cpu, active):
    x, y, v = Buffer("x", I32, 16), Buffer("y", U8, 32), Var("v")
    kernel = kernel_of(
        [x, y], [y], vector(v, 16, Store(y, add(v, 3), Conv(Load(x, v), U8)), extent=active)
    )
    run_native(kernel, np.arange(7, 23, dtype=np.int32), np.full(32, 200, np.uint8), cpu=cpu)


def test_storing_all_lanes_to_one_element_is_refused():
    x, y, v = Buffer("x", F32, 8), Buffer("y", F32, 8), Var("v")
    with pytest.raises(VerifyError, match="one element of 'y'"):
        emit_kernel(
            kernel_of([x, y], [y], vector(v, 8, Store(y, Lit(0), Load(x, v)))),
            resolve_target(),
            "k",
        )


def test_serial_loop_in_a_vector_loop_is_refused():
    y, i, v = Buffer("y", F32, 64), Var("i"), Var("v")
    store = Store(y, add(mul(i, 8), v), Lit(0.0, F32))
    with pytest.raises(VerifyError, match="not unrolled"):
        emit_kernel(kernel_of([y], [y], vector(v, 8, For(i, 8, (store,)))), resolve_target(), "k")


def test_text_is_the_same_every_time():
    x, y, v = Buffer("x", F32, 8), Buffer("y", F32, 8), Var("v")
    kernel = kernel_of([x, y], [y], vector(v, 8, Store(y, v, Load(x, v))))
    first, second = (emit_kernel(kernel, resolve_target(), "k") for _ in range(2))
    assert first == second
    assert first.startswith("define internal void @k(")
