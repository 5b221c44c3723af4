"""JAX's control flow: programs as functions of Tensors in, branches and loops out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from aotc.errors import UnsupportedError
from aotc.graph import ops
from aotc.graph.types import DType
from aotc.tracing.control import cond as branch
from aotc.tracing.control import scan as scan_rows
from aotc.tracing.control import while_loop as repeat_while
from aotc.tracing.core import compare, constant, elementwise, known, reshape
from aotc.tracing.tensor import Tensor, tnp

Nested = Callable[..., list[Tensor]]
Read = Callable[[Any], Nested]
"""A parameter that holds a program -> a function of Tensors."""


def _call(read: Read, params: Mapping[str, Any], operands: Sequence[Tensor]) -> list[Tensor]:
    """A program that runs where it is called, under any of the names that JAX gives it."""
    names = ("jaxpr", "call_jaxpr", "fun_jaxpr")
    inside = next(params[name] for name in names if name in params)
    return read(inside)(*operands)


def _cond(read: Read, params: Mapping[str, Any], operands: Sequence[Tensor]) -> Any:
    """One of several programs, by number; a number outside means the nearest."""
    which, *given = operands
    branches = [read(each) for each in params["branches"]]
    return _choose(which, branches, given)


def _choose(which: Tensor, branches: Sequence[Nested], given: Sequence[Tensor]) -> Any:
    number = known(which)
    if len(branches) == 1:
        return branches[0](*given)
    if number is not None:
        return branches[max(0, min(int(number), len(branches) - 1))](*given)
    if which.type.dtype is DType.BOOL:
        return branch(which, lambda: branches[1](*given), lambda: branches[0](*given))
    return branch(
        compare("le", which, 0),
        lambda: branches[0](*given),
        lambda: _choose(which - which.dtype.type(1), branches[1:], given),
    )


def _platform(read: Read, params: Mapping[str, Any], operands: Sequence[Tensor]) -> Any:
    """Which of several programs is for a processor: that for "cpu", else the one for all."""
    choices = [names or ("cpu",) for names in params["platforms"]]
    fit = [place for place, names in enumerate(choices) if "cpu" in names]
    if not fit:
        raise UnsupportedError("there is no program for a processor")
    return [constant(fit[0], DType.I32)]


def _while(read: Read, params: Mapping[str, Any], operands: Sequence[Tensor]) -> Any:
    tests, bodies = params["cond_nconsts"], params["body_nconsts"]
    for_test, for_body = operands[:tests], operands[tests : tests + bodies]
    condition, body = read(params["cond_jaxpr"]), read(params["body_jaxpr"])

    def going(state: Any) -> Any:
        return condition(*for_test, *state)[0]

    def after(state: Any) -> Any:
        made, each = body(*for_body, *state), going(state)
        if not each.ndim:
            return made
        # of a batch, the samples that are done keep their state
        return [
            elementwise(ops.Select(), reshape(each, (*each.shape, *(1,) * (new.ndim - each.ndim))),
                        new, old)
            for new, old in zip(made, state, strict=True)
        ]  # fmt: skip

    return repeat_while(
        lambda state: tnp.any(going(state)), after, list(operands[tests + bodies :])
    )


def _scan(read: Read, params: Mapping[str, Any], operands: Sequence[Tensor]) -> Any:
    shared, count = params["num_consts"], params["num_carry"]
    fixed, init = operands[:shared], operands[shared : shared + count]
    rows, body = operands[shared + count :], read(params["jaxpr"])

    def step(state: Any, row: Any) -> Any:
        made = body(*fixed, *state, *row)
        return list(made[:count]), list(made[count:])

    backward = params["reverse"]
    rows = [tnp.flip(row, 0) if backward else row for row in rows]
    last, stacks = scan_rows(step, list(init), list(rows), length=params["length"])
    return [*last, *(tnp.flip(y, 0) if backward else y for y in stacks)]


def _linear_solve(read: Read, params: Mapping[str, Any], operands: Sequence[Tensor]) -> Any:
    """A linear system by the solver that comes with it; what it needs stands among the operands."""
    lengths, solver = params["const_lengths"], params["jaxprs"].solve
    before = lengths.matvec + lengths.vecmat
    fixed = operands[before : before + lengths.solve]
    right = operands[before + lengths.solve + lengths.transpose_solve :]
    return read(solver)(*fixed, *right)


_CALLS = (
    "jit pjit closed_call core_call remat remat2 checkpoint custom_jvp_call custom_vjp_call"
    " custom_vjp_call_jaxpr composite"
)

NESTED: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        **dict.fromkeys(_CALLS.split(), _call),
        "cond": _cond,
        "platform_index": _platform,
        "while": _while,
        "scan": _scan,
        "custom_linear_solve": _linear_solve,
    }
)
"""By the name of the primitive."""

RANDOM = (
    *("random_seed", "random_wrap", "random_unwrap", "random_clone"),
    *("random_bits", "random_split", "random_fold_in"),
)
"""Primitives on keys: JAX's own formulas for them are imported."""
