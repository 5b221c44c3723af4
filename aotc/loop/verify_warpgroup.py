"""Rules for tensor maps, signals and products of warpgroups: a map or a statement in, what is wrong
with it out, and the elements that it touches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from aotc.graph.types import DType
from aotc.loop.index import bounds, divisor
from aotc.loop.ir import SWIZZLED_BYTES, Bin, Buffer, Expr, Kernel, Lit, Space, TensorMap, Var
from aotc.loop.ir_async import (
    ProxyFence,
    SignalExpect,
    SignalInit,
    SignalWait,
    TileCopy,
    Wgmma,
    WgmmaCommit,
    WgmmaFence,
    WgmmaWait,
)
from aotc.loop.mma import KINDS
from aotc.loop.verify_async import Range
from aotc.loop.walk import product_registers
from aotc.loop.wgmma import MAX_COLUMNS, ROWS, TILE_ALIGNMENT, right_tile, row_tile

WarpgroupStmt = (
    SignalInit
    | SignalExpect
    | SignalWait
    | TileCopy
    | Wgmma
    | WgmmaFence
    | WgmmaCommit
    | WgmmaWait
    | ProxyFence
)
#: What the counters of an mbarrier hold, how many groups a wait can leave under way, and what the
#: fields of a tensor map and of a matrix descriptor hold.
_MAX_COUNT = (1 << 20) - 1
_MAX_PENDING = 7
_MAX_AXES, _MAX_BOX, _MAP_ALIGNMENT = 5, 256, 16
_MAPPED = frozenset(kind.dtype for kind in KINDS.values())
_MAX_STRIDE_BYTES, _MAX_DIM, _MAX_STEP_BYTES = 1 << 40, 1 << 32, 1 << 18


def maps_problem(kernel: Kernel) -> str | None:
    """What is wrong with the tensor maps of a kernel."""
    names = [buffer.name for buffer in kernel.params] + [map_.name for map_ in kernel.maps]
    if kernel.maps and len(set(names)) < len(names):
        return "two operands have one name"
    for map_ in kernel.maps:
        problem = map_problem(map_, kernel)
        if problem is None and (map_.buffer.alignment or 1) % _MAP_ALIGNMENT:
            problem = f"'{map_.buffer.name}' is not aligned to {_MAP_ALIGNMENT} bytes"
        if problem is not None:
            return f"map '{map_.name}': {problem}"
    return None


def map_problem(map_: TensorMap, kernel: Kernel) -> str | None:
    """What is wrong with a tensor map of ``kernel``: the driver would not take it, or it brings
    what is not in its buffer."""
    buffer, size = map_.buffer, map_.buffer.dtype.size_bytes
    axes = len(map_.dims)
    if buffer not in kernel.params or buffer in kernel.writes:
        return f"'{buffer.name}' is no parameter that is only read"
    if not 1 <= axes <= _MAX_AXES or len(map_.strides) != axes or len(map_.box) != axes:
        return f"{axes} axes, {len(map_.strides)} strides and a box of {len(map_.box)}"
    if buffer.dtype not in _MAPPED or (map_.tf32 and buffer.dtype is not DType.F32):
        return f"elements of {buffer.dtype.value}"
    if not all(1 <= box <= _MAX_BOX for box in map_.box) or map_.box[-1] * size != SWIZZLED_BYTES:
        return f"a box of {map_.box}"
    places = [map_.offset * size, *(s * size for s in map_.strides[:-1])]
    if map_.strides[-1] != 1 or any(place % _MAP_ALIGNMENT for place in places):
        return f"strides of {map_.strides} elements from {map_.offset} on are not aligned"
    if not all(1 <= dim <= _MAX_DIM for dim in map_.dims):
        return f"a tensor of {map_.dims}"
    if not all(0 < stride * size < _MAX_STRIDE_BYTES for stride in map_.strides):
        return f"strides of {map_.strides}"
    last = sum((dim - 1) * s for dim, s in zip(map_.dims, map_.strides, strict=True))
    if map_.offset < 0 or map_.offset + last >= buffer.elems:
        return f"a tensor up to element {map_.offset + last} of {buffer.elems}"
    return None


def warpgroup_problem(stmt: WarpgroupStmt, kernel: Kernel) -> str | None:
    """What is wrong with the buffers and numbers of a statement."""
    match stmt:
        case SignalInit(buffer=buffer, arrivals=arrivals):
            fine = 1 <= arrivals <= _MAX_COUNT
            return _signal_problem(buffer) or (None if fine else f"a signal of {arrivals} arrivals")
        case SignalExpect(buffer=buffer, bytes=count):
            fine = 0 <= count <= _MAX_COUNT
            return _signal_problem(buffer) or (None if fine else f"a signal of {count} bytes")
        case SignalWait(buffer=buffer):
            return _signal_problem(buffer)
        case TileCopy(map=map_, buffer=buffer, signal=signal):
            if map_ not in kernel.maps or len(stmt.position) != len(map_.dims):
                return f"a box of map '{map_.name}', which the kernel does not have"
            if map_.buffer.dtype is not buffer.dtype:
                return f"a box of {map_.buffer.dtype.value} copied to {buffer.dtype.value}"
            return _tile_problem(buffer) or _signal_problem(signal)
        case Wgmma():
            return _product_problem(stmt)
        case WgmmaWait(pending=pending, sums=sums):
            if not 0 <= pending <= _MAX_PENDING:
                return f"a wait for all but {pending} groups"
            held = all(b.space is Space.REGISTER and b.dtype is DType.F32 for b in sums)
            return None if held else "sums that are no float32 in registers"
    return None


def warpgroup_ranges(stmt: WarpgroupStmt) -> tuple[Range, ...]:
    """What a thread touches or names in a statement that `warpgroup_problem` has let pass."""
    match stmt:
        case SignalInit(buffer=buffer, at=at) | SignalExpect(buffer=buffer, at=at):
            return (Range(buffer, at, 1),)
        case SignalWait(buffer=buffer, at=at):
            return (Range(buffer, at, 1),)
        case TileCopy(map=map_, buffer=buffer, at=at):
            unit = TILE_ALIGNMENT // buffer.dtype.size_bytes
            copied = Range(buffer, at, math.prod(map_.box), unit)
            return copied, Range(stmt.signal, stmt.signal_at, 1)
        case Wgmma(a=a, b=b):
            kind = KINDS[stmt.kind]
            registers = [Range(*held) for held in product_registers(stmt)]
            tiles = [Range(b, stmt.b_at, int(right_tile(stmt).max()) + 1, kind.depth)]
            if a.space is Space.SHARED:
                last = int(row_tile(kind, ROWS).max())
                tiles.append(Range(a, stmt.a_at, last + 1, kind.depth))
            return (*registers, *tiles)
    return ()


def factor_problem(
    stmt: Wgmma, known: Mapping[Var, int], extents: Mapping[Var, int]
) -> str | None:
    """Whether a factor in shared memory may begin where the pattern of swizzling does not allow it.
    ``known`` has divisors of variables."""
    factors = [(stmt.b, stmt.b_at, stmt.b_step)]
    if stmt.a.space is Space.SHARED:
        factors.append((stmt.a, stmt.a_at, 0))
    for buffer, at, across in factors:
        size = buffer.dtype.size_bytes
        unit = TILE_ALIGNMENT // size
        low, high = _rest(at, unit, known, extents)
        most = 0 if across else SWIZZLED_BYTES // size - KINDS[stmt.kind].depth
        if low < 0 or high > most:
            return f"a factor that may begin inside the pattern of swizzling of '{buffer.name}'"
    return None


def _rest(
    expr: Expr, unit: int, known: Mapping[Var, int], extents: Mapping[Var, int]
) -> tuple[int, int]:
    """The least and the largest of what is left of ``expr`` when multiples of ``unit`` that are
    added are taken away."""
    low, high = 0, 0
    parts = [expr]
    while parts:
        part = parts.pop()
        match part:
            case Bin(fn="add", a=a, b=b):
                parts += [a, b]
            case Lit(value=int(value)):
                low, high = low + value % unit, high + value % unit
            case _ if divisor(part, known) % unit:
                least, most = bounds(part, extents)
                low, high = low + least, high + most
    return low, high


def _product_problem(stmt: Wgmma) -> str | None:
    if stmt.kind not in KINDS:
        return f"no product '{stmt.kind}'"
    kind = KINDS[stmt.kind]
    if stmt.columns % 8 or not 8 <= stmt.columns <= MAX_COLUMNS:
        return f"a product of {stmt.columns} columns"
    if stmt.d.space is not Space.REGISTER or stmt.d.dtype is not DType.F32:
        return f"sums in '{stmt.d.name}', which is no register of float32"
    for factor in (stmt.a, stmt.b):
        if factor.dtype is not kind.dtype:
            return f"a factor of {factor.dtype.value}, not {kind.dtype.value}"
        if factor is stmt.b or factor.space is not Space.REGISTER:
            problem = _tile_problem(factor)
            if problem is not None:
                return problem
    step_bytes = stmt.b_step * kind.dtype.size_bytes
    if stmt.b_step and (kind.dtype.size_bytes != 2 or step_bytes % TILE_ALIGNMENT):
        return f"columns {stmt.b_step} elements apart"
    return None if 0 <= step_bytes < _MAX_STEP_BYTES else f"columns {step_bytes} bytes apart"


def _signal_problem(buffer: Buffer) -> str | None:
    fine = buffer.space is Space.SHARED and buffer.dtype is DType.U64
    return None if fine else f"a signal in '{buffer.name}', which is no shared memory of u64"


def _tile_problem(buffer: Buffer) -> str | None:
    row = SWIZZLED_BYTES // buffer.dtype.size_bytes
    if buffer.space is not Space.SHARED or buffer.elems % row:
        return f"a tile in '{buffer.name}', which is no shared memory of whole rows"
    if not buffer.alignment or buffer.alignment % TILE_ALIGNMENT:
        return f"a tile in '{buffer.name}', which is not aligned to {TILE_ALIGNMENT} bytes"
    return None
