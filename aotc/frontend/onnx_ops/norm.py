"""ONNX normalisations: a `Call` goes in, means, variances and their arithmetic come out."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.graph.ir import Node
from aotc.graph.types import DType


def per_channel(call: Call, values: Node, x: Node) -> Node:
    """One number per channel, shaped to broadcast over axis 1 of ``x``."""
    if x.type.rank < 2 or values.shape != (x.shape[1],):
        raise ModelError(f"{values.type} is not one number for each channel of {x.type}")
    return call.reshape(values, (x.shape[1], *(1,) * (x.type.rank - 2)))


def batch_normalization(call: Call) -> Sequence[Node]:
    """``x * s + t`` with ``s = scale / sqrt(var + eps)`` and ``t = bias - mean s``; in training,
    mean and variance are those of the batch."""
    x = call[0]
    given = [call[index] for index in range(1, 5)]
    if call.version < 9 and not call.attrs.flag("spatial", True) and x.type.rank > 2:
        # every element of an image has its own numbers
        flat = call.reshape(x, (x.shape[0], math.prod(x.shape[1:])))
        given = [call.reshape(node, (node.type.elems,)) for node in given]
        y, *rest = _normalized_batch(call, flat, given)
        back = [call.reshape(node, call[3].shape) for node in rest]
        return [call.reshape(y, x.shape), *back]
    return _normalized_batch(call, x, given)


def _is_training(call: Call) -> bool:
    """By an attribute before opset 7 and since 14, by the number of results between them."""
    if call.version < 7:
        return not call.attrs.flag("is_test")
    if call.version < 14:
        return any(call.output_used[1:])
    return call.attrs.flag("training_mode")


def _normalized_batch(call: Call, x: Node, given: Sequence[Node]) -> list[Node]:
    if x.type.rank < 2 or any(node.shape != (x.shape[1],) for node in given):
        types = ", ".join(str(node.type) for node in given)
        raise ModelError(f"scale, bias, mean, variance ({types}) do not fit {x.type}")
    if _is_training(call):
        return _batch_statistics(call, x, given)
    if any(call.output_used[1:]):
        raise ModelError("has statistics as outputs, but is not in training mode")
    return [_scale_and_shift(call, x, given)]


def _batch_statistics(call: Call, x: Node, given: Sequence[Node]) -> list[Node]:
    """Standardised by the mean and variance of the batch itself; results: y, the running mean and
    variance, and before opset 14 those of the batch."""
    scale, bias, mean, variance = given
    wide = call.cast(x, DType.F32 if x.type.dtype.size_bytes < 4 else x.type.dtype)
    axes = [axis for axis in range(x.type.rank) if axis != 1]
    own_mean = call.mean(wide, axes)
    centred = call.binary("sub", wide, own_mean)
    own_variance = call.mean(call.binary("mul", centred, centred), axes)
    deviation = call.binary("add", own_variance, call.attrs.real("epsilon", 1e-5))
    inverse = call.unary("reciprocal", call.unary("sqrt", deviation))
    y = call.cast(call.binary("mul", centred, inverse), scale.type.dtype)
    y = call.binary("mul", y, per_channel(call, scale, x))
    y = call.binary("add", y, per_channel(call, bias, x))
    momentum = call.attrs.real("momentum", 0.9)
    own = [call.reshape(node, mean.shape) for node in (own_mean, own_variance)]
    running = []
    for old, new in zip((mean, variance), own, strict=True):
        kept = call.binary("mul", call.cast(old, new.type.dtype), momentum)
        joined = call.binary("add", kept, call.binary("mul", new, 1.0 - momentum))
        running.append(call.cast(joined, old.type.dtype))
    results = [call.cast(y, x.type.dtype), *running]
    return results if call.version >= 14 else [*results, *own]


def _scale_and_shift(call: Call, x: Node, given: Sequence[Node]) -> Node:
    epsilon = call.attrs.real("epsilon", 1e-5)
    dtype = x.type.dtype
    if all(node.data is not None for node in given):
        # in float64 and rounded once: this is the arithmetic that the model's author left to us
        scale, bias, mean, variance = (
            node.data.astype(np.float64) for node in given if node.data is not None
        )
        with np.errstate(all="ignore"):
            factor = scale / np.sqrt(variance + epsilon)
            shift = bias - mean * factor
        factor_node = call.constant(factor.astype(dtype.numpy))
        shift_node = call.constant(shift.astype(dtype.numpy))
    else:
        scale_node, bias_node, mean_node, variance_node = (call.cast(node, dtype) for node in given)
        root = call.unary("sqrt", call.binary("add", variance_node, epsilon))
        factor_node = call.binary("div", scale_node, root)
        shift_node = call.binary("sub", bias_node, call.binary("mul", mean_node, factor_node))
    scaled = call.binary("mul", x, per_channel(call, factor_node, x))
    return call.binary("add", scaled, per_channel(call, shift_node, x))


def standardize(
    call: Call, x: Node, axes: Sequence[int], epsilon: float
) -> tuple[Node, Node, Node]:
    """``(x - mean) / sqrt(variance + epsilon)`` over ``axes``, the mean, and the inverse
    deviation."""
    mean = call.mean(x, axes)
    centred = call.binary("sub", x, mean)
    variance = call.mean(call.binary("mul", centred, centred), axes)
    deviation = call.unary("sqrt", call.binary("add", variance, epsilon))
    inverse = call.unary("reciprocal", deviation)
    return call.binary("mul", centred, inverse), mean, inverse


def _stash_dtype(call: Call, x: Node) -> DType:
    """Statistics of float16 are computed in float32 unless ``stash_type`` says otherwise."""
    narrow = x.type.dtype is DType.F16 and call.attrs.integer("stash_type", 1) == 1
    return DType.F32 if narrow else x.type.dtype


def _expect_float(x: Node) -> None:
    if not x.type.dtype.is_float:
        raise ModelError(f"needs floats, got {x.type}")


def layer_normalization(call: Call) -> Sequence[Node]:
    """Standardised over the axes from ``axis`` on, times scale, plus bias."""
    x = call[0]
    _expect_float(x)
    axis = call.axis(call.attrs.integer("axis", -1), x.type.rank)
    wide = call.cast(x, _stash_dtype(call, x))
    axes = tuple(range(axis, x.type.rank))
    y, mean, inverse = standardize(call, wide, axes, call.attrs.real("epsilon", 1e-5))
    y = call.binary("mul", call.cast(y, x.type.dtype), call[1])
    bias = call.optional(2)
    y = y if bias is None else call.binary("add", y, bias)
    _expect_shape(y, x)
    return [y, mean, inverse]


def _expect_shape(y: Node, x: Node) -> None:
    if y.shape != x.shape:
        raise ModelError(f"scale or bias do not stretch to {x.type}: the result would be {y.type}")


def rms_normalization(call: Call) -> Node:
    """``x / sqrt(mean(x^2) + epsilon) * scale`` over the axes from ``axis`` on."""
    x = call[0]
    _expect_float(x)
    axis = call.axis(call.attrs.integer("axis", -1), x.type.rank)
    wide = call.cast(x, _stash_dtype(call, x))
    mean = call.mean(call.binary("mul", wide, wide), tuple(range(axis, x.type.rank)))
    root = call.unary("sqrt", call.binary("add", mean, call.attrs.real("epsilon", 1e-5)))
    normal = call.binary("mul", wide, call.unary("reciprocal", root))
    y = call.binary("mul", call.cast(normal, x.type.dtype), call[1])
    _expect_shape(y, x)
    return y


def instance_normalization(call: Call) -> Node:
    """Each image and channel standardised by itself, times scale, plus bias."""
    x = call[0]
    _expect_float(x)
    if x.type.rank < 3:
        raise ModelError(f"needs data [N, C, ...], got {x.type}")
    axes = tuple(range(2, x.type.rank))
    y, _, _ = standardize(call, x, axes, call.attrs.real("epsilon", 1e-5))
    scaled = call.binary("mul", y, per_channel(call, call[1], x))
    return call.binary("add", scaled, per_channel(call, call[2], x))


def group_normalization(call: Call) -> Node:
    """Each group of channels standardised; scale and bias per group in opset 18, per channel
    since."""
    x, groups = call[0], call.attrs.integer("num_groups")
    _expect_float(x)
    if x.type.rank < 2 or groups < 1 or x.shape[1] % groups:
        raise ModelError(f"{x.type} does not fit {groups} groups of channels")
    wide = call.cast(x, _stash_dtype(call, x))
    each = x.shape[1] // groups * math.prod(x.shape[2:])
    grouped = call.reshape(wide, (x.shape[0], groups, each))
    y, _, _ = standardize(call, grouped, (2,), call.attrs.real("epsilon", 1e-5))
    scale, bias = call[1], call[2]
    if call.version < 21:
        y = call.cast(y, x.type.dtype)
        scaled = call.binary("mul", y, per_channel(call, scale, y))
        return call.reshape(call.binary("add", scaled, per_channel(call, bias, y)), x.shape)
    y = call.cast(call.reshape(y, x.shape), x.type.dtype)
    scaled = call.binary("mul", y, per_channel(call, scale, x))
    return call.binary("add", scaled, per_channel(call, bias, x))


def mean_variance_normalization(call: Call) -> Node:
    """``(x - mean) / (deviation + 1e-9)`` over ``axes``."""
    x = call[0]
    _expect_float(x)
    axes = call.axes(call.attrs.integers("axes", (0, 2, 3)) or (), x.type.rank)
    centred = call.binary("sub", x, call.mean(x, axes))
    variance = call.mean(call.binary("mul", centred, centred), axes)
    return call.binary("div", centred, call.binary("add", call.unary("sqrt", variance), 1e-9))


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "BatchNormalization": batch_normalization,
        "GroupNormalization": group_normalization,
        "InstanceNormalization": instance_normalization,
        "LayerNormalization": layer_normalization,
        "MeanVarianceNormalization": mean_variance_normalization,
        "RMSNormalization": rms_normalization,
    }
)
