"""Binding of symbolic dimensions by flags, and the errors that name what is missing."""

import numpy as np
import pytest
from onnx import TensorProto, helper
from onnx_cases import model_of, save

from aotc.errors import ModelError, UsageError
from aotc.frontend.onnx_reader import check_onnx, load_onnx


def typed(shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_type_proto(kind, shape)


@pytest.fixture
def path(tmp_path):
    """y = x + w with x [batch, 3, ?] and w [batch, 1, 1]."""
    inputs = {"x": typed(["batch", 3, None]), "w": typed(["batch", 1, 1])}
    return save(model_of([helper.make_node("Add", ["x", "w"], ["y"])], inputs, ["y"]), tmp_path)


@pytest.fixture
def named(tmp_path):
    """y = relu(x) with x [batch, width]."""
    node = helper.make_node("Relu", ["x"], ["y"])
    return save(model_of([node], {"x": typed(["batch", "width"])}, ["y"]), tmp_path)


def test_dims_bind_every_use_of_a_symbol(named):
    graph = load_onnx(named, dims={"batch": 2, "width": 5})
    assert [str(node.type) for node in graph.inputs] == ["float32[2,5]"]


def test_a_shape_binds_its_symbols_for_other_inputs(path):
    graph = load_onnx(path, input_shapes={"x": (4, 3, 7)})
    assert [str(node.type) for node in graph.inputs] == ["float32[4,3,7]", "float32[4,1,1]"]


def test_an_unbound_symbol_is_named_with_both_flags(named):
    with pytest.raises(UsageError) as caught:
        load_onnx(named, dims={"batch": 2})
    text = str(caught.value)
    assert "'width'" in text
    assert "--dim width=1" in text
    assert "--input-shape x=2,1" in text
    assert str(named) in text


def test_an_unnamed_dimension_needs_the_whole_shape(path):
    with pytest.raises(UsageError, match="--input-shape x=2,3,1"):
        load_onnx(path, dims={"batch": 2})


@pytest.mark.parametrize("dim", ["?", -1, "-1", ""])
def test_names_that_are_no_names_count_as_unnamed(dim, tmp_path):
    node = helper.make_node("Relu", ["x"], ["y"])
    path = save(model_of([node], {"x": typed([dim, 2])}, ["y"]), tmp_path)
    with pytest.raises(UsageError, match="--input-shape x=1,2"):
        load_onnx(path)
    assert load_onnx(path, input_shapes={"x": (3, 2)}).inputs[0].shape == (3, 2)


def test_an_input_without_shape_needs_one(tmp_path):
    node = helper.make_node("Relu", ["x"], ["y"])
    path = save(model_of([node], {"x": typed(None)}, ["y"]), tmp_path)
    with pytest.raises(UsageError, match="no declared shape"):
        load_onnx(path)
    assert load_onnx(path, input_shapes={"x": ()}).inputs[0].shape == ()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dims": {"height": 3}}, "no dimension 'height'.*it has: batch, width"),
        ({"input_shapes": {"z": (1,)}}, "no input 'z'.*it has: x"),
        ({"dims": {"batch": 0, "width": 1}}, "dimension 'batch' cannot be 0"),
        ({"input_shapes": {"x": (1, -2)}}, "cannot have the shape 1,-2"),
        ({"input_shapes": {"x": (1, 2, 3)}}, "the model declares batch,width"),
        ({"dims": {"batch": 2}, "input_shapes": {"x": (1, 2)}}, "'batch' is both 2 and 1"),
    ],
)
def test_flags_that_do_not_fit_are_usage_errors(named, options, words):
    with pytest.raises(UsageError, match=f"(?s){words}"):
        load_onnx(named, **options)


def test_a_shape_may_not_contradict_the_model(path):
    with pytest.raises(UsageError, match=r"(?s)cannot have the shape 1,4,5.*batch,3,\?"):
        load_onnx(path, input_shapes={"x": (1, 4, 5)})


