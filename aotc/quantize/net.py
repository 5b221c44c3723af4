"""An ONNX model in, a graph open for rewriting out: nodes in order, constants as arrays, names."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from aotc.errors import ModelError
from aotc.frontend.order import reads, subgraphs
from aotc.frontend.tensors import tensor_values

ONNX_DOMAINS = ("", "ai.onnx")

LARGEST_FILE = (1 << 31) - 1
"""Bytes of the largest protobuf."""


class Net:
    """The main graph of a model; nested graphs are left alone, and what they read keeps its name.

    ``constants`` are the initialisers by name, ``nodes`` stand in an order in which they can run.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = model
        self.nodes: list[NodeProto] = list(model.graph.node)
        self.constants: dict[str, TensorProto] = {t.name: t for t in model.graph.initializer}
        self.inputs = [i.name for i in model.graph.input if i.name not in self.constants]
        self.outputs = [output.name for output in model.graph.output]
        self._arrays: dict[str, np.ndarray] = {}
        self._names = self._all_names()

    def _all_names(self) -> set[str]:
        names = {*self.inputs, *self.outputs, *self.constants}
        names.update(t.values.name for t in self.model.graph.sparse_initializer)
        pending = list(self.nodes)
        while pending:
            node = pending.pop()
            names.update((node.name, *node.input, *node.output))
            for graph in subgraphs(node):
                names.update(tensor.name for tensor in graph.initializer)
                pending += graph.node
        return names

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators."""
        versions = [o.version for o in self.model.opset_import if o.domain in ONNX_DOMAINS]
        return max(versions, default=1)

    def array(self, name: str) -> np.ndarray | None:
        """The values of a constant, read-only; None for anything else."""
        if name not in self._arrays and name in self.constants:
            self._arrays[name] = tensor_values(self.constants[name], None)
        return self._arrays.get(name)

    def floats(self, name: str) -> np.ndarray | None:
        """The values of a float32 constant; None for anything else."""
        return self.array(name) if is_float(self.constants.get(name)) else None

    def fresh(self, name: str) -> str:
        """``name``, with a number behind it where it is taken."""
        found, number = name, 0
        while found in self._names:
            number += 1
            found = f"{name}_{number}"
        self._names.add(found)
        return found

    def add_constant(self, name: str, values: np.ndarray) -> str:
        """Stores ``values`` under ``name`` or a similar one, which is returned."""
        found = self.fresh(name)
        self.constants[found] = numpy_helper.from_array(np.asarray(values, order="C"), found)
        return found

    def set_constant(self, name: str, values: np.ndarray) -> None:
        """Gives a constant other values."""
        self.constants[name] = numpy_helper.from_array(np.asarray(values, order="C"), name)
        self._arrays.pop(name, None)

    def ranks(self) -> dict[str, int]:
        """The number of axes of each tensor where the model says or implies it."""
        graph = self.model.graph
        found = {
            info.name: len(info.type.tensor_type.shape.dim)
            for info in (*graph.input, *graph.value_info, *graph.output)
            if info.type.HasField("tensor_type") and info.type.tensor_type.HasField("shape")
        }
        return found | {name: len(tensor.dims) for name, tensor in self.constants.items()}

    def producers(self) -> dict[str, NodeProto]:
        """The node that computes each name."""
        return {name: node for node in self.nodes for name in node.output if name}

    def readers(self) -> dict[str, list[NodeProto]]:
        """The nodes that read each name, nested graphs included, as often as they do."""
        found: dict[str, list[NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in reads(node):
                found[name].append(node)
        return found

    def to_model(self) -> onnx.ModelProto:
        """The model as it is now, without constants that nothing reads. ModelError when it would
        not fit into a file."""
        model = onnx.ModelProto()
        model.CopyFrom(_without_graph(self.model))
        graph = model.graph
        graph.name, graph.doc_string = self.model.graph.name, self.model.graph.doc_string
        used = {name for node in self.nodes for name in reads(node)} | set(self.outputs)
        kept = [tensor for name, tensor in self.constants.items() if name in used]
        if sum(tensor.ByteSize() for tensor in kept) >= LARGEST_FILE:
            raise ModelError(
                "the weights have more than 2 GB, the most that one ONNX file holds",
                remedy="quantise the parts of the model one by one",
            )
        infos = self.model.graph.input
        graph.input.extend(i for i in infos if i.name in self.inputs)
        graph.output.extend(self.model.graph.output)
        graph.node.extend(self.nodes)
        graph.initializer.extend(kept)
        graph.sparse_initializer.extend(self.model.graph.sparse_initializer)
        return model


def is_standard(node: NodeProto, *kinds: str) -> bool:
    """Whether ``node`` is one of these operators of ONNX's own."""
    return node.domain in ONNX_DOMAINS and node.op_type in kinds


def is_float(tensor: TensorProto | None) -> bool:
    """Whether these are float32 values."""
    return tensor is not None and tensor.data_type == TensorProto.FLOAT


def attribute(node: NodeProto, name: str, default: object) -> object:
    """The value of an attribute, or what it is when left out."""
    for found in node.attribute:
        if found.name == name:
            return helper.get_attribute_value(found)
    return default


def integer(node: NodeProto, name: str, default: int) -> int:
    """An attribute that is a whole number."""
    value = attribute(node, name, default)
    if not isinstance(value, int):
        raise ModelError(
            f"attribute '{name}' is not a whole number",
            where=f"node '{node.name}' ({node.op_type})",
            remedy="export the model again",
        )
    return value


def set_attribute(node: NodeProto, name: str, value: object) -> None:
    """Gives an attribute this value."""
    kept = [found for found in node.attribute if found.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


def _without_graph(model: onnx.ModelProto) -> onnx.ModelProto:
    """Everything about ``model`` but its graph."""
    bare = onnx.ModelProto(
        ir_version=model.ir_version,
        producer_name=model.producer_name,
        producer_version=model.producer_version,
        domain=model.domain,
        model_version=model.model_version,
        doc_string=model.doc_string,
    )
    bare.opset_import.extend(model.opset_import)
    bare.metadata_props.extend(model.metadata_props)
    bare.functions.extend(model.functions)
    return bare
