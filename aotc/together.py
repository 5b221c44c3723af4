"""Several models and one set of options in, the name and the options of each model out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from aotc.codegen.entry import Entry, models_of
from aotc.codegen.signature import make_c_identifier
from aotc.config import Options
from aotc.errors import UnsupportedError, UsageError
from aotc.frontend.reader import Names, names_of
from aotc.graph.ir import Graph
from aotc.tracing.tracer import Traceable

Source = Graph | Traceable | str | Path


def named_models(models: Sequence[Source] | Mapping[str, Source]) -> dict[str, Source]:
    """The models by name: the key, or the name of the graph or of the file without its suffix.

    UsageError when there is none, or when two have one name in C, where macros are in capitals.
    """
    if isinstance(models, Mapping):
        named = list(models.items())
    else:
        named = [
            (m.name if isinstance(m, Graph | Traceable) else Path(m).stem, m) for m in models
        ]
    if not named:
        raise UsageError("there is no model to compile", remedy="give at least one")
    seen: set[str] = set()
    for name, _ in named:
        in_c = make_c_identifier(name).lower()
        if in_c in seen:
            raise UsageError(
                f"two models are called '{name}'",
                remedy="rename one of the files: their names tell the models apart in C",
            )
        seen.add(in_c)
    return dict(named)


def options_of_each(models: Mapping[str, Source], options: Options) -> list[Options]:
    """For each model: the options that are about something it has, with the name of the object and
    of the model as its name. UsageError when an option is about something that no model has."""
    known = {name: _names_in(model) for name, model in models.items()}
    everything = list(known.values())
    _expect("dimension", [*options.dims, *options.sizes], [n.dims for n in everything])
    _expect("input", options.input_shapes, [n.inputs for n in everything])
    _expect("output", options.outputs or (), [n.values for n in everything])
    found = []
    for name, names in known.items():
        outputs = tuple(o for o in options.outputs or () if o in names.values)
        found.append(
            replace(
                options,
                name=f"{options.name}_{name}",
                dims={k: v for k, v in options.dims.items() if k in names.dims},
                sizes={k: v for k, v in options.sizes.items() if k in names.dims},
                input_shapes={k: v for k, v in options.input_shapes.items() if k in names.inputs},
                outputs=outputs or None,
            )
        )
    return found


def _names_in(model: Source) -> Names:
    if isinstance(model, Graph):
        return Names()
    if isinstance(model, Traceable):
        return Names(frozenset(model.named_sizes))
    return names_of(Path(model))


def _expect(what: str, names: Iterable[str], known: Sequence[frozenset[str]]) -> None:
    every = frozenset().union(*known)
    for name in names:
        if name not in every:
            listed = ", ".join(sorted(every)[:20]) or "none"
            raise UsageError(f"no model has the {what} '{name}'", remedy=f"they have: {listed}")


def for_size(
    model: Source, options: Options, sizes: tuple[tuple[str, int], ...]
) -> tuple[Graph | Path, Options]:
    """What one compilation starts from, and its options; a traced function is traced for its
    sizes."""
    dims = {**options.dims, **dict(sizes)}
    if isinstance(model, Traceable):
        return model.graph_for(dims), replace(options, sizes={}, dims={})  # type: ignore[arg-type]
    source = model if isinstance(model, Graph) else Path(model)
    return source, replace(options, sizes={}, dims=dims)


def rename(graph: Graph, options: Options) -> Graph:
    """``graph`` under the asked-for name; UsageError when options need the file that it came from.
    """
    if options.dims or options.sizes or options.input_shapes or options.outputs is not None:
        raise UsageError(
            "a Graph has its shapes and outputs already",
            remedy="give dims, input_shapes and outputs to load_onnx",
        )
    return replace(graph, name=options.name or graph.name)


def hash_file(path: Path) -> str:
    """SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def expect_one_interface(entries: Sequence[Entry]) -> None:
    """UnsupportedError unless the sizes of a model have the same parameters."""
    for model in models_of(entries):
        faces = {
            tuple((p.name, p.type.dtype) for p in (*s.inputs, *s.outputs))
            for s in (entry.signature for entry in model)
        }
        if len(faces) > 1:
            raise UnsupportedError(
                "the model has other inputs or outputs for other sizes",
                remedy="compile each size under a --name of its own",
            )
