"""Copies to shared memory that end later, and loads of matrices from there: a statement in, the
instructions of NVIDIA's GPUs out (sm_80 and later).
"""

from __future__ import annotations

from aotc.codegen.expressions import Expressions
from aotc.loop.ir import Buffer, Expr
from aotc.loop.ir_async import AsyncCommit, AsyncCopy, AsyncWait, LoadMatrix

#: Numbers of the address spaces in LLVM.
GLOBAL, SHARED = 1, 3


def emit_copy_statement(
    emitter: Expressions, stmt: AsyncCopy | AsyncCommit | AsyncWait | LoadMatrix
) -> None:
    """Appends the instructions of one statement."""
    match stmt:
        case AsyncCopy():
            _copy(emitter, stmt)
        case AsyncCommit():
            emitter.do("call void @llvm.nvvm.cp.async.commit.group()")
        case AsyncWait(pending=pending):
            emitter.do(f"call void @llvm.nvvm.cp.async.wait.group(i32 {pending})")
        case LoadMatrix():
            _load_matrix(emitter, stmt)


def pointer_in(emitter: Expressions, buffer: Buffer, index: Expr, space: int) -> str:
    """A pointer to an element, in the address space of that number."""
    pointer = emitter.address(buffer, index)
    return emitter.put(f"addrspacecast ptr {pointer} to ptr addrspace({space})")


def _copy(emitter: Expressions, stmt: AsyncCopy) -> None:
    size = stmt.elems * stmt.source.dtype.size_bytes
    to = pointer_in(emitter, stmt.buffer, stmt.at, SHARED)
    source = pointer_in(emitter, stmt.source, stmt.source_at, GLOBAL)
    # 16 bytes pass by the first-level cache: other threads of the block copy other bytes
    name = f"{'cg' if size == 16 else 'ca'}.shared.global.{size}"
    operands = f"ptr addrspace({SHARED}) {to}, ptr addrspace({GLOBAL}) {source}"
    if stmt.valid is not None:
        condition = emitter.expr(stmt.valid).text
        read = emitter.put(f"select i1 {condition}, i32 {size}, i32 0")
        name, operands = f"{name}.s", f"{operands}, i32 {read}"
    emitter.do(f"call void @llvm.nvvm.cp.async.{name}({operands})")


def _load_matrix(emitter: Expressions, stmt: LoadMatrix) -> None:
    source = pointer_in(emitter, stmt.source, stmt.at, SHARED)
    to = emitter.address(stmt.to, stmt.to_at)
    words = ", ".join(["i32"] * stmt.count)
    ty = f"{{ {words} }}" if stmt.count > 1 else "i32"
    name = f"m8n8.x{stmt.count}{'.trans' if stmt.transposed else ''}.b16.p{SHARED}"
    found = emitter.put(
        f"call {ty} @llvm.nvvm.ldmatrix.sync.aligned.{name}(ptr addrspace({SHARED}) {source})"
    )
    emitter.forget(stmt.to)
    for i in range(stmt.count):
        word = emitter.put(f"extractvalue {ty} {found}, {i}") if stmt.count > 1 else found
        emitter.do(f"store i32 {word}, ptr {emitter.displaced(to, 4 * i)}")
