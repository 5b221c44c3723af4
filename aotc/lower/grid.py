"""Kernels for a GPU from those for a processor: a Program goes in, the same Program comes out with
every kernel a nest of BLOCK and THREAD loops.

Loops whose iterations provably touch different memory become threads, one for each combination of
iterations; everything inside runs in one thread in order. A kernel becomes one kernel for each
nest of such loops in it: launches run one after the other, which is the only order between
different blocks.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from aotc.loop import index
from aotc.loop.disjoint import iterations_disjoint, stores_disjoint
from aotc.loop.index import affine
from aotc.loop.ir import Alloc, Bind, Expr, For, Kernel, Kind, Space, Stmt, Store, Var
from aotc.loop.launch import WARP, is_gpu_kernel
from aotc.loop.program import Call, Program, splice_calls
from aotc.loop.walk import accesses

#: Threads of a block of independent threads: enough blocks fit a multiprocessor to fill it.
THREADS = 256
#: Threads of a block where there are few of them, and blocks that give every multiprocessor two.
FEWEST_THREADS, BLOCKS = 64, 264


def to_grid(program: Program) -> Program:
    """Every kernel as one for a GPU, or several, launched in order."""
    made: dict[Kernel, tuple[Kernel, ...]] = {}
    for kernel in program.kernels():
        made[kernel] = (kernel,) if is_gpu_kernel(kernel) else tuple(_kernels(kernel))
    return replace(program, steps=splice_calls(program.steps, lambda c: _calls(c, made[c.kernel])))


def _calls(call: Call, kernels: Sequence[Kernel]) -> list[Call]:
    """``call`` as calls of the kernels that its own became."""
    if len(kernels) == 1:
        return [replace(call, kernel=kernels[0])]
    places = dict(zip(call.kernel.params, call.args, strict=True))
    return [Call(kernel, tuple(places[p] for p in kernel.params)) for kernel in kernels]


def _kernels(kernel: Kernel) -> Iterator[Kernel]:
    groups: list[list[_Part]] = []
    for part in (part for stmt in kernel.body for part in _parts(stmt, ())):
        if groups and all(_may_run_together(kernel, part, other) for other in groups[-1]):
            groups[-1].append(part)
        else:
            groups.append([part])
    name = re.sub(r"[^A-Za-z0-9_]", "_", kernel.name)
    if len(groups) == 1:
        yield replace(kernel, name=name, body=(_nest(groups[0]),), independent=False)
        return
    for number, group in enumerate(groups):
        body = (_nest(group),)
        found = list(accesses(body))
        used = {id(buffer) for buffer, _, _ in found}
        stored = {id(buffer) for buffer, _, is_store in found if is_store}
        yield Kernel(
            f"{name}_{number}",
            tuple(p for p in kernel.params if id(p) in used),
            frozenset(p for p in kernel.params if id(p) in stored),
            body,
            # what was one memory in one call stays so in each of its parts
            kernel.may_alias,
            kernel.recipe,
        )


@dataclass(frozen=True)
class _Part:
    """``body`` for every combination of iterations of ``loops``, in any order."""

    loops: tuple[For, ...]
    body: tuple[Stmt, ...]

    @property
    def total(self) -> int:
        """The combinations."""
        return math.prod(loop.extent for loop in self.loops)

    @property
    def threads(self) -> int:
        """Threads of a block: fewer where blocks are."""
        threads = THREADS
        while threads > FEWEST_THREADS and self.total < threads * BLOCKS:
            threads //= 2
        return min(threads, -(-self.total // WARP) * WARP) if self.total > 1 else 1

    def serial(self) -> tuple[Stmt, ...]:
        """The same as loops."""
        body = self.body
        for loop in reversed(self.loops):
            body = (replace(loop, body=body),)
        return body

    def of(self, number: Expr) -> tuple[Stmt, ...]:
        """The body of the combination of this number, nothing if there is none."""
        loops = _coalesced(self)
        body = self.body
        if not loops:
            return (Bind(Var("item"), number, 1, body),)
        if len(loops) == 1:
            return (Bind(loops[0].var, number, self.total, body),)
        item, inner = Var("item"), 1
        for loop in reversed(loops):
            quotient: Expr = index.div(item, inner, {item: self.total})
            digit = index.mod(quotient, loop.extent, {item: self.total})
            body = (Bind(loop.var, digit, loop.extent, body),)
            inner *= loop.extent
        return (Bind(item, number, self.total, body),)


def _nest(parts: Sequence[_Part]) -> For:
    """The blocks and threads that share the combinations of all ``parts``, each in blocks of its
    own."""
    threads = max(part.threads for part in parts)
    block, thread = Var("block"), Var("thread")
    body: list[Stmt] = []
    blocks = 0
    for part in parts:
        number = index.add(index.mul(index.sub(block, blocks), threads), thread)
        alone = len(parts) == 1 and part.total == 1
        body += part.body if alone else part.of(number)
        blocks += -(-part.total // threads)
    inside = For(thread, threads, tuple(body), Kind.THREAD)
    return For(block, blocks, (inside,), Kind.BLOCK)


def _may_run_together(kernel: Kernel, a: _Part, b: _Part) -> bool:
    """Whether it is proved that neither part touches what the other stores."""
    bodies = a.serial(), b.serial()
    touched = [
        ({id(x) for x, _, store in accesses(body) if not store},
         {id(x) for x, _, store in accesses(body) if store})
        for body in bodies
    ]
    (read_a, stored_a), (read_b, stored_b) = touched
    if read_a & stored_b or read_b & stored_a:
        return False
    one, other = (replace(kernel, body=body) for body in bodies)
    return all(
        stores_disjoint((one, number, 0), (other, number, 0))
        for number, param in enumerate(kernel.params)
        if id(param) in stored_a & stored_b
    )


def _parts(stmt: Stmt, around: tuple[For, ...]) -> Iterator[_Part]:
    """The nests of independent loops in ``stmt``, in order: a loop around several of them is a loop
    around each, because its iterations have nothing to do with each other."""
    if not _has_own_iterations(stmt):
        loops, body = _pulled(stmt)
        yield _Part((*around, *loops), body)
        return
    assert isinstance(stmt, For)
    loops = (*around, stmt)
    if len(stmt.body) == 1 or all(isinstance(inner, (For, Alloc)) for inner in stmt.body):
        for inner in stmt.body:
            yield from _parts(inner, loops)
    else:
        yield _Part(loops, stmt.body)


def _has_own_iterations(stmt: Stmt) -> bool:
    """Whether ``stmt`` is a loop whose iterations can be threads."""
    return isinstance(stmt, For) and stmt.kind is not Kind.VECTOR and iterations_disjoint(stmt)


def _pulled(stmt: Stmt) -> tuple[tuple[For, ...], tuple[Stmt, ...]]:
    """The loops that can go around ``stmt``, and what they leave of it: what stands before a loop
    and only fills private buffers, each thread does for itself."""
    match stmt:
        case For(body=body) if _has_own_iterations(stmt):
            if len(body) > 1:
                return (stmt,), body
            loops, inner = _pulled(body[0])
            return (stmt, *loops), inner
        case Alloc(buffer=buffer, body=(*before, last)) if all(map(_is_private, before)):
            loops, inner = _pulled(last)
            return loops, (Alloc(buffer, (*before, *inner)),)
    return (), (stmt,)


def _is_private(stmt: Stmt) -> bool:
    return isinstance(stmt, Store) and stmt.buffer.space is not Space.GLOBAL


def _coalesced(part: _Part) -> tuple[For, ...]:
    """The loops with the one innermost along which neighbouring threads store to neighbouring
    elements."""
    strides: dict[Var, int] = {}
    for _, at, is_store in accesses(part.body):
        form = affine(at) if is_store else None
        for var, step in form.terms if form is not None else ():
            strides[var] = min(abs(step), strides.get(var, abs(step)))
    steps = [(strides[loop.var], -i) for i, loop in enumerate(part.loops) if loop.var in strides]
    if not steps:
        return part.loops
    last = part.loops[-min(steps)[1]]
    return (*(loop for loop in part.loops if loop is not last), last)
