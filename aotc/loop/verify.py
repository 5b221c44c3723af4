"""The verifier: a kernel or program in, nothing out; VerifyError at the first broken rule of the
loop IR.

Rules: scoping, operand types, legal loop kinds, register indices, bounds of affine indices, what
may be written, and arguments that fit their parameters. A message names the kernel and shows the
statement.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NoReturn

from aotc.errors import VerifyError
from aotc.graph.types import DType
from aotc.loop.disjoint import disjointness
from aotc.loop.index import affine, bounds, divisor, range_of
from aotc.loop.ir import (
    Alloc,
    Barrier,
    Bin,
    Bind,
    Bits,
    Buffer,
    Cmp,
    Conv,
    DotProduct,
    Expr,
    Fma,
    For,
    Kernel,
    Kind,
    Lit,
    Load,
    Mma,
    Prefetch,
    Quantize,
    Sel,
    ShortProducts,
    Shuffle,
    Space,
    Stmt,
    Store,
    Un,
    Var,
    Widened,
)
from aotc.loop.ir_async import (
    AsyncCommit,
    AsyncCopy,
    AsyncWait,
    LoadMatrix,
    SignalWait,
    TileCopy,
    Wgmma,
    WgmmaWait,
)
from aotc.loop.launch import is_gpu_kernel, launch_of
from aotc.loop.mma import KINDS
from aotc.loop.program import (
    STEP_TYPES,
    Arg,
    Call,
    Check,
    Counter,
    If,
    Loop,
    Program,
    Role,
    Step,
    Storage,
    step_args,
)
from aotc.loop.text import print_stmt
from aotc.loop.tiles import (
    Tile,
    TileDot,
    TileLoad,
    TileStmt,
    TileStore,
    dot_problem,
    ends,
    shape_problem,
    tile_accesses,
)
from aotc.loop.verify_async import Range, copy_problem, copy_ranges
from aotc.loop.verify_warpgroup import (
    WarpgroupStmt,
    factor_problem,
    maps_problem,
    warpgroup_problem,
    warpgroup_ranges,
)
from aotc.loop.walk import elements_read, fragments, post_order

_FLOAT_UN = frozenset({"sqrt", "floor", "ceil", "round"})
_SINGLE_UN = frozenset({"tf32"})
_SINGLE_BIN = frozenset({"maximum"})
_NUMBER_UN = frozenset({"neg", "abs"})
_NUMBER_BIN = frozenset({"add", "sub", "mul", "div", "min", "max"})
_BIT_BIN = frozenset({"and", "or", "xor"})
_INT_BIN = frozenset({"shl", "shr", "mod"})
_COMPARISONS = frozenset({"eq", "ne", "lt", "le", "gt", "ge"})
_MAX_SHOWN_LINES = 12


def verify_kernel(kernel: Kernel) -> None:
    """Check every rule on one kernel."""
    names = [buffer.name for buffer in kernel.params]
    if len(set(names)) < len(names):
        raise VerifyError(f"kernel '{kernel.name}': two parameters have one name")
    for buffer in kernel.params:
        if buffer.space is not Space.GLOBAL or buffer.elems < 0:
            raise VerifyError(f"kernel '{kernel.name}': parameter '{buffer.name}' is not global")
    if not kernel.writes <= set(kernel.params):
        raise VerifyError(f"kernel '{kernel.name}': writes a buffer that is no parameter")
    problem = maps_problem(kernel)
    if problem is not None:
        raise VerifyError(f"kernel '{kernel.name}': {problem}")
    if is_gpu_kernel(kernel):
        launch_of(kernel)
    _KernelCheck(kernel).block(kernel.body)


def verify_program(program: Program) -> None:
    """Check every kernel and every step: argument counts, sizes, alignment, roles, and that every
    storage is written before it is read, whichever way the run takes."""
    for kernel in program.kernels():
        verify_kernel(kernel)
    for kind, entries in (("input", program.inputs), ("output", program.outputs)):
        for name, type_, storage in entries:
            if storage.size_bytes < type_.size_bytes:
                raise VerifyError(f"program '{program.name}': {kind} '{name}' exceeds its storage")
    filled = {storage for _, _, storage in program.inputs}
    filled |= set(program.storages(Role.CONST))
    for storage in program.storages(Role.CONST):
        if storage.data is None or storage.data.nbytes > storage.size_bytes:
            raise VerifyError(f"program '{program.name}': bad data of constant '{storage.name}'")
    filled = _ProgramCheck(program.name).block(program.steps, filled)
    for name, type_, storage in program.outputs:
        if storage not in filled and type_.size_bytes > 0:
            raise VerifyError(f"program '{program.name}': nothing writes output '{name}'")


class _ProgramCheck:
    """A walk over the steps that knows the loops around them."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._position = 0
        self._limits: dict[Counter, int] = {}

    def block(self, steps: Sequence[Step], filled: set[Storage]) -> set[Storage]:
        """The storages that have been written after ``steps``, if ``filled`` have before."""
        for step in steps:
            match step:
                case Call():
                    filled = self._call(step, filled)
                case If(then=then, other=other):
                    self._args(step, filled)
                    filled = self.block(then, filled) & self.block(other, filled)
                case Loop():
                    filled = self._loop(step, filled)
                case Check():
                    self._args(step, filled)
                case _:
                    raise VerifyError(f"program '{self._name}': {step!r} is no step")
        return filled

    def _loop(self, loop: Loop, filled: set[Storage]) -> set[Storage]:
        place = f"program '{self._name}': loop '{loop.counter.name}'"
        if loop.limit < 0 or loop.counter in self._limits:
            raise VerifyError(f"{place} has a bad limit, or runs inside itself")
        self._args(loop, filled)
        ends = {arg.storage for arg in (loop.done,) if arg is not None}
        starts = {arg.storage for arg in (loop.index,) if arg is not None}
        self._limits[loop.counter] = loop.limit
        after = self.block(loop.body, filled | starts)
        del self._limits[loop.counter]
        # a loop that may end before its first iteration has written nothing
        return (after if loop.is_exact and loop.limit else filled) | ends

    def _call(self, call: Call, filled: set[Storage]) -> set[Storage]:
        params = call.kernel.params
        place = f"program '{self._name}': call {self._position} of '{call.kernel.name}'"
        self._position += 1
        if len(call.args) != len(params):
            raise VerifyError(f"{place} passes {len(call.args)} arguments for {len(params)}")
        for buffer, arg in zip(params, call.args, strict=True):
            self._fits(arg, buffer.dtype, buffer.elems, f"{place}: '{buffer.name}'")
            if buffer.alignment and arg.alignment(buffer.alignment) < buffer.alignment:
                raise VerifyError(f"{place}: '{buffer.name}' is not aligned")
            if buffer in call.kernel.writes and arg.storage.role in (Role.CONST, Role.INPUT):
                role, name = arg.storage.role.value, arg.storage.name
                raise VerifyError(f"{place} writes the {role} '{name}'")
        for written, read in call.in_place:
            if not (0 <= written < len(params) and 0 <= read < len(params)):
                raise VerifyError(f"{place}: in_place pair ({written}, {read}) is out of range")
            if params[written] not in call.kernel.writes or not call.kernel.may_alias:
                raise VerifyError(f"{place}: parameters {written} and {read} may not share memory")
        for buffer, arg in zip(params, call.args, strict=True):
            if buffer not in call.kernel.writes and arg.storage not in filled:
                raise VerifyError(f"{place} reads '{arg.storage.name}', which nothing has written")
        pairs = zip(params, call.args, strict=True)
        return filled | {arg.storage for buffer, arg in pairs if buffer in call.kernel.writes}

    def _args(self, step: Step, filled: set[Storage]) -> None:
        """Check what a step reads and writes by itself."""
        for name, arg in step_args(step).items():
            place = f"program '{self._name}': the {name} of a step"
            self._fits(arg, STEP_TYPES[name], 1, place)
            written = name in ("index", "done")
            if written and arg.storage.role in (Role.CONST, Role.INPUT):
                raise VerifyError(f"{place} is the {arg.storage.role.value} '{arg.storage.name}'")
            if not written and arg.storage not in filled:
                raise VerifyError(f"{place} is '{arg.storage.name}', which nothing has written")

    def _fits(self, arg: Arg, dtype: DType, elems: int, place: str) -> None:
        """Check that in every iteration the elements lie in the storage, aligned to their type."""
        size = dtype.size_bytes
        low = high = arg.offset_bytes
        aligned = arg.offset_bytes % size == 0
        for counter, step_bytes in arg.moves:
            if counter not in self._limits:
                raise VerifyError(f"{place} moves with '{counter.name}', outside that loop")
            last = max(self._limits[counter] - 1, 0) * step_bytes
            low, high = low + min(last, 0), high + max(last, 0)
            aligned = aligned and step_bytes % size == 0
        if low < 0 or not aligned or high + elems * size > arg.storage.size_bytes:
            raise VerifyError(
                f"{place} does not fit storage '{arg.storage.name}' at byte {arg.offset_bytes}"
            )


