"""The reader: an ONNX file goes in, a Graph with static shapes comes out, or what stops that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from aotc.config import DimSize
from aotc.errors import ModelError, UsageError
from aotc.frontend.folding import FoldingBuilder
from aotc.frontend.importer import Importer, Missing, Scope, opset_versions
from aotc.frontend.order import import_order
from aotc.frontend.ports import Port, Ports, TensorPort, input_value, output_port, parameters
from aotc.frontend.problems import Problem, Reporter, import_file
from aotc.frontend.specialize import (
    Declared,
    Flags,
    bind_inputs,
    declared_shape,
    declared_shapes,
    declared_symbols,
    fixed_sizes,
)
from aotc.frontend.tensors import dtype_of
from aotc.graph.ir import Graph, Node

__all__ = ["Imported", "Problem", "check_onnx", "import_onnx", "load_onnx"]


@dataclass(frozen=True)
class Imported:
    """A model as a graph, and what the model's own inputs and outputs are in it."""

    graph: Graph
    ports: Ports


@dataclass(frozen=True)
class _Request:
    """The arguments of `import_onnx`."""

    dims: Mapping[str, DimSize]
    input_shapes: Mapping[str, Sequence[Any] | None]
    outputs: Sequence[str] | None
    name: str
    bounds: Mapping[str, int]


def load_onnx(
    path: str | Path,
    *,
    dims: Mapping[str, DimSize] | None = None,
    input_shapes: Mapping[str, Sequence[Any] | None] | None = None,
    outputs: Sequence[str] | None = None,
    name: str | None = None,
    bounds: Mapping[str, int] | None = None,
) -> Graph:
    """The model in ``path`` as a Graph; the graph of `import_onnx`."""
    return import_onnx(
        path, dims=dims, input_shapes=input_shapes, outputs=outputs, name=name, bounds=bounds
    ).graph


def import_onnx(
    path: str | Path,
    *,
    dims: Mapping[str, DimSize] | None = None,
    input_shapes: Mapping[str, Sequence[Any] | None] | None = None,
    outputs: Sequence[str] | None = None,
    name: str | None = None,
    bounds: Mapping[str, int] | None = None,
) -> Imported:
    """The model in ``path`` as a Graph, and how its inputs and outputs appear in it.

    ``dims`` binds symbolic dimensions by name (a pair of sizes: each run chooses within them),
    ``input_shapes`` gives whole input shapes,
    ``outputs`` prunes to the named tensors (and to the inputs they need), ``name`` replaces the
    file's stem, ``bounds`` gives the most that a run-time size can be, by the name of the value.
    Raises ModelError, UnsupportedError or UsageError with the first problem.
    """
    path = Path(path)
    request = _Request(dims or {}, input_shapes or {}, outputs, name or path.stem, bounds or {})
    imported = _read(path, request, collect=False)[0]
    assert imported is not None
    return imported


def check_onnx(
    path: str | Path,
    *,
    dims: Mapping[str, DimSize] | None = None,
    input_shapes: Mapping[str, Sequence[Any] | None] | None = None,
    outputs: Sequence[str] | None = None,
    name: str | None = None,
    bounds: Mapping[str, int] | None = None,
) -> list[Problem]:
    """Everything that stops `load_onnx` with the same arguments, at once; empty when it succeeds.

    Raises ModelError when the file cannot be read as ONNX at all.
    """
    path = Path(path)
    request = _Request(dims or {}, input_shapes or {}, outputs, name or path.stem, bounds or {})
    return _read(path, request, collect=True)[1]


def parse_model(path: Path) -> onnx.ModelProto:
    """The protobuf in ``path``; ModelError when it is none or holds no graph."""
    model = onnx.ModelProto()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"cannot read the file: {error.strerror}", where=str(path), remedy="check the path"
        ) from None
    if data.startswith(b"PK\x03\x04"):
        raise ModelError(
            "the file is an archive, not ONNX",
            where=str(path),
            remedy="PyTorch's files (.pt, .pt2) can run code when they are read, so aotc opens "
            "none: load the program in Python and give it to aotc.from_torch",
        )
    if data[4:8] == b"TFL3":
        raise ModelError(
            "the file is a TFLite model, which is accepted by compile, check, verify, bench, "
            "profile and run, but not here",
            where=str(path),
            remedy="give an ONNX model, or use aotc.load_tflite",
        )
    remedy = "check that the file is a complete ONNX model; download or export it again"
    try:
        model.ParseFromString(data)
    except DecodeError:
        reason = "the file is empty" if not data else "the file is truncated or not ONNX"
        raise ModelError(reason, where=str(path), remedy=remedy) from None
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        reason = "the file is empty" if not data else "the file holds no ONNX graph"
        raise ModelError(reason, where=str(path), remedy=remedy)
    return model


def _read(
    path: Path, request: _Request, collect: bool
) -> tuple[Imported | None, list[Problem]]:
    model = parse_model(path)
    remedy = "the file is damaged: export the model again"
    return import_file(
        path, collect, lambda reporter: _import_graph(model, path, request, reporter), remedy
    )


