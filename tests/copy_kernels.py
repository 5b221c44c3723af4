"""Kernels with asynchronous copies and loads of matrices, for tests."""

from aotc.graph.types import DType
from aotc.loop import index as ix
from aotc.loop.ir import (
    Alloc,
    Barrier,
    Buffer,
    Cmp,
    For,
    Kernel,
    Kind,
    Lit,
    Load,
    Space,
    Store,
    Var,
)
from aotc.loop.ir_async import AsyncCommit, AsyncCopy, AsyncWait, LoadMatrix

F32, F16 = DType.F32, DType.F16
THREADS, WIDTH = 64, 4
ELEMS = THREADS * WIDTH
#: What begins to copy 16 bytes a thread, waits, meets, and reads what the other half has copied.
STEPS = ("copy", "commit", "wait", "barrier", "read")


def kernel_of(body, params, writes, shared, blocks=1):
    """``body(block, thread)`` in every thread."""
    block, thread = Var("block"), Var("thread")
    inner = (For(thread, THREADS, tuple(body(block, thread)), Kind.THREAD),)
    for buffer in shared:
        inner = (Alloc(buffer, inner),)
    return Kernel("k", params, frozenset(writes), (For(block, blocks, inner, Kind.BLOCK),))


def copies(steps=STEPS, valid=None, source_aligned=16):
    """y[t] = x of the thread's first element, by way of shared memory."""
    x = Buffer("x", F32, ELEMS, alignment=source_aligned)
    y, tile = Buffer("y", F32, 2 * THREADS), Buffer("tile", F32, ELEMS, Space.SHARED)

    def body(block, thread):
        at = ix.mul(thread, WIDTH)
        mirrored = ix.mul(ix.sub(ix.lit(THREADS - 1), thread), WIDTH)
        condition = None if valid is None else Cmp("lt", thread, Lit(valid))
        statements = {
            "copy": AsyncCopy(tile, at, x, at, WIDTH, condition),
            "commit": AsyncCommit(),
            "wait": AsyncWait(0),
            "wait for all but one": AsyncWait(1),
            "barrier": Barrier(),
            "read": Store(y, ix.add(ix.mul(block, THREADS), thread), Load(tile, mirrored)),
            "read own": Store(y, ix.add(ix.mul(block, THREADS), thread), Load(tile, at)),
            "store": Store(tile, at, Lit(1.0, F32)),
        }
        return [statements[step] for step in steps]

    return kernel_of(body, (x, y), (y,), (tile,), blocks=2)


def matrices(count, dtype, transposed):
    """y = the words of each thread, of rows of a tile in a mixed order, another for each warp."""
    pair, row = 4 // dtype.size_bytes, 16 // dtype.size_bytes
    x, y = Buffer("x", dtype, THREADS * row), Buffer("y", dtype, THREADS * count * pair)
    tile = Buffer("tile", dtype, THREADS * row, Space.SHARED)
    held = Buffer("held", dtype, count * pair, Space.REGISTER)

    def body(block, thread):
        i, v = Var("i"), Var("v")
        place = ix.add(ix.mul(thread, row), i)
        yield For(i, row, (Store(tile, place, Load(x, place)),))
        yield Barrier()
        mixed = ix.mul(ix.mod(ix.mul(thread, 5), THREADS), row)
        read = Store(y, ix.add(ix.mul(thread, count * pair), v), Load(held, v))
        load = LoadMatrix(held, ix.lit(0), tile, mixed, count, transposed)
        yield Alloc(held, (load, For(v, count * pair, (read,), Kind.UNROLLED)))

    return kernel_of(body, (x, y), (y,), (tile,))
