"""Independence of iterations: every claim is checked against the addresses themselves."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loop_cases import F32, matmul_kernel

from aotc.graph.types import DType
from aotc.loop import index as ix
from aotc.loop.disjoint import disjointness, iterations_disjoint
from aotc.loop.index import Affine
from aotc.loop.ir import Alloc, Bin, Buffer, For, Kind, Lit, Load, Space, Store, Var

X = Buffer("x", F32, 1 << 20)


def addresses(forms, i, inner, value):
    found = set()
    for form in forms:
        for digits in itertools.product(*(range(n) for n in inner.values())):
            env = {i: value, **dict(zip(inner, digits, strict=True))}
            found.add(form.const + sum(c * env[v] for v, c in form.terms))
    return found


accesses = st.lists(
    st.tuples(st.integers(0, 12), st.integers(-6, 6), st.integers(-6, 6)), min_size=1, max_size=3
)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(accesses, st.integers(-40, 40), st.integers(2, 4), st.integers(1, 4), st.integers(1, 4))
def test_proved_iterations_never_share_an_address(parts, step, extent, n, m):
    i, j, k = Var("i"), Var("j"), Var("k")
    inner = {j: n, k: m}
    exprs = [ix.linear(c, ((i, step), (j, cj), (k, ck))) for c, cj, ck in parts]
    stores = tuple(Store(X, expr, Lit(0.0, F32)) for expr in exprs)
    loop = For(i, extent, (For(j, n, (For(k, m, stores),)),))
    if iterations_disjoint(loop):
        forms = [ix.affine(expr) or Affine(0) for expr in exprs]
        seen = [addresses(forms, i, inner, value) for value in range(extent)]
        assert all(not (a & b) for a, b in itertools.combinations(seen, 2))


def test_tiles_rows_and_columns_are_proved():
    rows = matmul_kernel().body[0]
    columns = rows.body[0]
    assert iterations_disjoint(rows) and iterations_disjoint(columns)


def test_a_row_with_a_narrow_end_is_proved():
    i, j, v, w = (Var(name) for name in "ijvw")
    zero = Lit(0.0, F32)
    vector = For(v, 4, (Store(X, ix.linear(0, ((i, 11), (j, 4), (v, 1))), zero),))
    end = Store(X, ix.linear(8, ((i, 11), (w, 1))), zero)
    assert iterations_disjoint(For(i, 5, (For(j, 2, (vector,)), For(w, 3, (end,)))))
    assert disjointness(For(i, 5, (For(j, 2, (vector,)), For(w, 4, (end,))))) is False


def test_reductions_and_carried_values_are_not():
    i = Var("i")
    total = Store(X, Lit(0), Bin("add", Load(X, Lit(0)), Lit(1.0, F32)))
    shifted = Store(X, i, Load(X, ix.add(i, 1)))
    assert disjointness(For(i, 4, (total,))) is False
    assert disjointness(For(i, 4, (shifted,))) is False
    assert disjointness(For(i, 1, (total,))) is True


def test_computed_indices_say_nothing():
    i = Var("i")
    where = Buffer("where", DType.I64, 4)
    assert disjointness(For(i, 4, (Store(X, Load(where, i), Lit(0.0, F32)),))) is None


def test_private_buffers_do_not_count():
    i = Var("i")
    tmp = Buffer("tmp", F32, 1, Space.REGISTER)
    body = Alloc(tmp, (Store(tmp, Lit(0), Lit(0.0, F32)), Store(X, i, Load(tmp, Lit(0)))))
    assert iterations_disjoint(For(i, 4, (body,)))


def test_two_tilings_of_one_axis_share_a_loop_over_another():
    """Rows of 64 in tiles of 6 and then of 5; the outer loop walks panels of 16 within the rows."""
    p, r, i, v = Var("p"), Var("r"), Var("i"), Var("v")
    y = Buffer("y", DType.F32, 64 * 17)

    def tiles(count, size, start):
        pixel = ix.add(ix.mul(ix.add(ix.mul(r, size), i), 64), ix.lit(start * 64))
        at = ix.add(ix.add(pixel, ix.mul(p, 16)), v)
        lanes = For(v, 16, (Store(y, at, Lit(0, DType.F32)),), Kind.VECTOR, 16)
        return For(r, count, (For(i, size, (lanes,)),))

    assert iterations_disjoint(For(p, 4, (tiles(2, 6, 0), tiles(1, 5, 12))))
    assert not iterations_disjoint(For(p, 5, (tiles(2, 6, 0), tiles(1, 5, 12))))
