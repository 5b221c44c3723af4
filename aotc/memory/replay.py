"""A call and two of its storages at given places in, whether the call may write the one over the
other out: every address is played.

Nothing here is derived from the order of the loops: each read and each store gets a time, and each
byte that both storages have must be read for the last time before it is stored to. What a vector
loop touches, it touches all the time that it runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from aotc.loop.index import Affine, affine
from aotc.loop.ir import Alloc, Buffer, Expr, For, Kind, Prefetch, Stmt, Store, Var
from aotc.loop.program import Call, Storage
from aotc.loop.walk import elements_read, post_order

#: Moments that are played at once; more of them take turns.
_AT_ONCE = 1 << 18
_NEVER = np.iinfo(np.int64).max


def survives(call: Call, written: Storage, read: Storage, distance: int) -> bool:
    """Whether ``call`` reads of ``read``, which lies ``distance`` bytes behind ``written``, nothing
    that it has stored to ``written`` before. False where that cannot be told."""
    targets: dict[Buffer, int] = {}
    sources: dict[Buffer, int] = {}
    for param, arg in zip(call.kernel.params, call.args, strict=True):
        if arg.storage is written or arg.storage is read:
            is_written = param in call.kernel.writes
            if arg.moves or is_written != (arg.storage is written):
                return False
            places = targets if is_written else sources
            places[param] = arg.offset_bytes - (distance if is_written else 0)
    both = (*targets, *sources)
    cell = math.gcd(*targets.values(), *sources.values(), *(b.dtype.size_bytes for b in both))
    film = _Film(targets, sources, read.size_bytes, cell)
    try:
        film.play(call.kernel.body, np.zeros(1, np.int64), {}, None)
    except _Unplayable:
        return False
    return film.touched == set(both) and bool((film.last_read < film.first_store).all())


class _Unplayable(Exception):
    """A statement that may do anything at any time."""


def _duration(body: Sequence[Stmt]) -> int:
    """Moments that ``body`` takes: a store takes two, one for its reads and one for itself."""
    total = 0
    for stmt in body:
        if isinstance(stmt, Store):
            total += 2
        elif isinstance(stmt, For):
            total += stmt.extent * _duration(stmt.body)
        else:
            total += _duration(getattr(stmt, "body", ()))
    return total


class _Film:
    """When each ``cell`` bytes of the storage that is read were first stored to, and last read.

    ``targets`` and ``sources`` are the parameters that show the two storages, with their first
    bytes relative to the storage that is read. All sizes and places are multiples of ``cell``.
    """

    def __init__(
        self,
        targets: Mapping[Buffer, int],
        sources: Mapping[Buffer, int],
        size_bytes: int,
        cell: int,
    ) -> None:
        self._starts = {**targets, **sources}
        self._targets = targets
        self._cell = cell
        self.first_store = np.full(-(-size_bytes // cell), _NEVER)
        self.last_read = np.full(-(-size_bytes // cell), -1)
        self.touched: set[Buffer] = set()

    def play(
        self,
        body: Sequence[Stmt],
        times: np.ndarray,
        values: dict[Var, np.ndarray],
        span: int | None,
    ) -> None:
        """Plays ``body`` once for each of ``times``, at which it begins and the loop variables have
        ``values``; each time it lasts ``span`` moments in which everything happens at once, if that
        is a number."""
        for stmt in body:
            match stmt:
                case Store():
                    self._store(stmt, times, values, span)
                case For():
                    self._loop(stmt, times, values, span)
                case Alloc(body=inner):
                    self.play(inner, times, values, span)
                case Prefetch():
                    pass
                case _:
                    raise _Unplayable
            if span is None:
                times = times + _duration((stmt,))

    def _loop(
        self, loop: For, times: np.ndarray, values: dict[Var, np.ndarray], span: int | None
    ) -> None:
        if loop.kind not in (Kind.SERIAL, Kind.UNROLLED, Kind.VECTOR):
            raise _Unplayable
        each = _duration(loop.body)
        if loop.kind is Kind.VECTOR and span is None:
            span = each * loop.extent
        step = each if span is None else 0
        if len(times) * loop.extent > _AT_ONCE:
            for i in range(loop.extent):
                here = {**values, loop.var: np.full(len(times), i)}
                self.play(loop.body, times + i * step, here, span)
            return
        count = np.arange(loop.extent)
        inner = {var: np.repeat(value, loop.extent) for var, value in values.items()}
        inner[loop.var] = np.tile(count, len(times))
        self.play(loop.body, (times[:, None] + count * step).reshape(-1), inner, span)

    def _store(
        self, stmt: Store, times: np.ndarray, values: Mapping[Var, np.ndarray], span: int | None
    ) -> None:
        for expr in post_order((stmt.index, stmt.value)):
            for buffer, index in elements_read(expr):
                if buffer in self._starts and buffer not in self._targets:
                    self._touch(buffer, index, times + (span - 1 if span else 0), values)
        if stmt.buffer in self._targets:
            self._touch(stmt.buffer, stmt.index, times + (1 if span is None else 0), values)

    def _touch(
        self, buffer: Buffer, index: Expr, times: np.ndarray, values: Mapping[Var, np.ndarray]
    ) -> None:
        self.touched.add(buffer)
        size = buffer.dtype.size_bytes // self._cell
        first = self._starts[buffer] // self._cell + size * _value(affine(index), values)
        for part in range(size):
            at = first + part
            inside = (at >= 0) & (at < len(self.last_read))
            when = np.broadcast_to(times, at.shape)[inside]
            if buffer in self._targets:
                np.minimum.at(self.first_store, at[inside], when)
            else:
                np.maximum.at(self.last_read, at[inside], when)


def _value(form: Affine | None, values: Mapping[Var, np.ndarray]) -> np.ndarray:
    if form is None or any(var not in values for var, _ in form.terms):
        raise _Unplayable
    shape = next(iter(values.values())).shape if values else (1,)
    total = np.full(shape, form.const)
    for var, factor in form.terms:
        total = total + factor * values[var]
    return total