def _import_graph(
    model: onnx.ModelProto, path: Path, request: _Request, reporter: Reporter
) -> Imported | None:
    proto = model.graph
    builder = FoldingBuilder()
    importer = Importer(model.functions, path.parent, reporter, request.bounds)
    scope = Scope(
        builder=builder,
        opsets=opset_versions(model.opset_import),
        declared=declared_shapes(proto, fixed_sizes(request.dims)),
    )
    importer.store(scope, proto)
    wanted = _wanted(proto, request.outputs, scope)
    inputs = _bind(proto, builder, scope, request, wanted, reporter)
    importer.run(proto.node, wanted, scope)
    results: list[tuple[str, Node]] = []
    ports: list[Port] = []
    for output in wanted:
        value = importer.lookup(scope, output)
        if not isinstance(value, Missing):
            port, tensors = output_port(builder, output, value)
            ports.append(port)
            results += tensors
    _expect_distinct([name for name, _ in results], "outputs")
    plain = [pair for pair in results if any(TensorPort(pair[0], pair[1].type) == p for p in ports)]
    _check_outputs(proto, plain, reporter, fixed=not request.dims and not request.input_shapes)
    if reporter.problems:
        return None
    return Imported(builder.finish(request.name, results), Ports(inputs, tuple(ports)))


def _wanted(
    proto: onnx.GraphProto, outputs: Sequence[str] | None, scope: Scope
) -> list[str]:
    """The names of the graph's outputs, or those asked for."""
    own = [info.name for info in proto.output]
    if outputs is None:
        if not own:
            raise ModelError("the graph has no outputs", remedy="name some: --outputs NAME")
        if len(set(own)) < len(own):
            raise ModelError("the graph names one output twice", remedy="export the model again")
        return own
    if not outputs:
        raise UsageError("no outputs are asked for", remedy=f"the model has: {', '.join(own)}")
    known = {name for node in proto.node for name in node.output if name}
    known |= set(own) | set(scope.stored) | {info.name for info in proto.input}
    for output in outputs:
        if output not in known:
            raise UsageError(
                f"the model has no output '{output}'", remedy=f"it has: {', '.join(own)}"
            )
    return list(dict.fromkeys(outputs))


def _bind(
    proto: onnx.GraphProto,
    builder: FoldingBuilder,
    scope: Scope,
    request: _Request,
    wanted: Sequence[str],
    reporter: Reporter,
) -> tuple[Port, ...]:
    """Make a parameter of every input, and give their ports; an initialiser of the same name makes
    it a constant instead."""
    infos = [info for info in proto.input if info.name not in scope.stored]
    names = [info.name for info in infos]
    for place, name in enumerate(names):
        if not name or name in names[:place]:
            reason = f"two inputs are called '{name}'" if name else "an input has no name"
            raise ModelError(reason, remedy="export the model again")
    symbols = [symbol for info in infos for symbol in declared_symbols(info.type)]
    needed = infos
    if request.outputs is not None:
        used = import_order(proto.node, wanted).used
        needed = [info for info in infos if info.name in used]
    flags = Flags(request.dims, request.input_shapes, request.bounds)
    known = list(dict.fromkeys(symbols))
    bound = bind_inputs(needed, flags, known, names, reporter.report)
    scope.values.update(dict.fromkeys(names, Missing.FAILED))
    _expect_distinct([name for port in bound.values() for name in parameters(port)], "inputs")
    sizes: dict[str, Node] = {}
    for name, port in bound.items():
        scope.values[name] = input_value(builder, port, sizes)
    return tuple(bound.values())


def _expect_distinct(names: Sequence[str], what: str) -> None:
    """The parts of sequences and optionals have names of their own."""
    twice = [name for place, name in enumerate(names) if name in names[:place]]
    if twice:
        raise ModelError(
            f"two of its {what} need the name '{twice[0]}', one of them for a part of it",
            remedy="rename one of them in the model",
        )


def _fits(declared: Declared, shape: tuple[int, ...]) -> bool:
    """Whether ``shape`` has the rank and the fixed sizes that the model declares."""
    if len(declared) != len(shape):
        return False
    pairs = zip(declared, shape, strict=True)
    return all(not isinstance(dim, int) or dim == size for dim, size in pairs)


def _check_outputs(
    proto: onnx.GraphProto,
    results: Sequence[tuple[str, Node]],
    reporter: Reporter,
    fixed: bool,
) -> None:
    """Hold what was computed against what the model declares of its outputs.

    Shapes only when they are ``fixed`` by the model alone: exporters of models with symbolic inputs
    are known to leave the sizes of one run in the outputs.
    """
    declared = {info.name: info for info in proto.output}
    for name, node in results:
        info = declared.get(name)
        if info is None or info.type.WhichOneof("value") != "tensor_type":
            continue
        number = info.type.tensor_type.elem_type
        shape = declared_shape(info)
        same_type = number == 0 or dtype_of(number) is node.type.dtype
        same_shape = shape is None or not fixed or _fits(shape, node.shape)
        if not (same_type and same_shape):
            dims = ",".join("?" if dim is None else str(dim) for dim in shape or ())
            error = ModelError(
                f"output '{name}' is declared as [{dims}] of type "
                f"{onnx.TensorProto.DataType.Name(number)}, but comes out as {node.type}",
                remedy="the model contradicts itself: export it again, or check the input shapes",
            )
            reporter.report(error, name)
