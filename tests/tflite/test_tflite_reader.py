"""TFLite files as models: names, shapes, options, whole nets in machine code, damaged files."""

import sys

import numpy as np
import pytest
import test_tflite_contract as contract
import test_tflite_control as control
from hypothesis import given, settings
from hypothesis import strategies as st
from tflite_files import Net, check, draw, lite, ours

import aotc
from aotc.cli import main
from aotc.errors import AotcError
from aotc.frontend.reader import check_model, import_model, load_tflite, names_of


def saved(net, folder, name="model.tflite"):
    path = folder / name
    path.write_bytes(net if isinstance(net, bytes) else net.to_bytes())
    return path


def add(shape=(2, 3), **details):
    """A model of one sum."""
    net = Net()
    places = [net.input(shape, name="a", **details), net.input(shape, name="b", **details)]
    net.outputs = [net.add(shape, name="sum")]
    net.operator("ADD", places, net.outputs, "AddOptions")
    return net


def small_net(seed=0):
    """Convolution, depthwise convolution, residual sum, pooling, product and softmax in int8."""
    rng, net = np.random.default_rng(seed), Net()
    one = {"Padding": 0, "StrideH": 1, "StrideW": 1, "DilationHFactor": 1, "DilationWFactor": 1}
    x = net.input((1, 8, 8, 3), "int8", scale=0.02, zero=-4, name="image")
    w, b, first = contract.quantised(net, rng, "int8", (8, 3, 3, 3), 8, 0, (1, 8, 8, 8))
    net.operator("CONV_2D", [x, w, b], [first], "Conv2DOptions", FusedActivationFunction=1, **one)
    net.tensors[first].scale, net.tensors[first].zero = 0.02, -128
    w, b, second = contract.quantised(net, rng, "int8", (1, 3, 3, 8), 8, 3, (1, 8, 8, 8))
    net.operator(
        "DEPTHWISE_CONV_2D", [first, w, b], [second], "DepthwiseConv2DOptions", DepthMultiplier=1,
        FusedActivationFunction=3, **one,
    )  # fmt: skip
    total = net.add((1, 8, 8, 8), "int8", scale=0.1, zero=-100)
    net.operator("ADD", [first, second], [total], "AddOptions")
    pooled = net.add((1, 1, 1, 8), "int8", scale=0.1, zero=-100)
    net.operator(
        "AVERAGE_POOL_2D", [total], [pooled], "Pool2DOptions", FilterHeight=8, FilterWidth=8,
        StrideH=8, StrideW=8, Padding=1,
    )  # fmt: skip
    flat = net.add((1, 8), "int8", scale=0.1, zero=-100)
    net.operator("RESHAPE", [pooled], [flat], "ReshapeOptions", NewShape=[1, 8])
    w, b, logits = contract.quantised(net, rng, "int8", (4, 8), 4, 0, (1, 4), per_channel=False)
    net.operator("FULLY_CONNECTED", [flat, w, b], [logits], "FullyConnectedOptions")
    y = net.add((1, 4), "int8", scale=1 / 256, zero=-128, name="scores")
    net.operator("SOFTMAX", [logits], [y], "SoftmaxOptions", Beta=1.0)
    net.outputs = [y]
    return net


@pytest.mark.slow
def test_a_net_in_machine_code(tmp_path):
    net = small_net()
    model = aotc.compile(saved(net, tmp_path))
    assert [param.name for param in model.signature.inputs] == ["image"]
    for seed in range(3):
        x = draw(net.tensors[0], seed)
        (want,) = lite(net.to_bytes(), [x])
        assert np.abs(model(image=x).astype(int) - want).max() <= 1
    # without the softmax all of it is integer arithmetic
    net.operators.pop()
    net.outputs = [net.operators[-1][2][0]]
    check(net, tmp_path, steps=0)


def test_channels_last_needs_no_transposes(tmp_path):
    graph = load_tflite(saved(small_net(), tmp_path))
    assert not any(type(node.op).__name__ == "Transpose" for node in graph.nodes())


