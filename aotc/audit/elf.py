"""An ELF relocatable object in, its sections, symbols and relocations out (System V ABI, gABI 4.1).

Only what an audit asks for: little-endian, 32 and 64 bits.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass

from aotc.errors import ModelError

SHT_SYMTAB, SHT_RELA, SHT_NOBITS, SHT_REL = 2, 4, 8, 9
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
STT_FUNC = 2
STB_LOCAL = 0

#: e_machine, and what the rest of the audit calls it.
MACHINES = {3: "x86", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv"}


@dataclass(frozen=True)
class Section:
    """``content`` is empty for sections that take no room in the file."""

    name: str
    kind: int
    flags: int
    size: int
    content: bytes
    link: int
    info: int


@dataclass(frozen=True)
class Symbol:
    """``section`` is 0 for what the object needs from others."""

    name: str
    section: int
    value: int
    size: int
    is_function: bool
    is_local: bool


@dataclass(frozen=True)
class ElfObject:
    """A parsed object. ``relocations`` are (section, offset in it, symbol index)."""

    machine: str
    bits: int
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    relocations: tuple[tuple[int, int, int], ...]

    @functools.cached_property
    def is_thumb(self) -> bool:
        """Whether Arm code is Thumb: the symbols of its functions are odd."""
        return any(s.is_function and s.section and s.value & 1 for s in self.symbols)


def read_elf(data: bytes) -> ElfObject:
    """The object in ``data``; ModelError when it is damaged or of a machine that aotc does not
    write for."""
    try:
        return _read(data)
    except (struct.error, IndexError, ValueError) as error:
        raise ModelError(
            f"the object file is damaged: {error}", remedy="compile the model again"
        ) from None


def _read(data: bytes) -> ElfObject:
    if data[:4] != b"\x7fELF" or data[5] != 1 or data[4] not in (1, 2):
        raise ValueError("not a little-endian ELF file")
    wide = data[4] == 2
    kind, machine = struct.unpack_from("<HH", data, 16)
    if kind != 1:
        raise ValueError("not a relocatable object")
    if machine not in MACHINES:
        raise ValueError(f"machine {machine} is unknown")
    (table,) = struct.unpack_from("<Q" if wide else "<I", data, 40 if wide else 32)
    entry, count, names_at = struct.unpack_from("<HHH", data, 58 if wide else 46)
    layout = "<IIQQQQIIQQ" if wide else "<IIIIIIIIII"
    rows = [struct.unpack_from(layout, data, table + i * entry) for i in range(count)]
    _expect_inside(rows, data)
    names = data[rows[names_at][4] :][: rows[names_at][5]]
    sections = tuple(
        Section(
            _text(names, row[0]),
            row[1],
            row[2],
            row[5],
            b"" if row[1] == SHT_NOBITS else data[row[4] : row[4] + row[5]],
            row[6],
            row[7],
        )
        for row in rows
    )
    symbols: tuple[Symbol, ...] = ()
    for section in sections:
        if section.kind == SHT_SYMTAB:
            symbols = tuple(_symbols(section, sections[section.link].content, wide))
    relocations = [
        (section.info, *place)
        for section in sections
        if section.kind in (SHT_REL, SHT_RELA)
        for place in _relocations(section, wide)
    ]
    return ElfObject(MACHINES[machine], 64 if wide else 32, sections, symbols, tuple(relocations))


def _expect_inside(rows: list[tuple[int, ...]], data: bytes) -> None:
    for row in rows:
        if row[1] not in (0, SHT_NOBITS) and row[4] + row[5] > len(data):
            raise ValueError("a section lies beyond the end of the file")


def _text(names: bytes, start: int) -> str:
    return names[start : names.index(b"\0", start)].decode(errors="replace")


def _symbols(section: Section, names: bytes, wide: bool) -> list[Symbol]:
    size = 24 if wide else 16
    found = []
    for at in range(0, len(section.content) - size + 1, size):
        if wide:
            name, info, _, where, value, extent = struct.unpack_from("<IBBHQQ", section.content, at)
        else:
            name, value, extent, info, _, where = struct.unpack_from("<IIIBBH", section.content, at)
        kind, binding = info & 15, info >> 4
        found.append(
            Symbol(
                _text(names, name), where, value, extent, kind == STT_FUNC, binding == STB_LOCAL
            )
        )
    return found


def _relocations(section: Section, wide: bool) -> list[tuple[int, int]]:
    rela = section.kind == SHT_RELA
    size = (24 if rela else 16) if wide else (12 if rela else 8)
    found = []
    for at in range(0, len(section.content) - size + 1, size):
        offset, info = struct.unpack_from("<QQ" if wide else "<II", section.content, at)
        found.append((offset, info >> 32 if wide else info >> 8))
    return found
