"""Entries in, of several models or of one model in several sizes, the text of one C header out.

What the entries have in common, the status codes, the weights file and a workspace that is large
enough for each of them, has the name of the object in front; the rest that of its model, and of its
sizes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from aotc.artifact.header import (
    POOL_TYPE,
    HeaderFacts,
    comment_safe,
    declaration,
    digest_macro,
    enclose,
    metadata,
    prototypes,
    shape_macros,
    status_codes,
    tiles_function,
    workspace_sizes,
)
from aotc.codegen.dispatch import Dispatcher, describe_dispatcher
from aotc.codegen.entry import Entry, models_of
from aotc.codegen.signature import Status
from aotc.errors import UsageError
from aotc.memory.arena import needed_in_regions


def write_many_header(
    name: str, entries: Sequence[Entry], facts: HeaderFacts, more: Sequence[str] = ()
) -> str:
    """The whole header of the object ``name``, C99 and C++, which ends with the declarations
    ``more``; UsageError when names collide."""
    first = entries[0].signature
    codes = {status for entry in entries for status in entry.signature.statuses}
    if any(entry.signature.sizes for entry in entries):
        codes.add(Status.UNKNOWN_SIZE)
    parts = [
        metadata(name, facts, first.weights_in_file),
        status_codes(name, sorted(codes)),
        *([POOL_TYPE] if first.threads else []),
        *([tiles_function(name)] if any(entry.signature.tiles for entry in entries) else []),
    ]
    for model in models_of(entries):
        parts += _model(model, name)
    parts += more
    several = len({entry.signature.name for entry in entries}) > 1
    what = "compiled models" if several else "a compiled model"
    text = enclose(name, what, facts.version, parts)
    _expect_distinct_macros(text)
    return text


def _expect_distinct_macros(text: str) -> None:
    """UsageError when the names of models, sizes and tensors run together to one macro."""
    found: dict[str, str] = {}
    for macro, value in re.findall(r"^#define (\w+) (.*)", text, re.MULTILINE):
        if found.setdefault(macro, value) != value:
            raise UsageError(
                f"two macros of the header would be called {macro}",
                remedy="rename one of the models",
            )


def _model(entries: Sequence[Entry], shared: str) -> list[str]:
    """One model: its figures, an entry for each size, and what chooses among these."""
    signature = entries[0].signature
    figures = []
    if signature.name != shared:
        figures.append(digest_macro(signature.name.upper(), entries[0].digest))
    if signature.sizes and signature.name != shared:
        largest = needed_in_regions([entry.plan for entry in entries])
        figures += workspace_sizes(signature.name.upper(), largest)
    for entry in entries:
        figures += workspace_sizes(entry.signature.macro, needed_in_regions([entry.plan]))
        figures.append(shape_macros(entry.signature))
    parts = ["\n".join(figures)]
    for entry in entries:
        parts += prototypes(entry.signature, entry.notes, shared.upper())
    if signature.sizes:
        dispatcher = describe_dispatcher([entry.signature for entry in entries])
        parts += _dispatchers(dispatcher, shared.upper())
    return parts


def _dispatchers(dispatcher: Dispatcher, shared: str) -> list[str]:
    first = dispatcher.entries[0]
    listed = [
        f"{', '.join(str(size) for _, size in entry.sizes)}: {entry.run}"
        for entry in dispatcher.entries
    ]
    sizes = [f"int64_t {dim}" for dim in dispatcher.dims]
    dims = ", ".join(comment_safe(dim) for dim, _ in first.sizes)
    sizes_of_all = [f"{first.name}_{name}_BYTES".upper() for name in first.workspaces]
    comment = [
        f"/* Computes the model {first.name} for the sizes given by {', '.join(dispatcher.dims)}"
        f" ({dims} in the model),",
        " * by the entry for them:",
        " *",
        *[f" *   {line}" for line in listed],
        " *",
        f" * Returns what that returns, or {shared}_{Status.UNKNOWN_SIZE.name} for other sizes."
        " A workspace of",
        f" * {' and '.join(sizes_of_all)} is enough for each. */",
    ]
    found = ["\n".join([*comment, declaration(first, dispatcher.run, sizes)])]
    if first.threads:
        text = f"/* As {dispatcher.run}, with the work shared among the threads of a pool. */"
        prototype = declaration(first, dispatcher.run_threads, sizes, pool=True)
        found.append(f"{text}\n{prototype}")
    return found
