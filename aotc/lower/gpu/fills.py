"""Borders of padded tensors on a GPU: a Program goes in, the same Program comes out in which what
fills borders is no launch of its own, but is done on the way by the kernel that stores the inside.

A launch costs more than such a border does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from aotc.loop import index
from aotc.loop.ir import Alloc, Bind, Expr, For, Kernel, Kind, Stmt, Var
from aotc.loop.launch import Nest, nest_of
from aotc.loop.program import Call, If, Loop, Program, Role, Step, Storage
from aotc.loop.walk import accesses, has_barrier


def join_fills(program: Program) -> Program:
    """``program``, all kernels of which are for a GPU, with fewer launches."""
    made: dict[tuple[Kernel, Kernel], Kernel] = {}
    return replace(program, steps=_joined(program.steps, made))


def _joined(steps: Sequence[Step], made: dict[tuple[Kernel, Kernel], Kernel]) -> tuple[Step, ...]:
    found: list[Step] = []
    for step in steps:
        match step:
            case Call() if _is_fill(step.kernel):
                at = _last_user(found, step.args[0].storage)
                call = None if at is None else found[at]
                if at is not None and isinstance(call, Call) and _takes(call, step):
                    found[at] = _with_fill(call, step, made)
                else:
                    found.append(step)
            case If():
                then, other = _joined(step.then, made), _joined(step.other, made)
                found.append(replace(step, then=then, other=other))
            case Loop():
                found.append(replace(step, body=_joined(step.body, made)))
            case _:
                found.append(step)
    return tuple(found)


def _is_fill(kernel: Kernel) -> bool:
    """Whether ``kernel`` reads nothing and stores to one tensor, each thread for itself."""
    nest = nest_of(kernel)
    if len(kernel.params) > 1 or nest.shared or has_barrier(nest.body):
        return False
    return all(is_store for _, _, is_store in accesses(nest.body))


def _last_user(steps: Sequence[Step], storage: Storage) -> int | None:
    """The number of the last step that touches ``storage``; None if none does, or if it is unclear,
    because storages of that kind may be one memory."""
    if storage.role is not Role.ARENA:
        return None
    for number in reversed(range(len(steps))):
        step = steps[number]
        if not isinstance(step, Call):
            return None
        if any(arg.storage is storage for arg in step.args):
            return number
    return None


def _takes(call: Call, fill: Call) -> bool:
    """Whether ``call`` only stores to what ``fill`` stores to, and is not joined with another."""
    storage = fill.args[0].storage
    touched = [
        param in call.kernel.writes
        for param, arg in zip(call.kernel.params, call.args, strict=True)
        if arg.storage is storage
    ]
    names = {param.name for param in call.kernel.params}
    return all(touched) and fill.kernel.params[0].name not in names


def _with_fill(call: Call, fill: Call, made: dict[tuple[Kernel, Kernel], Kernel]) -> Call:
    key = (call.kernel, fill.kernel)
    if key not in made:
        made[key] = _both(call.kernel, fill.kernel)
    return replace(call, kernel=made[key], args=(*call.args, *fill.args))


def _both(kernel: Kernel, fill: Kernel) -> Kernel:
    """``kernel`` whose threads first do what those of ``fill`` do."""
    nest, filling = nest_of(kernel), nest_of(fill)
    body: tuple[Stmt, ...] = (*_shared_out(nest, filling), *nest.body)
    for loop in reversed(nest.threads):
        body = (replace(loop, body=body),)
    for buffer in reversed(nest.shared):
        body = (Alloc(buffer, body),)
    for loop in reversed(nest.blocks):
        body = (replace(loop, body=body),)
    return replace(
        kernel,
        name=f"{kernel.name}_in_border",
        params=(*kernel.params, *fill.params),
        writes=kernel.writes | fill.writes,
        body=body,
    )


def _shared_out(nest: Nest, filling: Nest) -> Iterator[Stmt]:
    """The threads of ``filling``, shared among those of ``nest``."""
    total, number = _numbered(nest)
    wanted, _ = _numbered(filling)
    turns = -(-wanted // total)
    turn = Var("turn")
    if turns > 1:
        number = index.add(index.mul(turn, total), number)
    item, inner = Var("item"), 1
    body = filling.body
    for loop in reversed((*filling.blocks, *filling.threads)):
        quotient = index.div(item, inner, {item: wanted})
        digit = index.mod(quotient, loop.extent, {item: wanted})
        body = (Bind(loop.var, digit, loop.extent, body),)
        inner *= loop.extent
    bound = Bind(item, number, wanted, body)
    yield For(turn, turns, (bound,), Kind.SERIAL) if turns > 1 else bound


def _numbered(nest: Nest) -> tuple[int, Expr]:
    """How many threads a kernel has, and the number of one among them."""
    total = 1
    number: Expr = index.lit(0)
    for loop in (*nest.blocks, *nest.threads):
        number = index.add(index.mul(number, loop.extent), loop.var)
        total *= loop.extent
    return total, number
