"""Random inputs: the same for the same seed, in a range that models accept."""

import numpy as np
import pytest

from aotc.codegen.signature import Param
from aotc.errors import UsageError
from aotc.graph.types import DType, TensorType
from aotc.reference.inputs import make_inputs


def param(name, dtype, *shape):
    return Param(name, name, TensorType(dtype, shape))


@pytest.mark.parametrize("dtype", DType)
def test_every_type_gets_values_of_its_own(dtype):
    made = make_inputs([param("x", dtype, 64, 3)], seed=1)["x"]
    assert made.dtype == dtype.numpy and made.shape == (64, 3)
    again = make_inputs([param("x", dtype, 64, 3)], seed=1)["x"]
    other = make_inputs([param("x", dtype, 64, 3)], seed=2)["x"]
    assert np.array_equal(made, again) and not np.array_equal(made, other)


def test_floats_are_normal_and_never_zero_or_denormal():
    made = make_inputs([param("x", DType.F16, 40_000)], seed=0)["x"]
    assert np.abs(made).min() >= np.finfo(np.float16).tiny
    assert 0.9 < made.astype(np.float32).std() < 1.1


def test_integers_stay_below_the_limit():
    ids = make_inputs([param("ids", DType.I64, 500)], seed=0, id_limit=7)["ids"]
    assert ids.min() == 0 and ids.max() == 6


def test_masks_are_flags_and_never_all_zero():
    for name, dtype in (("attention_mask", DType.I64), ("keep", DType.BOOL)):
        for seed in range(5):
            made = make_inputs([param(name, dtype, 1, 3)], seed)[name]
            assert made.reshape(-1)[0] == 1 and set(np.unique(made)) <= {0, 1}


def test_given_arrays_are_kept_and_must_be_inputs():
    x = np.ones(2, np.float32)
    made = make_inputs([param("x", DType.F32, 2), param("y", DType.F32, 2)], 0, {"x": x})
    assert made["x"] is x and list(made) == ["x", "y"]
    with pytest.raises(UsageError, match="there is no input 'z'"):
        make_inputs([param("x", DType.F32, 2)], 0, {"z": x})


def test_scalars_and_empty_tensors():
    made = make_inputs([param("s", DType.I32), param("e", DType.BOOL, 0, 4)], seed=0)
    assert made["s"].shape == () and made["e"].shape == (0, 4)
