"""torch's factorisations of matrices: Tensors in, loops of `aotc.numpy.linalg` out. Nothing is
raised for a singular matrix: its results are infinite or NaN, and what says so is 0."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from aotc.graph.types import DType
from aotc.importers.torch_ops.rule import Lowering, Operands, Rule, Use, rules
from aotc.importers.triangular import solve_triangular
from aotc.numpy import factors, spectral
from aotc.tracing.core import broadcast, constant
from aotc.tracing.tensor import Tensor, tnp


def _info(use: Use, place: int) -> Tensor:
    """That all went well."""
    type_ = use.results[place]
    assert type_ is not None
    return broadcast(constant(0, DType.I32), type_.dims)


def _inverse(use: Use, x: Tensor, check: bool) -> Any:
    return factors.inv(x), _info(use, 1)


def _solve(use: Use, a: Tensor, b: Tensor, left: bool, check: bool) -> Any:
    """The factors, which only a backward pass needs, are left out."""
    vector = b.ndim == a.ndim - 1 and b.shape == a.shape[:-1]
    b = tnp.expand_dims(b, -1) if vector else b
    if left:
        x = factors.solve(a, b)
    else:
        turned = factors.solve(tnp.swapaxes(a, -1, -2), tnp.swapaxes(b, -1, -2))
        x = tnp.swapaxes(turned, -1, -2)
    return tnp.squeeze(x, -1) if vector else x, None, None, _info(use, 3)


def _solve_triangular(
    use: Use, a: Tensor, b: Tensor, upper: bool, left: bool, unit: bool
) -> Any:
    return solve_triangular(a, b, not upper, left, unit)


def _cholesky(use: Use, x: Tensor, upper: bool, check: bool) -> Any:
    return factors.cholesky(x, upper=upper), _info(use, 1)


def _qr(use: Use, x: Tensor, mode: str) -> Any:
    q, r = factors.qr(x, mode="complete" if mode == "complete" else "reduced")
    return (None if mode == "r" else q), r


def _eigh(use: Use, x: Tensor, triangle: str, vectors: bool) -> Any:
    values, columns = spectral.eigh(x)
    return values, columns if vectors else None


def _svd(use: Use, x: Tensor, full: bool, vectors: bool, driver: Any = None) -> Any:
    u, s, vh = spectral.svd(x, full_matrices=full)
    return (u, s, vh) if vectors else (None, s, None)


_TABLE: Mapping[str, Lowering] = MappingProxyType(
    {
        "linalg_inv_ex": _inverse,
        "_linalg_solve_ex": _solve,
        "linalg_solve_triangular": _solve_triangular,
        "linalg_cholesky_ex": _cholesky,
        "linalg_qr": _qr,
        "_linalg_det": lambda use, x: (factors.det(x), None, None),
        "_linalg_slogdet": lambda use, x: (*factors.slogdet(x), None, None),
        "_linalg_eigh": _eigh,
        "_linalg_svd": _svd,
    }
)

RULES: Mapping[str, Rule] = MappingProxyType(rules(Operands.WIDE, _TABLE))
"""By the operator's name."""
