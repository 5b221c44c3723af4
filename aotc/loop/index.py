"""Index arithmetic: int64 loop-IR expressions in, simplified expressions, affine forms or bounds
out.

The constructors fold constants and apply exact identities only; the results count and compare like
the unsimplified ones for every value of the loop variables within their extents.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from aotc.graph.types import DType
from aotc.loop.ir import Bin, Bind, Conv, Expr, Fma, For, Lit, Sel, Stmt, Un, Var

_NO_EXTENTS: Mapping[Var, int] = MappingProxyType({})


@dataclass(frozen=True)
class Affine:
    """``const`` plus the sum of variable times coefficient; no coefficient is 0, no variable twice,
    in order of first appearance."""

    const: int
    terms: tuple[tuple[Var, int], ...] = ()

    @property
    def is_const(self) -> bool:
        """Whether no variable appears."""
        return not self.terms

    def coefficient(self, var: Var) -> int:
        """The factor of ``var``, 0 when it does not appear."""
        return next((c for v, c in self.terms if v is var), 0)

    def plus(self, other: Affine, factor: int = 1) -> Affine:
        """self + factor*other."""
        return _collect(
            self.const + factor * other.const,
            (*self.terms, *((v, c * factor) for v, c in other.terms)),
        )

    def times(self, factor: int) -> Affine:
        """self * factor."""
        return _collect(self.const * factor, ((v, c * factor) for v, c in self.terms))

    def bounds(self, extents: Mapping[Var, int]) -> tuple[int, int] | None:
        """Smallest and largest value; None when a variable has no extent."""
        low = high = self.const
        for var, c in self.terms:
            if var not in extents:
                return None
            span = c * (extents[var] - 1)
            low, high = low + min(span, 0), high + max(span, 0)
        return low, high

    def expr(self) -> Expr:
        """The expression, terms in order and the constant last."""
        result: Expr | None = None
        for var, c in self.terms:
            term = var if c == 1 else Bin("mul", var, lit(c))
            result = term if result is None else Bin("add", result, term)
        if result is None:
            return lit(self.const)
        return Bin("add", result, lit(self.const)) if self.const else result


def _collect(const: int, terms: Iterable[tuple[Var, int]]) -> Affine:
    sums: dict[Var, int] = {}
    for var, c in terms:
        sums[var] = sums.get(var, 0) + c
    return Affine(const, tuple((var, c) for var, c in sums.items() if c != 0))


def lit(value: int) -> Lit:
    """An int64 literal."""
    return Lit(value, DType.I64)


def affine(expr: Expr) -> Affine | None:
    """``expr`` as an affine form of loop variables; None when it is not one."""
    match expr:
        case Lit(value=int(value), dtype=DType.I64):
            return Affine(value)
        case Var():
            return Affine(0, ((expr, 1),))
        case Bin(fn="add" | "sub" as fn, a=a, b=b):
            left, right = affine(a), affine(b)
            if left is None or right is None:
                return None
            return left.plus(right, 1 if fn == "add" else -1)
        case Bin(fn="mul", a=a, b=b):
            left, right = affine(a), affine(b)
            if left is None or right is None:
                return None
            if right.is_const:
                return left.times(right.const)
            return right.times(left.const) if left.is_const else None
        case Un(fn="neg", x=x):
            inner = affine(x)
            return None if inner is None else inner.times(-1)
    return None


def add(a: Expr, b: Expr | int) -> Expr:
    """a + b, collected into one affine form when both are affine."""
    right = lit(b) if isinstance(b, int) else b
    left_form, right_form = affine(a), affine(right)
    if left_form is not None and right_form is not None:
        return left_form.plus(right_form).expr()
    if left_form == Affine(0):
        return right
    return a if right_form == Affine(0) else Bin("add", a, right)


def sub(a: Expr, b: Expr | int) -> Expr:
    """a - b."""
    if isinstance(b, int):
        return add(a, -b)
    left, right = affine(a), affine(b)
    if left is not None and right is not None:
        return left.plus(right, -1).expr()
    return a if right == Affine(0) else Bin("sub", a, b)


def mul(a: Expr, factor: int) -> Expr:
    """a * factor, distributed over an affine form."""
    form = affine(a)
    if form is not None:
        return form.times(factor).expr()
    if factor == 0:
        return lit(0)
    if factor == 1:
        return a
    if isinstance(a, Bin) and a.fn == "mul" and isinstance(a.b, Lit):
        return mul(a.a, int(a.b.value) * factor)
    return Bin("mul", a, lit(factor))


def linear(const: int, terms: Iterable[tuple[Expr, int]]) -> Expr:
    """const + the sum of expression times factor, collected as far as the expressions are
    affine."""
    total: Expr = lit(const)
    for expr, factor in terms:
        total = add(total, mul(expr, factor))
    return total


def div(a: Expr, n: int, extents: Mapping[Var, int] = _NO_EXTENTS) -> Expr:
    """a div n for a >= 0 and n >= 1, simplified with the extents of the variables where known."""
    if n < 1:
        raise ValueError(f"index division by {n}")
    if n == 1:
        return a
    parts = _split(a, n, extents)
    if parts is not None:
        return parts[0].expr()
    limits = bounds(a, extents)
    if limits[0] >= 0 and limits[0] // n == limits[1] // n:
        return lit(limits[0] // n)
    if isinstance(a, Bin) and a.fn == "div" and isinstance(a.b, Lit):
        return div(a.a, int(a.b.value) * n, extents)
    return Bin("div", a, lit(n))


def mod(a: Expr, n: int, extents: Mapping[Var, int] = _NO_EXTENTS) -> Expr:
    """a mod n for a >= 0 and n >= 1, simplified with the extents of the variables where known."""
    if n < 1:
        raise ValueError(f"index remainder by {n}")
    if n == 1:
        return lit(0)
    parts = _split(a, n, extents)
    if parts is not None:
        return parts[1].expr()
    limits = bounds(a, extents)
    if limits[0] >= 0 and limits[0] // n == limits[1] // n:
        return add(a, -(limits[0] // n) * n)
    if isinstance(a, Bin) and a.fn == "mod" and isinstance(a.b, Lit) and int(a.b.value) % n == 0:
        return mod(a.a, n, extents)
    form = affine(a)
    if form is None:
        return Bin("mod", a, lit(n))
    # Multiples of n do not matter, as long as what is left cannot become negative.
    rest = _collect(form.const % n, ((v, c % n) for v, c in form.terms))
    return Bin("mod", rest.expr(), lit(n))


def _split(a: Expr, n: int, extents: Mapping[Var, int]) -> tuple[Affine, Affine] | None:
    """(q, r) with a = n*q + r and 0 <= r < n by bounds; None when no such affine split exists."""
    form = affine(a)
    if form is None:
        return None
    quotient = _collect(form.const // n, ((v, c // n) for v, c in form.terms if c % n == 0))
    rest = _collect(form.const % n, ((v, c) for v, c in form.terms if c % n != 0))
    limits = rest.bounds(extents)
    if limits is None or limits[0] // n != limits[1] // n:
        return None
    extra = limits[0] // n
    return quotient.plus(Affine(extra)), rest.plus(Affine(-extra * n))


def bounds(expr: Expr, extents: Mapping[Var, int]) -> tuple[int, int]:
    """Interval analysis: numbers below and above every value of the integer ``expr`` while each
    variable stays in 0 .. extent-1. What is not known (loads, variables without extent, anything
    that may wrap) counts as the whole range of its type."""
    return _bounds(expr, extents, {})


def _bounds(
    expr: Expr, extents: Mapping[Var, int], memo: dict[int, tuple[int, int]]
) -> tuple[int, int]:
    if id(expr) not in memo:
        form = affine(expr)
        limits = form.bounds(extents) if form else None
        if limits is None:
            limits = _bounds_of_node(expr, extents, memo)
        least, most = range_of(expr.dtype)
        if limits is None or limits[0] < least or limits[1] > most:
            limits = least, most
        memo[id(expr)] = limits
    return memo[id(expr)]


def range_of(dtype: DType) -> tuple[int, int]:
    """Smallest and largest value of an integer type or bool."""
    if dtype is DType.BOOL or dtype.is_float:
        return 0, 1
    info = np.iinfo(dtype.numpy)
    return int(info.min), int(info.max)


def _bounds_of_node(
    expr: Expr, extents: Mapping[Var, int], memo: dict[int, tuple[int, int]]
) -> tuple[int, int] | None:
    match expr:
        case Lit(value=int(value)):
            return value, value
        case Var():
            return 0, extents[expr] - 1 if expr in extents else range_of(DType.I64)[1]
        case Sel(a=a, b=b):
            left, right = _bounds(a, extents, memo), _bounds(b, extents, memo)
            return min(left[0], right[0]), max(left[1], right[1])
        case Conv(x=x) if x.dtype.is_int:
            return _bounds(x, extents, memo)
        case Conv(x=x) if x.dtype is DType.BOOL:
            return 0, 1
        case Un(fn="neg", x=x) if x.dtype.is_int:
            inner = _bounds(x, extents, memo)
            return -inner[1], -inner[0]
        case Bin(fn=fn, a=a, b=b) if a.dtype.is_int:
            return _bounds_of_bin(fn, _bounds(a, extents, memo), _bounds(b, extents, memo))
        case Fma(a=a, b=b, c=c) if a.dtype.is_int:
            factors = _bounds(a, extents, memo), _bounds(b, extents, memo)
            corners = [x * y for x in factors[0] for y in factors[1]]
            addend = _bounds(c, extents, memo)
            return min(corners) + addend[0], max(corners) + addend[1]
    return None


def _bounds_of_bin(
    fn: str, left: tuple[int, int], right: tuple[int, int]
) -> tuple[int, int] | None:
    match fn:
        case "add":
            return left[0] + right[0], left[1] + right[1]
        case "sub":
            return left[0] - right[1], left[1] - right[0]
        case "mul":
            corners = [x * y for x in left for y in right]
            return min(corners), max(corners)
        case "div" if right[0] >= 1:
            corners = [_truncate(x, y) for x in left for y in right]
            return min(corners), max(corners)
        case "min":
            return min(left[0], right[0]), min(left[1], right[1])
        case "max":
            return max(left[0], right[0]), max(left[1], right[1])
        case "mod" if right[0] >= 1:
            inside = left[0] >= 0 and left[1] < right[0]
            return left if inside else (0, right[1] - 1)
        case "xor" | "or" if min(left[0], right[0]) >= 0:
            return 0, (1 << max(left[1], right[1]).bit_length()) - 1
        case "and" if max(left[0], right[0]) >= 0:
            return 0, min(side[1] for side in (left, right) if side[0] >= 0)
    return None


def _truncate(x: int, y: int) -> int:
    return x // y if x >= 0 else -(-x // y)


def extents_of(stmts: Iterable[Stmt]) -> dict[Var, int]:
    """The extent of every loop or bound variable in a list of statements, nested ones included."""
    found: dict[Var, int] = {}
    stack = list(stmts)
    while stack:
        stmt = stack.pop()
        if isinstance(stmt, (For, Bind)):
            found[stmt.var] = stmt.extent
        stack.extend(getattr(stmt, "body", ()))
    return found


def divisor(expr: Expr, known: Mapping[Var, int]) -> int:
    """A number that divides every value of the integer ``expr``; 0 where that is always 0. Of
    variables the numbers in ``known`` do, else 1."""
    match expr:
        case Lit(value=int(value)):
            return abs(value)
        case Var():
            return known.get(expr, 1)
        case Bin(fn="add" | "sub" | "min" | "max", a=a, b=b) | Sel(a=a, b=b):
            return math.gcd(divisor(a, known), divisor(b, known))
        case Bin(fn="mul", a=a, b=b):
            return divisor(a, known) * divisor(b, known)
        case Bin(fn="mod", a=a, b=Lit(value=int(value))):
            return math.gcd(divisor(a, known), value)
        case Bin(fn="div", a=a, b=Lit(value=int(value))) if value > 0:
            found = divisor(a, known)
            return found // value if found % value == 0 else 1
        case Bin(fn="xor" | "or", a=a, b=b):
            both = divisor(a, known) | divisor(b, known)
            return both & -both
    return 1
