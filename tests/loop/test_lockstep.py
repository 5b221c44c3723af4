"""GPU kernels in lockstep: results, and everything that another order of threads would change."""

import numpy as np
import pytest

from aotc.errors import VerifyError
from aotc.graph.types import DType
from aotc.loop import index as ix
from aotc.loop.eval import run_kernel
from aotc.loop.ir import (
    Alloc,
    Barrier,
    Bin,
    Bind,
    Buffer,
    For,
    Kernel,
    Kind,
    Lit,
    Load,
    Space,
    Store,
    Var,
)
from aotc.loop.launch import launch_of
from aotc.loop.text import print_kernel
from aotc.loop.verify import verify_kernel

F32 = DType.F32
BLOCKS, THREADS = 3, 64


def kernel_of(body, params, writes, blocks=BLOCKS, threads=THREADS, shared=()):
    """``body(block, thread)`` in every thread."""
    block, thread = Var("block"), Var("thread")
    inner = (For(thread, threads, tuple(body(block, thread)), Kind.THREAD),)
    for buffer in shared:
        inner = (Alloc(buffer, inner),)
    return Kernel("k", params, frozenset(writes), (For(block, blocks, inner, Kind.BLOCK),))


def at(block, thread, count=THREADS):
    return ix.add(ix.mul(block, count), thread)


def reverse_kernel(barrier=True):
    """Each block turns its elements round through shared memory."""
    x, y = Buffer("x", F32, BLOCKS * THREADS), Buffer("y", F32, BLOCKS * THREADS)
    tile = Buffer("tile", F32, THREADS, Space.SHARED)

    def body(block, thread):
        yield Store(tile, thread, Load(x, at(block, thread)))
        if barrier:
            yield Barrier()
        mirrored = ix.sub(ix.lit(THREADS - 1), thread)
        yield Store(y, at(block, thread), Load(tile, mirrored))

    return kernel_of(body, (x, y), (y,), shared=(tile,))


def run(kernel, *arrays):
    verify_kernel(kernel)
    run_kernel(kernel, arrays)


def test_threads_see_what_the_others_stored_before_the_barrier():
    x = np.arange(BLOCKS * THREADS, dtype=np.float32)
    y = np.zeros_like(x)
    run(reverse_kernel(), x, y)
    assert np.array_equal(y.reshape(BLOCKS, THREADS), x.reshape(BLOCKS, THREADS)[:, ::-1])


def test_without_the_barrier_it_is_a_race():
    x = np.zeros(BLOCKS * THREADS, np.float32)
    with pytest.raises(VerifyError, match=r"race for 'tile\[\d+\]': thread \d+ of block 0 reads"):
        run(reverse_kernel(barrier=False), x, x.copy())


def test_storing_where_others_have_read_needs_a_barrier_too():
    x, y = Buffer("x", F32, THREADS), Buffer("y", F32, THREADS)
    tile = Buffer("tile", F32, THREADS, Space.SHARED)

    def body(block, thread):
        yield Store(tile, thread, Load(x, thread))
        yield Barrier()
        yield Store(y, thread, Load(tile, ix.lit(0)))
        yield Store(tile, thread, Lit(0.0, F32))

    kernel = kernel_of(body, (x, y), (y,), blocks=1, shared=(tile,))
    with pytest.raises(VerifyError, match=r"race for 'tile\[0\]'.*stores to what is read by"):
        run(kernel, np.zeros(THREADS, np.float32), np.zeros(THREADS, np.float32))


@pytest.mark.parametrize("barrier", [False, True])
def test_blocks_never_wait_for_each_other(barrier):
    x = Buffer("x", F32, BLOCKS * THREADS)

    def body(block, thread):
        yield Store(x, at(block, thread), Lit(1.0, F32))
        if barrier:
            yield Barrier()
        neighbour = ix.mod(ix.add(at(block, thread), THREADS), BLOCKS * THREADS)
        yield Store(x, at(block, thread), Load(x, neighbour))

    with pytest.raises(VerifyError, match=r"race for 'x\[\d+\]'"):
        run(kernel_of(body, (x,), (x,)), np.zeros(BLOCKS * THREADS, np.float32))


def test_two_threads_storing_to_one_element_is_a_race_even_of_equal_values():
    x = Buffer("x", F32, 1)
    kernel = kernel_of(lambda block, thread: [Store(x, ix.lit(0), Lit(1.0, F32))], (x,), (x,))
    with pytest.raises(VerifyError, match="stores to the same as thread"):
        run(kernel, np.zeros(1, np.float32))


