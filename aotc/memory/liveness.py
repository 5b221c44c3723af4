"""Program in, blocks out: which arena storages share memory in place, and when each is live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aotc.loop.program import Call, Check, If, Loop, Program, Role, Step, Storage

Interval = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Block:
    """Memory that one storage, or a chain of storages written in place of each other, needs.

    It is live in the positions ``first`` to ``last``, both included. Empty storages have no block.
    """

    storages: tuple[Storage, ...]
    size_bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class _Flow:
    """What some steps do to storages: ``written`` on every way through them, ``exposed``: read on
    some way before they are written there."""

    written: frozenset[Storage]
    exposed: frozenset[Storage]


class _Timeline:
    """The positions of a program in the order of its text: one for each call, condition and check,
    one for the head and one for the end of each loop.

    Every touch counts, reads and writes alike: a storage that several calls fill (parts of a
    concat, a padded border and its middle) keeps its memory from the first to the last reader. The
    branches of a condition follow each other, so what only one of them touches is dead in the
    other. A loop comes back: what it shares with its surroundings, and what an iteration may read
    of an earlier one, is live all through it.
    """

    def __init__(self, steps: Sequence[Step]) -> None:
        self.positions = 0
        self.calls: dict[int, Call] = {}
        self.intervals: dict[Storage, Interval] = {}
        self._loops: list[tuple[int, int, frozenset[Storage]]] = []
        self._steps(steps)
        for first, last, carried in self._loops:
            for storage, (born, dies) in self.intervals.items():
                inside = first <= born and dies <= last
                if born <= last and dies >= first and (storage in carried or not inside):
                    self.intervals[storage] = (min(born, first), max(dies, last))

    def _steps(self, steps: Sequence[Step]) -> _Flow:
        written: frozenset[Storage] = frozenset()
        exposed: frozenset[Storage] = frozenset()
        for step in steps:
            flow = self._step(step)
            exposed |= flow.exposed - written
            written |= flow.written
        return _Flow(written, exposed)

    def _step(self, step: Step) -> _Flow:
        match step:
            case Call(kernel=kernel, args=args):
                pairs = list(zip(kernel.params, args, strict=True))
                writes = [arg.storage for param, arg in pairs if param in kernel.writes]
                reads = [arg.storage for param, arg in pairs if param not in kernel.writes]
                return self._touch(step, reads, writes)
            case If(condition=condition, then=then, other=other):
                head = self._touch(None, [condition.storage], [])
                ways = self._steps(then), self._steps(other)
                exposed = head.exposed | ways[0].exposed | ways[1].exposed
                return _Flow(ways[0].written & ways[1].written, exposed)
            case Check(condition=condition):
                return self._touch(None, [condition.storage], [])
            case Loop():
                return self._loop(step)

    def _loop(self, loop: Loop) -> _Flow:
        first = self.positions
        reads = [arg.storage for arg in (loop.trips, loop.going) if arg is not None]
        starts = [arg.storage for arg in (loop.index,) if arg is not None]
        ends = [arg.storage for arg in (loop.done,) if arg is not None]
        head = self._touch(None, reads, starts)
        body = self._steps(loop.body)
        exposed = head.exposed | (body.exposed - head.written)
        end = self._touch(None, [], ends)
        self._loops.append((first, self.positions - 1, exposed))
        runs = loop.is_exact and loop.limit > 0
        return _Flow(end.written | (head.written | body.written if runs else frozenset()), exposed)

    def _touch(
        self, call: Call | None, reads: Sequence[Storage], writes: Sequence[Storage]
    ) -> _Flow:
        """Adds a position that reads and writes these storages."""
        position = self.positions
        self.positions += 1
        if call is not None:
            self.calls[position] = call
        for storage in (*writes, *reads):
            if storage.role is Role.ARENA:
                first, _ = self.intervals.get(storage, (position, position))
                self.intervals[storage] = (first, position)
        return _Flow(frozenset(writes), frozenset(reads))


def find_intervals(program: Program) -> dict[Storage, Interval]:
    """First and last position at which each arena storage is live, in order of first use.

    Positions count the calls of a program without control flow; conditions, checks, and the heads
    and ends of loops have positions of their own.
    """
    return _Timeline(program.steps).intervals


def find_calls(program: Program) -> dict[int, Call]:
    """The calls by position."""
    return _Timeline(program.steps).calls


def shares_in_place(
    call: Call,
    position: int,
    written: int,
    read: int,
    intervals: dict[Storage, tuple[int, int]],
) -> bool:
    """May parameter ``written`` of the call at ``position`` take the memory of parameter ``read``?

    Yes when the written storage is born here and the read one dies here, both are arena storages
    of one size that the kernel sees alike and element for element, and the kernel is built for it.
    What it does not see of the written one (the border around a padded tensor) is written later.
    """
    target, source = call.args[written], call.args[read]
    if target.storage.role is not Role.ARENA or source.storage.role is not Role.ARENA:
        return False
    if not call.kernel.may_alias or target.storage is source.storage:
        return False
    if intervals[target.storage][0] != position or intervals[source.storage][1] != position:
        return False
    params = call.kernel.params
    if params[written] not in call.kernel.writes or params[read] in call.kernel.writes:
        return False
    place = _place_in_storage(call, written)

    def lies_alike(index: int) -> bool:
        return _place_in_storage(call, index) == place and not call.args[index].moves

    alike = lies_alike(written) and lies_alike(read)
    # Another parameter that shows the same memory must be part of the bargain as well.
    others = [
        index
        for index, arg in enumerate(call.args)
        if arg.storage in (target.storage, source.storage) and index not in (written, read)
    ]
    return alike and all((written, i) in call.in_place and lies_alike(i) for i in others)


def _place_in_storage(call: Call, index: int) -> tuple[int, int, int, int]:
    """Which bytes of a storage of which size one parameter shows, and as how many elements."""
    param, arg = call.kernel.params[index], call.args[index]
    size_bytes = param.elems * param.dtype.size_bytes
    return arg.storage.size_bytes, arg.offset_bytes, size_bytes, param.elems


def find_blocks(program: Program) -> tuple[Block, ...]:
    """The blocks of the program by birth; in-place pairs are joined greedily in call order."""
    timeline = _Timeline(program.steps)
    intervals = timeline.intervals
    chains = {storage: [storage] for storage in intervals}
    for position, call in timeline.calls.items():
        for written, read in call.in_place:
            if not shares_in_place(call, position, written, read, intervals):
                continue
            target, source = call.args[written].storage, call.args[read].storage
            # Two outputs may ask for one dying input, or one output for two: the first pair wins.
            if chains[source][-1] is source and len(chains[target]) == 1:
                chains[source].append(target)
                chains[target] = chains[source]
    blocks = []
    for storage, chain in chains.items():
        if chain[0] is storage and storage.size_bytes > 0:
            first, last = intervals[storage][0], intervals[chain[-1]][1]
            blocks.append(Block(tuple(chain), storage.size_bytes, first, last))
    return tuple(blocks)
