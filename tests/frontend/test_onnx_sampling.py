"""Sampling at computed places against ONNX Runtime and the ONNX reference."""

import numpy as np
import pytest
from onnx_cases import build, case, check, f32, ints, run_file, save

from aotc.errors import ModelError

GRID = f32(2, 3, 4, 2, low=-1.8, high=1.8, seed=1)
GRID_3D = f32(1, 2, 3, 2, 3, low=-1.5, high=1.5, seed=2)

CASES = [
    *(
        case(
            "GridSample", 20, f32(2, 3, 5, 6), GRID,
            mode=mode, padding_mode=padding, align_corners=align, oracle="onnx",
        )  # fmt: skip
        for mode in ("linear", "nearest", "cubic")
        for padding in ("zeros", "border", "reflection")
        for align in (0, 1)
    ),
    *(
        case("GridSample", 16, f32(2, 3, 5, 6), GRID, mode=mode)
        for mode in ("bilinear", "nearest", "bicubic")
    ),
    *(
        case("GridSample", 20, f32(1, 2, 3, 4, 5), GRID_3D, mode=mode, padding_mode=padding)
        for mode in ("linear", "nearest")
        for padding in ("zeros", "border", "reflection")
    ),
    case("GridSample", 20, f32(1, 2, 1, 1), GRID[:1], align_corners=1, padding_mode="border"),
    case(
        "DeformConv", 19, f32(2, 4, 6, 7), f32(6, 2, 3, 2, seed=1),
        f32(2, 24, 3, 6, seed=2, low=-1, high=1), f32(6), f32(2, 12, 3, 6, seed=3),
        group=2, offset_group=2, strides=[2, 1], pads=[1, 0, 1, 0], oracle="onnx", tolerance=1e-4,
    ),  # fmt: skip
    case(
        "DeformConv", 19, f32(1, 1, 5, 5), f32(1, 1, 2, 2), f32(1, 8, 2, 2), dilations=[3, 3],
        oracle="onnx", tolerance=1e-4,
    ),  # fmt: skip
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_agrees_with_the_reference(case, tmp_path):
    check(case, tmp_path)


def run(one, folder):
    model, feeds = build(one)
    return run_file(save(model, folder), feeds)


def test_what_lies_outside_is_zero_even_beside_infinity(tmp_path):
    image = np.full((1, 1, 2, 2), np.inf, dtype=np.float32)
    (y,) = run(case("GridSample", 16, image, np.full((1, 1, 1, 2), 9, np.float32)), tmp_path)
    assert y.tolist() == [[[[0.0]]]]


def test_nearest_takes_any_numbers(tmp_path):
    image = np.arange(12, dtype=np.int32).reshape(1, 1, 3, 4)
    grid = np.array([-1, -1, 1, 1], np.float32).reshape(1, 1, 2, 2)
    (y,) = run(case("GridSample", 20, image, grid, mode="nearest", align_corners=1), tmp_path)
    assert y.dtype == np.int32
    assert y.reshape(-1).tolist() == [0, 11]


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (case("GridSample", 16, f32(1, 1, 2, 2), f32(1, 2, 2, 3)), "does not address"),
        (case("GridSample", 16, f32(1, 1, 2, 2), GRID), "1 images, but grids for 2"),
        (case("GridSample", 16, f32(1, 1, 2, 2), GRID[:1], mode="best"), "not valid"),
        (case("DeformConv", 19, f32(1, 2, 4, 4), f32(2, 2, 3, 3), f32(1, 8, 2, 2)), "do not fit"),
        (case("DeformConv", 19, f32(1, 2, 4, 4), f32(2, 2, 3, 3), f32(1, 18, 3, 2)), "positions"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_named(one, words, tmp_path):
    with pytest.raises(ModelError, match=words):
        run(one, tmp_path)


AFFINE = [
    case("AffineGrid", 20, f32(2, 2, 3), ints(2, 3, 4, 5), align_corners=align, oracle="onnx")
    for align in (0, 1)
] + [
    case("AffineGrid", 20, f32(1, 3, 4), ints(1, 2, 2, 3, 4), align_corners=align, oracle="onnx")
    for align in (0, 1)
]


@pytest.mark.parametrize("case", AFFINE, ids=str)
def test_affine_grids(case, tmp_path):
    check(case, tmp_path)
