"""JAX's products and convolutions: Tensors in, `Dot` and `Conv` with what arranges operands out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from aotc.errors import UnsupportedError
from aotc.graph import ops
from aotc.importers.jax_ops.elementwise import Lowering
from aotc.importers.jax_ops.movement import padded
from aotc.importers.use import Use
from aotc.tracing.core import cast, emit, reshape, transpose
from aotc.tracing.tensor import Tensor, tnp


def _dot_general(
    use: Use, a: Tensor, b: Tensor, dimension_numbers: Any, **ignored: Any
) -> Any:
    """The result has the batch axes, what is left of ``a``, what is left of ``b``."""
    (left, right), (batch_a, batch_b) = dimension_numbers
    a, b = cast(a, use.dtype), cast(b, use.dtype)
    if not batch_a:
        return tnp.tensordot(a, b, (tuple(left), tuple(right)))
    letters = iter("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    names_a = [next(letters) for _ in range(a.ndim)]
    names_b = [next(letters) for _ in range(b.ndim)]
    for i, j in zip((*left, *batch_a), (*right, *batch_b), strict=True):
        names_b[j] = names_a[i]
    kept_a = [n for i, n in enumerate(names_a) if i not in (*left, *batch_a)]
    kept_b = [n for j, n in enumerate(names_b) if j not in (*right, *batch_b)]
    result = [*(names_a[i] for i in batch_a), *kept_a, *kept_b]
    return tnp.einsum(f"{''.join(names_a)},{''.join(names_b)}->{''.join(result)}", a, b)


def _convolve(
    use: Use,
    x: Tensor,
    weights: Tensor,
    window_strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int],
    rhs_dilation: Sequence[int],
    dimension_numbers: Any,
    feature_group_count: int,
    batch_group_count: int,
    **ignored: Any,
) -> Any:
    """A convolution of any layout, as one of [N, C, ...] with weights [O, I, ...]."""
    spatial = len(window_strides)
    if not 1 <= spatial <= 3:
        raise UnsupportedError(f"a convolution over {spatial} axes: 1 to 3 are supported")
    x = transpose(cast(x, use.dtype), dimension_numbers.lhs_spec)
    weights = transpose(cast(weights, use.dtype), dimension_numbers.rhs_spec)
    groups = feature_group_count
    if batch_group_count > 1:
        x, groups = _batch_groups(x, batch_group_count), batch_group_count
    # what `Conv` has no words for: elements apart from each other, and edges cut off
    spread = [(min(low, 0), min(high, 0), gap - 1)
              for (low, high), gap in zip(padding, lhs_dilation, strict=True)]  # fmt: skip
    x = padded(x, [(0, 0, 0), (0, 0, 0), *spread], 0)
    conv = ops.Conv(
        tuple(window_strides),
        tuple(max(low, 0) for low, _ in padding),
        tuple(max(high, 0) for _, high in padding),
        tuple(rhs_dilation),
        groups,
        channels_last=False,
    )
    y = emit(conv, x, weights)
    return transpose(y, np.argsort(dimension_numbers.out_spec).tolist())


def _batch_groups(x: Tensor, count: int) -> Tensor:
    """Groups of samples as groups of channels."""
    samples, channels, *rest = x.shape
    apart = reshape(x, (count, samples // count, channels, *rest))
    moved = transpose(apart, (1, 0, *range(2, apart.ndim)))
    return reshape(moved, (samples // count, count * channels, *rest))


RULES: Mapping[str, Lowering] = MappingProxyType(
    {"dot_general": _dot_general, "conv_general_dilated": _convolve}
)
