"""Elementwise primitives: operands of one exact shape in, a tensor of that shape out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from aotc.graph.ir import Op
from aotc.graph.rules import (
    expect_count,
    expect_integer,
    expect_known,
    expect_numeric,
    expect_same,
    require,
    result_type,
    through_float32,
)
from aotc.graph.types import DType, TensorType

_erf_float64 = np.vectorize(math.erf, otypes=[np.float64])


def _sigmoid(x: np.ndarray) -> np.ndarray:
    one = x.dtype.type(1)
    return np.asarray(one / (one + np.exp(-x)))


_UNARY: Mapping[str, Callable[[np.ndarray], np.ndarray]] = MappingProxyType(
    {
        "neg": np.negative,
        "abs": np.abs,
        "sign": np.sign,
        "exp": np.exp,
        "log": np.log,
        "sqrt": np.sqrt,
        "reciprocal": np.reciprocal,
        "tanh": np.tanh,
        "erf": lambda x: _erf_float64(x.astype(np.float64)) if x.size else x,
        "sigmoid": _sigmoid,
        "sin": np.sin,
        "cos": np.cos,
        "tan": np.tan,
        "asin": np.arcsin,
        "acos": np.arccos,
        "atan": np.arctan,
        "sinh": np.sinh,
        "cosh": np.cosh,
        "asinh": np.arcsinh,
        "acosh": np.arccosh,
        "atanh": np.arctanh,
        "floor": np.floor,
        "ceil": np.ceil,
        "round": np.rint,
        "not": np.logical_not,
        "isnan": np.isnan,
        "isinf": np.isinf,
        "bitnot": np.invert,
    }
)

UNARY_FUNCTIONS = frozenset(_UNARY)
#: Functions of floats, Binary's among them, that take many instructions.
TRANSCENDENTAL = frozenset(
    ["exp", "log", "tanh", "erf", "sigmoid", "sin", "cos", "tan", "asin", "acos", "atan"]
    + ["sinh", "cosh", "asinh", "acosh", "atanh", "pow"]
)


@dataclass(frozen=True)
class Unary(Op):
    """Elementwise, one operand. ``fn`` on numbers: neg abs sign. On floats: exp log sqrt reciprocal
    tanh erf sigmoid sin cos tan asin acos atan sinh cosh asinh acosh atanh floor ceil round (half
    to even), and isnan isinf with result bool. On bool: not. On integers: bitnot."""

    fn: str

    def infer(self, *operands: TensorType) -> TensorType:
        (x,) = expect_count(operands, 1)
        expect_known(self.fn, UNARY_FUNCTIONS)
        if self.fn in ("neg", "abs", "sign"):
            expect_numeric(x, f"'{self.fn}'")
        elif self.fn == "not":
            require(x.dtype is DType.BOOL, f"'not' needs bool, got {x}")
        elif self.fn == "bitnot":
            expect_integer(x, "'bitnot'")
        else:
            require(x.dtype.is_float, f"'{self.fn}' needs floats, got {x}")
        return result_type(DType.BOOL if self.fn in ("isnan", "isinf") else x.dtype, x.shape)

    @through_float32
    @np.errstate(all="ignore")
    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        (x,) = operands
        dtype = np.dtype(bool) if self.fn in ("isnan", "isinf") else x.dtype
        return np.asarray(_UNARY[self.fn](x), dtype=dtype)


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Division; integers truncate toward zero, and anything over zero is 0."""
    if a.dtype.kind == "f":
        return np.asarray(np.divide(a, b))
    quotient = np.asarray(np.floor_divide(a, b))
    inexact = np.subtract(a, np.multiply(quotient, b)) != 0
    rounded_down = inexact & ((a < 0) != (b < 0)) & (b != 0)
    return np.asarray(np.add(quotient, rounded_down.astype(a.dtype)))


