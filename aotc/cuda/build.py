"""Planned programs of a model for GPUs and their constants in; device code, an object for the host,
header and manifest out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from aotc.artifact.bundle import Bundle
from aotc.artifact.header import HeaderFacts, write_header
from aotc.artifact.header_many import write_many_header
from aotc.artifact.manifest import Provenance, build_manifest
from aotc.artifact.weights import ObjectImage, embed_constants
from aotc.codegen.entry import WEIGHTS_HEADER_BYTES, Entry
from aotc.codegen.machine import compile_module
from aotc.codegen.notes import notes_text
from aotc.codegen.signature import Signature
from aotc.config import Options
from aotc.cuda.driver import native_arch, open_driver
from aotc.cuda.functions import functions_of
from aotc.cuda.header import device_declarations
from aotc.cuda.images import (
    DeviceCode,
    DeviceVariant,
    arch_order,
    is_exact,
    make_code,
    read_arch_names,
)
from aotc.cuda.model import DeviceModel, describe_model
from aotc.cuda.object import emit_device_object
from aotc.cuda.ptxas import Cubin
from aotc.errors import UsageError
from aotc.memory.arena import MemoryPlan
from aotc.memory.constants import ConstantLayout
from aotc.target import Target, resolve_target

HOSTS = ("x86_64", "aarch64")
"""The hosts of GPUs: the object has 64-bit addresses and is an ELF or COFF file."""


@dataclass(frozen=True, eq=False)
class DeviceObject:
    """The parts of an object for GPUs: the model with its code as it is run on some devices and on
    others, and the LLVM text of the module for the host with the object that LLVM made of it, the
    constants not yet in it."""

    variants: tuple[DeviceVariant, ...]
    host: Target
    llvm: str
    emitted: bytes

    @property
    def model(self) -> DeviceModel:
        """As it is run on the oldest devices."""
        return self.variants[0].model

    @property
    def code(self) -> DeviceCode:
        """That of the oldest devices."""
        return self.variants[0].code

    @property
    def sizes(self) -> int:
        """In how many sizes the model is in it."""
        return len(self.model.entries)

    @property
    def texts(self) -> dict[str, Callable[[], str]]:
        """What can be shown: the module for the host; the PTX of all variants, one after the other;
        and if there are several, that of each, as ``ptx sm_90a``."""
        each = {f"ptx {code.arch}": code.ptx for code in (v.code for v in self.variants)}
        found = {"llvm": self.llvm, "ptx": "\n".join(each.values())}
        if len(each) > 1:
            found |= each
        return {name: partial(str, text) for name, text in found.items()}


def archs_of(options: Options) -> tuple[str, ...]:
    """The architectures that code is made for, lowest first; UsageError for options that do not go
    with a GPU."""
    refused = {
        "--threads": options.threads,
        "--ram": options.ram is not None,
        "--region": bool(options.regions),
        "--recipes": options.recipes is not None,
        "--abi": options.abi is not None,
        "--opt size": options.opt == "size",
    }
    for flag, given in refused.items():
        if given:
            raise UsageError(f"{flag} does not go with --target cuda", remedy=f"leave out {flag}")
    if options.arch is None and options.cpu == "native":
        return (native_arch(open_driver()),)
    return read_arch_names(options.arch or options.cpu or "sm_80")


def host_of(options: Options) -> Target:
    """The machine that the object is linked on; UsageError unless it can have a GPU."""
    host = resolve_target(options.host)
    if host.name not in HOSTS or host.object_format == "macho":
        raise UsageError(
            f"there is no CUDA driver for {options.host}",
            remedy="use --host x86_64 or --host aarch64, or an LLVM triple of Linux or Windows",
        )
    return host


def families_of(options: Options) -> tuple[tuple[str, ...], ...]:
    """The architectures that code is made for, those of equal instructions together and lowest
    first: kernels are lowered for the first of each. UsageError for options that do not go with a
    GPU, or a host that cannot have one."""
    host_of(options)
    archs = archs_of(options)
    plain = tuple(arch for arch in archs if not is_exact(arch))
    exact = tuple((arch,) for arch in archs if is_exact(arch))
    return (plain, *exact) if plain else exact


def build_object(
    entries: Sequence[Entry], constants: ConstantLayout, options: Options
) -> DeviceObject:
    """The object of one model: ``entries`` are its sizes as they are lowered for each family of
    architectures, one after the other. What is the same for several families is in the object
    once. Errors as for `make_code`."""
    host, families = host_of(options), families_of(options)
    sizes = len(entries) // len(families)
    merged: list[tuple[DeviceModel, list[str], Sequence[Entry]]] = []
    for number, archs in enumerate(families):
        own = entries[number * sizes : (number + 1) * sizes]
        model = describe_model([(entry.program, entry.plan) for entry in own], constants)
        same = [known for known in merged if known[0].does_the_same(model)]
        if same:
            same[0][1].extend(archs)
        else:
            merged.append((model, list(archs), own))
    made = [
        DeviceVariant(model, make_code(model.sources, sorted(archs, key=arch_order)))
        for model, archs, _ in merged
    ]
    kept = [entry for _, _, own in merged for entry in own]
    signatures = [entry.signature for entry in entries[:sizes]]
    notes = [notes_text(entry.program, entry.plan, host, entry.signature) for entry in kept]
    first = kept[0]
    notes[0] = notes_text(
        first.program, first.plan, host, first.signature, device=_notes(signatures, made)
    )
    text = emit_device_object(made, signatures, constants, host, "\n".join(notes))
    return DeviceObject(tuple(made), host, text, compile_module(text, host))


def _notes(signatures: Sequence[Signature], variants: Sequence[DeviceVariant]) -> dict[str, Any]:
    """What `aotc audit` is told of the device code."""
    entries = {signature.run for signature in signatures}
    return {
        "functions": [name for name in functions_of(signatures).names if name not in entries],
        "variants": [
            {
                "ptx": variant.code.arch,
                "kernels": [kernel.name for kernel in variant.model.kernels],
                "cubins": {cubin.arch: _taken(variant, cubin) for cubin in variant.code.cubins},
            }
            for variant in variants
        ],
    }


def _taken(variant: DeviceVariant, cubin: Cubin) -> list[list[str | int]]:
    """Registers, bytes of shared memory and spilled bytes of each kernel. The shared memory is that
    of a launch, of which ``ptxas`` does not know."""
    shared = {kernel.name: kernel.launch.shared_bytes for kernel in variant.model.kernels}
    return [
        [use.name, use.registers, use.shared_bytes + shared[use.name], use.spill_load_bytes]
        for use in cubin.kernels
    ]


def make_device_bundle(
    entries: Sequence[Entry], constants: ConstantLayout, made: DeviceObject, provenance: Provenance
) -> Bundle:
    """The object with constants, header and manifest; ``entries`` are those of the first variant.
    UsageError when the constants are too many for one object."""
    name = entries[0].signature.name
    manifest = build_manifest(name, entries, constants, len(made.emitted), provenance)
    manifest["cuda"] = {
        "host": made.host.triple,
        "variants": [_about(variant) for variant in made.variants],
    }
    facts = HeaderFacts(
        workspaces=[("", 0)],
        target=provenance.target,
        version=provenance.versions["aotc"],
        digest=entries[0].digest,
        weights_bytes=WEIGHTS_HEADER_BYTES + constants.size_bytes,
        weights_digest=manifest["weights"]["sha256"],
        sections=False,
    )
    header = _header(entries, made, facts)
    if entries[0].signature.weights_in_file:
        image = ObjectImage(made.emitted, None)
        return Bundle(name, tuple(entries), image, header, manifest, constants)
    image = embed_constants(made.emitted, name, constants)
    return Bundle(name, tuple(entries), image, header, manifest, None)


def _header(entries: Sequence[Entry], made: DeviceObject, facts: HeaderFacts) -> str:
    """The C header. On the host a model for GPUs needs no workspace."""
    signatures = [entry.signature for entry in entries]
    waits = any(end - first > 1 for first, end in (e.steps for e in made.model.entries))
    more = device_declarations(signatures, waits)
    if not signatures[0].sizes:
        return write_header(signatures[0], facts, entries[0].notes, more)
    empty = MemoryPlan({}, 0, 0, entries[0].plan.alignment)
    on_host = [replace(entry, plan=empty) for entry in entries]
    return write_many_header(signatures[0].name, on_host, facts, more)


def _about(variant: DeviceVariant) -> dict[str, Any]:
    """What the manifest says of the device code."""
    return {
        "ptx": variant.code.arch,
        "driver": variant.code.driver,
        "arena_bytes": variant.model.arena_bytes,
        "constants_bytes": variant.model.constants.size_bytes,
        "cubins": [
            {"arch": cubin.arch, "kernels": [dataclasses.asdict(use) for use in cubin.kernels]}
            for cubin in variant.code.cubins
        ],
        "kernels": [
            {"name": kernel.name, **dataclasses.asdict(kernel.launch)}
            for kernel in variant.model.kernels
        ],
        "launches": len(variant.model.launches),
    }
