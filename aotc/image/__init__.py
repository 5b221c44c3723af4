"""What stands around models of images: `aotc.image.NAME` of arrays or traced values.

Images are [..., height, width, channels] with any axes in front. Every function traces, and on
plain arrays it computes the same with numpy.
"""

from aotc.image.boxes import convert_boxes, iou, non_max_suppression
from aotc.image.colour import (
    bgr_to_rgb,
    gray_to_rgb,
    nv12_to_rgb,
    rgb_to_bgr,
    rgb_to_gray,
    rgb_to_yuv,
    yuv_to_rgb,
)
from aotc.image.geometry import (
    center_crop,
    crop,
    flip_horizontal,
    flip_vertical,
    letterbox,
    normalize,
    pad_to,
    resize,
    to_chw,
    to_hwc,
    unletterbox,
)

__all__ = [
    "bgr_to_rgb",
    "center_crop",
    "convert_boxes",
    "crop",
    "flip_horizontal",
    "flip_vertical",
    "gray_to_rgb",
    "iou",
    "letterbox",
    "non_max_suppression",
    "normalize",
    "nv12_to_rgb",
    "pad_to",
    "resize",
    "rgb_to_bgr",
    "rgb_to_gray",
    "rgb_to_yuv",
    "to_chw",
    "to_hwc",
    "unletterbox",
    "yuv_to_rgb",
]
