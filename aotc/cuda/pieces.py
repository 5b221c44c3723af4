"""The constants of an object in, those that some of its programs need out, close together: what is
uploaded to a device."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aotc.loop.program import Program, Role
from aotc.memory.constants import ALIGNMENT, ConstantLayout


@dataclass(frozen=True)
class Piece:
    """``size`` bytes from byte ``start`` of the object's constants on, at byte ``place`` of the
    device's."""

    start: int
    place: int
    size: int


@dataclass(frozen=True)
class DeviceConstants:
    """The pieces, from the first byte to the last, and the bytes that they take."""

    pieces: tuple[Piece, ...]
    size_bytes: int

    def place_of(self, offset: int) -> int:
        """Where on the device the object's byte ``offset`` is, which some piece holds."""
        number = bisect.bisect_right(self.pieces, offset, key=lambda piece: piece.start) - 1
        if number < 0:
            return 0  # of no bytes
        piece = self.pieces[number]
        return piece.place + offset - piece.start

    def chunks(self, constants: ConstantLayout) -> Iterator[memoryview]:
        """All of them, in order, from the object's ``constants``; between pieces, zeros."""
        position = 0
        for piece in self.pieces:
            if piece.place > position:
                yield memoryview(bytes(piece.place - position))
            yield from constants.between(piece.start, piece.start + piece.size)
            position = piece.place + piece.size


def choose_pieces(programs: Sequence[Program], constants: ConstantLayout) -> DeviceConstants:
    """What ``programs`` need of ``constants``."""
    used = {storage for program in programs for storage in program.storages(Role.CONST)}
    ranges = sorted({(constants.offsets[storage], storage.size_bytes) for storage in used})
    pieces: list[Piece] = []
    end = 0
    for start, size in ranges:
        last = pieces[-1] if pieces else None
        if last is not None and start <= _aligned(last.start + last.size):
            size = max(start + size - last.start, last.size)
            pieces[-1] = Piece(last.start, last.place, size)
        elif size:
            pieces.append(Piece(start, _aligned(end), size))
        if pieces:
            end = pieces[-1].place + pieces[-1].size
    return DeviceConstants(tuple(pieces), end)


def _aligned(place: int) -> int:
    return -(-place // ALIGNMENT) * ALIGNMENT
