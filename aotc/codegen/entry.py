"""Program, MemoryPlan and ConstantLayout in, the text of the whole LLVM module out.

The module has one global symbol, the entry function. It checks its pointers and then runs the steps
(codegen/steps.py): kernels with base addresses plus offsets, no allocation, nothing written but the
outputs and the workspace.
"""

from __future__ import annotations

import hashlib
import re

from aotc.codegen.emit import emit_kernel
from aotc.codegen.notes import emit_notes, notes_text
from aotc.codegen.signature import (
    WEIGHTS_ALIGNMENT,
    WORKSPACE_ALIGNMENT,
    Signature,
    Status,
    describe_signature,
)
from aotc.codegen.steps import Addresses, PartWriter, StepWriter, return_failure
from aotc.loop.ir import Kernel
from aotc.loop.program import Program
from aotc.loop.walk import has_parallel_loops
from aotc.memory.arena import MemoryPlan
from aotc.memory.constants import ConstantLayout
from aotc.target import Target

WEIGHTS_HEADER_BYTES = 64  # before the constants in a weights file: their SHA-256, then zeros


def weights_marker(name: str) -> bytes:
    """The 64 bytes that stand for the constants of the model until its object is written."""
    return hashlib.sha512(f"aotc weights of {name}".encode()).digest()


def weights_section(name: str) -> str:
    """The ELF section of the constants; its name makes it read-only."""
    return f".rodata.{name}"


def emit_module(
    program: Program,
    plan: MemoryPlan,
    target: Target,
    constants: ConstantLayout,
    weights_in_file: bool = False,
    threads: bool = False,
) -> str:
    """LLVM IR of all kernels and the entry function ``NAME_run`` for ``target``.

    With ``threads`` there is a second entry ``NAME_run_threads``, which shares the work among
    the threads of the caller's pool. With ``weights_in_file`` the entry takes a pointer to the
    weights file's contents; otherwise the module holds a marker of 64 bytes in place of the
    constants (see aotc/artifact/weights.py).
    """
    signature = describe_signature(program, weights_in_file, threads)
    symbols = _kernel_symbols(program, signature.name)
    bodies = [
        emit_kernel(kernel, target, symbol, private=True) for kernel, symbol in symbols.items()
    ]
    parts = [
        f'source_filename = "{signature.name}"',
        f'target triple = "{target.triple}"',
    ]
    if constants.size_bytes and not weights_in_file:
        parts.append(_marker_global(signature.name, target, constants))
    parts += bodies
    parts.append(_emit_entry(program, plan, constants, signature, symbols))
    if threads:
        parts.append(_emit_threads_entry(program, plan, constants, signature, symbols))
    parts.append(emit_notes(notes_text(program, plan, target, signature.run), target))
    return "\n\n".join(parts) + "\n"


def _kernel_symbols(program: Program, prefix: str) -> dict[Kernel, str]:
    """A symbol for each kernel: the model's name, then the kernel's, numbered if it repeats."""
    symbols: dict[Kernel, str] = {}
    taken = {f"{prefix}_{word}" for word in ("run", "run_threads", "task", "weights")}
    for kernel in program.kernels():
        base = symbol = f"{prefix}_{re.sub(r'[^A-Za-z0-9_]', '_', kernel.name)}"
        number = 2
        while symbol in taken:
            symbol = f"{base}_{number}"
            number += 1
        taken.add(symbol)
        symbols[kernel] = symbol
    return symbols


def _marker_global(name: str, target: Target, constants: ConstantLayout) -> str:
    """The marker, in a section of its own where the format lets that grow afterwards (ELF), else
    followed by room for all constants."""
    text = "".join(f"\\{byte:02X}" for byte in weights_marker(name))
    marker = f'[64 x i8] c"{text}"'
    align = f"align {WEIGHTS_ALIGNMENT}"
    if target.object_format == "elf":
        section = f'section "{weights_section(name)}"'
        return f"@{name}_weights = internal constant {marker}, {section}, {align}"
    rest = f"[{max(0, constants.size_bytes - 64)} x i8]"
    return (
        f"@{name}_weights = internal constant <{{ [64 x i8], {rest} }}> "
        f"<{{ {marker}, {rest} zeroinitializer }}>, {align}"
    )


