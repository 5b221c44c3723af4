"""The extension ``linalg`` of the standard, but for ``eig`` and ``eigvals``: aotc has no complex
numbers."""

from aotc.numpy.factors import cholesky, det, inv, matrix_power, qr, slogdet, solve
from aotc.numpy.linear_algebra import (
    cross,
    diagonal,
    matmul,
    matrix_transpose,
    outer,
    tensordot,
    trace,
    vecdot,
    vector_norm,
)
from aotc.numpy.spectral import (
    eigh,
    eigvalsh,
    matrix_norm,
    matrix_rank,
    pinv,
    svd,
    svdvals,
)

__all__ = [
    "cholesky",
    "cross",
    "det",
    "diagonal",
    "eigh",
    "eigvalsh",
    "inv",
    "matmul",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "matrix_transpose",
    "outer",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "svd",
    "svdvals",
    "tensordot",
    "trace",
    "vecdot",
    "vector_norm",
]
