"""A planned program for GPUs and its constants in; device code, an object for the host, header and
manifest out."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from aotc.artifact.bundle import Bundle
from aotc.artifact.header import HeaderFacts, write_header
from aotc.artifact.manifest import Provenance, build_manifest
from aotc.artifact.weights import embed_constants
from aotc.codegen.entry import Entry
from aotc.codegen.machine import compile_module
from aotc.codegen.notes import notes_text
from aotc.config import Options
from aotc.cuda.driver import native_arch, open_driver
from aotc.cuda.header import device_declarations
from aotc.cuda.images import DeviceCode, make_code, read_arch_names
from aotc.cuda.model import DeviceModel, describe_model
from aotc.cuda.object import emit_device_object, functions_of
from aotc.errors import UsageError
from aotc.memory.constants import ConstantLayout
from aotc.target import Target, resolve_target

HOSTS = ("x86_64", "aarch64")
"""The hosts of GPUs: the object has 64-bit addresses and is an ELF or COFF file."""


@dataclass(frozen=True, eq=False)
class DeviceObject:
    """The parts of an object for GPUs: what is launched, its code, and the LLVM text of the module
    for the host with the object that LLVM made of it, the constants not yet in it."""

    model: DeviceModel
    code: DeviceCode
    host: Target
    llvm: str
    emitted: bytes


def archs_of(options: Options) -> tuple[str, ...]:
    """The architectures that code is made for, lowest first; UsageError for options that do not go
    with a GPU."""
    refused = {
        "--threads": options.threads,
        "--weights file": options.weights == "file",
        "--ram": options.ram is not None,
        "--region": bool(options.regions),
        "--recipes": options.recipes is not None,
        "--abi": options.abi is not None,
        "--opt size": options.opt == "size",
        "a list of sizes (--dim)": bool(options.sizes),
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


def lowest_arch(options: Options) -> str:
    """The architecture that kernels are lowered for; UsageError for options that do not go with a
    GPU, or a host that cannot have one."""
    host_of(options)
    return archs_of(options)[0]


def build_object(entry: Entry, constants: ConstantLayout, options: Options) -> DeviceObject:
    """The object of one model. Errors as for `make_code`."""
    archs, host = archs_of(options), host_of(options)
    model = describe_model(entry.program, entry.plan, constants)
    code = make_code(model.sources, archs)
    notes = notes_text(
        entry.program, entry.plan, host, entry.signature, device=_notes(entry, model, code)
    )
    text = emit_device_object(model, code, entry.signature, constants, host, notes)
    return DeviceObject(model, code, host, text, compile_module(text, host))


def _notes(entry: Entry, model: DeviceModel, code: DeviceCode) -> dict[str, Any]:
    """What `aotc audit` is told of the device code."""
    cubins = {
        cubin.arch: [
            [use.name, use.registers, use.shared_bytes, use.spill_load_bytes]
            for use in cubin.kernels
        ]
        for cubin in code.cubins
    }
    return {
        "functions": list(dataclasses.astuple(functions_of(entry.signature))),
        "ptx": code.arch,
        "kernels": [kernel.name for kernel in model.kernels],
        "cubins": cubins,
    }


def make_device_bundle(
    entry: Entry, constants: ConstantLayout, made: DeviceObject, provenance: Provenance
) -> Bundle:
    """The object with constants, header and manifest. UsageError when the constants are too many
    for one object."""
    name = entry.signature.name
    manifest = build_manifest(name, [entry], constants, len(made.emitted), provenance)
    manifest["cuda"] = _about(made)
    facts = HeaderFacts(
        workspaces=[("", 0)],
        target=provenance.target,
        version=provenance.versions["aotc"],
        digest=entry.digest,
        weights_bytes=constants.size_bytes,
        weights_digest=manifest["weights"]["sha256"],
        sections=False,
    )
    more = device_declarations(entry.signature, len(made.model.steps) > 1)
    header = write_header(entry.signature, facts, entry.notes, more)
    try:
        image = embed_constants(made.emitted, name, constants)
    except UsageError as error:
        raise UsageError(
            error.message,
            remedy="compile parts of the model to objects of their own, with --outputs",
        ) from None
    return Bundle(name, (entry,), image, header, manifest, None)


def _about(made: DeviceObject) -> dict[str, Any]:
    """What the manifest says of the device code."""
    kernels = [
        {"name": kernel.name, **dataclasses.asdict(kernel.launch)} for kernel in made.model.kernels
    ]
    cubins = [
        {"arch": cubin.arch, "kernels": [dataclasses.asdict(use) for use in cubin.kernels]}
        for cubin in made.code.cubins
    ]
    return {
        "host": made.host.triple,
        "ptx": made.code.arch,
        "driver": made.code.driver,
        "cubins": cubins,
        "kernels": kernels,
        "launches": len(made.model.launches),
    }
