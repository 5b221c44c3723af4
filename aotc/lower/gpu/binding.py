"""Positions of GPU threads: numbers and the sizes of axes in, Bind statements out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from aotc.loop import index
from aotc.loop.index import affine
from aotc.loop.ir import Bin, Bind, Expr, Stmt, Var

Body = Callable[[Expr], list[Stmt]]


def bind(name: str, value: Expr, extent: int, body: Body) -> list[Stmt]:
    """``body`` of a variable that has ``value`` where that is below ``extent``."""
    form = affine(value)
    if form is not None and form.is_const and 0 <= form.const < extent:
        return body(value)
    var = Var(name)
    return [Bind(var, value, extent, tuple(body(var)))]


class Binder:
    """Variables bound one inside the other around a body that is written after them."""

    def __init__(self) -> None:
        self._bound: list[tuple[Var, Expr, int]] = []

    def bind(self, name: str, value: Expr, extent: int) -> Expr:
        """A variable that has ``value``, which is below ``extent``."""
        form = affine(value)
        if isinstance(value, Var) or (form is not None and form.is_const):
            return value
        var = Var(name)
        self._bound.append((var, value, extent))
        return var

    def around(self, body: list[Stmt]) -> list[Stmt]:
        """``body`` with all of them bound."""
        for var, value, extent in reversed(self._bound):
            body = [Bind(var, value, extent, tuple(body))]
        return body


def position(value: Expr, dims: Sequence[int]) -> tuple[Expr, ...]:
    """As `digits`, of a number that is used once: as expressions."""
    found: list[Expr] = []
    inner = math.prod(dims)
    for at, dim in enumerate(dims):
        inner //= dim
        found.append(index.lit(0) if dim == 1 else _digit(value, inner, dim, last=at == 0))
    return tuple(found)


def digits(
    name: str, value: Expr, dims: Sequence[int], body: Callable[[tuple[Expr, ...]], list[Stmt]]
) -> list[Stmt]:
    """``body`` of the position on axes of ``dims`` that ``value``, a number below their product,
    stands for in row-major order."""
    inner = 1
    values: list[Expr] = []
    for dim in reversed(dims):
        values.append(_digit(value, inner, dim, last=len(values) == len(dims) - 1))
        inner *= dim
    values.reverse()

    def nest(found: tuple[Expr, ...]) -> list[Stmt]:
        at = len(found)
        if at == len(dims):
            return body(found)
        if dims[at] == 1:
            return nest((*found, index.lit(0)))
        return bind(f"{name}{at}", values[at], dims[at], lambda var: nest((*found, var)))

    return nest(())


def _digit(value: Expr, inner: int, dim: int, last: bool) -> Expr:
    """(value div inner) mod dim; the leading digit needs no remainder."""
    quotient = index.div(value, inner)
    return quotient if last or dim == 1 else index.mod(quotient, dim)


def held_below(value: Expr, limit: int) -> Expr:
    """``value``, or the last number below ``limit`` where it is none."""
    return Bin("min", value, index.lit(limit - 1))
