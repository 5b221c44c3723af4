"""Random operators: their distributions, and that the numbers are the documented hash."""

import hashlib
import struct

import numpy as np
import pytest
from onnx_cases import build, case, f32, run_file, save

from aotc.errors import ModelError

MANY = 20000


def draw(one, folder):
    model, feeds = build(one)
    (result,) = run_file(save(model, folder), feeds)
    return result


def splitmix(key, count):
    """The documented generator on Python's integers."""
    numbers = []
    for index in range(count):
        z = (key + (index + 1) * 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
        numbers.append(z ^ z >> 31)
    return numbers


@pytest.mark.parametrize(("number", "digits"), [(1, 24), (11, 53)])
def test_uniform_numbers_are_the_documented_hash(number, digits, tmp_path):
    y = draw(case("RandomUniform", 22, shape=[2, 5], seed=3.0, dtype=number), tmp_path)
    text = b"0:seed:" + struct.pack("<d", 3.0)
    key = int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")
    right = [(bits >> 64 - digits) * 2.0**-digits for bits in splitmix(key, 10)]
    assert y.reshape(-1).tolist() == right


@pytest.mark.parametrize("number", [1, 10, 11])
def test_uniform(number, tmp_path):
    y = draw(
        case("RandomUniform", 1, shape=[MANY], low=-2.0, high=4.0, seed=1.0, dtype=number), tmp_path
    ).astype(np.float64)
    assert y.min() >= -2 and y.max() <= 4
    assert abs(y.mean() - 1) < 0.05
    assert abs(y.var() - 36 / 12) < 0.1


def test_normal(tmp_path):
    y = draw(case("RandomNormal", 1, shape=[MANY], mean=5.0, scale=2.0, seed=7.0), tmp_path)
    assert np.isfinite(y).all()
    assert abs(y.mean() - 5) < 0.1
    assert abs(y.std() - 2) < 0.1
    assert abs((np.abs(y - 5) < 2).mean() - 0.6827) < 0.02


def test_bernoulli(tmp_path):
    p = np.linspace(0, 1, 11, dtype=np.float32)
    y = draw(case("Bernoulli", 15, np.repeat(p, 2000), dtype=6, seed=2.0), tmp_path)
    assert y.dtype == np.int32
    means = y.reshape(11, 2000).mean(axis=1)
    assert means[0] == 0 and means[-1] == 1
    np.testing.assert_allclose(means, p, atol=0.05)


def test_multinomial(tmp_path):
    p = np.array([[0.5, 0.0, 0.25, 0.25], [0.0, 0.0, 0.0, 1.0]], np.float32)
    with np.errstate(divide="ignore"):
        logs = np.log(p) + 3
    y = draw(case("Multinomial", 7, logs, sample_size=MANY, seed=1.0), tmp_path)
    assert (y.dtype, y.shape) == (np.int32, (2, MANY))
    for row, right in zip(y, p, strict=True):
        counts = np.bincount(row, minlength=4) / MANY
        np.testing.assert_allclose(counts, right, atol=0.02)
        assert (counts[right == 0] == 0).all()


def test_like_takes_shape_and_type_of_its_input(tmp_path):
    x = f32(3, 4).astype(np.float64)
    for op in ("RandomUniformLike", "RandomNormalLike"):
        y = draw(case(op, 1, x), tmp_path)
        assert (y.dtype, y.shape) == (np.float64, (3, 4))
        assert draw(case(op, 1, x, dtype=1), tmp_path).dtype == np.float32


def test_the_seed_or_the_name_decides(tmp_path):
    def uniform(**attrs):
        return draw(case("RandomUniform", 1, shape=[8], **attrs), tmp_path).tolist()

    assert uniform(seed=1.0) == uniform(seed=1.0) != uniform(seed=2.0)
    assert uniform(name="a") == uniform(name="a") != uniform(name="b")


def test_numbers_of_a_whole_type_are_refused(tmp_path):
    with pytest.raises(ModelError, match="needs a float type"):
        draw(case("RandomUniform", 1, shape=[2], dtype=7), tmp_path)