def test_pruning_frees_the_inputs_that_are_not_needed(tmp_path):
    nodes = [helper.make_node("Relu", [x], [y]) for x, y in (("a", "p"), ("b", "q"))]
    path = save(model_of(nodes, {"a": typed(["n"]), "b": typed([3])}, ["p", "q"]), tmp_path)
    graph = load_onnx(path, outputs=["q"])
    assert [node.op.name for node in graph.inputs] == ["b"]
    assert [name for name, _ in graph.outputs] == ["q"]


def test_check_lists_every_unbound_input(tmp_path):
    node = helper.make_node("Add", ["a", "b"], ["y"])
    path = save(model_of([node], {"a": typed(["n"]), "b": typed(["m"])}, ["y"]), tmp_path)
    assert [problem.node for problem in check_onnx(path)] == ["a", "b"]


def test_an_input_with_an_initialiser_is_a_constant(tmp_path):
    node = helper.make_node("Add", ["x", "w"], ["y"])
    weights = np.ones(2, np.float32)
    model = model_of([node], {"x": weights, "w": weights}, ["y"], {"w": weights})
    graph = load_onnx(save(model, tmp_path))
    assert [node.op.name for node in graph.inputs] == ["x"]


SEQUENCE = helper.make_sequence_type_proto(typed([2, "width"]))


@pytest.fixture
def listed(tmp_path):
    """n = length of s with s a sequence of [2, width]."""
    node = helper.make_node("SequenceLength", ["s"], ["n"])
    return save(model_of([node], {"s": SEQUENCE}, ["n"]), tmp_path)


def test_a_sequence_has_a_parameter_for_each_element(listed):
    graph = load_onnx(listed, input_shapes={"s": ((2, 3), (2, 5))})
    found = [(node.op.name, node.shape) for node in graph.inputs]
    assert found == [("s_0", (2, 3)), ("s_1", (2, 5))]
    assert len(load_onnx(listed, input_shapes={"s": (2, 3)}).inputs) == 1
    assert not load_onnx(listed, input_shapes={"s": ()}).inputs


def test_a_sequence_with_a_bound_has_a_length(listed):
    graph = load_onnx(listed, bounds={"s": 2}, dims={"width": 3})
    found = [(node.op.name, node.shape) for node in graph.inputs]
    assert found == [("s_0", (2, 3)), ("s_1", (2, 3)), ("s_length", ())]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "(?s)'s' is a sequence, and how many.*--input-shape 's=3,4;3,4'.*--max s=N"),
        ({"input_shapes": {"s": ((2, 3, 4),)}}, "'s' cannot have the shape 2,3,4"),
        ({"input_shapes": {"s": ((2, -3),)}}, "cannot have the shape"),
        ({"input_shapes": {"s": ((2, 3),) * 2000}}, "has 2000 elements, more than 1024"),
        ({"bounds": {"s": 4}}, "'width' of input 's'"),
    ],
)
def test_sequences_that_do_not_fit(options, words, listed):
    with pytest.raises(UsageError, match=words):
        load_onnx(listed, **options)


def test_several_shapes_for_one_tensor(named):
    with pytest.raises(UsageError, match="'x' is one tensor, but several shapes"):
        load_onnx(named, input_shapes={"x": ((2, 3), (2, 3))})


def test_a_part_may_not_have_the_name_of_another_input(tmp_path):
    node = helper.make_node("SequenceLength", ["s"], ["n"])
    inputs = {"s": helper.make_sequence_type_proto(typed([2])), "s_0": typed([2])}
    nodes = [node, helper.make_node("Neg", ["s_0"], ["y"])]
    path = save(model_of(nodes, inputs, ["n", "y"]), tmp_path)
    with pytest.raises(ModelError, match="two of its inputs need the name 's_0'"):
        load_onnx(path, input_shapes={"s": ((2,),)})
