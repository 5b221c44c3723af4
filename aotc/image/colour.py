"""Images in one colour space in, in another out.

Formulas: ITU-R BT.601-7 and BT.709-6. Integers are computed in float32, rounded (half to even) and
held to the range of their type.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from aotc.graph.types import DType
from aotc.image.geometry import image_of, narrowed, wide_type
from aotc.tracing.core import broadcast, cast, lift
from aotc.tracing.eager import eager
from aotc.tracing.places import misuse
from aotc.tracing.tensor import Tensor, tnp

_LUMA: Mapping[str, tuple[float, float]] = MappingProxyType(
    {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}
)
"""The shares of red and blue in the luma."""


def _colours(image: Any, channels: int = 3) -> Tensor:
    x = image_of(image)
    if x.shape[-1] != channels or x.type.dtype is DType.BOOL:
        raise misuse(f"{x.type} has not {channels} channels of numbers in its last axis")
    return x


@eager
def rgb_to_bgr(image: Any) -> Tensor:
    """The three channels in reverse order."""
    return _colours(image)[..., ::-1]


@eager
def bgr_to_rgb(image: Any) -> Tensor:
    """The three channels in reverse order."""
    return _colours(image)[..., ::-1]


@eager
def rgb_to_gray(image: Any) -> Tensor:
    """One channel, 0.299 R + 0.587 G + 0.114 B (BT.601), of the same element type.

    >>> import aotc, numpy as np
    >>> aotc.image.rgb_to_gray(np.uint8([[[255, 0, 0], [255, 255, 255]]])).tolist()
    [[[76], [255]]]
    """
    x = _colours(image)
    wide = cast(x, wide_type(x))
    number = wide.dtype.type
    parts = [wide[..., i : i + 1] * number(w) for i, w in enumerate((0.299, 0.587, 0.114))]
    return narrowed(lift(parts[0] + parts[1] + parts[2]), x.type.dtype)


@eager
def gray_to_rgb(image: Any) -> Tensor:
    """The one channel three times."""
    x = _colours(image, 1)
    return broadcast(x, (*x.shape[:-1], 3))


def _shares(standard: str) -> tuple[float, float, float]:
    if standard not in _LUMA:
        raise misuse(f"there is no standard {standard!r}", f"use {' or '.join(_LUMA)}")
    red, blue = _LUMA[standard]
    return red, 1 - red - blue, blue


def _ranges(full_range: bool, unit: float) -> tuple[float, float, float, float]:
    """Of components from 0 to ``unit``: where luma starts, its reach, the middle of chroma and its
    reach."""
    if full_range:
        return 0.0, 1.0, 128 / 255 * unit, 1.0
    return 16 / 255 * unit, 219 / 255, 128 / 255 * unit, 224 / 255


def _unit(x: Tensor) -> float:
    """White: 1 in floats, 255 in uint8."""
    if not x.type.dtype.is_float and x.type.dtype is not DType.U8:
        raise misuse(f"colours are uint8 or floats from 0 to 1, not {x.type}")
    return 1.0 if x.type.dtype.is_float else 255.0


@eager
def rgb_to_yuv(image: Any, standard: str = "bt601", full_range: bool = False) -> Tensor:
    """Y, Cb and Cr of uint8, or of floats from 0 to 1, with chroma around 128/255.

    ``standard`` is bt601 or bt709. Video has luma from 16 to 235 and chroma from 16 to 240;
    ``full_range`` (JPEG) uses all of 0 to 255.
    """
    x = _colours(image)
    red, green, blue = _shares(standard)
    start, luma, middle, chroma = _ranges(full_range, _unit(x))
    wide = cast(x, wide_type(x))
    number = wide.dtype.type
    r, g, b = (wide[..., i] for i in range(3))
    y = r * number(red) + g * number(green) + b * number(blue)
    u = (b - y) * number(chroma / (2 * (1 - blue))) + number(middle)
    v = (r - y) * number(chroma / (2 * (1 - red))) + number(middle)
    planes = tnp.stack([y * number(luma) + number(start), u, v], -1)
    return narrowed(planes, x.type.dtype)


def _red_green_blue(
    y: Any, u: Any, v: Any, dtype: DType, unit: float, standard: str, full_range: bool
) -> Tensor:
    """Planes of floats to an image [..., 3] of ``dtype``, held to 0 to white; chroma stretches to
    luma."""
    red, green, blue = _shares(standard)
    start, luma, middle, chroma = _ranges(full_range, unit)
    number = y.dtype.type
    bright = (y - number(start)) * number(1 / luma)
    u, v = u - number(middle), v - number(middle)
    of_u, of_v = 2 * (1 - blue) / chroma, 2 * (1 - red) / chroma
    planes = [
        bright + v * number(of_v),
        bright - u * number(of_u * blue / green) - v * number(of_v * red / green),
        bright + u * number(of_u),
    ]
    if dtype.is_float:
        planes = [tnp.clip(plane, number(0), number(unit)) for plane in planes]
    return lift(tnp.stack([narrowed(lift(plane), dtype) for plane in planes], -1))


@eager
def yuv_to_rgb(image: Any, standard: str = "bt601", full_range: bool = False) -> Tensor:
    """The reverse of `rgb_to_yuv`, held to the range of colours."""
    x = _colours(image)
    wide = cast(x, wide_type(x))
    y, u, v = (wide[..., i] for i in range(3))
    return _red_green_blue(y, u, v, x.type.dtype, _unit(x), standard, full_range)


@eager
def nv12_to_rgb(
    data: Any, standard: str = "bt601", full_range: bool = False, order: str = "uv"
) -> Tensor:
    """What cameras give, uint8 [..., height * 3 / 2, width], to RGB uint8 [..., height, width, 3].

    The first ``height`` rows are luma, the rest Cb and Cr in turns, one pair for 2 x 2 pixels,
    which is repeated for each of them; ``order="vu"`` for Cr before Cb (NV21). Height and width are
    even.
    """
    x = lift(data)
    if x.type.dtype is not DType.U8 or x.ndim < 2 or x.shape[-2] % 3 or x.shape[-1] % 2:
        raise misuse(f"NV12 is uint8 [height * 3 / 2, width] of even sizes, not {x.type}")
    if order not in ("uv", "vu"):
        raise misuse(f"there is no order {order!r}", "use uv or vu")
    *front, rows, width = x.shape
    height = rows * 2 // 3
    pairs = tnp.reshape(x[..., height:, :], (*front, height // 2, width // 2, 2))
    u, v = (
        tnp.repeat(cast(pairs[..., order.index(name)], DType.F32), 2, axis=-1)[..., None, :]
        for name in "uv"
    )
    luma = cast(tnp.reshape(x[..., :height, :], (*front, height // 2, 2, width)), DType.F32)
    image = _red_green_blue(luma, u, v, DType.U8, 255.0, standard, full_range)
    return lift(tnp.reshape(image, (*front, height, width, 3)))