class _KernelCheck:
    """A walk over one kernel that knows the loops and buffers in scope."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._loops: dict[Var, For] = {}
        self._extents: dict[Var, int] = {}
        self._buffers: set[Buffer] = set(kernel.params)
        self._is_gpu = is_gpu_kernel(kernel)
        self._binds = 0
        self._divisors: dict[Var, int] = {}  # of the values of bound variables
        self._tiles: dict[int, tuple[int, int]] = {}  # rows and bytes of a row, by number
        self._checked: set[int] = set()
        self._stmt: Stmt | None = None

    def block(self, body: Sequence[Stmt]) -> None:
        for stmt in body:
            self._stmt = stmt
            match stmt:
                case For():
                    self._loop(stmt)
                case Alloc():
                    self._alloc(stmt)
                case Store():
                    self._store(stmt)
                case Bind():
                    self._bind(stmt)
                case Barrier():
                    self._require(self._is_gpu and not self._binds, "a barrier that some pass by")
                case Mma():
                    self._mma(stmt)
                case Prefetch(buffer=buffer, index=index, level=level):
                    self._require(level in (1, 2, 3), f"cache level {level}")
                    self._checked = set()
                    self._buffer_in_scope(buffer)
                    self._index_type(index)
                    self._expr(index)
                case TileStmt():
                    self._tile_statement(stmt)
                case AsyncCopy() | AsyncCommit() | AsyncWait() | LoadMatrix():
                    self._copy(stmt)
                case _ if isinstance(stmt, WarpgroupStmt):
                    self._warpgroup(stmt)
                case _:
                    self._fail("not a statement")

    def _fail(self, problem: str) -> NoReturn:
        lines = print_stmt(self._stmt).splitlines() if self._stmt is not None else []
        if len(lines) > _MAX_SHOWN_LINES:
            lines = [*lines[:_MAX_SHOWN_LINES], "..."]
        shown = "\n".join(f"    {line}" for line in lines)
        raise VerifyError(f"kernel '{self._kernel.name}': {problem} in\n{shown}")

    def _require(self, holds: bool, problem: str) -> None:
        if not holds:
            self._fail(problem)

    def _loop(self, loop: For) -> None:
        self._require(loop.extent >= 1, f"extent {loop.extent}")
        self._variable(loop.var)
        if loop.kind is Kind.VECTOR:
            self._require(loop.extent <= loop.lanes, f"{loop.extent} iterations in {loop.lanes}")
            self._vector_body(loop.body)
        if loop.kind in (Kind.BLOCK, Kind.THREAD):
            # the nest as a whole is checked by launch_of; what threads share, by loop/lockstep.py
            self._require(self._is_gpu, f"a {loop.kind.value} loop in a kernel of a processor")
        if loop.kind is Kind.PARALLEL:
            self._require(not self._is_gpu, "a parallel loop in a kernel of a GPU")
            self._require(
                disjointness(loop) is not False, "two parallel iterations may touch one element"
            )
        self._loops[loop.var] = loop
        self._extents[loop.var] = loop.extent
        self.block(loop.body)
        self._stmt = loop
        del self._loops[loop.var], self._extents[loop.var]

    def _variable(self, var: Var) -> None:
        self._require(var not in self._extents, f"variable '{var.name}' is in use")
        self._require(var.dtype is DType.I64, "the loop variable is not i64")

    def _bind(self, bind: Bind) -> None:
        self._require(bind.extent >= 1, f"extent {bind.extent}")
        self._variable(bind.var)
        self._checked = set()
        self._index_type(bind.value)
        self._expr(bind.value)
        low, high = bounds(bind.value, self._extents)
        some = low < 0 or high >= bind.extent
        self._divisors[bind.var] = divisor(bind.value, self._divisors)
        self._extents[bind.var] = bind.extent
        self._binds += some
        self.block(bind.body)
        self._binds -= some
        self._stmt = bind
        del self._extents[bind.var]

    def _vector_body(self, body: Sequence[Stmt]) -> None:
        for stmt in body:
            unrolled = isinstance(stmt, For) and stmt.kind is Kind.UNROLLED
            self._require(
                isinstance(stmt, Store) or unrolled,
                "a vector loop holds only stores and unrolled loops",
            )
            if isinstance(stmt, For):
                self._vector_body(stmt.body)

    def _alloc(self, alloc: Alloc) -> None:
        buffer = alloc.buffer
        self._require(buffer not in self._buffers, f"buffer '{buffer.name}' is declared twice")
        self._require(buffer.space is not Space.GLOBAL, f"local buffer '{buffer.name}' is global")
        outside = all(loop.kind is Kind.BLOCK for loop in self._loops.values())
        shared = buffer.space is Space.SHARED
        self._require(
            not shared or (self._is_gpu and outside), "shared memory inside a thread"
        )
        self._require(buffer.elems >= 1, f"buffer '{buffer.name}' has {buffer.elems} elements")
        if buffer.space is Space.TILE:
            self._tile(buffer)
        self._buffers.add(buffer)
        self.block(alloc.body)
        self._buffers.remove(buffer)

    def _tile(self, tile: Buffer) -> None:
        """Check a tile register that is declared."""
        assert isinstance(tile, Tile) and not self._is_gpu
        problem = shape_problem(tile)
        self._require(problem is None, f"'{tile.name}': {problem}")
        shape = tile.rows, tile.row_bytes
        known = self._tiles.setdefault(tile.number, shape)
        self._require(known == shape, f"tile register {tile.number} has two shapes")
        for other in self._buffers:
            taken = isinstance(other, Tile) and other.number == tile.number
            self._require(not taken, f"tile register {tile.number} is in use")

    def _tile_statement(self, stmt: TileStmt) -> None:
        for buffer, _, _ in tile_accesses(stmt):
            self._buffer_in_scope(buffer)
        if isinstance(stmt, TileDot):
            problem = dot_problem(stmt)
            self._require(problem is None, problem or "")
        if not isinstance(stmt, (TileLoad, TileStore)):
            return
        self._checked = set()
        space = Space.GLOBAL if isinstance(stmt, TileLoad) else Space.STACK
        self._require(
            stmt.buffer.space is space and stmt.buffer not in self._kernel.writes,
            f"a tile loaded from or stored to '{stmt.buffer.name}'",
        )
        self._same("a tile", stmt.tile.dtype, stmt.buffer.dtype)
        for at in ends(stmt):
            self._require(affine(at) is not None, "a computed index of a tile")
            self._expr(at)
            self._access(stmt.buffer, at)

    def _store(self, store: Store) -> None:
        self._checked = set()
        buffer = store.buffer
        self._require(
            buffer.space is not Space.GLOBAL or buffer in self._kernel.writes,
            f"'{buffer.name}' is not in writes, but stored to",
        )
        self._expr(store.index)
        self._access(buffer, store.index)
        form = affine(store.index)
        for var, loop in self._loops.items():
            one_place = form is not None and form.coefficient(var) == 0 and loop.extent > 1
            self._require(
                loop.kind is not Kind.VECTOR or not one_place, "all lanes store to one element"
            )
        self._expr(store.value)
        self._same("a stored value", store.value.dtype, buffer.dtype)

    def _mma(self, mma: Mma) -> None:
        self._require(self._is_gpu and mma.kind in KINDS, f"no product '{mma.kind}' here")
        types = (DType.F32, KINDS[mma.kind].dtype, KINDS[mma.kind].dtype)
        for (buffer, first, count), dtype in zip(fragments(mma), types, strict=True):
            self._require(buffer.space is Space.REGISTER, f"'{buffer.name}' is no register")
            self._same("an element of a fragment", buffer.dtype, dtype)
            self._checked = set()
            self._expr(first)
            self._access(buffer, first)
            self._access(buffer, Bin("add", first, Lit(count - 1)))

    def _copy(self, stmt: AsyncCopy | AsyncCommit | AsyncWait | LoadMatrix) -> None:
        self._require(self._is_gpu, "a statement of GPUs in a kernel of a processor")
        problem = copy_problem(stmt, self._kernel.writes)
        self._require(problem is None, problem or "")
        self._checked = set()
        if isinstance(stmt, AsyncCopy) and stmt.valid is not None:
            self._expr(stmt.valid)
            self._same("a condition", stmt.valid.dtype, DType.BOOL)
        for part in copy_ranges(stmt):
            self._range(part)

    def _warpgroup(self, stmt: WarpgroupStmt) -> None:
        self._require(self._is_gpu, "a statement of GPUs in a kernel of a processor")
        problem = warpgroup_problem(stmt, self._kernel)
        self._require(problem is None, problem or "")
        self._checked = set()
        if isinstance(stmt, (SignalWait, TileCopy)):
            least = 0 if isinstance(stmt, SignalWait) else -(1 << 31)
            for place in (stmt.parity,) if isinstance(stmt, SignalWait) else stmt.position:
                self._index_type(place)
                self._expr(place)
                low, high = bounds(place, self._extents)
                inside = low >= least if affine(place) is not None else high >= least
                self._require(inside, f"a place or parity of {low}..{high}")
        if isinstance(stmt, WgmmaWait):
            for buffer in stmt.sums:
                self._buffer_in_scope(buffer)
        for part in warpgroup_ranges(stmt):
            self._range(part)
        if isinstance(stmt, Wgmma):
            problem = factor_problem(stmt, self._divisors, self._extents)
            self._require(problem is None, problem or "")

    def _range(self, part: Range) -> None:
        """Check neighbouring elements that are touched together, and so aligned."""
        self._expr(part.first)
        self._access(part.buffer, part.first)
        self._access(part.buffer, Bin("add", part.first, Lit(part.elems - 1)))
        held = part.buffer.space is Space.REGISTER
        aligned = held or divisor(part.first, self._divisors) % (part.unit or part.elems) == 0
        self._require(aligned, f"an access to '{part.buffer.name}' that may not be aligned")

    def _buffer_in_scope(self, buffer: Buffer) -> None:
        self._require(buffer in self._buffers, f"buffer '{buffer.name}' is not in scope")

    def _index_type(self, index: Expr) -> None:
        self._require(index.dtype is DType.I64, f"an index of type {index.dtype.value}")

    def _access(self, buffer: Buffer, index: Expr) -> None:
        """Check one access through a sound ``index``."""
        self._buffer_in_scope(buffer)
        self._require(buffer.space is not Space.TILE, "an element of a tile")
        self._index_type(index)
        form = affine(index)
        if buffer.space is Space.REGISTER:
            self._require(form is not None, f"a computed index of register '{buffer.name}'")
            assert form is not None
            for var, _ in form.terms:
                loop = self._loops.get(var)
                self._require(
                    loop is not None and loop.kind in (Kind.UNROLLED, Kind.VECTOR),
                    f"register '{buffer.name}' is indexed by the run-time variable '{var.name}'",
                )
        low, high = bounds(index, self._extents)
        # The interval of a computed index is only an outer bound, so some overlap is all it must
        # have.
        inside = low >= 0 and high < buffer.elems
        possible = high >= 0 and low < buffer.elems
        self._require(
            inside if form is not None else possible,
            f"index {low}..{high} outside '{buffer.name}', which has {buffer.elems} elements",
        )

    def _same(self, what: str, found: DType, wanted: DType) -> None:
        self._require(found is wanted, f"{what} is {found.value}, not {wanted.value}")

    def _expr(self, root: Expr) -> None:
        """Check ``root`` and what it is made of, each node once a statement."""
        for expr in post_order((root,)):
            if id(expr) not in self._checked:
                self._checked.add(id(expr))
                self._node(expr)

    def _node(self, expr: Expr) -> None:
        """Check one expression whose operands are sound."""
        match expr:
            case Load(buffer=buffer, index=index):
                self._access(buffer, index)
            case DotProduct(a=a, b=b, c=c):
                for buffer, index in elements_read(expr):
                    self._access(buffer, index)
                types = (a.dtype, b.dtype, c.dtype)
                signed = types == (DType.I8, DType.I8, DType.I32)
                fits = signed or types == (DType.U8, DType.I8, DType.I32)
                self._require(fits and expr.terms > 0, "a dot product's types")
                shared = Space.REGISTER not in (a.space, b.space)
                self._require(shared, "a dot product of registers")
            case Widened(buffer=buffer):
                for _, index in elements_read(expr):
                    self._access(buffer, index)
                is_byte = buffer.dtype in (DType.U8, DType.I8)
                self._require(is_byte and buffer.space is Space.GLOBAL, "what is widened")
            case ShortProducts(a=a, b=b, c=c):
                self._require(a.dtype in (DType.I32, DType.I64), "the width of short products")
                self._same("an operand of short products", b.dtype, a.dtype)
                self._same("a sum of short products", c.dtype, DType.I32)
            case Lit():
                self._literal(expr)
            case Var():
                self._require(expr in self._extents, f"variable '{expr.name}' is not in scope")
            case Un():
                self._unary(expr)
            case Bin():
                self._binary(expr)
            case Fma(a=a, b=b, c=c):
                self._same("an operand of fma", b.dtype, a.dtype)
                self._same("an operand of fma", c.dtype, a.dtype)
                self._require(a.dtype is not DType.BOOL, "fma of bool")
            case Cmp(fn=fn, a=a, b=b):
                self._same(f"the right side of {fn}", b.dtype, a.dtype)
                self._require(fn in _COMPARISONS, f"unknown comparison '{fn}'")
            case Sel(cond=cond, a=a, b=b):
                self._same("a condition", cond.dtype, DType.BOOL)
                self._same("the other side of select", b.dtype, a.dtype)
            case Bits(x=x, dtype=dtype):
                fits = x.dtype.size_bytes == dtype.size_bytes and DType.BOOL not in (x.dtype, dtype)
                self._require(fits, f"the bits of {x.dtype.value} as {dtype.value}")
            case Quantize(x=x, zero=zero, low=low, high=high, dtype=dtype):
                self._same("what is quantised", x.dtype, DType.F32)
                fits = dtype.is_int and dtype.size_bytes <= 2 and abs(zero) <= 1 << 16
                least, most = dtype.int_range
                self._require(fits and least <= low <= high <= most, "limits of a quantisation")
            case Shuffle(i=i):
                self._index_type(i)
                self._require(self._is_gpu, "a shuffle in a kernel of a processor")
            case Conv():
                pass
            case _:
                self._fail(f"{expr!r} is no expression")

    def _literal(self, lit: Lit) -> None:
        if lit.dtype.is_float:
            return
        value = lit.value
        whole = isinstance(value, int) or (math.isfinite(value) and value == int(value))
        least, most = range_of(lit.dtype)
        self._require(whole and least <= value <= most, f"{value} is no {lit.dtype.value}")

    def _unary(self, expr: Un) -> None:
        dtype = expr.x.dtype
        legal = (
            (expr.fn in _FLOAT_UN and dtype.is_float)
            or (expr.fn in _SINGLE_UN and dtype is DType.F32)
            or (expr.fn in _NUMBER_UN and dtype is not DType.BOOL)
            or (expr.fn == "not" and dtype is DType.BOOL)
            or (expr.fn == "bitnot" and dtype.is_int)
        )
        self._require(legal, f"'{expr.fn}' of {dtype.value}")

    def _binary(self, expr: Bin) -> None:
        fn, dtype = expr.fn, expr.a.dtype
        self._same(f"the right side of {fn}", expr.b.dtype, dtype)
        legal = (
            (fn in _NUMBER_BIN and dtype is not DType.BOOL)
            or (fn in _SINGLE_BIN and dtype is DType.F32 and self._is_gpu)
            or (fn in _BIT_BIN and not dtype.is_float)
            or (fn in _INT_BIN and dtype.is_int)
        )
        self._require(legal, f"'{fn}' of {dtype.value}")
