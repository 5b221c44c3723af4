"""Elementwise primitives of JAX: Tensors of one type in, numpy's functions on them out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from aotc.errors import UnsupportedError
from aotc.graph import ops
from aotc.graph.types import DType
from aotc.importers.erf_inv import erf_inv
from aotc.importers.use import Use
from aotc.tracing.core import binary, cast, compare, elementwise, select, unary
from aotc.tracing.tensor import Tensor, tnp

Lowering = Callable[..., Any]
"""(use, *operands, **parameters of the primitive) -> its result, or a sequence of them."""


def _plain(name: str) -> Lowering:
    """A function of numpy of the same meaning."""
    function = getattr(tnp, name)
    return lambda use, *operands, **ignored: function(*operands)


def _unary(name: str) -> Lowering:
    return lambda use, x, **ignored: unary(name, x)


def _binary(name: str) -> Lowering:
    return lambda use, a, b, **ignored: binary(name, a, b)


def _logical(name: str) -> Lowering:
    """Bitwise on integers, and on bools."""
    return lambda use, a, b: binary(name, a, b)


def _not(use: Use, x: Tensor) -> Tensor:
    return unary("not" if x.type.dtype is DType.BOOL else "bitnot", x)


def _round(use: Use, x: Tensor, rounding_method: Any) -> Any:
    """Halves away from zero (method 0) or to even."""
    if int(rounding_method):
        return unary("round", x)
    whole = tnp.trunc(x)
    further = compare("ge", unary("abs", binary("sub", x, whole)), 0.5)
    step = select(further, tnp.copysign(tnp.ones_like(x), x), 0)
    return binary("add", whole, step)


def _integer_power(use: Use, x: Tensor, y: int) -> Any:
    """By repeated squaring."""
    result: Any = None
    power, left = x, abs(y)
    while left:
        if left % 2:
            result = power if result is None else result * power
        left //= 2
        power = power * power if left else power
    if result is None:
        return tnp.ones_like(x)
    return unary("reciprocal", result) if y < 0 else result


def _power(use: Use, a: Tensor, b: Tensor) -> Any:
    return binary("pow", a, cast(b, a.type.dtype))


def _rsqrt(use: Use, x: Tensor, **ignored: Any) -> Any:
    return unary("reciprocal", unary("sqrt", x))


def _sign(use: Use, x: Tensor) -> Any:
    """Of a NaN it is NaN."""
    y = unary("sign", x)
    return select(unary("isnan", x), x, y) if x.type.dtype.is_float else y


def _as_bits(x: Tensor, signed: bool) -> Tensor:
    """An integer with the same bits, signed or not."""
    width = 8 * x.itemsize
    return elementwise(ops.Bitcast(DType(f"{'' if signed else 'u'}int{width}")), x)


def _shift(name: str, signed: bool) -> Lowering:
    """Shifts of the bits of an integer as a signed or unsigned one."""

    def rule(use: Use, a: Tensor, b: Tensor) -> Tensor:
        shifted = binary(name, _as_bits(a, signed), _as_bits(b, signed))
        return elementwise(ops.Bitcast(use.type.dtype), shifted)

    return rule


def _ordered(name: str) -> Lowering:
    """Comparison in IEEE 754's total order: -NaN, -inf, ..., -0, 0, ..., inf, NaN."""

    def key(x: Tensor) -> Tensor:
        if not x.type.dtype.is_float:
            return x
        bits = _as_bits(x, True)
        width = 8 * x.itemsize
        # of negative numbers all bits but the sign turn, so that larger ones come first
        turned = binary("and", binary("shr", bits, width - 1), (1 << (width - 1)) - 1)
        return binary("xor", bits, turned)

    return lambda use, a, b: compare(name, key(a), key(b))


def _next_after(use: Use, x: Tensor, toward: Tensor) -> Tensor:
    """The neighbour of ``x``: the number before or after among the bits, or the least one at 0."""
    width = 8 * x.itemsize
    bits = _as_bits(x, True)
    away = binary("xor", compare("gt", toward, x), compare("lt", x, 0))
    step = select(away, tnp.ones_like(bits), -1)
    least = select(compare("gt", toward, x), tnp.ones_like(bits), -(1 << (width - 1)) + 1)
    moved = select(compare("eq", x, 0), least, binary("add", bits, step))
    y = elementwise(ops.Bitcast(x.type.dtype), moved)
    y = elementwise(ops.Select(), compare("eq", x, toward), toward, y)
    return select(binary("or", unary("isnan", x), unary("isnan", toward)), math.nan, y)


