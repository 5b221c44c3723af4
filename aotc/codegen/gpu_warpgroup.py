"""Signals, copies by tensor maps and products of warpgroups: a statement in, the instructions of
sm_90a out.

Sources: PTX ISA, "mbarrier", "cp.async.bulk.tensor", "Matrix descriptor format" and "wgmma". What a
product adds to, and reads from registers, passes through the instructions that fence it and wait
for it, so that nothing is moved past them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aotc.codegen.expressions import Expressions
from aotc.codegen.gpu_async import SHARED, pointer_in
from aotc.graph.types import DType
from aotc.loop.ir import Buffer, Expr, Space, TensorMap
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
from aotc.loop.verify_warpgroup import WarpgroupStmt
from aotc.loop.wgmma import TILE_ALIGNMENT, result_elems

#: The one architecture that has all of these instructions.
ARCH = "sm_90a"
_ADDRESS_MASK = (1 << 18) - 1
_SWIZZLED = 1 << 62
_WAIT = (
    "{\\0A.reg .pred done;\\0Aagain:\\0A"
    "mbarrier.try_wait.parity.shared::cta.b64 done, [$0], $1;\\0A@!done bra again;\\0A}"
)


def emit_warpgroup_statement(
    emitter: Expressions,
    stmt: WarpgroupStmt,
    maps: Mapping[TensorMap, str],
    held: Sequence[Buffer],
) -> None:
    """Appends the instructions of one statement. ``maps`` names the parameters, ``held`` are the
    registers of products in scope. Behind SignalInit comes `fence_signals`, once for several."""
    match stmt:
        case SignalInit(buffer=buffer, at=at, arrivals=arrivals):
            text = "mbarrier.init.shared::cta.b64 [$0], $1;"
            _do(emitter, text, [_address(emitter, buffer, at), f"i32 {arrivals}"])
        case SignalExpect(buffer=buffer, at=at, bytes=count):
            text = "mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1;"
            _do(emitter, text, [_address(emitter, buffer, at), f"i32 {count}"])
        case SignalWait(buffer=buffer, at=at, parity=parity):
            _do(emitter, _WAIT, [_address(emitter, buffer, at), _narrow(emitter, parity)])
        case TileCopy():
            _copy(emitter, stmt, maps[stmt.map])
        case ProxyFence():
            _do(emitter, "fence.proxy.async.shared::cta;", [])
        case Wgmma():
            _multiply(emitter, stmt)
        case WgmmaFence():
            _pass_through(emitter, "wgmma.fence.sync.aligned;", held)
        case WgmmaCommit():
            _do(emitter, "wgmma.commit_group.sync.aligned;", [])
        case WgmmaWait(pending=pending, sums=sums):
            factors = [buffer for buffer in held if buffer not in sums]
            text = f"wgmma.wait_group.sync.aligned {pending};"
            _pass_through(emitter, text, (*sums, *factors))


def fence_signals(emitter: Expressions) -> None:
    """Appends what makes the signals that a thread has initialised so for others, behind the next
    barrier, and for copies."""
    _do(emitter, "fence.mbarrier_init.release.cluster;\\0Afence.proxy.async.shared::cta;", [])


def _do(emitter: Expressions, text: str, operands: Sequence[str]) -> None:
    """An instruction without results, of operands with their types."""
    constraints = ["l" if operand.startswith(("ptr", "i64")) else "r" for operand in operands]
    constraints.append("~{memory}")
    emitter.do(
        f'call void asm sideeffect "{text}", "{",".join(constraints)}"({", ".join(operands)}) '
        "convergent nounwind"
    )


def _address(emitter: Expressions, buffer: Buffer, at: Expr) -> str:
    """The number of an element's place in shared memory, with its type."""
    pointer = pointer_in(emitter, buffer, at, SHARED)
    return f"i32 {emitter.put(f'ptrtoint ptr addrspace({SHARED}) {pointer} to i32')}"


def _narrow(emitter: Expressions, number: Expr) -> str:
    return f"i32 {emitter.put(f'trunc i64 {emitter.expr(number).text} to i32')}"


def _copy(emitter: Expressions, stmt: TileCopy, name: str) -> None:
    places = [_narrow(emitter, axis) for axis in reversed(stmt.position)]
    to = _address(emitter, stmt.buffer, stmt.at)
    signal = _address(emitter, stmt.signal, stmt.signal_at)
    text = f"cp.async.bulk.tensor.{len(places)}d.shared::cluster.global"
    numbers = ", ".join(f"${3 + i}" for i in range(len(places)))
    text += f".mbarrier::complete_tx::bytes [$0], [$1, {{{numbers}}}], [$2];"
    _do(emitter, text, [to, f"ptr {name}", signal, *places])


