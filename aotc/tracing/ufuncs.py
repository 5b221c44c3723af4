"""numpy's elementwise functions (ufuncs) on Tensors in, primitives out.

numpy itself says which types a function computes in (``resolve_dtypes``, where Python numbers are
weak), so promotion is numpy's. Each function here gets operands of those types.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from aotc.graph import ops
from aotc.graph.types import DType
from aotc.tracing.core import (
    BITS,
    Number,
    binary,
    bits,
    broadcast,
    cast,
    compare,
    constant,
    described,
    elementwise,
    joint_shape,
    known,
    lift,
    select,
    unary,
)
from aotc.tracing.places import misuse, unsupported
from aotc.tracing.tensor import Tensor, tnp

Rule = Callable[..., Tensor | tuple[Tensor, ...]]


def call_ufunc(
    ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], named: Mapping[str, Any]
) -> Any:
    """``ufunc(*inputs)``; UnsupportedError for a function, method or argument that does not
    trace."""
    name = f"numpy.{ufunc.__name__}"
    if any(item is not None for item in named.get("out", ())):
        raise unsupported(f"{name} with out= cannot change a value in place", "use its result")
    if named.get("where", True) is not True:
        raise unsupported(f"{name} with where= does not trace", "use np.where on the result")
    if method != "__call__":
        return _call_method(ufunc, method, inputs, named)
    if ufunc is np.matmul:
        from aotc.tracing.products import matmul

        return matmul(*inputs)
    rule = _RULES.get(ufunc.__name__)
    if rule is None:
        raise unsupported(f"{name} does not trace")
    inputs = tuple(_plain(value) for value in inputs)
    loop = _loop_types(ufunc, inputs, named.get("dtype"))
    short = _short_power(ufunc, inputs, loop)
    if short is not None:
        return short
    if len(inputs) > 1:
        joint_shape(name, inputs)
    known_order = _order_beyond(ufunc, inputs)
    if known_order is not None:
        return known_order
    operands = [
        lift(value, DType(dtype.name)) for value, dtype in zip(inputs, loop, strict=False)
    ]
    return rule(*operands)


def _order_beyond(ufunc: np.ufunc, inputs: tuple[Any, ...]) -> Tensor | None:
    """A comparison of integers with a Python number beyond the range of their type, which has one
    answer for all; None for everything else."""
    if ufunc.__name__ not in _COMPARISONS:
        return None
    for x, number in (inputs, inputs[::-1]):
        if isinstance(x, Tensor) and x.type.dtype.is_int and type(number) is int:
            low, high = x.type.dtype.int_range
            if not low <= number <= high:
                inside = [0 if each is x else float(number) for each in inputs]
                return broadcast(constant(bool(ufunc(*inside))), x.shape)
    return None


def _plain(value: Any) -> Any:
    """Lists, scalars of numpy and what numpy can read as arrays; Python's own numbers stay weak."""
    if isinstance(value, list | tuple) or hasattr(value, "__array_namespace__"):
        return lift(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _loop_types(ufunc: np.ufunc, inputs: tuple[Any, ...], dtype: Any) -> tuple[np.dtype, ...]:
    """The types that numpy computes in: of each operand, then of each result."""
    given: list[Any] = []
    for value in inputs:
        if isinstance(value, bool):
            given.append(np.dtype(bool))
        elif isinstance(value, int | float | complex):
            given.append(type(value))
        elif isinstance(value, Tensor | np.ndarray):
            given.append(value.dtype)
        else:
            raise misuse(f"numpy.{ufunc.__name__} takes numbers and arrays: {described(inputs)}")
    resolve: Any = ufunc.resolve_dtypes
    named: dict[str, Any] = {}
    if dtype is not None:
        named["signature"] = (None,) * ufunc.nin + (np.dtype(dtype),) * ufunc.nout
    try:
        loop = resolve((*given, *[None] * ufunc.nout), **named)
        for each in loop:
            DType(each.name)
    except (TypeError, ValueError):
        raise misuse(
            f"numpy.{ufunc.__name__} is not defined for {described(inputs)}", "convert them first"
        ) from None
    return tuple(loop)


def _short_power(ufunc: np.ufunc, inputs: tuple[Any, ...], loop: Any) -> Tensor | None:
    """Powers that are products or roots; numpy takes the same short cuts."""
    if ufunc is not np.power or not isinstance(inputs[1], Number | np.ndarray):
        return None
    if np.ndim(inputs[1]) or not isinstance(inputs[0], Tensor):
        return None
    exponent, x = float(inputs[1]), cast(inputs[0], DType(loop[0].name))
    if exponent == 1:
        return x
    if exponent in (2, 3, 4):
        square = binary("mul", x, x)
        return square if exponent == 2 else binary("mul", square, x if exponent == 3 else square)
    if exponent == 0.5 and x.type.dtype.is_float:
        return unary("sqrt", x)
    return None


def _call_method(
    ufunc: np.ufunc, method: str, inputs: tuple[Any, ...], named: Mapping[str, Any]
) -> Any:
    """``np.add.reduce`` and its kin by way of the functions that do the same."""
    twins: Mapping[tuple[str, str], Any] = {
        ("add", "reduce"): np.sum,
        ("multiply", "reduce"): np.prod,
        ("maximum", "reduce"): np.max,
        ("minimum", "reduce"): np.min,
        ("logical_and", "reduce"): np.all,
        ("logical_or", "reduce"): np.any,
        ("add", "accumulate"): np.cumsum,
    }
    twin = twins.get((ufunc.__name__, method))
    if twin is not None:
        given = {key: value for key, value in named.items() if key != "out"}
        if len(inputs) == 1:
            given.setdefault("axis", 0)
        return twin(*inputs, **given)
    if method == "outer":
        a, b = (lift(value) if not isinstance(value, Number) else value for value in inputs)
        wide = a if isinstance(a, Number) else tnp.reshape(a, (*a.shape, *[1] * np.ndim(b)))
        return ufunc(wide, b)
    raise unsupported(f"numpy.{ufunc.__name__}.{method} does not trace")


# What has no primitive of its own. Formulas hold for float16 to float64 unless they say otherwise.


def _is_float(x: Tensor) -> bool:
    return x.type.dtype.is_float


def _is_bool(x: Tensor) -> bool:
    return x.type.dtype is DType.BOOL


def _sign_bit(x: Tensor) -> int:
    return 1 << (8 * x.itemsize - 1)


def _signbit(x: Tensor) -> Tensor:
    if not _is_float(x):
        return compare("lt", x, 0)
    return compare("ge", bits(x, BITS[x.itemsize]), _sign_bit(x))


def _copysign(a: Tensor, b: Tensor) -> Tensor:
    other_side = binary("xor", _signbit(a), _signbit(b))
    return select(other_side, unary("neg", a), a)


def _nextafter(x: Tensor, y: Tensor) -> Tensor:
    """Bits of floats of one sign are in the order of their magnitudes."""
    kind, whole = x.type.dtype, BITS[x.itemsize]
    place = bits(x, whole)
    outward = compare("eq", compare("gt", y, x), compare("gt", x, 0))
    step = select(outward, binary("add", place, 1), binary("sub", place, 1))
    least = _copysign(bits(constant(1, whole), kind), y)
    moved = select(compare("eq", x, 0), least, bits(step, kind))
    moved = select(compare("eq", x, y), y, moved)
    return select(binary("or", unary("isnan", x), unary("isnan", y)), math.nan, moved)


def _arith(fn: str, on_bool: str) -> Rule:
    """Arithmetic, and what it is on bools."""
    return lambda a, b: binary(on_bool if _is_bool(a) else fn, a, b)


def _logical(fn: str) -> Rule:
    return lambda a, b: binary(fn, cast(a, DType.BOOL), cast(b, DType.BOOL))


def _compare(fn: str) -> Rule:
    def rule(a: Tensor, b: Tensor) -> Tensor:
        if _is_bool(a) and fn not in ("eq", "ne"):
            a, b = cast(a, DType.U8), cast(b, DType.U8)
        if a.type.dtype is not b.type.dtype:
            raise unsupported(
                f"numpy compares {described((a, b))} exactly, for which there is no machine code",
                "convert one of them with astype",
            )
        return compare(fn, a, b)

    return rule


def _whole(fn: str) -> Rule:
    """Rounding, which leaves integers as they are."""
    return lambda x: unary(fn, x) if _is_float(x) else x


def _trunc(x: Tensor) -> Tensor:
    if not _is_float(x):
        return x
    return select(_signbit(x), unary("ceil", x), unary("floor", x))


def _floor_divide(a: Tensor, b: Tensor) -> Tensor:
    """Toward minus infinity; in floats by way of the remainder, as numpy does it."""
    if not _is_float(a):
        quotient = binary("div", a, b)
        if not a.type.dtype.is_signed:
            return quotient
        left = binary("sub", a, binary("mul", quotient, b))
        negative = compare("lt", binary("xor", a, b), 0)
        down = elementwise(ops.Binary("and"), compare("ne", left, 0), negative)
        down = elementwise(ops.Binary("and"), down, compare("ne", b, 0))
        return binary("sub", quotient, cast(down, a.type.dtype))
    rest, plain = binary("fmod", a, b), binary("div", a, b)
    whole = binary("div", binary("sub", a, rest), b)
    other_side = binary("xor", compare("lt", b, 0), compare("lt", rest, 0))
    down = binary("and", compare("ne", rest, 0), other_side)
    whole = select(down, binary("sub", whole, 1), whole)
    below = unary("floor", whole)
    near = select(compare("gt", binary("sub", whole, below), 0.5), binary("add", below, 1), below)
    result = select(compare("eq", whole, 0), _copysign(whole, plain), near)
    if a.itemsize > 2:  # a quotient without fraction, of which the remainder may be inexact
        huge = compare("ge", unary("abs", plain), 2.0**52)
        huge = binary("and", huge, unary("not", unary("isinf", a)))
        result = select(huge, plain, result)
    return select(compare("eq", b, 0), plain, result)


def _remainder(a: Tensor, b: Tensor) -> Tensor:
    return binary("mod", a, b)


def _isfinite(x: Tensor) -> Tensor:
    if not _is_float(x):
        return elementwise(ops.Compare("eq"), x, x)
    return unary("not", binary("or", unary("isnan", x), unary("isinf", x)))


def _never(fn: str) -> Rule:
    return lambda x: unary(fn, x) if _is_float(x) else elementwise(ops.Compare("ne"), x, x)


def _ignoring_nan(fn: str) -> Rule:
    """fmax and fmin: of a number and a NaN, the number."""

    def rule(a: Tensor, b: Tensor) -> Tensor:
        if not _is_float(a):
            return binary({"max": "or", "min": "and"}[fn] if _is_bool(a) else fn, a, b)
        best = select(unary("isnan", b), a, binary(fn, a, b))
        return select(unary("isnan", a), b, best)

    return rule


def _size(x: Tensor) -> Tensor:
    """The absolute value by the sign bit, so that its slope at 0 is that of `_copysign`."""
    return select(_signbit(x), unary("neg", x), x)


# Formulas whose derivatives, which are taken step by step, are as exact as their values: where a
# step would have no finite slope, select gives it another operand.


def _expm1(x: Tensor) -> Tensor:
    """u - 1 with u = e^x as it is rounded, plus the rest, which is u (x - log u) to first order."""
    near = compare("lt", unary("abs", x), 1)
    power = unary("exp", x)
    base = select(near, power, 1)
    rest = binary("mul", base, binary("sub", select(near, x, 0), unary("log", base)))
    return select(compare("eq", power, 1), x, binary("add", binary("sub", power, 1), rest))


def _log1p(x: Tensor) -> Tensor:
    """log u with u = 1 + x as it is rounded, plus the rest, which is (1 + x - u) / u to first
    order."""
    more = binary("add", x, 1)
    rest = binary("div", binary("sub", x, binary("sub", more, 1)), more)
    odd = binary("or", unary("isinf", more), compare("eq", x, -1))
    result = binary("add", unary("log", more), select(odd, 0, rest))
    return select(compare("eq", more, 1), x, result)


def _cbrt(x: Tensor) -> Tensor:
    """The power 1/3 and one step of Newton's method."""
    size = _size(x)
    root = binary("pow", size, 1 / 3)
    over = binary("sub", root, binary("div", size, binary("mul", root, root)))
    better = binary("sub", root, binary("div", over, 3))
    odd = binary("or", compare("eq", size, 0), unary("isinf", size))
    return _copysign(select(odd, size, better), x)


def _hypot(a: Tensor, b: Tensor) -> Tensor:
    """The larger times sqrt(1 + ratio^2), which overflows only when the result does."""
    infinite = binary("or", unary("isinf", a), unary("isinf", b))
    a, b = _size(a), _size(b)
    less = compare("lt", a, b)
    large, small = select(less, b, a), select(less, a, b)
    ratio = binary("div", small, select(compare("eq", large, 0), 1, large))
    result = binary("mul", large, unary("sqrt", binary("add", binary("mul", ratio, ratio), 1)))
    return select(infinite, math.inf, result)


def _arctan2(y: Tensor, x: Tensor) -> Tensor:
    """The arctangent of the smaller over the larger, mirrored into the right eighth."""
    high, wide = _size(y), _size(x)
    steep = compare("gt", high, wide)
    small, large = select(steep, wide, high), select(steep, high, wide)
    ratio = binary("div", small, select(compare("eq", large, 0), 1, large))
    ratio = select(unary("isinf", small), 1, ratio)
    ratio = select(binary("or", unary("isnan", x), unary("isnan", y)), math.nan, ratio)
    angle = unary("atan", ratio)
    angle = select(steep, binary("sub", constant(math.pi / 2, x.type.dtype), angle), angle)
    angle = select(_signbit(x), binary("sub", constant(math.pi, x.type.dtype), angle), angle)
    return _copysign(angle, y)


def _heaviside(x: Tensor, at_zero: Tensor) -> Tensor:
    step = select(compare("eq", x, 0), at_zero, cast(compare("gt", x, 0), x.type.dtype))
    return select(unary("isnan", x), x, step)


def _logaddexp(a: Tensor, b: Tensor) -> Tensor:
    same = compare("eq", a, b)
    half = binary("add", binary("mul", a, 0.5), binary("mul", b, 0.5))
    apart = unary("neg", unary("abs", binary("sub", a, b)))
    rest = _log1p(unary("exp", select(same, 0, apart)))
    return binary("add", select(same, half, binary("max", a, b)), rest)


def _sign(x: Tensor) -> Tensor:
    return unary("sign", x)


def _power(a: Tensor, b: Tensor) -> Tensor:
    exponents = known(b)
    if not _is_float(a) and exponents is not None and (exponents < 0).any():
        raise misuse("integers to negative integer powers are not allowed", "convert to a float")
    return binary("pow", a, b)


def _reciprocal(x: Tensor) -> Tensor:
    return unary("reciprocal", x) if _is_float(x) else binary("div", constant(1, x.type.dtype), x)


def _magnitude(x: Tensor) -> Tensor:
    return x if _is_bool(x) else unary("abs", x)


def _invert(x: Tensor) -> Tensor:
    return unary("not" if _is_bool(x) else "bitnot", x)


def _clip(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    joint_shape("numpy.clip", (x, low, high))
    return binary("min", binary("max", x, low), high)


def _times(factor: float) -> Rule:
    return lambda x: binary("mul", x, factor)


def _scaled_log(factor: float) -> Rule:
    return lambda x: binary("mul", unary("log", x), factor)


def _same(x: Tensor) -> Tensor:
    return x


def _unary_rule(fn: str) -> Rule:
    return lambda x: unary(fn, x)


def _binary_rule(fn: str) -> Rule:
    return lambda a, b: binary(fn, a, b)


_NAMES = (
    "exp log sqrt tanh sin cos tan sinh cosh arcsin=asin arccos=acos arctan=atan arcsinh=asinh "
    "arccosh=acosh arctanh=atanh negative=neg fabs=abs"
)
_PAIRS = (
    "subtract=sub divide=div fmod=fmod "
    "bitwise_and=and bitwise_or=or bitwise_xor=xor left_shift=shl right_shift=shr float_power=pow"
)
_COMPARISONS = frozenset({"equal", "not_equal", "less", "less_equal", "greater", "greater_equal"})
_ORDERS = "equal=eq not_equal=ne less=lt less_equal=le greater=gt greater_equal=ge"


def _pairs(text: str) -> list[tuple[str, str]]:
    return [(item.split("=")[0], item.split("=")[-1]) for item in text.split()]


_RULES: Mapping[str, Rule] = MappingProxyType(
    {
        **{name: _unary_rule(fn) for name, fn in _pairs(_NAMES)},
        **{name: _binary_rule(fn) for name, fn in _pairs(_PAIRS)},
        **{name: _compare(fn) for name, fn in _pairs(_ORDERS)},
        **{f"logical_{fn}": _logical(fn) for fn in ("and", "or", "xor")},
        "logical_not": lambda x: unary("not", cast(x, DType.BOOL)),
        "add": _arith("add", "or"),
        "multiply": _arith("mul", "and"),
        "maximum": _arith("max", "or"),
        "minimum": _arith("min", "and"),
        "floor": _whole("floor"),
        "ceil": _whole("ceil"),
        "rint": _whole("round"),
        "trunc": _trunc,
        "floor_divide": _floor_divide,
        "remainder": _remainder,
        "divmod": lambda a, b: (_floor_divide(a, b), _remainder(a, b)),
        "power": _power,
        "fmax": _ignoring_nan("max"),
        "fmin": _ignoring_nan("min"),
        "isnan": _never("isnan"),
        "isinf": _never("isinf"),
        "isfinite": _isfinite,
        "absolute": _magnitude,
        "sign": _sign,
        "signbit": _signbit,
        "copysign": _copysign,
        "nextafter": _nextafter,
        "positive": _same,
        "conjugate": _same,
        "square": lambda x: binary("mul", x, x),
        "reciprocal": _reciprocal,
        "invert": _invert,
        "bitwise_not": _invert,
        "exp2": lambda x: elementwise(ops.Binary("pow"), constant(2, x.type.dtype), x),
        "expm1": _expm1,
        "log1p": _log1p,
        "log2": _scaled_log(1 / math.log(2)),
        "log10": _scaled_log(1 / math.log(10)),
        "cbrt": _cbrt,
        "hypot": _hypot,
        "arctan2": _arctan2,
        "heaviside": _heaviside,
        "logaddexp": _logaddexp,
        "deg2rad": _times(math.pi / 180),
        "radians": _times(math.pi / 180),
        "rad2deg": _times(180 / math.pi),
        "degrees": _times(180 / math.pi),
        "clip": _clip,
    }
)
SUPPORTED: frozenset[str] = frozenset(_RULES) | {"matmul"}
"""The names of the ufuncs that trace."""
