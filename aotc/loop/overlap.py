"""How far an operand must lie ahead of a result that overwrites it: a kernel and two of its
parameters in, a distance in bytes out, from the order in which the loops go over both.

A kernel that goes over its operand and its result in the same direction may write over what it has
read. The proof is symbolic: for each store and each read, the largest distance between an address
stored to and one that is read afterwards, over all iterations of the loops around them. Loops whose
iterations run at once count as a single moment.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from aotc.loop.index import Affine, affine
from aotc.loop.ir import Alloc, Buffer, For, Kernel, Kind, Prefetch, Stmt, Store, Var
from aotc.loop.walk import elements_read, post_order

#: Loops that run one iteration after the other.
ORDERED = (Kind.SERIAL, Kind.UNROLLED)
#: Pairs of a store and a read that are compared before a kernel counts as too long to look at.
_MOST_PAIRS = 10_000


@dataclass(frozen=True)
class Access:
    """Where a statement stores to a buffer, or reads from it. ``path`` are the statement's places
    in the bodies around it, outermost first; ``loops`` those of the statements around it that are
    loops, each with its depth in ``path``."""

    buffer: Buffer
    index: Affine
    is_store: bool
    path: tuple[int, ...]
    loops: tuple[tuple[int, For], ...]


def find_accesses(kernel: Kernel, buffers: Sequence[Buffer]) -> list[Access] | None:
    """Every access to ``buffers`` in the order of the text, reads of a statement before its store;
    None when an index is not affine, or the kernel runs in parts at once."""
    try:
        return list(_walk(kernel.body, frozenset(buffers), (), ()))
    except _UnknownOrder:
        return None


class _UnknownOrder(Exception):
    """A statement of which nothing can be said."""


def _walk(
    body: Sequence[Stmt],
    buffers: frozenset[Buffer],
    path: tuple[int, ...],
    loops: tuple[tuple[int, For], ...],
) -> Iterator[Access]:
    for position, stmt in enumerate(body):
        here = (*path, position)
        match stmt:
            case Store(buffer=buffer, index=index, value=value):
                for expr in post_order((index, value)):
                    for source, element in elements_read(expr):
                        if source in buffers:
                            yield Access(source, _form(element), False, here, loops)
                if buffer in buffers:
                    yield Access(buffer, _form(index), True, here, loops)
            case For(kind=kind, body=inner) if kind in (*ORDERED, Kind.VECTOR):
                yield from _walk(inner, buffers, here, (*loops, (len(path), stmt)))
            case Alloc(body=inner):
                yield from _walk(inner, buffers, here, loops)
            case Prefetch():
                pass
            case _:
                raise _UnknownOrder


def _form(index: object) -> Affine:
    form = affine(index)  # type: ignore[arg-type]
    if form is None:
        raise _UnknownOrder
    return form


@dataclass(frozen=True)
class Places:
    """What is known of the distance between two parameters: it is ``rest`` more than a multiple of
    ``unit`` bytes."""

    unit: int = 1
    rest: int = 0


def least_distance(
    kernel: Kernel,
    written: int,
    read: int,
    places: Places = Places(),
    most_accesses: int | None = None,
) -> int | None:
    """The least number of bytes from the address of parameter ``written`` to that of ``read`` with
    which no byte of the latter is stored to before it is read for the last time; negative where the
    operand may begin before the result. Only distances that ``places`` allows count.

    None when the kernel does not say: an index is not affine, it runs in parts at once, or it does
    not both store to the one and read the other; and when it does so more than ``most_accesses``
    times.
    """
    target, source = kernel.params[written], kernel.params[read]
    found = find_accesses(kernel, (target, source))
    if found is None or any(a.is_store and a.buffer is source for a in found):
        return None
    times = sum(math.prod(loop.extent for _, loop in access.loops) for access in found)
    if most_accesses is not None and times > most_accesses:
        return None
    stores = _merged([a for a in found if a.is_store])
    reads = _merged([a for a in found if a.buffer is source])
    if not stores or not reads or len(stores) * len(reads) > _MOST_PAIRS:
        return None
    distances = [_distance(store, load, places) for store in stores for load in reads]
    # a result that is stored when all is read may lie anywhere
    known = [distance for distance in distances if distance is not None]
    return max(known, default=-source.elems * source.dtype.size_bytes)


@dataclass(frozen=True)
class _Line:
    """Accesses from one body with one form of index: elements of ``size`` bytes begin at one of
    ``starts`` plus the iterations of ``loops`` times ``steps``. The statements stand from ``first``
    to ``last`` in the body at ``body``."""

    body: tuple[int, ...]
    first: int
    last: int
    starts: tuple[int, ...]
    size: int
    loops: tuple[tuple[int, For], ...]
    steps: Mapping[Var, int]


def _merged(accesses: Sequence[Access]) -> list[_Line]:
    """One line for the accesses of each body and form."""
    kinds: dict[tuple[object, ...], list[Access]] = {}
    for access in accesses:
        key = (access.path[:-1], frozenset(access.index.terms))
        kinds.setdefault(key, []).append(access)
    lines = []
    for same in kinds.values():
        size = same[0].buffer.dtype.size_bytes
        starts = tuple(sorted({access.index.const * size for access in same}))
        steps = {var: step * size for var, step in same[0].index.terms}
        places = [access.path[-1] for access in same]
        body = same[0].path[:-1]
        lines.append(_Line(body, min(places), max(places), starts, size, same[0].loops, steps))
    return lines


def _distance(store: _Line, load: _Line, places: Places) -> int | None:
    """The most by which the end of a store lies beyond the start of a later read; None when no read
    is later."""
    common = 0
    while common < min(len(store.body), len(load.body)):
        if store.body[common] != load.body[common]:
            break
        common += 1
    around = [loop for depth, loop in store.loops if depth < common]
    ordered = list(itertools.takewhile(lambda loop: loop.kind in ORDERED, around))
    found = []
    if len(ordered) < len(around) or _comes_first(store, load, common):
        found.append(_most(store, load, ordered, None))
    for number, loop in enumerate(ordered):
        if loop.extent > 1 and not _never_meet(store, load, ordered[:number], loop, places):
            found.append(_most(store, load, ordered[:number], loop))
    return max(found, default=None)


def _never_meet(
    store: _Line, load: _Line, same: Sequence[For], earlier: For, places: Places
) -> bool:
    """Whether a store in one iteration of ``earlier`` and a read in a later one differ in their
    addresses modulo what all other loops step by: one channel of pixels after the other is read and
    stored to, for instance."""
    step = store.steps.get(earlier.var, 0)
    if step <= 0 or step != load.steps.get(earlier.var, 0):
        return False
    known = {earlier.var, *(loop.var for loop in same)}
    sizes = []
    others = [load.steps.get(loop.var, 0) - store.steps.get(loop.var, 0) for loop in same]
    for line in (store, load):
        size = line.size
        for _, loop in line.loops:
            own = line.steps.get(loop.var, 0)
            if loop.var in known or loop.extent == 1:
                continue
            if 0 < own < step:
                size += own * (loop.extent - 1)  # a run of elements for each step
            else:
                others.append(own)
        sizes.append(size)
    modulus = math.gcd(places.unit, *others)
    if earlier.extent > modulus:
        return False
    gaps = {(places.rest + b - a) % modulus for a in store.starts for b in load.starts}
    return all(
        sizes[0] <= (gap + step * later) % modulus <= modulus - sizes[1]
        for gap in gaps
        for later in range(1, earlier.extent)
    )


def _comes_first(store: _Line, load: _Line, common: int) -> bool:
    """Whether, in one iteration of the loops that both share, some store comes before some read:
    of one statement, the reads come first. Their bodies are the same up to the depth ``common``."""
    first = store.body[common] if common < len(store.body) else store.first
    last = load.body[common] if common < len(load.body) else load.last
    return first < last


def _most(store: _Line, load: _Line, same: Sequence[For], earlier: For | None) -> int:
    """The largest value of end of the store minus start of the read: the loops of ``same`` have
    equal iterations for both, ``earlier`` an earlier one for the store, the others any."""
    total = store.starts[-1] + store.size - load.starts[0]
    bound = {loop.var for loop in same} | ({earlier.var} if earlier else set())
    for loop in same:
        step = store.steps.get(loop.var, 0) - load.steps.get(loop.var, 0)
        total += max(0, step * (loop.extent - 1))
    if earlier is not None:
        step, other = store.steps.get(earlier.var, 0), load.steps.get(earlier.var, 0)
        last = earlier.extent - 1
        # a linear function of 0 <= p < q <= last takes its largest value in a corner
        corners = ((0, 1), (0, last), (last - 1, last))
        total += max(step * p - other * q for p, q in corners)
    for _, loop in store.loops:
        if loop.var not in bound:
            total += max(0, store.steps.get(loop.var, 0) * (loop.extent - 1))
    for _, loop in load.loops:
        if loop.var not in bound:
            total -= min(0, load.steps.get(loop.var, 0) * (loop.extent - 1))
    return total