def _multiply(emitter: Expressions, stmt: Wgmma) -> None:
    kind, count = KINDS[stmt.kind], result_elems(stmt.columns)
    operands = []
    if stmt.a.space is Space.REGISTER:
        first = emitter.address(stmt.a, stmt.a_at)
        for i in range(kind.words(kind.left_elems)):
            place = emitter.displaced(first, 4 * i)
            operands.append(f"i32 {emitter.put(f'load i32, ptr {place}')}")
        left = "{" + ", ".join(f"${count + i}" for i in range(len(operands))) + "}"
    else:
        operands.append(f"i64 {_descriptor(emitter, stmt.a, stmt.a_at, 0)}")
        left = f"${count}"
    leading = stmt.b_step * kind.dtype.size_bytes
    operands.append(f"i64 {_descriptor(emitter, stmt.b, stmt.b_at, leading)}")
    right = f"${count + len(operands) - 1}"
    # results are added to, nothing is negated; rows of a factor are the depth or not
    settings = ["1", "1", "1"]
    if kind.dtype.size_bytes == 2:
        settings += ["0"] * (stmt.a.space is not Space.REGISTER) + [str(int(leading > 0))]
    sums = "{" + ", ".join(f"${i}" for i in range(count)) + "}"
    shape = f"m64n{stmt.columns}k{kind.depth}.f32.{stmt.kind}.{stmt.kind}"
    text = f"wgmma.mma_async.sync.aligned.{shape} {sums}, {left}, {right}, {', '.join(settings)};"
    first = emitter.address(stmt.d, stmt.d_at)
    places = [(emitter.displaced(first, 4 * i), "float") for i in range(count)]
    emitter.forget(stmt.d)
    _update(emitter, text, places, operands)


def _descriptor(emitter: Expressions, buffer: Buffer, at: Expr, leading_bytes: int) -> str:
    """The descriptor of a swizzled factor. Blocks of columns are ``leading_bytes`` apart where rows
    are the depth; groups of 8 rows follow each other."""
    pointer, offset = emitter.base_and_offset(buffer, at)
    key = ("descriptor", pointer, leading_bytes)
    if key not in emitter.block_names:
        shared = emitter.put(f"addrspacecast ptr {pointer} to ptr addrspace({SHARED})")
        number = emitter.put(f"ptrtoint ptr addrspace({SHARED}) {shared} to i32")
        start = emitter.put(f"lshr i32 {emitter.put(f'and i32 {number}, {_ADDRESS_MASK}')}, 4")
        # the leading distance means nothing where rows are columns
        leading = (leading_bytes // 16 or 1) << 16
        emitter.block_names[key] = emitter.put(f"or disjoint i32 {start}, {leading}")
    low = emitter.block_names[key]
    if offset:
        low = emitter.put(f"add nuw i32 {low}, {offset // 16}")
    # what differs is in the low word: the high one is a constant
    high = _SWIZZLED | TILE_ALIGNMENT // 16 << 32
    return emitter.put(f"or disjoint i64 {emitter.put(f'zext i32 {low} to i64')}, {high}")


def _pass_through(emitter: Expressions, text: str, buffers: Sequence[Buffer]) -> None:
    """An instruction before which ``buffers`` have their values, and after which others."""
    places = []
    for buffer in buffers:
        emitter.forget(buffer)
        is_float = buffer.dtype is DType.F32
        words = -(-buffer.elems * buffer.dtype.size_bytes // 4)
        places += [
            (emitter.displaced(emitter.bases[buffer], 4 * i), "float" if is_float else "i32")
            for i in range(words)
        ]
    _update(emitter, text, places, [])


def _update(
    emitter: Expressions, text: str, places: Sequence[tuple[str, str]], operands: Sequence[str]
) -> None:
    """An instruction that changes the registers at ``places``, each with its type, and reads
    ``operands``."""
    before = [f"{ty} {emitter.put(f'load {ty}, ptr {place}')}" for place, ty in places]
    constraints = [f"={'f' if ty == 'float' else 'r'}" for _, ty in places]
    constraints += ["l" if operand.startswith("i64") else "r" for operand in operands]
    constraints += [*map(str, range(len(places))), "~{memory}"]
    types = [ty for _, ty in places]
    result = "{ " + ", ".join(types) + " }" if len(types) > 1 else (types or ["void"])[0]
    call = (
        f'call {result} asm sideeffect "{text}", "{",".join(constraints)}"'
        f"({', '.join([*operands, *before])}) convergent nounwind"
    )
    if not places:
        emitter.do(call)
        return
    found = emitter.put(call)
    for i, (place, ty) in enumerate(places):
        value = emitter.put(f"extractvalue {result} {found}, {i}") if len(types) > 1 else found
        emitter.do(f"store {ty} {value}, ptr {place}")
