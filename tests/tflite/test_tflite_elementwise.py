"""Elementwise TFLite operators against LiteRT's reference kernels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_files import Net, check

#: Scale and zero point of data in -3..3, by type.
DETAILS = {
    "int8": {"scale": 6 / 255, "zero": 5},
    "uint8": {"scale": 6 / 255, "zero": 130},
    "int16": {"scale": 3 / 32768, "zero": 0},
    "float32": {},
    "int32": {},
    "bool": {},
}


def one(name, dtypes, output, kind="", shapes=((2, 3, 4),) * 2, details=None, **options):
    """A model of one operator on operands of ``dtypes``; ``details`` are those of the result."""
    net = Net()
    places = [
        net.input(shape, dtype, **DETAILS[dtype])
        for dtype, shape in zip(dtypes, shapes, strict=False)
    ]
    known = DETAILS[output] if details is None else details
    net.outputs = [net.add(np.broadcast_shapes(*shapes[: len(dtypes)]), output, **known)]
    net.operator(name, places, net.outputs, kind, **options)
    return net


BINARY = {"ADD": "AddOptions", "SUB": "SubOptions", "MUL": "MulOptions"}
WIDE = {
    "int8": {"scale": 18 / 255, "zero": -3},
    "uint8": {"scale": 18 / 255, "zero": 127},
    "int16": {"scale": 9 / 32768, "zero": 0},
    "float32": {},
    "int32": {},
}


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("dtype", ["float32", "int32", "int8", "uint8", "int16"])
def test_arithmetic(name, dtype, tmp_path):
    for activation, shapes in enumerate((((2, 3, 4), (2, 3, 4)), ((2, 3, 4), (4,)))):
        net = one(
            name, [dtype, dtype], dtype, BINARY[name], shapes, WIDE[dtype],
            FusedActivationFunction=activation,
        )  # fmt: skip
        check(net, tmp_path)


@settings(max_examples=10, deadline=None)
@given(st.data())
def test_sums_of_any_scale(tmp_path_factory, data):
    net, dtype = Net(), data.draw(st.sampled_from(["int8", "uint8"]))
    info = np.iinfo(dtype)
    tensors = [
        {
            "scale": data.draw(st.floats(2**-13, 2.0, width=32)),
            "zero": data.draw(st.integers(info.min, info.max)),
        }
        for _ in range(3)
    ]
    places = [net.input((40,), dtype, **details) for details in tensors[:2]]
    net.outputs = [net.add((40,), dtype, **tensors[2])]
    name = data.draw(st.sampled_from(["ADD", "MUL", "SUB"]))
    net.operator(
        name, places, net.outputs, BINARY[name],
        FusedActivationFunction=data.draw(st.integers(0, 3)),
    )  # fmt: skip
    check(net, tmp_path_factory.mktemp("sum"), seed=data.draw(st.integers(0, 99)))


ANYWHERE = ["ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "NEG", "ROUND", "SIN", "SIGN", "SQUARE"]
ANYWHERE += ["LOGISTIC", "TANH", "HARD_SWISH", "RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1"]
POSITIVE = ["LOG", "SQRT", "RSQRT"]
OPTIONS = {"ABS": "AbsOptions", "HARD_SWISH": "HardSwishOptions", "SQUARE": "SquareOptions"}


@pytest.mark.parametrize("name", [*ANYWHERE, *POSITIVE])
def test_functions(name, tmp_path):
    low = 0.1 if name in POSITIVE else -3.0
    check(one(name, ["float32"], "float32", OPTIONS.get(name, "")), tmp_path, low=low)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("name", ["RELU", "RELU6", "RELU_N1_TO_1", "HARD_SWISH"])
def test_quantised_functions(name, dtype, tmp_path):
    net = one(name, [dtype], dtype, OPTIONS.get(name, ""), shapes=((2, 200),), details=WIDE[dtype])
    check(net, tmp_path)


@pytest.mark.parametrize(
    ("name", "dtype", "details"),
    [
        ("LOGISTIC", "int8", {"scale": 1 / 256, "zero": -128}),
        ("LOGISTIC", "uint8", {"scale": 1 / 256, "zero": 0}),
        ("TANH", "int8", {"scale": 1 / 128, "zero": 0}),
        ("TANH", "uint8", {"scale": 1 / 128, "zero": 128}),
        ("ELU", "int8", {"scale": 4 / 255, "zero": -64}),
        ("EXP", "int8", {"scale": 20 / 255, "zero": -128}),
        ("ABS", "int8", {"scale": 3 / 255, "zero": -128}),
    ],
)
def test_functions_with_tables(name, dtype, details, tmp_path):
    check(one(name, [dtype], dtype, shapes=((1, 256),), details=details), tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8", "int16"])
def test_leaky_relu(dtype, tmp_path):
    net = one(
        "LEAKY_RELU", [dtype], dtype, "LeakyReluOptions", details=WIDE[dtype], Alpha=0.3
    )
    check(net, tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "int8", "uint8"])
def test_prelu(dtype, tmp_path):
    net, rng = Net(), np.random.default_rng(0)
    x = net.input((1, 3, 3, 5), dtype, **DETAILS[dtype])
    if dtype == "float32":
        alpha = net.constant(rng.uniform(-1, 1, (1, 1, 5)), "float32")
    else:
        stored = rng.integers(0, 100, (1, 1, 5))
        alpha = net.constant(stored, dtype, scale=0.01, zero=3)
    net.outputs = [net.add((1, 3, 3, 5), dtype, **WIDE[dtype])]
    net.operator("PRELU", [x, alpha], net.outputs)
    check(net, tmp_path)


@pytest.mark.parametrize("name", ["DIV", "POW", "FLOOR_DIV", "FLOOR_MOD", "SQUARED_DIFFERENCE"])
def test_float_pairs(name, tmp_path):
    kind = "DivOptions" if name == "DIV" else ""
    net = one(name, ["float32", "float32"], "float32", kind)
    check(net, tmp_path, low=0.5 if name == "POW" else -3.0, tolerance=1e-5)


@pytest.mark.parametrize("name", ["FLOOR_DIV", "FLOOR_MOD", "DIV"])
def test_integer_pairs(name, tmp_path):
    net = one(name, ["int32", "int32"], "int32", "DivOptions" if name == "DIV" else "")
    rng = np.random.default_rng(0)
    a = rng.integers(-20, 21, (2, 3, 4)).astype(np.int32)
    b = rng.choice([-7, -3, -2, -1, 1, 2, 3, 5], (2, 3, 4)).astype(np.int32)
    check(net, tmp_path, inputs=[a, b])


@pytest.mark.parametrize("name", ["MAXIMUM", "MINIMUM"])
@pytest.mark.parametrize("dtype", ["float32", "int32", "int8", "uint8"])
def test_extremes(name, dtype, tmp_path):
    kind = "MaximumMinimumOptions"
    check(one(name, [dtype, dtype], dtype, kind), tmp_path, steps=0)


def test_squared_difference_of_integers(tmp_path):
    details = {"scale": 36 / 255, "zero": -128}
    net = one("SQUARED_DIFFERENCE", ["int8", "int8"], "int8", details=details)
    check(net, tmp_path)


@pytest.mark.parametrize(
    "name", ["EQUAL", "NOT_EQUAL", "LESS", "LESS_EQUAL", "GREATER", "GREATER_EQUAL"]
)
@pytest.mark.parametrize("dtype", ["float32", "int32", "int8"])
def test_comparisons(name, dtype, tmp_path):
    check(one(name, [dtype, dtype], "bool"), tmp_path)


@pytest.mark.parametrize("name", ["LOGICAL_AND", "LOGICAL_OR", "LOGICAL_NOT"])
def test_logic(name, tmp_path):
    count = 1 if name == "LOGICAL_NOT" else 2
    check(one(name, ["bool"] * count, "bool"), tmp_path)


@pytest.mark.parametrize("dtype", ["float32", "int32", "int8"])
def test_select(dtype, tmp_path):
    net = one("SELECT_V2", ["bool", dtype, dtype], dtype, shapes=((3, 1), (4,), (2, 3, 4)))
    check(net, tmp_path)
    net = one("SELECT", ["bool", dtype, dtype], dtype, shapes=((2, 4), (2, 4), (2, 4)))
    check(net, tmp_path)
    net = Net()
    places = [net.input((2,), "bool")]
    places += [net.input((2, 4), dtype, **DETAILS[dtype]) for _ in range(2)]
    net.outputs = [net.add((2, 4), dtype, **DETAILS[dtype])]
    net.operator("SELECT", places, net.outputs)
    check(net, tmp_path)


@pytest.mark.parametrize(
    ("source", "target"),
    [("float32", "int32"), ("int32", "float32"), ("float32", "bool"), ("bool", "float32")],
)
def test_cast(source, target, tmp_path):
    check(one("CAST", [source], target, "CastOptions"), tmp_path)


@pytest.mark.parametrize("target", ["int8", "uint8", "int16"])
@pytest.mark.parametrize("source", ["float32", "int8", "uint8", "int16"])
def test_quantize(source, target, tmp_path):
    if (source, target) == ("int16", "uint8"):
        pytest.skip("LiteRT does not convert these")
    check(one("QUANTIZE", [source], target, "QuantizeOptions", details=WIDE[target]), tmp_path)


@pytest.mark.parametrize("source", ["int8", "uint8", "int16"])
def test_dequantize(source, tmp_path):
    check(one("DEQUANTIZE", [source], "float32", "DequantizeOptions"), tmp_path)


def test_constants_of_half_precision(tmp_path):
    net = Net()
    x = net.input((2, 4))
    held = net.constant(np.linspace(-1, 1, 4), "float16")
    wide, y = net.add((4,)), net.add((2, 4))
    net.operator("DEQUANTIZE", [held], [wide], "DequantizeOptions")
    net.operator("ADD", [x, wide], [y], "AddOptions")
    net.outputs = [y]
    check(net, tmp_path)


def test_gelu(tmp_path):
    for about in (False, True):
        net = one("GELU", ["float32"], "float32", "GeluOptions", Approximate=about)
        check(net, tmp_path, tolerance=1e-5)


def test_add_n(tmp_path):
    check(one("ADD_N", ["float32"] * 3, "float32", shapes=((2, 3),) * 3), tmp_path)
