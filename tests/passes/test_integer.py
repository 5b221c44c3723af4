"""Quantised products become products of codes: the same values, in integers."""

import io

import numpy as np
import onnx
import onnxruntime
import pytest
from quantized_nets import QuantizedNet, image_net, matrix_net

import aotc
from aotc.graph import ops
from aotc.graph.build import Builder
from aotc.graph.eval import evaluate
from aotc.graph.text import print_graph
from aotc.graph.types import DType, TensorType
from aotc.passes.cleanup import cleanup
from aotc.passes.integer import integer


def imported(model, tmp_path):
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    return aotc.load_onnx(path)


def reference(model, inputs):
    """What ONNX Runtime makes of the model as it is written."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    file = io.BytesIO()
    onnx.save(model, file)
    return onnxruntime.InferenceSession(file.getvalue(), options).run(None, inputs)[0]


def products(graph):
    return [node for node in graph.nodes() if isinstance(node.op, (ops.Conv, ops.Dot))]


NETS = {
    "image": (lambda seed: image_net(seed), (1, 3, 9, 11), 0.05),
    "signed": (lambda seed: image_net(seed, np.int8), (1, 3, 9, 11), 0.05),
    "matrix": (lambda seed: matrix_net(seed), (5, 13), 0.2),
}


@pytest.mark.parametrize(
    "name", ["matrix", *(pytest.param(net, marks=pytest.mark.slow) for net in ("image", "signed"))]
)
@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_every_product_is_of_codes_and_within_a_step(name, seed, tmp_path):
    make, shape, step = NETS[name]
    model = make(seed)
    graph = integer(imported(model, tmp_path))
    assert products(graph) and all(node.type.dtype is DType.I32 for node in products(graph))
    x = {"x": np.random.default_rng(seed).normal(0, 1, shape).astype(np.float32)}
    wanted = reference(model, x)
    (found,) = evaluate(graph, x).values()
    assert np.abs(found - wanted).max() <= step * 1.001
    signed = integer(imported(model, tmp_path), DType.I8)
    np.testing.assert_array_equal(next(iter(evaluate(signed, x).values())), found)
    native = aotc.compile(tmp_path / "net.onnx")
    np.testing.assert_array_equal(next(iter(native.run_dict(x).values())), found)


@pytest.mark.parametrize("codes", [DType.U8, DType.I8])
@pytest.mark.parametrize(
    "activation", [np.uint8, pytest.param(np.int8, marks=pytest.mark.slow)]
)
def test_only_codes_of_the_type_that_is_multiplied_are_stored(codes, activation, tmp_path):
    graph = cleanup(integer(imported(image_net(0, activation), tmp_path), codes))
    rounded = [x for x in graph.nodes() if x.op in (ops.Cast(DType.U8), ops.Cast(DType.I8))]
    of_floats = [x for x in rounded if x.inputs[0].type.dtype is DType.F32]
    # what the model is given may be NaN, which is code 0 in the type that the model says
    given = DType.of(np.zeros(1, activation))
    assert len(of_floats) > 3
    assert [x.type.dtype for x in of_floats if x.type.dtype is not codes] in ([], [given])


def quantized(builder, codes, scale, zero):
    number = builder.cast(codes, DType.F32)
    return apply(builder, apply(builder, number, "sub", zero), "mul", scale)


def apply(builder, x, fn, number):
    constant = builder.constant(np.full((1,) * x.type.rank, number, np.float32))
    return builder.binary(fn, x, constant)


def codes_of(builder, x, scale, zero):
    value = builder.unary("round", apply(builder, x, "div", scale))
    for fn, number in (("add", zero), ("max", 0.0), ("min", 255.0)):
        value = apply(builder, value, fn, number)
    return builder.cast(value, DType.U8)


def dense(scales, weights=None, shape=(2, 3)):
    """Codes times quantised weights [3, 2] with ``scales``, to codes."""
    b = Builder()
    x = quantized(b, b.parameter("x", TensorType(DType.U8, shape)), 0.5, 3)
    codes = np.array([[1, -2], [3, 4], [-5, 6]], np.int8) if weights is None else weights
    w = b.binary("mul", b.cast(b.constant(codes), DType.F32), b.constant(scales))
    y = codes_of(b, b.apply(ops.Dot(), x, w), 2.0, 10)
    return b.finish("dense", [("y", y)])


def test_a_product_of_codes_as_text():
    graph = integer(dense(np.array([[1.0, 0.25]], np.float32)))
    assert print_graph(cleanup(graph)) == (
        'graph "dense"\n'
        '%0 = parameter "x" : uint8[2,3]\n'
        "%1 = cast(%0, dtype=int32) : int32[2,3]\n"
        "%2 = constant [1, -2, 3, 4, -5, 6] : int32[3,2]\n"
        "%3 = dot(%1, %2) : int32[2,2]\n"
        "%4 = constant [3, -24] : int32[1,2]\n"
        "%5 = broadcast(%4, shape=(2, 2)) : int32[2,2]\n"
        '%6 = binary(%3, %5, fn="add") : int32[2,2]\n'
        "%7 = cast(%6, dtype=float32) : float32[2,2]\n"
        "%8 = constant [0.25, 0.0625] : float32[1,2]\n"
        "%9 = broadcast(%8, shape=(2, 2)) : float32[2,2]\n"
        '%10 = binary(%7, %9, fn="mul") : float32[2,2]\n'
        '%11 = unary(%10, fn="round") : float32[2,2]\n'
        "%12 = constant [10.0] : float32[1,1]\n"
        "%13 = broadcast(%12, shape=(2, 2)) : float32[2,2]\n"
        '%14 = binary(%11, %13, fn="add") : float32[2,2]\n'
        "%15 = constant [0.0] : float32[1,1]\n"
        "%16 = broadcast(%15, shape=(2, 2)) : float32[2,2]\n"
        '%17 = binary(%14, %16, fn="max") : float32[2,2]\n'
        "%18 = constant [255.0] : float32[1,1]\n"
        "%19 = broadcast(%18, shape=(2, 2)) : float32[2,2]\n"
        '%20 = binary(%17, %19, fn="min") : float32[2,2]\n'
        "%21 = cast(%20, dtype=uint8) : uint8[2,2]\n"
        'return "y" = %21\n'
    )


@pytest.mark.parametrize(
    "scales, weights",
    [
        (np.array([[1.0], [2.0], [1.0]], np.float32), None),  # changes within a sum
        (np.array([[0.0, 1.0]], np.float32), None),
        (np.array([[np.inf, 1.0]], np.float32), None),
        (np.array([[-1.0, 1.0]], np.float32), None),
    ],
    ids=["along the depth", "zero", "infinite", "negative"],
)
def test_scales_and_weights_that_sums_of_codes_cannot_have(scales, weights):
    graph = integer(dense(scales, weights))
    assert all(node.type.dtype is DType.F32 for node in products(graph))
    x = {"x": np.arange(6, dtype=np.uint8).reshape(2, 3)}
    before = evaluate(dense(scales, weights), x)
    np.testing.assert_array_equal(evaluate(graph, x)["y"], before["y"])


def two_nets(kind, zeros, transposed):
    """A product of codes [2, 5, 3] with codes of ``kind`` [2, 3, 4], or their transposition."""
    b = Builder()
    x = quantized(b, b.parameter("x", TensorType(DType.U8, (2, 5, 3))), 0.5, zeros[0])
    shape = (2, 4, 3) if transposed else (2, 3, 4)
    y = quantized(b, b.parameter("y", TensorType(kind, shape)), 0.25, zeros[1])
    y = b.transpose(y, (0, 2, 1)) if transposed else y
    return b.finish("two", [("z", codes_of(b, b.apply(ops.Dot(), x, y), 2.0, 10))])


@pytest.mark.parametrize(
    "kind, zeros", [(DType.U8, (3, 250)), (DType.U8, (0, 128)), (DType.I8, (128, -7))]
)
@pytest.mark.parametrize("transposed", [False, True])
def test_products_of_two_computed_tensors(kind, zeros, transposed):
    graph = two_nets(kind, zeros=zeros, transposed=transposed)
    after = integer(graph)
    assert [node.type.dtype for node in products(after)] == [DType.I32]
    random = np.random.default_rng(0)
    low, high = kind.int_range
    shapes = {"x": (0, 256, (2, 5, 3)), "y": (low, high + 1, graph.inputs[1].shape)}
    x = {
        name: random.integers(first, last, shape).astype(kind.numpy if name == "y" else np.uint8)
        for name, (first, last, shape) in shapes.items()
    }
    np.testing.assert_array_equal(evaluate(after, x)["z"], evaluate(graph, x)["z"])


def test_constant_codes_beyond_int8_lose_what_int8_cannot_hold():
    weights = np.array([[200, 3], [255, 0], [1, 128]], np.uint8)
    graph = dense(np.array([[0.5, 0.5]], np.float32), weights)
    after = integer(graph)
    assert [node.type.dtype for node in products(after)] == [DType.I32]
    x = {"x": np.arange(6, dtype=np.uint8).reshape(2, 3)}
    np.testing.assert_array_equal(evaluate(after, x)["y"], evaluate(graph, x)["y"])


def test_a_bias_of_whole_steps_joins_the_sums(tmp_path):
    net = QuantizedNet()
    x = net.requantized("x", 0.5)
    codes, scale = np.ones((4, 2), np.int8), np.float32(0.25)
    w = net.node("DequantizeLinear", net.constant(codes), net.constant(scale))
    grid = net.constant(np.array([3, -5], np.int32)), net.constant(np.float32(0.125))
    y = net.node("Add", net.node("MatMul", x, w), net.node("DequantizeLinear", *grid))
    model = net.model({"x": (3, 4)}, net.requantized(y, 0.5), (3, 2))
    graph = integer(imported(model, tmp_path))
    assert not any(
        node.op == ops.Binary("add") and node.type.dtype is DType.F32
        for node in cleanup(graph).nodes()
        if node.shape == (3, 2) and isinstance(node.inputs[0].op, ops.Binary)
    )
    x = {"x": np.linspace(-4, 4, 12, dtype=np.float32).reshape(3, 4)}
    np.testing.assert_array_equal(evaluate(graph, x).popitem()[1], reference(model, x))


def test_codes_that_only_move_stay_codes():
    b = Builder()
    x = quantized(b, b.parameter("x", TensorType(DType.U8, (2, 3))), 0.5, 3)
    y = codes_of(b, b.transpose(x, (1, 0)), 0.5, 3.0)
    graph = integer(b.finish("g", [("y", y)]))
    assert graph.outputs[0][1].op == ops.Transpose((1, 0))
    assert graph.outputs[0][1].inputs[0] is graph.inputs[0]


def test_graphs_without_codes_are_returned_as_they_are():
    b = Builder()
    graph = b.finish("g", [("y", b.unary("abs", b.parameter("x", TensorType(DType.F32, (2,)))))])
    assert integer(graph) is graph


@pytest.mark.slow
@pytest.mark.parametrize("codes", [np.uint8, np.int8])
@pytest.mark.parametrize("kind", ["QLinearConv", "ConvInteger", "QLinearMatMul", "MatMulInteger"])
def test_products_of_integers_are_exact_and_of_bytes(kind, codes, tmp_path):
    random = np.random.default_rng(3)
    image, low = "Conv" in kind, -128 if codes is np.int8 else 0
    shape, weights = ((1, 8, 7, 5), (16, 8, 3, 3)) if image else ((6, 20), (20, 16))
    net = QuantizedNet()
    w = net.constant(random.integers(-127, 128, weights).astype(np.int8))
    point, none = net.constant(codes(low + 130)), net.constant(np.int8(0))
    if kind.startswith("QLinear"):
        scales = [net.constant(np.float32(value)) for value in (0.02, 0.003, 0.05)]
        operands = ["x", scales[0], point, w, scales[1], none, scales[2], point]
    else:
        operands = ["x", w, point, none]
    y = net.node(kind, *operands, **({"pads": [1, 1, 1, 1]} if image else {}))
    model = net.model({"x": shape}, y, [None] * len(shape))
    model.graph.input[0].type.tensor_type.elem_type = onnx.TensorProto.INT8 if low else 2
    result = onnx.TensorProto.INT32 if "Integer" in kind else onnx.TensorProto.UINT8 + (low < 0)
    model.graph.output[0].type.tensor_type.elem_type = result
    graph = integer(imported(model, tmp_path))
    assert any(
        isinstance(node.op, (ops.Conv, ops.Dot)) and node.inputs[0].op == ops.Cast(DType.I32)
        for node in graph.nodes()
    )
    x = {"x": random.integers(low, low + 256, shape).astype(codes)}
    native = aotc.compile(tmp_path / "net.onnx")
    np.testing.assert_array_equal(next(iter(native.run_dict(x).values())), reference(model, x))


def dynamic_net(kind, weights_zero=0, **attributes):
    """What ONNX Runtime's dynamic quantisation makes of a product or a convolution."""
    random = np.random.default_rng(1)
    net = QuantizedNet()
    codes, scale, point = (net.node("DynamicQuantizeLinear", "x"), "scale", "point")
    net.nodes[-1].output.extend([scale, point])
    shape = (6, 3, 3, 2) if kind == "ConvInteger" else (8, 6)
    low = -127 if weights_zero == 0 else 0
    signed = np.int8 if weights_zero == 0 else np.uint8
    w = net.constant(random.integers(low, low + 255, shape).astype(signed))
    sums = net.node(kind, codes, w, point, net.constant(signed(weights_zero)), **attributes)
    factor = net.node("Mul", scale, net.constant(np.float32(0.01)))
    y = net.node("Mul", net.node("Cast", sums, to=onnx.TensorProto.FLOAT), factor)
    dims = (2, 3, 9, 7) if kind == "ConvInteger" else (5, 8)
    return net.model({"x": dims}, y, [None] * len(dims)), dims


