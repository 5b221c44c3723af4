"""TFLite reductions, pooling, softmax, rankings and resizing against LiteRT's reference kernels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_files import Net, check

SCALES = {
    "float32": {},
    "int32": {},
    "bool": {},
    "int8": {"scale": 0.05, "zero": 7},
    "uint8": {"scale": 0.05, "zero": 130},
    "int16": {"scale": 0.001, "zero": 0},
}


def one(name, dtype, shape, output, kind="", constants=(), result=None, details=None, **options):
    """A model of one operator on data and int32 constants."""
    net = Net()
    places = [net.input(shape, dtype, **SCALES[dtype])]
    places += [net.constant(values, "int32") for values in constants]
    result = result or dtype
    net.outputs = [net.add(output, result, **(SCALES[result] if details is None else details))]
    net.operator(name, places, net.outputs, kind, **options)
    return net


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_pooling(tmp_path_factory, data):
    def pair(low, high):
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    size, window, stride = pair(4, 9), pair(1, 4), pair(1, 3)
    name = data.draw(st.sampled_from(["AVERAGE_POOL_2D", "MAX_POOL_2D", "L2_POOL_2D"]))
    dtypes = ["float32"] if name == "L2_POOL_2D" else ["float32", "int8", "uint8", "int16"]
    dtype = data.draw(st.sampled_from(dtypes))
    net = one(
        name, dtype, (2, *size, 3), (2, 1, 1, 3), "Pool2DOptions",
        FilterHeight=window[0], FilterWidth=window[1], StrideH=stride[0], StrideW=stride[1],
        Padding=data.draw(st.integers(0, 1)),
        FusedActivationFunction=data.draw(st.integers(0, 3)),
    )  # fmt: skip
    assert check(net, tmp_path_factory.mktemp("pool"), steps=0) == 0


@pytest.mark.parametrize("name", ["MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN", "REDUCE_PROD"])
@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "int32"])
def test_reductions(name, dtype, tmp_path):
    if (name, dtype) in {("REDUCE_PROD", "int8"), ("REDUCE_PROD", "uint8"), ("MEAN", "int32")}:
        pytest.skip("covered by floats")
    for axes, keep, output in (([1, 2], True, (2, 1, 1, 3)), ([-1], False, (2, 4, 5))):
        details = {"scale": 0.7, "zero": 3} if name == "SUM" and dtype[-1] == "8" else None
        net = one(
            name, dtype, (2, 4, 5, 3), output, "ReducerOptions", [axes], details=details,
            KeepDims=keep,
        )  # fmt: skip
        # the reference kernel of LiteRT 2.3 adds up int8 wrongly, the optimised one does not
        reference = (name, dtype) != ("SUM", "int8")
        steps = 1 if name == "SUM" else 0
        check(net, tmp_path, tolerance=1e-5, reference=reference, steps=steps)


@pytest.mark.parametrize("name", ["REDUCE_ANY", "REDUCE_ALL"])
def test_logical_reductions(name, tmp_path):
    check(one(name, "bool", (4, 3), (4,), "ReducerOptions", [[1]]), tmp_path)


@pytest.mark.parametrize(
    ("dtype", "result", "details"),
    [
        ("float32", "float32", {}),
        ("int8", "int8", {"scale": 1 / 256, "zero": -128}),
        ("uint8", "uint8", {"scale": 1 / 256, "zero": 0}),
        ("int8", "int16", {"scale": 1 / 65536, "zero": -32768}),
    ],
)
@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_softmax(dtype, result, details, beta, tmp_path):
    net = one(
        "SOFTMAX", dtype, (4, 10), (4, 10), "SoftmaxOptions", result=result, details=details,
        Beta=beta,
    )  # fmt: skip
    # 16 bits show the error of the reference's table of exponentials
    check(net, tmp_path, steps=16 if result == "int16" else 1)


@pytest.mark.parametrize(
    ("dtype", "details"), [("float32", {}), ("int8", {"scale": 16 / 256, "zero": 127})]
)
def test_log_softmax(dtype, details, tmp_path):
    net = one("LOG_SOFTMAX", dtype, (4, 10), (4, 10), "LogSoftmaxOptions", details=details)
    check(net, tmp_path)


@pytest.mark.parametrize(
    ("dtype", "details"),
    [
        ("float32", {}),
        ("int8", {"scale": 1 / 128, "zero": 0}),
        ("uint8", {"scale": 1 / 128, "zero": 128}),
    ],
)
def test_l2_normalization(dtype, details, tmp_path):
    net = one("L2_NORMALIZATION", dtype, (4, 10), (4, 10), "L2NormOptions", details=details)
    check(net, tmp_path)


@pytest.mark.parametrize("name", ["ARG_MAX", "ARG_MIN"])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_places_of_extremes(name, dtype, tmp_path):
    kind = "ArgMaxOptions" if name == "ARG_MAX" else "ArgMinOptions"
    net = one(name, dtype, (3, 5, 4), (3, 4), kind, [1], result="int32", OutputType=2)
    check(net, tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "int8", "int32"])
def test_top_k(dtype, tmp_path):
    net = one("TOPK_V2", dtype, (3, 9), (3, 4), "TopKV2Options", [4])
    net.outputs.append(net.add((3, 4), "int32"))
    net.operators[0][2].append(net.outputs[-1])
    check(net, tmp_path, steps=0)


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("reverse", [False, True])
def test_cum_sum(exclusive, reverse, tmp_path):
    net = one(
        "CUMSUM", "float32", (3, 5), (3, 5), "CumsumOptions", [1], Exclusive=exclusive,
        Reverse=reverse,
    )  # fmt: skip
    check(net, tmp_path)


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_resizing(tmp_path_factory, data):
    def pair(low, high):
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    size, wanted = pair(1, 7), pair(1, 12)
    corners, half = data.draw(st.sampled_from([(0, 0), (1, 0), (0, 1)]))
    kind = data.draw(st.sampled_from(["Bilinear", "NearestNeighbor"]))
    dtype = data.draw(st.sampled_from(["float32", "int8", "uint8"]))
    name = "RESIZE_BILINEAR" if kind == "Bilinear" else "RESIZE_NEAREST_NEIGHBOR"
    net = one(
        name, dtype, (2, *size, 3), (2, *wanted, 3), f"Resize{kind}Options", [list(wanted)],
        AlignCorners=corners, HalfPixelCenters=half,
    )  # fmt: skip
    check(net, tmp_path_factory.mktemp("resize"), tolerance=1e-5)


def test_means_of_many_integers(tmp_path):
    net = one("MEAN", "int8", (1, 7, 7, 32), (1, 32), "ReducerOptions", [[1, 2]])
    x = np.random.default_rng(0).integers(-128, 128, (1, 7, 7, 32)).astype(np.int8)
    check(net, tmp_path, inputs=[x], steps=0)
