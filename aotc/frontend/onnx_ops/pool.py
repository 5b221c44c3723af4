"""ONNX pooling: a `Call` goes in, `ReduceWindow` or `Reduce` comes out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call, Rule
from aotc.frontend.onnx_ops.patches import largest_with_place
from aotc.frontend.onnx_ops.window import Window, window_of
from aotc.graph import ops
from aotc.graph.ir import Node


def _spatial_axes(x: Node) -> tuple[int, ...]:
    if x.type.rank < 3:
        raise ModelError(f"needs data [N, C, ...] with at least one spatial axis, got {x.type}")
    return tuple(range(2, x.type.rank))


def _window(call: Call) -> Window:
    _spatial_axes(call[0])
    return window_of(call, call[0].shape[2:], call.attrs.required_integers("kernel_shape"))


def _slide(call: Call, x: Node, fn: str, window: Window) -> Node:
    one, zero = (1, 1), (0, 0)
    op = ops.ReduceWindow(
        fn,
        one + window.size,
        one + window.strides,
        zero + window.low,
        zero + window.high,
        one + window.dilation,
    )
    return call.apply(op, x)


def max_pool(call: Call) -> Sequence[Node]:
    """The largest element of each window, and its place in the flattened data."""
    window = _window(call)
    if any(call.output_used[1:]):
        return largest_with_place(call, call[0], window, call.attrs.flag("storage_order"))
    return [_slide(call, call[0], "max", window)]


def average_pool(call: Call) -> Node:
    """The mean of each window, with or without the padding."""
    x, window = call[0], _window(call)
    with_pads = call.attrs.flag("count_include_pad")
    y = _slide(call, x, "sum", window)
    even = 1
    for axis, size in enumerate(x.shape[2:]):
        call.expect_indexable(window.extent[axis] * window.size[axis])
        counts = element_counts(size, window, axis, with_pads)
        if (counts == counts[0]).all():
            even *= int(counts[0])
            continue
        inverse = np.divide(1.0, counts).astype(x.type.dtype.numpy)
        column = inverse.reshape(-1, *(1,) * (x.type.rank - axis - 3))
        y = call.binary("mul", y, call.constant(column))
    return call.binary("mul", y, 1.0 / even)


def element_counts(size: int, window: Window, axis: int, with_pads: bool) -> np.ndarray:
    """How many elements each position of the window has on one axis, [positions].

    The padding counts ``with_pads``; what ceil_mode adds behind it never does.
    """
    low = window.low[axis]
    first = np.arange(window.extent[axis]) * window.strides[axis] - low
    taps = first[:, None] + np.arange(window.size[axis]) * window.dilation[axis]
    start, end = (-low, size + window.declared_high[axis]) if with_pads else (0, size)
    return np.asarray(((taps >= start) & (taps < end)).sum(axis=1))


def lp_pool(call: Call) -> Node:
    """``(sum |x|^p)^(1/p)`` of each window."""
    p = _exponent(call)
    powers = _power_of_magnitude(call, call[0], p)
    return _root(call, _slide(call, powers, "sum", _window(call)), p)


def _exponent(call: Call) -> float:
    """Attribute ``p``, a float in opset 1."""
    whole = call.version > 1
    p = call.attrs.integer("p", 2) if whole else call.attrs.real("p", 2.0)
    if not 0 < p < np.inf:
        raise ModelError(f"attribute 'p' must be more than 0, is {p}")
    return p


def _power_of_magnitude(call: Call, x: Node, p: float) -> Node:
    if p == 2:
        return call.binary("mul", x, x)
    magnitude = call.unary("abs", x)
    return magnitude if p == 1 else call.binary("pow", magnitude, float(p))


def _root(call: Call, x: Node, p: float) -> Node:
    if p == 2:
        return call.unary("sqrt", x)
    return x if p == 1 else call.binary("pow", x, 1.0 / p)


def global_average_pool(call: Call) -> Node:
    """The mean over all spatial axes."""
    return call.mean(call[0], _spatial_axes(call[0]))


def global_max_pool(call: Call) -> Node:
    """The largest element over all spatial axes."""
    return call.reduce("max", call[0], _spatial_axes(call[0]))


def global_lp_pool(call: Call) -> Node:
    """``(sum |x|^p)^(1/p)`` over all spatial axes."""
    p = _exponent(call)
    powers = _power_of_magnitude(call, call[0], p)
    return _root(call, call.reduce("sum", powers, _spatial_axes(call[0])), p)


def lp_normalization(call: Call) -> Node:
    """``x`` over its p-norm along ``axis``."""
    x, p = call[0], call.attrs.integer("p", 2)
    if p < 1:
        raise ModelError(f"attribute 'p' must be 1 or more, is {p}")
    axis = call.axis(call.attrs.integer("axis", -1), x.type.rank)
    norm = _root(call, call.reduce("sum", _power_of_magnitude(call, x, p), [axis]), p)
    # a slice of zeros stays zero
    safe = call.select(call.compare("eq", norm, 0.0), call.scalar(1.0, norm), norm)
    return call.binary("div", x, safe)


def lrn(call: Call) -> Node:
    """``x / (bias + alpha/size * sum of squares over size neighbouring channels) ^ beta``."""
    x, size = call[0], call.attrs.integer("size")
    if size < 1 or x.type.rank < 2:
        raise ModelError(f"size {size} does not fit {x.type}")
    low = (size - 1) // 2
    rest = x.type.rank - 2
    one, zero = (1,) * rest, (0,) * rest
    op = ops.ReduceWindow(
        "sum",
        (1, size, *one),
        (1, 1, *one),
        (0, low, *zero),
        (0, size - 1 - low, *zero),
        (1, 1, *one),
    )
    total = call.apply(op, call.binary("mul", x, x))
    scaled = call.binary("mul", total, call.attrs.real("alpha", 0.0001) / size)
    base = call.binary("add", scaled, call.attrs.real("bias", 1.0))
    return call.binary("div", x, call.binary("pow", base, call.attrs.real("beta", 0.75)))


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "AveragePool": average_pool,
        "GlobalAveragePool": global_average_pool,
        "GlobalLpPool": global_lp_pool,
        "GlobalMaxPool": global_max_pool,
        "LRN": lrn,
        "LpNormalization": lp_normalization,
        "LpPool": lp_pool,
        "MaxPool": max_pool,
    }
)
