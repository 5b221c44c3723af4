"""The loop IR: loop nests over flat buffers; the only thing that code generators read.

A kernel says exactly what the machine does. Loop kinds carry the schedule and never the meaning:
the evaluator (loop/eval.py) runs every loop serially in order and must give the bytes that the
machine gives. Only in kernels of a GPU, whose threads meet, do the kinds BLOCK and THREAD mean
something: loop/lockstep.py runs those.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from aotc.graph.types import DType


class Space(enum.Enum):
    """Where a buffer lives."""

    GLOBAL = "global"  # a kernel parameter: input, output, constant or arena
    REGISTER = "register"  # private to the call; indices are constant once unrolled
    STACK = "stack"  # private to the kernel call, any index
    TILE = "tile"  # a tile register, private to the call (loop/tiles.py)
    SHARED = "shared"  # one for each block of threads of a GPU, any index


class Kind(enum.Enum):
    """How a loop is executed."""

    SERIAL = "serial"
    UNROLLED = "unrolled"
    VECTOR = "vector"  # all iterations at once, one lane each
    PARALLEL = "parallel"  # iterations touch disjoint outputs; may run on different threads
    BLOCK = "block"  # of a GPU: blocks of threads, in any order and at once
    THREAD = "thread"  # of a GPU: threads of one block, at once, which meet at barriers


@dataclass(frozen=True, eq=False)
class Buffer:
    """``elems`` elements of ``dtype``; addressed by a flat element index. The first lies at a
    multiple of ``alignment`` bytes, 0 being the size of an element. Buffers compare by identity."""

    name: str
    dtype: DType
    elems: int
    space: Space = Space.GLOBAL
    alignment: int = 0


class Expr:
    """Base of scalar expressions; inside a vector loop each lane computes its own value.
    Expressions are DAGs: a node reached twice within one statement is computed once."""

    __slots__ = ()
    dtype: DType


@dataclass(frozen=True, eq=False, slots=True)
class Lit(Expr):
    """A literal. Floats may be inf or nan; bools are 0 or 1."""

    value: float | int
    dtype: DType = DType.I64


@dataclass(frozen=True, eq=False, slots=True)
class Var(Expr):
    """A loop variable: an int64 that counts 0, 1, ... extent-1. Identity names it; ``name`` is for
    print."""

    name: str
    dtype: DType = DType.I64


@dataclass(frozen=True, eq=False, slots=True)
class Load(Expr):
    """One element of ``buffer`` at the flat element ``index`` (an int64 expression)."""

    buffer: Buffer
    index: Expr

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        return self.buffer.dtype


@dataclass(frozen=True, eq=False, slots=True)
class Un(Expr):
    """``fn``: neg abs sqrt floor ceil round(half to even) not(bool) bitnot. IEEE correctly
    rounded. On GPUs also tf32: a float32 to nearest of 10 bits behind the point, halves away from
    zero; NaN and infinity stay what they are."""

    fn: str
    x: Expr

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        return self.x.dtype


@dataclass(frozen=True, eq=False, slots=True)
class Bin(Expr):
    """Operands of one dtype, result of the same. ``fn``: add sub mul div; min max (if either
    operand is NaN the result is NaN, of two equals the first); maximum (max of f32 with +0 above
    -0, one instruction of GPUs, for these alone); and or xor shl shr (integers, bool for the first
    three; shifts by the width or more leave 0 or the sign); mod (integers: sign of
    divisor). Integer arithmetic wraps. Integer div truncates; dividing by zero gives 0; index
    arithmetic uses div and mod on values that are never negative."""

    fn: str
    a: Expr
    b: Expr

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        return self.a.dtype


@dataclass(frozen=True, eq=False, slots=True)
class Fma(Expr):
    """``a*b + c`` rounded once."""

    a: Expr
    b: Expr
    c: Expr

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        return self.a.dtype


@dataclass(frozen=True, eq=False, slots=True)
class DotProduct(Expr):
    """``c + sum of a[i + t] * b[j + t] for t < terms`` in int32, which wraps: what dot-product
    instructions compute. ``a`` is a buffer of uint8 or int8, ``b`` one of int8, no REGISTER ones.
    Of other than four terms it is never in a vector loop."""

    a: Buffer
    i: Expr
    b: Buffer
    j: Expr
    c: Expr
    dtype: DType = DType.I32
    terms: int = 4

    @property
    def reads(self) -> tuple[tuple[Buffer, Expr], tuple[Buffer, Expr]]:
        """The first element of each group, as buffer and index."""
        return (self.a, self.i), (self.b, self.j)


#: Elements of a group that a lane of a DotProduct multiplies, and that a vector of bytes holds.
GROUP = 4
VECTOR_TERMS = 16


@dataclass(frozen=True, eq=False, slots=True)
class Widened(Expr):
    """The GROUP bytes of ``buffer`` from ``index`` on as four int16 in an int64, from its low end:
    the first, the third, the second and the fourth. ``buffer`` is of uint8 or int8, and GLOBAL.
    Never in a vector loop."""

    buffer: Buffer
    index: Expr
    dtype: DType = DType.I64


@dataclass(frozen=True, eq=False, slots=True)
class ShortProducts(Expr):
    """``c`` plus the products of the int16 at the same places of ``a`` and ``b``, which are both
    int32 (two products) or int64 (four); in int32, which wraps. Never in a vector loop."""

    a: Expr
    b: Expr
    c: Expr
    dtype: DType = DType.I32


@dataclass(frozen=True, eq=False, slots=True)
class Cmp(Expr):
    """``fn``: eq ne lt le gt ge; ordered except ne, as C has it. Result bool."""

    fn: str
    a: Expr
    b: Expr

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        return DType.BOOL


@dataclass(frozen=True, eq=False, slots=True)
class Sel(Expr):
    """``cond ? a : b``; both sides are computed, so loads in them must be in bounds either way."""

    cond: Expr
    a: Expr
    b: Expr

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        return self.a.dtype


@dataclass(frozen=True, eq=False, slots=True)
class Conv(Expr):
    """Numeric conversion to ``dtype``; float to integer truncates and saturates (NaN gives 0); to
    bool is != 0."""

    x: Expr
    dtype: DType


@dataclass(frozen=True, eq=False, slots=True)
class Bits(Expr):
    """The same bits seen as ``dtype`` of the same size (for building exponents)."""

    x: Expr
    dtype: DType


@dataclass(frozen=True, eq=False, slots=True)
class Quantize(Expr):
    """``x`` (float32) to the nearest integer, the even one of two, plus ``zero``, limited to ``low
    .. high``, as ``dtype`` (an integer of 8 or 16 bits that can hold both limits); NaN gives 0.
    ``is_number`` states that ``x`` is never NaN."""

    x: Expr
    zero: int
    low: int
    high: int
    dtype: DType
    is_number: bool


@dataclass(frozen=True, eq=False, slots=True)
class Shuffle(Expr):
    """What ``x`` is in the thread of the same warp whose number in it is ``i`` (0 to 31). All 32
    threads compute it together."""

    x: Expr
    i: Expr

    @property
    def dtype(self) -> DType:  # type: ignore[override]
        return self.x.dtype


class Stmt:
    """Base of statements."""

    __slots__ = ()


@dataclass(frozen=True, eq=False, slots=True)
class Store(Stmt):
    """``buffer[index] = value``."""

    buffer: Buffer
    index: Expr
    value: Expr


@dataclass(frozen=True, eq=False, slots=True)
class For(Stmt):
    """``for var in range(extent)``: body. A VECTOR loop computes in ``lanes`` physical lanes, of
    which the first ``extent`` are active (``extent <= lanes``); it contains only Store statements
    and UNROLLED loops."""

    var: Var
    extent: int
    body: tuple[Stmt, ...]
    kind: Kind = Kind.SERIAL
    lanes: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class Alloc(Stmt):
    """Declares a REGISTER, STACK or SHARED buffer for ``body``; its contents start undefined."""

    buffer: Buffer
    body: tuple[Stmt, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Prefetch(Stmt):
    """A hint that ``buffer[index]`` will be read soon; ``level`` 1 to 3 is the cache to bring it
    to. No meaning; the index may lie outside the buffer."""

    buffer: Buffer
    index: Expr
    level: int


@dataclass(frozen=True, eq=False, slots=True)
class Bind(Stmt):
    """``body`` with ``var`` = ``value``, if 0 <= ``value`` < ``extent``; nothing otherwise. How a
    number of a thread becomes a position, and what threads beyond the last position do."""

    var: Var
    value: Expr
    extent: int
    body: tuple[Stmt, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Barrier(Stmt):
    """Threads of a block go on when all of them have come here; what each has stored before,
    all see after. Not inside a Bind to which some threads would not come."""


@dataclass(frozen=True, eq=False, slots=True)
class Mma(Stmt):
    """``d += a b``, a matrix product of fragments that the 32 threads of a warp hold together, each
    its own from these elements of its REGISTER buffers on. ``kind`` names the instruction, its
    types and layouts (loop/mma.py); sums are float32."""

    kind: str
    d: Buffer
    d_at: Expr
    a: Buffer
    a_at: Expr
    b: Buffer
    b_at: Expr


#: Bytes of a row of a tile that a TensorMap brings: one row of the banks of shared memory, in which
#: pieces of 16 bytes are exchanged by the number of the row ("128-byte swizzle").
SWIZZLED_BYTES = 128


@dataclass(frozen=True, eq=False)
class TensorMap:
    """Boxes of a tensor in GLOBAL memory, for TileCopy (loop/ir_async.py): an operand of a GPU
    kernel that the host makes (cuTensorMapEncodeTiled). Axes are from the outside in, up to five;
    element (i, j, ...) is ``buffer[offset + i*strides[0] + j*strides[1] + ...]``. The innermost
    stride is 1; ``offset`` and the other strides are multiples of 16 bytes. ``box`` is what one
    TileCopy brings, up to 256 along each axis; its innermost extent is SWIZZLED_BYTES. ``tf32``
    says that float32 is rounded to the format of tensor cores on the way. Maps compare by identity;
    ``buffer`` is a parameter of the kernel."""

    name: str
    buffer: Buffer
    offset: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]
    tf32: bool = False


@dataclass(frozen=True, eq=False)
class Kernel:
    """A function over GLOBAL buffers. ``writes`` are the parameters it stores to; ``may_alias``
    tells that two parameters may be one memory (each element is read before it is written at the
    same index). ``recipe`` is the schedule as text, for the manifest; it means nothing to the
    machine. ``independent`` states that the top-level statements touch different results, so that
    they may run at the same time.

    On a GPU the body is one nest: up to three BLOCK loops, then up to three THREAD loops, with
    nothing between them but the declarations of SHARED buffers (loop/launch.py). ``maps`` are
    operands that follow the parameters."""

    name: str
    params: tuple[Buffer, ...]
    writes: frozenset[Buffer]
    body: tuple[Stmt, ...]
    may_alias: bool = False
    recipe: str = ""
    independent: bool = False
    maps: tuple[TensorMap, ...] = ()
