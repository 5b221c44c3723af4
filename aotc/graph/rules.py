"""The checks that type rules share: operand types in, the result type or a ValueError out."""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

import numpy as np

from aotc.graph.types import Dim, DType, Symbol, TensorType

# far beyond any machine's memory for one tensor, far below overflow of an int64 offset
MAX_ELEMS = 2**40


def require(condition: bool, sentence: str) -> None:
    """ValueError with ``sentence`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(sentence)


def expect_count(operands: tuple[TensorType, ...], count: int) -> tuple[TensorType, ...]:
    """``operands`` unchanged when there are ``count`` of them."""
    require(len(operands) == count, f"takes {count} operands, got {len(operands)}")
    return operands


def expect_same(a: TensorType, b: TensorType) -> None:
    """Both types must be equal, element type and shape."""
    require(a.dtype is b.dtype, f"operands have different element types: {a} and {b}")
    require(a.shape == b.shape, f"operands have different shapes: {a} and {b}")


def expect_axis(axis: int, rank: int) -> None:
    """``axis`` must count from the front and lie within ``rank``."""
    require(0 <= axis < rank, f"axis {axis} is outside a tensor of rank {rank}")


def expect_each_axis(attribute: str, values: tuple[int, ...], rank: int) -> None:
    """A per-axis attribute must have one entry for each of ``rank`` axes."""
    require(
        len(values) == rank, f"'{attribute}' has {len(values)} entries for {rank} axes: {values}"
    )


def expect_numeric(x: TensorType, what: str) -> None:
    """Floats, and integers of whole bytes; not bool."""
    require(x.dtype is not DType.BOOL, f"{what} needs numbers, got {x}")
    require(not (x.dtype.is_int and x.dtype.is_narrow), f"{what} needs whole bytes, got {x}")


def expect_integer(x: TensorType, what: str) -> None:
    """Integers of one byte or more."""
    require(x.dtype.is_int, f"{what} needs integers, got {x}")
    require(not x.dtype.is_narrow, f"{what} needs whole bytes, got {x}")


def expect_known(fn: str, known: frozenset[str]) -> None:
    """``fn`` must be one of the functions of the primitive."""
    require(fn in known, f"has no function '{fn}', only {', '.join(sorted(known))}")


def result_type(dtype: DType, shape: tuple[Dim, ...]) -> TensorType:
    """The checked result type of a primitive: no negative size, at most ``MAX_ELEMS`` elements.

    A symbol counts with its bound, or as 1 while it has none.
    """
    dims = tuple(dim if isinstance(dim, Symbol) else operator.index(dim) for dim in shape)
    sizes = [(dim.bound or 1) if isinstance(dim, Symbol) else dim for dim in dims]
    require(min(sizes, default=0) >= 0, f"the result would have a negative size: {shape}")
    elems = math.prod(sizes)
    result = TensorType(dtype, dims)
    require(elems <= MAX_ELEMS, f"{result} asks for {elems} elements, more than 2**40")
    return result


def is_short_float(dtype: DType) -> bool:
    """Whether arithmetic on ``dtype`` is done in float32."""
    return dtype.is_float and dtype.arithmetic is not dtype


Evaluate = Callable[..., np.ndarray]


def through_float32(evaluate: Evaluate) -> Evaluate:
    """``evaluate`` of a primitive that computes: operands of shorter floats are taken as float32,
    and a float32 result is rounded once to their type."""

    @functools.wraps(evaluate)
    def wide(self: Any, *operands: np.ndarray) -> np.ndarray:
        short = [x.dtype for x in operands if is_short_float(DType.of(x))]
        if not short:
            return evaluate(self, *operands)
        taken = (x.astype(np.float32) if x.dtype in short else x for x in operands)
        result = evaluate(self, *taken)
        with np.errstate(all="ignore"):
            return result.astype(short[0]) if result.dtype == np.float32 else result

    return wide


def window_extent(size: int, window: int, stride: int, low: int, high: int, dilation: int) -> int:
    """How many positions a dilated window takes on a padded axis:
    floor((padded - reach) / stride) + 1 with reach = (window - 1) * dilation + 1."""
    require(window >= 1, f"a window of {window} elements is empty")
    require(stride >= 1 and dilation >= 1, f"stride {stride} and dilation {dilation} must be >= 1")
    require(low >= 0 and high >= 0, f"padding ({low}, {high}) must not be negative")
    reach = (window - 1) * dilation + 1
    padded = size + low + high
    require(padded >= reach, f"a window reaching {reach} does not fit an axis of {padded} elements")
    return (padded - reach) // stride + 1
