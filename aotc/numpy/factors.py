"""Factorisations of matrices and what follows from them: stacks of matrices in, stacks out.

They are loops over columns of whole-matrix updates, so that the graph is as small for large
matrices as for small ones. Nothing is raised for a singular matrix: what divides by its zero pivot
is infinite or NaN.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from aotc.numpy.array import ArgumentError
from aotc.numpy.eager import operation
from aotc.numpy.elementwise import promoted
from aotc.numpy.types import expect_kinds
from aotc.tracing.control import fori_loop
from aotc.tracing.core import broadcast, constant, joint_shape, lift, reshape, select
from aotc.tracing.tensor import Tensor, tnp


class QRResult(NamedTuple):
    """Orthonormal columns, and the upper triangle that they are combined with."""

    Q: Any
    R: Any


class SlogdetResult(NamedTuple):
    """A determinant as its sign and the logarithm of its magnitude."""

    sign: Any
    logabsdet: Any


def stack_of(name: str, x: Any, square: bool) -> tuple[Tensor, tuple[int, ...]]:
    """A float stack of matrices as [stack, rows, columns], and the shape of the stack."""
    value = lift(x)
    expect_kinds(name, value.dtype, "f")
    if value.ndim < 2 or (square and value.shape[-2] != value.shape[-1]):
        what = "square matrices" if square else "matrices"
        raise ArgumentError(f"{name} takes {what}, not {value.type}")
    stack = value.shape[:-2]
    return reshape(value, (math.prod(stack), *value.shape[-2:])), stack


def column_of(a: Tensor, place: Any) -> Any:
    """Column ``place`` of each matrix: [stack, rows]."""
    return tnp.take(a, place, 2, mode="clip")


def row_of(a: Tensor, place: Any) -> Any:
    """Row ``place`` of each matrix: [stack, columns]."""
    return tnp.take(a, place, 1, mode="clip")


def places(count: int) -> Tensor:
    """0, 1, ... of a loop's index type."""
    return constant(np.arange(count, dtype=np.int64))


def identity(a: Tensor, size: int) -> Tensor:
    """An identity matrix for each of the stack."""
    return broadcast(constant(np.eye(size), a.type.dtype), (a.shape[0], size, size))


def _eliminated(a: Tensor, b: Tensor) -> tuple[Any, Any, Any]:
    """Gaussian elimination with the largest pivot of each column: the upper triangle, ``b`` after
    the same steps, and the sign of the row exchanges."""
    size = a.shape[1]
    rows = places(size)
    zero = constant(0, a.type.dtype)

    def step(k: Any, state: Any) -> Any:
        a, b, sign = state
        candidates = select(rows >= k, tnp.abs(column_of(a, k)), constant(-1, a.type.dtype))
        best = tnp.argmax(candidates, 1, keepdims=True)
        order = select(rows == k, best, select(rows == best, k, broadcast(rows, candidates.shape)))
        a = tnp.take_along_axis(a, order[:, :, None], 1)
        b = tnp.take_along_axis(b, order[:, :, None], 1)
        top, column = row_of(a, k), column_of(a, k)
        pivot = tnp.take(top, k, 1, mode="clip")[:, None]
        factor = select((rows > k) & (pivot != zero), column / pivot, zero)[:, :, None]
        a = a - factor * top[:, None, :]
        b = b - factor * row_of(b, k)[:, None, :]
        return a, b, select(best[:, 0] == k, sign, -sign)

    sign = broadcast(constant(1, a.type.dtype), (a.shape[0],))
    upper, b, sign = fori_loop(0, size, step, (a, b, sign))
    return tnp.triu(upper), b, sign


def _back_substituted(upper: Tensor, b: Tensor) -> Any:
    """x of ``upper @ x = b``, from its last row on."""
    size = upper.shape[1]
    rows = places(size)

    def step(done: Any, x: Any) -> Any:
        k = np.int64(size - 1) - done
        row = row_of(upper, k)
        known_part = tnp.matmul(row[:, None, :], x)
        pivot = tnp.take(row, k, 1, mode="clip")[:, None, None]
        value = (row_of(b, k)[:, None, :] - known_part) / pivot
        return select((rows == k)[None, :, None], value, x)

    return fori_loop(0, size, step, tnp.zeros_like(b))


def _solved(a: Tensor, b: Tensor) -> Any:
    if not a.size or not b.size:
        return b
    upper, b, _ = _eliminated(a, b)
    return _back_substituted(upper, b)


@operation
def solve(x1: Any, x2: Any, /) -> Any:
    """x of ``x1 @ x = x2`` for a vector ``x2`` of one axis, or for the columns of matrices."""
    a, b = promoted("solve", "f", lift(x1), lift(x2))
    vector = b.ndim == 1
    b = reshape(b, (*b.shape, 1)) if vector else b
    if a.ndim < 2 or b.ndim < 2 or not a.shape[-1] == a.shape[-2] == b.shape[-2]:
        raise ArgumentError(f"solve takes square matrices and as many rows: {a.type}, {b.type}")
    stack = joint_shape("solve", (a, b), (a.shape[:-2], b.shape[:-2]))
    count = math.prod(stack)
    flat = [
        reshape(broadcast(x, (*stack, *x.shape[-2:])), (count, *x.shape[-2:])) for x in (a, b)
    ]
    shape = (*stack, *b.shape[-2:])
    return reshape(_solved(*flat), shape[:-1] if vector else shape)


