"""The machine code of one object in; for each function its stack, its calls and its instructions
out.

Disassembly is capstone's. Of the stack, only what LLVM's prologues do is understood: registers
pushed, a constant subtracted, an alignment; anything else that changes the stack pointer makes the
stack unknown, never smaller.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from aotc.audit.elf import ElfObject, Symbol
from aotc.errors import UsageError

_VLENB = 0xC22  # the control register of RISC-V that tells the length of a vector register

VECTOR_BYTES = 16
"""Of RISC-V's vector registers: the least that code with vectors is compiled for."""

Instruction = tuple[int, str, str]
"""Address, mnemonic and operands; the mnemonic is ``.unknown`` where capstone has none."""


@dataclass
class Function:
    """``stack_bytes`` is its own frame, None when it cannot be told; ``calls`` are the functions it
    calls by symbol, ``indirect`` counts calls through a pointer. ``vector_stack`` is how many
    vector registers of RISC-V's run-time size the frame holds as well."""

    name: str
    size: int
    stack_bytes: int | None = 0
    calls: set[str] = field(default_factory=set)
    indirect: int = 0
    vector_stack: int = 0
    extensions: set[str] = field(default_factory=set)


def read_functions(elf: ElfObject) -> dict[str, Function]:
    """Every function that the object defines, by name. UsageError without capstone."""
    defined = [s for s in elf.symbols if s.is_function and s.section and s.size]
    functions = {}
    for symbol in defined:
        function = Function(symbol.name, symbol.size)
        _scan(elf, symbol, defined, function)
        functions[symbol.name] = function
    return functions


def worst_stack(
    functions: Mapping[str, Function], entry: str, known: re.Pattern[str]
) -> tuple[int | None, list[str]]:
    """The deepest stack below ``entry`` in bytes and the chain of calls that reaches it; None when
    a function in it cannot be told, or when calls form a cycle.

    Functions of others whose names match ``known`` count nothing; RISC-V's vectors have 128 bits.
    """
    done: dict[str, tuple[int | None, list[str]]] = {}

    def deepest(name: str, above: frozenset[str]) -> tuple[int | None, list[str]]:
        if name in above:
            return None, [name]
        if name not in done:
            function = functions.get(name)
            best: tuple[int | None, list[str]] = (0, [])
            for callee in sorted(function.calls if function else ()):
                found = deepest(callee, above | {name})
                if best[0] is not None and (found[0] is None or found[0] > best[0]):
                    best = found
            own = 0 if known.fullmatch(name) else None
            if function is not None and function.stack_bytes is not None:
                own = function.stack_bytes + VECTOR_BYTES * function.vector_stack
            total = None if own is None or best[0] is None else own + best[0]
            done[name] = (total, [name, *best[1]])
        return done[name]

    return deepest(entry, frozenset())


def _scan(elf: ElfObject, symbol: Symbol, defined: list[Symbol], function: Function) -> None:
    rules = _RULES[elf.machine]
    content = elf.sections[symbol.section].content
    start = symbol.value & ~1 if elf.machine == "arm" else symbol.value
    data = content[start : start + symbol.size]
    targets = {
        offset: elf.symbols[index]
        for section, offset, index in elf.relocations
        if section == symbol.section and start <= offset < start + symbol.size
    }
    places = {s.value & ~1 if elf.machine == "arm" else s.value: s.name for s in defined}
    literals = _literals(elf, symbol, start)
    scales = VectorLengths() if elf.machine == "riscv" else None
    page: tuple[str, int] | None = None  # what RISC-V's last auipc put where
    for address, mnemonic, operands in _instructions(elf, data, start):
        if any(first <= address < last for first, last in literals):
            continue
        function.extensions.update(_extensions(mnemonic, operands, elf.machine))
        if re.match(rules.call, mnemonic):
            around = range(address - rules.before, address + 8 - rules.before)
            relocated = next((targets[o] for o in around if o in targets), None)
            if relocated is not None:
                name = relocated.name or places.get(relocated.value, "?")
                function.calls.add(name)
            elif (goal := _goal(elf.machine, address, mnemonic, operands, page)) is not None:
                if not start < goal < start + symbol.size:  # Thumb jumps far as it calls
                    function.calls.add(places.get(goal, "?"))
            else:
                function.indirect += 1
            continue
        if mnemonic == "auipc":
            register, high = operands.split(", ")
            page = (register, address + (int(high, 0) << 12))
        if scales is not None and (multiple := scales.step(mnemonic, operands)):
            function.vector_stack += multiple
            continue
        grown = rules.stack(mnemonic, operands)
        if grown is None or function.stack_bytes is None:
            function.stack_bytes = None
        else:
            function.stack_bytes += grown
    if function.stack_bytes is not None:
        function.stack_bytes += rules.return_address


