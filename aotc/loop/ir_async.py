"""Statements of GPU kernels that begin work which ends later: copies to shared memory, and products
of tensor cores of a group of four warps.

Source: PTX ISA, "Data movement: asynchronous copy", "mbarrier", "Tensor copy", "ldmatrix" and
"Asynchronous warpgroup level matrix instructions".
"""

from __future__ import annotations

from dataclasses import dataclass

from aotc.loop.ir import Buffer, Expr, Stmt, TensorMap

#: Threads that execute a Wgmma together: four warps, the first a multiple of four.
WARPGROUP = 128
#: A LoadMatrix loads matrices of 8 rows of as many bytes, each row so aligned.
MATRIX_ROWS, MATRIX_ROW_BYTES = 8, 16


@dataclass(frozen=True, eq=False, slots=True)
class AsyncCopy(Stmt):
    """Begins to copy ``elems`` neighbouring elements, together 4, 8 or 16 bytes and so aligned,
    from the GLOBAL ``source`` to the SHARED ``buffer`` of the same dtype (cp.async). Where
    ``valid`` is given and false, zeros are written and nothing is read, but the index is in bounds
    anyway. The thread sees the elements after an AsyncWait, others after a Barrier behind it; until
    then nobody may touch them."""

    buffer: Buffer
    at: Expr
    source: Buffer
    source_at: Expr
    elems: int
    valid: Expr | None = None


@dataclass(frozen=True, eq=False, slots=True)
class AsyncCommit(Stmt):
    """The AsyncCopies of a thread since its last one are a group, maybe an empty one."""


@dataclass(frozen=True, eq=False, slots=True)
class AsyncWait(Stmt):
    """Waits until at most the last ``pending`` groups of the thread's AsyncCopies are under way."""

    pending: int


@dataclass(frozen=True, eq=False, slots=True)
class LoadMatrix(Stmt):
    """Loads ``count`` (1, 2 or 4) matrices of 8 rows of 16 bytes from shared memory into fragments
    (ldmatrix). Thread 8*m + r of the warp gives in ``at`` the first element of row r of matrix m
    (threads beyond 8*count give any index in bounds). Then thread t has of matrix m, in the 32-bit
    word number m from ``to_at`` on, the word t%4 of row t//4; with ``transposed``, of 16-bit
    elements: (row 2*(t%4), column t//4) and (row 2*(t%4) + 1, column t//4). ``to`` is a REGISTER
    buffer of the dtype of ``source``, which has 16 or 32 bits (32: not transposed)."""

    to: Buffer
    to_at: Expr
    source: Buffer
    at: Expr
    count: int
    transposed: bool = False


@dataclass(frozen=True, eq=False, slots=True)
class SignalInit(Stmt):
    """Makes element ``at`` of the SHARED U64 ``buffer`` a signal (mbarrier) that ``arrivals``
    arrivals of threads complete, in phase 0. One thread does it; others may use it after a
    Barrier."""

    buffer: Buffer
    at: Expr
    arrivals: int


@dataclass(frozen=True, eq=False, slots=True)
class SignalExpect(Stmt):
    """The thread arrives at the signal, whose phase then completes only when TileCopies have
    brought ``bytes`` more bytes."""

    buffer: Buffer
    at: Expr
    bytes: int


@dataclass(frozen=True, eq=False, slots=True)
class SignalWait(Stmt):
    """Waits until the phase of the signal with this ``parity`` (0 or 1, an int64) is complete. What
    the TileCopies of that phase have brought, the thread then sees."""

    buffer: Buffer
    at: Expr
    parity: Expr


@dataclass(frozen=True, eq=False, slots=True)
class TileCopy(Stmt):
    """Begins to bring the box of ``map`` whose first element is at ``position`` (axes from the
    outside in, int64, maybe negative) to the SHARED ``buffer`` from element ``at`` on, which is
    aligned to 1024 bytes. Elements of the box outside the tensor are zero. Each thread that
    executes it brings a box of its own. The bytes of the whole box count for the signal when they
    are there.

    Rows of the box follow each other in order, SWIZZLED_BYTES each; the piece of 16 bytes number p
    of row r lies where piece p ^ (r % 8) would."""

    map: TensorMap
    position: tuple[Expr, ...]
    buffer: Buffer
    at: Expr
    signal: Buffer
    signal_at: Expr


@dataclass(frozen=True, eq=False, slots=True)
class Wgmma(Stmt):
    """Begins ``d += a b`` with ``d`` of 64 x ``columns`` float32 (columns a multiple of 8, up to
    256), over 32 bytes of depth: 16 elements of f16 and bf16 (bf16 as U16), 8 of tf32 (``kind``).
    The 128 threads of a warpgroup execute it together.

    Thread t has of ``d``, from ``d_at`` on in a REGISTER buffer, for each 8 columns four elements:
    row 16*(t//32) + (t%32)//4, columns 2*(t%4) and the next, then the same of the row 8 below.

    ``b`` is in SHARED memory, swizzled as TileCopy leaves it. K-major (``b_step`` is 0): row n of
    the tile is column n of the product and holds its depth; ``b_at`` is the element of row 0 at
    which this part of the depth would begin without swizzle: a multiple of 32 bytes in the row, in
    a tile aligned to 1024 bytes. Otherwise (16-bit kinds only) rows are the depth, and hold 64
    columns each; the next 64 columns begin ``b_step`` elements behind; ``b_at`` is the first
    element of a row that is a multiple of 8.

    ``a`` is K-major in SHARED memory in the same way, or a REGISTER buffer with the thread's
    fragments of 4 words: rows (t%32)//4 and 8 below of the warp's 16, as the left factor of an Mma
    of 16 rows of the same depth.

    Until a WgmmaWait, nobody may touch ``d`` (other Wgmma of the same shape on it excepted), store
    to the tiles, or change a REGISTER ``a``."""

    kind: str
    columns: int
    d: Buffer
    d_at: Expr
    a: Buffer
    a_at: Expr
    b: Buffer
    b_at: Expr
    b_step: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class WgmmaFence(Stmt):
    """What the warpgroup's threads have done before to registers (of ``d`` and ``a``) is seen by
    the Wgmma behind it. Needed before the first Wgmma, and when registers have been touched."""


@dataclass(frozen=True, eq=False, slots=True)
class WgmmaCommit(Stmt):
    """The Wgmma of the warpgroup since the last one are a group."""


@dataclass(frozen=True, eq=False, slots=True)
class WgmmaWait(Stmt):
    """Waits until at most the last ``pending`` groups of Wgmma are under way. ``sums`` are the
    REGISTER buffers in which groups that are complete, or are under way still, have results."""

    pending: int
    sums: tuple[Buffer, ...]


@dataclass(frozen=True, eq=False, slots=True)
class ProxyFence(Stmt):
    """What the thread has stored to shared memory, or has waited for by AsyncWait, is seen by Wgmma
    and TileCopy behind the next Barrier (fence.proxy.async). And what it has read there, TileCopy
    may then overwrite."""
