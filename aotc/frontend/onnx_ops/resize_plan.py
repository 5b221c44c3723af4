"""The attributes of ONNX Resize and Upsample: a `Call` goes in, what they say comes out."""

from __future__ import annotations

from aotc.errors import ModelError
from aotc.frontend.onnx_ops.call import Call
from aotc.frontend.resample import Sampling


def sampling(call: Call) -> Sampling:
    """What the attributes say of the way to sample."""
    attrs = call.attrs
    mode = attrs.string("mode", "nearest")
    if call.version == 1 and mode == "bilinear":
        mode = "linear"
    if mode not in ("nearest", "linear", "cubic"):
        raise ModelError(f"attribute 'mode' cannot be '{mode}'")
    if call.version < 11:
        # opset 10 and Upsample: no choice of coordinates
        return Sampling(mode, "asymmetric", "floor", -0.75, False, False, 0.0)
    return Sampling(
        mode,
        attrs.string("coordinate_transformation_mode", "half_pixel"),
        attrs.string("nearest_mode", "round_prefer_floor"),
        attrs.real("cubic_coeff_a", -0.75),
        attrs.flag("exclude_outside"),
        attrs.flag("antialias") and mode != "nearest",
        attrs.real("extrapolation_value", 0.0),
    )


def declared_scales(call: Call) -> list[float]:
    """The scales of Upsample before opset 9; in opset 1 of the last two axes only."""
    if call.version >= 7:
        return list(call.attrs.reals("scales"))
    return [1.0, 1.0, call.attrs.real("height_scale"), call.attrs.real("width_scale")]
