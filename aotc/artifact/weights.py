"""Object bytes with a marker in, the object with the packed constants out, as a stream of chunks.

LLVM never sees the constants: it emits a section that holds 64 marker bytes, or one for each memory
region of constants. In an ELF object these sections are made to be the constants, which stand at
the end of the file: three header fields change, nothing moves, and no copy of the constants is
made. In the other formats LLVM is handed zeros of full size behind the marker, which are written
over: that costs two copies of the constants.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from aotc.codegen.entry import WEIGHTS_HEADER_BYTES, weights_marker
from aotc.errors import UsageError, VerifyError
from aotc.memory.constants import ALIGNMENT, ConstantLayout

_LARGEST_BLOB = 2**31 - 2**24  # what code of the small model reaches, less room for the code


@dataclass(frozen=True, eq=False)
class ObjectImage:
    """A relocatable object: ``head``, then the constants if they are part of it."""

    head: bytes
    constants: ConstantLayout | None

    @property
    def size_bytes(self) -> int:
        return len(self.head) + (self.constants.size_bytes if self.constants else 0)

    def chunks(self) -> Iterator[bytes | memoryview]:
        """The object file from its first to its last byte."""
        yield self.head
        if self.constants:
            yield from self.constants.chunks()

    def to_bytes(self) -> bytes:
        """The object file as one piece; a second copy of the constants while it lives."""
        return b"".join(self.chunks())


def embed_constants(emitted: bytes, name: str, constants: ConstantLayout) -> ObjectImage:
    """The object ``emitted`` for the module ``name`` with ``constants`` in the marker's place.

    UsageError when the constants are too large for one object, VerifyError when the marker is not
    there exactly once.
    """
    if not constants.size_bytes:
        return ObjectImage(emitted, None)
    if constants.size_bytes > _LARGEST_BLOB:
        raise UsageError(
            f"the weights take {constants.size_bytes} bytes, and an object file can address 2 GiB",
            remedy="write them to a file of their own with --weights file",
        )
    stretches = [stretch for stretch in constants.stretches if stretch.size_bytes]
    markers = [weights_marker(name, stretch.region) for stretch in stretches]
    for marker in markers:
        if emitted.count(marker) != 1:
            raise VerifyError(f"the object holds the weights marker {emitted.count(marker)} times")
    head = bytearray(emitted)
    if head[:4] != b"\x7fELF":
        place = emitted.find(markers[0])
        for chunk in constants.chunks():
            head[place : place + len(chunk)] = chunk
            place += len(chunk)
        return ObjectImage(bytes(head), None)
    head += bytes(-len(head) % ALIGNMENT)
    end = len(head)
    for marker, stretch in zip(markers, stretches, strict=True):
        place = emitted.find(marker)
        _move_section(head, place, len(marker), end + stretch.start, stretch.size_bytes)
        head[place : place + len(marker)] = bytes(len(marker))
    return ObjectImage(bytes(head), constants)


def weights_file_chunks(constants: ConstantLayout) -> Iterator[bytes | memoryview]:
    """A weights file: the constants' SHA-256, zeros up to 64 bytes, the constants.

    The entry function compares the digest, so that it never computes with another model's weights.
    """
    yield bytes.fromhex(constants.digest).ljust(WEIGHTS_HEADER_BYTES, b"\0")
    yield from constants.chunks()


def _move_section(head: bytearray, place: int, size: int, new_place: int, new_size: int) -> None:
    """Makes the section at ``place`` to ``place + size`` of the file, and the symbol that spans it,
    be ``new_size`` bytes at ``new_place`` instead. Little-endian ELF, 32 or 64 bits."""
    wide = head[4] == 2
    word = "<Q" if wide else "<I"
    # Where the ELF specification puts e_shoff, e_shentsize; sh_offset, sh_size; st_size, st_shndx.
    (table,) = struct.unpack_from(word, head, 40 if wide else 32)
    entry, count = struct.unpack_from("<HH", head, 58 if wide else 46)
    offset_field, size_field = (24, 32) if wide else (16, 20)
    symbol_bytes, symbol_size_field, symbol_section_field = (24, 16, 6) if wide else (16, 8, 14)
    moved = None
    for index in range(count):
        section = table + index * entry
        (start,) = struct.unpack_from(word, head, section + offset_field)
        (extent,) = struct.unpack_from(word, head, section + size_field)
        if (start, extent) == (place, size):
            moved = index
            struct.pack_into(word, head, section + offset_field, new_place)
            struct.pack_into(word, head, section + size_field, new_size)
    if moved is None:
        raise VerifyError("the weights marker does not have a section of its own")
    for index in range(count):
        section = table + index * entry
        (kind,) = struct.unpack_from("<I", head, section + 4)
        if kind != 2:  # SHT_SYMTAB
            continue
        (start,) = struct.unpack_from(word, head, section + offset_field)
        (extent,) = struct.unpack_from(word, head, section + size_field)
        for symbol in range(start, start + extent, symbol_bytes):
            (where,) = struct.unpack_from("<H", head, symbol + symbol_section_field)
            (span,) = struct.unpack_from(word, head, symbol + symbol_size_field)
            if (where, span) == (moved, size):
                struct.pack_into(word, head, symbol + symbol_size_field, new_size)
