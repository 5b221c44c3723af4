"""Images resized, cut, padded and laid out: against ONNX Runtime's Resize and numpy's formulas, and
in machine code."""

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

import aotc

RNG = np.random.default_rng(0)


def onnx_resize(image, size, mode, antialias):
    """ONNX Runtime's result for float32 [H, W, C]."""
    node = helper.make_node(
        "Resize", ["x", "", "", "sizes"], ["y"], mode=mode, antialias=int(antialias),
        exclude_outside=int(antialias), cubic_coeff_a=-0.5 if antialias else -0.75,
    )  # fmt: skip
    moved = np.moveaxis(image, -1, 0)[None]
    sizes = helper.make_tensor("sizes", TensorProto.INT64, [4], [1, moved.shape[1], *size])
    graph = helper.make_graph(
        [node], "resize", [helper.make_tensor_value_info("x", TensorProto.FLOAT, moved.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], [sizes],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return np.moveaxis(session.run(None, {"x": moved})[0][0], 0, -1)


@pytest.mark.parametrize("size", [(5, 7), (12, 20), (4, 30), (9, 4), (8, 10)])
@pytest.mark.parametrize(
    "mode, antialias",
    [("nearest", False), ("linear", False), ("cubic", False), ("linear", True), ("cubic", True)],
)
def test_resize_is_that_of_onnx(size, mode, antialias):
    image = RNG.random((8, 10, 3)).astype(np.float32)
    found = aotc.image.resize(image, size, mode, antialias)
    expected = onnx_resize(image, size, mode, antialias)
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
    # integers: the same numbers, rounded and held to the range
    whole = (image * 255).astype(np.uint8)
    expected = onnx_resize(whole.astype(np.float32), size, mode, antialias)
    found = aotc.image.resize(whole, size, mode, antialias)
    assert found.dtype == np.uint8
    assert np.abs(found - np.clip(expected, 0, 255)).max() <= 0.5 + 1e-3


def test_area_is_the_mean_of_what_a_pixel_covers():
    image = RNG.random((2, 6, 8, 3)).astype(np.float32)
    halves = image.reshape(2, 3, 2, 2, 4, 3).mean(axis=(2, 4))
    np.testing.assert_allclose(aotc.image.resize(image, (3, 2), "area"), halves, atol=1e-6)
    # 3 pixels to 2: each covers one and a half
    row = np.float32([[[1], [2], [6]]])
    np.testing.assert_allclose(
        aotc.image.resize(row, (1, 2), "area")[0, :, 0], [4 / 3, 14 / 3], rtol=1e-6
    )
    assert aotc.image.resize(row, (1, 6), "area")[0, :, 0].tolist() == [1, 1, 2, 2, 6, 6]


def test_resize_holds_integers_to_their_range():
    edge = np.uint8([[[0], [0], [255], [255]]])
    found = aotc.image.resize(edge, (1, 8), "cubic")[0, :, 0]
    assert found[[0, 1, 2]].max() == 0 and found[[5, 6, 7]].min() == 255


def test_crops():
    image = np.arange(5 * 6 * 2).reshape(5, 6, 2)
    np.testing.assert_array_equal(aotc.image.crop(image, 1, 2, (3, 4)), image[1:4, 2:6])
    np.testing.assert_array_equal(aotc.image.center_crop(image, (2, 2)), image[1:3, 2:4])
    for place in ((2, 1), (9, -4)):
        found = aotc.image.crop(image, *map(np.int32, place), (3, 4))
        top, left = np.clip(place[0], 0, 2), np.clip(place[1], 0, 2)
        np.testing.assert_array_equal(found, image[top : top + 3, left : left + 4])
    with pytest.raises(aotc.UsageError, match="outside axis 0"):
        aotc.image.crop(image, 3, 0, (3, 4))
    with pytest.raises(aotc.UsageError, match="outside axis 1"):
        aotc.image.center_crop(image, (2, 8))


def test_flips_layouts_and_padding():
    image = RNG.integers(0, 256, (2, 5, 6, 3)).astype(np.uint8)
    np.testing.assert_array_equal(aotc.image.flip_horizontal(image), image[:, :, ::-1])
    np.testing.assert_array_equal(aotc.image.flip_vertical(image), image[:, ::-1])
    chw = aotc.image.to_chw(image)
    np.testing.assert_array_equal(chw, image.transpose(0, 3, 1, 2))
    np.testing.assert_array_equal(aotc.image.to_hwc(chw), image)
    padded = aotc.image.pad_to(image, (8, 7), 9)
    expected = np.pad(image, [(0, 0), (1, 2), (0, 1), (0, 0)], constant_values=9)
    np.testing.assert_array_equal(padded, expected)
    with pytest.raises(aotc.UsageError, match="does not fit into"):
        aotc.image.pad_to(image, (4, 6))


def test_normalize():
    image = RNG.integers(0, 256, (4, 5, 3)).astype(np.uint8)
    mean, std = [0.4, 0.5, 0.6], np.float32([0.2, 0.3, 0.4])
    found = aotc.image.normalize(image, mean, std, scale=1 / 255)
    np.testing.assert_allclose(found, (image / 255 - mean) / std, rtol=1e-5, atol=1e-6)
    assert found.dtype == np.float32


def test_letterbox_and_the_way_back():
    image = np.full((40, 80, 3), 200, np.uint8)
    found = aotc.image.letterbox(image, (64, 64))
    assert found.shape == (64, 64, 3)
    rows = np.flatnonzero((found == 200).all(axis=(1, 2)))
    assert (rows[0], rows[-1]) == (16, 47)
    assert (found[:16] == 114).all() and (found[48:] == 114).all()
    boxes = np.float32([[0, 16, 64, 48], [16, 24, 32, 60]])
    back = aotc.image.unletterbox(boxes, (40, 80), (64, 64))
    np.testing.assert_allclose(back, [[0, 0, 80, 40], [20, 10, 40, 40]], rtol=1e-6)


def test_errors_name_the_line_and_the_type():
    for wrong in (
        lambda: aotc.image.resize(np.zeros((4, 4)), (2, 2)),
        lambda: aotc.image.resize(np.zeros((4, 4, 3)), (2, 0)),
        lambda: aotc.image.resize(np.zeros((4, 4, 3)), 2),
        lambda: aotc.image.resize(np.zeros((4, 4, 3)), (2, 2), "lanczos"),
        lambda: aotc.image.resize(np.zeros((4, 4, 3)), (2, 2), "area", True),
        lambda: aotc.image.resize(np.zeros((4, 4, 3), bool), (2, 2)),
        lambda: aotc.image.resize(np.zeros((1, 1, 3)), (2**23, 2)),
    ):
        with pytest.raises(aotc.UsageError) as error:
            wrong()
        assert "test_image_geometry.py" in error.value.where


def test_compiled():
    """One function with most of the above, in machine code and in numpy."""

    def prepare(image):
        small = aotc.image.letterbox(image, (16, 16), mode="cubic", antialias=True)
        part = aotc.image.center_crop(aotc.image.resize(small, (24, 24)), (20, 18))
        x = aotc.image.normalize(aotc.image.flip_horizontal(part), 0.5, 0.25, 1 / 255)
        return part, aotc.image.to_chw(x)[None]

    image = RNG.integers(0, 256, (33, 47, 3)).astype(np.uint8)
    compiled = aotc.compile(aotc.trace(prepare, image))
    expected = prepare(image)
    part, x = compiled(image)
    # a last bit in the sums may decide a rounding
    assert np.abs(part.astype(int) - expected[0].astype(int)).max() <= 1
    assert (part != expected[0]).mean() < 0.02
    np.testing.assert_allclose(x, expected[1], atol=0.02)
