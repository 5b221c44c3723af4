"""The conformance cases that the onnx package ships: each is computed right or refused by name."""

import warnings

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx_cases import run_file, save

from aotc.errors import UnsupportedError

LEAST_PASSING = 1400
"""Of about 1900 cases in onnx 1.23; the rest need strings, sequences, loops and the like."""

DEVIATIONS = {
    # ONNX divides by the fractional length, ONNX Runtime and aotc by the whole one
    "test_resize_downsample_scales_linear_align_corners",
    "test_resize_downsample_scales_cubic_align_corners",
}


def arrays(values):
    """The values as numpy arrays, or None when one is a sequence or has a type that numpy lacks."""
    result = [np.asarray(v) if isinstance(v, np.generic) else v for v in values]
    plain = all(isinstance(v, np.ndarray) and v.dtype.kind in "biuf" for v in result)
    return result if plain else None


def run_case(model, inputs, folder):
    """The outputs, with as few inputs as possible made constant: none, all but the first, all."""
    names = [info.name for info in model.graph.input]
    for constant in (0, len(names) - 1, len(names)):
        fixed = names[len(names) - constant :]
        copy = onnx.ModelProto()
        copy.CopyFrom(model)
        feeds = dict(zip(names, inputs, strict=False))
        for name in fixed:
            copy.graph.initializer.append(numpy_helper.from_array(feeds.pop(name), name))
        shapes = {name: value.shape for name, value in feeds.items() if value.size}
        try:
            return run_file(save(copy, folder), feeds, input_shapes=shapes)
        except UnsupportedError as error:
            if "run time" not in str(error) or constant == len(names):
                raise
    raise AssertionError("the last round returns or raises")


def outcome(case, folder):
    """'right', 'wrong', 'refused', or 'other' for cases that aotc has no types for."""
    inputs, outputs = (arrays(values) for values in case.data_sets[0])
    if inputs is None or outputs is None:
        return "other"
    try:
        results = run_case(case.model, inputs, folder)
    except UnsupportedError:
        return "refused"
    for result, right in zip(results, outputs, strict=True):
        if (result.dtype, result.shape) != (right.dtype, right.shape):
            return "wrong"
        tolerance = {"rtol": max(case.rtol, 1e-3), "atol": max(case.atol, 1e-5)}
        if not np.allclose(result, right, equal_nan=True, **tolerance):
            return "wrong"
    return "right"


@pytest.mark.slow
def test_every_case_is_right_or_refused(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader = pytest.importorskip("onnx.backend.test.loader")
        cases = [case for case in loader.load_model_tests(kind="node") if case.model is not None]
        outcomes = {case.name: outcome(case, tmp_path) for case in cases}
    wrong = {name for name, result in outcomes.items() if result == "wrong"}
    assert wrong <= DEVIATIONS
    assert list(outcomes.values()).count("right") >= LEAST_PASSING
