"""Program and blocks in, pairs of blocks out that may partly share memory: a result lies behind the
operand that it overwrites.

Kernels are looked at only where memory is short. A pair costs nothing that the checker would not
prove, but code for memory that may overlap is a little slower, so pairs are not sought elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

from aotc.loop.ir import Buffer, Kernel
from aotc.loop.overlap import Places, least_distance
from aotc.loop.program import Call, Program, Storage
from aotc.memory.liveness import Block, find_calls

#: Reads and stores of two parameters above which a kernel is not looked at: the checker plays
#: them all.
MOST_ACCESSES = 4_000_000

Ahead = Mapping[tuple[int, int], int]
"""For pairs of blocks (written, read), by number: how many bytes the place of the second must lie
behind that of the first at least, if they overlap."""


def find_overlaps(
    program: Program, blocks: Sequence[Block], loads: Sequence[int], alignment: int
) -> dict[tuple[int, int], int]:
    """The pairs at the positions where more bytes are live (``loads``) than are needed anywhere
    when pairs overlap."""
    calls = find_calls(program)
    numbers = {storage: i for i, block in enumerate(blocks) for storage in block.storages}
    sizes = [aligned(block.size_bytes, alignment) for block in blocks]
    found: dict[int, dict[tuple[int, int], int]] = {}
    bound = 0
    for position in sorted(range(len(loads)), key=lambda p: -loads[p]):
        if loads[position] <= bound:
            break
        call = calls.get(position)
        pairs = {} if call is None else _pairs(call, position, blocks, numbers, alignment)
        found[position] = pairs
        bound = max(bound, loads[position] - saved_bytes(pairs, sizes))
    return {
        pair: distance
        for position, pairs in found.items()
        if loads[position] > bound
        for pair, distance in pairs.items()
    }


def saved_bytes(pairs: Ahead, sizes: Sequence[int]) -> int:
    """The most bytes that the blocks of ``pairs``, all of one call, can have in common.

    An operand and a result share what the operand leaves of the result behind their distance;
    operands of one result share nothing with each other, and the same holds for results.
    """
    common = {
        (written, read): min(sizes[read], sizes[written] - max(distance, 0))
        for (written, read), distance in pairs.items()
    }
    by_result: dict[int, int] = {}
    by_operand: dict[int, int] = {}
    for (written, read), most in common.items():
        by_result[written] = by_result.get(written, 0) + most
        by_operand[read] = by_operand.get(read, 0) + most
    for written in by_result:
        nearest = min(max(distance, 0) for (w, _), distance in pairs.items() if w == written)
        by_result[written] = min(by_result[written], sizes[written] - nearest)
    operands = sum(min(most, sizes[read]) for read, most in by_operand.items())
    return min(sum(by_result.values()), operands)


def aligned(size_bytes: int, alignment: int) -> int:
    """``size_bytes`` or the next multiple of ``alignment``, towards plus infinity."""
    return -(-size_bytes // alignment) * alignment


def _pairs(
    call: Call,
    position: int,
    blocks: Sequence[Block],
    numbers: Mapping[Storage, int],
    alignment: int,
) -> dict[tuple[int, int], int]:
    """The pairs of blocks that ``call`` may overlap: the first is born there, the second dies."""
    pairs = {}
    for written, read in _candidates(call):
        if written not in numbers or read not in numbers:
            continue
        result, operand = blocks[numbers[written]], blocks[numbers[read]]
        is_born = result.first == position and result.storages[0] is written
        if not is_born or operand.last != position or operand.storages[-1] is not read:
            continue
        distance = distance_of(call, written, read, alignment)
        if distance is not None:
            distance = aligned(distance, alignment)
            if distance < aligned(written.size_bytes, alignment):
                pairs[numbers[written], numbers[read]] = distance
    return pairs


def _candidates(call: Call) -> Iterator[tuple[Storage, Storage]]:
    """Each storage that the call writes, with each that it only reads."""
    pairs = list(zip(call.kernel.params, call.args, strict=True))
    written = dict.fromkeys(arg.storage for p, arg in pairs if p in call.kernel.writes)
    read = dict.fromkeys(arg.storage for _, arg in pairs if arg.storage not in written)
    return ((w, r) for w in written for r in read)


def distance_of(call: Call, written: Storage, read: Storage, alignment: int) -> int | None:
    """How many bytes the place of ``read`` must lie behind that of ``written`` at least for the
    call to be right when both overlap, at multiples of ``alignment``; None when they must not."""
    found = []
    for w, target in enumerate(call.args):
        for r, source in enumerate(call.args):
            if (target.storage, source.storage) == (written, read):
                if target.moves or source.moves or call.kernel.params[w] not in call.kernel.writes:
                    return None
                shift = source.offset_bytes - target.offset_bytes
                places = Places(alignment, shift)
                distance = least_distance(call.kernel, w, r, places, MOST_ACCESSES)
                if distance is None:
                    return None
                found.append(distance - shift)
    return max(found, default=None)


def overlapping_params(
    placed: Iterable[tuple[Program, Mapping[Storage, int]]],
) -> dict[Kernel, set[Buffer]]:
    """Of each kernel the parameters that share memory, in some call, with one that it writes, when
    the storages of the arena lie at these offsets."""
    found: dict[Kernel, set[Buffer]] = {}
    for program, offsets in placed:
        for call in program.calls:
            shared = found.setdefault(call.kernel, set())
            pairs = list(zip(call.kernel.params, call.args, strict=True))
            for written, target in pairs:
                for read, source in pairs:
                    is_pair = written in call.kernel.writes and read not in call.kernel.writes
                    if is_pair and _meet(target.storage, source.storage, offsets):
                        shared |= {written, read}
    return found


def _meet(a: Storage, b: Storage, offsets: Mapping[Storage, int]) -> bool:
    if a is b or a not in offsets or b not in offsets:
        return False
    return offsets[a] < offsets[b] + b.size_bytes and offsets[b] < offsets[a] + a.size_bytes
