"""An object file in, the promises of aotc as checked on it out."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from aotc.audit.code import Function, read_functions, worst_stack
from aotc.audit.elf import SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, ElfObject, read_elf
from aotc.codegen.notes import FORMAT, SECTION
from aotc.errors import ModelError

MOST_STACK_BYTES = 1024
MOST_STACK_BYTES_HOSTED = 4096
"""Under an operating system, whose threads have a thousand times as much: there speed decides how
much a kernel keeps in its frame."""

MOST_GAP = 1.02

_FOR_THREADS = re.compile(r"_run(_\d+)*_threads$|_task(_\d+)*$")

#: Helpers of compilers for arithmetic that a processor lacks; linked from libgcc or compiler-rt.
COMPILER_RUNTIME = re.compile(
    r"__aeabi_\w+|__(add|sub|mul|div|gt|lt|ge|le|eq|ne|unord)[sdt]f[23]|__float\w+|__fix\w+|"
    r"__(mul|div|udiv|mod|umod|ashl|lshr|ashr)[sdt]i3|__(extend|trunc)\w+|_fltused"
)


@dataclass(frozen=True)
class Promise:
    """One claim, whether it holds, and what was found."""

    claim: str
    holds: bool
    found: str


@dataclass(frozen=True)
class Audit:
    """All promises, and figures that are no promise."""

    promises: tuple[Promise, ...]
    figures: dict[str, Any]

    @property
    def holds(self) -> bool:
        return all(promise.holds for promise in self.promises)


def audit_object(data: bytes) -> Audit:
    """Checks an object that ``aotc compile`` wrote, from its bytes alone.

    ModelError when it is not such an object, or damaged; UsageError when capstone is missing.
    """
    elf = read_elf(data)
    notes = _notes(elf)
    functions = read_functions(elf)
    exported = [s.name for s in elf.symbols if s.section and not s.is_local]
    entries = [name for name in exported if name in functions]
    promises = [
        _undefined(elf),
        _writable(elf),
        _names(exported, notes),
        *_calls(functions, entries),
        *(promise for note in notes for promise in _memory(note, alone=len(notes) == 1)),
    ]
    stacks = {name: worst_stack(functions, name, COMPILER_RUNTIME) for name in entries}
    most = MOST_STACK_BYTES if notes[0]["bare"] else MOST_STACK_BYTES_HOSTED
    promises += [_stack(name, most, *found) for name, found in stacks.items()]
    return Audit(tuple(promises), _figures(elf, notes, functions))


def _notes(elf: ElfObject) -> list[dict[str, Any]]:
    """What the object says of each of its entries."""
    found = [section for section in elf.sections if section.name == SECTION]
    remedy = "give an object that `aotc compile` of this version wrote"
    if len(found) != 1:
        raise ModelError("the object holds no notes of aotc", remedy=remedy)
    try:
        return [_read_note(line) for line in found[0].content.split(b"\n")]
    except (ValueError, KeyError, TypeError):
        raise ModelError("the notes of aotc in the object are damaged", remedy=remedy) from None


def _read_note(line: bytes) -> dict[str, Any]:
    notes = json.loads(line)
    blocks = [(str(n), *map(int, numbers)) for n, *numbers in notes["blocks"]]
    figures = {key: int(notes[key]) for key in ("arena", "bound", "alignment", "bare")}
    if notes["format"] != FORMAT or any(len(block) != 5 for block in blocks):
        raise ValueError("another format")
    names = {key: str(notes[key]) for key in ("entry", "dispatcher") if key in notes}
    return {**notes, **figures, **names, "blocks": blocks, "entry": names["entry"]}


def _undefined(elf: ElfObject) -> Promise:
    names = sorted({s.name for s in elf.symbols if not s.section and s.name})
    foreign = [name for name in names if not COMPILER_RUNTIME.fullmatch(name)]
    helpers = [name for name in names if name not in foreign]
    found = ", ".join(foreign) or "none"
    if helpers:
        found += f"; of the compiler's runtime: {', '.join(helpers)}"
    return Promise("undefined symbols: none", not foreign, found)


def _writable(elf: ElfObject) -> Promise:
    sections = [
        f"{section.name} ({section.size} bytes)"
        for section in elf.sections
        if section.flags & SHF_WRITE and section.flags & SHF_ALLOC and section.size
    ]
    return Promise("writable data: none", not sections, ", ".join(sections) or "none")


def _names(exported: list[str], notes: list[dict[str, Any]]) -> Promise:
    entries = [note["entry"] for note in notes]
    entries += [note["dispatcher"] for note in notes if "dispatcher" in note]
    entries = list(dict.fromkeys(entries))
    others = set(exported) - {name for entry in entries for name in (entry, f"{entry}_threads")}
    holds = set(entries) <= set(exported) and not others
    claim = f"global symbols: {', '.join(entries)} only"
    return Promise(claim, holds, ", ".join(sorted(exported)) or "none")


def _calls(functions: dict[str, Function], entries: list[str]) -> list[Promise]:
    cycles = [name for name in functions if _reaches(functions, name, name)]
    # the entry for threads calls the pool that it is given
    allowed = {name for name in functions if _FOR_THREADS.search(name)}
    indirect = sorted(
        name for name, function in functions.items() if function.indirect and name not in allowed
    )
    return [
        Promise("recursion: none", not cycles, ", ".join(sorted(cycles)) or "none"),
        Promise("calls through pointers: none", not indirect, ", ".join(indirect) or "none"),
    ]


def _reaches(functions: dict[str, Function], start: str, goal: str) -> bool:
    seen: set[str] = set()
    work = list(functions[start].calls)
    while work:
        name = work.pop()
        if name == goal:
            return True
        if name not in seen and name in functions:
            seen.add(name)
            work.extend(functions[name].calls)
    return False


def _stack(entry: str, most: int, total: int | None, chain: list[str]) -> Promise:
    claim = f"stack of {entry}: at most {most} bytes"
    path = " > ".join(chain)
    if total is None:
        return Promise(claim, False, f"cannot be told: {path}")
    return Promise(claim, total <= most, f"{total} bytes: {path}")


def _memory(notes: dict[str, Any], alone: bool) -> list[Promise]:
    """The arena holds every block, no two that are live together share a byte, and its size is
    near the most that is live at once."""
    alignment = max(1, notes["alignment"])
    blocks = notes["blocks"]
    overlaps = []
    for i, (name, size, place, first, last) in enumerate(blocks):
        for other, other_size, other_place, other_first, other_last in blocks[:i]:
            together = first <= other_last and other_first <= last
            if together and place < other_place + other_size and other_place < place + size:
                overlaps.append(f"{other} and {name}")
    beyond = [name for name, size, place, *_ in blocks if place + size > notes["arena"]]
    live, _ = peak(blocks, alignment)
    gap = notes["arena"] / live if live else 1.0
    arena = "arena" if alone else f"arena of {notes['entry']}"
    return [
        Promise(
            f"{arena}: blocks that are live together share nothing",
            not overlaps and not beyond,
            "; ".join(overlaps + [f"{name} lies outside" for name in beyond]) or "none does",
        ),
        Promise(
            f"{arena}: at most {MOST_GAP} times its lower bound",
            gap <= MOST_GAP and live == notes["bound"],
            f"{notes['arena']} bytes, {gap:.3f} times {live}",
        ),
    ]


def peak(
    blocks: list[tuple[str, int, int, int, int]], alignment: int
) -> tuple[int, list[tuple[str, int]]]:
    """The most bytes that are live at once, and the blocks (name, bytes) that are."""
    best: tuple[int, list[tuple[str, int]]] = (0, [])
    for moment in sorted({first for _, _, _, first, _ in blocks}):
        live = [
            (name, size + -size % alignment)
            for name, size, _, first, last in blocks
            if first <= moment <= last
        ]
        total = sum(size for _, size in live)
        if total > best[0]:
            best = (total, live)
    return best


def _figures(
    elf: ElfObject, notes: list[dict[str, Any]], functions: dict[str, Function]
) -> dict[str, Any]:
    def size_of(flags: int) -> int:
        return sum(
            section.size
            for section in elf.sections
            if section.flags & SHF_ALLOC and section.flags & (SHF_WRITE | SHF_EXECINSTR) == flags
        )

    extensions = sorted({name for function in functions.values() for name in function.extensions})
    largest = max(notes, key=lambda note: int(note["arena"]))
    _, live = peak(largest["blocks"], max(1, largest["alignment"]))
    return {
        "target": largest["target"],
        "cpu": largest["cpu"],
        "code_bytes": size_of(SHF_EXECINSTR),
        "constant_bytes": size_of(0),
        "arena_bytes": largest["arena"],
        "live_at_peak": [list(block) for block in live],
        "functions": len(functions),
        "instruction_sets": extensions or ["the base"],
    }
