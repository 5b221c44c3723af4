"""torch's quantisation in the open (`quantized_decomposed`, what PT2E exports): Tensors in, the
formulas of torch/ao/quantization/fx/_decomposed.py out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from aotc.graph.types import DType
from aotc.importers.torch_ops.rule import Lowering, Operands, Rule, Use, rules
from aotc.tracing.core import binary, cast, constant, known, reshape, unary
from aotc.tracing.tensor import Tensor, tnp


def _number(value: Any, dtype: DType) -> Tensor:
    return cast(value, dtype) if isinstance(value, Tensor) else constant(value, dtype)


def _column(value: Any, x: Tensor, axis: int | None) -> Tensor:
    """One number for all, or one for each place of ``axis``, in float32."""
    numbers = _number(value, DType.F32)
    if axis is None:
        return reshape(numbers, ())
    shape = [1] * x.ndim
    shape[axis] = x.shape[axis]
    return reshape(numbers, shape)


def _quantized(
    use: Use, x: Tensor, scale: Any, zero: Any, low: int, high: int, axis: int | None
) -> Any:
    """``clamp(round(x / scale) + zero, low, high)``: for one scale a product with its inverse."""
    known_scale = known(scale)
    if axis is None and known_scale is not None:  # torch inverts a number in float64
        inverse = constant(1.0 / float(known_scale.reshape(())), DType.F32)
    else:
        inverse = unary("reciprocal", _column(scale, x, axis))
    apart = binary("mul", cast(x, DType.F32), inverse)
    code = unary("round", apart) + _column(zero, x, axis)
    return cast(tnp.clip(code, float(low), float(high)), use.type.dtype)


def _dequantized(use: Use, x: Tensor, scale: Any, zero: Any, axis: int | None) -> Any:
    apart = cast(x, DType.F32) - _column(0 if zero is None else zero, x, axis)
    return apart * _column(scale, x, axis)


def _quantize(use: Use, x: Tensor, scale: Any, zero: Any, low: int, high: int) -> Any:
    return _quantized(use, x, scale, zero, low, high, None)


def _dequantize(use: Use, x: Tensor, scale: Any, zero: Any, *range_: Any) -> Any:
    return _dequantized(use, x, scale, zero, None)


def _quantize_channels(
    use: Use, x: Tensor, scales: Tensor, zeros: Tensor, axis: int, low: int, high: int
) -> Any:
    return _quantized(use, x, scales, zeros, low, high, axis)


def _dequantize_channels(
    use: Use, x: Tensor, scales: Tensor, zeros: Tensor | None, axis: int, *range_: Any
) -> Any:
    return _dequantized(use, x, scales, zeros, axis)


_TABLE: Mapping[str, Lowering] = MappingProxyType(
    {
        "quantized_decomposed.quantize_per_tensor": _quantize,
        "quantized_decomposed.dequantize_per_tensor": _dequantize,
        "quantized_decomposed.quantize_per_channel": _quantize_channels,
        "quantized_decomposed.dequantize_per_channel": _dequantize_channels,
    }
)

RULES: Mapping[str, Rule] = MappingProxyType(rules(Operands.GIVEN, _TABLE))
"""By the operator's name with its library."""
