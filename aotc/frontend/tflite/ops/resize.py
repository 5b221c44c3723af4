"""Resizing of TFLite: a `Use` goes in, what ONNX's Resize gives comes out."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from aotc.errors import ModelError
from aotc.frontend.tflite.use import Rule, Use
from aotc.graph.ir import Node

MAX_SIDE = 1 << 16
"""No image is as high or as wide."""


def _resized(use: Use, x: Node, options: Any, **attributes: str) -> Node:
    """Images ``x`` in the height and width that operand 1 has."""
    sizes = use.ints(1, "size")
    if x.type.rank != 4 or len(sizes) != 2:
        raise ModelError(f"size {sizes} does not fit images {x.type}")
    if min(sizes) < 1 or max(*sizes, *x.shape[1:3]) > MAX_SIDE:
        raise ModelError(f"size {sizes} from {x.type}: a side has 1 to {MAX_SIDE} pixels")
    mode = "asymmetric"
    if options.AlignCorners():
        mode = "align_corners"
    elif options.HalfPixelCenters():
        mode = "half_pixel"
    return use.onnx(
        "Resize",
        *(x, None, None, use.vector(sizes)),
        axes=[1, 2],
        coordinate_transformation_mode=mode,
        **attributes,
    )


def resize_bilinear(use: Use) -> Node:
    """Between the four pixels around each place."""
    options = use.options("ResizeBilinearOptions")
    return use.result(_resized(use, use.real(0), options, mode="linear"))


def resize_nearest_neighbor(use: Use) -> Node:
    """The pixel at each place: rounded down, or to the nearest with centres or corners aligned."""
    options = use.options("ResizeNearestNeighborOptions")
    nearest = options.AlignCorners() or options.HalfPixelCenters()
    rounding = "round_prefer_ceil" if nearest else "floor"
    y = _resized(use, use.call[0], options, mode="nearest", nearest_mode=rounding)
    return use.moved(y, 0)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "RESIZE_BILINEAR": resize_bilinear,
        "RESIZE_NEAREST_NEIGHBOR": resize_nearest_neighbor,
    }
)