def test_parameters_that_are_one_memory_are_watched_as_one():
    x, y = Buffer("x", F32, THREADS), Buffer("y", F32, THREADS)

    def body(block, thread):
        yield Store(y, thread, Load(x, ix.sub(ix.lit(THREADS - 1), thread)))

    kernel = kernel_of(body, (x, y), (y,), blocks=1)
    array = np.zeros(THREADS, np.float32)
    run(kernel, array, array.copy())
    with pytest.raises(VerifyError, match="race"):
        run(kernel, array, array)


def bound_kernel(extent, elems):
    """y[i] = 2 x[i] for the threads whose number is below ``extent``."""
    x, y, i = Buffer("x", F32, elems), Buffer("y", F32, elems), Var("i")

    def body(block, thread):
        double = Bin("mul", Load(x, i), Lit(2.0, F32))
        yield Bind(i, at(block, thread), extent, (Store(y, i, double),))

    return kernel_of(body, (x, y), (y,))


def test_threads_beyond_the_last_element_do_nothing():
    x = np.arange(100, dtype=np.float32)
    y = np.full(100, -1, np.float32)
    run(bound_kernel(90, 100), x, y)
    assert np.array_equal(y[:90], 2 * x[:90]) and np.all(y[90:] == -1)


def test_an_index_out_of_bounds_names_the_thread():
    kernel = bound_kernel(130, 100)
    with pytest.raises(VerifyError, match=r"0\.\.129 outside 'y', which has 100 elements"):
        verify_kernel(kernel)
    x = np.zeros(100, np.float32)
    with pytest.raises(VerifyError, match=r"outside 'x'.*100 elements \(block 2, thread 1\)"):
        run_kernel(kernel, [x, x.copy()])


def test_a_barrier_that_some_threads_pass_by_is_refused():
    x, i = Buffer("x", F32, BLOCKS * THREADS), Var("i")

    def body(block, thread):
        yield Bind(i, thread, THREADS - 1, (Barrier(),))

    kernel = kernel_of(body, (x,), ())
    with pytest.raises(VerifyError, match="barrier"):
        verify_kernel(kernel)
    with pytest.raises(VerifyError, match="barrier"):
        run_kernel(kernel, [np.zeros(BLOCKS * THREADS, np.float32)])


def test_a_barrier_where_every_thread_is_bound_is_none_of_that():
    x, i = Buffer("x", F32, BLOCKS * THREADS), Var("i")

    def body(block, thread):
        yield Bind(i, thread, THREADS, (Barrier(), Store(x, at(block, i), Lit(1.0, F32))))

    x_array = np.zeros(BLOCKS * THREADS, np.float32)
    run(kernel_of(body, (x,), (x,)), x_array)
    assert np.all(x_array == 1)


def test_more_blocks_than_run_at_once(monkeypatch):
    monkeypatch.setattr("aotc.loop.lockstep.MAX_LANES", 2 * THREADS)
    x = np.arange(BLOCKS * THREADS, dtype=np.float32)
    y = np.zeros_like(x)
    run(reverse_kernel(), x, y)
    assert np.array_equal(y.reshape(BLOCKS, THREADS), x.reshape(BLOCKS, THREADS)[:, ::-1])


def test_launches():
    launch = launch_of(reverse_kernel())
    assert launch.grid == (BLOCKS, 1, 1) and launch.block == (THREADS, 1, 1)
    assert launch.shared_bytes == THREADS * 4
    text = print_kernel(reverse_kernel())
    assert "shared tile" in text and "barrier" in text and "in 0..64 thread" in text


def test_more_threads_than_a_block_has():
    with pytest.raises(VerifyError, match=r"grid of \(3, 1, 1\) blocks of \(2048, 1, 1\)"):
        verify_kernel(kernel_of(lambda b, t: [], (), (), threads=2048))


def test_block_loops_belong_outside():
    x, i, block = Buffer("x", F32, 4), Var("i"), Var("block")
    inner = For(block, 4, (Store(x, block, Lit(0.0, F32)),), Kind.BLOCK)
    kernel = Kernel("k", (x,), frozenset({x}), (For(i, 1, (inner,)),))
    with pytest.raises(VerifyError, match="block loop in a kernel of a processor"):
        verify_kernel(kernel)
