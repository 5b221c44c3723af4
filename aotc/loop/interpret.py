"""Statements of the loop IR at work: a kernel's body and the memory of its buffers in, the stores
made in that memory out.

The meaning is every loop run serially in order with the arithmetic of loop/arith.py. For speed a
loop whose iterations provably touch disjoint memory runs all iterations at once, one lane each,
which gives the same bytes. Every index is checked; what nobody wrote reads as NaN or as all ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from aotc.errors import VerifyError
from aotc.loop import arith
from aotc.loop.disjoint import iterations_disjoint
from aotc.loop.index import Affine, affine
from aotc.loop.ir import (
    GROUP,
    Alloc,
    Bin,
    Bits,
    Buffer,
    Cmp,
    Conv,
    DotProduct,
    Expr,
    Fma,
    For,
    Kernel,
    Lit,
    Load,
    Prefetch,
    Quantize,
    Sel,
    ShortProducts,
    Stmt,
    Store,
    Un,
    Var,
    Widened,
)
from aotc.loop.tiles import (
    Moved,
    Tile,
    TileDot,
    TileLoad,
    TileStmt,
    TileStore,
    TileZero,
    multiply,
    places,
    reach,
)
from aotc.loop.walk import operands, post_order

MAX_LANES = 1 << 16
"""Iterations that run at once at most."""
POISON_BYTE = 0xFF
"""What memory holds before anything is stored to it."""
_MAX_LOCAL_BYTES = 1 << 26


@dataclass(frozen=True)
class Memory:
    """A buffer's elements; a private one has a replica per lane of its scope, and ``replica`` says
    for each current lane which one it sees (None: there is one for all)."""

    data: np.ndarray
    elems: int
    replica: np.ndarray | None

    def repeated(self, count: int) -> Memory:
        """The same memory as ``count`` times as many lanes see it."""
        assert self.replica is not None
        return Memory(self.data, self.elems, np.repeat(self.replica, count))


class Run:
    """One kernel run: ``lanes`` iterations at once, each variable an int (the same in all lanes) or
    one value a lane."""

    def __init__(self, kernel: Kernel, memory: dict[Buffer, Memory], serial_only: bool) -> None:
        self._kernel = kernel
        self._memory = memory
        self._serial_only = serial_only
        self._vars: dict[Var, int | np.ndarray] = {}
        self._lanes = 1
        self._forms: dict[int, Affine | None] = {}
        self._literals: dict[int, np.ndarray] = {}
        self._orders: dict[int, list[Expr]] = {}
        self._disjoint: dict[int, bool] = {}

    def block(self, body: Sequence[Stmt]) -> None:
        """Run the statements in order."""
        for stmt in body:
            self.statement(stmt)

    def statement(self, stmt: Stmt) -> None:
        """Run one statement."""
        match stmt:
            case Store():
                self._store(stmt)
            case For():
                self._loop(stmt)
            case Alloc(buffer=buffer, body=inner):
                self._alloc(buffer, inner)
            case Prefetch():
                pass
            case TileStmt():
                self._tile_statement(stmt)
            case _:
                raise VerifyError(f"kernel '{self._kernel.name}': {stmt!r} is no statement")

    def _alloc(self, buffer: Buffer, body: Sequence[Stmt]) -> None:
        size = self._lanes * buffer.elems
        raw = np.full(size * buffer.dtype.size_bytes, POISON_BYTE, np.uint8)
        replica = np.arange(self._lanes) if self._lanes > 1 else None
        self._memory[buffer] = Memory(raw.view(buffer.dtype.numpy), buffer.elems, replica)
        self.block(body)
        del self._memory[buffer]

    def _loop(self, loop: For) -> None:
        if id(loop) not in self._disjoint:
            self._disjoint[id(loop)] = not self._serial_only and iterations_disjoint(loop)
        chunk = 1
        if self._disjoint[id(loop)]:
            room = _MAX_LOCAL_BYTES // max(_local_bytes(loop.body), 1)
            chunk = max(min(MAX_LANES, room) // self._lanes, 1)
        if chunk == 1 or loop.extent == 1:
            for value in range(loop.extent):
                self._vars[loop.var] = value
                self.block(loop.body)
        else:
            for start in range(0, loop.extent, chunk):
                with self._expanded(loop.var, start, min(start + chunk, loop.extent)):
                    self.block(loop.body)
        self._vars.pop(loop.var, None)

    @contextmanager
    def _expanded(self, var: Var, start: int, stop: int) -> Iterator[None]:
        """Every lane becomes stop-start lanes, one for each value of ``var``."""
        count = stop - start
        before = self._vars, self._memory, self._lanes
        self._vars = {
            v: value if isinstance(value, int) else np.repeat(value, count)
            for v, value in before[0].items()
        }
        self._vars[var] = np.tile(np.arange(start, stop, dtype=np.int64), self._lanes)
        self._memory = {
            buffer: m if m.replica is None else m.repeated(count) for buffer, m in before[1].items()
        }
        self._lanes *= count
        try:
            yield
        finally:
            self._vars, self._memory, self._lanes = before

    def _store(self, stmt: Store) -> None:
        values: dict[int, np.ndarray] = {}
        value = self._eval(stmt.value, values)
        memory, where = self._locate(stmt.buffer, stmt.index, values, is_store=True)
        memory.data[where] = value if isinstance(where, np.ndarray) else value[0]

    def _tile_statement(self, stmt: TileStmt) -> None:
        match stmt:
            case TileZero(tile=tile):
                memory, where = self._tile(tile)
                memory.data[where] = 0
            case TileLoad(tile=tile):
                memory, where = self._tile(tile)
                source, places_ = self._rows(stmt)
                memory.data[where] = source.data[places_]
            case TileStore(tile=tile):
                memory, where = self._tile(tile)
                target, places_ = self._rows(stmt)
                target.data[places_] = memory.data[where]
            case TileDot():
                (memory, where), *others = (self._tile(tile) for tile in (stmt.c, stmt.a, stmt.b))
                a, b = (other.data[at] for other, at in others)
                memory.data[where] = multiply(stmt, memory.data[where], a, b)

    def _tile(self, tile: Tile) -> tuple[Memory, np.ndarray]:
        """The memory that stands for a tile register, and where its elements are in it, a row for
        each lane."""
        memory = self._memory[tile]
        first = np.zeros(1, np.int64) if memory.replica is None else memory.replica * tile.elems
        return memory, first[:, None] + np.arange(tile.elems)

    def _rows(self, stmt: Moved) -> tuple[Memory, np.ndarray]:
        """The memory that a tile is moved from or to, and the checked positions in it, a row for
        each lane."""
        values: dict[int, np.ndarray] = {}
        memory, first = self._locate(stmt.buffer, stmt.index, values)
        last = np.max(self._index(stmt.index, values)) + reach(stmt)
        if last >= memory.elems:
            raise VerifyError(
                f"kernel '{self._kernel.name}': a tile up to {last} is not inside "
                f"'{stmt.buffer.name}', which has {memory.elems} elements"
            )
        return memory, places(stmt, first)

    def _locate(
        self, buffer: Buffer, index: Expr, values: dict[int, np.ndarray], is_store: bool = False
    ) -> tuple[Memory, int | np.ndarray]:
        """The buffer's memory and the checked position in it, one a lane or one for all."""
        return self._at(buffer, self._index(index, values), is_store)

    def _at(
        self, buffer: Buffer, where: int | np.ndarray, is_store: bool = False
    ) -> tuple[Memory, int | np.ndarray]:
        """As `_locate`, of an index that is known."""
        memory = self._memory.get(buffer)
        if memory is None:
            raise VerifyError(f"kernel '{self._kernel.name}': no buffer '{buffer.name}' in scope")
        low, high = (where, where) if isinstance(where, int) else (where.min(), where.max())
        if low < 0 or high >= memory.elems:
            bad = int(low if low < 0 else high)
            raise VerifyError(
                f"kernel '{self._kernel.name}': index {bad} is outside '{buffer.name}', "
                f"which has {memory.elems} elements{self._describe(np.asarray(where == bad))}"
            )
        if memory.replica is not None:
            where = memory.replica * memory.elems + where
        return memory, where

    def _describe(self, wrong: np.ndarray) -> str:
        """What to say of the lanes that ``wrong`` marks."""
        return ""

    def _group(
        self, buffer: Buffer, index: Expr, terms: int, values: dict[int, np.ndarray]
    ) -> list[np.ndarray]:
        """The ``terms`` elements of ``buffer`` from ``index`` on, which a dot product reads."""
        memory, first = self._locate(buffer, index, values)
        last = np.max(first % memory.elems)  # of any replica
        if last + terms > memory.elems:
            raise VerifyError(
                f"kernel '{self._kernel.name}': a group from {last} is not inside "
                f"'{buffer.name}', which has {memory.elems} elements"
            )
        return [np.atleast_1d(memory.data[first + t]) for t in range(terms)]

    def _index(self, index: Expr, values: dict[int, np.ndarray]) -> int | np.ndarray:
        form = self._form(index)
        if form is None:
            found = self._eval(index, values)
            return int(found[0]) if found.size == 1 else found
        total: int | np.ndarray = form.const
        for var, factor in form.terms:
            total = total + self._var(var) * factor
        return total

    def _form(self, index: Expr) -> Affine | None:
        if id(index) not in self._forms:
            self._forms[id(index)] = affine(index)
        return self._forms[id(index)]

    def _var(self, var: Var) -> int | np.ndarray:
        if var not in self._vars:
            raise VerifyError(f"kernel '{self._kernel.name}': variable '{var.name}' out of scope")
        return self._vars[var]

    def _eval(self, root: Expr, values: dict[int, np.ndarray]) -> np.ndarray:
        """The value in each lane, or one element when it is the same in all of them. ``values``
        keeps what this statement has computed so far."""
        if id(root) not in self._orders:
            self._orders[id(root)] = post_order((root,), self._operands)
        for expr in self._orders[id(root)]:
            if id(expr) not in values:
                values[id(expr)] = self._eval_node(expr, values)
        return values[id(root)]

    def _operands(self, expr: Expr) -> tuple[Expr, ...]:
        """What must be computed first; an affine index takes a shorter way."""
        affine_load = isinstance(expr, Load) and self._form(expr.index) is not None
        return () if affine_load else operands(expr)

    def _eval_node(self, expr: Expr, values: dict[int, np.ndarray]) -> np.ndarray:
        match expr:
            case Lit(value=value, dtype=dtype):
                if id(expr) not in self._literals:
                    self._literals[id(expr)] = np.array([value], dtype.numpy)
                return self._literals[id(expr)]
            case Var():
                return np.atleast_1d(np.asarray(self._var(expr), np.int64))
            case Load(buffer=buffer, index=index):
                memory, where = self._locate(buffer, index, values)
                return np.atleast_1d(memory.data[where])
            case DotProduct(c=c):
                first, second = (
                    self._group(buffer, i, expr.terms, values) for buffer, i in expr.reads
                )
                return arith.dot_product(first, second, values[id(c)])
            case Widened(buffer=buffer, index=index):
                return arith.widened(self._group(buffer, index, GROUP, values))
            case ShortProducts(a=a, b=b, c=c):
                return arith.short_products(values[id(a)], values[id(b)], values[id(c)])
            case Un(fn=fn, x=x):
                return arith.unary(fn, values[id(x)])
            case Bin(fn=fn, a=a, b=b):
                return arith.binary(fn, values[id(a)], values[id(b)])
            case Fma(a=a, b=b, c=c):
                return arith.fma(values[id(a)], values[id(b)], values[id(c)])
            case Cmp(fn=fn, a=a, b=b):
                return arith.compare(fn, values[id(a)], values[id(b)])
            case Sel(cond=cond, a=a, b=b):
                return np.where(values[id(cond)], values[id(a)], values[id(b)])
            case Conv(x=x, dtype=dtype):
                return arith.convert(values[id(x)], dtype)
            case Quantize(x=x, zero=zero, low=low, high=high, dtype=dtype):
                return arith.quantize(values[id(x)], zero, low, high, dtype)
            case Bits(x=x, dtype=dtype):
                return arith.reinterpret(values[id(x)], dtype)
        raise VerifyError(f"kernel '{self._kernel.name}': {expr!r} is no expression")


def _local_bytes(body: Sequence[Stmt]) -> int:
    """Bytes of the largest set of private buffers alive at once in ``body``."""
    most = 0
    for stmt in body:
        own = stmt.buffer.elems * stmt.buffer.dtype.size_bytes if isinstance(stmt, Alloc) else 0
        most = max(most, own + _local_bytes(getattr(stmt, "body", ())))
    return most


