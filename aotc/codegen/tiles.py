"""Tile registers at work: in go the tiles of a kernel or a statement on them, out come instructions
of x86's AMX.

The shapes of all registers are set once, at the start of a kernel's function, and given up at its
end, so that each thread that runs a part of it has set its own.
"""

from __future__ import annotations

from collections.abc import Sequence

from aotc.codegen.address import Addresses
from aotc.loop.tiles import Tile, TileDot, TileLoad, TileStmt, TileStore, TileZero
from aotc.permission import GET_PERMISSION, SYSCALL_ARCH_PRCTL, TILE_DATA

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


def arch_prctl(symbol: str) -> str:
    """The function ``symbol``, which does the system call of that name with its two arguments: they
    are where the kernel expects them. It is machine code ahead of a body that is never reached,
    since LLVM's parser of assembly is not there for every host."""
    number = SYSCALL_ARCH_PRCTL.to_bytes(4, "little")
    code = b"\xb8" + number + b"\x0f\x05\xc3"  # mov eax, number; syscall; ret
    text = "".join(f"\\{byte:02X}" for byte in code)
    return (
        f"define internal i64 @{symbol}(i64 %what, ptr %at) noinline optnone nounwind "
        f'prologue [{len(code)} x i8] c"{text}" {{\n  ret i64 -1\n}}'
    )


def permission_check(symbol: str, failed: str) -> list[str]:
    """The lines that set ``failed``, an i1, unless this process may use tile registers: Linux is
    asked for the permissions that it has, which takes a tenth of a microsecond. ``symbol`` is that
    of `arch_prctl`."""
    return [
        "  %permitted.at = alloca i64, align 8",
        "  store i64 0, ptr %permitted.at, align 8",
        f"  %asked = call i64 @{symbol}(i64 {GET_PERMISSION}, ptr %permitted.at)",
        "  %permitted = load i64, ptr %permitted.at, align 8",
        f"  %tile.data = and i64 %permitted, {1 << TILE_DATA}",
        f"  {failed} = icmp eq i64 %tile.data, 0",
    ]


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