@pytest.mark.parametrize(
    "kind, zero, attributes",
    [
        pytest.param("MatMulInteger", 0, {}, marks=pytest.mark.slow),
        ("MatMulInteger", 130, {}),
        pytest.param("ConvInteger", 0, {"pads": [1, 0, 2, 1]}, marks=pytest.mark.slow),
        ("ConvInteger", 0, {"pads": [1, 1, 1, 1], "strides": [2, 1], "dilations": [1, 2]}),
    ],
)
def test_zero_points_known_at_run_time(kind, zero, attributes, tmp_path):
    model, dims = dynamic_net(kind, zero, **attributes)
    graph = integer(imported(model, tmp_path))
    (product,) = products(graph)
    left, right = (x.op for x in product.inputs)
    assert left == ops.Cast(DType.I32)  # the codes as they are
    assert right == ops.Cast(DType.I32) or product.inputs[1].data is not None
    x = {"x": np.random.default_rng(2).normal(0.3, 1, dims).astype(np.float32)}
    wanted = reference(model, x)
    np.testing.assert_allclose(evaluate(graph, x).popitem()[1], wanted, rtol=1e-6)
    native = aotc.compile(tmp_path / "net.onnx")
    np.testing.assert_allclose(next(iter(native.run_dict(x).values())), wanted, rtol=1e-6)


def test_terms_too_small_to_matter_do_not_become_subnormal(tmp_path):
    """A sum of a large and a tiny quantised tensor, as masks of attention make it."""
    net = QuantizedNet()
    tiny, huge = net.requantized("x", 0.02), net.requantized("m", 1e36, 255)
    y = net.requantized(net.node("Add", tiny, huge), 1e36, 255)
    model = net.model({"x": (4, 8), "m": (4, 8)}, y, (4, 8))
    graph = cleanup(integer(imported(model, tmp_path)))
    steps = [node.data for node in graph.nodes() if node.data is not None]
    assert all((np.abs(data[data != 0]) >= 2.0**-100).all() for data in steps)
    random = np.random.default_rng(0)
    x = {"x": random.normal(0, 1, (4, 8)).astype(np.float32)}
    x["m"] = np.where(random.random((4, 8)) < 0.5, -3e38, 0).astype(np.float32)
    np.testing.assert_array_equal(evaluate(graph, x).popitem()[1], reference(model, x))
