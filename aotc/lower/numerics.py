"""Arithmetic without fused multiply-add: a Program in, the same one with every `Fma` as a product
and a sum, each rounded, out.

For targets that have no such instruction, where it would be a slow call of a function that nobody
provides, and for whoever wants the bytes of those targets everywhere (``--numerics no-fma``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from aotc.loop.ir import Alloc, Bin, Expr, Fma, For, Kernel, Prefetch, Stmt, Store
from aotc.loop.program import Program, map_calls
from aotc.loop.walk import OPERAND_FIELDS, operands, post_order


def without_fma(program: Program) -> Program:
    """``program`` with two roundings where it had one."""
    split: dict[Kernel, Kernel] = {}
    for kernel in program.kernels():
        split[kernel] = replace(kernel, body=_statements(kernel.body))
    steps = map_calls(program.steps, lambda call: replace(call, kernel=split[call.kernel]))
    return replace(program, steps=steps)


def _statements(body: Sequence[Stmt]) -> tuple[Stmt, ...]:
    return tuple(map(_statement, body))


def _statement(stmt: Stmt) -> Stmt:
    match stmt:
        case Store(index=index, value=value):
            # together, because an expression that both contain is computed once
            new_index, new_value = _expressions((index, value))
            return replace(stmt, index=new_index, value=new_value)
        case Prefetch(index=index):
            return replace(stmt, index=_expressions((index,))[0])
        case For(body=body) | Alloc(body=body):
            return replace(stmt, body=_statements(body))
    return stmt


def _expressions(roots: tuple[Expr, ...]) -> list[Expr]:
    new: dict[int, Expr] = {}
    for expr in post_order(roots):
        if isinstance(expr, Fma):
            a, b, c = (new[id(operand)] for operand in (expr.a, expr.b, expr.c))
            new[id(expr)] = Bin("add", Bin("mul", a, b), c)
        elif all(new[id(operand)] is operand for operand in operands(expr)):
            new[id(expr)] = expr
        else:
            changed = {
                name: new[id(getattr(expr, name))]
                for name in OPERAND_FIELDS
                if isinstance(getattr(expr, name, None), Expr)
            }
            new[id(expr)] = replace(expr, **changed)  # type: ignore[type-var]
    return [new[id(root)] for root in roots]
