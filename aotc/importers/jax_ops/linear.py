"""JAX's factorisations of matrices: Tensors in, loops of `aotc.numpy.linalg` out."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

from aotc.errors import UnsupportedError
from aotc.graph import ops
from aotc.importers.jax_ops.elementwise import Lowering
from aotc.importers.triangular import solve_triangular
from aotc.importers.use import Use
from aotc.numpy import factors, spectral
from aotc.tracing.control import fori_loop
from aotc.tracing.core import broadcast, cast, constant, emit, reshape, select
from aotc.tracing.tensor import Tensor, tnp


def _cholesky(use: Use, x: Tensor, **ignored: Any) -> Any:
    return factors.cholesky(x)


def _triangular_solve(
    use: Use,
    a: Tensor,
    b: Tensor,
    left_side: bool,
    lower: bool,
    transpose_a: bool,
    conjugate_a: bool,
    unit_diagonal: bool,
) -> Any:
    """``op(a) x = b``, or ``x op(a) = b``."""
    a = tnp.swapaxes(a, -1, -2) if transpose_a else a
    return solve_triangular(a, b, lower != transpose_a, left_side, unit_diagonal)


def _qr(use: Use, x: Tensor, full_matrices: bool, pivoting: bool = False, **ignored: Any) -> Any:
    if pivoting:
        raise UnsupportedError("a QR with pivots")
    return tuple(factors.qr(x, mode="complete" if full_matrices else "reduced"))


def _eigh(use: Use, x: Tensor, **ignored: Any) -> Any:
    """JAX gives the vectors first."""
    values, vectors = spectral.eigh(x)
    return vectors, values


def _svd(
    use: Use, x: Tensor, full_matrices: bool, compute_uv: bool, **ignored: Any
) -> Any:
    u, s, vh = spectral.svd(x, full_matrices=full_matrices)
    return (s, u, vh) if compute_uv else (s,)


def _lu(use: Use, x: Tensor, **ignored: Any) -> Any:
    """Both triangles in one matrix, the row that each step exchanged with, and the order of rows
    that follows. The largest pivot of each column."""
    height, width = x.shape[-2:]
    stack, count = x.shape[:-2], min(height, width)
    a = reshape(x, (math.prod(stack), height, width))
    rows, columns = constant(np.arange(height)), constant(np.arange(width))
    steps = constant(np.arange(count))

    def step(k: Any, state: Any) -> Any:
        a, pivots, order = state
        column = factors.column_of(a, k)
        candidates = select(rows >= k, tnp.abs(column), constant(-1, a.type.dtype))
        best = tnp.argmax(candidates, 1, keepdims=True)
        exchange = select(rows == k, best, select(rows == best, k, broadcast(rows, column.shape)))
        a = tnp.take_along_axis(a, exchange[:, :, None], 1)
        order = tnp.take_along_axis(order, exchange, 1)
        column, row = factors.column_of(a, k), factors.row_of(a, k)
        pivot = tnp.take(row, k, 1, mode="clip")[:, None]
        zero = constant(0, a.type.dtype)
        scaled = select(rows > k, column / pivot, zero)
        a = a - scaled[:, :, None] * select(columns > k, row, zero)[:, None, :]
        stored = (rows > k)[:, None] & (columns == k)
        a = select(stored, scaled[:, :, None], a)
        return a, select(steps == k, best, pivots), order

    start = (
        a,
        broadcast(constant(np.zeros(1, np.int64)), (a.shape[0], count)),
        broadcast(rows, (a.shape[0], height)),
    )
    a, pivots, order = fori_loop(0, count, step, start) if a.size else start
    return (
        reshape(a, x.shape),
        reshape(pivots, (*stack, count)),
        reshape(order, (*stack, height)),
    )


def _order_of_pivots(use: Use, pivots: Tensor, permutation_size: int) -> Any:
    """The order of rows after all exchanges, one after the other."""
    stack, count = pivots.shape[:-1], pivots.shape[-1]
    flat = reshape(cast(pivots, constant(np.int64(0)).type.dtype), (math.prod(stack), count))
    rows = constant(np.arange(permutation_size))

    def step(k: Any, order: Any) -> Any:
        best = tnp.take(flat, k, 1, mode="clip")[:, None]
        exchange = select(rows == k, best, select(rows == best, k, broadcast(rows, order.shape)))
        return emit(ops.GatherElements(1), order, exchange)

    start = broadcast(rows, (flat.shape[0], permutation_size))
    order = fori_loop(0, count, step, start) if flat.size else start
    return reshape(order, (*stack, permutation_size))


RULES: Mapping[str, Lowering] = MappingProxyType(
    {
        "cholesky": _cholesky,
        "triangular_solve": _triangular_solve,
        "qr": _qr,
        "eigh": _eigh,
        "svd": _svd,
        "lu": _lu,
        "lu_pivots_to_permutation": _order_of_pivots,
    }
)
