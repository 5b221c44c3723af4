"""An object file in, the promises of aotc as checked on it out."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from aotc.audit.code import Function, read_functions, worst_stack
from aotc.audit.device import device_figures, device_promises, read_device
from aotc.audit.elf import SHF_ALLOC, SHF_EXECINSTR, SHF_WRITE, ElfObject, read_elf
from aotc.audit.promise import Promise
from aotc.codegen.notes import FORMAT, SECTION
from aotc.errors import ModelError
from aotc.memory.arena import least_height, relate

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
    if "device" in notes[0]:
        held = device_promises(elf, notes)
        held += [promise for note in notes for promise in _memory(note, alone=len(notes) == 1)]
        figures = device_figures(notes[0]["device"])
        return Audit(tuple(held), {**_figures(elf, notes, {}), **figures})
    functions = read_functions(elf)
    exported = [s.name for s in elf.symbols if s.section and not s.is_local]
    entries = [name for name in exported if name in functions]
    promises = [
        _undefined(elf),
        _writable(elf),
        _names(exported, notes),
        *_calls(functions, entries),
        *(promise for note in notes for promise in _memory(note, alone=len(notes) == 1)),
        *_constant_regions(elf, notes[0]),
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
    regions = {
        "parts": [_row(row, 4) for row in notes.get("parts", ())],
        "constants": [_row(row, 2) for row in notes.get("constants", ())],
    }
    overlaps = {(int(w), int(r)): int(ahead) for w, r, ahead in notes.get("overlaps", ())}
    if any(not 0 <= number < len(blocks) for pair in overlaps for number in pair):
        raise ValueError("no such block")
    device = {"device": read_device(notes)} if "device" in notes else {}
    return {
        **notes, **figures, **names, **regions, **device, "blocks": blocks, "overlaps": overlaps,
        "entry": names["entry"],
    }  # fmt: skip


def _row(row: Any, length: int) -> tuple[Any, ...]:
    """A name and ``length`` - 1 numbers that are not negative."""
    name, *numbers = row
    if len(numbers) != length - 1 or min(map(int, numbers)) < 0:
        raise ValueError("a row of another length")
    return (str(name), *map(int, numbers))


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
    """The arena holds every block, no two that are live together share a byte but as the notes
    say, and its size is near what is needed; in every memory region that has a part of it."""
    blocks = notes["blocks"]
    overlaps = []
    for i, (name, size, place, first, last) in enumerate(blocks):
        for j, (other, other_size, other_place, other_first, other_last) in enumerate(blocks[:i]):
            together = first <= other_last and other_first <= last
            meet = place < other_place + other_size and other_place < place + size
            if together and meet and not (_may_meet(notes, i, j) or _may_meet(notes, j, i)):
                overlaps.append(f"{other} and {name}")
    beyond = [name for name, size, place, *_ in blocks if place + size > notes["arena"]]
    beyond += _outside_parts(notes)
    arena = "arena" if alone else f"arena of {notes['entry']}"
    return [
        Promise(
            f"{arena}: blocks that are live together share nothing but what is read",
            not overlaps and not beyond,
            "; ".join(overlaps + [f"{name} lies outside" for name in beyond]) or "none does",
        ),
        *(promise for part in parts_of(notes) for promise in _part(arena, notes, *part)),
    ]


def _may_meet(notes: dict[str, Any], written: int, read: int) -> bool:
    """Whether the first block is a result that begins to live when its operand, the second, ends,
    and lies as far before it as the notes demand."""
    ahead = notes["overlaps"].get((written, read))
    (_, _, place, first, _), (_, _, behind, _, last) = (notes["blocks"][i] for i in (written, read))
    return ahead is not None and first == last and behind - place >= ahead


def parts_of(notes: dict[str, Any]) -> list[tuple[str, int, int, int, int]]:
    """The parts of the arena: region, start, bytes, lower bound and limit (0: none)."""
    if not notes["parts"]:
        return [("", 0, notes["arena"], notes["bound"], 0)]
    found, start = [], 0
    for region, size, bound, limit in notes["parts"]:
        found.append((region, start, size, bound, limit))
        start += size
    return found


def _least(notes: dict[str, Any], start: int, size: int) -> int:
    """The lower bound of one part of the arena: what the blocks need that begin in it."""
    alignment = max(1, notes["alignment"])
    blocks = notes["blocks"]
    inside = [i for i, block in enumerate(blocks) if start <= block[2] < start + size]
    sizes = [block[1] + -block[1] % alignment for block in blocks]
    whole = relate(sizes, [block[3:] for block in blocks], notes["overlaps"])
    return least_height(whole.only(inside), size)


def _outside_parts(notes: dict[str, Any]) -> list[str]:
    """The blocks that no part of the arena holds."""
    spans = [(start, start + size) for _, start, size, _, _ in parts_of(notes)]
    return [
        name
        for name, size, place, *_ in notes["blocks"]
        if place + size <= notes["arena"]
        and not any(low <= place and place + size <= high for low, high in spans)
    ]


def _part(
    arena: str, notes: dict[str, Any], region: str, start: int, size: int, bound: int, limit: int
) -> list[Promise]:
    """One part of the arena is near its lower bound, and within its region."""
    live = _least(notes, start, size)
    gap = size / live if live else 1.0
    where = f"{arena} in {region}" if region else arena
    found = [
        Promise(
            f"{where}: at most {MOST_GAP} times its lower bound",
            gap <= MOST_GAP and live == bound,
            f"{size} bytes, {gap:.3f} times {live}",
        )
    ]
    if limit:
        found.append(Promise(f"{where}: at most {limit} bytes", size <= limit, f"{size} bytes"))
    return found


def _constant_regions(elf: ElfObject, notes: dict[str, Any]) -> list[Promise]:
    """The sections of constants are within the memory regions that they are for."""
    found = []
    for name, limit in notes["constants"]:
        size = sum(section.size for section in elf.sections if section.name == name)
        claim = f"constants in {name}: at most {limit} bytes"
        found.append(Promise(claim, size <= limit, f"{size} bytes"))
    return found


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
    regions = [[region, size, limit] for region, _, size, _, limit in parts_of(largest) if region]
    _, live = peak(largest["blocks"], max(1, largest["alignment"]))
    return {
        "target": largest["target"],
        "cpu": largest["cpu"],
        "code_bytes": size_of(SHF_EXECINSTR),
        "constant_bytes": size_of(0),
        "arena_bytes": largest["arena"],
        **({"regions": regions} if regions else {}),
        "live_at_peak": [list(block) for block in live],
        "functions": len(functions),
        "instruction_sets": extensions or ["the base"],
    }
