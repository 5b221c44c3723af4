"""A Graph or traced function in, an ONNX file out that every runtime of the standard reads."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx
from onnx import helper

from aotc.config import VERSION
from aotc.errors import UnsupportedError, UsageError
from aotc.export import rules_control, rules_elementwise, rules_movement, rules_reduce
from aotc.export.emitter import BITS_OPSET, OPSET, Emitter, Shared, Value
from aotc.export.rules_elementwise import Rule
from aotc.graph import ops
from aotc.graph.ir import Graph, Node, Op, Parameter
from aotc.graph.types import DType, TupleType
from aotc.passes.bodies import map_nested
from aotc.passes.rewrite import rewrite
from aotc.passes.rules_arithmetic import join_bitcasts
from aotc.tracing.tracer import Traceable

RULES: Mapping[type[Op], Rule] = MappingProxyType(
    {
        **rules_elementwise.RULES,
        **rules_movement.RULES,
        **rules_reduce.RULES,
        **rules_control.RULES,
    }
)
LARGE = 1 << 30
"""Constants of more bytes than this go into a file of their own: a protobuf holds less than 2 GB.
"""


def save_onnx(
    model: Graph | Traceable, path: str | Path, *, dims: Mapping[str, int] | None = None
) -> None:
    """Writes a graph, or what a traced function does, as an ONNX model (opset 21; 26 where it looks
    at the bits of numbers), with the same names of inputs and outputs.

    ``aotc.load_onnx`` reads it back to a graph that computes the same. ``dims`` gives a function's
    named sizes. Constants of more than 1 GB go to ``path`` with ``.data`` behind it. UsageError
    when the file cannot be written, UnsupportedError for a graph that checks sizes of run time.

    >>> import aotc, tempfile
    >>> graph = aotc.trace(lambda x: x * 2, aotc.spec(3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     aotc.save_onnx(graph, folder + "/twice.onnx")
    ...     [str(node.type) for node in aotc.load_onnx(folder + "/twice.onnx").inputs]
    ['float32[3]']
    """
    graph = model.graph_for(dims or {}) if isinstance(model, Traceable) else model
    proto = to_onnx(graph)
    path = Path(path)
    size = sum(len(tensor.raw_data) for tensor in proto.graph.initializer)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    data = f"{path.name}.data"
    try:
        onnx.save(proto, beside, save_as_external_data=size > LARGE, location=data)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise UsageError(
            f"cannot write the file: {error.strerror}", where=str(path), remedy="check the path"
        ) from None


def to_onnx(graph: Graph) -> onnx.ModelProto:
    """The model; UnsupportedError for a graph that checks sizes of run time."""
    if graph.checks:
        raise UnsupportedError(
            "the graph checks what is known at run time only, which ONNX cannot say",
            where=f"graph '{graph.name}'",
            remedy="fix the sizes with dims and input_shapes",
        )
    graph = _without_stops(graph)
    inputs = [
        Value(node.op.name, node.type.dtype)
        for node in graph.inputs
        if isinstance(node.op, Parameter)
    ]
    taken = {value.name for value in inputs} | {name for name, _ in graph.outputs}
    emitter = Emitter(Shared(taken, BITS_OPSET if _needs_bits(graph) else OPSET))
    results = _write(emitter, graph, inputs)
    outputs = [Value(name, node.type.dtype) for name, node in graph.outputs]
    for result, output in zip(results, outputs, strict=True):
        emitter.nodes.append(helper.make_node("Identity", [result.name], [output.name]))
    described = zip(inputs, (node.type for node in graph.inputs), strict=True)
    given = zip(outputs, (node.type for _, node in graph.outputs), strict=True)
    proto = helper.make_graph(
        emitter.nodes,
        graph.name or "graph",
        [rules_control.info(value, type_) for value, type_ in described],
        [rules_control.info(value, type_) for value, type_ in given],
        emitter.shared.initializers,
    )
    opset = helper.make_opsetid("", emitter.shared.opset)
    versions = {"producer_name": "aotc", "producer_version": VERSION}
    version = helper.find_min_ir_version_for([opset], ignore_unknown=True)
    return helper.make_model(proto, opset_imports=[opset], ir_version=version, **versions)


def _without_stops(graph: Graph) -> Graph:
    """The graph without casts of bits and back, which only stop derivatives."""
    return map_nested(rewrite(graph, {ops.Bitcast: (join_bitcasts,)}), _without_stops)


def _needs_bits(graph: Graph) -> bool:
    """Whether there is a BitCast to write, or a type that is younger than it."""
    for node in graph.nodes():
        kinds = node.type.items if isinstance(node.type, TupleType) else (node.type,)
        tiny = any(t.dtype.is_narrow and t.dtype is not DType.BF16 for t in kinds)
        short = isinstance(node.op, ops.Widen) and node.op.stored is DType.BF16
        if tiny or short or isinstance(node.op, ops.Bitcast | ops.Relabel):
            return True
        if any(map(_needs_bits, ops.nested_graphs(node))):
            return True
    return False


def _write(emitter: Emitter, graph: Graph, operands: Sequence[Value]) -> list[Value]:
    """The nodes of ``graph`` for values of its inputs; its outputs."""
    values: dict[Node, tuple[Value, ...]] = {
        node: (value,) for node, value in zip(graph.inputs, operands, strict=True)
    }
    for node in graph.nodes():
        if node in values:
            continue
        if node.data is not None:
            values[node] = (emitter.constant(node.data),)
            continue
        if not isinstance(node.type, TupleType) and not node.type.elems:
            # runtimes differ in what they make of nothing; here it is known
            empty = np.zeros(node.shape, node.type.dtype.numpy)
            values[node] = (emitter.constant(empty),)
            continue
        emitter.origin = node.origin
        if isinstance(node.op, ops.Item):
            values[node] = (values[node.inputs[0]][node.op.index],)
            continue
        given = tuple(values[operand][0] for operand in node.inputs)
        control = rules_control.CONTROL.get(type(node.op))
        if control is not None:
            assert isinstance(node.type, TupleType)
            values[node] = control(emitter, node, given, _write)
        else:
            made = RULES[type(node.op)](emitter, node, given)
            values[node] = made if isinstance(made, tuple) else (made,)
    return [values[node][0] for _, node in graph.outputs]
