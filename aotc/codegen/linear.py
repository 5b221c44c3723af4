"""Index analysis on loop IR: in go int64 expressions, out come sums of constant multiples of terms.

Unlike in ``aotc.loop.index.affine`` a term may be anything, such as a div or a loaded index.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from aotc.graph.types import DType
from aotc.loop.index import bounds, divisor, extents_of
from aotc.loop.ir import Bin, Bind, Expr, Kernel, Lit, Load, Stmt, Un, Var
from aotc.loop.walk import operands, post_order


@dataclass(frozen=True, slots=True)
class Linear:
    """``const + sum(coef * term)``; terms are distinct nodes, variables or anything not linear."""

    const: int
    terms: tuple[tuple[Expr, int], ...]

    @property
    def is_const(self) -> bool:
        return not self.terms


class IndexAnalysis:
    """Facts about the expressions of one kernel, each computed once per node."""

    def __init__(self, kernel: Kernel) -> None:
        self._extents = extents_of(kernel.body)
        self._divisors: dict[Var, int] = {}
        _find_divisors(kernel.body, self._divisors)
        self._linear: dict[Expr, Linear] = {}
        self._variables: dict[Expr, frozenset[Var]] = {}
        self._loads: dict[Expr, bool] = {}

    def variables(self, expr: Expr) -> frozenset[Var]:
        """The loop variables that the value of ``expr`` depends on."""
        if expr not in self._variables:
            for node in post_order((expr,)):
                own = (node,) if isinstance(node, Var) else ()
                below = (self._variables[x] for x in operands(node))
                self._variables[node] = frozenset(own).union(*below)
        return self._variables[expr]

    def has_load(self, expr: Expr) -> bool:
        """Whether ``expr`` reads memory, so that its value depends on when it is computed."""
        if expr not in self._loads:
            for node in post_order((expr,)):
                below = any(self._loads[x] for x in operands(node))
                self._loads[node] = below or isinstance(node, Load)
        return self._loads[expr]

    def never_negative(self, division: Bin) -> bool:
        """Whether both operands of an integer div or mod are known to be at least 0."""
        return all(bounds(x, self._extents)[0] >= 0 for x in (division.a, division.b))

    def limits(self, expr: Expr) -> tuple[int, int]:
        """Numbers below and above every value of an integer expression."""
        return bounds(expr, self._extents)

    def divisor(self, expr: Expr) -> int:
        """A number that divides every value of an integer expression; 0 where it is always 0."""
        return divisor(expr, self._divisors)

    def linear(self, expr: Expr) -> Linear:
        """``expr`` (int64) as a linear form; what is not linear becomes a term of its own."""
        if expr not in self._linear:
            for node in post_order((expr,), _linear_operands):
                self._linear[node] = self._analyse(node)
        return self._linear[expr]

    def _analyse(self, expr: Expr) -> Linear:
        if isinstance(expr, Lit):
            return Linear(int(expr.value), ())
        if isinstance(expr, Bin) and expr.dtype is DType.I64:
            if expr.fn in ("add", "sub"):
                sign = 1 if expr.fn == "add" else -1
                return _sum(self._linear[expr.a], self._linear[expr.b], sign)
            if expr.fn == "mul":
                a, b = self._linear[expr.a], self._linear[expr.b]
                if a.is_const:
                    return _scaled(b, a.const)
                if b.is_const:
                    return _scaled(a, b.const)
        if isinstance(expr, Un) and expr.fn == "neg" and expr.dtype is DType.I64:
            return _scaled(self._linear[expr.x], -1)
        return Linear(0, ((expr, 1),))


def _find_divisors(body: Iterable[Stmt], found: dict[Var, int]) -> None:
    """Numbers that divide what variables are bound to."""
    for stmt in body:
        if isinstance(stmt, Bind):
            found[stmt.var] = divisor(stmt.value, found)
        _find_divisors(getattr(stmt, "body", ()), found)


def _linear_operands(expr: Expr) -> tuple[Expr, ...]:
    """The operands that ``expr`` may be linear in."""
    is_sum = isinstance(expr, Bin) and expr.fn in ("add", "sub", "mul")
    is_negation = isinstance(expr, Un) and expr.fn == "neg"
    return operands(expr) if expr.dtype is DType.I64 and (is_sum or is_negation) else ()


def _scaled(form: Linear, factor: int) -> Linear:
    if factor == 0:
        return Linear(0, ())
    return Linear(form.const * factor, tuple((term, coef * factor) for term, coef in form.terms))


def _sum(a: Linear, b: Linear, sign: int) -> Linear:
    terms = dict(a.terms)
    for term, coef in b.terms:
        terms[term] = terms.get(term, 0) + sign * coef
    kept = tuple((term, coef) for term, coef in terms.items() if coef)
    return Linear(a.const + sign * b.const, kept)
