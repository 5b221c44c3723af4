"""Model files: an ONNX or TFLite file goes in, a Graph comes out, or what stops that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aotc.config import DimSize
from aotc.frontend.onnx_reader import Imported, check_onnx, import_onnx, parse_model
from aotc.frontend.problems import Problem
from aotc.frontend.specialize import declared_symbols
from aotc.frontend.tflite.reader import Request, read_tflite, tensor_names
from aotc.frontend.tflite.schema import is_tflite
from aotc.graph.ir import Graph


def import_model(
    path: str | Path,
    *,
    dims: Mapping[str, DimSize] | None = None,
    input_shapes: Mapping[str, Sequence[Any] | None] | None = None,
    outputs: Sequence[str] | None = None,
    name: str | None = None,
    bounds: Mapping[str, int] | None = None,
) -> Imported:
    """The model in ``path`` as a Graph, and how its inputs and outputs appear in it; arguments and
    errors as for `import_onnx`. Inputs and outputs of a TFLite model have the names of their
    tensors; its dimensions have no names, so that ``dims`` binds none of them."""
    path = Path(path)
    if not is_tflite(path):
        return import_onnx(
            path, dims=dims, input_shapes=input_shapes, outputs=outputs, name=name, bounds=bounds
        )
    request = Request(dims or {}, input_shapes or {}, outputs, name or path.stem)
    imported = read_tflite(path, request, collect=False)[0]
    assert imported is not None
    return imported


def load_tflite(
    path: str | Path,
    *,
    input_shapes: Mapping[str, Sequence[int] | None] | None = None,
    outputs: Sequence[str] | None = None,
    name: str | None = None,
) -> Graph:
    """The TFLite model in ``path`` as a Graph.

    ``input_shapes`` gives whole input shapes where the model leaves sizes open (they are 1
    otherwise), ``outputs`` keeps only the named tensors, ``name`` replaces the file's stem. Needs
    the extra ``aotc[tflite]``. Raises ModelError, UnsupportedError or UsageError with the first
    problem.
    """
    return import_model(path, input_shapes=input_shapes, outputs=outputs, name=name).graph


def check_model(
    path: str | Path,
    *,
    dims: Mapping[str, DimSize] | None = None,
    input_shapes: Mapping[str, Sequence[Any] | None] | None = None,
    outputs: Sequence[str] | None = None,
    name: str | None = None,
    bounds: Mapping[str, int] | None = None,
) -> list[Problem]:
    """Everything that stops `import_model` with the same arguments, at once; empty when it
    succeeds. Raises ModelError when the file cannot be read as a model at all."""
    path = Path(path)
    if not is_tflite(path):
        return check_onnx(
            path, dims=dims, input_shapes=input_shapes, outputs=outputs, name=name, bounds=bounds
        )
    request = Request(dims or {}, input_shapes or {}, outputs, name or path.stem)
    return read_tflite(path, request, collect=True)[1]


@dataclass(frozen=True)
class Names:
    """What options may be about: symbolic dimensions, inputs, and tensors of any kind."""

    dims: frozenset[str] = frozenset()
    inputs: frozenset[str] = frozenset()
    values: frozenset[str] = frozenset()


def names_of(path: Path) -> Names:
    """The names in the model in ``path``; ModelError when it cannot be read."""
    if is_tflite(path):
        own, every = tensor_names(path)
        return Names(inputs=frozenset(own), values=frozenset(every))
    graph = parse_model(path).graph
    made = {name for node in graph.node for name in node.output}
    inputs = frozenset(info.name for info in graph.input)
    return Names(
        frozenset(symbol for info in graph.input for symbol in declared_symbols(info.type)),
        inputs,
        inputs | made | {tensor.name for tensor in graph.initializer},
    )
