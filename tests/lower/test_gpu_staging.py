"""Rounding on the way to tensor cores: that of ml_dtypes, and of cvt.rna.tf32.f32."""

import ml_dtypes
import numpy as np
import pytest

from aotc.graph.types import DType
from aotc.loop.eval import run_kernel
from aotc.loop.ir import Buffer, For, Kernel, Load, Store, Var
from aotc.loop.verify import verify_kernel
from aotc.lower.gpu.pipeline import rounded as as_read
from aotc.lower.gpu.staging import padded


def rounded(function, dtype, values):
    """What ``function`` makes of each value."""
    x, y = Buffer("x", DType.F32, values.size), Buffer("y", dtype, values.size)
    i = Var("i")
    loop = For(i, values.size, (Store(y, i, function(Load(x, i))),))
    kernel = Kernel("round", (x, y), frozenset({y}), (loop,))
    verify_kernel(kernel)
    found = np.zeros(values.size, dtype.numpy)
    run_kernel(kernel, [values, found])
    return found


@pytest.fixture
def values():
    random = np.random.default_rng(5)
    bits = random.integers(0, 2**32, 20_000, dtype=np.uint64).astype(np.uint32)
    ties = (bits & np.uint32(0xFFFF0000)) | np.uint32(0x8000)
    special = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, 1e-45], np.float32)
    return np.concatenate([bits.view(np.float32), ties.view(np.float32), special])


def test_bfloat16(values):
    bits = rounded(lambda x: as_read(x, "bf16"), DType.U16, values)
    found = bits.view(ml_dtypes.bfloat16).astype(np.float32)
    with np.errstate(invalid="ignore"):
        wanted = values.astype(ml_dtypes.bfloat16).astype(np.float32)
    numbers = ~np.isnan(values)
    assert np.array_equal(found[numbers].view(np.uint32), wanted[numbers].view(np.uint32))
    assert np.isnan(found[~numbers]).all()


def test_tf32(values):
    found = rounded(lambda x: as_read(x, "tf32"), DType.F32, values)
    finite = np.isfinite(values)
    exact = values[finite].astype(np.float64)
    exponents = np.maximum(np.frexp(exact)[1], -125) - 11  # 11 bits of significand
    steps = np.abs(exact) / np.ldexp(1.0, exponents)
    wanted = np.copysign(np.floor(steps + 0.5) * np.ldexp(1.0, exponents), exact)
    with np.errstate(over="ignore"):
        assert np.array_equal(found[finite], wanted.astype(np.float32))
    assert np.array_equal(found[np.isinf(values)], values[np.isinf(values)])
    assert np.isnan(found[np.isnan(values)]).all()


@pytest.mark.parametrize(("depth", "dtype"), [(32, DType.F32), (32, DType.F16), (64, DType.F16)])
def test_rows_of_a_fragment_meet_all_banks(depth, dtype):
    words = padded(depth, dtype) * dtype.size_bytes // 4
    banks = {(row * words + place) % 32 for row in range(8) for place in range(4)}
    assert len(banks) == 32
