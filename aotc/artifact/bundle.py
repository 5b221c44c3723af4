"""A compiled model in, files out: NAME.o, NAME.h, NAME.json and perhaps NAME.weights."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aotc.artifact.header import HeaderFacts, write_header
from aotc.artifact.manifest import Provenance, build_manifest, write_manifest
from aotc.artifact.weights import ObjectImage, embed_constants, weights_file_chunks
from aotc.codegen.entry import WEIGHTS_HEADER_BYTES
from aotc.codegen.signature import Signature, describe_signature
from aotc.errors import UsageError
from aotc.loop.program import Program
from aotc.memory.arena import MemoryPlan
from aotc.memory.constants import ConstantLayout


@dataclass(frozen=True, eq=False)
class Bundle:
    """A compiled model as it is written to disk. ``weights`` are the constants of the weights file,
    or None when they are part of the object."""

    signature: Signature
    image: ObjectImage
    header: str
    manifest: dict[str, Any]
    weights: ConstantLayout | None


def make_bundle(
    program: Program,
    plan: MemoryPlan,
    constants: ConstantLayout,
    emitted: bytes,
    provenance: Provenance,
    weights_in_file: bool = False,
    threads: bool = False,
) -> Bundle:
    """Joins the object that LLVM emitted for the program with constants, header and manifest."""
    signature = describe_signature(program, weights_in_file, threads)
    if weights_in_file:
        image = ObjectImage(emitted, None)
    else:
        image = embed_constants(emitted, signature.name, constants)
    manifest = build_manifest(program, signature, plan, constants, len(emitted), provenance)
    facts = HeaderFacts(
        workspace_bytes=plan.arena_bytes,
        target=provenance.target,
        version=provenance.versions["aotc"],
        digest=provenance.digest,
        weights_bytes=WEIGHTS_HEADER_BYTES + constants.size_bytes,
        weights_digest=manifest["weights"]["sha256"],
    )
    header = write_header(signature, facts)
    return Bundle(signature, image, header, manifest, constants if weights_in_file else None)


def save_bundle(bundle: Bundle, directory: str | Path, stem: str | None = None) -> list[Path]:
    """Writes the files into ``directory`` (made if need be) and returns their paths.

    ``stem`` is the file name without suffix, by default the model's C name. Each file is written
    beside its place and renamed when all are complete, so that no half-written one is ever seen.
    UsageError when the folder cannot be written to.
    """
    folder, stem = Path(directory), stem or bundle.signature.name
    contents: dict[str, Iterable[bytes | memoryview]] = {
        ".o": bundle.image.chunks(),
        ".h": [bundle.header.encode()],
        ".json": [write_manifest(bundle.manifest).encode()],
    }
    if bundle.weights is not None:
        contents[".weights"] = weights_file_chunks(bundle.weights)
    paths = {folder / f"{stem}{suffix}": chunks for suffix, chunks in contents.items()}
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
