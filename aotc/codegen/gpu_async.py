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


def _place(
    emitter: Expressions, buffer: Buffer, index: Expr, space: int
) -> tuple[str, str]:
    """A pointer in an address space and a constant distance from there, as operands of assembly.
    LLVM would move the distance out of loops, and take a register for each."""
    pointer, offset = emitter.base_and_offset(buffer, index)
    cast = emitter.put(f"addrspacecast ptr {pointer} to ptr addrspace({space})")
    return f"ptr addrspace({space}) {cast}", f"i32 {offset}"


def _copy(emitter: Expressions, stmt: AsyncCopy) -> None:
    size = stmt.elems * stmt.source.dtype.size_bytes
    operands = [
        *_place(emitter, stmt.buffer, stmt.at, SHARED),
        *_place(emitter, stmt.source, stmt.source_at, GLOBAL),
    ]
    # 16 bytes pass by the first-level cache: other threads of the block copy other bytes
    text = f"cp.async.{'cg' if size == 16 else 'ca'}.shared.global [$0 + $1], [$2 + $3], {size}"
    constraints = "l,n,l,n"
    if stmt.valid is not None:
        condition = emitter.expr(stmt.valid).text
        read = emitter.put(f"select i1 {condition}, i32 {size}, i32 0")
        operands.append(f"i32 {read}")
        text, constraints = f"{text}, $4", f"{constraints},r"
    emitter.do(
        f'call void asm sideeffect "{text};", "{constraints},~{{memory}}"'
        f"({', '.join(operands)}) nounwind"
    )


def _load_matrix(emitter: Expressions, stmt: LoadMatrix) -> None:
    count = stmt.count
    source = _place(emitter, stmt.source, stmt.at, SHARED)
    to = emitter.address(stmt.to, stmt.to_at)
    ty = f"{{ {', '.join(['i32'] * count)} }}" if count > 1 else "i32"
    results = ", ".join(f"${i}" for i in range(count))
    name = f"ldmatrix.sync.aligned.m8n8.x{count}{'.trans' if stmt.transposed else ''}.shared.b16"
    text = f"{name} {{{results}}}, [${count} + ${count + 1}];"
    constraints = ",".join([*["=r"] * count, "l", "n", "~{memory}"])
    found = emitter.put(
        f'call {ty} asm sideeffect "{text}", "{constraints}"({", ".join(source)}) '
        "convergent nounwind"
    )
    emitter.forget(stmt.to)
    for i in range(count):
        word = emitter.put(f"extractvalue {ty} {found}, {i}") if count > 1 else found
        emitter.do(f"store i32 {word}, ptr {emitter.displaced(to, 4 * i)}")
