"""Writes .tflite files: tensors and operators go in, the bytes of a model come out.

`Net` is one model under construction; `check` compares what LiteRT's reference kernels make of it
with aotc's import.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import flatbuffers
import numpy as np
import tflite
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from aotc.frontend.reader import import_model
from aotc.graph.eval import evaluate

TYPES = {
    "float32": "FLOAT32",
    "float16": "FLOAT16",
    "float64": "FLOAT64",
    "int8": "INT8",
    "uint8": "UINT8",
    "int16": "INT16",
    "int32": "INT32",
    "int64": "INT64",
    "bool": "BOOL",
    "uint32": "UINT32",
    "int4": "INT4",
}

#: Operators of which LiteRT knows no first version.
VERSIONS = {"BROADCAST_TO": 2}


@dataclass
class Tensor:
    """A tensor; ``data`` makes it a constant. ``scale`` and ``zero`` may be lists."""

    shape: tuple[int, ...]
    dtype: str
    data: np.ndarray | None = None
    scale: Any = None
    zero: Any = 0
    axis: int = 0
    name: str = ""
    variable: bool = False
    signature: tuple[int, ...] | None = None


@dataclass
class Graph:
    """One subgraph."""

    tensors: list[Tensor] = field(default_factory=list)
    operators: list[tuple] = field(default_factory=list)
    inputs: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)

    def add(self, shape, dtype="float32", data=None, **details) -> int:
        """One more tensor; its index."""
        self.tensors.append(Tensor(tuple(shape), dtype, data, **details))
        return len(self.tensors) - 1

    def input(self, shape, dtype="float32", **details) -> int:
        """A tensor that is an input."""
        self.inputs.append(self.add(shape, dtype, **details))
        return self.inputs[-1]

    def constant(self, values, dtype=None, **details) -> int:
        """A tensor with values."""
        values = np.asarray(values, dtype)
        return self.add(values.shape, values.dtype.name, values, **details)

    def operator(self, name, inputs, outputs, kind="", custom=None, **options) -> None:
        """``name`` from operands to results, with the fields of the option table ``kind``."""
        self.operators.append((name, list(inputs), list(outputs), kind, options, custom))


@dataclass
class Net(Graph):
    """A model: the first subgraph, and further ones."""

    others: list[Graph] = field(default_factory=list)

    def to_bytes(self, behind=False) -> bytes:
        """The file; with ``behind`` the values stand behind the tables."""
        data = _Writer(16 if behind else None).model([self, *self.others])
        if not behind:
            return data
        start = -(-len(data) // 16) * 16
        writer = _Writer(start)
        data = writer.model([self, *self.others])
        return data.ljust(start, b"\0") + b"".join(map(_aligned, writer.buffers))


def _aligned(data):
    return data.ljust(-(-len(data) // 16) * 16, b"\0")


class _Writer:
    """``start`` is where values begin in the file, None where buffers hold them."""

    def __init__(self, start=None):
        self.start = start
        self.builder = flatbuffers.Builder(1024)
        self.codes: list[tuple[str, bool]] = []
        self.buffers: list[bytes] = [b""]

    def model(self, graphs) -> bytes:
        builder = self.builder
        made = [self._graph(graph) for graph in graphs]
        codes = [self._code(name, custom) for name, custom in self.codes]
        buffers = [self._buffer(data) for data in self.buffers]
        lists = [self._offsets(items) for items in (made, codes, buffers)]
        tflite.ModelStart(builder)
        tflite.ModelAddVersion(builder, 3)
        tflite.ModelAddSubgraphs(builder, lists[0])
        tflite.ModelAddOperatorCodes(builder, lists[1])
        tflite.ModelAddBuffers(builder, lists[2])
        builder.Finish(tflite.ModelEnd(builder), b"TFL3")
        return bytes(builder.Output())

    def _offsets(self, items):
        self.builder.StartVector(4, len(items), 4)
        for item in reversed(items):
            self.builder.PrependUOffsetTRelative(item)
        return self.builder.EndVector()

    def _vector(self, values, dtype):
        return self.builder.CreateNumpyVector(np.asarray(values, dtype).reshape(-1))

    def _graph(self, graph):
        builder = self.builder
        tensors = self._offsets([self._tensor(t, at) for at, t in enumerate(graph.tensors)])
        operators = self._offsets([self._operator(*each) for each in graph.operators])
        inputs = self._vector(graph.inputs, np.int32)
        outputs = self._vector(graph.outputs, np.int32)
        tflite.SubGraphStart(builder)
        tflite.SubGraphAddTensors(builder, tensors)
        tflite.SubGraphAddOperators(builder, operators)
        tflite.SubGraphAddInputs(builder, inputs)
        tflite.SubGraphAddOutputs(builder, outputs)
        return tflite.SubGraphEnd(builder)

    def _tensor(self, tensor, place):
        builder, quantization, signature = self.builder, None, None
        name = builder.CreateString(tensor.name or f"t{place}")
        shape = self._vector(tensor.shape, np.int32)
        if tensor.signature is not None:
            signature = self._vector(tensor.signature, np.int32)
        if tensor.scale is not None:
            scales = np.atleast_1d(np.asarray(tensor.scale, np.float32))
            zeros = np.broadcast_to(np.asarray(tensor.zero, np.int64), scales.shape)
            vectors = self._vector(scales, np.float32), self._vector(zeros, np.int64)
            tflite.QuantizationParametersStart(builder)
            tflite.QuantizationParametersAddScale(builder, vectors[0])
            tflite.QuantizationParametersAddZeroPoint(builder, vectors[1])
            tflite.QuantizationParametersAddQuantizedDimension(builder, tensor.axis)
            quantization = tflite.QuantizationParametersEnd(builder)
        buffer = 0
        if tensor.data is not None:
            self.buffers.append(np.ascontiguousarray(tensor.data).tobytes())
            buffer = len(self.buffers) - 1
        tflite.TensorStart(builder)
        tflite.TensorAddName(builder, name)
        tflite.TensorAddShape(builder, shape)
        tflite.TensorAddType(builder, getattr(tflite.TensorType, TYPES[tensor.dtype]))
        tflite.TensorAddBuffer(builder, buffer)
        tflite.TensorAddIsVariable(builder, tensor.variable)
        tflite.TensorAddHasRank(builder, True)
        if signature is not None:
            tflite.TensorAddShapeSignature(builder, signature)
        if quantization is not None:
            tflite.TensorAddQuantization(builder, quantization)
        return tflite.TensorEnd(builder)

    def _operator(self, name, inputs, outputs, kind, options, custom):
        builder, held, data = self.builder, None, None
        code = (name, custom is not None)
        if code not in self.codes:
            self.codes.append(code)
        lists = self._vector(inputs, np.int32), self._vector(outputs, np.int32)
        if kind:
            held = self._options(kind, options)
        if custom:
            data = self._vector(np.frombuffer(custom, np.uint8), np.uint8)
        tflite.OperatorStart(builder)
        tflite.OperatorAddOpcodeIndex(builder, self.codes.index(code))
        tflite.OperatorAddInputs(builder, lists[0])
        tflite.OperatorAddOutputs(builder, lists[1])
        if held is not None:
            number = getattr(tflite.BuiltinOptions, kind)
            tflite.OperatorAddBuiltinOptionsType(builder, number)
            tflite.OperatorAddBuiltinOptions(builder, held)
        if data is not None:
            tflite.OperatorAddCustomOptions(builder, data)
        return tflite.OperatorEnd(builder)

    def _options(self, kind, options):
        given = {
            field: self._vector(value, np.int32) if isinstance(value, list) else value
            for field, value in options.items()
        }
        getattr(tflite, f"{kind}Start")(self.builder)
        for name, value in given.items():
            getattr(tflite, f"{kind}Add{name}")(self.builder, value)
        return getattr(tflite, f"{kind}End")(self.builder)

    def _code(self, name, custom):
        text = self.builder.CreateString(name) if custom else None
        number = getattr(tflite.BuiltinOperator, "CUSTOM" if custom else name)
        tflite.OperatorCodeStart(self.builder)
        tflite.OperatorCodeAddBuiltinCode(self.builder, number)
        tflite.OperatorCodeAddDeprecatedBuiltinCode(self.builder, min(number, 127))
        tflite.OperatorCodeAddVersion(self.builder, VERSIONS.get(name, 1))
        if text is not None:
            tflite.OperatorCodeAddCustomCode(self.builder, text)
        return tflite.OperatorCodeEnd(self.builder)

    def _buffer(self, data):
        if self.start is not None:
            place, self.start = self.start, self.start + len(_aligned(data))
            tflite.BufferStart(self.builder)
            if data:
                tflite.BufferAddOffset(self.builder, place)
                tflite.BufferAddSize(self.builder, len(data))
            return tflite.BufferEnd(self.builder)
        # the values of tensors stand at multiples of 16 bytes
        self.builder.StartVector(1, len(data), 16)
        self.builder.head -= len(data)
        self.builder.Bytes[self.builder.head : self.builder.head + len(data)] = data
        held = self.builder.EndVector()
        tflite.BufferStart(self.builder)
        if data:
            tflite.BufferAddData(self.builder, held)
        return tflite.BufferEnd(self.builder)


def draw(tensor: Tensor, seed=0, low=-3.0, high=3.0) -> np.ndarray:
    """Random values of an input: all of the range of integers of 16 bits or less."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(tensor.dtype)
    if kind.kind == "f":
        return rng.uniform(low, high, tensor.shape).astype(kind)
    if kind.kind == "b":
        return rng.integers(0, 2, tensor.shape).astype(bool)
    if kind.itemsize <= 2:
        info = np.iinfo(kind)
        return rng.integers(info.min, info.max, tensor.shape, endpoint=True).astype(kind)
    return rng.integers(int(low), int(high) + 1, tensor.shape).astype(kind)


