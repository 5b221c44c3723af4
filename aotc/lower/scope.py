"""Writing one kernel: parameters are collected as views are accessed; loops come from small
helpers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import Buffer, Expr, For, Kernel, Kind, Load, Stmt, Store, Var
from aotc.loop.program import Arg, Call
from aotc.lower.short import decoded, encoded
from aotc.lower.views import View

Body = Callable[[Expr], Sequence[Stmt]]

#: Bytes to which storages are aligned on a GPU: the widest access of a thread.
STORAGE_ALIGNMENT = 16


@dataclass(frozen=True)
class Access:
    """A view as the kernel sees it: a parameter buffer, strides in elements, a constant base index,
    and the type of the numbers if the buffer holds them in fewer bits."""

    buffer: Buffer
    strides: tuple[int, ...]
    base: int = 0
    value: DType | None = None

    def index(self, at: Sequence[Expr]) -> Expr:
        """The flat index of the element at the multi-dimensional position ``at``."""
        total: Expr = index.lit(self.base)
        for position, stride in zip(at, self.strides, strict=True):
            total = index.add(total, index.mul(position, stride))
        return total

    def load(self, at: Sequence[Expr]) -> Expr:
        """The number at ``at``."""
        return self.number(self.element(at))

    def element(self, at: Sequence[Expr]) -> Load:
        """What is stored for it."""
        return Load(self.buffer, self.index(at))

    def number(self, element: Expr) -> Expr:
        """The number that ``element`` of the buffer stands for."""
        return element if self.value is None else decoded(element, self.value)

    def store(self, at: Sequence[Expr], value: Expr) -> Store:
        """Stores the number ``value``, rounded if it is held in fewer bits."""
        kept = value if self.value is None else encoded(value, self.buffer.dtype)
        return Store(self.buffer, self.index(at), kept)


_Place = tuple[Arg, DType]


def _place(view: View) -> _Place:
    """Views of one place are reached through one parameter."""
    return (view.arg, view.dtype)


class KernelScope:
    """The parameters of a kernel under construction, one per distinct piece of storage it
    touches. ``aligned`` states as much alignment of each as its place in its storage has."""

    def __init__(self, aligned: bool = False) -> None:
        self._aligned = aligned
        self._params: dict[_Place, tuple[Buffer, int]] = {}
        self._args: list[Arg] = []
        self._written: set[int] = set()
        self._accesses: dict[int, set[Access]] = {}
        self._sizes: dict[_Place, int] = {}

    def reserve(self, *views: View) -> None:
        """Announces the views, so that views of one storage from one start share a parameter."""
        for view in views:
            key = _place(view)
            span = view.high - view.low + 1
            self._sizes[key] = max(self._sizes.get(key, 0), span)

    def access(self, view: View, *, write: bool = False) -> Access:
        """How the kernel reaches ``view``; the view must have been reserved."""
        key = _place(view)
        if key not in self._params:
            position = len(self._params)
            name = f"{'out' if write else 'in'}{position}"
            alignment = view.arg.alignment(STORAGE_ALIGNMENT) if self._aligned else 0
            buffer = Buffer(name, view.dtype, self._sizes[key], alignment=alignment)
            self._params[key] = (buffer, position)
            self._args.append(view.arg)
        buffer, position = self._params[key]
        if write:
            self._written.add(position)
        access = Access(buffer, view.strides, view.offset - view.low, view.value)
        self._accesses.setdefault(position, set()).add(access)
        return access

    def call(
        self,
        name: str,
        body: Sequence[Stmt],
        in_place: Sequence[View] = (),
        recipe: str = "",
        independent: bool = False,
    ) -> Call:
        """The finished kernel and its call. ``in_place`` are read views whose storage the
        first written parameter may take over, unless the kernel also reads it in another way."""
        params = [buffer for buffer, _ in self._params.values()]
        writes = frozenset(params[i] for i in self._written)
        (target, *_) = sorted(self._written)
        pairs = []
        for view in in_place:
            _, position = self._params[_place(view)]
            if position not in self._written and len(self._accesses[position]) == 1:
                pairs.append((target, position))
        kernel = Kernel(name, tuple(params), writes, tuple(body), bool(pairs), recipe, independent)
        return Call(kernel, tuple(self._args), tuple(pairs))


def loop(name: str, extent: int, body: Body, kind: Kind = Kind.SERIAL) -> list[Stmt]:
    """``body`` for every index below ``extent``; no loop for a single one."""
    if extent == 1:
        return list(body(index.lit(0)))
    var = Var(name)
    return [For(var, extent, tuple(body(var)), kind)]


def overlapped(count: int, in_line: int, body: Body) -> list[Stmt]:
    """``body`` for every index below ``count``, ``in_line`` of them laid out in line, so that their
    loads overlap."""
    rounds, rest = divmod(count, in_line)

    def several(i: Expr) -> list[Stmt]:
        first = index.mul(i, in_line)
        return loop("u", in_line, lambda u: body(index.add(first, u)), Kind.UNROLLED)

    stmts = loop("i", rounds, several) if rounds else []
    for number in range(rounds * in_line, rounds * in_line + rest):
        stmts += body(index.lit(number))
    return stmts


def vector(name: str, active: int, lanes: int, body: Body) -> For:
    """A vector loop over ``active`` of ``lanes`` lanes; plain scalar code for a single lane."""
    var = Var(name)
    if lanes == 1:
        return For(var, 1, tuple(body(var)), Kind.UNROLLED)
    return For(var, active, tuple(body(var)), Kind.VECTOR, lanes)


def vector_sweep(extent: int, lanes: int, unroll: int, body: Body) -> list[Stmt]:
    """``body`` for every index below ``extent``: chunks of ``unroll`` vectors, single vectors,
    a masked rest."""
    stmts: list[Stmt] = []
    step = lanes * unroll
    chunks = extent // step
    at = chunks * step
    if chunks:

        def chunk(i: Expr) -> list[Stmt]:
            def part(u: Expr) -> list[Stmt]:
                start = index.add(index.mul(i, step), index.mul(u, lanes))
                return [vector("v", lanes, lanes, lambda v: body(index.add(start, v)))]

            return loop("u", unroll, part, Kind.UNROLLED)

        stmts += loop("i", chunks, chunk)
    singles = (extent - at) // lanes
    if singles:
        base = at

        def single(i: Expr) -> list[Stmt]:
            start = index.add(index.mul(i, lanes), index.lit(base))
            return [vector("v", lanes, lanes, lambda v: body(index.add(start, v)))]

        stmts += loop("i", singles, single, Kind.UNROLLED)
        at += singles * lanes
    if at < extent:
        rest = extent - at
        width = rest_lanes(rest, lanes)
        start = index.lit(at)
        stmts.append(vector("v", rest, width, lambda v: body(index.add(start, v))))
    return stmts


def rest_lanes(rest: int, lanes: int) -> int:
    """The narrowest power-of-two vector that holds ``rest`` elements, at most ``lanes``."""
    width = 1
    while width < rest:
        width *= 2
    return min(width, lanes)
