"""The reader: a TFLite file goes in, a Graph with static shapes comes out, or what stops that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aotc.config import DimSize
from aotc.errors import AotcError, ModelError, UsageError
from aotc.frontend.folding import FoldingBuilder
from aotc.frontend.onnx_reader import Imported
from aotc.frontend.ports import Ports, TensorPort
from aotc.frontend.problems import Problem, Reporter, import_file
from aotc.frontend.tflite.schema import Subgraph, Tensor, read_model
from aotc.graph.rules import MAX_ELEMS
from aotc.graph.types import TensorType

if TYPE_CHECKING:
    from aotc.frontend.tflite.walk import Walker

# The rules of the operators are imported where a file is walked: every command imports this module,
# and models of other formats have no use for them.


@dataclass(frozen=True)
class Request:
    """What a model is imported for; as the arguments of `aotc.frontend.reader.import_model`."""

    dims: Mapping[str, DimSize]
    input_shapes: Mapping[str, Sequence[Any] | None]
    outputs: Sequence[str] | None
    name: str


def read_tflite(
    path: Path, request: Request, collect: bool
) -> tuple[Imported | None, list[Problem]]:
    """The model in ``path``, or with ``collect`` what stops the import; else the first such thing
    is raised."""
    from aotc.frontend.tflite.walk import Walker

    model = read_model(path)

    def read(reporter: Reporter) -> Imported | None:
        graph = _with_names(model.subgraphs[0])
        walker = Walker(replace(model, subgraphs=(graph, *model.subgraphs[1:])), reporter)
        return _import_graph(walker, graph, request, reporter)

    return import_file(path, collect, read, "the file is damaged: convert the model again")


def tensor_names(path: Path) -> tuple[list[str], list[str]]:
    """The names of the inputs, and of all tensors, of the model in ``path``."""
    graph = _with_names(read_model(path).subgraphs[0])
    return [graph.tensors[at].name for at in graph.inputs], [each.name for each in graph.tensors]


def _with_names(graph: Subgraph) -> Subgraph:
    """``graph`` with a name of its own for each tensor: the index goes behind one that is taken."""
    taken: set[str] = set()
    tensors = []
    for tensor in graph.tensors:
        name = tensor.name
        while name in taken:
            name = f"{name}_{tensor.index}"
        taken.add(name)
        tensors.append(replace(tensor, name=name))
    return replace(graph, tensors=tuple(tensors))


def _import_graph(
    walker: Walker, graph: Subgraph, request: Request, reporter: Reporter
) -> Imported | None:
    from aotc.frontend.tflite.walk import Scope

    builder = FoldingBuilder()
    scope = Scope(graph, builder)
    wanted = _wanted(graph, request.outputs)
    ports = []
    for index in _inputs(graph, request):
        tensor = graph.tensors[index]
        try:
            type_ = _input_type(tensor, request.input_shapes.get(tensor.name))
        except AotcError as error:
            reporter.report(error, tensor.name)
            continue
        scope.values[index] = builder.parameter(tensor.name, type_)
        ports.append(TensorPort(tensor.name, type_))
    if reporter.problems:
        return None
    nodes = walker.run(scope, wanted)
    results = [
        (graph.tensors[index].name, node)
        for index, node in zip(wanted, nodes, strict=True)
        if node is not None
    ]
    if reporter.problems:
        return None
    outputs = tuple(TensorPort(name, node.type) for name, node in results)
    return Imported(builder.finish(request.name, results), Ports(tuple(ports), outputs))


def _inputs(graph: Subgraph, request: Request) -> list[int]:
    """The inputs, once the flags have been held against them."""
    indices = list(graph.inputs)
    if -1 in indices or len(set(indices)) < len(indices):
        raise ModelError(f"its inputs are the tensors {indices}", remedy="convert the model again")
    names = [graph.tensors[index].name for index in indices]
    for name in request.dims:
        raise UsageError(
            f"the model has no dimension '{name}': those of TFLite models have no names",
            remedy=f"give the whole shape: --input-shape {names[0] if names else 'x'}=1,...",
        )
    for name in request.input_shapes:
        if name not in names:
            listed = ", ".join(names) or "none"
            raise UsageError(f"the model has no input '{name}'", remedy=f"it has: {listed}")
    return indices


def _input_type(tensor: Tensor, given: Sequence[Any] | None) -> TensorType:
    """The type of an input; an axis of open size has 1 element unless a shape is given."""
    shape = tensor.shape
    if given is not None:
        fits = len(given) == len(shape) and all(isinstance(size, int) for size in given)
        pairs = list(enumerate(zip(given, shape, strict=False)))
        if not fits or any(a != b and at not in tensor.open_axes for at, (a, b) in pairs):
            declared = ("?" if at in tensor.open_axes else str(n) for at, n in enumerate(shape))
            raise UsageError(
                f"input '{tensor.name}' cannot have the shape {','.join(map(str, given))}: the "
                f"model declares {','.join(declared)}",
                remedy=f"give --input-shape {tensor.name}=... with the same rank and fixed sizes",
            )
        shape = tuple(given)
    if min(shape, default=1) < 0:
        raise UsageError(
            f"input '{tensor.name}' cannot have the shape {','.join(map(str, shape))}",
            remedy="give sizes of 0 or more",
        )
    found = TensorType(tensor.dtype, shape)
    if found.elems > MAX_ELEMS:
        raise ModelError(
            f"input '{tensor.name}' asks for {found.elems} elements, more than 2**40",
            remedy="check its shape",
        )
    return found


def _wanted(graph: Subgraph, outputs: Sequence[str] | None) -> list[int]:
    """The tensors that are the model's outputs, or those asked for, by index."""
    own = list(dict.fromkeys(graph.outputs))
    if outputs is None:
        if not own or -1 in own:
            raise ModelError("the graph has no outputs", remedy="name some: --outputs NAME")
        return own
    listed = ", ".join(graph.tensors[index].name for index in own)
    if not outputs:
        raise UsageError("no outputs are asked for", remedy=f"the model has: {listed}")
    places = {tensor.name: tensor.index for tensor in graph.tensors}
    for name in outputs:
        if name not in places:
            raise UsageError(f"the model has no output '{name}'", remedy=f"it has: {listed}")
    return [places[name] for name in dict.fromkeys(outputs)]
