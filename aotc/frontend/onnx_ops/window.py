"""Sliding windows of ONNX: attributes go in, static extents and padding come out."""

from __future__ import annotations

from dataclasses import dataclass

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call


@dataclass(frozen=True)
class Window:
    """One window: every field has one entry per spatial axis. ``extent`` is the number of
    positions; the padding is what the window reads beyond the data, ``declared_high`` what the
    model declares (they differ under ceil_mode)."""

    size: tuple[int, ...]
    strides: tuple[int, ...]
    dilation: tuple[int, ...]
    low: tuple[int, ...]
    high: tuple[int, ...]
    declared_high: tuple[int, ...]
    extent: tuple[int, ...]


def per_axis(call: Call, name: str, count: int, default: int) -> tuple[int, ...]:
    """A list attribute with one entry for each of ``count`` axes, all >= 1."""
    values = call.attrs.integers(name) or (default,) * count
    if len(values) != count or min(values, default=1) < 1:
        raise ModelError(f"attribute '{name}' is {values}: needs {count} numbers of 1 or more")
    return values


def declared_pads(call: Call, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Attribute ``pads`` as low and high side."""
    pads = call.attrs.integers("pads") or (0,) * (2 * count)
    if len(pads) != 2 * count or min(pads, default=0) < 0:
        raise ModelError(f"attribute 'pads' is {pads}: needs {2 * count} numbers, none negative")
    return pads[:count], pads[count:]


def auto_pad_mode(call: Call) -> str:
    """Attribute ``auto_pad``."""
    mode = call.attrs.string("auto_pad", "NOTSET")
    if mode not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise ModelError(f"attribute 'auto_pad' cannot be '{mode}'")
    return mode


def window_of(call: Call, spatial: tuple[int, ...], size: tuple[int, ...]) -> Window:
    """The window of ``size`` that ``call`` slides over data of extents ``spatial``."""
    count = len(spatial)
    if len(size) != count or min(size, default=1) < 1:
        raise ModelError(f"a window of {size} does not fit {count} spatial axes {spatial}")
    strides = per_axis(call, "strides", count, 1)
    dilation = per_axis(call, "dilations", count, 1)
    reach = [(n - 1) * gap + 1 for n, gap in zip(size, dilation, strict=True)]
    mode = auto_pad_mode(call)
    low, high = declared_pads(call, count)
    if mode == "VALID":
        low, high = (0,) * count, (0,) * count
    elif mode != "NOTSET":
        totals = [
            max(0, (-(-n // step) - 1) * step + r - n)
            for n, step, r in zip(spatial, strides, reach, strict=True)
        ]
        small, large = tuple(t // 2 for t in totals), tuple(t - t // 2 for t in totals)
        low, high = (small, large) if mode == "SAME_UPPER" else (large, small)
    ceil = call.attrs.flag("ceil_mode") and mode in ("NOTSET", "VALID")
    extents, reads = [], []
    for n, step, r, before, after in zip(spatial, strides, reach, low, high, strict=True):
        room = n + before + after - r
        if room < 0:
            raise ModelError(f"a window reaching {r} does not fit an axis of {n}+{before}+{after}")
        extent = (-(-room // step) if ceil else room // step) + 1
        # a window that would start in the padding behind the data does not count
        if ceil and (extent - 1) * step >= n + before:
            extent -= 1
        extents.append(extent)
        reads.append(max(0, (extent - 1) * step + r - n - before) if ceil else after)
    return Window(size, strides, dilation, low, tuple(reads), high, tuple(extents))