def _bitcast(use: Use, x: Tensor, new_dtype: Any) -> Tensor:
    if use.type.dtype.size_bytes != x.itemsize:
        raise UnsupportedError("bits as elements of another size are not supported")
    return x if use.type.dtype is x.type.dtype else elementwise(ops.Bitcast(use.type.dtype), x)


def _select(use: Use, which: Tensor, *cases: Tensor) -> Tensor:
    if which.type.dtype is DType.BOOL:
        return elementwise(ops.Select(), which, cases[-1], cases[0])
    result = cases[-1]
    for place in reversed(range(len(cases) - 1)):
        result = elementwise(ops.Select(), compare("le", which, place), cases[place], result)
    return result


def _clamp(use: Use, low: Tensor, x: Tensor, high: Tensor) -> Any:
    return binary("min", binary("max", x, low), high)


def _convert(use: Use, x: Tensor, **ignored: Any) -> Tensor:
    return cast(x, use.type.dtype)


def _same(use: Use, *operands: Tensor, **ignored: Any) -> Any:
    return operands[0] if len(operands) == 1 else list(operands)


def _reduced_precision(use: Use, x: Tensor, exponent_bits: int, mantissa_bits: int) -> Tensor:
    """Rounded to the bits of a float that exists, and back."""
    form = (exponent_bits, mantissa_bits)
    kinds = {(8, 23): DType.F32, (8, 7): DType.BF16, (5, 10): DType.F16, (11, 52): DType.F64}
    if form not in kinds:
        raise UnsupportedError(f"{exponent_bits} bits of exponent and {mantissa_bits} of mantissa")
    return cast(cast(x, kinds[form]), x.type.dtype)


def _population_count(use: Use, x: Tensor) -> Any:
    """The bits that are set, added up in pairs of ever wider fields."""
    width = 8 * x.itemsize
    y, step = _as_bits(x, False), 1
    while step < width:
        mask = sum(((1 << step) - 1) << place for place in range(0, width, 2 * step))
        low = binary("and", y, mask)
        y = binary("add", low, binary("and", binary("shr", y, step), mask))
        step *= 2
    return y


def _leading_zeros(use: Use, x: Tensor) -> Any:
    """What no bit at or below the highest one covers."""
    width = 8 * x.itemsize
    y, step = _as_bits(x, False), 1
    while step < width:
        y = binary("or", y, binary("shr", y, step))
        step *= 2
    return width - _population_count(use, y)


def _table(names: str, make: Callable[[str], Lowering]) -> dict[str, Lowering]:
    """Primitives by their names in JAX, with ours after = where they differ."""
    pairs = [item.split("=") for item in names.split()]
    return {pair[0]: make(pair[-1]) for pair in pairs}


RULES: Mapping[str, Lowering] = MappingProxyType(
    {
        **_table(
            "exp log sqrt tanh sin cos tan sinh cosh asin acos atan asinh acosh atanh floor ceil"
            " neg erf logistic=sigmoid",
            _unary,
        ),
        **_table("abs exp2 expm1 log1p cbrt square is_finite=isfinite atan2=arctan2", _plain),
        **_table("sub rem=fmod div", _binary),
        **_table("add=add add_any=add mul=multiply max=maximum min=minimum", _plain),
        **_table("eq=equal ne=not_equal lt=less le=less_equal gt=greater ge=greater_equal", _plain),
        **_table("eq_to=eq lt_to=lt le_to=le", _ordered),
        **_table("and or xor", _logical),
        "not": _not,
        "round": _round,
        "integer_pow": _integer_power,
        "pow": _power,
        "rsqrt": _rsqrt,
        "sign": _sign,
        "erfc": lambda use, x: 1 - unary("erf", x),
        "erf_inv": lambda use, x: erf_inv(x),
        "shift_left": _shift("shl", False),
        "shift_right_logical": _shift("shr", False),
        "shift_right_arithmetic": _shift("shr", True),
        "nextafter": _next_after,
        "bitcast_convert_type": _bitcast,
        "population_count": _population_count,
        "clz": _leading_zeros,
        "select_n": _select,
        "clamp": _clamp,
        "convert_element_type": _convert,
        "reduce_precision": _reduced_precision,
        **dict.fromkeys(("copy", "copy_p", "stop_gradient", "optimization_barrier", "real"), _same),
    }
)
