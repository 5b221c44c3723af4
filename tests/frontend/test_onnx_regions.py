"""Pooling over regions against ONNX Runtime and the ONNX reference."""

import numpy as np
import pytest
from onnx_cases import build, case, check, f32, run_file, save

from aotc.errors import ModelError

X = f32(2, 3, 9, 8)
REGIONS = np.array(
    [[0, 0, 4, 4], [1.5, 2.5, 7.5, 8], [6, 3, 6.2, 3.1], [-3, -2, 12, 15], [4, 5, 3, 2]],
    np.float32,
)
IMAGES = np.array([0, 1, 1, 0, 1])
POOLED = np.array(
    [[0, 0, 0, 4, 4], [1, 1.5, 2.5, 7.4, 8], [1, 6, 3, 6, 3], [0, -3, -2, 12, 15],
     [0, 30, 30, 40, 40]],
    np.float32,
)  # fmt: skip

CASES = [
    *(
        case(
            "RoiAlign", 16, X, REGIONS, IMAGES, output_height=3, output_width=2, mode=mode,
            sampling_ratio=ratio, spatial_scale=0.75, coordinate_transformation_mode=coordinates,
            oracle="onnx",
        )  # fmt: skip
        for mode in ("avg", "max")
        for ratio in (0, 2, 5)
        for coordinates in ("half_pixel", "output_half_pixel")
    ),
    case("RoiAlign", 10, X, REGIONS[:4], IMAGES[:4], output_height=2, sampling_ratio=2),
    case("RoiAlign", 10, X, REGIONS[:4], IMAGES[:4], output_height=2, output_width=3),
    *(
        case("MaxRoiPool", 1, X, POOLED, pooled_shape=list(size), spatial_scale=scale)
        for size in ((1, 1), (3, 2), (6, 7))
        for scale in (1.0, 0.5)
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, tmp_path):
    check(case, tmp_path)


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (case("RoiAlign", 16, X, REGIONS, IMAGES[:2]), "images"),
        (case("RoiAlign", 16, X, REGIONS[:, :3], IMAGES), "needs regions"),
        (case("RoiAlign", 16, X, REGIONS, IMAGES, mode="min"), "not valid"),
        (case("MaxRoiPool", 1, X, REGIONS, pooled_shape=[1, 1]), "needs regions"),
        (case("MaxRoiPool", 1, X, POOLED, pooled_shape=[0, 1]), "1 or more"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(one, words, tmp_path):
    model, feeds = build(one)
    with pytest.raises(ModelError, match=words):
        run_file(save(model, tmp_path), feeds)
