"""ONNX Resize and Upsample against ONNX Runtime."""

import numpy as np
import pytest
from onnx_cases import Const, case, check, f32, ints

CASES = [
    case("Upsample", 7, f32(1, 2, 3, 4), scales=[1.0, 1.0, 2.0, 3.0], mode="nearest"),
    case("Upsample", 9, f32(1, 2, 3, 4), Const(np.array([1, 1, 2, 3], np.float32)), mode="linear"),
    case("Resize", 10, f32(1, 2, 4, 4), Const(np.array([1, 1, 0.5, 2], np.float32))),
    *(
        case(
            "Resize",
            13,
            f32(1, 1, 4, 5),
            None,
            Const(np.array([1, 1, *scales], np.float32)),
            mode=mode,
            coordinate_transformation_mode=coordinates,
            # ONNX Runtime rounds the length of the result before it aligns the corners
            oracle="onnx" if coordinates == "align_corners" else "ort",
        )
        for scales in ((2, 3), (0.6, 1.7))
        for mode, coordinates in (
            ("nearest", "asymmetric"),
            ("nearest", "half_pixel"),
            ("nearest", "align_corners"),
            ("linear", "half_pixel"),
            ("linear", "asymmetric"),
            ("linear", "align_corners"),
            ("linear", "pytorch_half_pixel"),
            ("cubic", "half_pixel"),
            ("cubic", "align_corners"),
        )
    ),
    *(
        case(
            "Resize",
            13,
            f32(1, 1, 4, 5),
            None,
            None,
            ints(1, 1, 7, 3),
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode=rounding,
        )
        for rounding in ("round_prefer_floor", "round_prefer_ceil", "floor", "ceil")
    ),
    case(
        "Resize",
        13,
        f32(1, 1, 4, 5),
        None,
        Const(np.array([1, 1, 1.5, 1.5], np.float32)),
        mode="cubic",
        exclude_outside=1,
        cubic_coeff_a=-0.5,
    ),
    case(
        "Resize",
        13,
        f32(1, 1, 4, 4),
        Const(np.array([0, 0, 0.2, 0.4, 1, 1, 0.9, 1.3], np.float32)),
        None,
        ints(1, 1, 3, 3),
        mode="linear",
        coordinate_transformation_mode="tf_crop_and_resize",
        extrapolation_value=9.0,
    ),
    case(
        "Resize",
        18,
        f32(1, 1, 40, 6),
        None,
        Const(np.array([0.1, 0.3], np.float32)),
        axes=[2, 3],
        mode="cubic",
        antialias=1,
    ),
    case(
        "Resize",
        18,
        f32(1, 1, 6, 6),
        None,
        Const(np.array([0.5, 0.7], np.float32)),
        axes=[2, 3],
        mode="linear",
        antialias=1,
    ),
    case(
        "Resize",
        18,
        f32(1, 1, 4, 6),
        None,
        None,
        ints(7, 8),
        axes=[2, 3],
        mode="linear",
        keep_aspect_ratio_policy="not_larger",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, tmp_path):
    check(case, tmp_path)
