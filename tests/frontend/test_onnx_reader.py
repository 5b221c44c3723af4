"""Reading whole files: what a good model gives, and one clear error for each way to be bad."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx_cases import f32, model_of, run_file, save

from aotc.errors import AotcError, ModelError, UnsupportedError, UsageError
from aotc.frontend.onnx_reader import check_onnx, load_onnx
from aotc.graph import ops
from aotc.graph.ir import Graph

X = f32(2, 3)


def relu_chain(*names):
    """relu from each name to the next."""
    pairs = zip(names[:-1], names[1:], strict=True)
    return [helper.make_node("Relu", [x], [y], name=f"n_{y}") for x, y in pairs]


def test_a_graph_keeps_the_names_of_the_file(tmp_path):
    path = save(model_of(relu_chain("x", "h", "y"), {"x": X}, ["y"]), tmp_path, "net.onnx")
    graph = load_onnx(path)
    assert isinstance(graph, Graph)
    assert graph.name == "net"
    assert load_onnx(path, name="other").name == "other"
    assert [node.op.name for node in graph.inputs] == ["x"]
    assert [name for name, _ in graph.outputs] == ["y"]
    assert graph.outputs[0][1].origin == "n_y"
    assert check_onnx(path) == []


def test_any_tensor_can_be_an_output(tmp_path):
    path = save(model_of(relu_chain("x", "h", "y"), {"x": X}, ["y"]), tmp_path)
    graph = load_onnx(path, outputs=["h"])
    assert graph.outputs[0][1].origin == "n_h"
    with pytest.raises(UsageError, match="(?s)no output 'z'.*it has: y"):
        load_onnx(path, outputs=["z"])


def test_nodes_may_stand_in_any_order(tmp_path):
    nodes = relu_chain("x", "h", "y")[::-1]
    np.testing.assert_array_equal(
        run_file(save(model_of(nodes, {"x": X}, ["y"]), tmp_path), {"x": X})[0], np.maximum(X, 0)
    )


def test_shape_arithmetic_is_gone_after_reading(tmp_path):
    """Reshape to [d0 * d1 / 2, 2] computed from Shape, through integers and floats."""
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("ReduceProd", ["s"], ["n"], keepdims=1),
        helper.make_node("Cast", ["n"], ["nf"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["nf", "two_f"], ["half_f"]),
        helper.make_node("Cast", ["half_f"], ["half"], to=TensorProto.INT64),
        helper.make_node("Concat", ["half", "two"], ["t"], axis=0),
        helper.make_node("Reshape", ["x", "t"], ["y"]),
    ]
    weights = {"two_f": np.float32(2), "two": np.array([2])}
    path = save(model_of(nodes, {"x": X}, ["y"], weights), tmp_path)
    graph = load_onnx(path)
    assert [type(node.op) for node in graph.nodes()] == [ops.Parameter, ops.Reshape]
    assert graph.outputs[0][1].shape == (3, 2)


def test_an_unsupported_node_in_a_dead_part_does_no_harm(tmp_path):
    nodes = [*relu_chain("x", "y"), helper.make_node("Frobnicate", ["x"], ["z"])]
    path = save(model_of(nodes, {"x": X}, ["y", "z"]), tmp_path)
    assert len(check_onnx(path)) == 1
    assert load_onnx(path, outputs=["y"]).outputs[0][0] == "y"


def test_the_same_weights_are_stored_once(tmp_path):
    weights = f32(64, 64)
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"]),
             helper.make_node("MatMul", ["h", "b"], ["y"])]
    model = model_of(nodes, {"x": f32(2, 64)}, ["y"], {"a": weights, "b": weights})
    graph = load_onnx(save(model, tmp_path))
    assert len([node for node in graph.nodes() if node.data is not None]) == 1


# What cannot be read as ONNX at all.


@pytest.mark.parametrize(
    "data", [b"", b"hello, this is no model\n" * 9, b"\x00" * 100, b"\xff" * 100, b"PK\x03\x04"]
)
def test_files_that_are_not_onnx(data, tmp_path):
    path = tmp_path / "bad.onnx"
    path.write_bytes(data)
    for read in (load_onnx, check_onnx):
        with pytest.raises(ModelError, match=r"(?s)bad\.onnx.*remedy"):
            read(path)


def test_an_archive_of_pytorch_is_not_opened(tmp_path):
    path = tmp_path / "net.pt2"
    path.write_bytes(b"PK\x03\x04" + bytes(40))
    with pytest.raises(ModelError, match="(?s)an archive, not ONNX.*run code.*aotc.from_torch"):
        load_onnx(path)


def test_a_truncated_file(tmp_path):
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], {"x": X}, ["y"], {"w": X})
    data = model.SerializeToString()
    path = tmp_path / "cut.onnx"
    for size in range(0, len(data) - 1, 7):
        path.write_bytes(data[:size])
        with pytest.raises(AotcError, match=r"cut\.onnx"):
            load_onnx(path)


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(ModelError, match="cannot read the file"):
            load_onnx(path)


# What is wrong with one node.


def node_error(tmp_path, nodes, words, error=ModelError, inputs=None, weights=(), opset=17, **more):
    """Reading the model raises ``error`` with ``words``; `check_onnx` says the same."""
    inputs = {"x": X} if inputs is None else inputs
    path = save(model_of(nodes, inputs, ["y"], weights, opset, **more), tmp_path)
    with pytest.raises(error, match=f"(?s){words}") as caught:
        load_onnx(path)
    assert str(path) in str(caught.value)
    assert caught.value.remedy
    problems = check_onnx(path)
    assert problems
    return problems


def test_an_unknown_operator(tmp_path):
    node = helper.make_node("Frobnicate", ["x"], ["y"], name="frob")
    (problem,) = node_error(tmp_path, [node], "frob.*Frobnicate", UnsupportedError)
    assert (problem.node, problem.operator, problem.opset) == ("frob", "Frobnicate", 17)
    assert "not an ONNX operator" in problem.reason


def test_an_operator_of_a_later_opset(tmp_path):
    node = helper.make_node("Gelu", ["x"], ["y"])
    node_error(tmp_path, [node], "Gelu does not exist in opset 17", UnsupportedError)


def test_an_unknown_domain(tmp_path):
    node = helper.make_node("Relu", ["x"], ["y"], domain="com.example")
    node_error(tmp_path, [node], "does not import the operator domain 'com.example'")


@pytest.mark.parametrize("opset", [0, 999])
def test_opsets_out_of_range(tmp_path, opset):
    node_error(tmp_path, relu_chain("x", "y"), f"opset {opset}", UnsupportedError, opset=opset)


def test_all_problems_at_once(tmp_path):
    nodes = [
        helper.make_node("Frobnicate", ["x"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="after"),
        helper.make_node("Frobnicate", ["b"], ["c"], name="second"),
        helper.make_node("Frobnicate", ["x"], ["d"], name="third"),
        helper.make_node("Concat", ["c", "d"], ["y"], name="last", axis=0),
    ]
    problems = check_onnx(save(model_of(nodes, {"x": X}, ["y"]), tmp_path))
    assert [problem.node for problem in problems] == ["first", "second", "third"]


def test_a_missing_initialiser_is_named(tmp_path):
    node = helper.make_node("Add", ["x", "weights"], ["y"], name="sum")
    node_error(tmp_path, [node], "'sum' .Add.*'weights' is read, but no")


def test_an_output_that_nothing_defines(tmp_path):
    node_error(tmp_path, relu_chain("x", "z"), "'y' is read, but no")


def test_a_cycle(tmp_path):
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], name="one"),
        helper.make_node("Relu", ["a"], ["b"], name="two"),
        helper.make_node("Relu", ["b"], ["y"]),
    ]
    node_error(tmp_path, nodes, "needs its own result: the graph has a cycle")


def test_a_node_that_reads_its_own_output(tmp_path):
    node_error(tmp_path, [helper.make_node("Add", ["x", "y"], ["y"])], "cycle")


def test_contradictory_shapes(tmp_path):
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="mm")
    node_error(tmp_path, [node], "mm.*3 columns.*4 rows", weights={"w": f32(4, 5)})
    node = helper.make_node("Add", ["x", "w"], ["y"], name="plus")
    node_error(tmp_path, [node], "plus.*do not broadcast", weights={"w": f32(4)})


def test_an_output_declared_otherwise(tmp_path):
    model = model_of(relu_chain("x", "y"), {"x": X}, ["y"])
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, [9, 9]))
    with pytest.raises(ModelError, match=r"declared as \[9,9\].*float32\[2,3\]"):
        load_onnx(save(model, tmp_path))


def test_names_defined_twice(tmp_path):
    twice = [*relu_chain("x", "y"), *relu_chain("x", "y")]
    node_error(tmp_path, twice, "'y' is defined twice")
    node_error(tmp_path, relu_chain("w", "x", "y"), "as well as an output", weights={"w": X})
    model = model_of(relu_chain("x", "y"), {"x": X}, ["y"], {"w": X})
    model.graph.initializer.append(numpy_helper.from_array(X, "w"))
    with pytest.raises(ModelError, match="initialiser 'w' is defined twice"):
        load_onnx(save(model, tmp_path))
    model = model_of(relu_chain("x", "y"), {"x": X}, ["y", "y"])
    with pytest.raises(ModelError, match="names one output twice"):
        load_onnx(save(model, tmp_path))


def test_a_shape_computed_at_run_time(tmp_path):
    node = helper.make_node("Reshape", ["x", "s"], ["y"], name="r")
    inputs = {"x": X, "s": np.array([3, 2])}
    words = "'r' .Reshape.*computed at run time.*declare the shape of 'y'.*--max y=N"
    node_error(tmp_path, [node], words, UnsupportedError, inputs)


@pytest.mark.parametrize("kind", [TensorProto.COMPLEX64, TensorProto.FLOAT6E2M3])
def test_element_types_that_aotc_lacks(tmp_path, kind):
    inputs = {"x": helper.make_tensor_type_proto(kind, [2])}
    name = TensorProto.DataType.Name(kind)
    node_error(tmp_path, relu_chain("x", "y"), f"{name} is not supp", UnsupportedError, inputs)


def test_malformed_nodes(tmp_path):
    node_error(tmp_path, [helper.make_node("Add", ["x"], ["y"])], "has 1 inputs; Add takes 2")
    node = helper.make_node("Relu", ["x"], ["y"], colour=3)
    node_error(tmp_path, [node], "the attribute 'colour'")
    node = helper.make_node("Softmax", ["x"], ["y"], axis="last")
    node_error(tmp_path, [node], "attribute 'axis' must be an integer, but is of type STRING")
    node_error(tmp_path, [helper.make_node("Cast", ["x"], ["y"])], "attribute 'to'.*is missing")
    node = helper.make_node("Softmax", ["x"], ["y"], axis=5)
    node_error(tmp_path, [node], "axis 5 is outside a tensor of rank 2")


def test_the_output_of_an_optional_result_that_is_not_supported(tmp_path):
    names = ["x", "scale", "bias", "mean", "var"]
    node = helper.make_node("BatchNormalization", names, ["v", "m", "y"], training_mode=0)
    inputs = {"x": f32(1, 2, 4), **{name: f32(2, low=0.5) for name in names[1:]}}
    node_error(tmp_path, [node], "output.*not", AotcError, inputs)


# Models that ask for too much.


HUGE = np.array([1 << 30, 1 << 30])


@pytest.mark.parametrize(
    ("op", "operands", "attrs"),
    [
        ("ConstantOfShape", ["huge"], {}),
        ("Expand", ["one", "huge"], {}),
        ("Tile", ["pair", "huge"], {}),
        ("Pad", ["pair", "pads"], {}),
        ("Pad", ["pair", "pads"], {"mode": "reflect"}),
        ("Pad", ["pair", "pads"], {"mode": "edge"}),
        ("Range", ["zero", "limit", "step"], {}),
        ("OneHot", ["zero", "limit", "values"], {}),
        ("Resize", ["image", "", "scales"], {"mode": "nearest"}),
        ("Resize", ["image", "", "scales"], {"mode": "linear"}),
    ],
)
def test_2_to_the_60_elements_are_refused_at_once(tmp_path, op, operands, attrs):
    weights = {
        "huge": HUGE,
        "one": np.ones((1, 1), np.float32),
        "pair": np.ones((2, 2), np.float32),
        "pads": np.array([0, 0, 1 << 30, 1 << 30]),
        "zero": np.array(0),
        "limit": np.array(1 << 60),
        "step": np.array(1),
        "values": np.array([0, 1], np.float32),
        "image": np.ones((1, 1, 2, 2), np.float32),
        "scales": np.array([1, 1, 2.0**29, 2.0**29], np.float32),
    }
    node = helper.make_node(op, operands, ["y"], name="big", **attrs)
    used = {name: weights[name] for name in operands if name}
    node_error(tmp_path, [node], "big", AotcError, weights=used)


def test_a_huge_initialiser_without_data(tmp_path):
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], {"x": X}, ["y"], {"w": X})
    model.graph.initializer[0].dims[:] = [1 << 30, 1 << 30]
    with pytest.raises(ModelError, match="'w' asks for 1152921504606846976 elements"):
        load_onnx(save(model, tmp_path))


def test_a_huge_input(tmp_path):
    inputs = {"x": helper.make_tensor_type_proto(TensorProto.FLOAT, [1 << 30, 1 << 30])}
    node_error(tmp_path, relu_chain("x", "y"), "input 'x' asks for", inputs=inputs)


def test_functions_that_grow_without_end(tmp_path):
    """f0 calls f1 twice, f1 calls f2 twice, ...: 2**40 nodes from forty functions."""
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    functions = []
    for level in range(40):
        inner = [helper.make_node(f"f{level + 1}", [a], [b], domain="local")
                 for a, b in (("p", "q"), ("q", "r"))]
        functions.append(helper.make_function("local", f"f{level}", ["p"], ["r"], inner, opsets))
    node = helper.make_node("f0", ["x"], ["y"], domain="local")
    model = model_of([node], {"x": X}, ["y"], functions=functions)
    model.opset_import.append(opsets[1])
    with pytest.raises(ModelError, match="nested more than"):
        load_onnx(save(model, tmp_path))


def test_a_function_that_calls_itself(tmp_path):
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    inner = helper.make_node("f", ["p"], ["r"], domain="local")
    function = helper.make_function("local", "f", ["p"], ["r"], [inner], opsets)
    node = helper.make_node("f", ["x"], ["y"], domain="local")
    model = model_of([node], {"x": X}, ["y"], functions=[function])
    model.opset_import.append(opsets[1])
    with pytest.raises(ModelError, match="may not call itself"):
        load_onnx(save(model, tmp_path))


def test_the_error_of_an_empty_graph(tmp_path):
    path = save(onnx.ModelProto(ir_version=8, graph=onnx.GraphProto(name="g")), tmp_path)
    with pytest.raises(ModelError, match="holds no ONNX graph"):
        load_onnx(path)
