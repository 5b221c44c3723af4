"""ATen operators that are layers (products, convolution, pooling, normalisation, resampling,
recurrence, attention): Tensors in, the lowering of the ONNX operator that does the same out."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np

from aotc.errors import UnsupportedError
from aotc.graph.types import DType
from aotc.importers.onnx_rules import onnx_op, onnx_results
from aotc.importers.torch_ops.rule import Lowering, Operands, Rule, Use, rules
from aotc.tracing.core import (
    cast,
    concat,
    constant,
    cut,
    gather,
    known,
    reshape,
    select,
    unary,
)
from aotc.tracing.reductions import softmax
from aotc.tracing.tensor import Tensor, tnp

Ints = Sequence[int]


def _each(values: Ints, count: int) -> list[int]:
    """One entry for each of ``count`` axes: ATen also takes one for all."""
    return list(values) * count if len(values) == 1 else list(values)


# Products.


def _matmul(use: Use, a: Tensor, b: Tensor) -> Any:
    return tnp.matmul(a, b)


def _plus_product(use: Use, x: Tensor, a: Tensor, b: Tensor, beta: Any = 1, alpha: Any = 1) -> Any:
    """``beta x + alpha a @ b``."""
    product = tnp.matmul(a, b)
    product = product if alpha == 1 else product * constant(alpha, product.type.dtype)
    if beta == 0:
        return product
    return product + (x if beta == 1 else x * constant(beta, x.type.dtype))


def _linear(use: Use, x: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
    y = tnp.matmul(x, tnp.swapaxes(weight, 0, 1) if weight.ndim == 2 else weight)
    return y if bias is None else y + bias


def _trilinear(
    use: Use, a: Tensor, b: Tensor, c: Tensor, *places: Any
) -> Any:
    """The product of three tensors, each stretched along axes of its own, summed over some."""
    *expanded, summed, _ = places
    x, y, z = (
        tnp.expand_dims(value, tuple(axes)) if axes else value
        for value, axes in zip((a, b, c), expanded, strict=True)
    )
    return tnp.sum(x * y * z, axis=tuple(summed))


def _attention(
    use: Use,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    dropout: float,
    causal: bool,
    scale: float | None = None,
    grouped: bool = False,
) -> Any:
    """``softmax(scale q k^T + mask) v``; a row without any place is zero."""
    if dropout:
        raise UnsupportedError("dropout in attention is for training: call eval() before exporting")
    if grouped:
        key, value = (tnp.repeat(x, query.shape[-3] // x.shape[-3], axis=-3) for x in (key, value))
    factor = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = tnp.matmul(query * factor, tnp.swapaxes(key, -1, -2))
    if causal:
        mask = constant(np.tri(query.shape[-2], key.shape[-2], dtype=bool))
    if mask is not None and mask.type.dtype is DType.BOOL:
        scores = select(mask, scores, -math.inf)
        weights = softmax(scores, -1)
        weights = select(tnp.any(mask, axis=-1, keepdims=True), weights, 0)
    else:
        weights = softmax(scores if mask is None else scores + mask, -1)
    return tnp.matmul(weights, value)


# Windows.


def _convolution(
    use: Use,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Ints,
    padding: Ints,
    dilation: Ints,
    transposed: bool,
    output_padding: Ints,
    groups: int,
) -> Any:
    count = weight.ndim - 2
    alone = x.ndim == count + 1
    pads = _each(padding, count) * 2
    extra = {"output_padding": _each(output_padding, count)} if transposed else {}
    y = onnx_op(
        "ConvTranspose" if transposed else "Conv",
        tnp.expand_dims(x, 0) if alone else x,
        weight,
        bias,
        strides=_each(stride, count),
        dilations=_each(dilation, count),
        pads=pads,
        group=groups,
        **extra,
    )
    return reshape(y, y.shape[1:]) if alone else y


def _window(
    rank: int, kernel: Ints, stride: Ints, padding: Ints, ceil: bool
) -> dict[str, Any]:
    """Attributes of an ONNX pooling."""
    size = _each(kernel, rank)
    return {
        "kernel_shape": size,
        "strides": _each(stride, rank) if stride else size,
        "pads": _each(padding, rank) * 2,
        "ceil_mode": int(ceil),
    }


def _batched(x: Tensor, rank: int) -> Tensor:
    """``x`` with an axis of samples in front, if it has none."""
    return tnp.expand_dims(x, 0) if x.ndim == rank + 1 else x


def _max_pool(rank: int) -> Lowering:
    def rule(
        use: Use, x: Tensor, kernel: Ints, stride: Ints, padding: Ints, dilation: Ints, ceil: bool
    ) -> Any:
        """The largest of each window, and its place in the image."""
        shape = use.dims
        window = _window(rank, kernel, stride, padding, ceil)
        window["dilations"] = _each(dilation, rank)
        results = 2 if len(use.results) > 1 and use.results[1] is not None else 1
        made = onnx_results("MaxPool", [_batched(x, rank)], results, **window)
        best = reshape(made[0], shape)
        if results == 1:
            return best
        image = math.prod(x.shape[-rank:])
        return best, reshape(tnp.remainder(made[1], max(image, 1)), shape)

    return rule


def _average_pool(rank: int) -> Lowering:
    def rule(
        use: Use,
        x: Tensor,
        kernel: Ints,
        stride: Ints,
        padding: Ints,
        ceil: bool,
        count_padding: bool,
        divisor: int | None = None,
    ) -> Any:
        window = _window(rank, kernel, stride, padding, ceil)
        counts = True if divisor else count_padding
        y = onnx_op("AveragePool", _batched(x, rank), **window, count_include_pad=int(counts))
        if divisor:
            if ceil:
                raise UnsupportedError("ceil_mode with divisor_override is not supported")
            y = y * (math.prod(_each(kernel, rank)) / divisor)
        return reshape(y, use.dims)

    return rule


def _parts(size: int, count: int) -> list[tuple[int, int]]:
    """Part i of ``count`` is from floor(i n / count) to ceil((i + 1) n / count)."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def _average_parts(x: Tensor, axis: int, count: int) -> Any:
    size = x.shape[axis]
    if size % count == 0:
        split = x.shape[:axis] + (count, size // count) + x.shape[axis + 1 :]
        return tnp.mean(reshape(x, split), axis=axis + 1)
    parts = [
        tnp.mean(cut(x, axis, first, last - first), axis=axis, keepdims=True)
        for first, last in _parts(size, count)
    ]
    return concat(parts, axis)


def _adaptive_average(use: Use, x: Tensor, sizes: Ints) -> Any:
    rank = len(sizes)
    if all(size == 1 for size in sizes):
        axes = tuple(range(x.ndim - rank, x.ndim))
        return tnp.mean(x, axis=axes, keepdims=True)
    for place, size in enumerate(sizes):
        x = _average_parts(x, x.ndim - rank + place, size)
    return x


def _adaptive_max(use: Use, x: Tensor, sizes: Ints) -> Any:
    """The largest of each part, and its place in the image."""
    lead = x.shape[: x.ndim - len(sizes)]
    image = x.shape[len(lead) :]
    grid = np.arange(math.prod(image)).reshape(image)
    best, places = [], []
    ends = [_parts(size, count) for size, count in zip(image, sizes, strict=True)]
    for corner in itertools.product(*ends):
        part = x
        for place, (first, last) in enumerate(corner):
            part = cut(part, len(lead) + place, first, last - first)
        flat = reshape(part, (*lead, part.size // max(math.prod(lead), 1)))
        inside = constant(grid[tuple(slice(first, last) for first, last in corner)].reshape(-1))
        best.append(tnp.max(flat, axis=-1, keepdims=True))
        places.append(gather(inside, tnp.argmax(flat, axis=-1, keepdims=True), 0))
    shape = (*lead, *sizes)
    return reshape(concat(best, len(lead)), shape), reshape(concat(places, len(lead)), shape)


def _col2im(
    use: Use, x: Tensor, size: Ints, kernel: Ints, dilation: Ints, padding: Ints, stride: Ints
) -> Any:
    y = onnx_op(
        "Col2Im",
        _batched(x, 1),
        constant(list(size), DType.I64),
        constant(list(kernel), DType.I64),
        dilations=list(dilation),
        pads=[*padding, *padding],
        strides=list(stride),
    )
    return reshape(y, use.dims)


# Normalisation.


def _filled(x: Tensor | None, value: float, like: Tensor, shape: tuple[int, ...]) -> Tensor:
    return constant(np.full(shape, value), like.type.dtype) if x is None else x


def _batch_norm(
    use: Use,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    mean: Tensor,
    variance: Tensor,
    momentum: float,
    eps: float,
) -> Any:
    """With the statistics kept; what a backward pass would need is left out."""
    channels = (x.shape[1],)
    scale, shift = _filled(weight, 1, x, channels), _filled(bias, 0, x, channels)
    return onnx_op("BatchNormalization", x, scale, shift, mean, variance, epsilon=eps), None, None


def _standardized(x: Tensor, axes: tuple[int, ...], eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """``x`` less its mean over its deviation, the mean, and one over the deviation."""
    mean = tnp.mean(x, axis=axes, keepdims=True)
    apart = x - mean
    spread = tnp.mean(apart * apart, axis=axes, keepdims=True)
    inverse = unary("reciprocal", unary("sqrt", spread + eps))
    return apart * inverse, mean, inverse


def _layer_norm(
    use: Use, x: Tensor, shape: Ints, weight: Tensor | None, bias: Tensor | None, eps: float
) -> Any:
    axes = tuple(range(x.ndim - len(shape), x.ndim))
    y, mean, inverse = _standardized(x, axes, eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias, mean, inverse


def _group_norm(
    use: Use,
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    samples: int,
    channels: int,
    pixels: int,
    groups: int,
    eps: float,
) -> Any:
    parts = reshape(x, (samples, groups, channels // groups * pixels))
    y, mean, inverse = _standardized(parts, (2,), eps)
    y = reshape(y, x.shape)
    column = (channels, *(1,) * (x.ndim - 2))
    y = y if weight is None else y * reshape(weight, column)
    y = y if bias is None else y + reshape(bias, column)
    return y, reshape(mean, (samples, groups)), reshape(inverse, (samples, groups))


def _batch_statistics(
    use: Use, x: Tensor, weight: Tensor | None, bias: Tensor | None, *rest: Any
) -> list[Tensor | None]:
    """Batch norm in training: the result, mean and deviation of the batch, and, where running
    statistics are given, their new values."""
    *running, training, momentum, eps = rest
    channels = x.shape[1]
    axes, column = (0, *range(2, x.ndim)), (channels, *(1,) * (x.ndim - 2))
    if running and not training:
        y, *_ = _batch_norm(use, x, weight, bias, running[0], running[1], momentum, eps)
        return [y, None, None, *running]
    y, mean, inverse = _standardized(x, axes, eps)
    y = y if weight is None else y * reshape(weight, column)
    y = y if bias is None else y + reshape(bias, column)
    own_mean, own_inverse = reshape(mean, (channels,)), reshape(inverse, (channels,))
    if not running:
        return [y, own_mean, own_inverse]
    count = x.size // max(channels, 1)
    spread = tnp.var(x, axis=axes) * (count / max(count - 1, 1))
    kept = [
        old * (1 - momentum) + new * momentum
        for old, new in zip(running, (own_mean, spread), strict=True)
    ]
    return [y, own_mean, own_inverse, *kept]


# Resampling.

_NEAREST = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor"}  # fmt: skip


def _scales_or_sizes(
    use: Use, x: Tensor, scales: Any, sampling: Mapping[str, Any]
) -> Tensor:
    """Scales count where they are given: they need not be the ratio of the sizes."""
    rank = x.ndim - 2
    if scales is None or any(scale is None for scale in scales):
        sizes = constant(list(use.dims), DType.I64)
        return onnx_op("Resize", x, None, None, sizes, **sampling)
    given = constant([1.0, 1.0, *scales], DType.F32)
    y = onnx_op("Resize", x, None, given, None, **sampling)
    if y.shape != use.dims:
        raise UnsupportedError(f"a resize of {rank} axes to {use.dims} by {scales}")
    return y


def _nearest(use: Use, x: Tensor, size: Any, scales: Any = None) -> Tensor:
    return _scales_or_sizes(use, x, scales, _NEAREST)


def _interpolated(mode: str, antialias: bool = False) -> Lowering:
    def rule(use: Use, x: Tensor, size: Any, align_corners: bool, scales: Any = None) -> Tensor:
        coordinates = "align_corners" if align_corners else "pytorch_half_pixel"
        if antialias and not align_corners:
            coordinates = "half_pixel"
        return _scales_or_sizes(use, x, scales, {
            "mode": mode, "coordinate_transformation_mode": coordinates,
            "cubic_coeff_a": -0.5 if antialias else -0.75,
            "antialias": int(antialias), "exclude_outside": int(antialias),
        })  # fmt: skip

    return rule


def _grid_sample(
    use: Use, x: Tensor, grid: Tensor, mode: int, padding: int, align_corners: bool
) -> Tensor:
    return onnx_op(
        "GridSample",
        x,
        grid,
        mode=("linear", "nearest", "cubic")[mode],
        padding_mode=("zeros", "border", "reflection")[padding],
        align_corners=int(align_corners),
    )


# Recurrence: ATen's gates are in another order than ONNX's.

_GATES = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}


def _reordered(kind: str, weight: Tensor) -> Tensor:
    order = _GATES[kind]
    size = weight.shape[0] // len(order)
    return concat([cut(weight, 0, gate * size, size) for gate in order], 0)


def _layer(
    kind: str, x: Tensor, states: Sequence[Tensor], weights: Sequence[Tensor], biased: bool,
    attributes: Mapping[str, Any],
) -> list[Tensor]:
    """One layer, both directions if there are weights for two: [steps, batch, features] and states
    [directions, batch, hidden] in and out."""
    each = 4 if biased else 2
    parts = [weights[start : start + each] for start in range(0, len(weights), each)]
    inner = [tnp.stack([_reordered(kind, part[i]) for part in parts]) for i in (0, 1)]
    bias = None
    if biased:
        bias = tnp.stack([
            concat([_reordered(kind, part[2]), _reordered(kind, part[3])], 0) for part in parts
        ])
    hidden = parts[0][1].shape[1]
    operands = [x, *inner, bias, None, *states]
    found = dict(attributes)
    found["direction"] = "bidirectional" if len(parts) == 2 else "forward"
    if "activations" in found:
        found["activations"] = found["activations"] * len(parts)
    y, *finals = onnx_results(kind, operands, 1 + len(states), hidden_size=hidden, **found)
    steps, _, batch, _ = y.shape
    joined = reshape(tnp.transpose(y, (0, 2, 1, 3)), (steps, batch, len(parts) * hidden))
    return [joined, *finals]


def _recurrent(kind: str, **attributes: Any) -> Lowering:
    def rule(
        use: Use, x: Tensor, state: Any, weights: Sequence[Tensor], biased: bool, layers: int,
        dropout: float, train: bool, bidirectional: bool, batch_first: bool,
    ) -> Any:
        if (dropout and train) or weights[1].shape[1] != weights[0].shape[0] // len(_GATES[kind]):
            raise UnsupportedError("dropout between layers in training, and projections, are not"
                                   " supported")
        states = list(state) if isinstance(state, list | tuple) else [state]
        directions = 2 if bidirectional else 1
        per_layer = len(weights) // layers
        y = tnp.swapaxes(x, 0, 1) if batch_first else x
        finals = []
        for layer in range(layers):
            first = [cut(s, 0, layer * directions, directions) for s in states]
            own = weights[layer * per_layer : (layer + 1) * per_layer]
            y, *last = _layer(kind, y, first, own, biased, attributes)
            finals.append(last)
        y = tnp.swapaxes(y, 0, 1) if batch_first else y
        return [y, *(concat([last[i] for last in finals], 0) for i in range(len(states)))]

    return rule


def _dropout(use: Use, x: Tensor, p: float, train: bool | None) -> Any:
    if train is not False and p:
        raise UnsupportedError("dropout is for training: call eval() before exporting")
    return x, tnp.ones_like(x, dtype=bool)


def _embedding_bag(
    use: Use,
    weight: Tensor,
    index: Tensor,
    offsets: Tensor,
    by_frequency: bool,
    mode: int,
    sparse: bool,
    factors: Tensor | None,
    last_offset: bool,
    padding: int,
) -> Any:
    """Rows added up, averaged or the largest taken (mode 0, 1, 2) in bags of one length."""
    starts, count = known(offsets), use.dims[0]
    size = index.size // max(count, 1)
    even = starts is not None and (starts[:count] == np.arange(count) * size).all()
    if not even or index.size != size * count or not size or padding >= 0:
        raise UnsupportedError("bags of different or unknown lengths, or with padding")
    rows = gather(weight, cast(index, DType.I64), 0)
    if factors is not None:
        rows = rows * tnp.expand_dims(factors, -1)
    bags = reshape(rows, (count, size, weight.shape[1]))
    return (tnp.sum, tnp.mean, tnp.max)[mode](bags, axis=1), None, None, None


def _glu(use: Use, x: Tensor, dim: int) -> Any:
    a, b = tnp.split(x, 2, axis=dim)
    return a * unary("sigmoid", b)


_TABLE: Mapping[str, Lowering] = MappingProxyType(
    {
        **dict.fromkeys(("mm", "bmm", "mv", "dot", "matmul"), _matmul),
        **dict.fromkeys(("addmm", "baddbmm", "addmv"), _plus_product),
        "linear": _linear,
        "_trilinear": _trilinear,
        "scaled_dot_product_attention": _attention,
        "convolution": _convolution,
        **{f"max_pool{rank}d_with_indices": _max_pool(rank) for rank in (2, 3)},
        **{f"avg_pool{rank}d": _average_pool(rank) for rank in (1, 2, 3)},
        **{f"_adaptive_avg_pool{rank}d": _adaptive_average for rank in (2, 3)},
        "adaptive_avg_pool1d": _adaptive_average,
        **{f"adaptive_max_pool{rank}d": _adaptive_max for rank in (1, 2, 3)},
        "col2im": _col2im,
        "_native_batch_norm_legit_no_training": _batch_norm,
        "_native_batch_norm_legit": _batch_statistics,
        "_native_batch_norm_legit_functional": _batch_statistics,
        "native_layer_norm": _layer_norm,
        "native_group_norm": _group_norm,
        **{f"upsample_nearest{rank}d.vec": _nearest for rank in (1, 2, 3)},
        "upsample_linear1d.vec": _interpolated("linear"),
        "upsample_bilinear2d.vec": _interpolated("linear"),
        "upsample_trilinear3d.vec": _interpolated("linear"),
        "upsample_bicubic2d.vec": _interpolated("cubic"),
        "_upsample_bilinear2d_aa.vec": _interpolated("linear", True),
        "_upsample_bicubic2d_aa.vec": _interpolated("cubic", True),
        "grid_sampler_2d": _grid_sample,
        "grid_sampler_3d": _grid_sample,
        "lstm.input": _recurrent("LSTM"),
        "gru.input": _recurrent("GRU", linear_before_reset=1),
        "rnn_tanh.input": _recurrent("RNN"),
        "rnn_relu.input": _recurrent("RNN", activations=["Relu"]),
        **dict.fromkeys(("_embedding_bag", "_embedding_bag_forward_only"), _embedding_bag),
        "native_dropout": _dropout,
        "glu": _glu,
    }
)

KEPT: tuple[str, ...] = (
    *("lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input"),
    *("upsample_nearest1d.vec", "upsample_nearest3d.vec", "upsample_linear1d.vec"),
    *("upsample_trilinear3d.vec", "upsample_bicubic2d.vec", "_upsample_bilinear2d_aa.vec"),
    *("_upsample_bicubic2d_aa.vec", "grid_sampler_3d.default"),
    "scaled_dot_product_attention.default",
)
"""Operators that torch would take apart before the import, and that do better whole."""

RULES: Mapping[str, Rule] = MappingProxyType(rules(Operands.WIDE, _TABLE))
"""By the operator's name, with its overload where overloads differ."""
