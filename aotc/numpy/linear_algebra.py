"""Products of vectors and matrices, of the standard and of its extension ``linalg``."""

from __future__ import annotations

from typing import Any

import numpy as np

from aotc.numpy.array import ArgumentError
from aotc.numpy.eager import operation
from aotc.numpy.elementwise import promoted
from aotc.numpy.types import expect_kinds
from aotc.tracing.core import lift, one_axis, reshape
from aotc.tracing.tensor import Tensor, tnp

_NUMBER = "iuf"


@operation
def matmul(x1: Any, x2: Any, /) -> Any:
    """Matrix products; leading axes broadcast, vectors are rows on the left, columns on the
    right."""
    return tnp.matmul(*promoted("matmul", _NUMBER, lift(x1), lift(x2)))


@operation
def matrix_transpose(x: Any, /) -> Any:
    """The last two axes exchanged."""
    value = lift(x)
    if value.ndim < 2:
        raise ArgumentError(f"matrix_transpose takes matrices, not {value.type}")
    return tnp.swapaxes(value, -1, -2)


@operation
def tensordot(x1: Any, x2: Any, /, *, axes: Any = 2) -> Any:
    """Sums of products over ``axes``: so many of the last and first, or pairs of lists."""
    return tnp.tensordot(*promoted("tensordot", _NUMBER, lift(x1), lift(x2)), axes)


@operation
def vecdot(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    """Products of the vectors along ``axis``, counted from the back; other axes broadcast."""
    a, b = promoted("vecdot", _NUMBER, lift(x1), lift(x2))
    if not a.ndim or not b.ndim or not -min(a.ndim, b.ndim) <= axis < max(a.ndim, b.ndim):
        raise ArgumentError(f"vecdot of {a.type} and {b.type} has no axis {axis}")
    place = axis if axis < 0 else axis - max(a.ndim, b.ndim)
    a, b = tnp.moveaxis(a, place, -1), tnp.moveaxis(b, place, -1)
    if a.shape[-1] != b.shape[-1]:
        raise ArgumentError(f"vecdot of vectors of {a.shape[-1]} and {b.shape[-1]} elements")
    product = tnp.matmul(a[..., None, :], b[..., :, None])
    return reshape(product, product.shape[:-2])


@operation
def outer(x1: Any, x2: Any, /) -> Any:
    """All products of the elements of two vectors."""
    a, b = promoted("outer", _NUMBER, lift(x1), lift(x2))
    if a.ndim != 1 or b.ndim != 1:
        raise ArgumentError(f"outer takes vectors, not {a.type} and {b.type}")
    return tnp.outer(a, b)


@operation
def cross(x1: Any, x2: Any, /, *, axis: int = -1) -> Any:
    """Vector products along ``axis``, counted from the back, of size 3."""
    a, b = promoted("cross", _NUMBER, lift(x1), lift(x2))
    if min(a.ndim, b.ndim) < 1:
        raise ArgumentError(f"cross takes vectors of 3, not {a.type} and {b.type}")
    a, b = tnp.broadcast_arrays(a, b)
    return tnp.cross(a, b, axis=one_axis(axis, a.ndim))


@operation
def diagonal(x: Any, /, *, offset: int = 0) -> Any:
    """The diagonals of matrices, ``offset`` above the main one."""
    value = _matrices("diagonal", x)
    rows, columns = value.shape[-2:]
    if not -rows < offset < columns:
        return tnp.zeros_like(value, shape=(*value.shape[:-2], 0))
    return tnp.diagonal(value, offset, -2, -1)


@operation
def trace(x: Any, /, *, offset: int = 0, dtype: Any = None) -> Any:
    """The sums of the diagonals."""
    value = _matrices("trace", x)
    expect_kinds("trace", value.dtype, _NUMBER)
    return tnp.sum(diagonal(value, offset=offset), -1, dtype)


@operation
def vector_norm(
    x: Any, /, *, axis: Any = None, keepdims: bool = False, ord: float = 2
) -> Any:
    """(sum |x|^ord)^(1/ord) over ``axis``; 0 counts what is not 0, infinities are the largest and
    the smallest magnitude."""
    value = lift(x)
    expect_kinds("vector_norm", value.dtype, "f")
    number = value.dtype.type
    size = tnp.abs(value)
    if ord == 0:
        return tnp.count_nonzero(value, axis, keepdims=keepdims).astype(value.dtype)
    if ord == np.inf:
        # no magnitude is below 0, so that this is the norm of nothing as well
        return tnp.maximum(tnp.max(size, axis, keepdims=keepdims), number(0))
    if ord == -np.inf:
        return tnp.min(size, axis, keepdims=keepdims)
    if ord == 1:
        return tnp.sum(size, axis, keepdims=keepdims)
    if ord == 2:
        return tnp.sqrt(tnp.sum(value * value, axis, keepdims=keepdims))
    return tnp.sum(size ** number(ord), axis, keepdims=keepdims) ** number(1 / ord)


def _matrices(name: str, x: Any) -> Tensor:
    value = lift(x)
    if value.ndim < 2:
        raise ArgumentError(f"{name} takes matrices, not {value.type}")
    return value
