"""Folders of samples: arrays and images that fit the model, and one message for each that does not.
"""

import io

import numpy as np
import pytest
from small_nets import make, save_samples

from aotc.errors import UsageError
from aotc.graph.types import DType
from aotc.quantize.images import ImageOptions, read_image
from aotc.quantize.samples import find_samples

ONE = make([("Relu", "x", "y", {})], {}, {"x": [1, 3, None, 4]}, {"y": 4})
TWO = make([("Add", "a,b", "y", {})], {}, {"a": [2], "b": [2]}, {"y": 1})


def test_arrays_come_in_the_order_of_their_files(tmp_path):
    save_samples(tmp_path, 3, (1, 3, 5, 4))
    np.savez(tmp_path / "0a.npz", x=np.zeros((1, 3, 2, 4), np.float32))
    (tmp_path / "notes.txt").write_text("not a sample")
    samples = find_samples(tmp_path, ONE)
    assert [inputs["x"].shape[2] for inputs in samples] == [5, 2, 5, 5]
    assert len(samples) == 4 and len(find_samples(tmp_path, ONE, limit=2)) == 2


def message(folder, model=ONE):
    with pytest.raises(UsageError) as caught:
        list(find_samples(folder, model))
    assert caught.value.remedy
    return str(caught.value)


def test_empty_and_missing_folders(tmp_path):
    assert "no samples in the folder" in message(tmp_path)
    (tmp_path / "readme.txt").write_text("")
    assert "only other files" in message(tmp_path)
    assert "cannot read the folder" in message(tmp_path / "none")


@pytest.mark.parametrize(
    "array, expected",
    [
        (np.zeros((1, 3, 4, 4), np.float64), "element type float64"),
        (np.zeros((1, 3, 4, 5), np.float32), r"shape \[1, 3, 4, 5\], the model takes \[1,3,\?,4\]"),
        (np.zeros((3, 4, 4), np.float32), "shape"),
        (np.full((1, 3, 4, 4), np.nan, np.float32), "NaN"),
        (np.full((1, 3, 4, 4), -np.inf, np.float32), "infinite"),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, array, expected):
    np.save(tmp_path / "0.npy", array)
    with pytest.raises(UsageError, match=expected):
        list(find_samples(tmp_path, ONE))


def test_names_that_do_not_fit(tmp_path):
    values = np.zeros(2, np.float32)
    np.savez(tmp_path / "0.npz", a=values, c=values)
    assert "no input 'c'" in message(tmp_path, TWO)
    np.savez(tmp_path / "0.npz", a=values)
    assert "no array for input 'b'" in message(tmp_path, TWO)
    (tmp_path / "0.npz").unlink()
    np.save(tmp_path / "0.npy", values)
    assert "has 2 inputs, the file holds one array" in message(tmp_path, TWO)


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_damaged_files_and_pickles_are_refused(tmp_path, suffix):
    path = tmp_path / f"0{suffix}"
    path.write_bytes(b"\x93NUMPY\x01\x00garbage")
    assert "cannot read the sample" in message(tmp_path)
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], object), allow_pickle=True)
    path.write_bytes(buffer.getvalue())
    assert "cannot read the sample" in message(tmp_path)


def picture(folder, size=(4, 2), name="p.png"):
    image = pytest.importorskip("PIL.Image")
    pixels = np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(size[1], size[0], 3)
    image.fromarray(pixels).save(folder / name)
    return folder / name, pixels


def test_images_are_normalised_in_the_models_layout(tmp_path):
    path, pixels = picture(tmp_path)
    options = ImageOptions(mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
    found = read_image(path, DType.F32, (1, 3, 2, 4), options)
    expected = (pixels / 255 - [0.5, 0.25, 0]) / [0.5, 1, 2]
    np.testing.assert_allclose(found[0], expected.transpose(2, 0, 1), rtol=1e-6)
    last = read_image(path, DType.F32, (None, 2, 4, 3), ImageOptions(scale=1.0, bgr=True))
    np.testing.assert_array_equal(last[0], pixels[..., ::-1])
    raw = read_image(path, DType.U8, (1, None, None, 3), ImageOptions())
    np.testing.assert_array_equal(raw[0], pixels)


def test_images_are_resized(tmp_path):
    path, _ = picture(tmp_path, name="p.ppm")
    assert read_image(path, DType.F32, (1, 1, 6, 8), ImageOptions()).shape == (1, 1, 6, 8)
    open_size = read_image(path, DType.F32, (1, 3, "h", "w"), ImageOptions(size=(5, 7)))
    assert open_size.shape == (1, 3, 5, 7)


@pytest.mark.parametrize(
    "dtype, shape, options, expected",
    [
        (DType.F32, (1, 3), ImageOptions(), "not one image"),
        (DType.F32, (8, 3, 2, 4), ImageOptions(), "not one image"),
        (DType.F32, (1, 5, 2, 4), ImageOptions(), "1 or 3 channels"),
        (DType.I32, (1, 3, 2, 4), ImageOptions(), "takes int32"),
        (DType.F32, (1, 3, 2, 4), ImageOptions(mean=(0.0, 0.0)), "2 values for 3 channels"),
    ],
)
def test_images_that_do_not_fit(tmp_path, dtype, shape, options, expected):
    path, _ = picture(tmp_path)
    with pytest.raises(UsageError, match=expected):
        read_image(path, dtype, shape, options)


def test_damaged_images_are_refused(tmp_path):
    path, _ = picture(tmp_path)
    path.write_bytes(path.read_bytes()[:40])
    assert "cannot read the image" in message(tmp_path)
