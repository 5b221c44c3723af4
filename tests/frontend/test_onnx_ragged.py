"""Tensors of run-time size: what makes them, the operators on them, and inputs with a range of
sizes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from text_models import agrees, compiled, interpreted, reference, same, saved

import aotc
from aotc.errors import AotcError, UnsupportedError, UsageError
from aotc.frontend.intervals import interval
from aotc.frontend.onnx_reader import import_onnx
from aotc.frontend.ports import RaggedPort, pack
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.types import DType, TensorType

COMPRESSED = "a = Compress <axis = 0>(x, c)"

BODIES = {
    "elementwise": ("float[n,4] y", "b = Exp(a) d = Mul(a, b) y = Sub(d, g)"),
    "matmul": ("float[n,3] y, float[n,n] z, float[4,4] v",
               "y = MatMul(a, w) t = Transpose(a) z = MatMul(a, t) v = MatMul(t, a)"),
    "gemm": ("float[n,4] y", "k = Transpose(w) y = Gemm <transB = 1>(a, h, g) z = Gemm(a, w)"),
    "concat": ("float[m,4] y, float[k,4] z",
               "y = Concat <axis = 0>(a, x, a) s = Constant <value_ints = [1]>() "
               "e = Constant <value_ints = [-1]>() z = Slice(y, s, e)"),
    "reshape": ("float[n,2,2] y, float[k] z, float[2,m] u",
                "s = Constant <value_ints = [-1,2,2]>() y = Reshape(a, s) "
                "o = Constant <value_ints = [-1]>() z = Reshape(a, o) "
                "t = Constant <value_ints = [2,-1]>() u = Reshape(a, t)"),
    "shape": ("int64 y, float[n,4] z, int64[2] s, float[n,4] u",
              "y = Size(a) s = Shape(a) z = ConstantOfShape(s) u = Expand(g, s)"),
    "range": ("int64[n] y", "s = Shape(a) i = Constant <value_int = 0>() n = Gather(s, i) "
              "o = Constant <value_int = 1>() y = Range(i, n, o)"),
    "softmax": ("float[n,4] y, float[n,4] z", "y = Softmax <axis = 0>(a) z = LogSoftmax(a)"),
    "normalise": ("float[n,4] y", "y = LayerNormalization(a, g, g)"),
    "reduce": ("float[4] y, float z, float[n] u, float[1,4] v",
               "o = Constant <value_ints = [0]>() y = ReduceMean <keepdims = 0>(a, o) "
               "z = ReduceSum <keepdims = 0>(a) p = Constant <value_ints = [1]>() "
               "u = ReduceMax <keepdims = 0>(a, p) v = ReduceMin(a, o)"),
    "rank": ("int64[4] y, int64[n] z, float[2,4] u, int64[2,4] v",
             "y = ArgMax <axis = 0, keepdims = 0, select_last_index = 1>(a) "
             "z = ArgMin <axis = 1, keepdims = 0>(a) k = Constant <value_ints = [2]>() "
             "u, v = TopK <axis = 0>(a, k)"),
    "running": ("float[n,4] y", "i = Constant <value_int = 0>() y = CumSum <reverse = 1>(a, i)"),
    "gather": ("float[4] y, float[2,4] z", "i = Constant <value_int = -1>() y = Gather(a, i) "
               "j = Constant <value_ints = [-2,0]>() z = Gather(a, j)"),
    "pad": ("float[n,6] y, float[m,4] z",
            "p = Constant <value_ints = [0,1,0,1]>() y = Pad(a, p) "
            'q = Constant <value_ints = [1,0,2,0]>() z = Pad <mode = "edge">(a, q)'),
    "backwards": ("float[m,4] y", "s = Constant <value_ints = [9]>() "
                  "e = Constant <value_ints = [-99]>() i = Constant <value_ints = [0]>() "
                  "t = Constant <value_ints = [-2]>() y = Slice(a, s, e, i, t)"),
    "axes": ("float[n,1,4] y, float[n,4] z, float[m,8] t, float[n,4] f",
             "o = Constant <value_ints = [1]>() y = Unsqueeze(a, o) z = Squeeze(y, o) "
             "r = Constant <value_ints = [2,2]>() t = Tile(a, r) f = Flatten(a)"),
    "places": ("int64[2,k] y, float[k] z",
               "y = NonZero(a) t = Transpose(y) z = GatherND(a, t)"),
    "where": ("float[n,4] y, float[n,2] u, float[n,2] v",
              "o = Constant <value_float = 0.0>() p = Greater(a, o) q = Neg(a) "
              "y = Where(p, a, q) u, v = Split <axis = 1, num_outputs = 2>(y)"),
}  # fmt: skip

FIXED = {
    "w": np.random.default_rng(5).standard_normal((4, 3)).astype(np.float32),
    "g": np.arange(1, 5, dtype=np.float32),
    "h": np.random.default_rng(6).standard_normal((4, 4)).astype(np.float32),
}


def text_of(name):
    outputs, body = BODIES[name]
    used = [f"float{list(values.shape)} {key}".replace(" ", "", values.ndim - 1)
            for key, values in FIXED.items()]  # fmt: skip
    inputs = ", ".join(["float[5,4] x", "bool[5] c", *used])
    return f"g ({inputs}) => ({outputs}) {{ {COMPRESSED} {body} }}"


def values_of(path, chosen):
    x = np.random.default_rng(len(chosen)).standard_normal((5, 4)).astype(np.float32)
    x[x > 1] = 0
    condition = np.zeros(5, np.bool_)
    condition[list(chosen)] = True
    return {"x": x, "c": condition, **FIXED}


@pytest.mark.parametrize("name", BODIES)
def test_operators_on_a_tensor_of_run_time_size(name, tmp_path):
    path = saved(text_of(name), tmp_path, 18)
    for chosen in ((1, 3), (0, 1, 2, 3, 4), (0, 2, 4)):
        inputs = values_of(path, chosen)
        same(interpreted(path, inputs), reference(path, inputs), 1e-5)


@pytest.mark.parametrize("name", ["concat", "rank"])
def test_native_code_on_a_tensor_of_run_time_size(name, tmp_path):
    path = saved(text_of(name), tmp_path, 18)
    inputs = values_of(path, (1, 3, 4))
    same(compiled(path, inputs), reference(path, inputs), 1e-5)


@pytest.mark.parametrize("name", ["elementwise", "concat", "running"])
def test_nothing_is_left(name, tmp_path):
    path = saved(text_of(name), tmp_path, 18)
    inputs = values_of(path, ())
    same(interpreted(path, inputs), reference(path, inputs))


def test_an_operator_without_a_form_for_run_time_sizes_says_so(tmp_path):
    body = f'{COMPRESSED} y = Einsum <equation = "ab->ab">(a)'
    text = f"g (float[5,4] x, bool[5] c) => (float[n,4] y) {{ {body} }}"
    with pytest.raises(UnsupportedError, match="Einsum is not compiled for"):
        import_onnx(saved(text, tmp_path))


def test_operands_that_do_not_fit_at_run_time(tmp_path):
    text = """g (float[5,4] x, bool[5] c, bool[5] d) => (float[n,4] y) {
        a = Compress <axis = 0>(x, c) b = Compress <axis = 0>(x, d) y = Add(a, b) }"""
    path = saved(text, tmp_path)
    c, d = np.array([1, 0, 1, 0, 0], bool), np.array([0, 0, 0, 1, 1], bool)
    x = np.ones((5, 4), np.float32)
    (y,) = interpreted(path, {"x": x, "c": c, "d": d})
    assert y.shape == (2, 4)
    with pytest.raises(UsageError, match="do not fit together"):
        interpreted(path, {"x": x, "c": c, "d": ~d})


# What makes them.


@pytest.mark.parametrize("shape", [(3, 4), (5,), (2, 0, 3), (1,)])
def test_non_zero(shape, tmp_path):
    dims = ",".join(map(str, shape))
    text = f"g (float[{dims}] x) => (int64[{len(shape)},n] y) {{ y = NonZero(x) }}"
    values = np.random.default_rng(3).integers(0, 2, shape).astype(np.float32)
    agrees(text, tmp_path, {"x": values})


@pytest.mark.parametrize("sort", [0, 1])
@pytest.mark.parametrize("axis", [None, 0, -1])
def test_unique(sort, axis, tmp_path):
    named = "" if axis is None else f", axis = {axis}"
    text = f"""g (int64[4,3] x) => (int64[?,?] y, int64[n] f, int64[m] i, int64[n] k) {{
        y, f, i, k = Unique <sorted = {sort}{named}>(x) }}"""
    text = text.replace("int64[?,?] y", "int64[n] y") if axis is None else text
    path = saved(text, tmp_path)
    for seed in range(3):
        x = np.random.default_rng(seed).integers(0, 2, (4, 3))
        same(interpreted(path, {"x": x}), reference(path, {"x": x}))


def test_unique_takes_nans_for_one(tmp_path):
    path = saved("g (float[4] x) => (float[n] y) { y = Unique(x) }", tmp_path)
    (y,) = interpreted(path, {"x": np.array([np.nan, 2, np.nan, 1], np.float32)})
    np.testing.assert_array_equal(y, [1, 2, np.nan])


def test_compress_with_a_condition_beyond_the_axis(tmp_path):
    text = "g (float[2,2] x, bool[3] c) => (float[n,2] y) { y = Compress <axis = 0>(x, c) }"
    path = saved(text, tmp_path)
    x = np.ones((2, 2), np.float32)
    (y,) = interpreted(path, {"x": x, "c": np.array([0, 1, 0], bool)})
    assert y.shape == (1, 2)
    with pytest.raises(UsageError, match="beyond the end"):
        interpreted(path, {"x": x, "c": np.array([0, 1, 1], bool)})


SUPPRESS = """g (float[2,9,4] b, float[2,3,9] s, int64 m, float o, float t) => (int64[n,3] y) {
    y = NonMaxSuppression <center_point_box = CENTRE>(b, s, m, o, t) }"""


@pytest.mark.parametrize("centre", [0, 1])
def test_non_max_suppression(centre, tmp_path):
    path = saved(SUPPRESS.replace("CENTRE", str(centre)), tmp_path)
    for seed, most in enumerate((1, 3, 20, 0)):
        random = np.random.default_rng(seed)
        inputs = {
            "b": random.random((2, 9, 4)).astype(np.float32),
            "s": random.choice([0.1, 0.3, 0.5, 0.9], (2, 3, 9)).astype(np.float32),
            "m": np.asarray(most),
            "o": np.asarray(0.2 * seed, np.float32),
            "t": np.asarray(0.2, np.float32),
        }
        same(interpreted(path, inputs), reference(path, inputs))


# Inputs with a range of sizes.

ATTENTION = """g (float[b,s,8] x, float[8,8] w, float[20,8] e) => (float[b,s,8] y, float[b,8] p) {
    q = MatMul(x, w) z = Constant <value_int = 0>() o = Constant <value_int = 1>()
    d = Shape(x) b = Gather(d, z) n = Gather(d, o) a = Constant <value_ints = [0]>()
    b1 = Unsqueeze(b, a) n1 = Unsqueeze(n, a) h = Constant <value_ints = [2,4]>()
    t = Concat <axis = 0>(b1, n1, h) r = Reshape(q, t) u = Transpose <perm = [0,2,1,3]>(r)
    v = Transpose <perm = [0,2,3,1]>(r) c = MatMul(u, v) k = Range(z, n, o)
    i = Constant <value_ints = [1]>() row = Unsqueeze(k, i) column = Unsqueeze(k, a)
    mask = LessOrEqual(column, row) low = Constant <value_float = -1.0e9>()
    m = Where(mask, c, low) f = Softmax(m) l = MatMul(f, u) back = Transpose <perm = [0,2,1,3]>(l)
    g0 = Constant <value_ints = [0,0,-1]>() j = Reshape(back, g0) add = Add(j, x)
    ids = Gather(e, k) y = Add(add, ids) p = ReduceMean <keepdims = 0>(y, i) }"""

RANGES = {"b": (1, 3), "s": (1, 20)}


def sequence(batch, length):
    random = np.random.default_rng(length)
    return {
        "x": random.standard_normal((batch, length, 8)).astype(np.float32),
        "w": FIXED["w"].repeat(6).reshape(8, 9)[:, :8].copy(),
        "e": random.standard_normal((20, 8)).astype(np.float32),
    }


@pytest.mark.slow
def test_one_program_for_a_range_of_sizes(tmp_path):
    path = saved(ATTENTION, tmp_path, 18)
    program = aotc.compile(path, dims=RANGES)
    x, *_ = program.ports.inputs
    assert x == RaggedPort(
        "x", TensorType(DType.F32, (3, 20, 8)), "x_shape", (("b", 1, 3), ("s", 1, 20), None)
    )
    assert "first x_shape[i] elements of each axis i" in program.header
    assert "b is from 1 to 3; s is from 1 to 20" in program.header
    for batch, length in ((1, 1), (2, 7), (3, 20)):
        inputs = sequence(batch, length)
        arrays = {key: array for port in program.ports.inputs
                  for key, array in pack(port, inputs[port.name]).items()}  # fmt: skip
        # what lies beyond the sizes is not looked at
        arrays["x"][batch:] = np.nan
        arrays["x"][:, length:] = np.nan
        results = program.run_dict(arrays)
        y, p = reference(path, inputs)
        assert results["y_shape"].tolist() == [batch, length, 8]
        np.testing.assert_allclose(results["y"][:batch, :length], y, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(results["p"][:batch], p, rtol=1e-4, atol=1e-5)
    values = program.run_values(sequence(2, 5))
    same([values["y"]], reference(path, sequence(2, 5))[:1], 1e-5)
    with pytest.raises(UsageError, match="'e' is missing"):
        program.run_values({"x": arrays["x"], "w": arrays["w"]})
    for shape in ((4, 20, 8), (1, 0, 8), (1, 21, 8), (1, 2, 7)):
        arrays["x_shape"] = np.asarray(shape)
        with pytest.raises(AotcError, match="OUT_OF_BOUNDS"):
            program.run_dict(arrays)


def test_inputs_that_share_a_dimension_have_the_same_size(tmp_path):
    text = "g (float[n] x, float[n] y) => (float[n] z) { z = Add(x, y) }"
    path = saved(text, tmp_path)
    three = np.ones(3, np.float32)
    inputs = {"x": three, "y": three}
    (z,) = interpreted(path, inputs, dims={"n": (1, 5)}, input_shapes={})
    np.testing.assert_array_equal(z, [2, 2, 2])
    with pytest.raises(UsageError, match="'n' must be the same"):
        interpreted(path, {**inputs, "y": z[:2]}, dims={"n": (1, 5)}, input_shapes={})
    longer = {"x": np.ones(6, np.float32), "y": z}
    with pytest.raises(UsageError, match="bound"):
        interpreted(path, longer, dims={"n": (1, 5)}, input_shapes={})


@pytest.mark.parametrize("size", [(3, 2), (0, 4), (-1, 4)])
def test_a_range_that_is_none(size, tmp_path):
    path = saved("g (float[n] x) => (float[n] z) { z = Neg(x) }", tmp_path)
    with pytest.raises(UsageError, match="dimension 'n' cannot be"):
        aotc.compile(path, dims={"n": size})


# Bounds.


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.data())
def test_an_interval_holds_every_value(data):
    builder = Builder()
    names = [builder.parameter(f"n{i}", TensorType(DType.I64, ())) for i in range(3)]
    small = st.integers(0, 9)
    limits = {}
    for node in names:
        low = data.draw(small)
        limits[node] = (low, low + data.draw(small))
    pool = [*names, builder.constant(3, DType.I64), builder.constant(-2, DType.I64)]
    for _ in range(4):
        fn = data.draw(st.sampled_from(("add", "sub", "mul", "min", "max", "div")))
        a, b = (data.draw(st.sampled_from(pool)) for _ in range(2))
        pool.append(builder.binary(fn, a, b))
    low, high = interval(pool[-1], limits)
    graph = builder.finish("g", [("y", pool[-1])])
    for _ in range(5):
        chosen = {node.op.name: np.asarray(data.draw(st.integers(*limits[node]))) for node in names}
        value = int(evaluate(graph, chosen)["y"])
        assert (low is None or low <= value) and (high is None or value <= high)
