"""Tile registers: the statements of the loop IR on small matrices, with their rules and meaning.

A tile is a register of up to 16 rows of up to 64 bytes, as x86's AMX has them. It is a buffer of
Space.TILE that only the statements here reach: cleared, loaded from memory row by row, multiplied
(bytes, in groups of four) and stored to memory. A kernel uses the registers by their numbers; all
tiles of one number have one shape, because the machine is told the shapes once for a whole kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import GROUP, Alloc, Buffer, Expr, Lit, Load, Space, Stmt

TILE_REGISTERS = 8
TILE_ROWS = 16
TILE_ROW_BYTES = 64


@dataclass(frozen=True, eq=False)
class Tile(Buffer):
    """The tile register ``number`` as ``rows`` rows of elems / rows elements each."""

    rows: int = 1
    number: int = 0

    @classmethod
    def of(cls, name: str, dtype: DType, rows: int, columns: int, number: int) -> Tile:
        """``rows`` times ``columns`` elements in register ``number``."""
        return cls(name, dtype, rows * columns, Space.TILE, rows=rows, number=number)

    @property
    def columns(self) -> int:
        return self.elems // self.rows

    @property
    def row_bytes(self) -> int:
        return self.columns * self.dtype.size_bytes


class TileStmt(Stmt):
    """Base of the statements on tiles. None of them stands in a VECTOR loop."""

    __slots__ = ()


@dataclass(frozen=True, eq=False, slots=True)
class TileZero(TileStmt):
    """All of ``tile`` = 0."""

    tile: Tile


@dataclass(frozen=True, eq=False, slots=True)
class TileLoad(TileStmt):
    """Row r of ``tile`` = the elements of ``buffer`` from ``index + r * stride`` on."""

    tile: Tile
    buffer: Buffer
    index: Expr
    stride: int


@dataclass(frozen=True, eq=False, slots=True)
class TileStore(TileStmt):
    """The elements of ``buffer`` (on the STACK) from ``index + r * stride`` on = row r of
    ``tile``."""

    tile: Tile
    buffer: Buffer
    index: Expr
    stride: int


@dataclass(frozen=True, eq=False, slots=True)
class TileDot(TileStmt):
    """``c[m, n] += sum of a[m, 4k + t] * b[k, 4n + t]`` over k and t < 4 in int32, which wraps;
    ``a`` of uint8, ``b`` of int8."""

    c: Tile
    a: Tile
    b: Tile


Moved = TileLoad | TileStore


def reach(stmt: Moved) -> int:
    """How far behind the first element that ``stmt`` moves the last one lies."""
    return (stmt.tile.rows - 1) * stmt.stride + stmt.tile.columns - 1


def ends(stmt: Moved) -> tuple[Expr, Expr]:
    """The indices of the first and the last element that ``stmt`` moves."""
    return stmt.index, index.add(stmt.index, index.lit(reach(stmt)))


def tile_accesses(stmt: TileStmt) -> Iterator[tuple[Buffer, Expr, bool]]:
    """(buffer, index, is a store) of what ``stmt`` touches. Memory is read from the first to the
    last element of what this yields; what is stored has an index of which nothing is known."""
    match stmt:
        case TileZero(tile=tile):
            yield tile, Lit(0), True
        case TileLoad(tile=tile, buffer=buffer):
            yield from ((buffer, at, False) for at in ends(stmt))
            yield tile, Lit(0), True
        case TileStore(tile=tile, buffer=buffer):
            yield buffer, Load(buffer, stmt.index), True
            yield tile, Lit(0), False
        case TileDot(c=c, a=a, b=b):
            yield from ((tile, Lit(0), False) for tile in (a, b))
            yield c, Lit(0), True


def elements_moved(stmt: TileStmt) -> tuple[Buffer, int, bool] | None:
    """(buffer, elements, is a store) of a statement that moves a tile from or to memory."""
    if not isinstance(stmt, Moved):
        return None
    return stmt.buffer, stmt.tile.elems, isinstance(stmt, TileStore)


def tiles_in(body: Sequence[Stmt]) -> list[Tile]:
    """The tiles that ``body`` declares, of each number the first."""
    found: dict[int, Tile] = {}
    stack = list(reversed(body))
    while stack:
        stmt = stack.pop()
        if isinstance(stmt, Alloc) and isinstance(stmt.buffer, Tile):
            found.setdefault(stmt.buffer.number, stmt.buffer)
        stack.extend(reversed(getattr(stmt, "body", ())))
    return [found[number] for number in sorted(found)]


def shape_problem(tile: Tile) -> str | None:
    """What keeps ``tile`` from being a register, if anything does."""
    if not 0 <= tile.number < TILE_REGISTERS:
        return f"there is no tile register {tile.number}"
    if not 1 <= tile.rows <= TILE_ROWS or tile.elems % tile.rows:
        return f"{tile.elems} elements in {tile.rows} rows"
    if not GROUP <= tile.row_bytes <= TILE_ROW_BYTES or tile.row_bytes % GROUP:
        return f"rows of {tile.row_bytes} bytes"
    return None


def dot_problem(stmt: TileDot) -> str | None:
    """What is wrong with the operands of ``stmt``, if anything is."""
    a, b, c = stmt.a, stmt.b, stmt.c
    if (a.dtype, b.dtype, c.dtype) != (DType.U8, DType.I8, DType.I32):
        return "the types of a product of tiles"
    if (a.rows, a.columns, b.columns) != (c.rows, GROUP * b.rows, GROUP * c.columns):
        return "the shapes of a product of tiles"
    if len({a.number, b.number, c.number}) < len((a, b, c)):
        return "one register twice in a product of tiles"
    return None


def places(stmt: Moved, first: int | np.ndarray) -> np.ndarray:
    """The positions that ``stmt`` moves, [lanes, elements], where ``first`` is the value of its
    index, one for all lanes or one each."""
    tile = stmt.tile
    rows = np.arange(tile.rows, dtype=np.int64)[:, None] * stmt.stride
    offsets = (rows + np.arange(tile.columns, dtype=np.int64)).reshape(-1)
    return np.atleast_1d(np.asarray(first, np.int64))[:, None] + offsets


def multiply(stmt: TileDot, c: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``c`` after ``stmt``: the contents of the tiles in and out as [lanes, elements]."""
    groups = stmt.b.rows
    left = a.reshape(-1, stmt.a.rows, groups * GROUP).astype(np.float64)
    spread = b.reshape(-1, groups, stmt.c.columns, GROUP).astype(np.float64)
    right = spread.transpose(0, 1, 3, 2).reshape(-1, groups * GROUP, stmt.c.columns)
    # products of bytes and sums of 64 of them are exact in float64
    sums = (left @ right).astype(np.int32).reshape(c.shape)
    with np.errstate(over="ignore"):
        return c + sums
