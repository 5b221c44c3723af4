"""An object for GPUs and its notes in, the promises about what is on the host and figures of the
kernels out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aotc.audit.elf import SHF_ALLOC, SHF_WRITE, ElfObject
from aotc.audit.promise import Promise

LOADER = "aotc_cuda_"
"""What the symbols of runtime/aotc_cuda.c start with."""
_TABLES = ".data.rel.ro"  # addresses that the linker fills in, read-only when the program runs


def read_device(notes: dict[str, Any]) -> dict[str, Any]:
    """The part of the notes that is about GPUs; ValueError, KeyError or TypeError when damaged."""
    device = notes["device"]
    return {
        "functions": [str(name) for name in device["functions"]],
        "variants": [_read_variant(variant) for variant in device["variants"]],
    }


def _read_variant(variant: dict[str, Any]) -> dict[str, Any]:
    return {
        "ptx": str(variant["ptx"]),
        "kernels": [str(name) for name in variant["kernels"]],
        "cubins": {
            str(arch): [(str(name), *map(int, figures)) for name, *figures in rows]
            for arch, rows in variant["cubins"].items()
        },
    }


def device_promises(elf: ElfObject, notes: Sequence[dict[str, Any]]) -> list[Promise]:
    """What an object for GPUs needs, what it changes, and what it is called by; ``notes`` are those
    on each entry, the first with what there is to say of the device code."""
    device = notes[0]["device"]
    undefined = sorted({s.name for s in elf.symbols if not s.section and s.name})
    foreign = [name for name in undefined if not name.startswith(LOADER)]
    writable = [
        f"{section.name} ({section.size} bytes)"
        for section in elf.sections
        if section.flags & SHF_WRITE
        and section.flags & SHF_ALLOC
        and section.size
        and section.name != _TABLES
    ]
    exported = {s.name for s in elf.symbols if s.section and not s.is_local}
    entries = dict.fromkeys(note["entry"] for note in notes)
    wanted = [*entries, *device["functions"]]
    return [
        Promise(
            "undefined symbols: those of runtime/aotc_cuda.c only",
            not foreign,
            ", ".join(undefined) or "none",
        ),
        Promise("writable data: none", not writable, ", ".join(writable) or "none"),
        Promise(
            f"global symbols: {', '.join(wanted)} only",
            exported == set(wanted),
            ", ".join(sorted(exported)) or "none",
        ),
    ]


def device_figures(device: dict[str, Any]) -> dict[str, Any]:
    """For each architecture with a cubin, what each kernel takes."""
    variants = device["variants"]
    found: dict[str, Any] = {
        "ptx": ", ".join(variant["ptx"] for variant in variants),
        "kernels": sum(len(variant["kernels"]) for variant in variants),
    }
    for arch, rows in (item for variant in variants for item in variant["cubins"].items()):
        found[arch] = [
            f"{name}: {registers} registers, {shared} bytes shared, {spilled} bytes spilled"
            for name, registers, shared, spilled in rows
        ]
    return found
