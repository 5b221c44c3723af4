"""A manifest and the languages asked for in, the files of their bindings out."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

from aotc.bindings import cmake, cpp, go, pkgconfig, rust
from aotc.bindings.archive import make_archive
from aotc.bindings.library import Library, read_library
from aotc.errors import UsageError

#: Each has NAME, HELP and ``files(library)``: texts by their paths beside the object.
BINDINGS: tuple[ModuleType, ...] = (cpp, rust, go, cmake, pkgconfig)

#: Those that need nothing but the object: all others link the static library.
HEADERS = (cpp,)


def make_bindings(manifest: Path, languages: Iterable[str]) -> dict[Path, bytes]:
    """The contents of all files, by path: those of each language, and the static library that they
    link, made of the object beside the manifest.

    UsageError for a language that there is not, and for files that cannot be read or are no
    manifest."""
    known = {binding.NAME: binding for binding in BINDINGS}
    chosen = []
    for language in languages:
        if language not in known:
            raise UsageError(
                f"there are no bindings for '{language}'", remedy=f"use {','.join(known)}"
            )
        chosen.append(known[language])
    library = _load(manifest)
    found = {}
    if any(binding not in HEADERS for binding in chosen):
        data = _read(manifest.with_suffix(".o"))
        archive = make_archive(data, f"{library.stem}.o", library.symbols)
        found[manifest.with_name(f"lib{library.stem}.a")] = archive
    for binding in chosen:
        for path, text in binding.files(library).items():
            found[manifest.parent / path] = text.encode()
    return found


def _load(manifest: Path) -> Library:
    try:
        values = json.loads(_read(manifest))
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"this is not JSON ({error})",
            where=str(manifest),
            remedy="give the .json file that `aotc compile` writes beside the object",
        ) from None
    return read_library(values, manifest)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read: {error.strerror}",
            where=str(path),
            remedy="give the manifest where `aotc compile` wrote it, beside the object",
        ) from None