def lite(data: bytes, inputs: list[np.ndarray], reference=True) -> list[np.ndarray]:
    """What LiteRT's reference kernels (or its optimised ones) compute, inputs and results in the
    order of the model."""
    kernels = [OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, OpResolverType.BUILTIN_REF]
    try:
        interpreter = Interpreter(
            model_content=data, experimental_op_resolver_type=kernels[reference]
        )
    except ValueError:  # a few operators have one kernel only, and are not among those
        interpreter = Interpreter(model_content=data, experimental_op_resolver_type=kernels[0])
    for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
        if tuple(detail["shape"]) != array.shape:
            interpreter.resize_tensor_input(detail["index"], array.shape)
    interpreter.allocate_tensors()
    for detail, array in zip(interpreter.get_input_details(), inputs, strict=True):
        interpreter.set_tensor(detail["index"], array)
    interpreter.invoke()
    return [interpreter.get_tensor(each["index"]) for each in interpreter.get_output_details()]


def ours(data: bytes, inputs: list[np.ndarray], folder, **choices) -> list[np.ndarray]:
    """What aotc's import of the file means."""
    path = folder / "model.tflite"
    path.write_bytes(data)
    graph = import_model(path, **choices).graph
    named = {node.op.name: x for node, x in zip(graph.inputs, inputs, strict=True)}
    return list(evaluate(graph, named).values())


