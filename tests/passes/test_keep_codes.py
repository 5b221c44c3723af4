"""Weights that are codes in the model stay codes in products: against ONNX Runtime, as it computes
without rewriting the model, and against the same graph with the numbers written out."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from graph_runs import Net
from onnx import TensorProto, helper, numpy_helper

import aotc
from aotc.graph import ops
from aotc.graph.types import DType
from aotc.passes.keep_codes import expand, keep_codes, settle

DEPTH, COLUMNS = 96, 40


def model(nodes, constants, rank=2):
    infos = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", [2] * (rank - 1) + [DEPTH]), ("y", None))
    ]
    graph = helper.make_graph(nodes, "net", infos[:1], infos[1:], constants)
    opset = helper.make_opsetid("", 21)
    return helper.make_model(graph, opset_imports=[opset], ir_version=10)


def dequantized(bits, axis, zero=False, block=0, transposed=False, rank=2):
    """x times a matrix that DequantizeLinear makes of codes."""
    random = np.random.default_rng(0)
    shape = (COLUMNS, DEPTH) if transposed else (DEPTH, COLUMNS)
    low, high = (0, 1 << bits) if zero else (-(1 << (bits - 1)), 1 << (bits - 1))
    kind = {(8, 0): "INT8", (8, 1): "UINT8", (4, 0): "INT4", (4, 1): "UINT4"}[bits, zero]
    dtype = getattr(TensorProto, kind)
    of_scale = list(shape) if block else [shape[axis]]
    if block:
        of_scale[axis] = -(-shape[axis] // block)
    constants = [
        helper.make_tensor("q", dtype, shape, random.integers(low, high, shape).reshape(-1)),
        numpy_helper.from_array(random.uniform(0.1, 1, of_scale).astype(np.float32), "s"),
    ]
    names = ["q", "s"]
    if zero:
        points = random.integers(low, high, of_scale)
        constants.append(helper.make_tensor("z", dtype, of_scale, points.reshape(-1)))
        names.append("z")
    attributes = {"axis": axis} | ({"block_size": block} if block else {})
    nodes = [helper.make_node("DequantizeLinear", names, ["w"], **attributes)]
    if transposed:
        nodes.append(helper.make_node("Gemm", ["x", "w"], ["y"], transB=1))
    else:
        nodes.append(helper.make_node("MatMul", ["x", "w"], ["y"]))
    return model(nodes, constants, rank)


def stored_bytes(compiled):
    return compiled.manifest["weights"]["bytes"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("proto", "bits"),
    [
        (dequantized(8, 1), 8),
        (dequantized(8, 1, zero=True), 8),
        (dequantized(8, 0, transposed=True), 8),
        (dequantized(4, 0, block=32), 4),
        (dequantized(4, 0, zero=True, block=16, rank=3), 4),
        (dequantized(4, 1, block=32, transposed=True), 4),
    ],
    ids=["columns", "zero points", "transposed", "blocks", "batch", "transposed blocks"],
)
def test_dequantized_weights(proto, bits, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(proto, path)
    plain = ort.SessionOptions()
    plain.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    compiled = aotc.compile(path)
    shape = compiled.signature.inputs[0].type.dims
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    (wanted,) = ort.InferenceSession(str(path), plain).run(None, {"x": x})
    np.testing.assert_allclose(compiled(x), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert stored_bytes(compiled) <= DEPTH * COLUMNS * bits / 8 + DEPTH * COLUMNS // 2


def test_scales_across_the_depth_are_no_codes(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(dequantized(8, 0), path)  # a scale for each row of the matrix
    assert stored_bytes(aotc.compile(path)) == 4 * DEPTH * COLUMNS


def chain(net):
    """float32 numbers of constant codes."""
    codes = net.b.cast(net.c(DEPTH, COLUMNS, dtype=DType.I8), DType.F32)
    return net.b.binary("mul", codes, net.c(COLUMNS))


def widens(graph):
    return [node for node in graph.nodes() if isinstance(node.op, ops.Widen)]


def test_what_else_is_read_is_computed():
    net = Net()
    w = chain(net)
    graph = net.graph(net.b.apply(ops.Dot(), net.x(2, DEPTH), w), w)
    assert not widens(keep_codes(graph))


def test_a_look_up_that_a_product_has_become_reads_numbers():
    net = Net()
    (w,) = widens(keep_codes(net.graph(net.b.apply(ops.Dot(), net.x(2, DEPTH), chain(net)))))
    other = Net()
    other.b = type(net.b)()
    parts = [other.b.constant(x.data) for x in w.inputs]
    table = other.b.apply(w.op, *parts)
    rows = other.b.apply(ops.Gather(0), table, other.b.constant(np.array([3, 1])))
    product = other.b.apply(ops.Dot(), other.x(2, DEPTH), table)
    assert len(widens(settle(other.graph(product)))) == 1
    assert not widens(settle(other.graph(rows)))
    assert not widens(expand(other.graph()))
