"""Operators whose shapes depend on operands of run time, under declared shapes and bounds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_models import compiled, interpreted, reference, same, saved

from aotc.errors import ModelError, UnsupportedError, UsageError
from aotc.frontend.onnx_reader import import_onnx
from aotc.frontend.ports import pack
from aotc.graph.eval import evaluate

X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def ints(*values):
    return np.asarray(values, dtype=np.int64)


def run(path, inputs, **options):
    """As ONNX Runtime, or UsageError when a check does not hold."""
    wanted = reference(path, inputs)
    same(interpreted(path, inputs, **options), wanted, 1e-5)


CASES = {
    "reshape": ("float[2,3,4] x, int64[3] s => float[4,2,3] y", "y = Reshape(x, s)",
                [ints(4, 2, 3), ints(4, -1, 3), ints(-1, 2, 3)], [ints(2, 4, 3), ints(-1, -1, 3)]),
    "reshape-zero": ("float[2,3,4] x, int64[3] s => float[2,12,1] y", "y = Reshape(x, s)",
                     [ints(0, -1, 1), ints(2, 12, 1)], [ints(0, 0, -1), ints(2, 12, 2)]),
    "expand": ("float[2,3,4] x, int64[4] s => float[5,2,3,4] y", "y = Expand(x, s)",
               [ints(5, 1, 3, 4), ints(5, 2, 1, 1)], [ints(4, 1, 1, 1), ints(5, 2, 3, 2)]),
    "tile": ("float[2,3,4] x, int64[3] s => float[2,9,8] y", "y = Tile(x, s)",
             [ints(1, 3, 2)], [ints(2, 3, 2), ints(1, 3, -1)]),
    "slice": ("float[2,3,4] x, int64[2] s, int64[2] e, int64[2] a, int64[2] t => float[2,2,2] y",
              "y = Slice(x, s, e, a, t)",
              [(ints(0, 1), ints(2, 3), ints(1, 2), ints(1, 1)),
               (ints(-1, -2), ints(-9, -9), ints(-1, 1), ints(-2, -1)),
               (ints(9, 1), ints(1, 2**63 - 1), ints(2, 1), ints(-1, 1))],
              [(ints(0, 0), ints(2, 3), ints(1, 2), ints(1, 1)),
               (ints(0, 1), ints(2, 3), ints(1, 1), ints(1, 1)),
               (ints(0, 1), ints(2, 3), ints(1, 3), ints(1, 1)),
               (ints(0, 1), ints(2, 3), ints(1, 2), ints(0, 1))]),
    "pad-constant": ("float[2,3,4] x, int64[6] p, float v => float[2,5,4] y", "y = Pad(x, p, v)",
                     [(ints(0, 1, 1, 0, 1, -1), np.float32(7)),
                      (ints(-1, 0, 0, 1, 2, 0), np.float32(-1))],
                     [(ints(1, 1, 1, 0, 1, -1), np.float32(7))]),
    "pad-reflect": ("float[2,3,4] x, int64[2] p, int64[1] a => float[2,6,4] y",
                    'y = Pad <mode = "reflect">(x, p, , a)',
                    [(ints(1, 2), ints(1)), (ints(2, 1), ints(-2))], [(ints(1, 2), ints(2))]),
    "pad-edge": ("float[2,3,4] x, int64[6] p => float[3,5,4] y", 'y = Pad <mode = "edge">(x, p)',
                 [ints(1, 2, 2, 0, 0, -2), ints(0, 1, -1, 1, 1, 1)], [ints(0, 0, 0, 0, 0, 0)]),
    "split": ("float[2,3,4] x, int64[2] s => float[2,3,1] y, float[2,3,3] z",
              "y, z = Split <axis = 2>(x, s)", [ints(1, 3)], [ints(3, 1), ints(1, 2)]),
    "sum-one": ("float[2,3,4] x, int64[2] a => float[1,3,1] y", "y = ReduceSum(x, a)",
                [ints(0, 2), ints(-1, 0)], [ints(0, 1), ints(0, 0), ints(0, 3)]),
    "squeeze": ("float[2,3,4] x, int64[1] a => float[2,3,4] y",
                "u = Constant <value_ints = [1]>() w = Unsqueeze(x, u) y = Squeeze(w, a)",
                [ints(1), ints(-3)], [ints(0), ints(4)]),
    "unsqueeze": ("float[2,3,4] x, int64[2] a => float[2,1,1,3,4] y", "y = Unsqueeze(x, a)",
                  [ints(1, 2), ints(-3, 1)], [ints(0, 1), ints(1, 1)]),
    "filled": ("float[2,3,4] x, int64[2] s => float[3,2] y, float[2,3,4] z",
               "y = ConstantOfShape(s) z = Neg(x)", [ints(3, 2)], [ints(2, 3), ints(3, -2)]),
    "range": ("float[2,3,4] x, int64 a, int64 b, int64 c => int64[4] y, float[2,3,4] z",
              "y = Range(a, b, c) z = Neg(x)",
              [(np.int64(0), np.int64(4), np.int64(1)), (np.int64(9), np.int64(1), np.int64(-2))],
              [(np.int64(0), np.int64(5), np.int64(1)), (np.int64(0), np.int64(4), np.int64(0))]),
    "range-float": ("float[2,3,4] x, float a, float b, float c => float[4] y, float[2,3,4] z",
                    "y = Range(a, b, c) z = Neg(x)",
                    [tuple(map(np.float32, (0.5, 2.1, 0.5)))],
                    [tuple(map(np.float32, values))
                     for values in ((0, 9, 1), (0, 1, 0), (np.nan, 1, 1), (0, np.inf, 1))]),
    "top-k": ("float[2,3,4] x, int64[1] k => float[2,3,2] y, int64[2,3,2] z",
              "y, z = TopK <axis = 2>(x, k)", [ints(2)], [ints(3), ints(-1), ints(9)]),
}  # fmt: skip


def feeds(signature, operands):
    inputs = signature.split("=>")[0]
    names = [part.split()[-1] for part in inputs.split(",") if " " in part.strip()]
    values = operands if isinstance(operands, tuple) else (operands,)
    return dict(zip(names, (X, *map(np.asarray, values)), strict=True))


@pytest.mark.parametrize("name", CASES)
def test_a_declared_shape_and_operands_that_agree_with_it_or_not(name, tmp_path):
    signature, body, good, bad = CASES[name]
    inputs, outputs = signature.split("=>")
    path = saved(f"g ({inputs}) => ({outputs}) {{ {body} }}", tmp_path, 18)
    imported = import_onnx(path)
    assert imported.graph.checks
    for operands in good:
        run(path, feeds(signature, operands))
    for operands in bad:
        values = feeds(signature, operands)
        arrays = {}
        for port in imported.ports.inputs:
            arrays.update(pack(port, values[port.name]))
        with pytest.raises(UsageError):
            evaluate(imported.graph, arrays)


def test_equal_axes_are_told_apart_at_run_time(tmp_path):
    text = "g (float[3,3,3] x, int64[1] a) => (float[3,3] y) { y = ReduceSum <keepdims = 0>(x, a) }"
    path = saved(text, tmp_path)
    x = np.random.default_rng(0).standard_normal((3, 3, 3)).astype(np.float32)
    for axis in range(-3, 3):
        run(path, {"x": x, "a": ints(axis)})


@pytest.mark.parametrize(
    "attributes",
    [
        'mode = "nearest"',
        'mode = "linear", coordinate_transformation_mode = "half_pixel_symmetric"',
        'mode = "linear", antialias = 1',
        'mode = "cubic", coordinate_transformation_mode = "pytorch_half_pixel"',
        'mode = "cubic", exclude_outside = 1',
        'mode = "nearest", coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"',
    ],
)
def test_resize_by_scales_of_run_time(attributes, tmp_path):
    body = f"y = Resize <{attributes}>(x, , s)"
    text = f"g (float[1,1,4,6] x, float[4] s) => (float[1,1,7,4] y) {{ {body} }}"
    path = saved(text, tmp_path, 19)
    x = np.random.default_rng(1).standard_normal((1, 1, 4, 6)).astype(np.float32)
    for scales in ((1, 1, 1.75, 0.75), (1, 1, 1.9, 0.67)):
        inputs = {"x": x, "s": np.asarray(scales, np.float32)}
        same(interpreted(path, inputs), reference(path, inputs), 1e-4)
    with pytest.raises(UsageError, match="axis 2"):
        interpreted(path, {"x": x, "s": np.asarray((1, 1, 2, 0.7), np.float32)})


def test_resize_into_a_region_of_run_time(tmp_path):
    text = """g (float[1,1,5,6] x, float[8] r, int64[4] s) => (float[1,1,3,4] y) {
        y = Resize <mode = "linear", coordinate_transformation_mode = "tf_crop_and_resize",
                    extrapolation_value = 9.0>(x, r, , s) }"""
    path = saved(text, tmp_path, 13)
    x = np.random.default_rng(2).standard_normal((1, 1, 5, 6)).astype(np.float32)
    for region in ((0, 0, 0.1, 0.2, 1, 1, 0.9, 0.7), (0, 0, -0.5, 0, 1, 1, 1.5, 1)):
        inputs = {"x": x, "r": np.asarray(region, np.float32), "s": ints(1, 1, 3, 4)}
        same(interpreted(path, inputs), reference(path, inputs), 1e-5)


def test_what_nothing_bounds_is_refused_with_both_remedies(tmp_path):
    path = saved("g (int64 n) => (int64[k] y) { z = Constant <value_int = 0>() "
                 "o = Constant <value_int = 1>() y = Range(z, n, o) }", tmp_path)  # fmt: skip
    with pytest.raises(UnsupportedError, match="(?s)declare the shape of 'y'.*--max y=N"):
        import_onnx(path)
    for count in (0, 3, 8):
        run(path, {"n": np.asarray(count)}, bounds={"y": 8})
    with pytest.raises(UsageError, match="at most 8"):
        interpreted(path, {"n": np.asarray(9)}, bounds={"y": 8})


def test_axes_that_decide_an_undeclared_shape_are_refused(tmp_path):
    text = "g (float[2,3] x, int64[1] a) => (float[?,?] y) { y = ReduceMax(x, a) }"
    path = saved(text, tmp_path, 18)
    with pytest.raises(UnsupportedError, match="declare the shape of 'y'"):
        import_onnx(path)


def test_a_declared_shape_that_cannot_be(tmp_path):
    path = saved("g (float[2,3] x, int64[2] s) => (float[4,2] y) { y = Reshape(x, s) }", tmp_path)
    with pytest.raises(ModelError, match="8 elements"):
        import_onnx(path)


def test_a_declared_shape_holds_through_elementwise_operators(tmp_path):
    text = """g (float[2,3] x, int64[1] a) => (float[2] y) {
        s = ReduceSum <keepdims = 0>(x, a) two = Constant <value_float = 2.0>()
        t = Mul(s, two) y = Exp(t) }"""
    run(saved(text, tmp_path), {"x": X[0, :2, :3] / 9, "a": ints(-1)})


@pytest.fixture(scope="module")
def sliced(tmp_path_factory):
    text = """g (float[3,4] x, int64[2] s, int64[2] e, int64[2] t) => (float[?,?] y) {
        a = Constant <value_ints = [0, 1]>() y = Slice(x, s, e, a, t) }"""
    return import_onnx(saved(text, tmp_path_factory.mktemp("slices"))).graph


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_slices_of_any_operands_are_those_of_numpy(sliced, data):
    size = st.integers(-9, 9)
    starts, ends = data.draw(st.tuples(size, size)), data.draw(st.tuples(size, size))
    steps = data.draw(st.tuples(*[st.sampled_from((-3, -1, 1, 2, 2**62))] * 2))
    picked = [slice(*part) for part in zip(starts, ends, steps, strict=True)]
    for at in range(2):
        # a slice that goes backwards past the first element has no end in numpy's terms
        if steps[at] < 0 and ends[at] < -(3, 4)[at]:
            picked[at] = slice(starts[at], None, steps[at])
    wanted = X[0][tuple(picked)]
    found = evaluate(sliced, {"x": X[0], "s": ints(*starts), "e": ints(*ends), "t": ints(*steps)})
    rows, columns = found["y_shape"]
    assert (rows, columns) == wanted.shape
    np.testing.assert_array_equal(found["y"][:rows, :columns], wanted)


def test_native_code_reports_an_operand_that_does_not_agree(tmp_path):
    path = saved("g (float[2,3] x, int64[2] s) => (float[3,2] y) { y = Reshape(x, s) }", tmp_path)
    x = X[0, :2, :3]
    (y,) = compiled(path, {"x": x, "s": ints(3, -1)})
    np.testing.assert_array_equal(y, x.reshape(3, 2))
    with pytest.raises(Exception, match="OUT_OF_BOUNDS"):
        compiled(path, {"x": x, "s": ints(2, 3)})
