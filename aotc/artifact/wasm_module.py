"""A WebAssembly object with constants in, a module that a browser runs as it is out.

The object is what LLVM emits for one model: it imports a memory (and a stack pointer where a
kernel needs a stack), and its addresses are relocated. A module of one object needs little of what
a linker does: the imports become definitions, the data gets its place, and addresses in the code
are filled in. Format: the WebAssembly core specification, and the object conventions in
https://github.com/WebAssembly/tool-conventions/blob/main/Linking.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from aotc.errors import UnsupportedError, VerifyError

PAGE_BYTES = 1 << 16
STACK_BYTES = 1 << 16
"""Of the module's own stack, where a kernel needs one."""

_TYPE, _FUNCTION, _MEMORY, _GLOBAL, _EXPORT = 1, 3, 5, 6, 7
_CODE, _DATA = 10, 11
_I32, _MUTABLE, _I32_CONST, _END = 0x7F, 1, 0x41, 0x0B
_SYMBOL_TABLE, _DATA_SYMBOL, _SECTION_SYMBOL = 8, 1, 3
_UNDEFINED, _EXPLICIT_NAME = 0x10, 0x40
# Relocations by number: those of indices, which stay as they are, and those of addresses.
_FUNCTION_INDEX, _TYPE_INDEX, _GLOBAL_INDEX = 0, 6, 7
_ADDRESS_LEB, _ADDRESS_SLEB, _ADDRESS_I32 = 3, 4, 5
_WITH_ADDEND = (_ADDRESS_LEB, _ADDRESS_SLEB, _ADDRESS_I32)


@dataclass(frozen=True)
class WasmModule:
    """A finished module; ``free`` is the first address beyond its data and stack."""

    data: bytes
    free: int


@dataclass
class _Object:
    """The parts of an object file that matter."""

    types: bytes = b""
    functions: bytes = b""
    code: bytearray = field(default_factory=bytearray)
    segments: list[bytes] = field(default_factory=list)
    alignments: list[int] = field(default_factory=list)
    has_stack: bool = False
    exports: list[tuple[str, int]] = field(default_factory=list)
    addresses: dict[int, tuple[int, int]] = field(default_factory=dict)  # symbol: segment, offset
    relocations: list[tuple[int, int, int, int]] = field(default_factory=list)


