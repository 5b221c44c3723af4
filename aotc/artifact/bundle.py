"""Compiled models in, files out: NAME.o, NAME.h, NAME.json, perhaps NAME.weights and NAME.ld."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aotc.artifact.header import HeaderFacts, write_header
from aotc.artifact.header_many import write_many_header
from aotc.artifact.linker_script import write_linker_script
from aotc.artifact.manifest import Provenance, build_manifest, write_manifest
from aotc.artifact.wasm_loader import javascript, place_tensors, typescript
from aotc.artifact.wasm_module import link_module
from aotc.artifact.weights import ObjectImage, embed_constants, weights_file_chunks
from aotc.codegen.entry import WEIGHTS_HEADER_BYTES, Entry
from aotc.errors import UsageError
from aotc.memory.arena import needed_in_regions
from aotc.memory.constants import ConstantLayout


@dataclass(frozen=True, eq=False)
class Bundle:
    """An object as it is written to disk, with the entries that it has. ``weights`` are the
    constants of the weights file, or None when they are part of the object. ``linker_script`` is
    empty without memory regions."""

    name: str
    entries: tuple[Entry, ...]
    image: ObjectImage
    header: str
    manifest: dict[str, Any]
    weights: ConstantLayout | None
    linker_script: str = ""


def make_bundle(
    name: str,
    entries: Sequence[Entry],
    constants: ConstantLayout,
    emitted: bytes,
    provenance: Provenance,
) -> Bundle:
    """Joins the object that LLVM emitted for the module ``name`` with constants, header and
    manifest."""
    first = entries[0]
    in_file = first.signature.weights_in_file
    image = ObjectImage(emitted, None) if in_file else embed_constants(emitted, name, constants)
    manifest = build_manifest(name, entries, constants, len(emitted), provenance)
    several = len({entry.signature.name for entry in entries}) > 1
    is_elf = emitted[:4] == b"\x7fELF"
    facts = HeaderFacts(
        workspaces=needed_in_regions([entry.plan for entry in entries]),
        target=provenance.target,
        version=provenance.versions["aotc"],
        digest="" if several else first.digest,
        weights_bytes=WEIGHTS_HEADER_BYTES + constants.size_bytes,
        weights_digest=manifest["weights"]["sha256"],
        sections=is_elf,
    )
    if several or first.signature.sizes:
        header = write_many_header(name, entries, facts)
    else:
        header = write_header(first.signature, facts, first.notes)
    version, workspaces = provenance.versions["aotc"], first.plan.in_regions
    script = ""
    if (workspaces or constants.in_regions) and is_elf:
        script = write_linker_script(name, version, constants.in_regions, workspaces)
    weights = constants if in_file else None
    return Bundle(name, tuple(entries), image, header, manifest, weights, script)


def save_bundle(bundle: Bundle, directory: str | Path, stem: str | None = None) -> list[Path]:
    """Writes the files into ``directory`` (made if need be) and returns their paths.

    ``stem`` is the file name without suffix, by default the object's C name. Each file is written
    beside its place and renamed when all are complete, so that no half-written one is ever seen.
    UsageError when the folder cannot be written to.
    """
    folder, stem = Path(directory), stem or bundle.name
    contents: dict[str, Iterable[bytes | memoryview]] = {
        ".o": bundle.image.chunks(),
        ".h": [bundle.header.encode()],
        ".json": [write_manifest(bundle.manifest).encode()],
    }
    if bundle.weights is not None:
        contents[".weights"] = weights_file_chunks(bundle.weights)
    if bundle.linker_script:
        contents[".ld"] = [bundle.linker_script.encode()]
    return _save({folder / f"{stem}{suffix}": chunks for suffix, chunks in contents.items()})


def save_module(bundle: Bundle, directory: str | Path) -> list[Path]:
    """Writes NAME.wasm, NAME.mjs and NAME.d.ts: the model for browsers and Node, without a linker.

    UsageError when the object is not for wasm32, holds several entries, has its weights in a file,
    or cannot be written.
    """
    if len(bundle.entries) > 1:
        raise UsageError(
            "a module is made of one model for one size", remedy="compile each to a module"
        )
    signature, data = bundle.entries[0].signature, bundle.image.to_bytes()
    if len(signature.workspaces) > 1:
        raise UsageError(
            "a module has one memory, and the workspace is for several regions",
            remedy="give one --region for it at most",
        )
    if not data.startswith(b"\0asm") or bundle.weights is not None:
        raise UsageError(
            "a module is made of a wasm32 object with its weights inside",
            remedy="use --target wasm32 without --weights file",
        )
    needed = place_tensors(signature, bundle.manifest["memory"]["arena_bytes"], 0).end
    module = link_module(data, needed)
    places = place_tensors(signature, bundle.manifest["memory"]["arena_bytes"], module.free)
    folder = Path(directory)
    return _save(
        {
            folder / f"{signature.name}.wasm": [module.data],
            folder / f"{signature.name}.mjs": [javascript(signature, places).encode()],
            folder / f"{signature.name}.d.ts": [typescript(signature).encode()],
        }
    )


def _save(paths: dict[Path, Iterable[bytes | memoryview]]) -> list[Path]:
    folder = next(iter(paths)).parent
    with _explained(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for path in paths:
            if path.is_dir():
                raise IsADirectoryError(f"'{path}' is a folder")
        _write_all(paths)
    return list(paths)


def _write_all(paths: dict[Path, Iterable[bytes | memoryview]]) -> None:
    """All files or none: complete temporary files first, then the renames."""
    parts = {path: path.with_name(f".{path.name}.{os.getpid()}.part") for path in paths}
    try:
        for path, chunks in paths.items():
            with parts[path].open("wb") as file:
                file.writelines(chunks)
        for path, part in parts.items():
            part.replace(path)
    finally:
        for part in parts.values():
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UsageError(
            f"cannot write the compiled model: {error.strerror or error}",
            where=str(folder),
            remedy="give a folder that you may write to and that has room, with -o",
        ) from error
