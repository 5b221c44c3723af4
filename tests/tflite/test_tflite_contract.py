"""TFLite convolutions and products against LiteRT's reference kernels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_files import Net, check, draw, lite, ours

ACTIVATIONS = range(4)
#: activation type -> (weights, bias)
KINDS = {"int8": ("int8", "int32"), "uint8": ("uint8", "int32"), "int16": ("int8", "int64")}


def _zero(rng, dtype):
    return 0 if dtype == "int16" else int(rng.integers(*_range(dtype)))


def _range(dtype):
    info = np.iinfo(dtype)
    return info.min, info.max + 1


def quantised(net, rng, dtype, shape, channels, axis, output, per_channel=True, reach=20.0):
    """Weights and bias of ``channels`` outputs, and the result: their indices. The data has a scale
    of 0.02; ``reach`` is about the largest real result."""
    weights, bias = KINDS[dtype]
    count = channels if per_channel and weights == "int8" else 1
    scale = rng.uniform(0.001, 0.02, count).astype(np.float32)
    low, high = (-127, 128) if weights == "int8" else (0, 256)
    w = net.constant(
        rng.integers(low, high, shape),
        weights,
        scale=scale,
        zero=0 if weights == "int8" else 120,
        axis=axis,
    )
    b = net.constant(rng.integers(-2000, 2000, channels), bias, scale=scale * np.float32(0.02))
    size = _range(dtype)[1] * 2.0
    y = net.add(output, dtype, scale=reach / size, zero=_zero(rng, dtype))
    return w, b, y


def floats(net, rng, shape, channels, output):
    w = net.constant(rng.uniform(-1, 1, shape), "float32")
    b = net.constant(rng.uniform(-1, 1, channels), "float32")
    return w, b, net.add(output)


def convolution(
    dtype, depthwise, activation, *, seed=0, size=(9, 10), window=(3, 3), stride=(1, 1),
    dilation=(1, 1), same=True, channels=8, outputs=16, per_channel=True, bias=True,
):  # fmt: skip
    """One CONV_2D or DEPTHWISE_CONV_2D."""
    rng, net = np.random.default_rng(seed), Net()
    shape = (1, *window, outputs) if depthwise else (outputs, *window, channels)
    if dtype == "float32":
        x = net.input((2, *size, channels))
        w, b, y = floats(net, rng, shape, outputs, (1, 1, 1, outputs))
    else:
        x = net.input((2, *size, channels), dtype, scale=0.02, zero=_zero(rng, dtype))
        axis = 3 if depthwise else 0
        w, b, y = quantised(
            net, rng, dtype, shape, outputs, axis, (1, 1, 1, outputs), per_channel
        )
    net.outputs = [y]
    options = {"DepthMultiplier": outputs // channels} if depthwise else {}
    net.operator(
        "DEPTHWISE_CONV_2D" if depthwise else "CONV_2D",
        [x, w, b] if bias else [x, w],
        [y],
        "DepthwiseConv2DOptions" if depthwise else "Conv2DOptions",
        Padding=0 if same else 1,
        StrideH=stride[0],
        StrideW=stride[1],
        DilationHFactor=dilation[0],
        DilationWFactor=dilation[1],
        FusedActivationFunction=activation,
        **options,
    )
    return net


@pytest.mark.parametrize("dtype", ["float32", *KINDS])
@pytest.mark.parametrize("depthwise", [False, True])
def test_convolutions(dtype, depthwise, tmp_path):
    for activation in ACTIVATIONS:
        bias = activation != 2 or not depthwise  # LiteRT takes no CONV_2D without one
        net = convolution(dtype, depthwise, activation, seed=activation, bias=bias)
        differ = check(net, tmp_path, tolerance=1e-5)
        # results of 16 bits are rounded once, the reference's twice: one of a thousand differs
        assert differ <= (30 if dtype == "int16" else 0)


def test_a_fused_activation_is_a_range_of_the_stored_integers(tmp_path):
    net = convolution("int8", False, 3)
    zero, scale = net.tensors[net.outputs[0]].zero, net.tensors[net.outputs[0]].scale
    x = np.full((2, 9, 10, 8), 127, np.int8)
    low, high = zero, min(127, zero + round(6 / scale))
    for results in (lite(net.to_bytes(), [x]), ours(net.to_bytes(), [x], tmp_path)):
        assert results[0].min() == low and results[0].max() == high


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_convolutions_of_any_size(tmp_path_factory, data):
    def pair(low, high):
        return data.draw(st.tuples(st.integers(low, high), st.integers(low, high)))

    depthwise = data.draw(st.booleans())
    channels = data.draw(st.integers(1, 5))
    dilation = pair(1, 2)
    dtype = data.draw(st.sampled_from(["float32", *KINDS]))
    net = convolution(
        dtype,
        depthwise,
        data.draw(st.sampled_from(ACTIVATIONS)),
        seed=data.draw(st.integers(0, 99)),
        size=pair(7, 11),
        window=pair(1, 3),
        # the reference takes strides together with dilations for CONV_2D alone
        stride=(1, 1) if max(dilation) > 1 and depthwise else pair(1, 3),
        dilation=dilation,
        same=data.draw(st.booleans()),
        channels=channels,
        outputs=channels * data.draw(st.integers(1, 3)),
        per_channel=data.draw(st.booleans()),
    )
    steps = 1 if dtype == "int16" else 0
    check(net, tmp_path_factory.mktemp("conv"), steps=steps, tolerance=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8"])
def test_a_grouped_convolution(dtype, tmp_path):
    rng, net = np.random.default_rng(0), Net()
    if dtype == "float32":
        x = net.input((1, 5, 5, 6))
        w, b, y = floats(net, rng, (4, 3, 3, 3), 4, (1, 3, 3, 4))
    else:
        x = net.input((1, 5, 5, 6), dtype, scale=0.02, zero=_zero(rng, dtype))
        w, b, y = quantised(net, rng, dtype, (4, 3, 3, 3), 4, 0, (1, 3, 3, 4))
    net.outputs = [y]
    net.operator(
        "CONV_2D", [x, w, b], [y], "Conv2DOptions", Padding=1, StrideH=1, StrideW=1,
        DilationHFactor=1, DilationWFactor=1,
    )  # fmt: skip
    check(net, tmp_path, steps=0)


def test_conv_3d(tmp_path):
    rng, net = np.random.default_rng(0), Net()
    x = net.input((1, 4, 5, 6, 3))
    w, b, y = floats(net, rng, (2, 3, 2, 3, 4), 4, (1, 1, 1, 1, 4))
    net.outputs = [y]
    net.operator(
        "CONV_3D", [x, w, b], [y], "Conv3DOptions", Padding=0, StrideD=1, StrideH=2, StrideW=1,
        DilationDFactor=1, DilationHFactor=1, DilationWFactor=1, FusedActivationFunction=1,
    )  # fmt: skip
    check(net, tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8"])
@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_transpose_conv(dtype, same, stride, tmp_path):
    rng, net = np.random.default_rng(1), Net()
    size, window, outputs = (4, 5), (3, 2), 6
    whole = [
        n * stride if same else (n - 1) * stride + k for n, k in zip(size, window, strict=True)
    ]
    shape = net.constant([1, *whole, outputs], "int32")
    if dtype == "float32":
        x = net.input((1, *size, 4))
        w, b, y = floats(net, rng, (outputs, *window, 4), outputs, (1, *whole, outputs))
    else:
        x = net.input((1, *size, 4), dtype, scale=0.02, zero=_zero(rng, dtype))
        w, b, y = quantised(
            net, rng, dtype, (outputs, *window, 4), outputs, 0, (1, *whole, outputs)
        )
    net.outputs = [y]
    net.operator(
        "TRANSPOSE_CONV", [shape, w, x, b], [y], "TransposeConvOptions",
        Padding=0 if same else 1, StrideH=stride, StrideW=stride,
    )  # fmt: skip
    check(net, tmp_path)


@pytest.mark.parametrize("dtype", ["float32", *KINDS])
@pytest.mark.parametrize("keep", [False, True])
def test_fully_connected(dtype, keep, tmp_path):
    for activation in ACTIVATIONS:
        rng, net = np.random.default_rng(activation), Net()
        output = (2, 3, 10) if keep else (6, 10)
        if dtype == "float32":
            x = net.input((2, 3, 20))
            w, b, y = floats(net, rng, (10, 20), 10, output)
        else:
            x = net.input((2, 3, 20), dtype, scale=0.02, zero=_zero(rng, dtype))
            w, b, y = quantised(net, rng, dtype, (10, 20), 10, 0, output, per_channel=False)
        net.outputs = [y]
        exact = dtype in ("int8", "uint8")
        net.operator(
            "FULLY_CONNECTED", [x, w, b if activation else -1], [y], "FullyConnectedOptions",
            FusedActivationFunction=activation, KeepNumDims=keep,
        )  # fmt: skip
        check(net, tmp_path, steps=0 if exact else 1)


def test_weights_alone_may_be_quantised(tmp_path):
    """Computed in float, not with data rounded to eight bits as LiteRT does."""
    rng, net = np.random.default_rng(0), Net()
    x, scale = net.input((1, 20)), 0.01
    stored = rng.integers(-127, 128, (10, 20)).astype(np.int8)
    w, y = net.constant(stored, scale=scale), net.add((1, 10))
    net.outputs = [y]
    net.operator("FULLY_CONNECTED", [x, w, -1], [y], "FullyConnectedOptions")
    data = draw(net.tensors[x])
    (found,) = ours(net.to_bytes(), [data], tmp_path)
    expected = data.astype(np.float64) @ (stored.T * np.float64(scale))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize("adjoint", [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_batch_matmul(adjoint, dtype, tmp_path):
    net = Net()
    details = {} if dtype == "float32" else {"scale": 0.02, "zero": 3}
    x = net.input((2, 4, 3) if adjoint[0] else (2, 3, 4), dtype, **details)
    y = net.input((2, 5, 4) if adjoint[1] else (2, 4, 5), dtype, **details)
    details = {} if dtype == "float32" else {"scale": 0.15, "zero": -5}
    net.outputs = [net.add((2, 3, 5), dtype, **details)]
    net.operator(
        "BATCH_MATMUL", [x, y], net.outputs, "BatchMatMulOptions", AdjX=adjoint[0], AdjY=adjoint[1]
    )
    check(net, tmp_path)


@pytest.mark.parametrize("factor", [2.0**-40, 2.0**-12, 0.75, 1.0, 3.7])
@pytest.mark.parametrize("name", ["CONV_2D", "FULLY_CONNECTED"])
def test_scales_of_any_size(name, factor, tmp_path):
    """Fixed-point factors that shift to the right, not at all, to the left, or leave nothing."""
    rng, net, spatial = np.random.default_rng(0), Net(), (4, 4) if name == "CONV_2D" else ()
    x = net.input((5, *spatial, 3), "int8", scale=0.5, zero=3)
    low, high = (-127, 128) if factor < 0.1 else (-3, 4)
    weights = rng.integers(low, high, (6, *(1 for _ in spatial), 3))
    w = net.constant(weights, "int8", scale=factor)
    b = net.constant(rng.integers(-9, 10, 6), "int32", scale=0.5 * factor)
    net.outputs = [net.add((5, *spatial, 6), "int8", scale=0.5, zero=-7)]
    one = dict.fromkeys(("StrideH", "StrideW", "DilationHFactor", "DilationWFactor"), 1)
    kind, options = ("Conv2DOptions", one) if spatial else ("FullyConnectedOptions", {})
    net.operator(name, [x, w, b], net.outputs, kind, **options)
    check(net, tmp_path, steps=0)