def test_the_command_line_takes_tflite_files(tmp_path):
    path = saved(add(), tmp_path, "net.tflite")
    assert main(["check", str(path)]) == 0
    assert main(["compile", str(path), "-o", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "net.h").exists()


@pytest.mark.slow
def test_every_stage_against_litert(tmp_path, capsys):
    path = saved(small_net(), tmp_path)
    assert main(["verify", str(path), "--stages"]) == 0
    assert "litert" in capsys.readouterr().out


def test_files_are_told_by_their_first_bytes(tmp_path):
    path = saved(add(), tmp_path, "model.bin")
    assert load_tflite(path).name == "model"
    assert names_of(path).inputs == {"a", "b"}


def test_where_an_onnx_file_is_needed(tmp_path):
    with pytest.raises(aotc.ModelError, match="is a TFLite model"):
        aotc.load_onnx(saved(add(), tmp_path))


def test_several_models_of_both_kinds(tmp_path):
    one, two = (saved(add(), tmp_path, f"{name}.tflite") for name in ("one", "two"))
    models = aotc.compile_together([one, two], name="both", outputs=["sum"])
    x = np.ones((2, 3), np.float32)
    np.testing.assert_array_equal(models["two"](x, x), 2 * x)


def test_equal_names_are_told_apart(tmp_path):
    net = add()
    net.tensors[1].name = "a"
    assert [node.op.name for node in load_tflite(saved(net, tmp_path)).inputs] == ["a", "a_1"]


def test_open_sizes(tmp_path):
    path = saved(add((1, 3), signature=(-1, 3)), tmp_path)
    assert load_tflite(path).inputs[0].shape == (1, 3)
    shapes = {"a": (5, 3), "b": (5, 3)}
    assert load_tflite(path, input_shapes=shapes).outputs[0][1].shape == (5, 3)
    for shapes in ({"a": (5, 4)}, {"a": (5, 3, 1)}, {"a": (-1, 3)}, {"c": (1, 3)}):
        with pytest.raises(aotc.UsageError):
            load_tflite(path, input_shapes=shapes)
    with pytest.raises(aotc.UsageError, match="have no names"):
        import_model(path, dims={"batch": 2})


def test_inner_tensors_as_outputs(tmp_path):
    net = small_net()
    net.tensors[3].name = "first"
    path = saved(net, tmp_path)
    (name, node), *_ = load_tflite(path, outputs=["first"]).outputs
    assert (name, node.shape) == ("first", (1, 8, 8, 8))
    with pytest.raises(aotc.UsageError, match="no output 'third'"):
        load_tflite(path, outputs=["third"])


def test_what_no_output_needs_is_not_imported(tmp_path):
    net = add()
    net.operator("RFFT2D", [0], [net.add((2, 3))])
    assert load_tflite(saved(net, tmp_path)).outputs[0][0] == "sum"


def test_four_bit_weights(tmp_path):
    rng, net = np.random.default_rng(0), Net()
    stored = rng.integers(-8, 8, (3, 5))
    packed = np.append(stored.reshape(-1), 0).reshape(-1, 2) & 15
    x = net.input((1, 5))
    w = net.constant((packed[:, 0] | packed[:, 1] << 4).astype(np.uint8), scale=0.5)
    net.tensors[w].shape, net.tensors[w].dtype = (3, 5), "int4"
    net.outputs = [net.add((1, 3))]
    net.operator("FULLY_CONNECTED", [x, w, -1], net.outputs, "FullyConnectedOptions")
    data = draw(net.tensors[x])
    graph = aotc.compile(saved(net, tmp_path))
    np.testing.assert_allclose(graph(data), data @ (stored.T * 0.5), rtol=1e-5)


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    path = saved(add(), tmp_path)
    monkeypatch.setitem(sys.modules, "tflite", None)
    with pytest.raises(aotc.UsageError, match="package tflite") as caught:
        load_tflite(path)
    assert "aotc[tflite]" in str(caught.value)


# Damage and nonsense.


def wrong(change):
    """`small_net` after ``change``, which gets the net."""
    net = small_net()
    change(net)
    return net


def rename(net, place, name, **options):
    operator = list(net.operators[place])
    operator[0] = name
    net.operators[place] = tuple(operator)


def set_indices(net, place, side, indices):
    net.operators[place][side][:] = indices


def custom(net):
    net.operators[0] = (*net.operators[0][:3], "", {}, b"x")


def set_tensor(net, place, **details):
    for name, value in details.items():
        setattr(net.tensors[place], name, value)


WRONG = [
    (lambda net: rename(net, 1, "RFFT2D"), "RFFT2D is not supported"),
    (lambda net: custom(net), "custom operator CONV_2D is not supported"),
    (lambda net: rename(net, 0, "DEPTHWISE_CONV_2D"), "options are Conv2DOptions"),
    (lambda net: set_indices(net, 0, 1, [0, 999, 2]), "name tensor 999"),
    (lambda net: set_indices(net, 0, 1, [0, 1, 9]), "no input, constant or earlier operator"),
    (lambda net: set_indices(net, 0, 1, [0, -1, 2]), "operand 1 is missing|input 1 is missing"),
    (lambda net: set_indices(net, 1, 2, [3]), "another source"),
    (lambda net: set_tensor(net, 1, data=np.zeros(5, np.int8)), "needs 216 bytes"),
    (lambda net: set_tensor(net, 1, shape=(2**30, 2**30, 3, 3)), "scales and|needs"),
    (lambda net: set_tensor(net, 1, scale=-1.0), "more than 0"),
    (lambda net: set_tensor(net, 1, scale=float("nan")), "more than 0"),
    (lambda net: set_tensor(net, 1, axis=7), "along axis 7"),
    (lambda net: set_tensor(net, 3, zero=300), "zero point 300"),
    (lambda net: set_tensor(net, 0, zero=-129), "zero point -129"),
    (lambda net: set_tensor(net, 1, zero=2**40), "zero point 1099511627776"),
    (lambda net: set_tensor(net, 0, dtype="float64"), "differ"),
    (lambda net: set_tensor(net, 0, shape=(2**30, 2**30, 2**30, 3)), "more than"),
    (lambda net: set_tensor(net, 0, shape=(1, 8, 3)), "4 axes"),
    (lambda net: net.operators[0][4].update(StrideH=0), "1 or more"),
    (lambda net: net.operators[0][4].update(Padding=7), "padding is number 7"),
    (lambda net: net.operators[0][4].update(FusedActivationFunction=77), "number 77"),
    (lambda net: net.operators[3][4].update(FilterHeight=2**30), "does not fit"),
    (lambda net: net.outputs.clear(), "no outputs"),
    (lambda net: net.inputs.append(0), "its inputs"),
]


@pytest.mark.parametrize(("change", "message"), WRONG, ids=[text for _, text in WRONG])
def test_contradictions_are_named(change, message, tmp_path):
    path = saved(wrong(change), tmp_path)
    with pytest.raises(AotcError, match=message) as caught:
        import_model(path)
    assert str(path) in str(caught.value) and "remedy" in str(caught.value)


def test_check_lists_all_problems(tmp_path):
    net = small_net()
    net.outputs += [net.add((1, 4)), net.add((1, 4))]
    net.operator("RFFT2D", [0], [net.outputs[1]])
    net.operator("UNIQUE", [0], [net.outputs[2]])
    problems = check_model(saved(net, tmp_path))
    assert [problem.operator for problem in problems] == ["RFFT2D", "UNIQUE"]
    assert all(problem.remedy and problem.node for problem in problems)


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\0" * 64, b"\x10\0\0\0TFL3" + b"\xff" * 64])
def test_files_that_are_none(data, tmp_path):
    with pytest.raises(aotc.ModelError):
        import_model(saved(data, tmp_path))


def test_values_behind_the_tables(tmp_path):
    """As files of more than 2 GB have them."""
    net, x = small_net(), draw(small_net().tensors[0])
    data = net.to_bytes(behind=True)
    np.testing.assert_array_equal(ours(data, [x], tmp_path), ours(net.to_bytes(), [x], tmp_path))
    with pytest.raises(aotc.ModelError, match="ends beyond the file"):
        import_model(saved(data[:-32], tmp_path))


SEEDS = [
    small_net().to_bytes(),
    control._loop().to_bytes(),
    control.detector(True, boxes=8).to_bytes(),
]


def mutated(data, changes):
    """``data`` after ``changes``: (place, value) pairs write four bytes, a value of None cuts."""
    found = bytearray(data)
    for place, value in changes:
        at = place % len(found)
        if value is None:
            found = found[: max(at, 1)]
        else:
            found[at : at + 4] = value.to_bytes(4, "little")
    return bytes(found)


values = st.one_of(
    st.none(),
    st.sampled_from([0, 1, 2**24, 2**30, 2**31 - 1, 2**31, 2**32 - 1]),
    st.integers(0, 4096),
)
changes = st.lists(st.tuples(st.integers(0, 10**6), values), min_size=1, max_size=4)


def expect_a_graph_or_a_message(folder, data):
    path = saved(data, folder)
    try:
        import_model(path)
    except AotcError as error:
        assert str(error)


@settings(max_examples=40, deadline=None)
@given(seed=st.sampled_from(SEEDS), changes=changes)
def test_damaged_files(tmp_path_factory, seed, changes):
    expect_a_graph_or_a_message(tmp_path_factory.getbasetemp(), mutated(seed, changes))


@pytest.mark.slow
@settings(max_examples=1500, deadline=None)
@given(seed=st.sampled_from(SEEDS), changes=changes)
def test_many_damaged_files(tmp_path_factory, seed, changes):
    expect_a_graph_or_a_message(tmp_path_factory.getbasetemp(), mutated(seed, changes))
