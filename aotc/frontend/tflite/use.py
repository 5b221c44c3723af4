"""What an import rule sees: one operator of a TFLite model, its operands as graph nodes, and ways
to its result.

Quantised tensors are carried as the integers that the file stores. A rule that computes takes their
real values (`Use.real`, the chain that ONNX's DequantizeLinear gives) and hands the result to
`Use.result`, which quantises it again (as QuantizeLinear does); a rule that moves data takes the
integers themselves.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx

from aotc.errors import ModelError
from aotc.frontend.attributes import Attributes
from aotc.frontend.bodies import Body
from aotc.frontend.folding import known_value
from aotc.frontend.onnx_ops.call import Call
from aotc.frontend.onnx_ops.quantize import quantize_linear
from aotc.frontend.onnx_ops.table import RULES as ONNX_RULES
from aotc.frontend.tflite.schema import Operator, Quantization, Tensor, default_options
from aotc.frontend.values import Value
from aotc.graph.ir import Node
from aotc.graph.types import DType

QUANTISED = frozenset({DType.I4, DType.I8, DType.U8, DType.I16})
"""The types whose scale and zero point say what the numbers mean; those of other types (indices,
biases) count only where an operator says so."""

_ONNX_TYPES: Mapping[DType, int] = MappingProxyType(
    {
        DType.I8: onnx.TensorProto.INT8,
        DType.U8: onnx.TensorProto.UINT8,
        DType.I16: onnx.TensorProto.INT16,
    }
)


class Activation(enum.IntEnum):
    """ActivationFunctionType of the schema."""

    NONE = 0
    RELU = 1
    RELU_N1_TO_1 = 2
    RELU6 = 3
    TANH = 4
    SIGN_BIT = 5


ENDS: Mapping[int, tuple[float, float]] = MappingProxyType(
    {
        Activation.RELU: (0.0, math.inf),
        Activation.RELU_N1_TO_1: (-1.0, 1.0),
        Activation.RELU6: (0.0, 6.0),
    }
)
"""The range of each activation that is a clamp."""


@dataclass(frozen=True)
class Use:
    """One use of an operator. ``call`` makes nodes; ``subgraph`` imports the subgraph of a number
    with operands, into a body where there is one."""

    operator: Operator
    call: Call
    inputs: tuple[Tensor | None, ...]
    outputs: tuple[Tensor, ...]
    subgraph: Callable[[int, Sequence[Node], Body | None], list[Node]]

    # The operator.

    def options(self, kind: str) -> Any:
        """Its options, a table of the class ``kind``; the schema's defaults when there are none."""
        if self.operator.options is None:
            return default_options(kind)
        if self.operator.options_kind != kind:
            raise ModelError(
                f"its options are {self.operator.options_kind}, not {kind}",
                remedy="the file is damaged: convert the model again",
            )
        return self.operator.options

    def has(self, index: int) -> bool:
        """Whether operand ``index`` is there."""
        return self.call.value(index) is not None

    def tensor(self, index: int) -> Tensor:
        """The description of operand ``index``."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if found is None:
            raise ModelError(
                f"operand {index} is missing", remedy="the file is damaged: convert it again"
            )
        return found

    def output(self, index: int = 0) -> Tensor:
        """The description of result ``index``."""
        if index >= len(self.outputs):
            raise ModelError(
                f"result {index} is missing", remedy="the file is damaged: convert it again"
            )
        return self.outputs[index]

    # Quantised tensors.

    def scale_of(self, tensor: Tensor) -> Quantization | None:
        """What the stored numbers of ``tensor`` mean; None when they mean themselves."""
        scale = tensor.quantization if tensor.dtype in QUANTISED else None
        if scale is not None:
            least, most = tensor.dtype.int_range
            wrong = scale.zero_points[(scale.zero_points < least) | (scale.zero_points > most)]
            if wrong.size:
                raise ModelError(
                    f"the zero point {wrong[0]} of tensor '{tensor.name}' is not a number of "
                    f"{tensor.dtype.value}",
                    remedy="quantise the model again",
                )
        return scale

    def real(self, index: int) -> Node:
        """The real values of operand ``index``: floats for a quantised tensor."""
        scale = self.scale_of(self.tensor(index))
        node = self.call[index]
        return node if scale is None else self.dequantized(node, scale, scale.axis)

    def dequantized(self, node: Node, scale: Quantization, axis: int) -> Node:
        """``(node - zero point) * scale``, the scales along ``axis`` where there are several."""
        operands = [node, self.call.constant(_plain(scale.scales))]
        if scale.zero_points.any():
            dtype = node.type.dtype.numpy
            operands.append(self.call.constant(_plain(scale.zero_points).astype(dtype)))
        return self.onnx("DequantizeLinear", *operands, axis=axis)

    def weights(self, index: int, perm: Sequence[int]) -> Node:
        """The real values of operand ``index`` with its axes in the order ``perm``; those of
        constants are moved here and now."""
        node, scale = self.call[index], self.scale_of(self.tensor(index))
        perm = tuple(perm)
        if len(perm) != node.type.rank:
            raise ModelError(f"its weights must have {len(perm)} axes, are {node.type}")
        if node.data is not None:
            moved = self.call.constant(np.ascontiguousarray(np.transpose(node.data, perm)))
        else:
            moved = self.call.transpose(node, perm)
        if scale is None:
            return moved
        axis = perm.index(scale.axis) if scale.scales.size > 1 else 0
        return self.dequantized(moved, scale, axis)

    def with_bias(self, y: Node, index: int) -> Node:
        """``y`` plus operand ``index``, one number for each channel (the last axis)."""
        if not self.has(index):
            return y
        bias, tensor = self.call[index], self.tensor(index)
        if bias.shape != y.shape[-1:]:
            raise ModelError(f"its bias is {bias.type}, but there are {y.shape[-1]} channels")
        if tensor.quantization is not None and not bias.type.dtype.is_float:
            bias = self.dequantized(bias, tensor.quantization, 0)
        return self.call.binary("add", y, bias)

    def result(self, y: Node, activation: int = Activation.NONE, index: int = 0) -> Node:
        """The real numbers ``y`` after the fused activation, as result ``index`` stores them."""
        tensor = self.output(index)
        scale = self.scale_of(tensor)
        if activation == Activation.TANH:
            y = self.call.unary("tanh", y)
        elif activation and activation not in ENDS:
            raise self.call.unsupported(f"its fused activation (number {activation}) is unknown")
        if scale is None:
            return self.clamped(y, activation)
        return self.quantized(y, tensor, scale, activation)

    def clamped(self, y: Node, activation: int) -> Node:
        """``y`` within the range of the activation."""
        low, high = ENDS.get(activation, (-math.inf, math.inf))
        if low > -math.inf:
            y = self.call.binary("max", y, low)
        return self.call.binary("min", y, high) if high < math.inf else y

    def limits(
        self, tensor: Tensor, scale: Quantization, activation: int = Activation.NONE
    ) -> tuple[int, int]:
        """The least and the largest number that ``tensor`` stores after the activation."""
        step, zero = float(scale.scales[0]), int(scale.zero_points[0])
        least, most = tensor.dtype.int_range
        low, high = ENDS.get(activation, (-math.inf, math.inf))
        if low > -math.inf:
            least = max(least, min(most, zero + _nearest(low / step)))
        if high < math.inf:
            most = min(most, max(least, zero + _nearest(high / step)))
        return least, most

    def quantized(
        self, y: Node, tensor: Tensor, scale: Quantization, activation: int = Activation.NONE
    ) -> Node:
        """``y`` as ``tensor`` stores it; an activation narrows the range of the integers."""
        dtype = tensor.dtype
        if dtype not in _ONNX_TYPES or scale.scales.size != 1:
            raise self.call.unsupported(
                f"its result '{tensor.name}' is {dtype.value} with {scale.scales.size} scales"
            )
        limits = self.limits(tensor, scale, activation)
        operands = [y, self.call.constant(scale.scales.reshape(()))]
        if scale.zero_points.any():
            operands.append(self.call.constant(_plain(scale.zero_points).astype(dtype.numpy)))
        call = self.onnx_call("QuantizeLinear", *operands, output_dtype=_ONNX_TYPES[dtype])
        return quantize_linear(call, limits)

    def moved(self, y: Node, source: int, index: int = 0) -> Node:
        """``y``, elements of operand ``source`` as it stores them, as result ``index`` stores them.
        """
        have, want = self.scale_of(self.tensor(source)), self.scale_of(self.output(index))
        if have is None or want is None or have.same_as(want):
            return y
        if have.scales.size > 1:
            raise self.call.unsupported("its operand has several scales, its result another one")
        return self.quantized(self.dequantized(y, have, 0), self.output(index), want)

    # Operators of ONNX, whose rules do the same.

    def onnx_call(self, operator: str, *operands: Node | None, **attributes: Any) -> Call:
        """The use of ``operator`` of ONNX, in its newest form, on ``operands``."""
        entries = {key: onnx.helper.make_attribute(key, it) for key, it in attributes.items()}
        return replace(
            self.call,
            operator=operator,
            version=onnx.defs.get_schema(operator).since_version,
            inputs=operands,
            attrs=Attributes(entries, None),
        )

    def onnx(self, operator: str, *operands: Node | None, **attributes: Any) -> Node:
        """The first result of ``operator`` of ONNX."""
        return _tensor(self.onnx_results(operator, *operands, **attributes)[0])

    def onnx_results(
        self, operator: str, *operands: Node | None, **attributes: Any
    ) -> Sequence[Value | None]:
        """The results of ``operator`` of ONNX."""
        found = ONNX_RULES[operator](self.onnx_call(operator, *operands, **attributes))
        return found if isinstance(found, Sequence) else [found]

    # Operands known at compile time.

    def ints(self, index: int, what: str) -> tuple[int, ...]:
        """The integers in operand ``index``."""
        return self.call.known_ints(index, what)

    def vector(self, values: Sequence[int]) -> Node:
        """A constant i64[n]."""
        return self.call.constant(np.asarray(values, np.int64))

    def is_known(self, index: int) -> bool:
        """Whether operand ``index`` is there and a constant."""
        return self.has(index) and known_value(self.call[index]) is not None


Result = Node | Sequence[Node]
Rule = Callable[[Use], Result]
"""A rule gives the results of an operator; one node stands for the first alone."""


def _tensor(value: Value | None) -> Node:
    """``value``, which the operators used here give as a tensor of fixed shape."""
    if not isinstance(value, Node):
        raise ModelError("the shape of its result is known at run time only")
    return value


def _plain(values: np.ndarray) -> np.ndarray:
    """One number without an axis, several as they are."""
    return values.reshape(()) if values.size == 1 else np.ascontiguousarray(values)


def _nearest(x: float) -> int:
    """The nearest integer, halves away from zero."""
    return int(math.copysign(math.floor(abs(x) + 0.5), x))