@operation
def inv(x: Any, /) -> Any:
    """Inverses of square matrices."""
    a, stack = stack_of("inv", x, True)
    size = a.shape[-1]
    return reshape(_solved(a, identity(a, size)), (*stack, size, size))


def _pivots(name: str, x: Any) -> tuple[Tensor, Tensor, tuple[int, ...]]:
    a, stack = stack_of(name, x, True)
    if not a.size:
        ones = broadcast(constant(1, a.type.dtype), (a.shape[0],))
        return broadcast(ones[:, None], (a.shape[0], a.shape[1])), ones, stack
    upper, _, sign = _eliminated(a, a[:, :, :0])
    return tnp.diagonal(upper, 0, 1, 2), sign, stack


@operation
def det(x: Any, /) -> Any:
    """Determinants of square matrices: products of the pivots."""
    pivots, sign, stack = _pivots("det", x)
    return reshape(sign * tnp.prod(pivots, 1), stack)


@operation
def slogdet(x: Any, /) -> SlogdetResult:
    """Signs of determinants and logarithms of their magnitudes."""
    pivots, sign, stack = _pivots("slogdet", x)
    signs = sign * tnp.prod(tnp.sign(pivots), 1)
    size = tnp.sum(tnp.log(tnp.abs(pivots)), 1)
    return SlogdetResult(reshape(signs, stack), reshape(size, stack))


@operation
def cholesky(x: Any, /, *, upper: bool = False) -> Any:
    """L of ``x = L @ L.mT`` for symmetric positive definite matrices, its transpose if ``upper``;
    NaN for others."""
    a, stack = stack_of("cholesky", x, True)
    size = a.shape[-1]
    rows = places(size)
    zero = constant(0, a.type.dtype)

    def step(k: Any, state: Any) -> Any:
        a, factor = state
        column = column_of(a, k)
        pivot = tnp.take(column, k, 1, mode="clip")[:, None]
        scaled = select(rows >= k, column / tnp.sqrt(pivot), zero)
        a = a - scaled[:, :, None] * scaled[:, None, :]
        return a, select((rows == k)[None, None, :], scaled[:, :, None], factor)

    result = a if not a.size else fori_loop(0, size, step, (a, tnp.zeros_like(a)))[1]
    result = tnp.swapaxes(result, 1, 2) if upper else result
    return reshape(result, (*stack, size, size))


def reflected(a: Tensor) -> tuple[Any, Any]:
    """Householder's method: an orthonormal [stack, M, M] and the upper triangle [stack, M, N]."""
    height, width = a.shape[1:]
    rows = places(height)
    zero, one = constant(0, a.type.dtype), constant(1, a.type.dtype)

    def step(k: Any, state: Any) -> Any:
        a, q = state
        below = select(rows >= k, column_of(a, k), zero)
        # scaled by its largest element, so that squares neither overflow nor vanish
        large = tnp.max(tnp.abs(below), 1, keepdims=True)
        below = below / select(large == zero, one, large)
        head = tnp.take(below, k, 1, mode="clip")[:, None]
        length = tnp.sqrt(tnp.sum(below * below, 1, keepdims=True))
        mirror = below + select(rows == k, select(head < zero, -length, length), zero)
        square = tnp.sum(mirror * mirror, 1, keepdims=True)
        weight = (mirror * (2 * one / select(square == zero, one, square)))[:, :, None]
        across = mirror[:, None, :]
        a = a - weight * tnp.matmul(across, a)
        return a, q - tnp.matmul(q, weight) * across

    start = (a, identity(a, height))
    upper, q = fori_loop(0, min(height, width), step, start) if a.size else start
    return q, tnp.triu(upper)


@operation
def qr(x: Any, /, *, mode: str = "reduced") -> QRResult:
    """Orthonormal Q and upper triangular R of ``x = Q @ R``; ``mode`` reduced gives min(M, N)
    columns of Q, complete all M."""
    if mode not in ("reduced", "complete"):
        raise ArgumentError(f"there is no mode {mode!r}", remedy="use reduced or complete")
    a, stack = stack_of("qr", x, False)
    height, width = a.shape[1:]
    kept = height if mode == "complete" else min(height, width)
    q, r = reflected(a)
    return QRResult(
        reshape(q[:, :, :kept], (*stack, height, kept)),
        reshape(r[:, :kept], (*stack, kept, width)),
    )


@operation
def matrix_power(x: Any, n: int, /) -> Any:
    """``x`` multiplied with itself ``n`` times; a negative ``n`` takes the inverse."""
    value = lift(x)
    a, stack = stack_of("matrix_power", inv(value) if n < 0 else value, True)
    size = a.shape[-1]
    result: Any = None
    for digit in bin(abs(n))[2:]:
        result = result if result is None else tnp.matmul(result, result)
        if digit == "1":
            result = a if result is None else tnp.matmul(result, a)
    return reshape(identity(a, size) if result is None else result, (*stack, size, size))

