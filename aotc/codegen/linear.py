"""Index analysis on loop IR: in go int64 expressions, out come sums of constant multiples of terms.

Unlike in ``aotc.loop.index.affine`` a term may be anything, such as a div or a loaded index.
"""

from __future__ import annotations

from dataclasses import dataclass

from aotc.graph.types import DType
from aotc.loop.index import bounds, extents_of
from aotc.loop.ir import Bin, Bits, Cmp, Conv, Expr, Fma, Kernel, Lit, Load, Sel, Un, Var


@dataclass(frozen=True, slots=True)
class Linear:
    """``const + sum(coef * term)``; terms are distinct nodes, variables or anything not linear."""

    const: int
    terms: tuple[tuple[Expr, int], ...]

    @property
    def is_const(self) -> bool:
        return not self.terms


def operands(expr: Expr) -> tuple[Expr, ...]:
    """The direct operands of an expression node."""
    match expr:
        case Load(index=index):
            return (index,)
        case Un(x=x) | Conv(x=x) | Bits(x=x):
            return (x,)
        case Bin(a=a, b=b) | Cmp(a=a, b=b):
            return (a, b)
        case Fma(a=a, b=b, c=c):
            return (a, b, c)
        case Sel(cond=cond, a=a, b=b):
            return (cond, a, b)
    return ()


class IndexAnalysis:
    """Facts about the expressions of one kernel, each computed once per node."""

    def __init__(self, kernel: Kernel) -> None:
        self._extents = extents_of(kernel.body)
        self._linear: dict[Expr, Linear] = {}
        self._variables: dict[Expr, frozenset[Var]] = {}
        self._loads: dict[Expr, bool] = {}

    def variables(self, expr: Expr) -> frozenset[Var]:
        """The loop variables that the value of ``expr`` depends on."""
        found = self._variables.get(expr)
        if found is None:
            if isinstance(expr, Var):
                found = frozenset((expr,))
            else:
                found = frozenset().union(*(self.variables(x) for x in operands(expr)))
            self._variables[expr] = found
        return found

    def has_load(self, expr: Expr) -> bool:
        """Whether ``expr`` reads memory, so that its value depends on when it is computed."""
        found = self._loads.get(expr)
        if found is None:
            found = isinstance(expr, Load) or any(self.has_load(x) for x in operands(expr))
            self._loads[expr] = found
        return found

    def never_negative(self, division: Bin) -> bool:
        """Whether both operands of an integer div or mod are known to be at least 0."""
        return all(bounds(x, self._extents)[0] >= 0 for x in (division.a, division.b))

    def linear(self, expr: Expr) -> Linear:
        """``expr`` (int64) as a linear form; what is not linear becomes a term of its own."""
        found = self._linear.get(expr)
        if found is None:
            found = self._analyse(expr)
            self._linear[expr] = found
        return found

    def _analyse(self, expr: Expr) -> Linear:
        if isinstance(expr, Lit):
            return Linear(int(expr.value), ())
        if isinstance(expr, Bin) and expr.dtype is DType.I64:
            if expr.fn in ("add", "sub"):
                sign = 1 if expr.fn == "add" else -1
                return _sum(self.linear(expr.a), self.linear(expr.b), sign)
            if expr.fn == "mul":
                a, b = self.linear(expr.a), self.linear(expr.b)
                if a.is_const:
                    return _scaled(b, a.const)
                if b.is_const:
                    return _scaled(a, b.const)
        if isinstance(expr, Un) and expr.fn == "neg":
            return _scaled(self.linear(expr.x), -1)
        return Linear(0, ((expr, 1),))


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
