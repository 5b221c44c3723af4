"""Small kernels that several tests of the loop IR use."""

from __future__ import annotations

from aotc.graph.types import DType
from aotc.loop import index as ix
from aotc.loop.ir import (
    Alloc,
    Bin,
    Buffer,
    Fma,
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

F32 = DType.F32


def scale_kernel(n=10, lanes=4):
    """y[i] = x[i]*x[i] in vectors with a narrower last one."""
    x, y = Buffer("x", F32, n), Buffer("y", F32, n)
    i, v, w = Var("i"), Var("v"), Var("v")

    def square(index):
        load = Load(x, index)
        return Store(y, index, Bin("mul", load, load))

    full, rest = divmod(n, lanes)
    body = []
    if full:
        vector = For(v, lanes, (square(ix.linear(0, ((i, lanes), (v, 1)))),), Kind.VECTOR, lanes)
        body.append(For(i, full, (vector,)))
    if rest:
        last = square(ix.add(w, full * lanes))
        body.append(For(w, rest, (last,), Kind.VECTOR, lanes))
    return Kernel("k_square", (x, y), frozenset({y}), tuple(body))


def matmul_kernel(m=8, n=16, k=5, rows=2, lanes=8):
    """c[m,n] = a[m,k] b[k,n] with a register tile of rows x lanes; k in order, one fma each."""
    a, b = Buffer("a", F32, m * k), Buffer("b", F32, k * n)
    c, acc = Buffer("c", F32, m * n), Buffer("acc", F32, rows * lanes, Space.REGISTER)
    i, j, p = Var("i"), Var("j"), Var("p")

    def tile(store):
        r, v = Var("r"), Var("v")
        vector = For(v, lanes, (store(r, v),), Kind.VECTOR, lanes)
        return For(r, rows, (vector,), Kind.UNROLLED)

    def at(r, v):
        return ix.linear(0, ((r, lanes), (v, 1)))

    def step(r, v):
        left = Load(a, ix.linear(0, ((i, rows * k), (r, k), (p, 1))))
        right = Load(b, ix.linear(0, ((p, n), (j, lanes), (v, 1))))
        return Store(acc, at(r, v), Fma(left, right, Load(acc, at(r, v))))

    def write(r, v):
        where = ix.linear(0, ((i, rows * n), (r, n), (j, lanes), (v, 1)))
        return Store(c, where, Load(acc, at(r, v)))

    zero = tile(lambda r, v: Store(acc, at(r, v), Lit(0.0, F32)))
    ahead = Prefetch(b, ix.linear(4 * n, ((p, n), (j, lanes))), 1)
    inner = (zero, For(p, k, (ahead, tile(step))), tile(write))
    columns = For(j, n // lanes, (Alloc(acc, inner),))
    body = (For(i, m // rows, (columns,), Kind.PARALLEL),)
    return Kernel("k_matmul", (a, b, c), frozenset({c}), body)