def _goal(
    machine: str, address: int, mnemonic: str, operands: str, page: tuple[str, int] | None
) -> int | None:
    """Where a call without a relocation goes; None when it goes through a register."""
    *before, last = operands.split(", ")
    found = re.fullmatch(r"#?(-?(?:0x[0-9a-f]+|\d+))", last)
    if found is None:
        return None
    value = int(found[1], 0)
    if machine != "riscv":
        return value
    if not mnemonic.endswith("jalr"):
        return address + value
    if page is None or before[-1] != page[0]:
        return None
    return (page[1] + value) & 0xFFFFFFFF


def _literals(elf: ElfObject, symbol: Symbol, start: int) -> list[tuple[int, int]]:
    """Ranges of data between the instructions, as the mapping symbols of Arm ($a, $t, $d) say."""
    marks = sorted(
        (s.value, s.name[1])
        for s in elf.symbols
        if s.section == symbol.section and s.name[:2] in ("$a", "$t", "$d", "$x")
    )
    end = start + symbol.size
    following = [place for place, _ in marks[1:]] + [end] * bool(marks)
    return [
        (place, after)
        for (place, kind), after in zip(marks, following, strict=True)
        if kind == "d" and place < end and after > start
    ]


def _instructions(elf: ElfObject, data: bytes, start: int) -> Iterator[Instruction]:
    """Each instruction; what capstone does not know (MVE) is stepped over by its length."""
    disassembler = _disassembler(elf)
    at = 0
    while at < len(data):
        size = _length(elf, data, at)
        piece = data[at : at + (size or 16)]
        found = next(disassembler.disasm_lite(piece, start + at, 1), None)
        if found is None:
            yield start + at, ".unknown", ""
            at += size or 1
        else:
            address, length, mnemonic, operands = found
            yield address, mnemonic, operands
            at += length


def _length(elf: ElfObject, data: bytes, at: int) -> int:
    """Bytes of the instruction at ``at`` where the first of them tell; 0 for x86."""
    if elf.machine == "aarch64":
        return 4
    if elf.machine == "arm" and not elf.is_thumb:
        return 4
    if elf.machine == "arm":
        return 4 if data[at + 1] >> 3 in (0x1D, 0x1E, 0x1F) else 2
    if elf.machine == "riscv":
        return 4 if data[at] & 3 == 3 else 2
    return 0


def _disassembler(elf: ElfObject) -> Any:
    try:
        import capstone
    except ImportError:
        raise UsageError(
            "an audit disassembles with capstone, which is not installed",
            remedy="pip install 'aotc[audit]'",
        ) from None
    thumb = capstone.CS_MODE_THUMB | capstone.CS_MODE_V8 | capstone.CS_MODE_MCLASS
    modes = {
        "x86_64": (capstone.CS_ARCH_X86, capstone.CS_MODE_64),
        "x86": (capstone.CS_ARCH_X86, capstone.CS_MODE_32),
        "aarch64": (capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM),
        "arm": (capstone.CS_ARCH_ARM, thumb if elf.is_thumb else capstone.CS_MODE_ARM),
        "riscv": (
            capstone.CS_ARCH_RISCV,
            (capstone.CS_MODE_RISCV64 if elf.bits == 64 else capstone.CS_MODE_RISCV32)
            | capstone.CS_MODE_RISCVC,
        ),
    }
    return capstone.Cs(*modes[elf.machine])


def _number(text: str) -> int:
    return int(text.strip().lstrip("#"), 0)


def _x86_stack(mnemonic: str, operands: str) -> int | None:
    if mnemonic == "push":
        return 8
    if operands.startswith("rsp, ") and mnemonic in ("sub", "and"):
        amount = operands.split(", ")[1]
        if not re.fullmatch(r"-?(0x)?[0-9a-f]+", amount):
            return None
        value = int(amount, 0)
        if mnemonic == "sub":
            return value
        return -(value - (1 << 64)) - 1 if value > 0 else -value - 1
    if operands.startswith("rsp, ") and mnemonic not in ("add", "lea", "mov", "cmp", "test"):
        return None
    return 0


def _arm_stack(mnemonic: str, operands: str) -> int | None:
    name = mnemonic.removesuffix(".w")
    if name in ("push", "stmdb") and (name == "push" or operands.startswith("sp!")):
        return 4 * _registers(operands)
    if name == "vpush" or (name.startswith("vstmdb") and operands.startswith("sp!")):
        return (4 if "{s" in operands else 8) * _registers(operands)
    if re.match(r"subw?$", name) and operands.startswith("sp, "):
        parts = operands.split(", ")
        return _number(parts[-1]) if parts[-1].startswith("#") else None
    if name in ("str", "strd") and (found := re.search(r"\[sp, #-(\w+)\]!", operands)):
        return int(found[1], 0)
    if name in ("bfc", "bic") and operands.startswith("sp"):
        return 63
    if name == "mov" and operands.startswith("sp, "):
        return 63  # the aligned copy goes back, or the frame pointer is restored
    return 0