def link_module(data: bytes, memory_bytes: int) -> WasmModule:
    """The module of the object ``data``, with ``memory_bytes`` of room from ``free`` on.

    It exports its memory as ``memory`` and every function that the object defines for others.
    UnsupportedError when the object calls something that it does not define, VerifyError when it is
    not an object that LLVM writes.
    """
    found = _read(data)
    base = 1024 + (STACK_BYTES if found.has_stack else 0)
    places = []
    for content, alignment in zip(found.segments, found.alignments, strict=True):
        base += -base % max(alignment, 64)
        places.append(base)
        base += len(content)
    free = base + -base % 64
    _relocate(found, places)
    pages = -(-(free + memory_bytes) // PAGE_BYTES)
    sections = [
        (_TYPE, found.types),
        (_FUNCTION, found.functions),
        (_MEMORY, b"\1\0" + _leb(pages)),
    ]
    if found.has_stack:
        stack = 1024 + STACK_BYTES
        value = bytes([_I32, _MUTABLE, _I32_CONST]) + _signed(stack) + bytes([_END])
        sections.append((_GLOBAL, b"\1" + value))
    exports = [_name("memory") + b"\2\0"]
    exports += [_name(name) + b"\0" + _leb(index) for name, index in found.exports]
    segments = [
        b"\0" + bytes([_I32_CONST]) + _signed(place) + bytes([_END]) + _leb(len(content)) + content
        for place, content in zip(places, found.segments, strict=True)
    ]
    sections += [(_EXPORT, _vector(exports)), (_CODE, bytes(found.code))]
    sections.append((_DATA, _vector(segments)))
    body = b"".join(bytes([number]) + _leb(len(part)) + part for number, part in sections)
    return WasmModule(b"\0asm\1\0\0\0" + body, free)


def _read(data: bytes) -> _Object:
    if data[:8] != b"\0asm\1\0\0\0":
        raise VerifyError("the object is not WebAssembly")
    found = _Object()
    symbols = b""
    for number, content in _sections(data):
        reader = _Reader(content)
        match number:
            case 1:
                found.types = content
            case 2:
                _read_imports(reader, found)
            case 3:
                found.functions = content
            case 10:
                found.code = bytearray(content)
            case 11:
                found.segments = [_read_segment(reader) for _ in range(reader.leb())]
            case 0:
                title = reader.name()
                if title == "linking":
                    symbols = content[reader.place :]
                elif title == "reloc.CODE":
                    found.relocations = list(_read_relocations(reader))
                elif title == "reloc.DATA":
                    raise UnsupportedError("the module has addresses in its data")
    _read_linking(_Reader(symbols), found)
    return found


def _sections(data: bytes) -> Iterator[tuple[int, bytes]]:
    reader = _Reader(data, 8)
    while reader.place < len(data):
        number = reader.byte()
        yield number, reader.take(reader.leb())


def _read_imports(reader: _Reader, found: _Object) -> None:
    for _ in range(reader.leb()):
        reader.name()
        name, kind = reader.name(), reader.byte()
        if name == "__linear_memory" and kind == 2:
            if reader.leb() & 1:
                reader.leb()
            reader.leb()
        elif name == "__stack_pointer" and kind == 3:
            reader.take(2)
            found.has_stack = True
        else:
            raise UnsupportedError(
                f"the module needs '{name}'",
                remedy="compile without --threads; use the object with a linker instead",
            )


def _read_segment(reader: _Reader) -> bytes:
    if reader.leb() != 0 or reader.byte() != _I32_CONST:
        raise VerifyError("a data segment of an unexpected kind")
    reader.leb()
    reader.byte()
    return reader.take(reader.leb())


def _read_relocations(reader: _Reader) -> Iterator[tuple[int, int, int, int]]:
    """(kind, offset in the code section, symbol, addend) of each."""
    reader.leb()
    for _ in range(reader.leb()):
        kind, offset, symbol = reader.byte(), reader.leb(), reader.leb()
        yield kind, offset, symbol, reader.signed() if kind in _WITH_ADDEND else 0


def _read_linking(reader: _Reader, found: _Object) -> None:
    reader.leb()
    while reader.place < len(reader.data):
        kind, part = reader.byte(), _Reader(reader.take(reader.leb()))
        if kind == _SYMBOL_TABLE:
            for number in range(part.leb()):
                _read_symbol(part, number, found)
        elif kind == 5:  # WASM_SEGMENT_INFO
            for _ in range(part.leb()):
                part.name()
                found.alignments.append(1 << part.leb())
                part.leb()


def _read_symbol(part: _Reader, number: int, found: _Object) -> None:
    kind, flags = part.byte(), part.leb()
    if kind == _DATA_SYMBOL:
        part.name()
        if not flags & _UNDEFINED:
            found.addresses[number] = (part.leb(), part.leb())
            part.leb()
    elif kind == _SECTION_SYMBOL:
        part.leb()
    else:
        index = part.leb()
        name = "" if flags & _UNDEFINED and not flags & _EXPLICIT_NAME else part.name()
        is_local = flags & 3 == 2
        if kind == 0 and not is_local and not flags & _UNDEFINED:
            found.exports.append((name, index))


def _relocate(found: _Object, places: Sequence[int]) -> None:
    for kind, offset, symbol, addend in found.relocations:
        if kind in (_FUNCTION_INDEX, _TYPE_INDEX, _GLOBAL_INDEX):
            continue  # nothing is imported before them, so indices stay
        if kind not in (_ADDRESS_LEB, _ADDRESS_SLEB):
            raise UnsupportedError(
                f"the module needs a relocation of kind {kind}",
                remedy="compile without --threads; use the object with a linker instead",
            )
        segment, start = found.addresses[symbol]
        value = places[segment] + start + addend
        padded = [value >> 7 * i & 0x7F | 0x80 for i in range(5)]
        padded[4] &= 0x7F
        found.code[offset : offset + 5] = bytes(padded)


class _Reader:
    """Numbers and names from bytes."""

    def __init__(self, data: bytes, place: int = 0) -> None:
        self.data = data
        self.place = place

    def byte(self) -> int:
        self.place += 1
        return self.data[self.place - 1]

    def take(self, size: int) -> bytes:
        self.place += size
        return self.data[self.place - size : self.place]

    def leb(self) -> int:
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    def signed(self) -> int:
        start = self.place
        value = self.leb()
        bits = 7 * (self.place - start)
        return value - (1 << bits) if value >> (bits - 1) else value

    def name(self) -> str:
        return self.take(self.leb()).decode()


def _leb(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _signed(value: int) -> bytes:
    """Signed LEB128 of a number that is not negative."""
    out = bytearray()
    while value >= 0x40:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _name(text: str) -> bytes:
    encoded = text.encode()
    return _leb(len(encoded)) + encoded


def _vector(parts: Sequence[bytes]) -> bytes:
    return _leb(len(parts)) + b"".join(parts)
