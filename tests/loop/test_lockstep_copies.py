"""Asynchronous copies and loads of matrices in lockstep: results, and uses that come too early."""

import numpy as np
import pytest
from copy_kernels import ELEMS, F16, F32, STEPS, THREADS, WIDTH, copies, kernel_of, matrices

from aotc.errors import VerifyError
from aotc.graph.types import DType
from aotc.loop import index as ix
from aotc.loop.eval import run_kernel
from aotc.loop.ir import (
    Alloc,
    Bind,
    Buffer,
    Load,
    Space,
    Store,
    Var,
)
from aotc.loop.ir_async import AsyncCommit, AsyncCopy, AsyncWait, LoadMatrix
from aotc.loop.text import print_kernel
from aotc.loop.verify import verify_kernel


def run_copies(*args, **more):
    kernel = copies(*args, **more)
    verify_kernel(kernel)
    x, y = np.arange(ELEMS, dtype=np.float32), np.zeros(2 * THREADS, np.float32)
    run_kernel(kernel, [x, y])
    return y.reshape(2, THREADS)


def test_after_wait_and_barrier_all_threads_see_the_copies():
    wanted = np.arange(ELEMS, dtype=np.float32)[::WIDTH]
    assert np.array_equal(run_copies(), [wanted[::-1]] * 2)
    assert np.array_equal(run_copies(("copy", "commit", "wait", "read own")), [wanted] * 2)


def test_where_the_condition_fails_zeros_are_copied():
    wanted = np.arange(ELEMS, dtype=np.float32)[::WIDTH]
    wanted[40:] = 0
    assert np.array_equal(run_copies(valid=40), [wanted[::-1]] * 2)


EARLY = {
    "no wait": ("copy", "commit", "barrier", "read"),
    "never committed": ("copy", "wait", "barrier", "read"),
    "one may be under way": ("copy", "commit", "wait for all but one", "barrier", "read"),
    "own, no wait": ("copy", "commit", "read own"),
    "stored to": ("copy", "commit", "store"),
    "copied to twice": ("copy", "commit", "copy"),
}


@pytest.mark.parametrize("steps", EARLY.values(), ids=EARLY)
def test_what_is_under_way_may_not_be_touched(steps):
    with pytest.raises(VerifyError, match=r"race for 'tile\[\d+\]': thread \d+ of .*copied"):
        run_copies(steps)


def test_others_need_a_barrier_behind_the_wait():
    with pytest.raises(VerifyError, match=r"race for 'tile.*reads what is stored by"):
        run_copies(("copy", "commit", "barrier", "wait", "read"))
    with pytest.raises(VerifyError, match=r"race for 'tile.*stores to what is read by"):
        run_copies((*STEPS, "copy"))


def test_the_last_groups_may_be_under_way():
    run_copies(("copy", "commit", "commit", "wait for all but one", "barrier", "read"))


@pytest.mark.parametrize("readers", [32, 33])
def test_threads_count_their_own_groups(readers):
    x, y = Buffer("x", F32, ELEMS, alignment=16), Buffer("y", F32, THREADS)
    tile, half, i = Buffer("tile", F32, ELEMS, Space.SHARED), Var("half"), Var("i")

    def body(block, thread):
        at = ix.mul(thread, WIDTH)
        yield AsyncCopy(tile, at, x, at, WIDTH)
        yield AsyncCommit()
        yield Bind(half, thread, 32, (AsyncCommit(),))
        yield AsyncWait(1)
        yield Bind(i, thread, readers, (Store(y, i, Load(tile, ix.mul(i, WIDTH))),))

    kernel = kernel_of(body, (x, y), (y,), (tile,))
    arrays = [np.zeros(ELEMS, np.float32), np.zeros(THREADS, np.float32)]
    if readers == 32:
        run_kernel(kernel, arrays)
        return
    with pytest.raises(VerifyError, match="thread 32 of block 0 reads what is being copied"):
        run_kernel(kernel, arrays)


def test_copies_that_no_gpu_can_make_are_refused():
    with pytest.raises(VerifyError, match="less aligned"):
        verify_kernel(copies(source_aligned=0))
    x, tile = Buffer("x", F32, ELEMS, alignment=16), Buffer("tile", F32, ELEMS, Space.SHARED)

    def one(elems, at=0, target=tile, writes=()):
        def body(block, thread):
            yield AsyncCopy(target, ix.lit(0), x, ix.add(thread, at), elems)

        return kernel_of(body, (x,), writes, (tile,))

    with pytest.raises(VerifyError, match="a copy of 12 bytes"):
        verify_kernel(one(3))
    with pytest.raises(VerifyError, match="may not be aligned"):
        verify_kernel(one(2))
    with pytest.raises(VerifyError, match=r"outside 'x', which has 256 elements"):
        verify_kernel(one(1, at=ELEMS))
    with pytest.raises(VerifyError, match="which is stored to"):
        verify_kernel(one(1, writes=(x,)))
    with pytest.raises(VerifyError, match="not from global to shared"):
        verify_kernel(one(1, target=x))


def words_of(tile, count, transposed):
    """What PTX says that the threads of each warp get; ``tile`` is [rows, elements]."""
    pair = 32 // tile.dtype.itemsize // 8
    found = np.zeros((THREADS, count, pair), tile.dtype)
    for thread in range(THREADS):
        warp, lane = divmod(thread, 32)
        for m in range(count):
            rows = [(32 * warp + 8 * m + r) * 5 % THREADS for r in range(8)]
            matrix = tile[rows]
            matrix = matrix.T if transposed else matrix
            found[thread, m] = matrix[lane // 4, lane % 4 * pair :][:pair]
    return found


SHAPES = [(F16, False), (F16, True), (DType.U16, True), (F32, False)]


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize(("dtype", "transposed"), SHAPES)
def test_threads_get_the_words_of_matrices_that_ptx_says(count, dtype, transposed):
    kernel = matrices(count, dtype, transposed)
    x = np.arange(kernel.params[0].elems).astype(dtype.numpy)
    y = np.zeros(kernel.params[1].elems, dtype.numpy)
    verify_kernel(kernel)
    run_kernel(kernel, [x, y])
    wanted = words_of(x.reshape(THREADS, -1), count, transposed)
    assert np.array_equal(y, wanted.ravel())


def test_matrices_that_no_gpu_can_load_are_refused():
    with pytest.raises(VerifyError, match="matrices of float32"):
        verify_kernel(matrices(1, F32, True))
    with pytest.raises(VerifyError, match="3 matrices"):
        verify_kernel(matrices(3, F16, False))
    tile = Buffer("tile", F16, 8 * THREADS, Space.SHARED)
    held = Buffer("held", F16, 2, Space.REGISTER)

    def load(at, some=THREADS):
        def body(block, thread):
            i = Var("i")
            stmt = LoadMatrix(held, ix.lit(0), tile, at(i), 1)
            yield Alloc(held, (Bind(i, thread, some, (stmt,)),))

        return kernel_of(body, (), (), (tile,))

    with pytest.raises(VerifyError, match="may not be aligned"):
        verify_kernel(load(lambda i: ix.mul(i, 4)))
    with pytest.raises(VerifyError, match="without all of its threads"):
        run_kernel(load(lambda i: ix.mul(i, 8), some=40), [])


def test_text():
    text = print_kernel(copies(valid=40))
    assert "begin tile[thread*4 ..] = 4 of x[thread*4 ..] if thread < 40, else 0" in text
    assert "commit copies" in text and "wait for copies, all but 0" in text
    assert "held[0 ..] = matrices<2, transposed>(tile[" in print_kernel(matrices(2, F16, True))
