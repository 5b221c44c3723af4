"""Images in, images of other sizes, places and layouts out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from aotc.frontend.resample import AxisPlan, Sampling, resize_axis
from aotc.graph.types import DType
from aotc.tracing.core import cast, cut, gather, lift, node_of, unary
from aotc.tracing.eager import eager
from aotc.tracing.places import here, misuse
from aotc.tracing.scope import current
from aotc.tracing.tensor import Tensor, tnp

MODES = ("nearest", "linear", "cubic", "area")
MOST_WEIGHTS = 1 << 24
"""More weights than this for one axis are a mistake, or need a smaller image first."""


def image_of(value: Any) -> Tensor:
    """``value`` as an image; UsageError when it has no height, width and channels."""
    x = lift(value)
    if x.ndim < 3 or not x.size:
        raise misuse(
            f"{x.type} is no image", "images are [height, width, channels], with axes in front"
        )
    return x


def size_of(size: Any) -> tuple[int, int]:
    """A pair (height, width) of 1 or more; UsageError for all else."""
    pair = tuple(size) if isinstance(size, Sequence | np.ndarray) else ()
    whole = [isinstance(each, int | np.integer) and each > 0 for each in pair]
    if whole != [True, True]:
        raise misuse(f"{size!r} is not a size", "give (height, width), two Python integers")
    return int(pair[0]), int(pair[1])


def wide_type(x: Tensor) -> DType:
    """What numbers of an image are computed in: float32, float64 for those it does not hold."""
    return x.type.dtype.arithmetic if x.type.dtype.is_float else (
        DType.F32 if x.itemsize < 4 else DType.F64
    )


def narrowed(x: Tensor, dtype: DType) -> Tensor:
    """Computed numbers in the type of an image: integers are the nearest (half to even), held to
    the ends of their type."""
    return cast(x if dtype.is_float else unary("round", x), dtype)


@eager
def resize(image: Any, size: Any, mode: str = "linear", antialias: bool = False) -> Tensor:
    """The image at ``size`` (height, width), of the same element type.

    ``mode`` is nearest, linear, cubic (Keys) or area (the mean over what an output pixel covers,
    for making images smaller). Pixels are areas: output pixel i has its centre at
    (i + 0.5) * old / new - 0.5 (half-pixel centres); beyond the image its border continues.
    ``antialias`` (linear, cubic) widens the weights by the factor by which the image shrinks, as
    Pillow does. Weights are those of ONNX Resize, with a = -0.75 for cubic as OpenCV and torch have
    it, and a = -0.5 with antialias as Pillow has it. Integers are computed in floats, rounded
    (half to even) and held to the range of their type. UsageError for bools unless nearest.

    >>> import aotc, numpy as np
    >>> aotc.image.resize(np.float32([[[0.0], [4.0]]]), (1, 4))[0, :, 0]
    array([0., 1., 3., 4.], dtype=float32)
    """
    x = image_of(image)
    if mode not in MODES:
        raise misuse(f"there is no mode {mode!r}", f"use {', '.join(MODES)}")
    if antialias and mode not in ("linear", "cubic"):
        raise misuse(f"mode {mode} has no antialias", "use linear, cubic, or area alone")
    if mode != "nearest" and x.type.dtype is DType.BOOL:
        raise misuse(f"{x.type} has no pixels between others", "use mode='nearest' or astype")
    a = -0.5 if antialias else -0.75
    how = Sampling(mode, "half_pixel", "round_prefer_floor", a, antialias, antialias, 0.0)
    plans = [
        AxisPlan(axis, x.shape[axis], result, result / x.shape[axis], (0.0, 1.0))
        for axis, result in zip((x.ndim - 3, x.ndim - 2), size_of(size), strict=True)
        if x.shape[axis] != result
    ]
    for plan in plans:
        reach = 4 * max(plan.size, plan.result)
        if reach > MOST_WEIGHTS:
            raise misuse(f"an axis of {plan.size} to {plan.result} pixels is too long")
    # whole rows are cheap to pick, so columns come first only where they shrink much more
    if len(plans) == 2 and plans[1].scale * 4 < plans[0].scale:
        plans.reverse()
    y, work, scope = x, wide_type(x), current()
    for plan in plans:
        y = Tensor(scope, resize_axis(scope.builder, node_of(y), plan, how, here().origin, work))
    return y if y.type.dtype is x.type.dtype else narrowed(y, x.type.dtype)


@eager
def crop(image: Any, top: Any, left: Any, size: Any) -> Tensor:
    """The part of ``size`` (height, width) whose upper left pixel is (``top``, ``left``).

    Places known while tracing must fit, else UsageError; those of run time (integers) are held to
    where the part fits.
    """
    x = image_of(image)
    height, width = size_of(size)
    return _part(_part(x, x.ndim - 3, top, height), x.ndim - 2, left, width)


def _part(x: Tensor, axis: int, start: Any, count: int) -> Tensor:
    room = x.shape[axis] - count
    if isinstance(start, Tensor):
        if start.ndim or not start.type.dtype.is_int or room < 0:
            raise misuse(f"{count} pixels from a {start.type} do not fit axis {axis} of {x.type}")
        first = tnp.clip(cast(start, DType.I64), 0, room)
        return gather(x, first + np.arange(count), axis)
    if not 0 <= start <= room:
        raise misuse(f"pixels {start} to {start + count} are outside axis {axis} of {x.type}")
    return cut(x, axis, int(start), count)


@eager
def center_crop(image: Any, size: Any) -> Tensor:
    """The middle part of ``size`` (height, width); of an odd rest the smaller half is above and on
    the left. UsageError when the image is smaller."""
    x = image_of(image)
    height, width = size_of(size)
    return crop(x, (x.shape[-3] - height) // 2, (x.shape[-2] - width) // 2, (height, width))


@eager
def pad_to(image: Any, size: Any, value: float = 0) -> Tensor:
    """The image in the middle of one of ``size`` (height, width) filled with ``value``; of an odd
    rest the smaller half is above and on the left. UsageError when the image is larger."""
    x = image_of(image)
    height, width = size_of(size)
    rest = height - x.shape[-3], width - x.shape[-2]
    if min(rest) < 0:
        raise misuse(f"{x.type} does not fit into {height} x {width}", "resize it first")
    sides = [(each // 2, each - each // 2) for each in rest]
    return lift(tnp.pad(x, [*[(0, 0)] * (x.ndim - 3), *sides, (0, 0)], constant_values=value))


def _fitted(height: int, width: int, size: tuple[int, int]) -> tuple[float, int, int, int, int]:
    """Of an image letterboxed to ``size``: the scale, its height and width, its place there."""
    scale = min(size[0] / height, size[1] / width)
    inner = max(math.floor(height * scale + 0.5), 1), max(math.floor(width * scale + 0.5), 1)
    inner = min(inner[0], size[0]), min(inner[1], size[1])
    return (scale, *inner, (size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2)


@eager
def letterbox(
    image: Any, size: Any, value: float = 114, mode: str = "linear", antialias: bool = False
) -> Tensor:
    """The whole image as large as it goes into ``size`` (height, width) without changing its
    proportions, in the middle, with ``value`` around it. `unletterbox` leads boxes back."""
    x, wanted = image_of(image), size_of(size)
    _, height, width, _, _ = _fitted(x.shape[-3], x.shape[-2], wanted)
    return pad_to(resize(x, (height, width), mode, antialias), wanted, value)


@eager
def unletterbox(boxes: Any, image_size: Any, size: Any) -> Tensor:
    """Boxes [..., 4] (x0, y0, x1, y1, in pixels) of the image that `letterbox` made at ``size``, in
    pixels of the image of ``image_size`` (height, width), held to it."""
    x = lift(boxes)
    if not x.type.dtype.is_float or not x.ndim or x.shape[-1] != 4:
        raise misuse(f"boxes are floats [..., 4], not {x.type}")
    height, width = size_of(image_size)
    _, inner_height, inner_width, top, left = _fitted(height, width, size_of(size))
    number = x.dtype.type
    ratio = np.array([width / inner_width, height / inner_height] * 2, number)
    y = (x - np.array([left, top] * 2, number)) * ratio
    return lift(tnp.clip(y, number(0), np.array([width, height] * 2, number)))


@eager
def flip_horizontal(image: Any) -> Tensor:
    """Left and right exchanged."""
    x = image_of(image)
    return lift(tnp.flip(x, x.ndim - 2))


@eager
def flip_vertical(image: Any) -> Tensor:
    """Top and bottom exchanged."""
    x = image_of(image)
    return lift(tnp.flip(x, x.ndim - 3))


@eager
def normalize(image: Any, mean: Any, std: Any, scale: float = 1.0) -> Tensor:
    """``(image * scale - mean) / std`` as float32 (float64 stays), ``mean`` and ``std`` a number or
    one for each channel; for uint8 and numbers of images of 0 to 1, ``scale=1/255``.

    >>> import aotc, numpy as np
    >>> aotc.image.normalize(np.uint8([[[0, 255]]]), 0.5, [0.5, 0.25], scale=1 / 255)
    array([[[-1.,  2.]]], dtype=float32)
    """
    x = image_of(image)
    dtype = DType.F64 if x.type.dtype is DType.F64 else DType.F32
    low, spread = (lift(each, dtype) for each in (mean, std))
    y = cast(x, dtype)
    y = y if scale == 1.0 else y * dtype.numpy.type(scale)
    return lift((y - low) / spread)


@eager
def to_chw(image: Any) -> Tensor:
    """[..., height, width, channels] to [..., channels, height, width]."""
    return lift(tnp.moveaxis(image_of(image), -1, -3))


@eager
def to_hwc(image: Any) -> Tensor:
    """[..., channels, height, width] to [..., height, width, channels]."""
    return lift(tnp.moveaxis(image_of(image), -3, -1))
