"""Elementwise ATen operators: Tensors and numbers in, numpy's functions on them out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from aotc.graph import ops
from aotc.graph.types import DType
from aotc.importers.erf_inv import erf_inv
from aotc.importers.onnx_rules import onnx_op
from aotc.importers.torch_ops.rule import Lowering, Operands, Rule, Use, rules
from aotc.tracing.core import binary, cast, constant, elementwise, lift, number, select, unary
from aotc.tracing.tensor import Tensor, tnp


def _unary(name: str) -> Lowering:
    function = getattr(tnp, name)
    return lambda use, x: function(x)


def _same_type(use: Use, *values: Any) -> list[Tensor]:
    """Numbers beside tensors as tensors of the type of the result; integers wrap as torch's do."""
    return [
        x if isinstance(x, Tensor) else constant(np.asarray(x).astype(use.dtype.numpy))
        for x in values
    ]


def _binary(name: str) -> Lowering:
    function = getattr(tnp, name)
    return lambda use, a, b: function(*_same_type(use, a, b))


def _compare(name: str) -> Lowering:
    function = getattr(tnp, name)

    def rule(use: Use, a: Tensor, b: Any) -> Any:
        return function(a, number(b, a))

    return rule


def _scaled(name: str) -> Lowering:
    """``a + alpha b`` and ``a - alpha b``."""
    function = getattr(tnp, name)

    def rule(use: Use, a: Any, b: Any, alpha: Any = 1) -> Any:
        x, y = _same_type(use, a, b)
        return function(x, y if alpha == 1 else y * constant(alpha, use.dtype))

    return rule


def _reverse_sub(use: Use, a: Any, b: Any, alpha: Any = 1) -> Any:
    return _scaled("subtract")(use, b, a) if alpha == 1 else b - a * constant(alpha, use.dtype)


def _div_mode(use: Use, a: Any, b: Any, rounding_mode: str | None) -> Any:
    x, y = _same_type(use, a, b)
    if rounding_mode == "floor":
        return tnp.floor_divide(x, y)
    quotient = binary("div", x, y)
    if rounding_mode is None or not use.dtype.is_float:
        return quotient  # of integers the primitive drops the fraction
    return tnp.trunc(quotient)


def _pow(use: Use, a: Any, b: Any) -> Any:
    x = a if isinstance(a, Tensor) else constant(a, use.dtype)
    if not isinstance(b, Tensor) and use.dtype.is_float and float(b) in (-1.0, -0.5):
        root = x if b == -1 else unary("sqrt", x)
        return unary("reciprocal", root)
    if isinstance(b, Tensor):
        return binary("pow", x, b)
    return tnp.power(x, use.dtype.numpy.type(b))


def _clamp(use: Use, x: Tensor, low: Any = None, high: Any = None) -> Any:
    y = x if low is None else tnp.maximum(x, _same_type(use, low)[0])
    return y if high is None else tnp.minimum(y, _same_type(use, high)[0])


def _fmod(use: Use, a: Any, b: Any) -> Any:
    return binary("fmod", *_same_type(use, a, b))


def _where(use: Use, condition: Tensor, a: Any, b: Any) -> Any:
    dtype = use.type.dtype
    return elementwise(ops.Select(), cast(condition, DType.BOOL), lift(a, dtype), lift(b, dtype))


def _round(use: Use, x: Tensor, decimals: int = 0) -> Any:
    return tnp.round(x, decimals)


def _rsqrt(use: Use, x: Tensor) -> Any:
    return unary("reciprocal", unary("sqrt", x))


def _relu(use: Use, x: Tensor) -> Any:
    return binary("max", x, 0)


def _elu(use: Use, x: Tensor, alpha: float, scale: float, input_scale: float) -> Any:
    below = tnp.expm1(tnp.minimum(x, 0) * input_scale) * alpha
    return select(x > 0, x, below) * scale


def _leaky_relu(use: Use, x: Tensor, slope: float) -> Any:
    return select(x > 0, x, x * slope)


def _gelu(use: Use, x: Tensor, approximate: str) -> Any:
    return onnx_op("Gelu", x, approximate=approximate)