def _power(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Power; an integer to a negative exponent is 1 / a**-b truncated, so 0 except for 1 and -1."""
    if a.dtype.kind != "i":
        return np.asarray(np.power(a, b))
    positive = np.power(a, np.maximum(b, 0))
    unit = np.where(a == 1, 1, np.where(a == -1, np.where(b & 1, -1, 1), 0))
    return np.where(b < 0, unit.astype(a.dtype), positive)


_ARITHMETIC: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = MappingProxyType(
    {
        "add": np.add,
        "sub": np.subtract,
        "mul": np.multiply,
        "div": _divide,
        "pow": _power,
        "min": np.minimum,
        "max": np.maximum,
        "mod": np.mod,
        "fmod": np.fmod,
    }
)
_BITWISE: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = MappingProxyType(
    {
        "and": np.bitwise_and,
        "or": np.bitwise_or,
        "xor": np.bitwise_xor,
        "shl": np.left_shift,
        "shr": np.right_shift,
    }
)

BINARY_FUNCTIONS = frozenset(_ARITHMETIC) | frozenset(_BITWISE)


@dataclass(frozen=True)
class Binary(Op):
    """Elementwise, two operands of one type. ``fn`` on numbers: add sub mul div pow min max (NaN
    wins) mod (sign of divisor) fmod (sign of dividend). Integers wrap; their div truncates toward
    zero; div, mod and fmod by zero give 0. On bool or integers, bitwise: and or xor. On integers:
    shl shr (by the width or more: every bit leaves)."""

    fn: str

    def infer(self, *operands: TensorType) -> TensorType:
        a, b = expect_count(operands, 2)
        expect_known(self.fn, BINARY_FUNCTIONS)
        expect_same(a, b)
        if self.fn in _ARITHMETIC:
            expect_numeric(a, f"'{self.fn}'")
        elif self.fn in ("shl", "shr"):
            expect_integer(a, f"'{self.fn}'")
        else:
            require(not a.dtype.is_float, f"'{self.fn}' needs bool or integers, got {a}")
        return result_type(a.dtype, a.shape)

    @through_float32
    @np.errstate(all="ignore")
    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        a, b = operands
        fn = _ARITHMETIC.get(self.fn) or _BITWISE[self.fn]
        return np.asarray(fn(a, b), dtype=a.dtype)


_COMPARE: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = MappingProxyType(
    {
        "eq": np.equal,
        "ne": np.not_equal,
        "lt": np.less,
        "le": np.less_equal,
        "gt": np.greater,
        "ge": np.greater_equal,
    }
)

COMPARE_FUNCTIONS = frozenset(_COMPARE)


@dataclass(frozen=True)
class Compare(Op):
    """Elementwise comparison of two operands of one type, result bool. ``fn``: eq ne, and on
    numbers lt le gt ge; a NaN compares false except under ne."""

    fn: str

    def infer(self, *operands: TensorType) -> TensorType:
        a, b = expect_count(operands, 2)
        expect_known(self.fn, COMPARE_FUNCTIONS)
        expect_same(a, b)
        if self.fn not in ("eq", "ne"):
            expect_numeric(a, f"'{self.fn}'")
        return result_type(DType.BOOL, a.shape)

    @through_float32
    @np.errstate(all="ignore")
    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        a, b = operands
        return np.asarray(_COMPARE[self.fn](a, b), dtype=bool)


@dataclass(frozen=True)
class Select(Op):
    """Elementwise ``condition ? a : b``; operands: bool, T, T of one shape."""

    def infer(self, *operands: TensorType) -> TensorType:
        condition, a, b = expect_count(operands, 3)
        require(condition.dtype is DType.BOOL, f"the condition must be bool, got {condition}")
        expect_same(a, b)
        require(
            condition.shape == a.shape, f"condition {condition} and values {a} differ in shape"
        )
        return result_type(a.dtype, a.shape)

    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        condition, a, b = operands
        return np.asarray(np.where(condition, a, b), dtype=a.dtype)


def _saturate(x: np.ndarray, target: np.dtype) -> np.ndarray:
    """Floats to integers: toward zero, at the ends of the range when beyond it, NaN to 0."""
    info = np.iinfo(target)
    # the largest int64 has no float64, but the power of two above it has: compare against that
    wide = np.trunc(x.astype(np.float64))
    too_high, too_low = wide >= float(info.max + 1), wide < float(info.min)
    inside = np.where(too_high | too_low | np.isnan(wide), 0.0, wide).astype(target)
    inside = np.where(too_high, target.type(info.max), inside)
    return np.where(too_low, target.type(info.min), inside)


@dataclass(frozen=True)
class Cast(Op):
    """Elementwise conversion. Float to integer truncates toward zero and saturates (NaN gives 0),
    integer to narrower integer wraps, to bool is ``!= 0``, bool gives 0 or 1.

    To a float is to nearest even, or to infinity, else NaN, else the largest value when beyond the
    range. To and from narrow floats is by way of float32. Integers of 2 and 4 bits are the low bits
    of the int32 that the value converts to.
    """

    dtype: DType

    def infer(self, *operands: TensorType) -> TensorType:
        (x,) = expect_count(operands, 1)
        return result_type(self.dtype, x.shape)

    @np.errstate(all="ignore")
    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        (x,) = operands
        source, target = DType.of(x), self.dtype
        if source is target:
            return x
        if any(dtype.is_float and dtype.is_narrow for dtype in (source, target)):
            x = x.astype(np.float32)
        elif source.is_narrow:
            x = x.astype(source.machine.numpy)
        if target.is_int and source.is_float:
            whole = _saturate(x, np.dtype(np.int32) if target.is_narrow else target.numpy)
            return whole.astype(target.numpy)
        return np.asarray(x != 0) if target is DType.BOOL else x.astype(target.numpy)


@dataclass(frozen=True)
class Bitcast(Op):
    """The same bits as another type of the same size in memory; neither may be bool. The spare bits
    of an integer or float of less than a byte mean nothing."""

    dtype: DType

    def infer(self, *operands: TensorType) -> TensorType:
        (x,) = expect_count(operands, 1)
        require(DType.BOOL not in (x.dtype, self.dtype), "the bits of a bool have no other meaning")
        require(
            x.dtype.size_bytes == self.dtype.size_bytes,
            f"{x} and {self.dtype.value} differ in size",
        )
        return result_type(self.dtype, x.shape)

    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        (x,) = operands
        return np.asarray(x).view(self.dtype.numpy)


@dataclass(frozen=True)
class Relabel(Op):
    """A tensor of a narrow type as the integers that store it, or the reverse. Unlike `Bitcast`,
    which computes, this is another name for the same memory: it stands at the ends of a graph,
    whose inputs and outputs keep the types that the user knows."""

    dtype: DType

    def infer(self, *operands: TensorType) -> TensorType:
        (x,) = expect_count(operands, 1)
        require(
            x.dtype.is_narrow != self.dtype.is_narrow and x.dtype.machine is self.dtype.machine,
            f"{x} is not stored as {self.dtype.value}, nor the reverse",
        )
        return result_type(self.dtype, x.shape)

    def evaluate(self, *operands: np.ndarray) -> np.ndarray:
        (x,) = operands
        return np.asarray(x).view(self.dtype.numpy)
