"""Tables of bytes: in goes a `Load` from 256 bytes at a place that a byte says, out comes the
lookup of a vector of them by the instructions that the target has.

AVX-512 VBMI picks each of 64 bytes from two registers by the low seven bits of the place, and the
eighth chooses between two such; NEON picks each of 16 from four registers, and leaves alone what
lies beyond them.
"""

from __future__ import annotations

from collections.abc import Sequence

from aotc.codegen.operators import Put, resized
from aotc.codegen.text import splat_constant
from aotc.graph.types import DType
from aotc.loop.ir import Conv, Expr, Load
from aotc.target import Target

#: Entries of a table.
ENTRIES = 256


def looked_up(load: Load, lanes: int, target: Target) -> Expr | None:
    """The bytes that say where ``load`` reads, if instructions of ``target`` do that."""
    place = load.index
    if not target.byte_tables or not 1 < lanes <= register_bytes(target):
        return None
    if load.buffer.elems != ENTRIES or load.dtype not in (DType.U8, DType.I8):
        return None
    return place.x if isinstance(place, Conv) and place.x.dtype is DType.U8 else None


def register_bytes(target: Target) -> int:
    """The bytes of each part of a table, and of a vector of places."""
    return target.vector_bits // 8


def look_up(put: Put, target: Target, table: Sequence[str], lanes: int, places: str) -> str:
    """The bytes at ``places``, a vector of ``lanes``, of a ``table`` in registers."""
    width = register_bytes(target)
    if lanes < width:
        places = resized(put, DType.U8, lanes, width, places)
    found = _by_pairs(put, table, places) if width == 64 else _by_fours(put, table, places)
    return resized(put, DType.U8, width, lanes, found) if lanes < width else found


def _by_pairs(put: Put, table: Sequence[str], places: str) -> str:
    ty = "<64 x i8>"
    halves = [
        put(
            f"call {ty} @llvm.x86.avx512.vpermi2var.qi.512"
            f"({ty} {table[i]}, {ty} {places}, {ty} {table[i + 1]})"
        )
        for i in (0, 2)
    ]
    upper = put(f"icmp slt {ty} {places}, zeroinitializer")
    return put(f"select <64 x i1> {upper}, {ty} {halves[1]}, {ty} {halves[0]}")


def _by_fours(put: Put, table: Sequence[str], places: str) -> str:
    ty, name = "<16 x i8>", "llvm.aarch64.neon"
    found = ""
    for first in range(0, len(table), 4):
        parts = ", ".join(f"{ty} {part}" for part in table[first : first + 4])
        if not found:
            found = put(f"call {ty} @{name}.tbl4.v16i8({parts}, {ty} {places})")
            continue
        places = put(f"sub {ty} {places}, {splat_constant('64', 'i8')}")
        found = put(f"call {ty} @{name}.tbx4.v16i8({ty} {found}, {parts}, {ty} {places})")
    return found
