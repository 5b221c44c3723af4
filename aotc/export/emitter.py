"""Nodes of ONNX under construction: operators on named values in, NodeProtos and initialisers out,
with conversions around operators that lack a type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from aotc.frontend.tensors import DTYPES, ONNX_TYPES
from aotc.graph.ir import Constant
from aotc.graph.types import DType

OPSET = 21
BITS_OPSET = 26
"""The opset of a model, and of one that looks at the bits of numbers (BitCast)."""


@dataclass(frozen=True)
class Value:
    """A tensor of the model by its name."""

    name: str
    dtype: DType


@dataclass
class Shared:
    """What the graphs of one model have in common: names, and the constants of the outermost."""

    taken: set[str]
    opset: int
    initializers: list[onnx.TensorProto] = field(default_factory=list)
    constants: dict[Any, Value] = field(default_factory=dict)

    def name(self, stem: str) -> str:
        """A name that nothing else has."""
        count = len(self.taken)
        while f"{stem}_{count}" in self.taken:
            count += 1
        self.taken.add(f"{stem}_{count}")
        return f"{stem}_{count}"


@dataclass
class Emitter:
    """One graph under way; a graph inside another sees the values of those around it."""

    shared: Shared
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    origin: str = ""

    def inner(self) -> Emitter:
        """A graph inside this one, which knows its constants and names; its values are given to
        it."""
        return Emitter(self.shared, origin=self.origin)

    def many(
        self, operator: str, inputs: Sequence[Value | None], results: Sequence[DType], **attrs: Any
    ) -> tuple[Value, ...]:
        """The results of one node."""
        made = tuple(Value(self.shared.name(operator.lower()), dtype) for dtype in results)
        names = [value.name if value is not None else "" for value in inputs]
        label = f"{self.origin or operator}/{made[0].name}"
        outputs = [value.name for value in made]
        self.nodes.append(helper.make_node(operator, names, outputs, label, **attrs))
        return made

    def raw(self, operator: str, dtype: DType, *inputs: Value | None, **attrs: Any) -> Value:
        """The result of one node, of type ``dtype``."""
        return self.many(operator, inputs, [dtype], **attrs)[0]

    def apply(
        self, operator: str, *inputs: Value, result: DType | None = None, **attrs: Any
    ) -> Value:
        """An operator that computes, on operands of one type. Where it lacks the type it works in a
        wider one: short floats in float32, integers modulo a larger power of two. ``result`` is the
        type of the result if it is another one."""
        kind = inputs[0].dtype
        work = self._wider(operator, kind)
        made = self.raw(operator, result or work, *(self.cast(x, work) for x in inputs), **attrs)
        return made if result is not None else self.cast(made, kind)

    def move(self, operator: str, moved: Sequence[Value], *rest: Value, **attrs: Any) -> Value:
        """An operator that moves elements of ``moved``, which come first; ``rest`` are indices and
        sizes. Types that it lacks travel as others that hold the same."""
        kind = moved[0].dtype
        work = kind if self.allows(operator, kind) else _carrier(kind)
        made = self.raw(operator, work, *(self.cast(x, work) for x in moved), *rest, **attrs)
        return self.cast(made, kind)

    def allows(self, operator: str, dtype: DType, place: int = -1) -> bool:
        """Whether ``operator`` takes ``dtype`` as its operands (or as operand ``place``)."""
        schema = onnx.defs.get_schema(operator, self.shared.opset)
        name = schema.inputs[max(place, 0)].type_str
        if operator == "Where" and place < 0:
            name = schema.inputs[1].type_str
        allowed = next(
            c.allowed_type_strs for c in schema.type_constraints if c.type_param_str == name
        )
        return f"tensor({_NAMES[dtype]})" in allowed

    def _wider(self, operator: str, dtype: DType) -> DType:
        if self.allows(operator, dtype):
            return dtype
        if dtype.is_float:
            return DType.F32
        short = dtype.size_bytes < 4
        ladder: tuple[DType, ...] = (DType.I32, DType.I64) if short else (DType.I64,)
        if not dtype.is_signed:
            ladder = (DType.U32, DType.I32, DType.I64) if short else (DType.U64, DType.I64)
        return next((each for each in ladder if self.allows(operator, each)), DType.I64)

    def cast(self, x: Value, dtype: DType) -> Value:
        """Conversion between a type and the one that it works in; nothing when they are one."""
        if x.dtype is dtype:
            return x
        if {x.dtype, dtype} & _FLOATS_OF_8_BITS and DType.U8 in (x.dtype, dtype):
            return self.bits(x, dtype)
        return self.convert(x, dtype)

    def convert(self, x: Value, dtype: DType) -> Value:
        """The primitive Cast: nothing is held to the range of short floats."""
        narrow = dtype in _FLOATS_OF_8_BITS and x.dtype.is_float
        attrs: dict[str, Any] = {"saturate": 0} if narrow else {}
        return self.raw("Cast", dtype, x, to=ONNX_TYPES[dtype], **attrs)

    def bits(self, x: Value, dtype: DType) -> Value:
        """The same bits as another type of the same size."""
        return self.raw("BitCast", dtype, x, to=ONNX_TYPES[dtype])

    def constant(self, values: Any, dtype: DType | None = None) -> Value:
        """An initialiser; the same values are there once."""
        given = np.asarray(values, dtype=dtype.numpy if dtype else None)
        array = np.ascontiguousarray(given).reshape(given.shape)
        kind = DType.of(array)
        key = (kind, array.shape, Constant.of(array))
        if key not in self.shared.constants:
            made = Value(self.shared.name("constant"), kind)
            self.shared.initializers.append(onnx.numpy_helper.from_array(array, made.name))
            self.shared.constants[key] = made
        return self.shared.constants[key]

    def ints(self, *values: int) -> Value:
        """A vector of int64."""
        return self.constant(np.asarray(values, np.int64))

    def number(self, value: float, dtype: DType) -> Value:
        """A constant of rank 0."""
        return self.constant(np.asarray(value).astype(dtype.numpy))

    def reshape(self, x: Value, shape: Sequence[int]) -> Value:
        """The same elements under another shape."""
        return self.move("Reshape", [x], self.ints(*shape), allowzero=1)

    def expand(self, x: Value, shape: Sequence[int]) -> Value:
        """Stretched to ``shape``."""
        return self.move("Expand", [x], self.ints(*shape))

    def where(self, condition: Value, a: Value, b: Value) -> Value:
        """Elements of ``a`` where ``condition`` holds, else of ``b``."""
        work = a.dtype if self.allows("Where", a.dtype) else _carrier(a.dtype)
        made = self.raw("Where", work, condition, self.cast(a, work), self.cast(b, work))
        return self.cast(made, a.dtype)


_NAMES = {
    dtype: {"float32": "float", "float64": "double"}.get(dtype.value, onnx_name.lower())
    for number, dtype in DTYPES.items()
    for onnx_name in [onnx.TensorProto.DataType.Name(number)]
}
_FLOATS_OF_8_BITS = frozenset(
    dtype for dtype in DType if dtype.is_float and dtype.is_narrow and dtype.size_bits == 8
)


def _carrier(dtype: DType) -> DType:
    """The type in which elements travel through operators that lack theirs."""
    if dtype in _FLOATS_OF_8_BITS:
        return DType.U8
    if dtype.is_float:
        return DType.F32
    return DType.I8 if dtype.is_signed else DType.U8
