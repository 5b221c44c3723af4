"""Index algebra: what the constructors build equals plain Python arithmetic on every iteration."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aotc.graph.types import DType
from aotc.loop import index as ix
from aotc.loop.index import Affine
from aotc.loop.ir import Bin, Buffer, Cmp, Conv, For, Lit, Load, Sel, Store, Un, Var

I, J, K = Var("i"), Var("j"), Var("k")  # noqa: E741
EXTENTS = {I: 4, J: 6, K: 3}
QUICK = settings(max_examples=80, deadline=None)


def value(expr, env):
    """The meaning of an index expression, by Python integers."""
    match expr:
        case Lit():
            return expr.value
        case Var():
            return env[expr]
        case Un(fn="neg"):
            return -value(expr.x, env)
        case Sel():
            return value(expr.a if value(expr.cond, env) else expr.b, env)
        case Cmp(fn="lt"):
            return value(expr.a, env) < value(expr.b, env)
        case Bin():
            a, b = value(expr.a, env), value(expr.b, env)
            if expr.fn == "div":
                assert a >= 0
            table = {
                "add": lambda: a + b,
                "sub": lambda: a - b,
                "mul": lambda: a * b,
                "div": lambda: a // b,
                "mod": lambda: a % b,
                "min": lambda: min(a, b),
                "max": lambda: max(a, b),
                "and": lambda: a & b,
            }
            return table[expr.fn]()
    raise AssertionError(expr)


def environments():
    for i, j, k in itertools.product(*(range(EXTENTS[v]) for v in (I, J, K))):
        yield {I: i, J: j, K: k}


affine_terms = st.tuples(
    st.integers(0, 20), st.integers(0, 14), st.integers(0, 14), st.integers(0, 14)
)


def build(coefficients):
    const, ci, cj, ck = coefficients
    return ix.linear(const, ((I, ci), (J, cj), (K, ck)))


def plain(coefficients, env):
    const, ci, cj, ck = coefficients
    return const + ci * env[I] + cj * env[J] + ck * env[K]


@QUICK
@given(affine_terms, st.integers(1, 40))
def test_div_and_mod_with_extents_are_exact(coefficients, n):
    expr = build(coefficients)
    quotient, rest = ix.div(expr, n, EXTENTS), ix.mod(expr, n, EXTENTS)
    for env in environments():
        exact = plain(coefficients, env)
        assert value(quotient, env) == exact // n
        assert value(rest, env) == exact % n


@QUICK
@given(affine_terms, st.integers(1, 12), st.integers(1, 12), st.integers(0, 5))
def test_nested_div_mod_and_sums_are_exact(coefficients, n, m, factor):
    inner = ix.div(build(coefficients), n, EXTENTS)
    mixed = ix.add(ix.mul(inner, factor), ix.mod(inner, m, EXTENTS))
    outer = ix.div(mixed, m, EXTENTS)
    for env in environments():
        q = plain(coefficients, env) // n
        assert value(mixed, env) == q * factor + q % m
        assert value(outer, env) == (q * factor + q % m) // m


@pytest.mark.slow
@QUICK
@given(affine_terms, st.integers(1, 12), st.integers(1, 12), st.integers(-9, 9))
def test_bounds_contain_every_value(coefficients, n, m, c):
    a = ix.div(build(coefficients), n)
    b = ix.sub(ix.mod(build(coefficients), m), c)
    exprs = [
        a,
        b,
        Bin("min", a, b),
        Bin("max", a, b),
        Bin("mul", a, b),
        Bin("and", a, Lit(5)),
        Un("neg", a),
        Sel(Cmp("lt", I, J), a, b),
    ]
    for expr in exprs:
        low, high = ix.bounds(expr, EXTENTS)
        values = [value(expr, env) for env in environments()]
        assert low <= min(values) and max(values) <= high


@QUICK
@given(affine_terms)
def test_bounds_of_affine_expressions_are_tight(coefficients):
    values = [plain(coefficients, env) for env in environments()]
    assert ix.bounds(build(coefficients), EXTENTS) == (min(values), max(values))


def test_affine_collects_equal_variables_and_drops_zeros():
    rest = Bin("sub", Bin("mul", J, Lit(2)), Bin("mul", I, Lit(3)))
    expr = Bin("add", Bin("mul", Lit(3), I), rest)
    assert ix.affine(expr) == Affine(0, ((J, 2),))
    assert ix.affine(Un("neg", ix.add(I, 1))) == Affine(-1, ((I, -1),))
    assert ix.affine(Bin("mul", I, J)) is None
    assert ix.affine(Lit(1, DType.I32)) is None


def test_split_of_a_tiled_index_gives_back_the_parts():
    flat = ix.linear(0, ((I, 6), (J, 1)))
    assert ix.affine(ix.div(flat, 6, EXTENTS)) == Affine(0, ((I, 1),))
    assert ix.affine(ix.mod(flat, 6, EXTENTS)) == Affine(0, ((J, 1),))
    # Without extents nothing is known about j.
    assert isinstance(ix.div(flat, 6), Bin)
    assert ix.affine(ix.div(ix.linear(0, ((I, 24), (J, 6))), 6)) == Affine(0, ((I, 4), (J, 1)))


def test_constants_fold_and_trivial_operations_vanish():
    load = Load(Buffer("n", DType.I64, 4), I)
    assert ix.affine(ix.add(ix.lit(2), 3)) == Affine(5)
    assert ix.add(load, 0) is load
    assert ix.add(ix.lit(0), load) is load
    assert ix.sub(load, ix.lit(0)) is load
    assert ix.mul(load, 1) is load
    assert ix.div(load, 1) is load
    assert ix.affine(ix.mul(load, 0)) == Affine(0)
    assert ix.affine(ix.mod(load, 1)) == Affine(0)
    nested = ix.mul(ix.mul(load, 3), 5)
    assert isinstance(nested, Bin) and nested.a is load and nested.b.value == 15


@pytest.mark.parametrize("fn", [ix.div, ix.mod])
def test_division_by_less_than_one_is_refused(fn):
    with pytest.raises(ValueError, match="by 0"):
        fn(I, 0)


def test_unknown_values_count_as_their_whole_type():
    wide = Load(Buffer("n", DType.I64, 4), I)
    narrow = Conv(Load(Buffer("m", DType.U8, 4), I), DType.I64)
    info = np.iinfo(np.int64)
    assert ix.bounds(wide, EXTENTS) == (info.min, info.max)
    assert ix.bounds(ix.add(wide, 1), EXTENTS) == (info.min, info.max)
    assert ix.bounds(narrow, EXTENTS) == (0, 255)
    clamped = Bin("min", Bin("max", wide, Lit(0)), Lit(9))
    assert ix.bounds(clamped, EXTENTS) == (0, 9)
    assert ix.bounds(Var("free"), EXTENTS) == (0, info.max)


def test_extents_of_finds_nested_loops():
    out = Buffer("o", DType.F32, 24)
    inner = For(J, 6, (Store(out, ix.linear(0, ((I, 6), (J, 1))), Lit(0.0, DType.F32)),))
    assert ix.extents_of((For(I, 4, (inner,)),)) == {I: 4, J: 6}
