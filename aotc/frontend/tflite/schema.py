"""The schema: a .tflite file goes in, plain checked values (`Model`) come out.

The packages ``tflite`` (the classes that the schema generates) and ``flatbuffers`` read the file;
they are imported when the first such file is read. Neither checks offsets, so everything read here
may be nonsense: what points outside of the file, or claims more than it can hold, is a ModelError.
"""

from __future__ import annotations

import importlib
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np

from aotc.errors import AotcError, ModelError, UnsupportedError, UsageError
from aotc.graph.types import DType

IDENTIFIER = b"TFL3"
"""Stands at offset 4 of every file of this format."""

MAX_PARTS = 1_000_000
"""Tables of one file may point to the same tables again and again; no model has as many tensors and
operators."""

MAX_RANK = 32

_REMEDY = "download the file again, or convert the model again"

_DAMAGE = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
)
"""What the generated classes raise on offsets and lengths that do not fit the file."""

_DTYPES: Mapping[str, DType] = MappingProxyType(
    {
        "BFLOAT16": DType.BF16,
        "BOOL": DType.BOOL,
        "FLOAT16": DType.F16,
        "FLOAT32": DType.F32,
        "FLOAT64": DType.F64,
        "INT4": DType.I4,
        "INT8": DType.I8,
        "INT16": DType.I16,
        "INT32": DType.I32,
        "INT64": DType.I64,
        "UINT8": DType.U8,
        "UINT16": DType.U16,
        "UINT32": DType.U32,
        "UINT64": DType.U64,
    }
)


@dataclass(frozen=True)
class Quantization:
    """``real = scale * (stored - zero_point)``: one scale and zero point, or one for each slice
    along ``axis``."""

    scales: np.ndarray
    zero_points: np.ndarray
    axis: int

    def same_as(self, other: Quantization | None) -> bool:
        """Whether equal stored numbers mean equal real ones."""
        return (
            other is not None
            and np.array_equal(self.scales, other.scales)
            and np.array_equal(self.zero_points, other.zero_points)
            and (self.scales.size == 1 or self.axis == other.axis)
        )


@dataclass(frozen=True)
class Tensor:
    """One tensor of a subgraph. ``open_axes`` are those whose size the file leaves open (``shape``
    has 1 there); ``buffer`` is the place of its values, ``problem`` why it cannot be used."""

    index: int
    name: str
    type_name: str
    shape: tuple[int, ...]
    open_axes: tuple[int, ...]
    buffer: int
    quantization: Quantization | None
    is_variable: bool
    problem: str = ""

    @property
    def dtype(self) -> DType:
        """The element type; UnsupportedError when aotc has none such."""
        if self.problem:
            raise UnsupportedError(
                f"tensor '{self.name}' {self.problem}",
                remedy="convert the model without this feature",
            )
        found = _DTYPES.get(self.type_name)
        if found is None:
            raise UnsupportedError(
                f"tensor '{self.name}' has the element type {self.type_name}, "
                "which is not supported",
                remedy="convert the model to one of numbers",
            )
        return found


@dataclass(frozen=True)
class Operator:
    """One operator: ``name`` as in the schema (CONV_2D), or that of a custom operator. Indices of
    tensors are -1 for operands left out. ``options`` is a table of the class ``options_kind``."""

    index: int
    name: str
    is_custom: bool
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options_kind: str
    options: Any
    custom_options: bytes


@dataclass(frozen=True)
class Subgraph:
    """Tensors and the operators that compute them, in order."""

    name: str
    tensors: tuple[Tensor, ...]
    operators: tuple[Operator, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


@dataclass(frozen=True)
class Model:
    """A file. The first subgraph is the model, others are parts of it."""

    path: Path
    subgraphs: tuple[Subgraph, ...]
    buffers: tuple[memoryview, ...]

    def values(self, tensor: Tensor) -> np.ndarray | None:
        """The values of a constant, as a view of the file where that is possible; None when the
        tensor is computed. ModelError when there are more or fewer than its shape says."""
        data = self.buffers[tensor.buffer] if tensor.buffer < len(self.buffers) else None
        if data is None:
            raise ModelError(
                f"tensor '{tensor.name}' has its values in buffer {tensor.buffer}, but the file "
                f"has {len(self.buffers)} buffers",
                remedy=_REMEDY,
            )
        if not len(data) or tensor.is_variable:
            return None
        dtype, count = tensor.dtype, math.prod(tensor.shape)
        wanted = (count * dtype.size_bits + 7) // 8
        if wanted != len(data):
            raise ModelError(
                f"constant '{tensor.name}' ({tensor.type_name} {list(tensor.shape)}) needs "
                f"{wanted} bytes, the file has {len(data)}",
                remedy=_REMEDY,
            )
        if dtype is DType.I4:
            return _unpacked(data, count).reshape(tensor.shape)
        stored = np.frombuffer(data, dtype.numpy.newbyteorder("<"))
        return stored.astype(dtype.numpy, copy=False).reshape(tensor.shape)


def is_tflite(path: Path) -> bool:
    """Whether the file's name or its first bytes say so."""
    if path.suffix.lower() == ".tflite":
        return True
    try:
        with path.open("rb") as file:
            return file.read(8)[4:] == IDENTIFIER
    except OSError:
        return False


def read_model(path: Path) -> Model:
    """The model in ``path``; UsageError when the packages are not installed, ModelError when the
    file is none or damaged."""
    schema = _package("tflite")
    _package("flatbuffers")
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"cannot read the file: {error.strerror}", where=str(path), remedy="check the path"
        ) from None
    if data[4:8] != IDENTIFIER:
        reason = "the file is empty" if not data else "the file is truncated or not TFLite"
        raise ModelError(reason, where=str(path), remedy=_REMEDY)
    try:
        return _Reader(schema, path, data).model()
    except AotcError as error:
        raise type(error)(error.message, where=str(path), remedy=error.remedy) from None


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise UsageError(
            f"reading .tflite files needs the Python package {name}, which is not installed",
            remedy="pip install 'aotc[tflite]'",
        ) from None


