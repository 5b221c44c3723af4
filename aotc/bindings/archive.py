"""An object file and its symbols in, a static library (.a) with an index of them out.

The object alone tells which kind of index its linkers read: that of System V for ELF, COFF and
WebAssembly ("GNU" in llvm-ar), that of BSD for Mach-O. Times and owners are 0, so that equal
objects give equal libraries.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

_MAGIC = b"!<arch>\n"
_HEADER_BYTES = 60
_MACH_O = (b"\xcf\xfa\xed\xfe", b"\xce\xfa\xed\xfe")


def make_archive(data: bytes, member: str, symbols: Sequence[str]) -> bytes:
    """The library whose only member ``member`` is the object ``data``, which defines ``symbols``
    (names in C)."""
    mach_o = data[:4] in _MACH_O
    prefix = b"_" if mach_o else b""
    names = b"".join(prefix + symbol.encode() + b"\0" for symbol in symbols)
    if mach_o:
        return _bsd(data, member.encode(), names, len(symbols))
    return _system_v(data, member.encode(), names, len(symbols))


def _system_v(data: bytes, member: bytes, names: bytes, count: int) -> bytes:
    """First the index "/": how many symbols, the place of each one's member, the names. A name of
    more than 15 bytes stands in a table of its own, "//"."""
    names += b"\0" * (len(names) % 2)
    table = b"" if len(member) < 16 else member + b"/\n"
    table += b"\n" * (len(table) % 2)
    place = len(_MAGIC) + _HEADER_BYTES + 4 * (count + 1) + len(names)
    if table:
        place += _HEADER_BYTES + len(table)
    index = struct.pack(f">{count + 1}I", count, *[place] * count) + names
    parts = [_MAGIC, _header(b"/", len(index)), index]
    if table:
        parts += [_header(b"//", len(table)), table]
    parts += [_header(b"/0" if table else member + b"/", len(data)), data]
    return b"".join([*parts, b"\n" * (len(data) % 2)])


def _bsd(data: bytes, member: bytes, names: bytes, count: int) -> bytes:
    """First the index: pairs of (place of the name, place of the member), then the names. Names of
    members stand before their contents, filled up so that these begin at multiples of 8."""
    names += b"\0" * (-len(names) % 8)
    index_name = _fill(b"__.SYMDEF", len(_MAGIC) + _HEADER_BYTES)
    size = 4 + 8 * count + 4 + len(names)
    size += -size % 8
    place = len(_MAGIC) + _HEADER_BYTES + len(index_name) + size
    pairs = []
    position = 0
    for name in names.split(b"\0")[:count]:
        pairs += [position, place]
        position += len(name) + 1
    index = struct.pack(f"<I{len(pairs)}II", 8 * count, *pairs, len(names)) + names
    index += b"\0" * (size - len(index))
    own_name = _fill(member, place + _HEADER_BYTES)
    parts = [_MAGIC, _long_header(index_name, size), index_name, index]
    parts += [_long_header(own_name, len(data)), own_name, data]
    return b"".join([*parts, b"\n" * (-len(data) % 2)])


def _fill(name: bytes, start: int) -> bytes:
    """``name`` with zeros up to a multiple of 8, when it begins at ``start``."""
    return name + b"\0" * (-(start + len(name)) % 8)


def _long_header(name: bytes, size: int) -> bytes:
    return _header(b"#1/%d" % len(name), len(name) + size)


def _header(name: bytes, size: int) -> bytes:
    """The 60 bytes before a member: name, time, owner, group, mode and size as text."""
    fields = [(name, 16), (b"0", 12), (b"0", 6), (b"0", 6), (b"100644", 8)]
    text = b"".join(field.ljust(width) for field, width in fields)
    return text + str(size).encode().ljust(10) + b"`\n"