def _registers(operands: str) -> int:
    inside = operands[operands.index("{") + 1 : operands.index("}")]
    total = 0
    for part in inside.split(","):
        ends = re.findall(r"\d+", part)
        total += int(ends[1]) - int(ends[0]) + 1 if "-" in part and len(ends) == 2 else 1
    return total


def _aarch64_stack(mnemonic: str, operands: str) -> int | None:
    if mnemonic == "sub" and operands.startswith("sp, sp, "):
        found = re.fullmatch(r"sp, sp, #(\w+)(?:, lsl #(\d+))?", operands)
        return int(found[1], 0) << int(found[2] or 0) if found else None
    if mnemonic == "sub" and re.match(r"x\d+, sp, #", operands):
        return _number(operands.split(", ")[2])  # before the alignment of sp
    if mnemonic == "and" and operands.startswith("sp, "):
        return 63
    if found := re.search(r"\[sp, #-(\w+)\]!", operands):
        return int(found[1], 0)
    return 0


def _riscv_stack(mnemonic: str, operands: str) -> int | None:
    name = mnemonic.removeprefix("c.")
    if name in ("addi", "addi16sp") and operands.startswith("sp, "):
        value = _number(operands.split(", ")[-1])
        return max(0, -value)
    if name == "andi" and operands.startswith("sp, "):
        return 63
    if name == "sub" and operands.startswith("sp, "):
        return None  # a multiple of the vector length
    return 0


class VectorLengths:
    """Which registers of RISC-V hold a multiple of the length of a vector register, and which a
    number: what is computed in another way is neither."""

    def __init__(self) -> None:
        self._multiples: dict[str, int] = {}
        self._numbers: dict[str, int] = {}

    def step(self, mnemonic: str, operands: str) -> int:
        """Follows one instruction; the vector registers by which it lowers the stack pointer."""
        name = mnemonic.removeprefix("c.")
        parts = [part.strip() for part in operands.split(",")]
        if name in ("sub", "neg") and parts[0] == "sp":
            return self._multiples.get(parts[-1], 0)
        number = None
        if name == "li" or (name == "addi" and len(parts) == 3 and parts[1] == "zero"):
            number = int(parts[-1], 0)
        multiple = self._multiple(name, parts[-2:])
        for known, value in ((self._numbers, number), (self._multiples, multiple)):
            known.pop(parts[0], None)
            if value is not None:
                known[parts[0]] = value
        return 0

    def _multiple(self, name: str, sources: list[str]) -> int | None:
        """What an instruction makes of its sources, in lengths of a vector register."""
        first, last = sources[0], sources[-1]
        known, numbers = self._multiples, self._numbers
        if name == "csrr" and last in ("vlenb", str(_VLENB), hex(_VLENB)):
            return 1
        if name == "slli" and first in known:
            return known[first] << int(last, 0)
        if name == "mul" and first in known and last in numbers:
            return known[first] * numbers[last]
        if name == "mul" and first in numbers and last in known:
            return numbers[first] * known[last]
        if name in ("add", "sub") and first in known and last in known:
            return known[first] + (known[last] if name == "add" else -known[last])
        return None


@dataclass(frozen=True)
class _Rules:
    """How one architecture calls (a pattern of mnemonics) and grows its stack; a relocation of a
    call may stand ``before`` bytes ahead of it."""

    call: str
    stack: Callable[[str, str], int | None]
    return_address: int = 0
    before: int = 0


_RULES: Mapping[str, _Rules] = MappingProxyType(
    {
        "x86_64": _Rules(r"call", _x86_stack, 8),
        "aarch64": _Rules(r"blr?$", _aarch64_stack),
        "arm": _Rules(r"blx?(\.w)?$", _arm_stack),
        "riscv": _Rules(r"(c\.)?(jal|jalr|call)$", _riscv_stack, before=4),
    }
)

_NAMES = (
    ("x86_64", r"zmm|\{k\d\}|%?k[0-7]\b", "AVX-512"),
    ("x86_64", r"ymm", "AVX2"),
    ("x86_64", r"^vfn?m(add|sub)", "FMA"),
    ("aarch64", r"\bz\d+\.", "SVE"),
    ("aarch64", r"\bv\d+\.", "NEON"),
    ("arm", r"^v.*\bq\d+", "NEON"),
    ("arm", r"^v(?!.*\bq\d)", "VFP"),
    ("arm", r"^\.unknown", "MVE"),
    ("riscv", r"^v|^\.unknown", "V"),
    ("riscv", r"^f", "F"),
)


def _extensions(mnemonic: str, operands: str, machine: str) -> set[str]:
    text = f"{mnemonic} {operands}"
    return {name for on, pattern, name in _NAMES if on == machine and re.search(pattern, text)}
