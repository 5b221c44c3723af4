"""Entries (programs with memory plans) and ConstantLayout in, the text of the LLVM module out.

The global symbols of the module are its entry functions, for most models one. An entry checks its
pointers and then runs the steps (codegen/steps.py): kernels with base addresses plus offsets, no
allocation, nothing written but the outputs and the workspace.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from aotc.codegen.dispatch import emit_dispatchers, parameters, workspaces
from aotc.codegen.emit import emit_kernel
from aotc.codegen.notes import emit_notes, notes_text
from aotc.codegen.signature import (
    WEIGHTS_ALIGNMENT,
    WORKSPACE_ALIGNMENT,
    Signature,
    Status,
    describe_signature,
    weights_section,
)
from aotc.codegen.steps import Addresses, PartWriter, StepWriter, constants_base, return_failure
from aotc.codegen.tiles import arch_prctl, permission_check
from aotc.loop.ir import Kernel
from aotc.loop.program import Program
from aotc.loop.walk import has_parallel_loops
from aotc.memory.arena import MemoryPlan, Part
from aotc.memory.constants import ConstantLayout
from aotc.memory.overlap import overlapping_params
from aotc.target import Target

WEIGHTS_HEADER_BYTES = 64  # before the constants in a weights file: their SHA-256, then zeros

_ARCH_PRCTL = "aotc.arch_prctl"
"""The system call that asks for permissions; a dot keeps it apart from all names in C."""


@dataclass(frozen=True, eq=False)
class Entry:
    """One entry function: its signature, the program that it runs and the plan of its workspace.

    ``digest`` is the SHA-256 of the model in hexadecimal; ``notes`` say something of parameters, by
    their name in the model: a sentence, in which {} stands for the parameter whose name follows.
    """

    signature: Signature
    program: Program
    plan: MemoryPlan
    digest: str = ""
    notes: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @classmethod
    def of(
        cls, program: Program, plan: MemoryPlan, weights_in_file: bool = False
    ) -> Entry:
        """The only entry of a program for one thread."""
        regions = tuple(part.region for part in plan.parts)
        signature = describe_signature(program, weights_in_file, regions=regions)
        return cls(signature, program, plan)


def models_of(entries: Sequence[Entry]) -> Iterator[tuple[Entry, ...]]:
    """The entries of each model: one, or one for each of its sizes."""
    for name in dict.fromkeys(entry.signature.name for entry in entries):
        yield tuple(entry for entry in entries if entry.signature.name == name)


def weights_marker(name: str, region: str = "") -> bytes:
    """The 64 bytes that stand for the constants of the module in one memory region (or in none)
    until its object is written."""
    place = f" in {region}" if region else ""
    return hashlib.sha512(f"aotc weights of {name}{place}".encode()).digest()


def emit_module(
    name: str, entries: Sequence[Entry], target: Target, constants: ConstantLayout
) -> str:
    """LLVM IR of all kernels, each once, and of the entry functions for ``target``.

    Each entry ``NAME_run`` has a second one ``NAME_run_threads`` if its signature asks for it,
    which shares the work among the threads of the caller's pool. A model with several sizes also
    has an entry that chooses among them (codegen/dispatch.py). ``constants`` are those of all
    entries. With weights in a file the entries take a pointer to its contents; otherwise the module
    ``name`` holds a marker of 64 bytes in place of the constants (see aotc/artifact/weights.py).
    """
    in_file = entries[0].signature.weights_in_file
    symbols = _kernel_symbols(entries, name, len(constants.stretches))
    parts = [f'source_filename = "{name}"', f'target triple = "{target.triple}"']
    if not in_file:
        parts += [
            marker_global(name, weights_symbol(name, number), target, stretch)
            for number, stretch in enumerate(constants.stretches)
            if stretch.size_bytes
        ]
    overlapping = overlapping_params((entry.program, entry.plan.offsets) for entry in entries)
    parts += [
        emit_kernel(kernel, target, symbol, overlapping=overlapping[kernel])
        for kernel, symbol in symbols.items()
    ]
    if any(entry.signature.tiles for entry in entries):
        parts.append(arch_prctl(_ARCH_PRCTL))
    base = _constants_base(name, constants, in_file)
    for entry in entries:
        parts.append(_emit_entry(entry, constants, base, symbols))
        if entry.signature.threads:
            parts.append(_emit_threads_entry(entry, constants, base, symbols))
    chosen = [model for model in models_of(entries) if model[0].signature.sizes]
    parts += [
        text for model in chosen for text in emit_dispatchers([e.signature for e in model])
    ]
    notes = [
        notes_text(e.program, e.plan, target, e.signature, constants.in_regions) for e in entries
    ]
    parts.append(emit_notes("\n".join(notes), target))
    return "\n\n".join(parts) + "\n"


def weights_symbol(name: str, number: int) -> str:
    """The constants of the module in one of its memory regions."""
    return f"{name}_weights{number or ''}"


def _kernel_symbols(entries: Sequence[Entry], prefix: str, stretches: int) -> dict[Kernel, str]:
    """A symbol for each kernel: the module's name, then the kernel's, numbered if it repeats or
    is that of one of the ``stretches`` of constants."""
    symbols: dict[Kernel, str] = {}
    taken = {weights_symbol(prefix, number) for number in range(stretches)}
    for signature in (entry.signature for entry in entries):
        taken |= {f"{signature.name}_{word}" for word in ("run", "run_threads")}
        taken |= {signature.run, signature.run_threads, signature.task}
    for kernel in dict.fromkeys(k for entry in entries for k in entry.program.kernels()):
        symbols[kernel] = kernel_symbol(prefix, kernel.name, taken)
    return symbols


def kernel_symbol(prefix: str, name: str, taken: set[str]) -> str:
    """A symbol for the kernel ``name`` that is not among those ``taken``, to which it is added."""
    base = symbol = f"{prefix}_{re.sub(r'[^A-Za-z0-9_]', '_', name)}"
    number = 2
    while symbol in taken:
        symbol = f"{base}_{number}"
        number += 1
    taken.add(symbol)
    return symbol


def marker_global(name: str, symbol: str, target: Target, stretch: Part) -> str:
    """The marker of constants, in a section of its own where the format lets that grow afterwards
    (ELF), else followed by room for all constants."""
    text = "".join(f"\\{byte:02X}" for byte in weights_marker(name, stretch.region))
    marker = f'[64 x i8] c"{text}"'
    align = f"align {WEIGHTS_ALIGNMENT}"
    if target.object_format == "elf":
        section = f'section "{weights_section(name, stretch.region)}"'
        return f"@{symbol} = internal constant {marker}, {section}, {align}"
    rest = f"[{max(0, stretch.size_bytes - 64)} x i8]"
    return (
        f"@{symbol} = internal constant <{{ [64 x i8], {rest} }}> "
        f"<{{ {marker}, {rest} zeroinitializer }}>, {align}"
    )


def _emit_entry(
    entry: Entry, constants: ConstantLayout, base: list[str], symbols: dict[Kernel, str]
) -> str:
    """The entry for one thread: checks of the pointers, then all kernels whole. The lines ``base``
    find the constants."""
    signature, program = entry.signature, entry.program
    # what is written overlaps nothing else (the header says so): state stays in registers
    written = {*(f"%out{i}" for i in range(len(signature.outputs))), *workspaces(signature)}
    head = ", ".join(
        f"ptr {'noalias ' * (param in written)}{param}" for param in parameters(signature)
    )
    lines = [f'define i32 @{signature.run}({head}) nounwind "no-builtins" {{']
    lines += _emit_checks(signature, entry.plan, constants)
    lines += base
    addresses = Addresses.of(program, entry.plan, constants, workspaces(signature))
    writer = StepWriter(addresses, symbols, return_failure)
    writer.block(program.steps)
    return "\n".join([*lines, *writer.lines, f"  ret i32 {Status.OK.value}", "}"])


def _emit_threads_entry(
    entry: Entry, constants: ConstantLayout, base: list[str], symbols: dict[Kernel, str]
) -> str:
    """The entry for a pool of threads, and the task that each of its threads runs: the same
    kernels, each part its share, and a barrier wherever a kernel may need what other parts
    wrote. The task finds its arguments, and a place for the status, in a record."""
    signature, program, task = entry.signature, entry.program, entry.signature.task
    params = parameters(signature)
    head = ", ".join(f"ptr {param}" for param in (*params, "%pool"))
    lines = [f'define i32 @{signature.run_threads}({head}) nounwind "no-builtins" {{']
    lines += _emit_checks(signature, entry.plan, constants, threads=True)
    if not any(has_parallel_loops(kernel.body) for kernel in program.kernels()):
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
    lines += base
    addresses = Addresses.of(program, entry.plan, constants, workspaces(signature))
    writer = PartWriter(addresses, symbols)
    writer.block(program.steps)
    return "\n".join([*lines, *writer.lines, "  ret void", "}"])


def _constants_base(name: str, constants: ConstantLayout, in_file: bool) -> list[str]:
    """The lines that define the bases of the constants."""
    if constants.size_bytes and in_file:
        return [f"  %constants = getelementptr i8, ptr %weights, i64 {WEIGHTS_HEADER_BYTES}"]
    # The constants are larger than the marker that LLVM sees. Passing the address through an
    # empty assembly statement keeps it from drawing conclusions about size or contents.
    symbols = {
        number: weights_symbol(name, number)
        for number, stretch in enumerate(constants.stretches)
        if stretch.size_bytes
    }
    return [
        f'  {constants_base(number)} = call ptr asm "", "=r,0"(ptr @{symbol})'
        for number, symbol in symbols.items()
    ]


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
    workspace = [
        (name, WORKSPACE_ALIGNMENT)
        for name, part in zip(workspaces(signature), plan.parts, strict=True)
        if part.size_bytes
    ]
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
    if signature.tiles:
        writer.lines += permission_check(_ARCH_PRCTL, "%no.tiles")
        writer.fail_if(Status.NO_TILES, ["%no.tiles"])
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
