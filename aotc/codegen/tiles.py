"""Tile registers at work: in go the tiles of a kernel or a statement on them, out come instructions
of x86's AMX.

The shapes of all registers are set once, at the start of a kernel's function, and given up at its
end, so that each thread that runs a part of it has set its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from aotc.codegen.address import Addresses
from aotc.loop.tiles import Tile, TileDot, TileLoad, TileStmt, TileStore, TileZero

_CONFIG_BYTES = 64
_ROW_BYTES_AT, _ROWS_AT = 16, 48
"""Where the shapes begin in the configuration: two bytes for each register, then one."""


def configuration(symbol: str, tiles: Sequence[Tile]) -> str:
    """The global ``symbol``: what ``ldtilecfg`` reads to give ``tiles`` their shapes."""
    data = bytearray(_CONFIG_BYTES)
    data[0] = 1  # the palette: eight registers of 16 rows of 64 bytes
    for tile in tiles:
        data[_ROW_BYTES_AT + 2 * tile.number] = tile.row_bytes
        data[_ROWS_AT + tile.number] = tile.rows
    text = "".join(f"\\{byte:02X}" for byte in data)
    return (
        f"@{symbol} = private unnamed_addr constant [{_CONFIG_BYTES} x i8] "
        f'c"{text}", align {_CONFIG_BYTES}\n'
    )


def emit_tile_statement(out: Addresses, stmt: TileStmt) -> None:
    """Appends the instruction for ``stmt``."""
    match stmt:
        case TileZero(tile=tile):
            out.do(f"call void @llvm.x86.tilezero(i8 {tile.number})")
        case TileDot(c=c, a=a, b=b):
            numbers = ", ".join(f"i8 {tile.number}" for tile in (c, a, b))
            out.do(f"call void @llvm.x86.tdpbusd({numbers})")
        case TileLoad(tile=tile, buffer=buffer, index=index, stride=stride) | TileStore(
            tile=tile, buffer=buffer, index=index, stride=stride
        ):
            name = "tileloadd64" if isinstance(stmt, TileLoad) else "tilestored64"
            pointer = out.address(buffer, index)
            step = stride * buffer.dtype.size_bytes
            out.do(f"call void @llvm.x86.{name}(i8 {tile.number}, ptr {pointer}, i64 {step})")
