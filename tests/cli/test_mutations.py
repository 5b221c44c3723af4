"""Damaged models: whatever is changed, a clean error or a correct compile, never a crash."""

import contextlib
import io
import tempfile
from pathlib import Path

import numpy as np
import onnx
import pytest
from graph_runs import for_all
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from small_models import save, value, weight

import aotc
from aotc.cli import main
from aotc.graph.eval import evaluate
from aotc.reference.compare import compare_outputs
from aotc.reference.inputs import make_inputs


def valid_model():
    """A little of everything: convolution, pool, shape arithmetic, product, reduction, gather."""
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2], name="conv"),
        node("Relu", ["c"], ["r"], name="relu"),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2], name="pool"),
        node("Shape", ["p"], ["s"], name="shape"),
        node("Gather", ["s", "zero"], ["n"], axis=0, name="batch"),
        node("Concat", ["n", "minus"], ["t"], axis=0, name="sizes"),
        node("Reshape", ["p", "t"], ["f"], name="flat"),
        node("MatMul", ["f", "m"], ["g"], name="dense"),
        node("Softmax", ["g"], ["y"], axis=-1, name="soft"),
        node("ReduceMean", ["g"], ["z"], axes=[1], keepdims=0, name="mean"),
    ]
    weights = [
        weight("w", 3, 2, 3, 3),
        weight("m", 12, 5),
        numpy_helper.from_array(np.array([0]), "zero"),
        numpy_helper.from_array(np.array([-1]), "minus"),
    ]
    with tempfile.TemporaryDirectory() as folder:
        outputs = [value("y", 1, 5), value("z", 1)]
        path = save(Path(folder) / "m.onnx", nodes, [value("x", 1, 2, 8, 8)], outputs, weights)
        return path.read_bytes()


VALID = valid_model()