class _Reader:
    """Reads one file with the classes of ``schema``."""

    def __init__(self, schema: Any, path: Path, data: bytes) -> None:
        self._schema = schema
        self._path = path
        self._data = data
        self._parts = 0
        self._operators = _names(schema.BuiltinOperator)
        self._types = _names(schema.TensorType)
        self._kinds = _names(schema.BuiltinOptions)

    def model(self) -> Model:
        """All of the file."""
        with _damage("the model"):
            root = self._schema.Model.GetRootAs(self._data, 0)
        buffers = tuple(self._all(root, "Buffers", self._buffer))
        codes = list(self._all(root, "OperatorCodes", self._code))
        subgraphs = tuple(
            self._all(root, "Subgraphs", lambda graph, index: self._subgraph(graph, codes))
        )
        if not subgraphs:
            raise ModelError("the file holds no graph", remedy=_REMEDY)
        return Model(self._path, subgraphs, buffers)

    def _all(self, table: Any, field: str, read: Callable[[Any, int], Any]) -> Iterator[Any]:
        """What ``read`` makes of each table in the vector ``field``."""
        with _damage(field):
            count = getattr(table, f"{field}Length")()
        self._count(count, field)
        for index in range(count):
            with _damage(f"{field}[{index}]"):
                yield read(getattr(table, field)(index), index)

    def _count(self, count: int, what: str) -> None:
        self._parts += count
        if self._parts > MAX_PARTS or 4 * count > len(self._data):
            raise ModelError(
                f"the file claims {count} {what.lower()}, which its {len(self._data)} bytes cannot "
                "hold",
                remedy=_REMEDY,
            )

    def _vector(self, table: Any, field: str, dtype: type[np.generic]) -> np.ndarray:
        """A vector of numbers; empty when it is left out."""
        count = getattr(table, f"{field}Length")()
        if not count:
            return np.zeros(0, dtype)
        found = getattr(table, f"{field}AsNumpy")()
        return np.asarray(found, dtype=dtype)

    def _indices(self, table: Any, field: str, count: int) -> tuple[int, ...]:
        """A vector of tensor indices, each below ``count``, or -1."""
        found = tuple(int(index) for index in self._vector(table, field, np.int32))
        for index in found:
            if not -1 <= index < count:
                raise ModelError(
                    f"its {field.lower()} name tensor {index}, but there are {count} tensors",
                    remedy=_REMEDY,
                )
        return found

    def _buffer(self, table: Any, index: int) -> memoryview:
        data = memoryview(self._data)
        # files of more than 2 GB keep the values behind the tables
        start, size = table.Offset(), table.Size()
        if start > 1 and size:
            if start + size > len(data):
                raise ModelError(f"buffer {index} ends beyond the file", remedy=_REMEDY)
            return data[start : start + size]
        count = table.DataLength()
        return memoryview(table.DataAsNumpy()) if count else data[:0]

    def _code(self, table: Any, index: int) -> tuple[str, bool]:
        """The name of an operator, and whether it is a custom one."""
        # old files have room for 127 operators only, in the other field
        number = max(table.BuiltinCode(), table.DeprecatedBuiltinCode())
        name = self._operators.get(number, f"number {number}")
        if name == "CUSTOM":
            return _text(table.CustomCode()), True
        return name, False

    def _subgraph(self, table: Any, codes: list[tuple[str, bool]]) -> Subgraph:
        tensors = tuple(self._all(table, "Tensors", self._tensor))
        operators = tuple(
            self._all(
                table, "Operators", lambda each, index: self._operator(each, index, codes, tensors)
            )
        )
        return Subgraph(
            _text(table.Name()),
            tensors,
            operators,
            self._indices(table, "Inputs", len(tensors)),
            self._indices(table, "Outputs", len(tensors)),
        )

    def _tensor(self, table: Any, index: int) -> Tensor:
        shape = tuple(int(size) for size in self._vector(table, "Shape", np.int32))
        signature = tuple(int(size) for size in self._vector(table, "ShapeSignature", np.int32))
        name = _text(table.Name()) or f"tensor_{index}"
        if len(shape) > MAX_RANK:
            raise ModelError(f"tensor '{name}' has {len(shape)} axes", remedy=_REMEDY)
        signature = signature if len(signature) == len(shape) else shape
        open_axes = tuple(
            axis for axis, sizes in enumerate(zip(shape, signature, strict=True)) if min(sizes) < 0
        )
        problem, quantization = "", None
        details = table.Quantization()
        if table.Sparsity() is not None:
            problem = "is stored sparsely, which is not supported"
        elif details is not None and details.DetailsType():
            problem = "is quantised by custom rules, which is not supported"
        elif details is not None:
            quantization = self._quantization(details, name, shape)
        return Tensor(
            index,
            name,
            self._types.get(table.Type(), f"number {table.Type()}"),
            tuple(max(size, 1) if axis in open_axes else size for axis, size in enumerate(shape)),
            open_axes,
            int(table.Buffer()),
            quantization,
            bool(table.IsVariable()),
            problem,
        )

    def _quantization(
        self, table: Any, name: str, shape: tuple[int, ...]
    ) -> Quantization | None:
        scales = self._vector(table, "Scale", np.float32)
        zeros = self._vector(table, "ZeroPoint", np.int64)
        if not scales.size:
            return None
        zeros = zeros if zeros.size else np.zeros(scales.size, np.int64)
        zeros = np.broadcast_to(zeros, scales.shape) if zeros.size == 1 else zeros
        axis = int(table.QuantizedDimension())
        fits = scales.size == 1 or (0 <= axis < len(shape) and shape[axis] == scales.size)
        if zeros.size != scales.size or not fits:
            raise ModelError(
                f"tensor '{name}' of shape {list(shape)} has {scales.size} scales and "
                f"{zeros.size} zero points along axis {axis}",
                remedy=_REMEDY,
            )
        # a file that was never calibrated has a scale of 0 where nothing is quantised
        if scales.size == 1 and scales[0] == 0 and zeros[0] == 0:
            return None
        wrong = scales[~(np.isfinite(scales) & (scales > 0))]
        if wrong.size:
            raise ModelError(
                f"tensor '{name}' has a scale of {wrong[0]}: it must be more than 0",
                remedy="quantise the model again with representative data",
            )
        return Quantization(scales, zeros, axis)

    def _operator(
        self,
        table: Any,
        index: int,
        codes: list[tuple[str, bool]],
        tensors: tuple[Tensor, ...],
    ) -> Operator:
        code = table.OpcodeIndex()
        if not 0 <= code < len(codes):
            raise ModelError(
                f"operator {index} is of kind {code}, but the file has {len(codes)} kinds",
                remedy=_REMEDY,
            )
        name, is_custom = codes[code]
        kind = self._kinds.get(table.BuiltinOptionsType(), "")
        options = None
        raw = table.BuiltinOptions()
        if raw is not None and hasattr(self._schema, kind):
            options = getattr(self._schema, kind)()
            options.Init(raw.Bytes, raw.Pos)
        return Operator(
            index,
            name,
            is_custom,
            self._indices(table, "Inputs", len(tensors)),
            self._indices(table, "Outputs", len(tensors)),
            kind if options is not None else "",
            options,
            self._vector(table, "CustomOptions", np.uint8).tobytes(),
        )


def default_options(kind: str) -> Any:
    """A table of options without any field, so that each has the schema's default."""
    options = getattr(_package("tflite"), kind)()
    # a vtable of two entries (its own size and the table's), then a table that points back to it
    options.Init(struct.pack("<HHi", 4, 4, 4), 4)
    return options


def _names(numbers: type) -> dict[int, str]:
    """The names in a class that stands for an enumeration, by number."""
    return {value: name for name, value in vars(numbers).items() if isinstance(value, int)}


def _text(data: bytes | None) -> str:
    return (data or b"").decode("utf-8", errors="replace")


def _unpacked(data: memoryview, count: int) -> np.ndarray:
    """int4 values, two to a byte, the low half first."""
    stored = np.frombuffer(data, np.uint8)
    halves = np.stack([stored & 15, stored >> 4], axis=1).reshape(-1)[:count]
    return ((halves.astype(np.int8) ^ 8) - 8).astype(ml_dtypes.int4)


@contextmanager
def _damage(what: str) -> Iterator[None]:
    """What goes wrong inside is a ModelError about ``what``."""
    try:
        yield
    except AotcError:
        raise
    except _DAMAGE:
        raise ModelError(
            f"the file is damaged: {what} cannot be read", remedy=_REMEDY
        ) from None
