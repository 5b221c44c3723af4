"""Program in, blocks out: which arena storages share memory in place, and when each is live."""

from __future__ import annotations

from dataclasses import dataclass

from aotc.loop.program import Call, Program, Role, Storage


@dataclass(frozen=True, eq=False)
class Block:
    """Memory that one storage, or a chain of storages written in place of each other, needs.

    It is live in the calls ``first`` to ``last``, both included. Empty storages have no block.
    """

    storages: tuple[Storage, ...]
    size_bytes: int
    first: int
    last: int


def find_intervals(program: Program) -> dict[Storage, tuple[int, int]]:
    """First and last call that touches each arena storage, in order of first use.

    Every touch counts, reads and writes alike: a storage that several calls fill (parts of a
    concat, a padded border and its middle) keeps its memory from the first to the last reader.
    """
    intervals: dict[Storage, tuple[int, int]] = {}
    for position, call in enumerate(program.calls):
        for arg in call.args:
            if arg.storage.role is Role.ARENA:
                first, _ = intervals.get(arg.storage, (position, position))
                intervals[arg.storage] = (first, position)
    return intervals


def shares_in_place(
    call: Call,
    position: int,
    written: int,
    read: int,
    intervals: dict[Storage, tuple[int, int]],
) -> bool:
    """May parameter ``written`` of the call at ``position`` take the memory of parameter ``read``?

    Yes when the written storage is born here and the read one dies here, both are arena storages
    that the kernel sees whole and element for element, and the kernel is built for it.
    """
    target, source = call.args[written], call.args[read]
    if target.storage.role is not Role.ARENA or source.storage.role is not Role.ARENA:
        return False
    if not call.kernel.may_alias or target.storage is source.storage:
        return False
    if intervals[target.storage][0] != position or intervals[source.storage][1] != position:
        return False
    size = source.storage.size_bytes
    params = call.kernel.params
    if params[written] not in call.kernel.writes or params[read] in call.kernel.writes:
        return False
    whole = all(
        call.args[index].offset_bytes == 0
        and call.args[index].storage.size_bytes == size
        and params[index].elems * params[index].dtype.size_bytes == size
        for index in (written, read)
    )
    # Another parameter that shows the same memory must be part of the bargain as well.
    others = [
        index
        for index, arg in enumerate(call.args)
        if arg.storage in (target.storage, source.storage) and index not in (written, read)
    ]
    allowed = all((written, i) in call.in_place and call.args[i].offset_bytes == 0 for i in others)
    return whole and allowed and params[written].elems == params[read].elems


def find_blocks(program: Program) -> tuple[Block, ...]:
    """The blocks of the program by birth; in-place pairs are joined greedily in call order."""
    intervals = find_intervals(program)
    chains = {storage: [storage] for storage in intervals}
    for position, call in enumerate(program.calls):
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
