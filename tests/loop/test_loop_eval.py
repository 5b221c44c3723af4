"""The evaluator: kernels and programs do what their loops say, a wrong index is caught."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_cases import F32, matmul_kernel, scale_kernel

from aotc.errors import UsageError, VerifyError
from aotc.graph.types import DType, TensorType
from aotc.loop import arith, interpret
from aotc.loop import index as ix
from aotc.loop.eval import run_kernel, run_program
from aotc.loop.ir import (
    Alloc,
    Bin,
    Buffer,
    Conv,
    For,
    Kernel,
    Kind,
    Lit,
    Load,
    Prefetch,
    Space,
    Store,
    Var,
)
from aotc.loop.program import Arg, Call, Program, Role, Storage
from aotc.loop.verify import verify_kernel


def test_vector_loops_with_a_narrow_end():
    kernel = scale_kernel(10, 4)
    x, y = np.arange(10, dtype=np.float32), np.zeros(10, np.float32)
    run_kernel(kernel, [x, y])
    assert np.array_equal(y, x * x)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(1, 3), st.integers(1, 7), st.sampled_from([1, 2, 4]))
def test_tiled_matmul_is_the_ordered_fma_chain(tiles, columns, k, rows):
    m, n = rows * tiles, 8 * columns
    rng = np.random.default_rng(k)
    a, b = (rng.normal(size=size).astype(np.float32) for size in (m * k, k * n))
    c = np.zeros(m * n, np.float32)
    run_kernel(matmul_kernel(m, n, k, rows), [a, b, c])
    want = np.zeros((m, n), np.float32)
    for p in range(k):
        want = arith.fma(a.reshape(m, k)[:, p : p + 1], b.reshape(k, n)[p : p + 1], want)
    assert np.array_equal(c.reshape(m, n), want)


def test_lanes_and_one_by_one_give_the_same_bytes(monkeypatch):
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=40).astype(np.float32), rng.normal(size=80).astype(np.float32)
    results = []
    for lanes in (1 << 16, 8, 3, 1):
        monkeypatch.setattr(interpret, "MAX_LANES", lanes)
        c = np.zeros(128, np.float32)
        run_kernel(matmul_kernel(), [a, b, c])
        results.append(c.tobytes())
    assert len(set(results)) == 1


def test_carried_dependences_run_in_order():
    x = Buffer("x", F32, 8)
    i = Var("i")
    step = Store(x, ix.add(i, 1), Bin("add", Load(x, i), Load(x, ix.add(i, 1))))
    data = np.arange(8, dtype=np.float32)
    run_kernel(Kernel("k_sum", (x,), frozenset({x}), (For(i, 7, (step,)),)), [data])
    assert np.array_equal(data, np.cumsum(np.arange(8)))


def test_scatter_by_loaded_indices_keeps_the_last_store():
    where, out = Buffer("where", DType.I64, 4), Buffer("out", F32, 3)
    i = Var("i")
    store = Store(out, Load(where, i), Conv(i, F32))
    kernel = Kernel("k_scatter", (where, out), frozenset({out}), (For(i, 4, (store,)),))
    result = np.zeros(3, np.float32)
    run_kernel(kernel, [np.array([2, 0, 2, 0]), result])
    assert result.tolist() == [3, 0, 2]


def test_private_buffers_of_parallel_iterations_are_separate():
    out, tmp = Buffer("out", F32, 6), Buffer("tmp", F32, 2, Space.STACK)
    i, k = Var("i"), Var("k")
    fill = For(k, 2, (Store(tmp, k, Conv(ix.add(ix.mul(i, 10), k), F32)),))
    swap = Var("s")
    mirrored = Load(tmp, ix.sub(ix.lit(1), swap))
    write = For(swap, 2, (Store(out, ix.linear(0, ((i, 2), (swap, 1))), mirrored),))
    body = (For(i, 3, (Alloc(tmp, (fill, write)),), Kind.PARALLEL),)
    result = np.zeros(6, np.float32)
    run_kernel(Kernel("k", (out,), frozenset({out}), body), [result])
    assert result.tolist() == [1, 0, 11, 10, 21, 20]


def test_fresh_private_memory_is_poisoned_each_time():
    out, tmp = Buffer("out", F32, 2), Buffer("tmp", F32, 1, Space.REGISTER)
    zero = Lit(0)
    first = Alloc(tmp, (Store(out, zero, Load(tmp, zero)), Store(tmp, zero, Lit(1.0, F32))))
    second = Alloc(tmp, (Store(out, Lit(1), Load(tmp, zero)),))
    result = np.zeros(2, np.float32)
    run_kernel(Kernel("k", (out,), frozenset({out}), (first, second)), [result])
    assert np.isnan(result).all()


def test_parameters_that_share_memory_run_serially():
    x, y = Buffer("x", F32, 4), Buffer("y", F32, 4)
    i = Var("i")
    body = (For(i, 4, (Store(y, i, Load(x, i)),)),)
    kernel = Kernel("k_copy", (x, y), frozenset({y}), body, may_alias=True)
    data = np.array([1, 2, 3, 4, 5], np.float32)
    run_kernel(kernel, [data[:4], data[1:]])
    assert data.tolist() == [1, 1, 1, 1, 1]


@pytest.mark.parametrize("shift", [-1, 1])
def test_indices_outside_name_the_buffer(shift):
    x, y = Buffer("x", F32, 4), Buffer("y", F32, 4)
    i = Var("i")
    body = (For(i, 4, (Store(y, i, Load(x, ix.add(i, shift))),)),)
    kernel = Kernel("k_off", (x, y), frozenset({y}), body)
    bad = -1 if shift < 0 else 4
    with pytest.raises(VerifyError, match=f"'k_off': index {bad} is outside 'x', which has 4"):
        run_kernel(kernel, [np.zeros(4, np.float32)] * 2)


def test_long_chains_verify_and_run():
    x = Buffer("x", F32, 1)
    value = Load(x, Lit(0))
    for _ in range(700):
        value = Bin("add", value, Lit(1.0, F32))
    kernel = Kernel("k", (x,), frozenset({x}), (Store(x, Lit(0), value),))
    verify_kernel(kernel)
    data = np.zeros(1, np.float32)
    run_kernel(kernel, [data])
    assert data[0] == 700


def test_prefetch_may_point_anywhere():
    x = Buffer("x", F32, 4)
    kernel = Kernel("k", (x,), frozenset(), (Prefetch(x, Lit(99), 1),))
    run_kernel(kernel, [np.zeros(4, np.float32)])


@pytest.mark.parametrize(
    "arrays, message",
    [
        ([np.zeros(4, np.float32)], "takes 2 arrays"),
        ([np.zeros(10, np.float32), np.zeros(10)], r"'y' is float32\[10\], the array is float64"),
        ([np.zeros(9, np.float32), np.zeros(10, np.float32)], r"'x' is float32\[10\]"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays, message):
    with pytest.raises(VerifyError, match=message):
        run_kernel(scale_kernel(10), arrays)


def program():
    """out = (x*w)^2 over two calls; the weights sit behind 8 bytes of another constant."""
    data = np.concatenate([np.zeros(8, np.uint8), np.float32([1, 2, 3, 4]).view(np.uint8)])
    weights = Storage("weights", Role.CONST, data.nbytes, data)
    source, target = Storage("x", Role.INPUT, 16), Storage("out", Role.OUTPUT, 16)
    middle = Storage("t0", Role.ARENA, 64)
    a, b, c = Buffer("a", F32, 4), Buffer("b", F32, 4), Buffer("c", F32, 4)
    i = Var("i")
    body = (For(i, 4, (Store(c, i, Bin("mul", Load(a, i), Load(b, i))),)),)
    multiply = Kernel("k_multiply", (a, b, c), frozenset({c}), body)
    calls = (
        Call(multiply, (Arg(source), Arg(weights, 8), Arg(middle, 32))),
        Call(multiply, (Arg(middle, 32), Arg(middle, 32), Arg(target))),
    )
    type_ = TensorType(F32, (2, 2))
    return Program("net", (("x", type_, source),), (("y", type_, target),), calls)


def test_program_honours_offsets_and_byte_views():
    x = np.float32([[1, 1], [2, 2]])
    result = run_program(program(), {"x": x})
    assert result["y"].tolist() == [[1, 4], [36, 64]] and list(result) == ["y"]


def test_arena_memory_nobody_wrote_is_nan():
    net = program()
    late = Program(net.name, net.inputs, net.outputs, net.calls[1:])
    assert np.isnan(run_program(late, {"x": np.zeros((2, 2), np.float32)})["y"]).all()


def test_wrong_inputs_are_refused():
    with pytest.raises(UsageError, match="input 'x' is missing"):
        run_program(program(), {})
    with pytest.raises(UsageError, match=r"not float32\[2,2\]"):
        run_program(program(), {"x": np.zeros((4,), np.float32)})


def test_writing_a_constant_is_refused():
    net = program()
    first = net.calls[0]
    swapped = Call(first.kernel, (first.args[0], first.args[2], first.args[1]))
    bad = Program(net.name, net.inputs, net.outputs, (swapped,))
    with pytest.raises(VerifyError, match="writes to the constant 'weights'"):
        run_program(bad, {"x": np.zeros((2, 2), np.float32)})