def check(
    net: Net, folder, *, steps=1, tolerance=2e-6, seed=0, inputs=None, low=-3.0, high=3.0,
    reference=True,
):  # fmt: skip
    """Both engines on random inputs: quantised results at most ``steps`` apart, other integers
    equal, floats within ``tolerance`` of the largest magnitude (of 1 at least). The number of
    quantised elements that differ."""
    data = net.to_bytes()
    if inputs is None:
        inputs = [
            draw(net.tensors[place], seed + at, low, high) for at, place in enumerate(net.inputs)
        ]
    expected, found = lite(data, inputs, reference), ours(data, inputs, folder)
    assert len(expected) == len(found)
    differ = 0
    for want, have, place in zip(expected, found, net.outputs, strict=True):
        assert have.shape == want.shape and have.dtype == want.dtype
        if want.dtype.kind == "f":
            bound = tolerance * max(1.0, float(np.abs(want).max(initial=0)))
            np.testing.assert_allclose(have, want, rtol=0, atol=bound)
        elif net.tensors[place].scale is None:
            np.testing.assert_array_equal(have, want)
        else:
            apart = np.abs(have.astype(np.int64) - want.astype(np.int64))
            assert apart.max(initial=0) <= steps, f"{apart.max()} steps apart"
            differ += int((apart > 0).sum())
    return differ