def _silu(use: Use, x: Tensor) -> Any:
    return x * unary("sigmoid", x)


def _erfc(use: Use, x: Tensor) -> Any:
    return 1 - unary("erf", x)


def _logit(use: Use, x: Tensor, eps: float | None) -> Any:
    held = x if eps is None else tnp.clip(x, eps, 1 - eps)
    return tnp.log(held / (1 - held))


def _sigmoid(use: Use, x: Tensor) -> Any:
    return unary("sigmoid", x)


def _shift(name: str) -> Lowering:
    function = getattr(tnp, name)
    return lambda use, a, b: function(*_same_type(use, a, b))


def _copy(use: Use, x: Tensor, source: Any = None) -> Any:
    """`copy` is its second operand in the shape of the first."""
    return x if source is None else tnp.broadcast_to(source, x.shape)


def _table(names: str, make: Callable[[str], Lowering]) -> dict[str, Lowering]:
    """Operators by their ATen names, which ``aten=numpy`` tells apart where they differ."""
    pairs = [item.split("=") for item in names.split()]
    return {pair[0]: make(pair[-1]) for pair in pairs}


_TO_RESULT: Mapping[str, Lowering] = MappingProxyType(
    {
        **_table(
            "acos=arccos acosh=arccosh asin=arcsin asinh=arcsinh atan=arctan atanh=arctanh cos cosh"
            " exp exp2 expm1 log log10 log1p log2 neg=negative reciprocal sin sinh sqrt tan tanh"
            " abs sign sgn=sign ceil floor trunc square deg2rad rad2deg bitwise_not=invert",
            _unary,
        ),
        **_table(
            "mul=multiply div=divide atan2=arctan2 maximum minimum remainder fmax fmin"
            " bitwise_and bitwise_or bitwise_xor hypot copysign logaddexp floor_divide",
            _binary,
        ),
        **_table("__lshift__=left_shift __rshift__=right_shift", _shift),
        **_table("bitwise_left_shift=left_shift bitwise_right_shift=right_shift", _shift),
        "add": _scaled("add"),
        "sub": _scaled("subtract"),
        "rsub": _reverse_sub,
        "div.Tensor_mode": _div_mode,
        "div.Scalar_mode": _div_mode,
        "pow": _pow,
        "clamp": _clamp,
        "clamp_min": lambda use, x, low: _clamp(use, x, low),
        "clamp_max": lambda use, x, high: _clamp(use, x, None, high),
        "hardtanh": _clamp,
        "fmod": _fmod,
        "round": _round,
        "rsqrt": _rsqrt,
        "relu": _relu,
        "elu": _elu,
        "leaky_relu": _leaky_relu,
        "gelu": _gelu,
        "silu": _silu,
        "erf": lambda use, x: unary("erf", x),
        "erfc": _erfc,
        "erfinv": lambda use, x: erf_inv(x),
        "logit": _logit,
        "sigmoid": _sigmoid,
        "copy": _copy,
    }
)

_BY_COMMON_TYPE: Mapping[str, Lowering] = MappingProxyType(
    {
        **_table(
            "eq=equal ne=not_equal lt=less le=less_equal gt=greater ge=greater_equal", _compare
        ),
        **_table("logical_and logical_or logical_xor", _compare),
        **_table("logical_not isinf isnan isfinite signbit", _unary),
    }
)

_AS_GIVEN: Mapping[str, Lowering] = MappingProxyType(
    {
        "where": _where,
        "_to_copy": lambda use, x: cast(x, use.type.dtype),
        "clone": lambda use, x: x,
        "alias": lambda use, x: x,
        "detach": lambda use, x: x,
        "lift_fresh_copy": lambda use, x: x,
        "_conj": lambda use, x: x,
    }
)

RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **rules(Operands.RESULT, _TO_RESULT),
        **rules(Operands.COMMON, _BY_COMMON_TYPE),
        **rules(Operands.GIVEN, _AS_GIVEN),
    }
)
"""By the operator's name, with its overload where overloads differ."""
