"""An image file in, the tensor that a model takes for it out. Pillow reads it (extra `images`)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aotc.errors import UsageError
from aotc.frontend.specialize import Declared
from aotc.graph.types import DType

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".ppm", ".pgm", ".pnm", ".bmp")
LAYOUTS = ("nchw", "nhwc")


@dataclass(frozen=True)
class ImageOptions:
    """How pixels become numbers: (pixel / ``scale`` - ``mean``) / ``std``, each of the latter for
    all channels or for each. ``size`` is (height, width), where the model leaves them open;
    ``layout`` tells which axis has the channels where the shape does not; ``bgr`` swaps red and
    blue. Models that take bytes get the pixels as they are."""

    size: tuple[int, int] | None = None
    layout: str | None = None
    scale: float = 255.0
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    bgr: bool = False

    def __post_init__(self) -> None:
        if self.layout not in (None, *LAYOUTS):
            raise UsageError(
                f"there is no image layout '{self.layout}'",
                remedy=f"use --image-layout {' or '.join(LAYOUTS)}",
            )
        if not self.scale or 0.0 in self.std:
            raise UsageError(
                "pixels cannot be divided by zero", remedy="give another --image-std or scale"
            )


def read_image(
    path: Path, dtype: DType, shape: Declared | None, options: ImageOptions
) -> np.ndarray:
    """The picture in ``path``, resized, as [1, C, H, W] or [1, H, W, C] of ``dtype``.

    UsageError when it cannot be read, or when the input is no batch of images.
    """
    layout, channels, size = _form(path, shape, options)
    pixels = _decode(path, channels, size)
    if options.bgr:
        pixels = pixels[..., ::-1]
    values = pixels if dtype is DType.U8 else _normalised(path, pixels, options, dtype)
    if layout == "nchw":
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values[np.newaxis])


def _form(
    path: Path, shape: Declared | None, options: ImageOptions
) -> tuple[str, int, tuple[int, int] | None]:
    """The layout, the number of channels and the (height, width) that the model takes."""
    if shape is None or len(shape) != 4 or shape[0] not in (1, None) and isinstance(shape[0], int):
        raise UsageError(
            "the model's input is not one image",
            where=str(path),
            remedy="give the samples as .npy files",
        )
    layout = options.layout
    if layout is None:
        layout = "nhwc" if shape[3] in (1, 3) and shape[1] not in (1, 3) else "nchw"
    channels, rows, columns = shape[1:] if layout == "nchw" else (shape[3], shape[1], shape[2])
    if not isinstance(channels, int) or channels not in (1, 3):
        raise UsageError(
            f"an image has 1 or 3 channels, the model takes {channels or 'any number'}",
            where=str(path),
            remedy=f"give --image-layout {' or '.join(LAYOUTS)}, or the samples as .npy files",
        )
    if isinstance(rows, int) and isinstance(columns, int):
        return layout, channels, (rows, columns)
    return layout, channels, options.size


def _decode(path: Path, channels: int, size: tuple[int, int] | None) -> np.ndarray:
    """The pixels, uint8 [H, W, C], bilinearly resized to ``size``."""
    pillow = _pillow()
    try:
        with warnings.catch_warnings():
            # a picture of a few bytes may claim to have a billion pixels
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            with pillow.open(path) as image:
                converted = image.convert("L" if channels == 1 else "RGB")
    except Exception as error:  # each of its decoders has exceptions of its own
        raise UsageError(
            f"cannot read the image: {next(iter(str(error).splitlines()), 'damaged')}",
            where=str(path),
            remedy="give PNG, JPEG or PPM files",
        ) from None
    if size is not None and converted.size != size[::-1]:
        converted = converted.resize(size[::-1], pillow.Resampling.BILINEAR)
    return np.asarray(converted, np.uint8).reshape(*converted.size[::-1], channels)


def _normalised(
    path: Path, pixels: np.ndarray, options: ImageOptions, dtype: DType
) -> np.ndarray:
    if not dtype.is_float:
        raise UsageError(
            f"the model takes {dtype.value}, which pixels are not",
            where=str(path),
            remedy="give the samples as .npy files",
        )
    channels = pixels.shape[-1]
    for name, given in (("mean", options.mean), ("std", options.std)):
        if len(given) not in (1, channels):
            raise UsageError(
                f"--image-{name} has {len(given)} values for {channels} channels",
                remedy="give one value, or one for each channel",
            )
    values = (pixels / options.scale - np.array(options.mean)) / np.array(options.std)
    return np.asarray(values, dtype.numpy)


def _pillow() -> Any:
    try:
        from PIL import Image
    except ImportError:
        raise UsageError(
            "reading images needs Pillow", remedy="pip install 'aotc[images]', or give .npy files"
        ) from None
    return Image