def _emit_entry(
    program: Program,
    plan: MemoryPlan,
    constants: ConstantLayout,
    signature: Signature,
    symbols: dict[Kernel, str],
) -> str:
    """The entry for one thread: checks of the pointers, then all kernels whole."""
    head = ", ".join(f"ptr {param}" for param in _parameters(signature))
    lines = [f'define i32 @{signature.run}({head}) nounwind "no-builtins" {{']
    lines += _emit_checks(signature, plan, constants)
    lines += _emit_constants_base(constants, signature)
    writer = StepWriter(Addresses.of(program, plan, constants), symbols, return_failure)
    writer.block(program.steps)
    return "\n".join([*lines, *writer.lines, f"  ret i32 {Status.OK.value}", "}"])


def _emit_threads_entry(
    program: Program,
    plan: MemoryPlan,
    constants: ConstantLayout,
    signature: Signature,
    symbols: dict[Kernel, str],
) -> str:
    """The entry for a pool of threads, and the task that each of its threads runs: the same
    kernels, each part its share, and a barrier wherever a kernel may need what other parts
    wrote. The task finds its arguments, and a place for the status, in a record."""
    params = _parameters(signature)
    head = ", ".join(f"ptr {param}" for param in (*params, "%pool"))
    task = f"{signature.name}_task"
    lines = [f'define i32 @{signature.run_threads}({head}) nounwind "no-builtins" {{']
    lines += _emit_checks(signature, plan, constants, threads=True)
    if not any(has_parallel_loops(kernel.body) for kernel in symbols):
        # nothing is worth sharing, so nobody is woken
        arguments = ", ".join(f"ptr {param}" for param in params)
        lines.append(f"  %status = call i32 @{signature.run}({arguments})")
        return "\n".join([*lines, "  ret i32 %status", "}"])
    fields = [*params, "%pool", *["%status"] * signature.checks]
    lines.append(f"  %record = alloca [{len(fields)} x ptr], align 8")
    if signature.checks:
        lines.append("  %status = alloca i32, align 4")
        lines.append(f"  store i32 {Status.OK.value}, ptr %status, align 4")
    for number, param in enumerate(fields):
        lines.append(f"  %slot{number} = getelementptr ptr, ptr %record, i64 {number}")
        lines.append(f"  store ptr {param}, ptr %slot{number}, align 8")
    lines += [
        "  %self = load ptr, ptr %pool, align 8",
        "  %run.at = getelementptr ptr, ptr %pool, i64 1",
        "  %run = load ptr, ptr %run.at, align 8",
        f"  call void %run(ptr %self, ptr @{task}, ptr %record)",
        *["  %found = load i32, ptr %status, align 4"] * signature.checks,
        "  ret i32 %found" if signature.checks else f"  ret i32 {Status.OK.value}",
        "}",
        "",
        f"define internal void @{task}(ptr %record, i32 %part32, i32 %parts32)"
        ' nounwind "no-builtins" {',
        "  %part = zext i32 %part32 to i64",
        "  %parts = zext i32 %parts32 to i64",
    ]
    for number, param in enumerate(fields):
        lines.append(f"  %slot{number} = getelementptr ptr, ptr %record, i64 {number}")
        lines.append(f"  {param} = load ptr, ptr %slot{number}, align 8")
    lines += [
        "  %self = load ptr, ptr %pool, align 8",
        "  %barrier.at = getelementptr ptr, ptr %pool, i64 2",
        "  %barrier = load ptr, ptr %barrier.at, align 8",
        "  %is_first = icmp eq i64 %part, 0",
    ]
    lines += _emit_constants_base(constants, signature)
    writer = PartWriter(Addresses.of(program, plan, constants), symbols)
    writer.block(program.steps)
    return "\n".join([*lines, *writer.lines, "  ret void", "}"])


def _parameters(signature: Signature) -> list[str]:
    params = [f"%in{i}" for i in range(len(signature.inputs))]
    params += [f"%out{i}" for i in range(len(signature.outputs))]
    return params + ["%weights"] * signature.weights_in_file + ["%workspace"]


