"""Damaged models: whatever changes, reading gives a graph or one of aotc's own errors."""

import copy

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_cases import f32, model_of

from aotc.errors import AotcError
from aotc.frontend.onnx_reader import check_onnx, load_onnx

QUICK = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
THOROUGH = settings(QUICK, max_examples=3000)


def seed_model():
    """A small net that touches convolution, pooling, shapes, slices, a branch and a product."""
    inner = helper.make_graph(
        [helper.make_node("Relu", ["pooled"], ["t"])],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Conv", ["x", "k", "b"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("BatchNormalization", ["c", "b", "b", "b", "v"], ["n"], epsilon=1e-3),
        helper.make_node("MaxPool", ["n"], ["pooled"], kernel_shape=[2, 2], ceil_mode=1),
        helper.make_node("If", ["yes"], ["r"], then_branch=inner, else_branch=inner),
        helper.make_node("Shape", ["r"], ["s"]),
        helper.make_node("Gather", ["s", "i"], ["d"], axis=0),
        helper.make_node("Concat", ["d", "m"], ["t1"], axis=0),
        helper.make_node("Reshape", ["r", "t1"], ["flat"]),
        helper.make_node("Slice", ["flat", "i", "e", "i1", "i1"], ["cut"]),
        helper.make_node("Pad", ["cut", "pads"], ["wide"], mode="reflect"),
        helper.make_node("Gemm", ["wide", "w"], ["g"], transB=1, alpha=0.5),
        helper.make_node("Softmax", ["g"], ["y"], axis=-1),
    ]
    weights = {
        "k": f32(4, 3, 3, 3),
        "b": f32(4, low=0.5),
        "v": f32(4, low=0.5),
        "yes": np.array(True),
        "i": np.array([0]),
        "i1": np.array([1]),
        "m": np.array([-1]),
        "e": np.array([99]),
        "pads": np.array([0, 1, 0, 1]),
        "w": f32(5, 38),
    }
    return model_of(nodes, {"x": f32(1, 3, 8, 8)}, ["y"], weights)


SEED = seed_model()
SEED_BYTES = SEED.SerializeToString()


def read(data, path):
    """Reading ``data`` gives a graph or an AotcError that names the file; checking agrees."""
    path.write_bytes(data)
    try:
        load_onnx(path)
        failed = False
    except AotcError as error:
        assert str(path) in str(error)
        failed = True
    try:
        assert bool(check_onnx(path)) == failed
    except AotcError:
        assert failed


def test_the_seed_itself_is_read(tmp_path):
    path = tmp_path / "m.onnx"
    path.write_bytes(SEED_BYTES)
    assert load_onnx(path).outputs[0][1].shape == (1, 5)


def _byte_edits():
    place = st.integers(0, len(SEED_BYTES) - 1)
    return st.lists(st.tuples(place, st.integers(0, 255)), min_size=1, max_size=4)


def _damage_bytes(edits, cut, path):
    data = bytearray(SEED_BYTES)
    for place, value in edits:
        data[place] = value
    read(bytes(data[: len(data) - cut]), path)


@QUICK
@given(edits=_byte_edits(), cut=st.sampled_from([0, 0, 0, 1, 100]))
def test_damaged_bytes(edits, cut, tmp_path):
    _damage_bytes(edits, cut, tmp_path / "m.onnx")


@pytest.mark.slow
@THOROUGH
@given(edits=_byte_edits(), cut=st.sampled_from([0, 0, 0, 1, 100]))
def test_damaged_bytes_thoroughly(edits, cut, tmp_path):
    _damage_bytes(edits, cut, tmp_path / "m.onnx")


EXTREMES = [1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63)]
NUMBERS = st.sampled_from([0, 1, -1, 2, 7, -8, *EXTREMES])


def _damage_node(data, model):
    """Another operator, operand or attribute value in one node."""
    node = data.draw(st.sampled_from(list(model.graph.node)))
    names = [n for other in model.graph.node for n in (*other.input, *other.output)]
    kind = data.draw(st.sampled_from(["op", "input", "output", "drop", "more", "attribute"]))
    if kind == "op":
        node.op_type = data.draw(st.sampled_from([*sorted({n.op_type for n in model.graph.node}),
                                                  "Expand", "Tile", "Transpose", "TopK", "LSTM",
                                                  "ReduceSum", "ConstantOfShape", "Attention"]))
    elif kind == "input" and node.input:
        place = data.draw(st.integers(0, len(node.input) - 1))
        node.input[place] = data.draw(st.sampled_from([*names, "", "nowhere"]))
    elif kind == "output":
        node.output[0] = data.draw(st.sampled_from([*names, "", "elsewhere"]))
    elif kind == "drop" and node.input:
        node.input.pop()
    elif kind == "more":
        node.input.append(data.draw(st.sampled_from(names)))
    elif node.attribute:
        _damage_attribute(data, data.draw(st.sampled_from(list(node.attribute))))


def _damage_attribute(data, attribute):
    if attribute.type == onnx.AttributeProto.INTS:
        attribute.ints[:] = data.draw(st.lists(NUMBERS, max_size=5))
    elif attribute.type == onnx.AttributeProto.INT:
        attribute.i = data.draw(NUMBERS)
    elif attribute.type == onnx.AttributeProto.FLOAT:
        attribute.f = data.draw(st.sampled_from([0.0, -1.0, float("nan"), float("inf")]))
    else:
        attribute.type = data.draw(st.sampled_from([0, 1, 2, 5, 7]))


def _damage_weights(data, model):
    """Other values or another shape for one initialiser."""
    tensor = data.draw(st.sampled_from(list(model.graph.initializer)))
    if data.draw(st.booleans()):
        tensor.dims[:] = data.draw(st.lists(NUMBERS, max_size=4))
    else:
        values = data.draw(st.lists(NUMBERS, max_size=5))
        tensor.CopyFrom(numpy_helper.from_array(np.array(values, np.int64), tensor.name))


def _damage_input(data, model):
    """Another declared shape or type of the input."""
    kind = model.graph.input[0].type.tensor_type
    if data.draw(st.booleans()):
        kind.elem_type = data.draw(st.integers(0, 30))
    else:
        sizes = data.draw(st.lists(NUMBERS, max_size=5))
        kind.shape.ClearField("dim")
        for size in sizes:
            kind.shape.dim.add(dim_value=size)


def _damage_fields(data, path):
    model = copy.deepcopy(SEED)
    for _ in range(data.draw(st.integers(1, 3))):
        damage = data.draw(st.sampled_from([_damage_node, _damage_weights, _damage_input]))
        damage(data, model)
    read(model.SerializeToString(), path)


@QUICK
@given(data=st.data())
def test_damaged_fields(data, tmp_path):
    _damage_fields(data, tmp_path / "m.onnx")


@pytest.mark.slow
@THOROUGH
@given(data=st.data())
def test_damaged_fields_thoroughly(data, tmp_path):
    _damage_fields(data, tmp_path / "m.onnx")
