"""Programs in, ConstantLayout out: one read-only blob of all constants, equal bytes stored once, in
one stretch for each read-only memory region."""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from aotc.errors import VerifyError
from aotc.loop.program import Program, Role, Storage
from aotc.loop.traffic import count_traffic
from aotc.memory.arena import Part, find_part
from aotc.regions import Region, read_only, too_small

ALIGNMENT = 64  # a cache line, and the widest vector of any target


@dataclass(frozen=True, eq=False)
class ConstantLayout:
    """Byte offsets of the constants in one blob of ``size_bytes``; ``parts`` are the distinct ones.

    The blob itself is never built in memory: ``chunks`` streams it from the constants' own arrays.
    Of constants in several memory regions, the blob holds one stretch after the other.
    """

    offsets: dict[Storage, int]
    parts: tuple[tuple[int, np.ndarray], ...]
    size_bytes: int
    in_regions: tuple[Part, ...] = ()

    @property
    def stretches(self) -> tuple[Part, ...]:
        """What lies in each region; one of no region if there are none."""
        return self.in_regions or (Part("", 0, self.size_bytes, self.size_bytes),)

    def part_of(self, offset: int) -> tuple[int, int]:
        """The index of the stretch that the byte at ``offset`` is in, and where that starts."""
        return find_part(self.stretches, offset)

    def chunks(self) -> Iterator[memoryview]:
        """The blob from its first to its last byte, gaps filled with zeros."""
        return self.between(0, self.size_bytes)

    def between(self, start: int, end: int) -> Iterator[memoryview]:
        """The bytes of the blob from ``start`` up to ``end``."""
        position = start
        for offset, data in self.parts:
            if offset + data.nbytes <= position or offset >= end:
                continue
            if offset > position:
                yield memoryview(bytes(offset - position))
                position = offset
            stop = min(offset + data.nbytes, end)
            yield _raw(data)[position - offset : stop - offset]
            position = stop
        if end > position:
            yield memoryview(bytes(end - position))

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of the blob in hexadecimal."""
        state = hashlib.sha256()
        for chunk in self.chunks():
            state.update(chunk)
        return state.hexdigest()


def lay_out_constants(*programs: Program, regions: Sequence[Region] = ()) -> ConstantLayout:
    """Places the constants of all programs in order of first use, each at a multiple of 64 bytes.

    With read-only ``regions``, what is read most for its size goes to the fastest that has room.
    A storage that is larger than its data ends in zeros. VerifyError when it is smaller, UsageError
    when the regions are too small.
    """
    constants = _distinct(programs)
    chosen = read_only(regions)
    homes = [0] * len(constants) if not chosen else _choose(constants, programs, chosen)
    offsets: dict[Storage, int] = {}
    parts: list[tuple[int, np.ndarray]] = []
    stretches: list[Part] = []
    end = 0
    for number in range(max(len(chosen), 1)):
        start = end = _aligned(end)
        for same, home in zip(constants, homes, strict=True):
            if home != number:
                continue
            place, data = _aligned(end), same[0].data
            end = place + same[0].size_bytes
            offsets.update(dict.fromkeys(same, place))
            if data is not None and data.nbytes:
                parts.append((place, data))
        if chosen:
            limit = chosen[number].size_bytes
            stretches.append(Part(chosen[number].name, start, end - start, end - start, limit))
    return ConstantLayout(offsets, tuple(parts), end, tuple(stretches))


def _aligned(place: int) -> int:
    return -(-place // ALIGNMENT) * ALIGNMENT


def _distinct(programs: Sequence[Program]) -> list[list[Storage]]:
    """The constants in order of first use, those of equal bytes together."""
    found = [storage for program in programs for storage in program.storages(Role.CONST)]
    storages = tuple(dict.fromkeys(found))
    sizes = Counter(storage.size_bytes for storage in storages)
    known: dict[tuple[int, object], list[Storage]] = {}
    for storage in storages:
        data = storage.data
        if data is None or data.nbytes > storage.size_bytes:
            raise VerifyError(
                f"constant '{storage.name}' has no data of {storage.size_bytes} bytes"
            )
        # Only constants of equal size can be equal: hash no others.
        alone = sizes[storage.size_bytes] == 1
        digest = b"" if alone else hashlib.sha256(_raw(data)).digest()
        known.setdefault((storage.size_bytes, digest), []).append(storage)
    return list(known.values())


def _choose(
    constants: Sequence[Sequence[Storage]], programs: Sequence[Program], regions: Sequence[Region]
) -> list[int]:
    """The number of the region for each constant; UsageError says by how much each misses."""
    traffic: Counter[Storage] = Counter()
    for program in programs:
        traffic.update(count_traffic(program))
    sizes = [same[0].size_bytes for same in constants]
    reads = [sum(traffic[storage] for storage in same) for same in constants]
    used_most = sorted(range(len(sizes)), key=lambda i: -reads[i] / max(sizes[i], 1))
    by_cost = sorted(range(len(regions)), key=lambda r: regions[r].cost)
    rooms = [region.size_bytes for region in regions]
    order = used_most
    for _ in sizes:
        homes, _ = _fill(order, sizes, by_cost, rooms)
        if -1 not in homes:
            return homes
        homeless = [index for index in order if homes[index] < 0]
        order = homeless + [index for index in order if homes[index] >= 0]
    largest = sorted(range(len(sizes)), key=lambda i: -sizes[i])
    needed = []
    for last in range(len(regions)):
        wide = [sum(map(_aligned, sizes)) if r == last else room for r, room in enumerate(rooms)]
        turns = [r for r in by_cost if r != last] + [last]
        homes, ends = _fill(largest, sizes, turns, wide)
        if ends[last] <= rooms[last]:
            return homes
        needed.append(ends[last])
    raise too_small("the weights do not fit into their memory", regions, needed, [])


def _fill(
    order: Sequence[int], sizes: Sequence[int], turns: Sequence[int], rooms: Sequence[int]
) -> tuple[list[int], list[int]]:
    """The first region of ``turns`` with room for each constant (-1: none has), taken in ``order``;
    and how far each region is filled."""
    homes, ends = [-1] * len(sizes), [0] * len(rooms)
    for index in order:
        for region in turns:
            end = _aligned(ends[region]) + sizes[index]
            if end <= rooms[region]:
                homes[index], ends[region] = region, end
                break
    return homes, ends


def _raw(data: np.ndarray) -> memoryview:
    return np.ascontiguousarray(data).reshape(-1).view(np.uint8).data