def _emit_constants_base(constants: ConstantLayout, signature: Signature) -> list[str]:
    if constants.size_bytes and signature.weights_in_file:
        return [f"  %constants = getelementptr i8, ptr %weights, i64 {WEIGHTS_HEADER_BYTES}"]
    if constants.size_bytes:
        # The constants are larger than the marker that LLVM sees. Passing the address through an
        # empty assembly statement keeps it from drawing conclusions about size or contents.
        return [f'  %constants = call ptr asm "", "=r,0"(ptr @{signature.name}_weights)']
    return []


def _emit_checks(
    signature: Signature, plan: MemoryPlan, constants: ConstantLayout, threads: bool = False
) -> list[str]:
    """Returns for each broken promise about pointers; what has no bytes is not checked."""
    inputs = [
        (f"%in{i}", p.type.dtype.size_bytes) for i, p in enumerate(signature.inputs) if p.type.elems
    ]
    outputs = [
        (f"%out{i}", p.type.dtype.size_bytes)
        for i, p in enumerate(signature.outputs)
        if p.type.elems
    ]
    workspace = [("%workspace", WORKSPACE_ALIGNMENT)] if plan.arena_bytes else []
    weights = [("%weights", WEIGHTS_ALIGNMENT)] if signature.weights_in_file else []
    writer = _CheckWriter()
    for status, pointers in (
        (Status.NULL_INPUT, inputs),
        (Status.NULL_OUTPUT, outputs),
        (Status.NULL_WEIGHTS, weights),
        (Status.NULL_WORKSPACE, workspace),
        (Status.NULL_POOL, [("%pool", 1)] if threads else []),
    ):
        writer.fail_if(status, [writer.is_null(pointer) for pointer, _ in pointers])
    for status, pointers in (
        (Status.MISALIGNED_INPUT, inputs),
        (Status.MISALIGNED_OUTPUT, outputs),
        (Status.MISALIGNED_WEIGHTS, weights),
        (Status.MISALIGNED_WORKSPACE, workspace),
    ):
        found = [writer.is_misaligned(pointer, size) for pointer, size in pointers if size > 1]
        writer.fail_if(status, found)
    if signature.weights_in_file:
        digest = bytes.fromhex(constants.digest)
        words = [digest[i : i + 8] for i in range(0, len(digest), 8)]
        found = [writer.differs("%weights", 8 * i, word) for i, word in enumerate(words)]
        writer.fail_if(Status.WRONG_WEIGHTS, found)
    return writer.lines


class _CheckWriter:
    """Collects the lines of the checks and hands out value names."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._count = 0

    def _set(self, text: str) -> str:
        name = f"%c{self._count}"
        self._count += 1
        self.lines.append(f"  {name} = {text}")
        return name

    def is_null(self, pointer: str) -> str:
        return self._set(f"icmp eq ptr {pointer}, null")

    def is_misaligned(self, pointer: str, alignment: int) -> str:
        number = self._set(f"ptrtoint ptr {pointer} to i64")
        low = self._set(f"and i64 {number}, {alignment - 1}")
        return self._set(f"icmp ne i64 {low}, 0")

    def differs(self, pointer: str, offset: int, word: bytes) -> str:
        place = self._set(f"getelementptr i8, ptr {pointer}, i64 {offset}")
        value = self._set(f"load i64, ptr {place}, align 8")
        # All targets are little-endian, as ONNX's own data is.
        return self._set(f"icmp ne i64 {value}, {int.from_bytes(word, 'little')}")

    def fail_if(self, status: Status, conditions: list[str]) -> None:
        """Returns ``status`` from the entry function when any of the conditions holds."""
        if not conditions:
            return
        failed = conditions[0]
        for condition in conditions[1:]:
            failed = self._set(f"or i1 {failed}, {condition}")
        name = status.name.lower()
        self.lines += [
            f"  br i1 {failed}, label %{name}, label %not_{name}",
            f"{name}:",
            f"  ret i32 {status.value}",
            f"not_{name}:",
        ]
