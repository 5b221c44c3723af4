"""Factors of a product on their way to shared memory, several chunks of the depth ahead: a factor
in memory in, the statements that bring its part of a chunk to a stage of shared memory out.

Where memory holds what tensor cores read, threads copy raw bytes asynchronously. Otherwise they
load to registers, convert and store. A stage consists of lines: rows of the factor with their chunk
of the depth, or, where the factor lies the other way round, terms of the depth with all rows of the
tile. Pieces of 16 bytes in a line are exchanged so that the eight lines which one matrix is loaded
from meet all banks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from aotc.graph.types import DType
from aotc.loop import index
from aotc.loop.ir import (
    Bin,
    Buffer,
    Cmp,
    Conv,
    Expr,
    For,
    Kind,
    Lit,
    Load,
    Sel,
    Space,
    Stmt,
    Store,
    Un,
    Var,
)
from aotc.loop.ir_async import MATRIX_ROW_BYTES, AsyncCopy
from aotc.loop.launch import SHARED_ALIGNMENT
from aotc.lower.gpu.binding import Binder, bind, digits, held_below, position
from aotc.lower.scope import Access
from aotc.lower.short import to_bf16
from aotc.lower.views import View
from aotc.schedule.gpu_tensor import LEAST_COPY

#: Bytes from one line to the same bank.
BANKS_BYTES = 128
#: Elements between lines of float32 that are read one by one, beyond those of a line.
_PADDING = 8

Vector = Callable[[int, Expr, Expr | None], Stmt]
"""What is done with a vector: its number, the element of the source where it begins, and whether
its terms are some (None: they are)."""


@dataclass(frozen=True)
class Axes:
    """Some axes of a view."""

    dims: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def count(self) -> int:
        """Positions on all axes."""
        return math.prod(self.dims)

    @property
    def lift(self) -> int:
        """The offset of the first position, so that none is negative."""
        pairs = zip(self.dims, self.strides, strict=True)
        return -sum(min(0, stride) * (dim - 1) for dim, stride in pairs)

    @property
    def extent(self) -> int:
        """One more than the largest offset."""
        pairs = zip(self.dims, self.strides, strict=True)
        return 1 + sum(abs(stride) * (dim - 1) for dim, stride in pairs)

    def offset(self, at: Sequence[Expr]) -> Expr:
        """The offset of a position in elements."""
        return index.linear(self.lift, zip(at, self.strides, strict=True))


@dataclass(frozen=True)
class Cut:
    """The depth of a product in chunks of ``size`` terms: along its innermost axis, or along all of
    them as one (``is_flat``). The last chunk of a line may have fewer terms."""

    depth: tuple[int, ...]
    size: int
    is_flat: bool = False

    @property
    def dims(self) -> tuple[int, ...]:
        """The axes on which chunks are counted."""
        lines = (math.prod(self.depth),) if self.is_flat else self.depth
        return (*lines[:-1], -(-lines[-1] // self.size))

    @property
    def chunks(self) -> int:
        return math.prod(self.dims)

    @property
    def is_ragged(self) -> bool:
        return self.is_flat or self.depth[-1] % self.size != 0


@dataclass(frozen=True)
class Source:
    """A factor in memory, its axes in three parts. ``lanes`` are how many elements can be moved at
    once along the innermost axis of rows, and along that of depth. ``is_rounded`` tells that its
    float32 are numbers of tensor cores already."""

    access: Access
    batch: Axes
    rows: Axes
    depth: Axes
    lanes: tuple[int, int]
    is_rounded: bool = False

    @property
    def dtype(self) -> DType:
        return self.access.buffer.dtype


@dataclass(frozen=True)
class Layout:
    """Lines of ``width`` elements of ``size`` bytes in one stage; the next begins ``stride``
    elements behind. ``run`` is how many neighbouring lines of a group of four such runs one thread
    has results of: which lines are loaded together depends on it. ``is_padded``: nothing is
    exchanged, lines are apart instead."""

    lines: int
    width: int
    size: int
    run: int = 2
    is_padded: bool = False

    @property
    def stride(self) -> int:
        return self.width + (_PADDING if self.is_padded else 0)

    @property
    def elems(self) -> int:
        return self.lines * self.stride

    @property
    def piece(self) -> int:
        """Elements of a piece."""
        return MATRIX_ROW_BYTES // self.size

    @property
    def _apart(self) -> int:
        """Neighbouring lines that meet different banks anyway."""
        return max(1, BANKS_BYTES // (self.width * self.size))

    @property
    def _pieces(self) -> int:
        return min(BANKS_BYTES // MATRIX_ROW_BYTES, self.width // self.piece)

    @property
    def period(self) -> int:
        """Lines after which pieces are exchanged alike."""
        return 4 * self.run if self.run > 2 else self._apart * self._pieces

    def exchange(self, line: Expr) -> Expr:
        """What the number of a piece of ``line`` is combined with by exclusive or."""
        if self.is_padded:
            return index.lit(0)
        if self.run == 2:
            return index.mod(index.div(line, self._apart), self._pieces)
        inside = index.mod(index.div(line, self.run), 4)
        if self._pieces < 8:
            return inside
        return Bin("add", index.mod(line, 2), Bin("mul", inside, index.lit(2)))

    def exchange_of_row(self, row: Expr) -> Expr:
        """The same of row number ``row``, below 8, of a matrix that is loaded."""
        return index.mod(index.div(row, self._apart), self._pieces)


class Factor:
    """One factor of a product: ``rows`` of it in a block. Shared memory has ``stages`` chunks.
    ``run`` is that of the `Layout`, if lines are rows of the factor."""

    def __init__(
        self,
        name: str,
        source: Source,
        cut: Cut,
        rows: int,
        stages: int,
        threads: int,
        kind: str,
        run: int = 2,
    ) -> None:
        self.source, self.cut, self.rows, self.kind = source, cut, rows, kind
        self.dtype = element_type(kind)
        self.along_depth = lies_along_depth(source, cut)
        size = self.dtype.size_bytes
        if self.along_depth:
            self.layout = Layout(rows, cut.size, size, run)
        else:
            self.layout = Layout(cut.size, rows, size, is_padded=size == 4)
        self.vector = self._vector(threads)
        raw = source.dtype is self.dtype
        self.is_copied = raw and self.vector * size >= LEAST_COPY
        self.needs_rounding = kind == "tf32" and self.is_copied and not source.is_rounded
        self.shared = Buffer(
            f"{name}_tile", self.dtype, stages * self.layout.elems, Space.SHARED, SHARED_ALIGNMENT
        )
        units = self.layout.width // self.vector
        self.count = self.layout.lines * units // threads
        self.registers = Buffer(
            f"{name}_ahead", source.dtype, self.count * self.vector, Space.REGISTER
        )
        self.units, self.threads = units, threads

    def _vector(self, threads: int) -> int:
        """Elements that a thread moves at once."""
        width = min(self.source.lanes[self.along_depth], self.layout.piece)
        if self.along_depth and self.cut.is_flat:
            width = 1
        while width > 1 and self.layout.lines * self.layout.width < width * threads:
            width //= 2
        return width

    def place(
        self, binder: Binder, thread: Expr, first: Expr, batch: Sequence[Expr]
    ) -> Placed:
        """The part of ``thread`` of a tile whose rows begin at ``first``, at the position
        ``batch``; what it depends on is bound."""
        across, down = min(self.units, self.threads), max(1, self.threads // self.units)
        line = binder.bind("line", index.div(thread, across), down)
        unit = binder.bind("unit", index.mod(thread, across), across)
        offset = binder.bind("of", self.source.batch.offset(batch), self.source.batch.extent)
        return Placed(self, binder, (first, line, unit), offset)


class Placed:
    """The part of one thread in each chunk: ``count`` vectors, of which vector i lies so many lines
    and units behind the first. ``place`` has the first row of the tile, and the thread's first line
    and unit of it."""

    def __init__(
        self, factor: Factor, binder: Binder, place: tuple[Expr, Expr, Expr], batch: Expr
    ) -> None:
        self.factor = factor
        self._first, self._line, self._unit = place
        self._batch = batch
        self._to: list[Expr] = []
        self._from: list[Expr] = []
        for i in range(factor.count):
            self._to.append(self._target(binder, i))
            self._from.append(self._row(binder, i))

    def _steps(self, i: int) -> tuple[int, int]:
        """Lines and units from the thread's first vector to its vector ``i``."""
        return divmod(i * self.factor.threads, self.factor.units)

    def _position(self, i: int) -> tuple[Expr, Expr]:
        """The line of vector ``i`` and its first element there."""
        lines, units = self._steps(i)
        unit = index.add(self._unit, units)
        return index.add(self._line, lines), index.mul(unit, self.factor.vector)

    def _target(self, binder: Binder, i: int) -> Expr:
        """Where in a stage vector ``i`` goes to."""
        factor = self.factor
        layout = factor.layout
        lines, units = self._steps(i)
        for earlier in range(i):
            before, same_units = self._steps(earlier)
            if same_units == units and (lines - before) % layout.period == 0:
                return index.add(self._to[earlier], (lines - before) * layout.stride)
        line, _ = self._position(i)
        unit = index.add(self._unit, units)
        in_piece = layout.piece // factor.vector
        piece, rest = index.div(unit, in_piece), index.mod(unit, in_piece)
        if not layout.is_padded:
            piece = Bin("xor", piece, layout.exchange(line))
        terms = ((line, layout.stride), (piece, layout.piece), (rest, factor.vector))
        down = max(1, factor.threads // factor.units)
        extent = (lines + down) * layout.stride - factor.vector + 1
        return binder.bind("to", index.linear(0, terms), extent)

    def _row(self, binder: Binder, i: int) -> Expr:
        """Where in memory vector ``i`` of the first chunk comes from, but for where that chunk
        begins."""
        factor = self.factor
        source, (line, within) = factor.source, self._position(i)
        rows, depth = source.rows, source.depth
        row, term, step = (line, within, 1) if factor.along_depth else (within, line, factor.vector)
        fixed = self._batch
        if not factor.cut.is_ragged:
            inside = index.linear(self._back(), ((term, depth.strides[-1]),))
            fixed = index.add(fixed, inside)
        *outer, inner = rows.dims
        if math.prod(outer) == 1 and inner % factor.rows == 0:
            at = (*(index.lit(0) for _ in outer), index.add(self._first, row))
            return index.add(rows.offset(at), fixed)
        number = index.add(index.div(self._first, step), index.div(row, step))
        extent = rows.count // step
        var = binder.bind("row", held_below(number, extent), extent)
        *around, last = position(var, (*outer, inner // step))
        offset = rows.offset((*around, index.mul(last, step)))
        return index.add(binder.bind("from", offset, rows.extent - (step - 1)), fixed)

    def _each(self, chunk: Sequence[Expr], body: Vector) -> list[Stmt]:
        """``body`` of all vectors in a chunk."""
        cut, depth = self.factor.cut, self.factor.source.depth
        if not cut.is_ragged:
            at = (*chunk[:-1], index.mul(chunk[-1], cut.size))
            first = index.sub(depth.offset(at), self._back())
            extent = depth.extent - abs(depth.strides[-1]) * (cut.size - 1)
            return bind("k", first, extent, lambda k: self._from_all(k, body))
        stmts: list[Stmt] = []
        groups: dict[int, list[int]] = {}
        for i in range(self.factor.count):
            lines, units = self._steps(i)
            groups.setdefault(units if self.factor.along_depth else lines, []).append(i)
        for members in groups.values():
            stmts += self._ragged(chunk, members, body)
        return stmts

    def _back(self) -> int:
        """How far the last term of a chunk lies before the first, where terms lie backwards."""
        return max(0, -self.factor.source.depth.strides[-1]) * (self.factor.cut.size - 1)

    def _from_all(self, k: Expr, body: Vector) -> list[Stmt]:
        return [body(i, index.add(place, k), None) for i, place in enumerate(self._from)]

    def _ragged(
        self, chunk: Sequence[Expr], members: Sequence[int], body: Vector
    ) -> list[Stmt]:
        """The vectors ``members``, which have the same terms."""
        factor = self.factor
        cut, depth = factor.cut, factor.source.depth
        line, within = self._position(members[0])
        inside = within if factor.along_depth else line
        step = factor.vector if factor.along_depth else 1
        total = math.prod(cut.depth) if cut.is_flat else cut.depth[-1]
        term = index.add(index.mul(chunk[-1], cut.size), inside)
        valid = Cmp("lt", term, index.lit(total))
        held = Bin("min", term, index.lit(total - step))

        def at(k: Sequence[Expr]) -> list[Stmt]:
            def all_of(offset: Expr) -> list[Stmt]:
                return [body(i, index.add(self._from[i], offset), valid) for i in members]

            return bind("k", depth.offset(k), depth.extent - (step - 1), all_of)

        if cut.is_flat:
            return bind("term", held, total, lambda k: digits("k", k, cut.depth, at))
        return at((*chunk[:-1], held))

    def begin(self, chunk: Sequence[Expr], stage: Expr) -> list[Stmt]:
        """Begins to copy the thread's part of a chunk to ``stage``, or loads it to registers."""
        factor = self.factor
        source = factor.source.access.buffer

        def copy(i: int, at: Expr, valid: Expr | None) -> Stmt:
            to = index.add(index.mul(stage, factor.layout.elems), self._to[i])
            return AsyncCopy(factor.shared, to, source, at, factor.vector, valid)

        def load(i: int, at: Expr, valid: Expr | None) -> Stmt:
            def one(v: Expr) -> Stmt:
                value: Expr = Load(source, index.add(at, v))
                if valid is not None:
                    value = Sel(valid, value, Lit(0, value.dtype))
                return Store(factor.registers, index.add(v, i * factor.vector), value)

            return self._vector(one)

        return self._each(chunk, copy if factor.is_copied else load)

    def store(self, stage: Expr) -> list[Stmt]:
        """Puts what `begin` has loaded to registers into ``stage``."""
        factor = self.factor
        if factor.is_copied:
            return []

        def vector(i: int) -> Stmt:
            to = index.add(index.mul(stage, factor.layout.elems), self._to[i])

            def one(v: Expr) -> Stmt:
                held = Load(factor.registers, index.add(v, i * factor.vector))
                value: Expr = held
                if held.dtype is not factor.dtype or factor.kind == "tf32":
                    number = factor.source.access.number(held)
                    value = rounded(number, factor.kind)
                return Store(factor.shared, index.add(to, v), value)

            return self._vector(one)

        return [vector(i) for i in range(factor.count)]

    def _vector(self, body: Callable[[Expr], Stmt]) -> Stmt:
        var, count = Var("v"), self.factor.vector
        kind = Kind.VECTOR if count > 1 else Kind.UNROLLED
        return For(var, count, (body(var),), kind, count)


def element_type(kind: str) -> DType:
    """What tensor cores of ``kind`` read: bfloat16 as its bits."""
    return {"tf32": DType.F32, "f16": DType.F16, "bf16": DType.U16}[kind]


def rounded(x: Expr, kind: str) -> Expr:
    """The float32 ``x`` as tensor cores of ``kind`` read it."""
    if kind == "tf32":
        return Un("tf32", x)
    return to_bf16(x) if kind == "bf16" else Conv(x, DType.F16)


def lanes_of(view: View, axis: int) -> int:
    """Neighbours along an axis that all accesses can take at once, aligned: up to 16 bytes."""
    width = view.arg.alignment(MATRIX_ROW_BYTES) // view.dtype.size_bytes
    if view.strides[axis] != 1 or width == 0:
        return 1
    others = (step for at, step in enumerate(view.strides) if at != axis)
    return math.gcd(width, view.shape[axis], view.offset - view.low, *others)


def lies_along_depth(source: Source, cut: Cut) -> bool:
    """Whether lines of shared memory are rows of the factor with their terms."""
    if source.depth.strides[-1] == 1 or source.rows.strides[-1] != 1:
        return True
    return cut.is_flat
