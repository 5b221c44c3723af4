"""Eigenvalues of symmetric matrices and singular values, by rotations (Jacobi's method): stacks of
matrices in, stacks out.

Each round rotates disjoint pairs of rows at once, as one product with an orthonormal matrix; the
rounds go on until nothing is left beside the diagonal (G. Golub, C. Van Loan: Matrix Computations,
8.5).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from aotc.numpy.array import ArgumentError
from aotc.numpy.eager import checked, operation
from aotc.numpy.factors import identity, places, reflected, stack_of
from aotc.tracing.control import while_loop
from aotc.tracing.core import constant, lift, reshape, select
from aotc.tracing.tensor import Tensor, tnp

_SWEEPS = 40
"""More sweeps than any matrix needs: the method converges quadratically."""


class EighResult(NamedTuple):
    """Eigenvalues from the smallest on, and eigenvectors as columns."""

    eigenvalues: Any
    eigenvectors: Any


class SVDResult(NamedTuple):
    """x = U @ diag(S) @ Vh."""

    U: Any
    S: Any
    Vh: Any


def _partners(size: int) -> np.ndarray:
    """For each round of a tournament, the partner of each of ``size``; its own place for the one
    that rests."""
    even = size + size % 2
    ring = list(range(1, even))
    rounds = []
    for _ in range(max(even - 1, 1)):
        order = [0, *ring]
        partner = np.arange(size)
        for one, two in zip(order[: even // 2], reversed(order[even // 2 :]), strict=True):
            if one < size and two < size:
                partner[one], partner[two] = two, one
        rounds.append(partner)
        ring = ring[1:] + ring[:1]
    return np.stack(rounds)


def _rotation(gram: Any, partner: Any) -> Any:
    """The orthonormal matrix that clears the elements of ``gram`` [stack, n, n] at the pairs
    (i, partner[i])."""
    size = gram.shape[1]
    own = places(size)
    zero, one = constant(0, gram.type.dtype), constant(1, gram.type.dtype)
    index = tnp.broadcast_to(partner[None, :, None], (gram.shape[0], size, 1))
    cross = tnp.take_along_axis(gram, index, 2)[:, :, 0]
    here = tnp.diagonal(gram, 0, 1, 2)
    there = tnp.take(here, partner, 1, mode="clip")
    rotates = (cross != zero) & (own != partner)
    slope = (there - here) / (2 * one * select(rotates, cross, one))
    # of a pair with equal diagonals, one turns forth and the other back
    forth = (slope > zero) | ((slope == zero) & (own < partner))
    steep = tnp.abs(slope)
    tangent = one / (steep + tnp.hypot(steep, one))
    tangent = select(rotates, select(forth, tangent, -tangent), zero)
    cosine = one / tnp.hypot(tangent, one)
    sine = cosine * tangent
    hit = partner[:, None] == own
    turned = select(hit & (own[:, None] != own), sine[:, :, None], zero)
    return turned + select(own[:, None] == own, cosine[:, :, None], zero)


def _tolerance(x: Tensor) -> Any:
    """What rounding leaves of a sum over the rows, beside its largest term."""
    return constant(x.shape[1] * np.finfo(x.dtype).eps, x.type.dtype)


def _eigen(a: Tensor) -> tuple[Any, Any]:
    """Eigenvalues [stack, n] from the smallest on, and eigenvectors."""
    size = a.shape[1]
    table = _partners(size)
    off = constant(~np.eye(size, dtype=bool))
    zero = constant(0, a.type.dtype)

    def unfinished(state: Any) -> Any:
        done, a, _ = state
        beside = tnp.max(select(off, tnp.abs(a), zero), (1, 2))
        whole = tnp.max(tnp.abs(a), (1, 2))
        more = tnp.any(beside > whole * _tolerance(a))
        return more & (done < np.int64(_SWEEPS * len(table)))

    def step(state: Any) -> Any:
        done, a, vectors = state
        partner = tnp.take(constant(table), done % np.int64(len(table)), 0, mode="clip")
        turn = _rotation(a, partner)
        a = tnp.matmul(tnp.matmul(tnp.swapaxes(turn, 1, 2), a), turn)
        return done + np.int64(1), a, tnp.matmul(vectors, turn)

    start = (np.int64(0), a, identity(a, size))
    _, a, vectors = while_loop(unfinished, step, start) if size > 1 else start
    values = tnp.diagonal(a, 0, 1, 2)
    order = tnp.argsort(values, 1)
    vectors = tnp.take_along_axis(vectors, order[:, None, :], 2)
    return tnp.take_along_axis(values, order, 1), vectors


@operation
def eigh(x: Any, /) -> EighResult:
    """Eigenvalues and eigenvectors of symmetric matrices."""
    a, stack = stack_of("eigh", x, True)
    size = a.shape[-1]
    values, vectors = _eigen(a) if a.size else (tnp.diagonal(a, 0, 1, 2), a)
    return EighResult(reshape(values, (*stack, size)), reshape(vectors, (*stack, size, size)))


@checked
def eigvalsh(x: Any, /) -> Any:
    """Eigenvalues of symmetric matrices, from the smallest on."""
    return eigh(x).eigenvalues


def _turned(a: Tensor) -> tuple[Any, Any]:
    """``a`` [stack, m, n] times an orthonormal matrix that makes its columns orthogonal, the
    longest first, and that matrix."""
    size = a.shape[2]
    table = _partners(size)
    off = constant(~np.eye(size, dtype=bool))
    zero = constant(0, a.type.dtype)

    def gram_of(a: Any) -> Any:
        return tnp.matmul(tnp.swapaxes(a, 1, 2), a)

    def unfinished(state: Any) -> Any:
        done, a, _ = state
        gram = gram_of(a)
        long = tnp.sqrt(tnp.diagonal(gram, 0, 1, 2))
        apart = tnp.abs(gram) > long[:, :, None] * long[:, None, :] * _tolerance(a)
        return tnp.any(apart & off) & (done < np.int64(_SWEEPS * len(table)))

    def step(state: Any) -> Any:
        done, a, vectors = state
        partner = tnp.take(constant(table), done % np.int64(len(table)), 0, mode="clip")
        turn = _rotation(gram_of(a), partner)
        return done + np.int64(1), tnp.matmul(a, turn), tnp.matmul(vectors, turn)

    start = (np.int64(0), a, identity(a, size))
    _, a, vectors = while_loop(unfinished, step, start) if size > 1 else start
    length = tnp.sum(a * a, 1)
    order = tnp.argsort(select(tnp.isnan(length), zero, -length), 1)[:, None, :]
    return tnp.take_along_axis(a, order, 2), tnp.take_along_axis(vectors, order, 2)


def _singular(a: Tensor) -> tuple[Any, Any, Any]:
    """U [stack, m, m], S [stack, n] and V [stack, n, n] for m >= n."""
    zero, one = constant(0, a.type.dtype), constant(1, a.type.dtype)
    size = a.shape[2]
    largest = tnp.max(tnp.abs(a), (1, 2), keepdims=True)
    scale = select(largest == zero, one, largest)
    columns, v = _turned(a / scale)
    # orthogonal columns have a diagonal R, and Q is complete even where columns are zero
    q, r = reflected(columns)
    lengths = tnp.diagonal(r, 0, 1, 2)
    signs = select(lengths < zero, -one, one)
    signs = tnp.concatenate([signs, tnp.ones_like(q[:, 0, size:])], 1)
    values = -tnp.sort(-tnp.abs(lengths), 1)
    return q * signs[:, None, :], values * scale[:, 0], v


@operation
def svd(x: Any, /, *, full_matrices: bool = True) -> SVDResult:
    """Singular values from the largest on and their vectors; ``full_matrices`` completes U and Vh
    to square matrices."""
    a, stack = stack_of("svd", x, False)
    height, width = a.shape[1:]
    kept = min(height, width)
    if not a.size:
        u, s, vh = identity(a, height), tnp.diagonal(a, 0, 1, 2), identity(a, width)
    else:
        wide = width > height
        u, s, v = _singular(tnp.swapaxes(a, 1, 2) if wide else a)
        u, v = (v, u) if wide else (u, v)
        vh = tnp.swapaxes(v, 1, 2)
    if not full_matrices:
        u, vh = u[:, :, :kept], vh[:, :kept]
    return SVDResult(
        reshape(u, (*stack, *u.shape[1:])),
        reshape(s, (*stack, kept)),
        reshape(vh, (*stack, *vh.shape[1:])),
    )


@checked
def svdvals(x: Any, /) -> Any:
    """Singular values, from the largest on."""
    return svd(x, full_matrices=False).S


@operation
def matrix_norm(x: Any, /, *, keepdims: bool = False, ord: Any = "fro") -> Any:
    """Norms of matrices: fro and nuc, the largest and smallest (negative) sums of columns (1) and
    rows (inf), and singular values (2)."""
    value = lift(x)
    a, stack = stack_of("matrix_norm", value, False)
    if ord == "fro":
        result = tnp.sqrt(tnp.sum(a * a, (1, 2)))
    elif ord in ("nuc", 2, -2):
        s = svdvals(a)
        result = tnp.sum(s, 1) if ord == "nuc" else s[:, 0 if ord == 2 else -1]
    elif ord in (1, -1, np.inf, -np.inf):
        sums = tnp.sum(tnp.abs(a), 1 if abs(ord) == 1 else 2)
        result = (tnp.max if ord > 0 else tnp.min)(sums, 1)
    else:
        raise ArgumentError(
            f"there is no norm {ord!r} of matrices", remedy="use fro, nuc, 1, 2, inf or their like"
        )
    return reshape(result, (*stack, 1, 1) if keepdims else stack)


def _threshold(x: Any, s: Any, rtol: Any) -> Any:
    """What counts as zero beside the largest singular value."""
    number = x.dtype.type
    if rtol is None:
        rtol = number(max(x.shape[-2:]) * np.finfo(x.dtype).eps)
    limit = lift(rtol).astype(x.dtype)
    return s[..., :1] * (limit[..., None] if limit.ndim else limit)


@operation
def matrix_rank(x: Any, /, *, rtol: Any = None) -> Any:
    """How many singular values are more than ``rtol`` times the largest; without it, max(M, N)
    times the epsilon of the type."""
    value = lift(x)
    if not value.size:
        return tnp.zeros_like(value, dtype=np.int64, shape=value.shape[:-2])
    s = svdvals(value)
    return tnp.count_nonzero(s > _threshold(value, s, rtol), -1)


@operation
def pinv(x: Any, /, *, rtol: Any = None) -> Any:
    """Pseudo-inverses: singular values up to ``rtol`` times the largest count as zero."""
    value = lift(x)
    if not value.size:
        return tnp.zeros_like(tnp.swapaxes(value, -1, -2))
    u, s, vh = svd(value, full_matrices=False)
    zero, one = constant(0, value.type.dtype), constant(1, value.type.dtype)
    kept = s > _threshold(value, s, rtol)
    inverse = select(kept, one / select(kept, s, one), zero)
    return tnp.matmul(tnp.swapaxes(vh, -1, -2) * inverse[..., None, :], tnp.swapaxes(u, -1, -2))
