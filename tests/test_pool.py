"""Threads from Python: the same bytes for any number, and clear refusals."""

import numpy as np
import pytest

import aotc
from aotc.pool import Pool
from bench.models import get_model

pytestmark = pytest.mark.requires_cc


@pytest.fixture(scope="module")
def model():
    return aotc.compile(get_model("tiny_kws_dscnn"), threads=True)


def test_any_number_of_threads_gives_the_same_bytes(model):
    x = np.random.default_rng(0).standard_normal((1, 1, 49, 10)).astype(np.float32)
    alone = model(x).tobytes()
    for threads in (1, 2, 3, 8):
        shared = model.with_threads(threads)
        for _ in range(5):
            assert shared(x).tobytes() == alone


def test_a_model_without_the_entry_refuses():
    plain = aotc.compile(get_model("mnist_mlp"))
    with pytest.raises(aotc.UsageError, match="no entry for threads"):
        plain.with_threads(2)


def test_a_pool_needs_a_thread():
    with pytest.raises(aotc.UsageError, match="0 threads"):
        Pool(0)
