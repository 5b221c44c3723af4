"""Walks: operands before users, each node once, accesses with the private ones left out."""

from __future__ import annotations

from loop_cases import F32, matmul_kernel

from aotc.loop.ir import Alloc, Bin, Buffer, Lit, Load, Space, Store, Var
from aotc.loop.walk import accesses, operands, post_order


def test_post_order_visits_shared_nodes_once_operands_first():
    i = Var("i")
    load = Load(Buffer("x", F32, 4), i)
    square = Bin("mul", load, load)
    root = Bin("add", square, load)
    assert post_order((root, square)) == [i, load, square, root]
    assert post_order((root,), lambda expr: ()) == [root]
    assert operands(load) == (i,) and operands(i) == ()


def test_accesses_leave_out_what_the_body_declares():
    x, tmp = Buffer("x", F32, 4), Buffer("tmp", F32, 1, Space.STACK)
    zero = Lit(0)
    inner = (Store(tmp, zero, Load(x, zero)), Store(x, zero, Load(tmp, zero)))
    found = [(buffer.name, store) for buffer, _, store in accesses((Alloc(tmp, inner),))]
    assert found == [("x", False), ("x", True)]
    names = {buffer.name for buffer, _, _ in accesses(matmul_kernel().body)}
    assert names == {"a", "b", "c"}
