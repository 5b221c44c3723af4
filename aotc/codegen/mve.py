"""Arm's vector extension of microcontrollers (MVE): in go vectors as text, out come instructions
that LLVM does not find by itself."""

from __future__ import annotations

from collections.abc import Callable

from aotc.codegen.operators import Put
from aotc.codegen.text import vector_constant


def scatter_bytes(
    do: Callable[[str], None], put: Put, pointer: str, step: int, lanes: int, text: str
) -> None:
    """Stores the bytes of ``text`` (four or eight lanes) ``step`` bytes apart, from ``pointer`` on;
    the last must lie less than 64 KiB away."""
    bits = 128 // lanes
    ty = f"<{lanes} x i{bits}>"
    wide = put(f"zext <{lanes} x i8> {text} to {ty}")
    places = vector_constant([str(step * lane) for lane in range(lanes)], f"i{bits}")
    name = f"llvm.arm.mve.vstr.scatter.offset.p0.v{lanes}i{bits}.v{lanes}i{bits}"
    do(f"call void @{name}(ptr {pointer}, {ty} {places}, {ty} {wide}, i32 8, i32 0)")
