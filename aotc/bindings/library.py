"""A manifest in, what bindings in other languages need of it out: names, types, sizes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aotc.codegen.entry import WEIGHTS_HEADER_BYTES
from aotc.codegen.signature import Param, Signature, Status
from aotc.cuda.functions import functions_of
from aotc.errors import UsageError
from aotc.graph.types import DType, TensorType
from aotc.pool import runtime_sources

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_LOADER = ("aotc_cuda.c", "aotc_cuda.h", "aotc_cuda_driver.h", "aotc_cuda_session.h")
_STEM = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\Z")


@dataclass(frozen=True)
class Workspace:
    """Memory that the caller lends; ``c_name`` is ``workspace``, or tells its memory region too."""

    c_name: str
    size_bytes: int

    @property
    def type_name(self) -> str:
        return camel_case(self.c_name)


@dataclass(frozen=True)
class Model:
    """One entry of an object: what its functions take and the workspaces that it needs. ``name``,
    that of its model with its sizes, tells it from others of the object."""

    name: str
    signature: Signature
    workspaces: tuple[Workspace, ...]
    digest: str


@dataclass(frozen=True)
class Library:
    """An object with its entries. ``stem`` is the name of its files without suffix; ``name`` and
    the names of all models and tensors are C identifiers; ``weights_bytes`` is the size of the
    weights file, 0 if the weights are in the object."""

    name: str
    stem: str
    target: str
    version: str
    weights_bytes: int
    models: tuple[Model, ...]
    dispatchers: tuple[str, ...] = ()

    @property
    def workspaces(self) -> tuple[Workspace, ...]:
        """Large enough for each of the models."""
        return tuple(
            Workspace(same[0].c_name, max(one.size_bytes for one in same))
            for same in zip(*(model.workspaces for model in self.models), strict=True)
        )

    @property
    def weights_in_file(self) -> bool:
        return self.weights_bytes > 0

    @property
    def threads(self) -> bool:
        return any(model.signature.threads for model in self.models)

    @property
    def tiles(self) -> bool:
        """Whether the code uses tile registers, for which the process has to ask."""
        return any(model.signature.tiles for model in self.models)

    @property
    def device(self) -> bool:
        """Whether the models run on a GPU, for which programs need the loader of runtime/."""
        return any(model.signature.device for model in self.models)

    @property
    def statuses(self) -> tuple[Status, ...]:
        """The codes that any of the entries can return."""
        codes = {status for model in self.models for status in model.signature.statuses}
        return tuple(sorted(codes))

    @property
    def symbols(self) -> tuple[str, ...]:
        """The functions that the object defines, by their names in C."""
        found = []
        for model in self.models:
            found.append(model.signature.run)
            if model.signature.threads:
                found.append(model.signature.run_threads)
        if self.device:
            found += functions_of([model.signature for model in self.models]).names
        return tuple(dict.fromkeys((*found, *self.dispatchers)))


def read_library(manifest: Any, path: Path) -> Library:
    """The library that a manifest (as JSON values) at ``path`` describes; UsageError when it is
    none, or says what no manifest says, and for names of files that linkers would not bear."""
    if not _STEM.match(path.stem):
        raise UsageError(
            f"'{path.stem}' cannot be the name of a library",
            where=str(path),
            remedy="use letters, digits, '_', '-' and '.' in the names of the files",
        )
    try:
        return _read(manifest, path.stem)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(
            f"this is not a manifest that this version of aotc wrote ({error})",
            where=str(path),
            remedy="give the .json file that `aotc compile` writes beside the object",
        ) from None


def loader_files(folder: str) -> dict[str, str]:
    """The C sources of the loader for GPUs, by their paths in ``folder``."""
    return {f"{folder}/{name}": (runtime_sources() / name).read_text() for name in _LOADER}


def plain(text: str) -> str:
    """``text`` as printable ASCII that can end no comment and no string that it stands in."""
    kept = "".join(c if " " <= c <= "~" and c not in '\\"' else "?" for c in text)
    return kept.replace("*/", "* /").replace("/*", "/ *")


def escape(name: str, reserved: str) -> str:
    """``name``, with an underscore behind it where it is one of the words ``reserved``."""
    return f"{name}_" if name in reserved.split() else name


def escape_all(names: Iterable[str], reserved: str) -> list[str]:
    """``names``, with as many underscores behind each as it takes for it to be none of the words
    ``reserved`` and none of those before it."""
    taken = set(reserved.split())
    found: list[str] = []
    for name in names:
        while name in taken:
            name += "_"
        taken.add(name)
        found.append(name)
    return found


def describe(param: Param) -> str:
    """One line about a tensor: its shape, what its elements are, its name in the model."""
    kind = param.type
    shape = " x ".join(map(str, kind.dims)) or "one element"
    text = f"{shape}, {kind.dtype.value}"
    if kind.dtype.machine is not kind.dtype or kind.dtype is DType.F16:
        text += " as its bits" if kind.dtype.is_float else ", one to a byte"
    return text if param.name == param.c_name else f"{text}, '{plain(param.name)}' in the model"


def camel_case(name: str) -> str:
    """``out_of_bounds`` and ``OUT_OF_BOUNDS`` give OutOfBounds, ``inputIds`` gives InputIds."""
    parts = [part.lower() if part.isupper() else part for part in name.split("_") if part]
    return "".join(part[0].upper() + part[1:] for part in parts)


def _read(manifest: Any, stem: str) -> Library:
    weights = manifest["weights"]
    in_file = {"file": True, "object": False}[weights["in"]]
    rows = manifest.get("models", [manifest])
    name = _identifier(manifest["name"])
    device = "cuda" in manifest
    models = tuple(_read_model(row, in_file, name, device) for row in rows)
    if not models:
        raise ValueError("no models")
    if len({model.signature.workspaces for model in models}) > 1:
        raise ValueError("models in different memory regions")
    dispatchers: dict[str, None] = {}
    for row, model in zip(rows, models, strict=True):
        if "dispatcher" in row:
            dispatchers[_identifier(row["dispatcher"])] = None
            if model.signature.threads:
                dispatchers[f"{row['dispatcher']}_threads"] = None
    return Library(
        name=name,
        stem=stem,
        target=plain(manifest["target"]),
        version=plain(manifest["versions"]["aotc"]),
        weights_bytes=WEIGHTS_HEADER_BYTES + _size(weights["bytes"]) if in_file else 0,
        models=models,
        dispatchers=tuple(dispatchers),
    )


def _read_model(row: Mapping[str, Any], in_file: bool, library: str, device: bool) -> Model:
    memory = row["memory"]
    found = memory.get("regions", ())
    regions = {_identifier(region["name"]): _size(region["bytes"]) for region in found}
    if len({region.lower().replace("_", "") for region in regions}) < len(regions):
        raise ValueError("two memory regions of one name")
    signature = Signature(
        name=_identifier(row["name"]),
        inputs=tuple(_read_param(entry) for entry in row["inputs"]),
        outputs=tuple(_read_param(entry) for entry in row["outputs"]),
        weights_in_file=in_file,
        threads="entry_threads" in row,
        checks=bool(row["checks"]),
        tiles=bool(row.get("tiles")),
        sizes=tuple((str(dim), _size(size)) for dim, size in row.get("sizes", {}).items()),
        regions=tuple(regions),
        device=device,
    )
    room = tuple(regions.values()) if len(regions) > 1 else (_size(memory["arena_bytes"]),)
    if device:
        room = (0,)  # on the host
    if row["entry"] != signature.run:
        raise ValueError(f"an entry called {row['entry']!r}")
    name = f"{signature.name}{signature.suffix}"
    short = name.removeprefix(f"{library}_")
    return Model(
        name=short if _IDENTIFIER.match(short) and signature.name != library else name,
        signature=signature,
        workspaces=tuple(map(Workspace, signature.workspaces, room)),
        digest=plain(row["digest"]),
    )


def _read_param(entry: Mapping[str, Any]) -> Param:
    kind = TensorType(DType(entry["dtype"]), tuple(_size(dim) for dim in entry["shape"]))
    return Param(str(entry["name"]), _identifier(entry["c_name"]), kind)


def _identifier(text: Any) -> str:
    if not isinstance(text, str) or not _IDENTIFIER.match(text):
        raise ValueError(f"{text!r} is no C identifier")
    return text


def _size(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r} is no size")
    return value