def compile_bytes(data):
    """The exit status of `aotc compile`, its message, and the names of the files it left."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        path.write_bytes(data)
        err = io.StringIO()
        with contextlib.redirect_stderr(err), contextlib.redirect_stdout(io.StringIO()):
            status = main(["compile", str(path), "-o", f"{folder}/out"])
        left = sorted(file.name for file in Path(folder, "out").glob("*"))
        return status, err.getvalue(), left


def check(data):
    """Either a message and no files, or all files; then the code computes what the graph means."""
    status, message, left = compile_bytes(data)
    assert status in (0, 2), message
    assert "Traceback" not in message
    if status:
        assert message.startswith("aotc: ") and "m.onnx" in message and "remedy: " in message
        assert left == []
        return
    assert left == ["m.h", "m.json", "m.o"]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.onnx"
        path.write_bytes(data)
        graph = aotc.load_onnx(path)
    model = aotc.compile(graph)
    inputs = make_inputs(model.signature.inputs, seed=0)
    with np.errstate(all="ignore"):
        expected = evaluate(graph, inputs)
    for difference in compare_outputs(model.run_dict(inputs), expected, 1e-3):
        assert difference.passed, difference


@pytest.mark.slow
def test_the_model_itself_compiles():
    assert compile_bytes(VALID)[0] == 0
    check(VALID)


@for_all(st.data(), quick=6, slow=60)
def test_changed_bytes(data):
    damaged = bytearray(VALID)
    for _ in range(data.draw(st.integers(1, 4))):
        # Mostly in the nodes and the signature; the weights in between are values like any other.
        position = data.draw(st.integers(0, len(damaged) - 1))
        damaged[position] = data.draw(st.integers(0, 255))
    check_only_for_crashes(bytes(damaged))


@for_all(st.integers(0, len(VALID) - 1), quick=3, slow=20)
def test_cut_short(length):
    check_only_for_crashes(VALID[:length])


def check_only_for_crashes(data):
    """Changed bytes may be changed weights, NaN among them: their values are not compared."""
    status, message, left = compile_bytes(data)
    assert status in (0, 2), message
    assert "Traceback" not in message
    assert bool(left) == (status == 0)


NAMES = st.sampled_from(["x", "w", "c", "r", "p", "s", "t", "f", "m", "g", "y", "", "nowhere"])
OPERATORS = st.sampled_from(
    [
        "Relu", "Add", "MatMul", "Conv", "Reshape", "Concat", "Transpose", "Softmax", "Gather",
        "Cast", "Slice", "Expand", "Pad", "Gemm", "ReduceSum", "ArgMax", "If", "Loop", "TopK",
        "Resize", "Foo",
    ]
)


def rename_operand(model, draw):
    node = draw(st.sampled_from(list(model.graph.node)))
    node.input[draw(st.integers(0, len(node.input) - 1))] = draw(NAMES)


def rename_result(model, draw):
    draw(st.sampled_from(list(model.graph.node))).output[0] = draw(NAMES)


def change_operator(model, draw):
    draw(st.sampled_from(list(model.graph.node))).op_type = draw(OPERATORS)


def change_attribute(model, draw):
    nodes = [node for node in model.graph.node if node.attribute]
    attribute = draw(st.sampled_from(list(draw(st.sampled_from(nodes)).attribute)))
    number = draw(st.sampled_from([-(2**63), -3, -1, 0, 1, 2, 7, 2**31, 2**60]))
    if attribute.ints:
        attribute.ints[draw(st.integers(0, len(attribute.ints) - 1))] = number
    else:
        attribute.i = number


def remove_attribute(model, draw):
    nodes = [node for node in model.graph.node if node.attribute]
    del draw(st.sampled_from(nodes)).attribute[:]


def remove_node(model, draw):
    del model.graph.node[draw(st.integers(0, len(model.graph.node) - 1))]


def swap_nodes(model, draw):
    nodes = model.graph.node
    i, j = (draw(st.integers(0, len(nodes) - 1)) for _ in range(2))
    first, second = onnx.NodeProto(), onnx.NodeProto()
    first.CopyFrom(nodes[i])
    second.CopyFrom(nodes[j])
    nodes[i].CopyFrom(second)
    nodes[j].CopyFrom(first)


def change_dimension(model, draw):
    infos = [*model.graph.input, *model.graph.output]
    dims = draw(st.sampled_from(infos)).type.tensor_type.shape.dim
    dim = draw(st.sampled_from(list(dims)))
    if draw(st.booleans()):
        dim.dim_value = draw(st.sampled_from([-1, 0, 1, 3, 2**31, 2**62]))
    else:
        dim.dim_param = draw(st.sampled_from(["n", "", "other"]))


def change_weight_shape(model, draw):
    tensor = draw(st.sampled_from(list(model.graph.initializer)))
    place = draw(st.integers(0, len(tensor.dims) - 1))
    tensor.dims[place] = draw(st.sampled_from([-1, 0, 1, 2, 2**40]))


def change_type(model, draw):
    number = draw(st.integers(0, 24))
    if draw(st.booleans()):
        draw(st.sampled_from(list(model.graph.initializer))).data_type = number
    else:
        model.graph.input[0].type.tensor_type.elem_type = number


def change_opset(model, draw):
    model.opset_import[0].version = draw(st.sampled_from([-1, 0, 1, 6, 7, 12, 13, 18, 21, 99]))


def point_outside(model, draw):
    tensor = draw(st.sampled_from(list(model.graph.initializer)))
    tensor.data_location = onnx.TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key = "location"
    places = ["/etc/passwd", "../../etc/passwd", "m.onnx", "", "nowhere"]
    entry.value = draw(st.sampled_from(places))


MUTATIONS = [
    rename_operand,
    rename_result,
    change_operator,
    change_attribute,
    remove_attribute,
    remove_node,
    swap_nodes,
    change_dimension,
    change_weight_shape,
    change_type,
    change_opset,
    point_outside,
]


@pytest.mark.slow
@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
@pytest.mark.parametrize("cases", [2, pytest.param(12, marks=pytest.mark.slow)])
def test_changed_meaning(mutate, cases):
    @settings(max_examples=cases, deadline=None)
    @given(st.data())
    def every(data):
        model = onnx.load_from_string(VALID)
        mutate(model, data.draw)
        check(model.SerializeToString())

    every()


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.lists(st.sampled_from(MUTATIONS), min_size=1, max_size=3), st.data())
def test_many_changes(mutations, data):
    model = onnx.load_from_string(VALID)
    for mutate in mutations:
        with contextlib.suppress(IndexError):  # an earlier change took away what this one needs
            mutate(model, data.draw)
    check(model.SerializeToString())
