"""Colour spaces against the formulas of ITU-R BT.601 and BT.709 in float64."""

import numpy as np
import pytest

import aotc

RNG = np.random.default_rng(1)
IMAGE = RNG.integers(0, 256, (4, 6, 3)).astype(np.uint8)
SHARES = {"bt601": (0.299, 0.587, 0.114), "bt709": (0.2126, 0.7152, 0.0722)}


def yuv(image, standard, full):
    """In float64, of 0 to 255."""
    r, g, b = np.moveaxis(image.astype(np.float64), -1, 0)
    red, green, blue = SHARES[standard]
    y = red * r + green * g + blue * b
    u, v = (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)
    if not full:
        y, u, v = 16 + y * 219 / 255, u * 224 / 255, v * 224 / 255
    return np.stack([y, u + 128, v + 128], -1)


@pytest.mark.parametrize("standard", SHARES)
@pytest.mark.parametrize("full", [False, True])
def test_yuv_there_and_back(standard, full):
    expected = yuv(IMAGE, standard, full)
    found = aotc.image.rgb_to_yuv(IMAGE, standard, full)
    assert np.abs(found - np.clip(expected, 0, 255)).max() <= 0.5 + 1e-4
    real = (IMAGE / 255).astype(np.float32)
    in_floats = aotc.image.rgb_to_yuv(real, standard, full)
    np.testing.assert_allclose(in_floats * 255, expected, atol=1e-3)
    back = aotc.image.yuv_to_rgb(in_floats, standard, full)
    np.testing.assert_allclose(back, real, atol=1e-5)
    assert np.abs(aotc.image.yuv_to_rgb(found, standard, full) - IMAGE.astype(int)).max() <= 3


def test_known_colours():
    """White, black and red of video, BT.601."""
    planes = np.uint8([[[235, 128, 128], [16, 128, 128], [81, 90, 240], [255, 128, 128]]])
    found = aotc.image.yuv_to_rgb(planes)[0]
    assert found.tolist() == [[255, 255, 255], [0, 0, 0], [254, 0, 0], [255, 255, 255]]


def test_gray_and_order_of_channels():
    gray = aotc.image.rgb_to_gray(IMAGE)
    assert gray.shape == (4, 6, 1)
    assert np.abs(gray[..., 0] - IMAGE @ np.array(SHARES["bt601"])).max() <= 0.5 + 1e-4
    np.testing.assert_array_equal(aotc.image.gray_to_rgb(gray), np.repeat(gray, 3, -1))
    np.testing.assert_array_equal(aotc.image.rgb_to_bgr(IMAGE), IMAGE[..., ::-1])
    np.testing.assert_array_equal(aotc.image.bgr_to_rgb(IMAGE), IMAGE[..., ::-1])


@pytest.mark.parametrize("order", ["uv", "vu"])
def test_nv12(order):
    """Each pixel has the chroma of its block of four."""
    data = RNG.integers(0, 256, (2, 6, 8)).astype(np.uint8)
    luma, chroma = data[:, :4], data[:, 4:].reshape(2, 2, 4, 2)
    chroma = chroma if order == "uv" else chroma[..., ::-1]
    planes = np.concatenate([luma[..., None], chroma.repeat(2, 1).repeat(2, 2)], -1)
    found = aotc.image.nv12_to_rgb(data, "bt709", order=order)
    np.testing.assert_array_equal(found, aotc.image.yuv_to_rgb(planes, "bt709"))
    compiled = aotc.compile(aotc.trace(lambda x: aotc.image.nv12_to_rgb(x, "bt709"), data))
    if order == "uv":
        np.testing.assert_array_equal(compiled(data), found)


def test_what_does_not_fit():
    for wrong in (
        lambda: aotc.image.rgb_to_gray(IMAGE[..., :2]),
        lambda: aotc.image.gray_to_rgb(IMAGE),
        lambda: aotc.image.rgb_to_yuv(IMAGE, "bt2020"),
        lambda: aotc.image.rgb_to_yuv(IMAGE.astype(np.int16)),
        lambda: aotc.image.nv12_to_rgb(np.zeros((5, 4), np.uint8)),
        lambda: aotc.image.nv12_to_rgb(np.zeros((6, 5), np.uint8)),
        lambda: aotc.image.nv12_to_rgb(np.zeros((6, 4), np.uint8), order="yu"),
    ):
        with pytest.raises(aotc.UsageError):
            wrong()
